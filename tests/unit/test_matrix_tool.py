"""docs/releases.md keeps the rows of releases that did not run again."""

import importlib.util

import stored

SPEC = importlib.util.spec_from_file_location("matrix", stored.ROOT / "tools" / "matrix.py")
matrix = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(matrix)
PAGE = (stored.ROOT / "docs" / "releases.md").read_text("utf-8")


def test_the_page_is_what_the_tool_writes():
    rows = matrix.read_rows(PAGE)
    assert matrix.PINNED in rows
    assert matrix.page_of(rows) == PAGE


def test_a_row_joins_the_others_in_the_order_of_the_releases():
    before = {"5.10.0": "| 5.10.0 | 1 |", "4.57.6": "| 4.57.6 (pinned) | 1 |"}
    page = matrix.page_of(before | {"5.9.0": "| 5.9.0 | 2 |"})
    assert list(matrix.read_rows(page)) == ["4.57.6", "5.9.0", "5.10.0"]
    assert matrix.read_rows(page)["4.57.6"] == "| 4.57.6 | 1 |", "another release is pinned"
