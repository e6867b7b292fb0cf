"""What nbval cannot see: that the comparison is real, and that a lesson has its shape."""

import itertools
import pathlib
import re
import shutil
import statistics
import subprocess
import sys
import tomllib

import stored
import nbformat
import pytest

HEADINGS = ["What you will learn", "Before you start", "Setup", "Summary",
            "Where this goes wrong in practice"]  # fmt: skip
TAGS = {"slide", "notes", "exercise", "solution", "hide-input", "raises-exception", "navigation",
        "lesson-table", "question-index", "nbval-ignore-output", "training-figure"}  # fmt: skip
VOLATILE = re.compile(
    r"0x[0-9a-f]{6,}|/tmp/|/home/|/r[o]ot/|/w[o]rk/|/Users/|ipykernel_|site-packages"
)
BANNED = re.compile(
    r"\b(simply|just|easily|obviously|of course|powerful|let's|basically|note that|"
    r"as you can see|dive in)\b|!(?=\s|$)",
    re.I,
)
IGNORED = tomllib.loads((stored.ROOT / "tests" / "ignored_cells.toml").read_text("utf-8"))["cell"]

every_lesson = pytest.mark.parametrize("path", stored.PATHS, ids=stored.NAMES)
every_full_lesson = pytest.mark.parametrize("path", stored.PATHS[1:], ids=stored.NAMES[1:])


@every_lesson
def test_every_code_cell_was_run_in_order(path):
    # nbval compares nothing in a cell without a count: a stripped lesson would pass.
    cells = stored.code_cells(stored.read(path))
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))


@every_lesson
def test_stored_outputs_hold_nothing_volatile(path):
    for cell in stored.code_cells(stored.read(path)):
        for text in stored.output_texts(cell):
            found = VOLATILE.search(text)
            assert not found, f"cell {cell.id} stores {found.group()!r}"


@every_lesson
def test_no_stderr_is_stored(path):
    for cell in stored.code_cells(stored.read(path)):
        assert not [o for o in cell.outputs if o.get("name") == "stderr"], f"cell {cell.id}"


@every_lesson
def test_stored_errors_are_meant(path):
    for cell in stored.code_cells(stored.read(path)):
        stored = any(output.output_type == "error" for output in cell.outputs)
        assert stored == ("raises-exception" in stored.tags(cell)), f"cell {cell.id}"


@every_lesson
def test_cells_are_plain(path):
    for cell in stored.code_cells(stored.read(path)):
        assert not cell.source.rstrip().endswith(";"), f"cell {cell.id}: nbval fails on ';'"
        assert "NBVAL" not in cell.source, f"cell {cell.id}: use a tag and register it"
        assert "http" not in cell.source, f"cell {cell.id} names a URL"
        assert not re.search(r"^\s*[%!]", cell.source, re.M), f"cell {cell.id} has a magic"
        assert max(map(len, cell.source.splitlines())) <= 100, f"cell {cell.id}"
        lines = [line for line in cell.source.splitlines() if line.strip()]
        assert len(lines) <= (30 if "solution" in stored.tags(cell) else 12), f"cell {cell.id}"


@every_lesson
def test_tags_are_known(path):
    for cell in stored.read(path).cells:
        for tag in stored.tags(cell):
            assert tag in TAGS or re.fullmatch(r"question-\d+", tag), f"cell {cell.id}: {tag}"


@every_lesson
def test_prose_is_plain(path):
    for cell in stored.prose(stored.read(path)):
        text = re.sub(r"```.*?```|`[^`]*`|\]\([^)]*\)", "", cell.source, flags=re.S)
        found = BANNED.search(text)
        assert not found, f"cell {cell.id}: {found.group()!r}"
        assert cell.source.strip(), f"cell {cell.id} is empty"
        assert "<script" not in cell.source


@every_lesson
def test_headings_are_in_order(path):
    levels = [
        len(marks)
        for cell in stored.prose(stored.read(path))
        for marks in re.findall(r"^(#+) ", cell.source, re.M)
    ]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(deeper - level <= 1 for level, deeper in itertools.pairwise(levels))


@every_full_lesson
def test_skeleton(path):
    notebook = stored.read(path)
    text = "\n".join(cell.source for cell in stored.prose(notebook))
    found = [text.find(f"## {heading}\n") for heading in HEADINGS]
    assert -1 not in found, f"missing: {HEADINGS[found.index(-1)]}"
    assert found == sorted(found)
    assert re.match(r"# [A-Z][^\n]+\n\n[^\n]+$", notebook.cells[0].source)
    exercises = re.findall(r"^### Exercise (\d) \((easy|medium|hard), \d+ minutes\)$", text, re.M)
    assert [int(k) for k, _ in exercises] == list(range(1, len(exercises) + 1))
    assert 2 <= len(exercises) <= 3
    solved = [c for c in notebook.cells if "solution" in stored.tags(c)]
    assert len(solved) == len(exercises)
    assert all(c.metadata.jupyter.source_hidden for c in solved)
    assert text.count("<details>") >= len(exercises), "each exercise has a hint"
    assert "navigation" in stored.tags(notebook.cells[-1])


@every_full_lesson
def test_size(path):
    notebook = stored.read(path)
    cells = stored.code_cells(notebook)
    assert 25 <= len(notebook.cells) <= 75
    assert statistics.median(len(c.source.splitlines()) for c in cells) <= 6


@every_lesson
def test_code_is_spoken_about(path):
    kinds = "".join(cell.cell_type[0] for cell in stored.read(path).cells)
    assert "cccc" not in kinds, f"cells {kinds.index('cccc')} and on: four of code without a word"


@every_full_lesson
def test_exercises_stand_unsolved(path):
    # The stub is what the reader fills in; run as it is, its checker says so and goes on.
    notebook = stored.read(path)
    stubs = [c for c in stored.code_cells(notebook) if "raise NotImplementedError" in c.source]
    texts = [t for c in stored.code_cells(notebook) for t in stored.output_texts(c)]
    assert sum("Not written yet" in text for text in texts) == len(stubs) >= 2
    for cell in notebook.cells:
        if "solution" in stored.tags(cell):
            assert any(text.startswith("✓") for text in stored.output_texts(cell)), cell.id


def test_every_question_is_answered_in_a_section():
    questions = tomllib.loads((stored.ROOT / "notebooks" / "questions.toml").read_text("utf-8"))
    answered = {
        tag.removeprefix("question-")
        for path in stored.PATHS
        for cell in stored.prose(stored.read(path))
        for tag in stored.tags(cell)
        if re.fullmatch(r"question-\d+", tag)
    }
    assert answered == set(questions)


def test_every_question_is_found_from_the_map():
    questions = tomllib.loads((stored.ROOT / "notebooks" / "questions.toml").read_text("utf-8"))
    start = stored.read(stored.PATHS[0])
    [index] = [c.source for c in start.cells if "question-index" in stored.tags(c)]
    for question in questions.values():
        for thread in question["threads"]:
            assert thread in index
    headings = {
        (path.name, heading)
        for path in stored.PATHS
        for cell in stored.prose(stored.read(path))
        for heading in re.findall(r"^## (.+)$", cell.source, re.M)
    }
    links = re.findall(r"\[\d\d: (.+?)\]\(([^#)]+)#", index)
    assert len(links) >= len(questions)
    assert {(name, heading) for heading, name in links} <= headings


def test_ignored_cells_are_registered():
    found = {
        (path.stem, cell.id)
        for path in stored.PATHS
        for cell in stored.code_cells(stored.read(path))
        if any(tag.startswith("nbval") for tag in stored.tags(cell))
    }
    registered = {(entry["lesson"], entry["cell"]) for entry in IGNORED}
    assert found == registered
    assert all(len(entry["reason"]) > 20 for entry in IGNORED)
    code = sum(len(stored.code_cells(stored.read(path))) for path in stored.PATHS)
    assert len(found) <= 0.05 * code, "too little is compared"


def test_sanitizer_rules_are_alive():
    # nbval drops a rule silently unless both lines match this.
    text = (stored.ROOT / "tests" / "nbval_sanitize.cfg").read_text("utf-8")
    rules = re.findall(r"^regex: (.+)$\n^replace: (.+)$", text, re.M)
    assert len(rules) == len(re.findall(r"^\[", text, re.M)) == 1
    for regex, marker in rules:
        assert re.sub(regex, marker, "base64,iVBORw0KGgo=") == marker


def run_nbval(folder, *options):
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--nbval",
         "--nbval-current-env", *options, str(folder)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.fixture
def small_lesson(tmp_path):
    """Lesson 01 cut to its first cells with a printed output, outside the project."""
    source = stored.PATHS[1]
    notebook = stored.read(source)
    last = next(i for i, c in enumerate(notebook.cells) if c.get("outputs"))
    notebook.cells = notebook.cells[: last + 1]
    path = pathlib.Path(shutil.copy(source, tmp_path / source.name))
    nbformat.write(notebook, path)
    return path


def test_one_changed_character_fails(small_lesson):
    assert run_nbval(small_lesson).returncode == 0
    notebook = stored.read(small_lesson)
    output = notebook.cells[-1].outputs[0]
    assert output.text[0].isdigit()
    output.text = str((int(output.text[0]) + 1) % 10) + output.text[1:]
    nbformat.write(notebook, small_lesson)
    result = run_nbval(small_lesson)
    assert result.returncode == 1, result.stdout
    assert "Cell outputs differ" in result.stdout
