# Every target sets up .venv by itself; once that is done, none needs a network.
#   make PYTHON=python3.12 ...   use another interpreter for the set-up
#   make PIP_ARGS="..." ...      pass arguments to pip install
.DEFAULT_GOAL := help
.PHONY: help setup lab test lessons site slides student bench matrix mutants lint

PYTHON ?=
PIP_ARGS ?=
LAB_ARGS ?=
TEST_ARGS ?=
export PYTHON PIP_ARGS

py := .venv/bin/python
# JupyterLab refuses to run as root unless told that this is meant, as it is in a container.
as_root := $(if $(filter 0,$(shell id -u)),--allow-root)
# Without a display there is no browser to open: print the address and serve.
no_display := $(if $(filter Linux,$(shell uname -s)),$(if $(DISPLAY)$(WAYLAND_DISPLAY),,--no-browser))

help:  ## List the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' Makefile

setup:  ## Make .venv and install the project (the other targets do it by themselves)
	@sh tools/setup.sh

lab: setup  ## Open the lessons in JupyterLab; LAB_ARGS="--no-browser --port 9999" is passed on
	$(py) -m jupyterlab --ServerApp.root_dir=notebooks --LabApp.default_url=/lab/tree/00_start_here.ipynb \
		$(as_root) $(no_display) $(LAB_ARGS)

test: setup  ## Run everything: unit tests, doctests, lessons under strict nbval
	$(py) -m pytest $(TEST_ARGS)

lessons: setup  ## Execute the lessons in place and refresh what is generated in them
	$(py) tools/lessons.py

lint: setup  ## ruff (py and ipynb), ruff format, mypy, codespell
	$(py) -m ruff check .
	$(py) -m ruff format --check .
	$(py) -m mypy
	$(py) -m codespell_lib

site: setup  ## Build the site from the stored lessons into build/site
	$(py) -m sphinx -W --keep-going -q -b html docs build/site
	@echo "open build/site/index.html; its explorer needs a server:"
	@echo "  $(py) -m http.server --bind 127.0.0.1 --directory build/site"

slides: setup  ## Make slides from the lessons into build/slides
	$(py) tools/slides.py

student: setup  ## Copy the lessons without solutions and outputs into build/student
	$(py) tools/student.py

bench: setup  ## Measure speed in one run, a quarter of an hour; writes docs/performance.md
	@mkdir -p build
	$(py) -m pytest -o addopts= -o 'python_files=bench_*.py' benchmarks -q -s \
		--benchmark-columns=median,iqr,rounds --benchmark-json=build/bench.json
	$(py) tools/performance.py build/bench.json

matrix: setup  ## Run tests and lessons on the oldest and newest transformers; needs a network
	$(py) tools/matrix.py

mutants: setup  ## Put faults into copies and see whether they are noticed; about an hour
	$(py) tools/mutants.py
