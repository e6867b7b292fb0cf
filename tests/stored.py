"""The lessons as data, for the tests that read them."""

import functools

from tools import lessons
from tools.lessons import ROOT, all_paths, deeper_paths, lesson_paths, tags

PATHS = all_paths()  # every notebook: the map, the lessons, and the deeper ones
NAMES = [path.stem for path in PATHS]
FULL = PATHS[1:]
CORE = lesson_paths()[1:]
DEEPER = deeper_paths()

__all__ = ["CORE", "DEEPER", "FULL", "NAMES", "PATHS", "ROOT", "read", "tags"]


@functools.cache
def read(path):
    """Return a notebook; it's read once, so take a copy before you change it."""
    return lessons.read(path)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]


def prose(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "markdown"]


def output_texts(cell):
    """Return every text that a cell has stored, whatever its kind."""
    texts = []
    for output in cell.get("outputs", []):
        texts.append(output.get("text", ""))
        texts += output.get("traceback", [])
        texts += [str(v) for k, v in output.get("data", {}).items() if k.startswith("text/")]
    return texts
