# Every target installs what it needs into .venv by itself, once; then none needs a network.
#   make PYTHON=python3.12 ...   use another interpreter for the set-up
#   make PIP_ARGS="..." ...      pass arguments to pip install
.DEFAULT_GOAL := help
.PHONY: help lab test test-all lessons site slides student zh bench matrix lint

PYTHON ?=
PIP_ARGS ?=
LAB_ARGS ?=
TEST_ARGS ?=
RELEASES ?= 4.57.* 5.*
export PYTHON PIP_ARGS

py := .venv/bin/python
# Two workers, a file each; in the order of testpaths, so that what takes longest begins first.
workers := -n 2 --dist loadfile --no-loadscope-reorder
setup := @sh tools/setup.sh
# JupyterLab refuses to run as root unless told that this is meant, as it is in a container.
as_root := $(if $(filter 0,$(shell id -u)),--allow-root)
# Without a display there is no browser to open: print the address and serve.
no_display := $(if $(filter Linux,$(shell uname -s)),$(if $(DISPLAY)$(WAYLAND_DISPLAY),,--no-browser))
# What is made from the Chinese lessons, by the same tools.
in_zh := MLMTUTOR_NOTEBOOKS="$(CURDIR)/build/zh/notebooks"

help:  ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' Makefile

lab:  ## Open your copy of the lessons (build/lab) in JupyterLab; LAB_ARGS="--no-browser --port 9999" is passed on
	$(setup) lab
	$(py) -m tools.copies lab
	@mkdir -p build/jupyter/custom && cp tools/lab.css build/jupyter/custom/custom.css
	JUPYTER_CONFIG_DIR=build/jupyter $(py) -m jupyterlab --LabApp.custom_css=True \
		--ServerApp.root_dir=build/lab --LabApp.default_url=/lab/tree/00_start_here.ipynb \
		$(as_root) $(no_display) $(LAB_ARGS)

test:  ## Unit tests, doctests, every lesson under strict nbval: some minutes, no browser
	$(setup) test
	$(py) -m pytest $(workers) -m "not slow and not browser" --ignore=tests/site $(TEST_ARGS)

test-all:  ## What make test leaves out: browser, site, slides, another checkpoint, slow ones
	$(setup) lab test site browser
	$(py) -m pytest $(workers) -m "slow or browser" $(TEST_ARGS)

lessons:  ## Execute the lessons in place and refresh what is generated in them
	$(setup) test
	$(py) -m tools.lessons
	$(py) -m tools.needs_nothing
	$(py) -m tools.picture

lint:  ## ruff (py and ipynb), ruff format, mypy, codespell
	$(setup) lint
	$(py) -m ruff check .
	$(py) -m ruff format --check .
	$(py) -m mypy
	$(py) -m codespell_lib

site:  ## Build the site from the stored lessons into build/site, the Chinese one into its zh/
	$(setup) site
	$(py) -m tools.translate build
	$(py) -m sphinx -W --keep-going -q -b html docs build/site
	$(in_zh) $(py) -m sphinx -W --keep-going -q -b html -c docs build/zh/docs build/site/zh
	@echo "open build/site/index.html; a sentence of your own in its explorer needs a server:"
	@echo "  $(py) -m http.server --bind 127.0.0.1 --directory build/site"

slides:  ## Make slides from the lessons into build/slides
	$(setup) site
	$(py) -m tools.slides

student:  ## Copy the lessons without solutions and outputs into build/student
	$(setup) lab
	$(py) -m tools.copies student

zh: site  ## Make lessons, slides and student copies in Chinese into build/zh, and the site in both languages
	$(setup) lab
	$(in_zh) $(py) -m tools.slides
	$(in_zh) $(py) -m tools.copies student

bench:  ## Measure speed in one run, a quarter of an hour
	$(setup) test
	@mkdir -p build
	$(py) -m pytest -o addopts= -o 'python_files=bench_*.py' benchmarks -q -s \
		--benchmark-columns=median,iqr,rounds --benchmark-json=build/bench.json

matrix:  ## What make test runs on other releases of transformers (RELEASES="4.57.* 5.*"); needs a network
	$(setup) test
	@mkdir -p build/matrix
	@grep -vE '^(transformers|tokenizers|huggingface.hub)==' constraints.txt > build/matrix/constraints.txt
	@for release in $(RELEASES); do \
		python="build/matrix/$$release/bin/python"; \
		$(py) -m venv "build/matrix/$$release" && "$$python" -m pip install -q -U $(PIP_ARGS) \
			-c build/matrix/constraints.txt -e ".[test]" "transformers==$$release" && \
		"$$python" -m pytest $(workers) -m "not slow and not browser" --ignore=tests/site \
			-o addopts="--doctest-modules --nbval-lax --nbval-current-env" $(TEST_ARGS) || exit 1; \
	done
