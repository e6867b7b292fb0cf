"""The copies that people work in: what they hold, and that nobody's answers are overwritten."""

import nbformat
import pytest
import stored

from tools import copies


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("student")
    copies.build(out, copies.student_copy)
    return out


def copy_of(folder, path):
    return stored.read(folder / path.relative_to(stored.ROOT / "notebooks"))


@pytest.mark.parametrize("path", stored.PATHS, ids=stored.NAMES)
def test_student_copy_is_the_lesson_without_solutions_and_outputs(folder, path):
    copy = copy_of(folder, path)
    kept = [c.source for c in stored.read(path).cells if "solution" not in stored.tags(c)]
    assert [cell.source for cell in copy.cells if not cell.id.endswith("-student")] == kept
    assert "A copy for students" in copy.cells[1].source
    for cell in stored.code_cells(copy):
        assert cell.outputs == []
        assert cell.execution_count is None
    nbformat.validate(copy)


def test_build_leaves_answers_alone_and_says_so(tmp_path):
    path = stored.CORE[0]
    target = tmp_path / path.name
    copies.build(tmp_path, lambda notebook, name: notebook)
    mine = stored.read(target)
    mine.cells[2].source += "\nmy_answer = 1"
    nbformat.write(mine, target)
    written, kept = copies.build(tmp_path, lambda notebook, name: notebook)
    assert (kept, target in written) == ([], False)  # the lesson is the same: nothing to say
    written, kept = copies.build(tmp_path, copies.student_copy)
    assert kept == [target]
    assert target not in written
    assert "my_answer" in target.read_text()


def test_build_renews_a_copy_that_was_opened_and_run_only(tmp_path):
    target = tmp_path / stored.CORE[0].name
    copies.build(tmp_path, lambda notebook, name: notebook)
    ran = stored.read(target)
    ran.metadata["kernelspec"] = {"display_name": "Python 3 (ipykernel)", "name": "python3"}
    ran.cells[2].execution_count = 7
    nbformat.write(ran, target)
    written, kept = copies.build(tmp_path, copies.student_copy)
    assert kept == []
    assert target in written
