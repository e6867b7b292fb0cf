"""What the benchmarks share. The conftest.py above them sets one thread and no network."""

import os
from importlib.metadata import version

import pytest

from mlmtutor import load_tutor


@pytest.fixture(scope="session")
def tutor():
    return load_tutor()


def pytest_benchmark_update_machine_info(machine_info):
    """Note what report.py says about a measurement: how many cores, and which versions."""
    machine_info["cores"] = len(os.sched_getaffinity(0))
    machine_info["versions"] = {name: version(name) for name in ("torch", "transformers", "numpy")}
