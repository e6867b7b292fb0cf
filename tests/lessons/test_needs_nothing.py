"""docs/labels_in_bert.ipynb needs torch and transformers alone, and says what the lessons say."""

import copy
import os
import subprocess
import sys

import pytest
import stored
from random_checkpoint import write_random_checkpoint

from tools import needs_nothing

NOTEBOOK = stored.read(needs_nothing.NOTEBOOK)


def without_mlmtutor(folder, *command, checkpoint=needs_nothing.CHECKPOINT):
    """Run Python where importing mlmtutor fails, in the kernels too; returns what it did."""
    (folder / "mlmtutor.py").write_text("raise ImportError('mlmtutor is refused here')")
    path = os.pathsep.join([str(folder), os.environ["PYTHONPATH"]])
    environment = {**os.environ, "PYTHONPATH": path, "CHECKPOINT": str(checkpoint)}
    return subprocess.run(
        [sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True
    )


def nbval(option):
    options = ["-q", "-p", "no:cacheprovider", "--nbval-current-env"]
    return ["-m", "pytest", *options, option, str(needs_nothing.NOTEBOOK), "-o", "addopts="]


@pytest.mark.slow
def test_notebook_runs_without_mlmtutor_and_prints_what_is_stored(tmp_path):
    refused = without_mlmtutor(tmp_path, "-c", "import mlmtutor")
    assert "mlmtutor is refused here" in refused.stderr
    done = without_mlmtutor(tmp_path, *nbval("--nbval"))
    assert done.returncode == 0, done.stdout[-3000:]
    assert f"{len(stored.code_cells(NOTEBOOK))} passed" in done.stdout


@pytest.mark.slow
def test_assertions_hold_on_another_checkpoint(tmp_path):
    write_random_checkpoint(tmp_path / "checkpoint", seed=0)
    done = without_mlmtutor(
        tmp_path, *nbval("--nbval-lax"), checkpoint=tmp_path / "checkpoint"
    )  # lax: what is printed differs
    assert done.returncode == 0, done.stdout[-3000:]


def test_cells_taken_from_lessons_are_those_of_the_lessons():
    today = copy.deepcopy(NOTEBOOK)
    needs_nothing.refresh(today)
    assert [cell.source for cell in today.cells] == [cell.source for cell in NOTEBOOK.cells]
    assert sum("from" in cell.metadata for cell in NOTEBOOK.cells) >= 5
