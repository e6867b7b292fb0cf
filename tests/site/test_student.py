"""The copies for students: no solution in them, and every exercise can be solved in them."""

import ast
import contextlib
import importlib.util
import inspect
import io
import re

import stored
import nbformat
import pytest
import torch

from mlmtutor import load_tutor

SPEC = importlib.util.spec_from_file_location("student", stored.ROOT / "tools" / "student.py")
student = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(student)

# Run from their first cell to their last, as they are handed out and with the solutions put in.
RUN = ["01_answer_the_question", "04_ignore_positions_with_minus_100"]


@pytest.fixture(scope="module")
def copies(tmp_path_factory):
    paths = student.build(tmp_path_factory.mktemp("build") / "student")
    return {path.stem: nbformat.read(path, as_version=4) for path in paths}


def solution_functions(stem):
    """Return the source of each function that the solutions of a lesson define, by name."""
    notebook = stored.read(stored.ROOT / "notebooks" / f"{stem}.ipynb")
    return {
        node.name: ast.unparse(node)
        for cell in notebook.cells
        if "solution" in stored.tags(cell)
        for node in ast.parse(cell.source).body
        if isinstance(node, ast.FunctionDef)
    }


def stubs(notebook):
    """Return the cells to fill in, by the name of their function."""
    found = {}
    for cell in stored.code_cells(notebook):
        if "exercise" in stored.tags(cell) and "raise NotImplementedError" in cell.source:
            for node in ast.parse(cell.source).body:
                if isinstance(node, ast.FunctionDef) and is_stub(node):
                    found[node.name] = cell
    return found


def is_stub(node):
    last = node.body[-1]
    return isinstance(last, ast.Raise) and ast.unparse(last.exc) == "NotImplementedError"


def filled(notebook, stem):
    """Return a copy in which each stub is replaced by the function of the solution."""
    copy = nbformat.from_dict(notebook)
    sources = solution_functions(stem)
    for name, cell in stubs(copy).items():
        cell.source = sources[name]
    return copy


def run(cells, namespace):
    """Run cells in one namespace; return what they print. Cells that must fail, do."""
    printed = io.StringIO()
    for cell in cells:
        with contextlib.redirect_stdout(printed):
            if "raises-exception" in stored.tags(cell):
                with pytest.raises(Exception):  # noqa: B017  the lesson stores which
                    exec(cell.source, namespace)
            else:
                exec(cell.source, namespace)
    return printed.getvalue()


@pytest.mark.parametrize("stem", stored.NAMES)
def test_a_copy_is_the_lesson_without_solutions_and_outputs(copies, stem):
    copy = copies[stem]
    lesson = stored.read(stored.ROOT / "notebooks" / f"{stem}.ipynb")
    nbformat.validate(copy)
    assert all(not c.outputs and c.execution_count is None for c in copy.cells if "outputs" in c)
    kept = [c.source for c in stored.code_cells(lesson) if "solution" not in stored.tags(c)]
    assert [cell.source for cell in stored.code_cells(copy)] == kept
    assert len(stored.code_cells(lesson)) > 0
    assert "copy for students" in copy.cells[1].source
    assert f"notebooks/{stem}.ipynb" in copy.cells[1].source


@pytest.mark.parametrize("stem", stored.NAMES[1:])
def test_no_solution_leaks(copies, stem):
    text = "\n".join(cell.source for cell in copies[stem].cells)
    functions = solution_functions(stem)
    assert len(functions) >= 2
    for name, source in functions.items():
        node = ast.parse(source).body[0]
        for statement in node.body[1:]:  # the first is the docstring, which the stub has too
            assert ast.unparse(statement) not in text or len(ast.unparse(statement)) < 25, name
    assert not [c for c in copies[stem].cells if "solution" in stored.tags(c)]


@pytest.mark.parametrize("stem", stored.NAMES[1:])
def test_every_stub_raises_not_implemented(copies, stem):
    found = stubs(copies[stem])
    assert set(found) <= set(solution_functions(stem))
    assert len(found) >= 2
    for name, cell in found.items():
        namespace = {}
        exec("from __future__ import annotations\n" + cell.source, namespace)
        function = namespace[name]
        needed = [
            p for p in inspect.signature(function).parameters.values() if p.default is p.empty
        ]
        with pytest.raises(NotImplementedError):
            function(*[None] * len(needed))


@pytest.mark.parametrize("stem", stored.NAMES[1:])
def test_each_checker_tells_a_stub_from_the_reference(copies, stem):
    torch.manual_seed(0)
    sees = dict(zip(("model", "tokenizer"), load_tutor(), strict=True))
    for cell in stored.code_cells(copies[stem]):
        tree = ast.parse(cell.source)
        imports = [n for n in tree.body if isinstance(n, ast.Import | ast.ImportFrom)]
        exec(compile(ast.Module(imports, []), stem, "exec"), sees)
    for copy, expected in {"stub": copies[stem], "reference": filled(copies[stem], stem)}.items():
        exercise = [c for c in stored.code_cells(expected) if "exercise" in stored.tags(c)]
        printed = run(exercise, dict(sees)).splitlines()
        start = {"stub": "Not written yet", "reference": "✓ "}[copy]
        answers = [line for line in printed if line.startswith(("Not written yet", "✓ "))]
        assert len(answers) == len(stubs(copies[stem]))
        assert all(line.startswith(start) for line in answers), printed


@pytest.mark.parametrize("stem", RUN)
def test_a_copy_runs_to_its_end(copies, stem, monkeypatch):
    monkeypatch.chdir(stored.ROOT / "notebooks")
    printed = run(stored.code_cells(copies[stem]), {"__name__": "__main__"})
    assert printed.count("Not written yet") == len(stubs(copies[stem]))
    assert not re.findall("^✓ ", printed, re.M)


@pytest.mark.parametrize("stem", RUN)
def test_a_filled_copy_runs_to_its_end(copies, stem, monkeypatch):
    monkeypatch.chdir(stored.ROOT / "notebooks")
    printed = run(stored.code_cells(filled(copies[stem], stem)), {"__name__": "__main__"})
    assert "Not written yet" not in printed
    assert len(re.findall("^✓ ", printed, re.M)) == len(stubs(copies[stem]))


def test_links_of_the_copies_lead_to_copies(copies):
    names = {f"{stem}.ipynb" for stem in copies}
    links = [
        link
        for copy in copies.values()
        for cell in stored.prose(copy)
        for link in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`]*`", "", cell.source))
    ]
    assert len(links) > 20
    assert {link.split("#")[0] for link in links} <= names


def test_the_map_does_not_promise_solutions(copies):
    text = "\n".join(cell.source for cell in copies["00_start_here"].cells)
    assert student.COLLAPSED not in text
    assert student.ELSEWHERE in text
