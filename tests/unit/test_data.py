"""The text of lesson 06, and the licence of whatever ships."""

import importlib.metadata
import pathlib
import re

from stored import ROOT

SHIPPED = ROOT / "mlmtutor"
TEXT = (SHIPPED / "data" / "opticks.txt").read_bytes()


def test_opticks_is_small_and_has_one_paragraph_a_line():
    assert len(TEXT) <= 300_000
    assert TEXT.endswith(b"\n")
    paragraphs = TEXT.decode("ascii").splitlines()
    assert len(paragraphs) == len(set(paragraphs)) > 300
    assert all(text[0].isupper() and text[-1] in ".?" for text in paragraphs)
    for word in (b"Gutenberg", b"Proofread", b"Transcriber", b"[", b"_", b"\r"):
        assert word not in TEXT, "a word of the edition is left"
    notice = (SHIPPED / "data" / "NOTICE").read_text("utf-8")
    assert f"{TEXT.count(10)} paragraphs" in notice


def test_licences_name_every_file_that_ships_beside_the_code():
    notices = {
        name: (SHIPPED / name / "NOTICE").read_text("utf-8") for name in ("data", "tutor_bert")
    }
    for path in SHIPPED.rglob("*"):
        place = path.relative_to(SHIPPED)
        plain = path.suffix in (".py", ".pyc", ".typed", ".toml") or path.name == "NOTICE"
        if path.is_file() and not plain and place.parts[0] != "tutor_bert":
            assert path.name in notices["data"], f"{place}: name its licence in data/NOTICE"
    for text in notices.values():
        assert re.search(r"public domain|MIT|Apache", text, re.I)
    assert "MIT" in pathlib.Path(ROOT, "LICENSE").read_text("utf-8")
    stated = importlib.metadata.metadata("mlmtutor").get_all("License-File")
    assert {"LICENSE", "mlmtutor/tutor_bert/NOTICE", "mlmtutor/data/NOTICE"} <= set(stated)
