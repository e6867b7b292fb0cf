"""Make copies of the lessons for students: no solutions, no outputs.

    python tools/student.py    every lesson, to build/student/

The cells tagged ``solution`` are left out, outputs and counts are cleared, and a note under the
title says what a copy lacks and where the whole lesson is.
"""

import pathlib
import shutil

import nbformat

ROOT = pathlib.Path(__file__).resolve().parent.parent
NOTE = (
    "*A copy for students, without outputs and solutions. Write your function in place of "
    "`raise NotImplementedError`; the checker in the next cell says what is right or wrong. The "
    "whole lesson is `notebooks/{name}` in the repository of mlmtutor, and a page of its site.*"
)
# What the map says about solutions is not true of a copy.
COLLAPSED = "- The solution is collapsed. Click its bar to read it.\n"
ELSEWHERE = "- The solution is not in this copy: it is in the lesson of the same name.\n"


def student_copy(notebook, name):
    """Return a copy of a lesson without solutions and outputs; ``notebook`` is left as it is."""
    cells = []
    for cell in notebook.cells:
        if "solution" in cell.metadata.get("tags", []):
            continue
        copy = nbformat.from_dict(cell)
        if copy.cell_type == "code":
            copy.outputs, copy.execution_count = [], None
        copy.source = copy.source.replace(COLLAPSED, ELSEWHERE)
        cells.append(copy)
    note = nbformat.v4.new_markdown_cell(NOTE.format(name=name), id=f"{name[:2]}-student")
    return nbformat.v4.new_notebook(
        cells=[cells[0], note, *cells[1:]], metadata=nbformat.from_dict(notebook.metadata)
    )


def build(out):
    """Write a copy of each lesson; return the paths."""
    shutil.rmtree(out, ignore_errors=True)  # stale files of lessons that were renamed
    out.mkdir(parents=True)
    paths = []
    for path in sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb")):
        copy = student_copy(nbformat.read(path, as_version=4), path.name)
        paths.append(out / path.name)
        text = nbformat.writes(copy).rstrip("\n") + "\n"
        paths[-1].write_text(text, encoding="utf-8", newline="\n")
    return paths


def main():
    """Make the copies."""
    out = ROOT / "build" / "student"
    print(f"{len(build(out))} copies in {out}")


if __name__ == "__main__":
    main()
