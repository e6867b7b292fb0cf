"""The reader of programs: each kind of mistake is found at its line, healthy programs raise nothing."""

import json
import re
import sys
import time
import warnings
from pathlib import Path

import hypothesis
import pytest
from hypothesis import strategies as st
from toys import release_5

from mlmtutor import __main__ as command
from mlmtutor.doctor import source
from mlmtutor.doctor.program import table
from mlmtutor.doctor.source import RULES, lint_paths, lint_source

TEXT = (Path(__file__).parent / "programs.txt").read_text(encoding="utf-8")
HEAD = "\n".join(re.findall(r"^HEAD (.+)$", TEXT, re.M)) + "\n"
PROGRAMS = {
    name: re.sub(r"^HEAD\n", lambda _: HEAD, program)
    for name, program in re.findall(r"^=== (.+)\n((?:(?!=== ).*\n)*)", TEXT, re.M)
}
OLD = HEAD + "loss = model(x, masked_lm_labels=y)\n"


def expected(program):
    """The line and the code of each finding, from the marks."""
    lines = enumerate(program.split("\n"), 1)
    return {(n, code) for n, line in lines for code in re.findall(r"#! (\S+)", line)}


@pytest.mark.parametrize("name", PROGRAMS)
def test_lint_source_finds_what_is_marked_and_nothing_else(name):
    program = PROGRAMS[name]
    assert ("#!" in program) != name.startswith("healthy")
    findings = lint_source(program)
    assert {(f.line, f.code) for f in findings} == expected(program)
    assert all(
        f.fix and f.message and "{" not in f.message + f.fix.split('f"')[0] for f in findings
    )


def test_lint_source_has_an_example_for_each_rule():
    found = {code for program in PROGRAMS.values() for _, code in expected(program)}
    assert found == RULES.keys()


@release_5
def test_every_name_in_the_table_is_gone_and_every_advice_is_used():
    import transformers

    gone = source._gone()
    assert len(gone["names"]) > 200
    assert not [name for name in gone["names"] if hasattr(transformers, name)]
    fields = transformers.TrainingArguments.__dataclass_fields__
    assert not fields.keys() & gone["TrainingArguments"].keys()
    advice = table("instead.toml")
    assert advice["names"].keys() <= gone["names"].keys()
    for name, words in advice["keywords"].items():
        assert name == "forward" or words.keys() <= gone[name].keys()
    for word in advice["keywords"]["TrainingArguments"].values():
        for name in re.findall(r"``(\w+)", word):
            assert name in fields or name in ("the", "TENSORBOARD_LOGGING_DIR"), name


# Notebooks


def lint_notebook(text):
    return lint_source(text, "n.ipynb")


def notebook(*cells, **metadata):
    """A notebook of code cells, given as text or as lines; a dictionary is a cell as it is."""
    made = [c if isinstance(c, dict) else {"cell_type": "code", "source": c} for c in cells]
    return json.dumps({"cells": made, "metadata": metadata, "nbformat": 4})


@pytest.mark.parametrize("with_ipython", [True, False])
def test_lint_source_reads_across_cells_and_leaves_magics_out(with_ipython, monkeypatch):
    if not with_ipython:
        monkeypatch.setitem(sys.modules, "IPython.core.inputtransformer2", None)
    text = notebook(
        "!pip install transformers\n%matplotlib inline\nmodel??\nfiles = !ls",
        {"cell_type": "markdown", "source": ["model(masked_lm_labels=1)"]},
        ["%%time\n", HEAD],
        "%%bash\nrm -rf nothing; model(x, masked_lm_labels=y)",
        "  if True:\n      !a \\\n        b\n  await run()\n  loss = model(x, masked_lm_labels=y)",
        'text = ("%s"\n        % name)\nmodel(x, masked_lm_labels=y)',
    )
    findings = lint_notebook(text)
    assert [(f.code, f.cell, f.line) for f in findings] == [
        ("obsolete-name", 4, 5),
        ("obsolete-name", 5, 3),
    ]
    assert findings[0].place.startswith("n.ipynb:cell 4:5:")


def test_lint_source_reads_a_notebook_whose_cells_only_import():
    for text in ("from transformers import AdamW", "import os\nfrom transformers import AdamW"):
        assert [f.code for f in lint_notebook(notebook(text))] == ["obsolete-name"]


def test_lint_source_leaves_other_kernels_alone():
    assert lint_notebook(notebook(OLD, kernelspec={"language": "R"})) == []
    assert lint_notebook(notebook(OLD, language_info={"name": "julia"})) == []


def test_lint_source_skips_a_cell_that_is_not_python(tmp_path):
    (tmp_path / "n.ipynb").write_text(notebook("pip list", "def f(:", OLD))
    report = lint_paths([tmp_path])
    assert [(f.code, f.cell) for f in report.findings] == [("obsolete-name", 2)]
    assert report.files == 1
    assert [re.search(r"cell \d", note)[0] for note in report.unread] == ["cell 0", "cell 1"]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"cells": 5}', "[" * 100_000, "null", "{}"])
def test_lint_source_finds_nothing_in_what_is_no_notebook(text):
    assert lint_notebook(text) == []


# Files


@pytest.mark.parametrize(
    "program",
    [
        "(" * 5000 + ")" * 5000,
        "-" * 200_000 + "1",
        "x = " + "a." * 50_000 + "b",
        "x = 1" + " + 1" * 100_000,
        "if x:\n    pass\n" + "elif x:\n    pass\n" * 5000,
        "x" + "[0]" * 20_000 + " = tokenizer.mask_token_id",
        "f" + "()" * 20_000,
        "\0",
        "x = '" + "a" * 3_000_000 + "'",
        "def f():\n\treturn 1\n        return 2",
        "model = model\nmodel.x = model.x\nmodel(labels=model.x)\n" * 50,
        "def f(x):\n    return f(x)\nf(f)(labels=f(f))",
        "labels = input_ids = tokenizer.mask_token_id\n" * 3000,
    ],
    ids=lambda program: repr(program[:12]) + f" {len(program)}",
)
def test_lint_source_survives_hostile_programs(program):
    start = time.process_time()
    lint_source(HEAD + program)
    assert time.process_time() - start < 30


@hypothesis.settings(max_examples=100, deadline=None, derandomize=True)
@hypothesis.given(st.text(max_size=60))
def test_lint_source_survives_any_text(text):
    lint_source(f"{text}\n# mask_token")
    lint_notebook(text)
    lint_notebook(notebook(text, "mask_token"))


def test_lint_paths_runs_nothing(tmp_path):
    marker = tmp_path / "ran"
    (tmp_path / "trap.py").write_text(f"open({str(marker)!r}, 'w').write(mask_token)\n")
    (tmp_path / "n.ipynb").write_text(notebook(f"!touch {marker}\nmask_token"))
    assert lint_paths([tmp_path]).findings == ()
    assert not marker.exists()


def test_lint_paths_reads_declared_encodings_and_notes_wrong_ones(tmp_path):
    good, bad = (tmp_path / f"{name}.py" for name in ("good", "bad"))
    good.write_bytes(b"# -*- coding: latin-1 -*-\r\nx = '\xe9'\r\n" + OLD.encode())
    bad.write_bytes(b"mask_token = '\xe9'\n")
    report = lint_paths(tmp_path)
    assert [f.line for f in report.findings] == [8]
    assert report.files == 1
    assert [note.partition(",")[0] for note in report.unread] == [str(bad)]


def test_lint_paths_meets_each_file_once_and_enters_no_loop(tmp_path):
    folder = tmp_path / "a"
    for name in (".hidden", "__pycache__", "venv"):
        (folder / name).mkdir(parents=True)
        (folder / name / "x.py").write_text(OLD)
    (folder / "venv" / "pyvenv.cfg").write_text("")
    (folder / "one.py").write_text(OLD)
    (folder / "loop").symlink_to(tmp_path, target_is_directory=True)
    (folder / "same.py").symlink_to(folder / "one.py")
    (folder / "nowhere.py").symlink_to(folder / "gone.py")
    report = lint_paths([tmp_path, folder / "one.py"])
    assert (report.files, len(report.findings), report.unread) == (1, 1, ())


def test_lint_paths_finds_nothing_in_the_package_itself():
    report = lint_paths(Path(source.__file__).parent)
    assert report.files >= 5
    assert report.findings == ()


# What is printed


def test_as_json_is_complete_and_as_github_is_escaped(tmp_path):
    path = tmp_path / "a,b:100%.py"
    path.write_text(OLD)
    report = lint_paths([path, tmp_path / "missing"])
    data = json.loads(command.as_json(report))
    assert (data["files"], data["unusable"]) == (1, [str(tmp_path / "missing")])
    assert data["findings"][0].keys() == source.LintFinding.__dataclass_fields__.keys()
    assert data["findings"][0]["line"] == 6
    (line,) = command.as_github(report).split("\n")
    assert line.startswith("::error file=")
    assert "a%2Cb%3A100%25.py,line=6,col=17,title=obsolete-name::" in line
    assert command.as_text(report).endswith("1 file read, 1 finding.")


def test_as_github_names_the_cell_of_a_notebook(tmp_path):
    (tmp_path / "n.ipynb").write_text(notebook("x = 1", OLD))
    (line,) = command.as_github(lint_paths([tmp_path])).split("\n")
    assert ",line=1,col=17," in line
    assert "::cell 1, line 6: " in line


def test_lint_source_shows_no_warning_about_the_program():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert lint_source(r'x = "\d"; assert (1, mask_token)') == []
