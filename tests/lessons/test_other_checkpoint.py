"""The lessons run on another checkpoint: the same vocabulary, another size, random weights.

This is what a reader relies on who sets MLMTUTOR_MODEL. What is printed differs; the assertions of
the lessons decide. Those that need a trained model end in ``or not trained``.
"""

import os
import re
import subprocess
import sys
import xml.etree.ElementTree

import nbformat
import pytest
import stored
from random_checkpoint import write_random_checkpoint

from mlmtutor import is_trained, load_tutor

CONDITION = "or not trained"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """The folder of a small BERT with random weights."""
    folder = tmp_path_factory.mktemp("another") / "checkpoint"
    write_random_checkpoint(folder, seed=0)
    return folder


def test_only_the_embedded_model_is_trained(checkpoint):
    for name, trained in ((None, True), (checkpoint, False)):
        model, tokenizer = load_tutor(name)
        assert is_trained(tokenizer, model) == trained


def run(notebooks, checkpoint, report):
    """Run notebooks on a checkpoint; returns what pytest said."""
    command = [sys.executable, "-m", "pytest", "-o", "addopts=", "-p", "no:cacheprovider", "-q"]
    command += ["--nbval-lax", "--nbval-current-env"]
    return subprocess.run(
        [*command, f"--junitxml={report}", *notebooks],
        cwd=stored.ROOT,
        env={**os.environ, "MLMTUTOR_MODEL": str(checkpoint)},
        capture_output=True,
        text=True,
    )


@pytest.mark.slow
def test_assertions_hold(checkpoint, tmp_path):
    loading = [path for path in stored.PATHS if any("load_tutor" in c for c in code_of(path))]
    assert len(loading) > 20
    done = run(loading, checkpoint, tmp_path / "report.xml")
    assert done.returncode == 0, done.stdout[-5000:]
    suite = xml.etree.ElementTree.parse(tmp_path / "report.xml").getroot().find("testsuite").attrib
    assert int(suite["tests"]) == sum(len(code_of(path)) for path in loading)


@pytest.mark.slow
def test_assertion_without_the_condition_would_fail(checkpoint, tmp_path):
    # The notebook sees this checkpoint, and its assertion decides.
    source = "from mlmtutor import is_trained, load_tutor\n"
    cell = nbformat.v4.new_code_cell(
        source + "model, tokenizer = load_tutor()\nassert is_trained(tokenizer, model)"
    )
    notebook = nbformat.v4.new_notebook(
        cells=[cell], metadata=stored.read(stored.PATHS[0]).metadata
    )
    nbformat.write(notebook, tmp_path / "needs_training.ipynb")
    done = run([tmp_path / "needs_training.ipynb"], checkpoint, tmp_path / "report.xml")
    assert done.returncode == 1, done.stdout[-5000:]
    assert "AssertionError" in done.stdout


def code_of(path):
    return [cell.source for cell in stored.code_cells(stored.read(path))]


@pytest.mark.parametrize("path", stored.PATHS, ids=stored.NAMES)
def test_lesson_with_the_condition_says_what_it_is(path):
    with_condition = any(CONDITION in source for source in code_of(path))
    assert any("trained = is_trained(" in source for source in code_of(path)) == with_condition


def test_condition_is_rare():
    sources = "\n".join(source for path in stored.PATHS for source in code_of(path))
    assertions = len(re.findall(r"^\s*assert ", sources, re.M))
    assert 0 < sources.count(CONDITION) <= 0.06 * assertions
