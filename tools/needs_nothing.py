"""Execute docs/labels_in_bert.ipynb, the answer in one file that needs nothing of mlmtutor.

    python -m tools.needs_nothing

Its text and helpers are written in it by hand. A code cell that is a lesson's names it in its
metadata, ``"from": ["04", "Where does -100 come from?", 1]``: the first code cell of that section
of lesson 04. It is copied without the statements that use what only mlmtutor has: the figures.
The stored outputs are those of the embedded model.
"""

import ast
import os
import re

import nbformat

from tools import lessons

NOTEBOOK = lessons.ROOT / "docs" / "labels_in_bert.ipynb"
CHECKPOINT = str(lessons.ROOT / "mlmtutor" / "tutor_bert")


def from_mlmtutor(node):
    """Return whether a statement imports from mlmtutor."""
    return isinstance(node, ast.ImportFrom) and node.module.startswith("mlmtutor")


def lesson_cell(number, section, which, helpers):
    """Return the code of a lesson's cell without what needs mlmtutor; `helpers` are at hand."""
    [path] = [path for path in lessons.lesson_paths() if path.name[:2] == number]
    cells = lessons.read(path).cells
    code = [cell.source for cell in cells if cell.cell_type == "code"]
    imports = filter(from_mlmtutor, (node for text in code for node in ast.parse(text).body))
    missing = {alias.name for node in imports for alias in node.names} - helpers
    start = next(i for i, cell in enumerate(cells) if cell.source.startswith(f"## {section}\n"))
    source = [cell.source for cell in cells[start:] if cell.cell_type == "code"][which - 1]
    lines = source.splitlines()
    for statement in reversed(ast.parse(source).body):
        names = {node.id for node in ast.walk(statement) if isinstance(node, ast.Name)}
        if from_mlmtutor(statement) or names & missing:
            del lines[statement.lineno - 1 : statement.end_lineno]
    return "\n".join(lines).strip()


def refresh(notebook):
    """Take over today's code of the lessons; changes ``notebook``."""
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    helpers = {name for cell in code for name in re.findall(r"^def (\w+)", cell.source, re.M)}
    for cell in code:
        if "from" in cell.metadata:
            cell.source = lesson_cell(*cell.metadata["from"], helpers)


def main():
    """Refresh the notebook, run it on the embedded model, and write it back."""
    os.environ["CHECKPOINT"] = CHECKPOINT
    notebook = lessons.read(NOTEBOOK)
    refresh(notebook)
    lessons.execute(notebook, NOTEBOOK)
    lessons.normalise(notebook, NOTEBOOK)
    lessons.write(NOTEBOOK, nbformat.writes(notebook).rstrip("\n") + "\n")


if __name__ == "__main__":
    main()
