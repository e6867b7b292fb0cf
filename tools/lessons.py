"""Execute the lessons in place and refresh what is generated in them.

    python -m tools.lessons                    every lesson
    python -m tools.lessons notebooks/01*      the named ones

A lesson is run top to bottom in a fresh kernel that sees what the tests see (conftest.py). Its
metadata is reduced to what matters, its cell ids are made from its name, and the file is written
only when its bytes change, in one step: a run that is killed leaves the old file.

What is generated: the minutes; "Check yourself" from ``notebooks/quiz.toml``; "Where this goes
wrong in practice" from the ``question-k`` tags and ``notebooks/questions.toml``; the links to the
neighbours; the table of lessons in ``00_start_here`` and in the README; and the index,
``notebooks/questions.md``.

Training adds up the last digits in which processors differ, until a curve moves a little. A figure
of a cell tagged ``training-figure`` therefore keeps its stored bytes while its alt text and caption
stay the same. Clear the output of the cell to have it drawn again.
"""

import argparse
import copy
import html
import math
import os
import pathlib
import re
import tomllib

ROOT = pathlib.Path(__file__).resolve().parent.parent
# MLMTUTOR_NOTEBOOKS=build/zh/notebooks: the Chinese lessons, and what is made from them.
NOTEBOOKS = pathlib.Path(os.environ.get("MLMTUTOR_NOTEBOOKS", ROOT / "notebooks")).resolve()
BUILD = ROOT / "build" if NOTEBOOKS.parent == ROOT else NOTEBOOKS.parent

import conftest  # noqa: F401  the environment of the kernels

# Output that C code writes reaches ipykernel only outside pytest; run as if under it, so that
# what is stored is what nbval sees.
os.environ["PYTEST_CURRENT_TEST"] = "tools/lessons.py"

import nbformat
from nbclient import NotebookClient
from tqdm import tqdm

from tools import atomic

KEPT_CELL_METADATA = {"from", "jupyter", "slideshow", "tags"}
GENERATED = {"quiz", "practice", "navigation", "lesson-table"}
WORDS_A_MINUTE, LINES_A_MINUTE = 180, 10


def lesson_paths():
    """Return the lessons in order, the map first."""
    return sorted(NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))


def deeper_paths(number="[0-9][0-9]"):
    """Return the deeper notebooks, of one lesson or of all."""
    return sorted(NOTEBOOKS.glob(f"deeper/{number}_*.ipynb"))


def all_paths():
    """Return the lessons and the deeper notebooks, each behind its lesson."""
    return [p for path in lesson_paths() for p in (path, *deeper_paths(path.name[:2]))]


def read(path):
    """Read one lesson."""
    return nbformat.read(path, as_version=4)


def tags(cell):
    """Return the tags of a cell."""
    return cell.metadata.get("tags", [])


def tagged(notebook, tag):
    """Return the cells that carry a tag."""
    return [cell for cell in notebook.cells if tag in tags(cell)]


def title(notebook):
    """Return the text of the first heading."""
    return re.search(r"^# (.+)$", notebook.cells[0].source, re.M).group(1)


def result(notebook):
    """Return the sentence under the title: what the reader reaches."""
    return notebook.cells[0].source.split("\n", 1)[1].strip().split("\n\n")[0].replace("\n", " ")


def prose(notebook):
    """Return the text that a person wrote in a lesson, without code blocks."""
    cells = (c for c in notebook.cells if c.cell_type == "markdown" and not GENERATED & {*tags(c)})
    return "\n\n".join(re.sub(r"```.*?```", "", cell.source, flags=re.S) for cell in cells)


def words(text):
    """Return the number of words of a text in Markdown."""
    return len(re.sub(r"</?[a-z][^>\n]*>|\]\([^)]*\)", " ", text).split())


def code_lines(notebook):
    """Return the number of lines of code that are read: not those of proofs and solutions."""
    cells = (c for c in notebook.cells if c.cell_type == "code")
    sources = (c.source for c in cells if not {"proof", "solution"} & {*tags(c)})
    return sum(bool(line.strip()) for source in sources for line in source.splitlines())


def minutes(notebook):
    """Return how long a lesson takes: reading all of it, each Predict, and the exercises."""
    text = "\n\n".join(c.source for c in notebook.cells if c.cell_type == "markdown")
    exercises = sum(map(int, re.findall(r"^### Exercise .*, (\d+) minutes\)$", text, re.M)))
    reading = words(text) / WORDS_A_MINUTE + code_lines(notebook) / LINES_A_MINUTE
    return math.ceil(reading + text.count("**Predict.**") + exercises)


def anchor(heading):
    """Return the fragment that JupyterLab gives to a heading."""
    return re.sub(r"[`*]", "", heading).strip().replace(" ", "-")


def heading(cell):
    """Return the text of the first heading of a cell."""
    return re.search(r"^#+ (.+)$", cell.source, re.M).group(1)


def navigation(path):
    """Return the links to the neighbours of a lesson."""
    if path.parent != NOTEBOOKS:
        [core] = NOTEBOOKS.glob(f"{path.name[:2]}_*.ipynb")
        return f"[← Back to {core.name[:2]} {title(read(core))}](../{core.name})"
    paths = lesson_paths()
    number = paths.index(path)
    before = paths[number - 1] if number > 1 else None
    after = paths[number + 1] if number + 1 < len(paths) else None
    links = [f"[← {title(read(before))}]({before.name})"] if before else []
    links += [f"[Map of the lessons]({paths[0].name})"] if number else []
    links += [f"[{title(read(after))} →]({after.name})"] if after else []
    return " | ".join(links)


def lesson_table():
    """Return the table of lessons for the map."""
    lines = ["| lesson | minutes | what you reach |", "| --- | ---: | --- |"]
    for path in all_paths()[1:]:
        notebook = read(path)
        name = f"[{title(notebook)}]({path.relative_to(NOTEBOOKS)})"
        name = f"{path.name[:2]} {name}" if path.parent == NOTEBOOKS else f"↳ {name}"
        lines.append(f"| {name} | {minutes(notebook)} | {result(notebook)} |")
    return "\n".join(lines)


def readme():
    """Return the README with today's table of lessons."""
    table = lesson_table().replace("](", "](notebooks/")
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    start, end = "<!-- lessons: made by make lessons -->\n", "<!-- end of lessons -->"
    return re.sub(f"{start}.*?{end}", lambda _: f"{start}{table}\n{end}", text, flags=re.S)


def questions():
    """Return ``notebooks/questions.toml``: what people ask, and in which threads."""
    return tomllib.loads((NOTEBOOKS / "questions.toml").read_text(encoding="utf-8"))


def answers():
    """Return for each question the links to the sections that answer it, from ``notebooks/``.

    A section answers question ``k`` when the cell of its heading is tagged ``question-k``.
    """
    links = {}
    for path in all_paths()[1:]:
        place = path.relative_to(NOTEBOOKS)
        number = path.name[:2] if path.parent == NOTEBOOKS else f"{path.name[:2]} deeper"
        for cell in read(path).cells:
            for key in (tag.removeprefix("question-") for tag in tags(cell) if "question-" in tag):
                link = f"[{number}: {heading(cell)}]({place}#{anchor(heading(cell))})"
                links.setdefault(key, []).append(link)
    unknown = sorted(set(links) - set(questions()))
    if unknown:
        raise ValueError(f"no such question in notebooks/questions.toml: {', '.join(unknown)}")
    return links


def question_index():
    """Return the index of questions, grouped by symptom: each with its answers and threads."""
    links, groups = answers(), {}
    for key, question in questions().items():
        if key in links:
            groups.setdefault(question["symptom"], []).append(
                f"**{question['asks']}** {' · '.join(links[key])}  \n"
                f"<small>{', '.join(question['threads'])}</small>"
            )
    parts = [
        "# Questions that people ask",
        "Find your symptom; the link opens the section that answers it. In small letters stand the "
        "threads in which people ask: `transformers#2946` is issue or pull request 2946 of the "
        "repository of that name.",
    ]
    for symptom, entries in groups.items():
        parts += [f"## {symptom}", *entries]
    return "\n\n".join(parts) + "\n"


def practice(notebook, path):
    """Return where the subject of a lesson goes wrong in practice, the way deeper, and on."""
    known, found, lines = questions(), {}, []
    for cell in notebook.cells:
        for key in (tag.removeprefix("question-") for tag in tags(cell) if "question-" in tag):
            found.setdefault(key, []).append(heading(cell))
    for key, places in found.items():
        links = " · ".join(f"[{place}](#{anchor(place)})" for place in places)
        asks = "" if places == [known[key]["asks"]] else f"{known[key]['asks']} → "
        lines.append(f"- {asks}{links} <small>{', '.join(known[key]['threads'])}</small>")
    parts = ["## Where this goes wrong in practice"]
    parts += ["People ask:\n\n" + "\n".join(lines)] if lines else []
    if path.parent == NOTEBOOKS:
        deeper = [(p.relative_to(NOTEBOOKS), read(p)) for p in deeper_paths(path.name[:2])]
        more = [f"- [{title(n)}]({p}): {result(n)} ({minutes(n)} minutes)" for p, n in deeper]
        parts += ["One level deeper:\n\n" + "\n".join(more)] if more else []
    return "\n\n".join([*parts, navigation(path)])


def quiz(path):
    """Return "Check yourself": each choice opens and says why it is right or wrong."""
    asked = tomllib.loads((NOTEBOOKS / "quiz.toml").read_text(encoding="utf-8"))
    parts = ["## Check yourself", "Choose, then open your choice."]
    key = path.name[:2] if path.parent == NOTEBOOKS else path.stem
    for number, question in enumerate(asked[key], 1):
        parts.append(f"**{number}.** {question['asks']}")
        for choice in question["choice"]:
            sign = "✓" if choice.get("right") else "✗"
            parts.append(
                f"<details><summary>{in_html(choice['text'])}</summary>\n\n"
                f"{sign} {choice['why']}\n\n</details>"
            )
    return "\n\n".join(parts)


def in_html(text):
    """Return text with `code` for use inside an HTML element, where Markdown isn't read."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(text, quote=False))


def refresh_generated(notebook, path):
    """Fill the cells that are generated; returns nothing, changes ``notebook``."""
    made = {}
    if path == lesson_paths()[0]:
        made = {"lesson-table": lesson_table(), "navigation": navigation(path)}
    else:
        made = {"practice": practice(notebook, path), "quiz": quiz(path)}
    for tag, source in made.items():
        [cell] = tagged(notebook, tag)
        cell.source = source
    for about in tagged(notebook, "about"):
        about.source = re.sub(r"(?<=^\*\*)\d+", str(minutes(notebook)), about.source)


def hide(notebook):
    """Hide what the reader opens when ready: outputs after a Predict, solutions and proofs."""
    asked = False
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            asked = "**Predict.**" in cell.source
            continue
        solution, proof = ("solution" in tags(cell)), ("proof" in tags(cell))
        hidden = {"source_hidden": solution or proof, "outputs_hidden": solution or asked}
        cell.metadata["jupyter"] = {name: True for name, on in hidden.items() if on}
        if not cell.metadata["jupyter"]:
            del cell.metadata["jupyter"]
        kept = {*tags(cell)} - {"hide-input", "hide-output"}
        kept |= {"hide-input"} if hidden["source_hidden"] else set()
        kept |= {"hide-output"} if hidden["outputs_hidden"] else set()
        cell.metadata["tags"] = sorted(kept)
        asked = False


def normalise(notebook, path):
    """Keep what a reader or nbval needs, so that a second run changes no byte."""
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    notebook.nbformat_minor = 5
    hide(notebook)
    for number, cell in enumerate(notebook.cells):
        cell.id = f"{path.stem[:2]}-{number:02}"
        cell.metadata = {k: v for k, v in sorted(cell.metadata.items()) if k in KEPT_CELL_METADATA}
        if not tags(cell):
            cell.metadata.pop("tags", None)
        for output in cell.get("outputs", []):
            if output.output_type == "error":  # the frames hold paths of this machine
                output.traceback = [f"{output.ename}: {output.evalue}"]


def execute(notebook, path):
    """Run the cells in a fresh kernel, in the folder of the lesson."""
    NotebookClient(
        notebook,
        timeout=1200,
        kernel_name="python3",
        record_timing=False,
        store_widget_state=False,
        coalesce_streams=True,  # how prints are cut into messages depends on timing
        resources={"metadata": {"path": str(path.parent)}},
    ).execute()


def keep_figures(notebook, stored):
    """Put the stored figures of training runs back where their words are the same."""
    drawn = {}
    for cell in tagged(stored, "training-figure"):
        for output in cell.outputs:
            drawn[cell.source, output.get("data", {}).get("text/plain")] = output
    for cell in tagged(notebook, "training-figure"):
        for number, output in enumerate(cell.outputs):
            key = cell.source, output.get("data", {}).get("text/plain")
            if key[1] and key in drawn:
                cell.outputs[number] = drawn[key]
                cell.outputs[number].execution_count = output.execution_count


def write(path, text):
    """Write a file where its text changes, and say so."""
    if not path.exists() or text != path.read_text(encoding="utf-8"):
        atomic.write(path, text)
        tqdm.write(f"changed: {path.name}")


def main():
    """Refresh the lessons that were named."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("lessons", nargs="*", type=pathlib.Path, help="default: all of them")
    paths = all_paths()
    chosen = [path.resolve() for path in parser.parse_args().lessons] or paths
    if NOTEBOOKS.parent != ROOT:
        parser.error("a translation is made by tools.translate: unset MLMTUTOR_NOTEBOOKS")
    strangers = [str(path) for path in chosen if path not in paths]
    if strangers:
        parser.error(f"not a lesson in {NOTEBOOKS.name}/: {', '.join(strangers)}")
    bar = tqdm(chosen, unit="lesson")
    for path in bar:
        bar.set_postfix_str(path.stem)
        notebook = read(path)
        stored = copy.deepcopy(notebook)
        refresh_generated(notebook, path)
        execute(notebook, path)
        normalise(notebook, path)
        keep_figures(notebook, stored)
        write(path, nbformat.writes(notebook).rstrip("\n") + "\n")
    if chosen == paths:
        write(NOTEBOOKS / "questions.md", question_index())
        write(ROOT / "README.md", readme())


if __name__ == "__main__":
    main()
