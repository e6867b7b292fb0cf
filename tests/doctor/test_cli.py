"""The command line: what it prints, and how it ends."""

import json
import subprocess
import sys

import pytest

import mlmtutor.lessons.lesson_00
from mlmtutor.__main__ import main

BROKEN = (
    "from transformers import BertForMaskedLM\n"
    "model = BertForMaskedLM(c)\nloss = model(x, masked_lm_labels=y)\n"
)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "bad.py").write_text(BROKEN)
    (tmp_path / "good.py").write_text("x = 1\n")
    return tmp_path


def test_doctor_ends_with_0_for_a_clean_file(folder, capsys):
    assert main(["doctor", str(folder / "good.py")]) == 0
    assert capsys.readouterr().out == "1 file read, 0 findings.\n"


def test_doctor_ends_with_1_and_names_file_line_and_fix(folder, capsys):
    assert main(["doctor", str(folder)]) == 1
    out = capsys.readouterr().out
    assert f"{folder}/bad.py:3:17: error obsolete-name: " in out
    assert "fix: write `labels`" in out
    assert out.endswith("2 files read, 1 finding.\n")


def test_doctor_notes_what_is_not_python_and_ends_with_2_only_if_nothing_was_read(folder, capsys):
    (folder / "good.py").write_text("def mask_token(:\n")
    assert main(["doctor", str(folder)]) == 1
    captured = capsys.readouterr()
    assert captured.out.endswith("1 file read, 1 finding.\n")
    assert f"not read: {folder}/good.py, line 1: " in captured.err
    assert main(["doctor", str(folder / "good.py")]) == 2
    (folder / "good.py").write_text("print 'of no concern'\n")
    assert main(["doctor", str(folder / "good.py")]) == 0


@pytest.mark.parametrize("name", ["missing.py", "text.md", "empty"])
def test_doctor_ends_with_2_for_a_path_without_a_program(folder, capsys, name):
    (folder / "text.md").write_text("hello")
    (folder / "empty").mkdir()
    assert main(["doctor", str(folder / name), str(folder / "bad.py")]) == 2
    captured = capsys.readouterr()
    assert f"{folder / name}: not a .py or .ipynb file" in captured.err
    assert "obsolete-name" in captured.out  # the rest was read all the same


def test_doctor_prints_json_and_marks_for_github(folder, capsys):
    assert main(["doctor", "--format", "json", str(folder)]) == 1
    data = json.loads(capsys.readouterr().out)
    assert [f["code"] for f in data["findings"]] == ["obsolete-name"]
    assert main(["doctor", "--format", "github", str(folder)]) == 1
    assert capsys.readouterr().out.startswith("::error file=")
    assert main(["doctor", "--format", "github", str(folder / "good.py")]) == 0
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("arguments", [["doctor"], ["doctor", "--format", "xml", "x"], ["no"]])
def test_main_ends_with_2_for_wrong_arguments(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert "usage: mlmtutor" in capsys.readouterr().err


def test_main_prints_its_help_when_nothing_is_asked(capsys):
    assert main([]) == 0
    assert "doctor" in capsys.readouterr().out


@pytest.mark.parametrize("complete", [True, False])
def test_env_ends_with_what_the_check_says(monkeypatch, complete):
    monkeypatch.setattr(mlmtutor.lessons.lesson_00, "check_environment", lambda: complete)
    assert main(["env"]) == (0 if complete else 1)


def test_doctor_starts_without_torch_and_a_closed_pipe_is_quiet(folder):
    (folder / "bad.py").write_text(BROKEN * 1000)  # more than a pipe holds
    program = (
        "import sys, mlmtutor.__main__ as m; status = m.main(sys.argv[1:]); "
        "assert not {'torch', 'transformers', 'numpy', 'IPython'} & set(sys.modules); sys.exit(status)"
    )
    command = [sys.executable, "-c", program, "doctor", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert b"obsolete-name" in process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1
