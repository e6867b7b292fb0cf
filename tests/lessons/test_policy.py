"""What nbval cannot see: that the comparison is real, and that a lesson has its shape."""

import ast
import collections
import itertools
import re
import subprocess
import sys
import tomllib

import nbformat
import pytest
import stored

from tools import lessons, needs_nothing

TAGS = {"about", "exercise", "figure", "hide-input", "hide-output", "lesson-table", "navigation",
        "nbval-ignore-output", "notes", "practice", "proof", "quiz", "raises-exception", "slide",
        "solution", "training-figure"}  # fmt: skip
VOLATILE = re.compile(
    r"0x[0-9a-f]{6,}|/tmp/|/home/|/r[o]ot/|/w[o]rk/|/Users/|ipykernel_|site-packages"
)
BANNED = re.compile(
    r"\b(simply|just|easily|obviously|of course|powerful|let's|basically|note that|"
    r"as you can see|dive in)\b|!(?=\s|$)",
    re.I,
)
IGNORED = tomllib.loads(
    (stored.ROOT / "tests" / "lessons" / "ignored_cells.toml").read_text("utf-8")
)["cell"]

every_lesson = pytest.mark.parametrize("path", stored.PATHS, ids=stored.NAMES)
every_full_lesson = pytest.mark.parametrize("path", stored.FULL, ids=stored.NAMES[1:])


def lines(cell):
    return [line for line in cell.source.splitlines() if line.strip()]


@pytest.mark.parametrize(
    "path", [*stored.PATHS, needs_nothing.NOTEBOOK], ids=lambda path: path.stem
)
def test_outputs_are_stored_from_one_clean_run(path):
    # nbval compares nothing in a cell without a count: a stripped lesson would pass.
    cells = stored.code_cells(stored.read(path))
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    for cell in cells:
        kinds = {output.get("name", output.output_type) for output in cell.outputs}
        assert "stderr" not in kinds, cell.id
        assert ("error" in kinds) == ("raises-exception" in stored.tags(cell)), cell.id
        for text in stored.output_texts(cell):
            assert not (found := VOLATILE.search(text)), f"cell {cell.id} stores {found.group()!r}"


@every_lesson
def test_cells_are_plain(path):
    for cell in stored.code_cells(stored.read(path)):
        assert not cell.source.rstrip().endswith(";"), f"cell {cell.id}: nbval fails on ';'"
        assert "NBVAL" not in cell.source, f"cell {cell.id}: use a tag and register it"
        assert "http" not in cell.source, f"cell {cell.id} names a URL"
        assert not re.search(r"^\s*[%!]", cell.source, re.M), f"cell {cell.id} has a magic"
        assert max(map(len, cell.source.splitlines())) <= 100, f"cell {cell.id}"
        most = {"solution": 30, "exercise": 16, "proof": 15}
        allowed = max([8, *(most.get(tag, 0) for tag in stored.tags(cell))])
        assert len(lines(cell)) <= allowed, f"cell {cell.id}"


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
def test_lesson_has_its_anatomy(path):
    notebook = stored.read(path)
    first, about, setup = notebook.cells[:3]
    assert re.fullmatch(r"# [A-Z][^\n]+\n\n[^\n]+", first.source)
    assert stored.tags(about) == ["about"]
    assert about.source.startswith(f"**{lessons.minutes(notebook)} minutes.** ")
    assert setup.cell_type == "code"
    assert len(lines(setup)) <= 8
    headings = [c.source.split("\n")[0] for c in stored.prose(notebook) if "## " in c.source]
    sections = [heading[3:] for heading in headings if heading.startswith("## ")]
    assert sections[-3:] == ["Check yourself", "Summary", "Where this goes wrong in practice"]
    assert stored.tags(notebook.cells[-1]) == ["practice"]
    exercises = [h for h in headings if h.startswith("### Exercise")]
    for number, heading in enumerate(exercises, 1):
        assert re.fullmatch(rf"### Exercise {number} \((easy|medium|hard), \d+ minutes\)", heading)
    assert len(exercises) <= 2
    assert exercises or path not in stored.CORE


@every_full_lesson
def test_lesson_keeps_to_its_budget(path):
    notebook = stored.read(path)
    small = path in stored.CORE and path.name < "06"
    assert len(notebook.cells) <= (40 if small else 45)
    assert lessons.words(lessons.prose(notebook)) <= (900 if small else 1200)
    predicts = lessons.prose(notebook).count("**Predict.**")
    assert not small or (lessons.code_lines(notebook) <= 100 and predicts <= 6)


def test_lessons_together_have_600_cells_at_most():
    assert sum(len(stored.read(path).cells) for path in stored.PATHS) <= 600


@pytest.mark.parametrize("path", stored.CORE, ids=[path.stem for path in stored.CORE])
def test_lesson_shows_a_figure_before_its_second_section(path):
    cells = stored.read(path).cells
    sections = [i for i, cell in enumerate(cells) if cell.source.startswith("## ")]
    figures = [i for i, cell in enumerate(cells) if "figure" in stored.tags(cell)]
    assert figures
    assert figures[0] < sections[1]


@every_full_lesson
def test_predict_is_followed_by_a_hidden_output_and_a_sentence(path):
    cells = stored.read(path).cells
    for number, cell in enumerate(cells):
        if cell.cell_type == "markdown" and "**Predict.**" in cell.source:
            code, then = cells[number + 1 : number + 3]
            assert code.cell_type == "code", cell.id
            assert stored.output_texts(code), code.id
            assert code.metadata.jupyter.outputs_hidden
            assert "hide-output" in stored.tags(code)
            assert then.cell_type == "markdown", then.id
            assert not then.source.startswith("#"), then.id


@every_full_lesson
def test_proof_is_collapsed_and_says_so(path):
    for cell in stored.code_cells(stored.read(path)):
        if "proof" in stored.tags(cell):
            assert cell.source.startswith("# Proof\n"), cell.id
            assert cell.metadata.jupyter.source_hidden
            assert "assert " in cell.source


@every_full_lesson
def test_solution_binds_no_name_of_an_exercise(path):
    bound = {"exercise": set(), "solution": set()}
    for cell in stored.code_cells(stored.read(path)):
        for kind in bound.keys() & {*stored.tags(cell)}:
            bound[kind] |= {n.name for n in ast.parse(cell.source).body if hasattr(n, "name")}
        if "solution" in stored.tags(cell):
            assert cell.source.startswith("# Solution: click to read\n"), cell.id
            assert cell.metadata.jupyter == {"source_hidden": True, "outputs_hidden": True}
    assert not bound["exercise"] & bound["solution"]
    assert {f"{name}_solution" for name in bound["exercise"]} <= bound["solution"]


@every_full_lesson
def test_paragraph_cites_one_thread_at_most(path):
    for paragraph in lessons.prose(stored.read(path)).split("\n\n"):
        assert len(re.findall(r"[\w.-]+/?[\w.-]*#\d+", paragraph)) <= 1, paragraph


@every_lesson
def test_code_is_spoken_about(path):
    kinds = "".join(cell.cell_type[0] for cell in stored.read(path).cells)
    assert "cccc" not in kinds, f"cells {kinds.index('cccc')} and on: four of code without a word"


@every_full_lesson
def test_exercise_stands_unsolved(path):
    # The stub is what the reader fills in; run as it is, its checker says so and goes on.
    notebook = stored.read(path)
    stubs = [c for c in stored.code_cells(notebook) if "raise NotImplementedError" in c.source]
    texts = [t for c in stored.code_cells(notebook) for t in stored.output_texts(c)]
    assert sum("Not written yet" in text for text in texts) == len(stubs)
    for cell in notebook.cells:
        if "solution" in stored.tags(cell):
            assert any(text.startswith("✓") for text in stored.output_texts(cell)), cell.id


def test_claim_is_asserted_in_one_notebook_alone():
    claims = collections.Counter()
    for path in stored.FULL:
        trees = [ast.parse(cell.source) for cell in stored.code_cells(stored.read(path))]
        nodes = (node for tree in trees for node in ast.walk(tree))
        claims.update({ast.unparse(node) for node in nodes if isinstance(node, ast.Assert)})
    assert [claim for claim, count in claims.items() if count > 1] == []
    assert claims


@every_lesson
def test_every_link_leads_to_a_file(path):
    for cell in stored.prose(stored.read(path)):
        for target in re.findall(r"\]\(([^)#\s]+)", cell.source):
            assert target.startswith("http") or (path.parent / target).exists(), target


def test_every_question_is_answered_in_a_section_and_listed():
    assert set(lessons.answers()) == set(lessons.questions())
    index = (stored.ROOT / "notebooks" / "questions.md").read_text("utf-8")
    assert index == lessons.question_index()


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


def test_one_changed_character_fails(tmp_path):
    for name, text in ("right", "42\n"), ("changed", "43\n"):
        output = nbformat.v4.new_output("stream", text=text)
        cell = nbformat.v4.new_code_cell("print(6 * 7)", execution_count=1, outputs=[output])
        nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / f"{name}.ipynb")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-rA", "--nbval"]
    result = subprocess.run(
        [*command, "--nbval-current-env", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Cell outputs differ" in result.stdout
    assert re.findall(r"^(PASSED|FAILED) .*?(\w+)\.ipynb", result.stdout, re.M) == [
        ("PASSED", "right"),
        ("FAILED", "changed"),
    ], result.stdout
