"""Execute the lessons in place and refresh what is generated in them.

    python tools/lessons.py                    every lesson
    python tools/lessons.py notebooks/01*      the named ones
    python tools/lessons.py --check            write nothing; exit 1 where something would change

A lesson is run top to bottom in a fresh kernel that sees what the tests see (conftest.py). Its
metadata is reduced to what matters, its cell ids are made from its name, and the file is written
only when its bytes change, in one step: a run that is killed leaves the old file. What is
generated: the last cell with the links to the neighbours, and in ``00_start_here`` the table of
lessons and the index of questions.

Training adds up the last digits in which processors differ, until a curve moves by some pixels. A
figure of a cell tagged ``training-figure`` therefore keeps its stored bytes where nothing in it
moved further and all else is equal. Clear the output of the cell to have it drawn again.
"""

import argparse
import base64
import copy
import io
import itertools
import json
import os
import pathlib
import re
import sys
import tomllib

ROOT = pathlib.Path(__file__).resolve().parent.parent
NOTEBOOKS = ROOT / "notebooks"
sys.path.insert(0, str(ROOT))
sys.path.append(str(ROOT / "tools"))  # for those that import this file from elsewhere
import atomic

import conftest  # noqa: F401  the environment of the kernels

# Output that C code writes reaches ipykernel only outside pytest; run as if under it, so that
# what is stored is what nbval sees.
os.environ["PYTEST_CURRENT_TEST"] = "tools/lessons.py"

import nbformat
import numpy as np
from matplotlib.image import imread
from nbclient import NotebookClient
from tqdm import tqdm

KEPT_CELL_METADATA = {"tags", "jupyter", "slideshow"}
PICTURE = re.compile(r"(?<=data:image/png;base64,)[A-Za-z0-9+/=]+")
MOVED = 6  # pixels; between two processors each had its like, to 0.19 of a channel, within five


def lesson_paths():
    """Return the lessons in order, the map first."""
    return sorted(NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))


def read(path):
    """Read one lesson."""
    return nbformat.read(path, as_version=4)


def title(notebook):
    """Return the text of the first heading."""
    return re.search(r"^# (.+)$", notebook.cells[0].source, re.M).group(1)


def result(notebook):
    """Return the sentence under the title: what the reader reaches."""
    return notebook.cells[0].source.split("\n", 1)[1].strip().split("\n\n")[0].replace("\n", " ")


def minutes(notebook):
    """Return the minutes that the lesson states in "Before you start"."""
    for cell in notebook.cells:
        found = (
            re.search(r"(\d+) minutes", cell.source) if "Before you start" in cell.source else None
        )
        if found:
            return int(found.group(1))
    raise ValueError(f'"{title(notebook)}" states no minutes in "Before you start"')


def tagged(notebook, tag):
    """Return the cells that carry a tag."""
    return [cell for cell in notebook.cells if tag in cell.metadata.get("tags", [])]


def anchor(heading):
    """Return the fragment that JupyterLab gives to a heading."""
    return re.sub(r"[`*]", "", heading).strip().replace(" ", "-")


def navigation(paths, path):
    """Return the text of the last cell of a lesson."""
    number = paths.index(path)
    before = paths[number - 1] if number else None
    after = paths[number + 1] if number + 1 < len(paths) else None
    links = [f"[← {title(read(before))}]({before.name})"] if before and number > 1 else []
    links += [f"[Map of the lessons]({paths[0].name})"] if number else []
    links += [f"[{title(read(after))} →]({after.name})"] if after else []
    return " | ".join(links)


def lesson_table(paths):
    """Return the table of lessons for the map."""
    lines = ["| lesson | minutes | what you reach |", "| --- | ---: | --- |"]
    for path in paths[1:]:
        notebook = read(path)
        name = f"{path.name[:2]} [{title(notebook)}]({path.name})"
        lines.append(f"| {name} | {minutes(notebook)} | {result(notebook)} |")
    return "\n".join(lines)


def questions():
    """Return ``notebooks/questions.toml``: what people ask, and in which threads."""
    return tomllib.loads((NOTEBOOKS / "questions.toml").read_text(encoding="utf-8"))


def answers(paths):
    """Return for each question the links to the sections that answer it.

    A section answers question ``k`` when the cell of its heading is tagged ``question-k``.
    """
    links = {}
    for path in paths[1:]:
        for cell in read(path).cells:
            for tag in cell.metadata.get("tags", []):
                if tag.startswith("question-"):
                    heading = re.search(r"^#+ (.+)$", cell.source, re.M).group(1)
                    link = f"[{path.name[:2]}: {heading}]({path.name}#{anchor(heading)})"
                    links.setdefault(tag.removeprefix("question-"), []).append(link)
    unknown = sorted(set(links) - set(questions()))
    if unknown:
        raise ValueError(f"no such question in notebooks/questions.toml: {', '.join(unknown)}")
    return links


def question_index(paths):
    """Return the table of real questions: each with its threads and the sections that answer it."""
    links = answers(paths)
    lines = ["| people ask | threads | answered in |", "| --- | --- | --- |"]
    for key, question in questions().items():
        if key in links:
            where = "<br>".join(links[key])
            lines.append(f"| {question['asks']} | {', '.join(question['threads'])} | {where} |")
    return "\n".join(lines)


def refresh_generated(notebook, paths, path):
    """Fill the cells that are generated; returns nothing, changes ``notebook``."""
    made = {"navigation": navigation(paths, path)}
    if path == paths[0]:
        made["lesson-table"] = lesson_table(paths)
        made["question-index"] = question_index(paths)
    for tag, source in made.items():
        cells = tagged(notebook, tag)
        if not cells:
            cells = [nbformat.v4.new_markdown_cell(metadata={"tags": [tag]})]
            notebook.cells.append(cells[0])
        cells[0].source = source


def normalise(notebook, path):
    """Keep what a reader or nbval needs, so that a second run changes no byte."""
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    notebook.nbformat_minor = 5
    for number, cell in enumerate(notebook.cells):
        cell.id = f"{path.stem[:2]}-{number:02}"
        cell.metadata = {k: v for k, v in sorted(cell.metadata.items()) if k in KEPT_CELL_METADATA}
        for output in cell.get("outputs", []):
            if output.output_type == "error":  # the frames hold paths of this machine
                output.traceback = [f"{output.ename}: {output.evalue}"]
        if "solution" in cell.metadata.get("tags", []) and cell.cell_type == "code":
            cell.metadata["jupyter"] = {"source_hidden": True}
            cell.metadata["tags"] = sorted({*cell.metadata["tags"], "hide-input"})


def execute(notebook):
    """Run the cells in a fresh kernel, in the folder of the lessons."""
    NotebookClient(
        notebook,
        timeout=120,
        kernel_name="python3",
        record_timing=False,
        store_widget_state=False,
        coalesce_streams=True,  # how prints are cut into messages depends on timing
        resources={"metadata": {"path": str(NOTEBOOKS)}},
    ).execute()


def moved_little(one, other):
    """Return whether each pixel of an image has its like near its place in the other image."""
    height, width = one.shape[:2]
    wide = np.pad(other, ((MOVED, MOVED), (MOVED, MOVED), (0, 0)), mode="edge")
    nearest = np.ones((height, width))
    for down, right in itertools.product(range(2 * MOVED + 1), repeat=2):
        there = wide[down : down + height, right : right + width]
        nearest = np.minimum(nearest, np.abs(one - there).max(-1))
    return bool((nearest < 0.5).all())


def alike(first, second):
    """Return whether two outputs differ in nothing but figures in which little moved."""
    first, second = (json.dumps(output, sort_keys=True) for output in (first, second))
    if PICTURE.sub("", first) != PICTURE.sub("", second):
        return False
    for encoded in zip(PICTURE.findall(first), PICTURE.findall(second), strict=True):
        one, other = (imread(io.BytesIO(base64.b64decode(text))) for text in encoded)
        if one.shape != other.shape or not (moved_little(one, other) and moved_little(other, one)):
            return False
    return True


def keep_figures(notebook, stored):
    """Put the stored figures of training runs back where they show the same."""
    for new, old in zip(notebook.cells, stored.cells, strict=False):
        if "training-figure" in new.metadata.get("tags", []) and new.source == old.source:
            for number, (now, before) in enumerate(zip(new.outputs, old.outputs, strict=False)):
                if alike(now, before):
                    new.outputs[number] = before


def main():
    """Refresh the lessons that were named; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("lessons", nargs="*", type=pathlib.Path, help="default: all of them")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 on a change")
    options = parser.parse_args()
    paths = lesson_paths()
    chosen = [path.resolve() for path in options.lessons] or paths
    strangers = [str(path) for path in chosen if path not in paths]
    if strangers:
        parser.error(f"not a lesson in {NOTEBOOKS.name}/: {', '.join(strangers)}")
    changed = []
    bar = tqdm(chosen, unit="lesson")
    for path in bar:
        bar.set_postfix_str(path.stem)
        notebook = read(path)
        stored = copy.deepcopy(notebook)
        refresh_generated(notebook, paths, path)
        execute(notebook)
        normalise(notebook, path)
        keep_figures(notebook, stored)
        text = nbformat.writes(notebook).rstrip("\n") + "\n"
        if text != path.read_text(encoding="utf-8"):
            changed.append(path.name)
            if not options.check:
                atomic.write(path, text)
    for name in changed:
        print(f"{'would change' if options.check else 'changed'}: {name}")
    return int(options.check and bool(changed))


if __name__ == "__main__":
    sys.exit(main())
