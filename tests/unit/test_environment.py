import importlib.metadata

import pytest

import mlmtutor.lessons.lesson_00
from mlmtutor import check_environment


def lines(capsys):
    return capsys.readouterr().out.splitlines()


def test_a_complete_environment_is_all_ok(capsys):
    assert check_environment() is True
    shown = lines(capsys)
    assert {line.split()[0] for line in shown} == {"OK"}
    names = {line.split()[1] for line in shown}
    assert {"Python", "torch", "transformers", "matplotlib", "jupyterlab", "nbval"} <= names
    assert f"OK       torch {importlib.metadata.version('torch')}" in shown


@pytest.mark.parametrize(
    ("package", "version", "complete", "line"),
    [
        ("torch", "2.0.1", False, "FAIL     torch 2.0.1 is here, >=2.6 is needed: pip install"),
        ("transformers", None, False, "FAIL     transformers: pip install 'transformers"),
        ("jupyterlab", None, True, "missing  jupyterlab: pip install 'jupyterlab"),
    ],
)
def test_what_is_wrong_is_said_with_its_cure(capsys, monkeypatch, package, version, complete, line):
    real = importlib.metadata.version

    def fake(name):
        if name != package:
            return real(name)
        if version is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return version

    monkeypatch.setattr(mlmtutor.lessons.lesson_00.importlib.metadata, "version", fake)
    assert check_environment() is complete
    assert any(text.startswith(line) for text in lines(capsys))


def test_a_damaged_model_is_said(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(mlmtutor.lessons.lesson_00, "TUTOR_FOLDER", tmp_path)
    assert check_environment() is False
    assert lines(capsys)[-1].startswith("FAIL     embedded model: ")
