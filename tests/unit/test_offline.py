"""A lesson needs no network: kernels, as all that the tests start, are refused it (conftest.py)."""

import stored
import nbformat
import pytest
from nbclient import NotebookClient


def run(notebook):
    notebook_folder = {"metadata": {"path": str(stored.ROOT / "notebooks")}}
    NotebookClient(
        notebook, timeout=120, kernel_name="python3", resources=notebook_folder
    ).execute()


def test_sockets_are_refused():
    notebook = nbformat.v4.new_notebook()
    notebook.cells = [
        nbformat.v4.new_code_cell(
            "import socket, pytest\n"
            "with pytest.raises(OSError, match='the test refuses'):\n"
            "    socket.create_connection(('192.0.2.1', 80), timeout=1)\n"
            "with pytest.raises(OSError, match='the test refuses'):\n"
            "    socket.getaddrinfo('example.org', 80)"
        )
    ]
    run(notebook)


@pytest.mark.parametrize("path", stored.PATHS[1:2], ids=stored.NAMES[1:2])
def test_a_lesson_runs_without_network(path):
    run(stored.read(path))
