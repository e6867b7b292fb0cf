"""The text of lesson 06, and the tool that makes it."""

import importlib.util

import stored

TEXT = (stored.ROOT / "mlmtutor" / "data" / "opticks.txt").read_bytes()


def tool():
    spec = importlib.util.spec_from_file_location("opticks", stored.ROOT / "tools" / "opticks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_text_is_small_and_has_one_paragraph_a_line():
    assert len(TEXT) <= 300_000
    assert TEXT.endswith(b"\n")
    paragraphs = TEXT.decode("ascii").splitlines()
    assert len(paragraphs) == len(set(paragraphs)) > 300
    assert all(text[0].isupper() and text[-1] in ".?" for text in paragraphs)
    assert b"\r" not in TEXT


def test_no_word_of_the_edition_is_left():
    for word in (b"Gutenberg", b"Proofread", b"Transcriber", b"[", b"_"):
        assert word not in TEXT


def test_the_notice_says_where_it_comes_from():
    notice = (stored.ROOT / "mlmtutor" / "data" / "NOTICE").read_text("utf-8")
    assert "Public domain" in notice
    assert f"{TEXT.count(10)} paragraphs" in notice


def test_the_tool_keeps_prose_alone():
    prose = "By the _Rays_ of Light I understand its least Parts [in _Fig._ 1.], and those as well "
    prose += "Successive in the same Lines,\nas Contemporary in several Lines of the same Medium."
    edition = "\n\n".join(
        ["Produced by volunteers", f"{tool().FIRST_WORDS} is short.", "BOOK I.", prose,
         f"[Greek: a] {prose}", f"    {prose}", "[Illustration: FIG. 1.]"]
    )  # fmt: skip
    assert list(tool().paragraphs(edition)) == [
        "By the Rays of Light I understand its least Parts, and those as well Successive in the "
        "same Lines, as Contemporary in several Lines of the same Medium."
    ]
