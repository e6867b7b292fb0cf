"""What the benchmarks share. The conftest.py above them sets one thread and no network."""

import pytest

from mlmtutor import load_tutor


@pytest.fixture(scope="session")
def tutor():
    return load_tutor()
