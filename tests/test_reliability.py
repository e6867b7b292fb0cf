"""docs/reliability.md is what the stored records say."""

import importlib.util
import json
import re

import lessons
import pytest
import test_another_checkpoint
import test_numbers_in_prose

SPEC = importlib.util.spec_from_file_location(
    "reliability", lessons.ROOT / "tools" / "reliability.py"
)
reliability = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(reliability)


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """Records and page in a folder of the test."""
    monkeypatch.setattr(reliability, "RECORDS", tmp_path / "records.json")
    monkeypatch.setattr(reliability, "PAGE", tmp_path / "page.md")
    return tmp_path


def test_the_page_is_made_from_the_stored_records():
    records = json.loads(reliability.RECORDS.read_text("utf-8"))
    assert reliability.page(records) == reliability.PAGE.read_text("utf-8")


def test_every_record_has_its_section():
    records = json.loads(reliability.RECORDS.read_text("utf-8"))
    assert records.keys() == reliability.SECTIONS.keys()


@pytest.mark.parametrize(
    ("name", "counted"),
    [
        ("numbers", test_numbers_in_prose.figures),
        ("checkpoint", test_another_checkpoint.figures),
    ],
)
def test_what_is_counted_in_the_lessons_is_up_to_date(name, counted):
    stored = json.loads(reliability.RECORDS.read_text("utf-8"))[name]["figures"]
    assert counted().items() <= stored.items(), "run python tools/reliability.py"


@pytest.mark.parametrize("name", reliability.SECTIONS)
def test_the_command_exists(name):
    command = reliability.SECTIONS[name][1]
    if command.startswith("make "):
        target = command.removeprefix("make ")
        makefile = (lessons.ROOT / "Makefile").read_text("utf-8")
        assert re.search(rf"^{target}:", makefile, re.M)
    else:
        assert (lessons.ROOT / command.split()[1]).is_file()


def test_a_record_is_stored_and_shown(elsewhere):
    reliability.record("fuzz", {"cases": "12"}, ["`f` is not tried"])
    reliability.record("fuzz", {"cases": "13"})
    reliability.record("numbers", {"numbers": "5"}, ["one"])
    reliability.record("numbers", {"lessons": "11"}, ["one"], add=True)
    text = reliability.PAGE.read_text("utf-8")
    assert re.search(r"\| cases +\| +13 \|", text)
    assert "12" not in text.partition("## Feed")[2].partition("Measured on")[0]
    assert "`f` is not tried" not in text
    assert "\n- one\n" in text
    assert re.search(r"\| numbers +\| +5 \|\n\| lessons +\| +11 \|", text)
    assert not list(elsewhere.glob("*.new"))


def test_an_unknown_section_is_refused_before_anything_is_written(elsewhere):
    with pytest.raises(ValueError, match="no section 'magic'"):
        reliability.record("magic", {})
    assert not list(elsewhere.iterdir())
