"""Make the copies of the lessons that people work in, and never overwrite what they wrote.

    python -m tools.copies lab        whole lessons, to build/lab/: what `make lab` opens
    python -m tools.copies student    without solutions and outputs, to build/student/

With MLMTUTOR_NOTEBOOKS=build/zh/notebooks the copies are Chinese, in build/zh/lab/ and
build/zh/student/.

A copy is written where there is none, or where the sources of its cells are still those that were
written. A copy that somebody has worked in stays, and a line says so where its lesson has changed.
"""

import argparse
import hashlib
import json
import shutil

import nbformat
from nbconvert.preprocessors import ClearOutputPreprocessor, TagRemovePreprocessor

from tools import atomic
from tools.lessons import BUILD, NOTEBOOKS, ROOT, all_paths, read

NOTE = (NOTEBOOKS.parent / "tools" / "student.md").read_text(encoding="utf-8").strip()


def student_copy(notebook, name):
    """Return a copy of a lesson without solutions and outputs, with a note under the title."""
    copy = nbformat.from_dict(notebook)
    copy, _ = TagRemovePreprocessor(remove_cell_tags={"solution"}).preprocess(copy, {})
    copy, _ = ClearOutputPreprocessor().preprocess(copy, {})
    note = nbformat.v4.new_markdown_cell(NOTE.format(name=name), id=f"{copy.cells[0].id}-student")
    copy.cells.insert(1, note)
    return copy


def digest(notebook):
    """Return a hash of the sources: what a reader changes, not what opening and running changes."""
    sources = json.dumps([[cell.cell_type, cell.source] for cell in notebook.cells])
    return hashlib.sha256(sources.encode()).hexdigest()


def build(out, change):
    """Write a copy of each lesson; return (the paths written, the paths kept for their reader).

    Args:
        out: the folder. ``.written.json`` in it remembers what was written.
        change: of a notebook and its path below ``notebooks/``, what its copy holds.
    """
    out.mkdir(parents=True, exist_ok=True)
    memory = out / ".written.json"
    remembered = json.loads(memory.read_text()) if memory.exists() else {}
    written, kept = [], []
    for path in all_paths():
        name = path.relative_to(NOTEBOOKS).as_posix()
        copy, target = change(read(path), name), out / name
        if target.exists() and digest(read(target)) != remembered.get(name):
            if remembered.get(name) != digest(copy):
                kept.append(target)
            continue
        target.parent.mkdir(exist_ok=True)
        atomic.write(target, nbformat.writes(copy).rstrip("\n") + "\n")
        remembered[name] = digest(copy)
        written.append(target)
    atomic.write(memory, json.dumps(remembered, indent=0))
    shutil.copy(NOTEBOOKS / "questions.md", out / "questions.md")
    return written, kept


def main():
    """Make the copies that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("kind", choices=["lab", "student"])
    kind = parser.parse_args().kind
    out = BUILD / kind
    change = student_copy if kind == "student" else lambda notebook, name: notebook
    written, kept = build(out, change)
    print(f"{len(written)} lessons written to {out}")
    for path in kept:
        print(
            f"{path.relative_to(ROOT)} stays as you left it, and its lesson has changed since: "
            "rename your copy and call again to get the new lesson beside it."
        )


if __name__ == "__main__":
    main()
