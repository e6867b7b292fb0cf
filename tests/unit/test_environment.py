import importlib.metadata

import pytest

from mlmtutor.lessons import lesson_00
from mlmtutor.lessons.lesson_00 import check_environment


def test_check_environment_prints_one_line_when_all_is_well(capsys):
    assert check_environment() is True
    [line] = capsys.readouterr().out.splitlines()
    assert line.startswith("OK: Python 3.")
    assert f"torch {importlib.metadata.version('torch')}" in line


@pytest.mark.parametrize(
    ("package", "version", "complete", "line"),
    [
        ("torch", "2.0.1", False, "FAIL: torch 2.0.1 is here, >=2.6 is needed: pip install"),
        ("transformers", None, False, "FAIL: transformers: pip install 'transformers"),
        ("accelerate", None, True, "missing: accelerate: pip install"),
    ],
)
def test_check_environment_says_what_is_wrong_with_its_cure(
    capsys, monkeypatch, package, version, complete, line
):
    real = importlib.metadata.version

    def fake(name):
        if name != package:
            return real(name)
        if version is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return version

    monkeypatch.setattr(lesson_00.importlib.metadata, "version", fake)
    assert check_environment() is complete
    assert any(text.startswith(line) for text in capsys.readouterr().out.splitlines())


def test_check_environment_says_that_the_model_is_damaged(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(lesson_00, "TUTOR_FOLDER", tmp_path)
    assert check_environment() is False
    assert capsys.readouterr().out.startswith("FAIL: the embedded model: ")
