"""The command line: what it prints, and how it ends."""

import json
import subprocess
import sys

import pytest

import mlmtutor.lessons.lesson_00
from mlmtutor.__main__ import main

BROKEN = "model = BertForMaskedLM(c)\nloss = model(x, masked_lm_labels=y)\n"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "bad.py").write_text(BROKEN)
    (tmp_path / "good.py").write_text("x = 1\n")
    return tmp_path


def test_a_clean_file_ends_with_0(folder, capsys):
    assert main(["doctor", str(folder / "good.py")]) == 0
    assert capsys.readouterr().out == "1 file read, 0 findings.\n"


def test_findings_end_with_1_and_name_file_line_and_fix(folder, capsys):
    assert main(["doctor", str(folder)]) == 1
    out = capsys.readouterr().out
    assert f"{folder}/bad.py:2:17: error old-label-keyword: " in out
    assert "fix: call it `labels`" in out
    assert out.endswith("2 files read, 1 finding.\n")


def test_a_file_that_does_not_parse_is_a_finding(folder, capsys):
    (folder / "bad.py").write_text("def f(:\n")
    assert main(["doctor", str(folder)]) == 1
    assert "bad.py:1:7: error does-not-parse: the file cannot be read as Python: " in (
        capsys.readouterr().out
    )


@pytest.mark.parametrize("name", ["missing.py", "text.md", "empty"])
def test_input_that_cannot_be_used_ends_with_2(folder, capsys, name):
    (folder / "text.md").write_text("hello")
    (folder / "empty").mkdir()
    assert main(["doctor", str(folder / name), str(folder / "bad.py")]) == 2
    captured = capsys.readouterr()
    assert f"{folder / name}: not a .py or .ipynb file" in captured.err
    assert "old-label-keyword" in captured.out  # the rest was read all the same


def test_json_and_github(folder, capsys):
    assert main(["doctor", "--format", "json", str(folder)]) == 1
    data = json.loads(capsys.readouterr().out)
    assert [f["code"] for f in data["findings"]] == ["old-label-keyword"]
    assert main(["doctor", "--format", "github", str(folder)]) == 1
    assert capsys.readouterr().out.startswith("::error file=")
    assert main(["doctor", "--format", "github", str(folder / "good.py")]) == 0
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("arguments", [[], ["doctor"], ["doctor", "--format", "xml", "x"], ["no"]])
def test_wrong_arguments_end_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert "usage: mlmtutor" in capsys.readouterr().err


@pytest.mark.parametrize("complete", [True, False])
def test_env_ends_with_what_the_check_says(monkeypatch, complete):
    monkeypatch.setattr(mlmtutor.lessons.lesson_00, "check_environment", lambda: complete)
    assert main(["env"]) == (0 if complete else 1)


def test_the_module_can_be_run(folder):
    command = [sys.executable, "-m", "mlmtutor", "doctor", str(folder / "bad.py")]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "old-label-keyword" in result.stdout
    assert result.stderr == ""
