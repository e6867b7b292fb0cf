"""The Chinese edition: what must be equal in both languages, and what the catalogs must hold."""

import copy
import os
import posixpath
import re
import subprocess
import sys
import tomllib
import unicodedata
from collections import Counter

import pytest

from tools import translate

TERMS = tomllib.loads((translate.LOCALE / "terms.toml").read_text("utf-8"))
KNOWN = translate.translations()
PLACES = {name: place for place, name in translate.documents().items() if name}

# What a text of an output is, in both languages.
ROWS = "|".join(KNOWN[name] for name in ("position", "token", "scored", "✗ error"))
OUTPUT = re.compile(translate.OUTPUT.pattern.replace("(?:position|", f"(?:{ROWS}|position|"))

HAN = "[\u3400-\u9fff]"
NUMBER = r"\d+(?:[.,]\d+)*"
CODE = r"`[^`]*`"
LINK = r"\]\([^)]*\)"


@pytest.fixture(scope="module")
def chinese():
    return translate.build(KNOWN)[0]


# --- What the tool keeps ---


def test_with_empty_catalogs_each_document_is_the_english_one():
    for place, notebook in translate.build({})[0].items():
        english = (translate.ROOT / place).read_text("utf-8")
        assert translate.dump(notebook, place) == english, place


def without_texts(cell):
    """Return a cell without what may be translated."""
    cell = copy.deepcopy(cell)
    if cell.cell_type == "markdown":
        cell.source = ""
    for output in cell.get("outputs", []):
        if "text/html" in output.get("data", {}):
            parts = OUTPUT.split(output.data["text/html"])
            parts[2::3] = [""] * len(parts[2::3])
            output.data["text/html"] = parts
    return cell


@pytest.mark.parametrize("place", translate.documents())
def test_code_outputs_ids_and_tags_are_the_english_ones(place, chinese):
    english, translated = translate.load(place), chinese[place]
    assert translated.metadata == english.metadata
    assert [*map(without_texts, translated.cells)] == [*map(without_texts, english.cells)]


def test_captions_and_alt_texts_are_translated_and_nothing_else_of_an_output():
    notebook = translate.load(PLACES["01"])
    translate.translate(notebook, Upper())
    changed = [
        (old, new)
        for before, after in zip(translate.load(PLACES["01"]).cells, notebook.cells, strict=True)
        for old, new in zip(before.get("outputs", []), after.get("outputs", []), strict=True)
        if old != new
    ]
    assert changed
    for old, new in changed:
        assert old.data["text/plain"] == new.data["text/plain"]
        texts = translate.OUTPUT.split(new.data["text/html"])[2::3]
        assert texts
        assert all(text == text.upper() for text in texts)


class Upper(dict):
    """Translates every text into capitals."""

    def __contains__(self, text):
        return True

    def get(self, text, default=None):
        return text.upper()


def test_links_to_headings_follow_the_translated_headings(chinese):
    fragments = {place: translate.anchors(notebook) for place, notebook in chinese.items()}
    links = [
        (place, *link)
        for place, notebook in chinese.items()
        for cell in notebook.cells
        if cell.cell_type == "markdown" and place.startswith("notebooks/")
        for link in re.findall(r"\]\(([^()\s#]*)#([^()\s]+)\)", cell.source)
    ]
    assert len(links) > 50
    for place, target, fragment in links:
        folder = posixpath.dirname(place)
        target = posixpath.normpath(posixpath.join(folder, target)) if target else place
        assert fragment in fragments[target], (place, target, fragment)


@pytest.mark.slow
def test_copies_of_the_chinese_lessons_are_chinese(tmp_path, chinese):
    translate.write(chinese, tmp_path)
    environment = os.environ | {"MLMTUTOR_NOTEBOOKS": str(tmp_path / "notebooks")}
    for kind in ("lab", "student"):
        command = [sys.executable, "-m", "tools.copies", kind]
        subprocess.run(command, cwd=translate.ROOT, env=environment, check=True)
    whole, student = (
        translate.read(tmp_path / kind / posixpath.basename(PLACES["01"]))
        for kind in ("lab", "student")
    )
    assert whole == chinese[PLACES["01"]]
    assert re.search(HAN, student.cells[1].source)
    assert posixpath.basename(PLACES["01"]) in student.cells[1].source
    refused = subprocess.run(
        [sys.executable, "-m", "tools.lessons"], cwd=translate.ROOT, env=environment,
        capture_output=True, text=True,
    )  # fmt: skip
    assert refused.returncode == 2
    assert "made by tools.translate" in refused.stderr


def test_the_pieces_of_markdown():
    source = (
        "## A heading\n\n**Predict.** Is it `a` or *b*?\n\n- one\n- two\n\n"
        "| mask | `[MASK]` |\n| --- | --- |\n| [a link](x.md), and more | 3 |\n\n"
        "```python\ncode = 1\n```\n\n<details><summary>Hint 1</summary>\n\nLook.\n\n</details>\n"
        "\n```{glossary}\n`labels`\n  The ids.\n```\n"
    )
    parts = [*translate.pieces(source, generated=False)]
    assert "".join(part for part, _ in parts) == source
    assert [part for part, text in parts if text] == [
        "A heading", "**Predict.**", "Is it `a` or *b*?", "one", "two", "mask",
        "[a link](x.md), and more", "Hint 1", "Look.", "The ids.",
    ]  # fmt: skip
    line = "- Is [MASK] a mask? → [02 deeper: Which mask?](a.ipynb#Which) <small>x#1</small>\n"
    parts = [*translate.pieces(line, generated=True)]
    assert [part for part, text in parts if text] == ["Is [MASK] a mask?", "deeper", "Which mask?"]


# --- What happens when the English text changes ---


@pytest.fixture
def catalogs(tmp_path, monkeypatch):
    """Two texts with translations, in a folder of their own."""
    monkeypatch.setattr(translate, "LOCALE", tmp_path)

    def write(known, texts):
        messages = {text: translate.Message(text, locations=[("01-00", None)]) for text in texts}
        translate.merge({"01": messages}, known)
        (tmp_path / "01.po").write_text(translate.po(messages), "utf-8")
        return translate.stored()

    return write


BEFORE = "A label of -100 says: don't score this position."
AFTER = "A label of -100 says: do not score this position."


def test_a_changed_text_is_fuzzy_with_the_text_before_and_stays_english(catalogs):
    first = {text: translate.Message(text, "译文") for text in (BEFORE, "Summary")}
    first[BEFORE].user_comments = ["a note of the translator"]
    stored = catalogs(first, [AFTER, "Summary", "New: 15 % of them"])
    for _ in range(2):  # a second update changes nothing
        assert stored[AFTER].fuzzy
        assert stored[AFTER].string == "译文"
        assert stored[AFTER].previous_id == [BEFORE]
        assert stored[AFTER].user_comments == ["a note of the translator"]
        assert not stored["Summary"].fuzzy
        assert stored["New: 15 % of them"].string == ""
        assert translate.translations() == {"Summary": "译文"}
        before = (translate.LOCALE / "01.po").read_bytes()
        assert b"python-format" not in before  # Babel takes "% o" for one
        stored = catalogs(stored, [AFTER, "Summary", "New: 15 % of them"])
        assert (translate.LOCALE / "01.po").read_bytes() == before


def test_a_text_that_moves_or_is_as_it_was_keeps_its_translation(catalogs):
    stored = catalogs({BEFORE: translate.Message(BEFORE, "译文")}, ["Other", BEFORE])
    assert translate.translations() == {BEFORE: "译文"}
    stored = catalogs(stored, [AFTER])
    assert translate.translations() == {}
    catalogs(stored, [BEFORE])
    assert translate.translations() == {BEFORE: "译文"}


def test_a_text_without_translation_is_counted_and_minutes_are_not_part_of_it():
    cell = translate.nbformat.v4.new_markdown_cell("**19 minutes.** One.\n\nTwo.")
    notebook = translate.nbformat.v4.new_notebook(cells=[cell])
    texts, english = translate.translate(
        notebook, {"**{n} minutes.**": "**{n} 分钟。**", "One.": "一。"}
    )
    assert texts == ["**{n} minutes.**", "One.", "Two."]
    assert english == ["Two."]
    assert notebook.cells[0].source == "**19 分钟。** 一。\n\nTwo."


# --- What a translation must keep ---


def kept(text):
    """Return what has to be equal in both languages: numbers, code and links."""
    code, links = re.findall(CODE, text), re.findall(LINK, text)
    rest = re.sub(rf"{CODE}|{LINK}", " ", text)
    html, tokens = re.findall(r"<[^>]*>", rest), re.findall(r"\[[A-Z]+\]|\{[^}]*\}", rest)
    return Counter(code + links + html + tokens + re.findall(NUMBER, rest))


def faults(text):
    """Return what is wrong with the Chinese of a translation."""
    found = []
    bare = re.sub(rf"{CODE}|{LINK}", "", text)
    for passage in TERMS["quoted"]:
        bare = bare.replace(passage, "")
    for name in sorted((term["zh"] for term in TERMS["terms"]), key=len, reverse=True):
        bare = bare.replace(name, " ")
    refused = TERMS["refused"] + [word for term in TERMS["terms"] for word in term["refused"]]
    found += [f"refused: {word}" for word in refused if word in bare]
    plain = re.sub(LINK, "]", text)
    patterns = {
        "half-width punctuation": rf"{HAN}\**[,;:?!()]|[,;:?!()]\**{HAN}",
        "no space between Chinese and Latin letters or code": rf"{HAN}[A-Za-z0-9`]|[A-Za-z0-9`]{HAN}",
        "a space beside full-width punctuation": r"[，。；：？！）] (?!\*\*)|(?<!\*\*) [，。；：？！（]",
        "more than a line": r"\n",
    }
    found += [f"{name}: {m[0]!r}" for name, p in patterns.items() if (m := re.search(p, plain))]
    return found + ["emphasis that Markdown doesn't see"] * unseen_emphasis(text)


def unseen_emphasis(text):
    """Return whether a mark of emphasis touches a sign inside and a letter outside.

    CommonMark takes such a mark for text, and Chinese has no space that would part the two.
    """

    def sign(character):
        return unicodedata.category(character)[0] in "PS"

    text = f" {re.sub(CODE, lambda code: '`' * len(code[0]), text)} "
    for number, mark in enumerate(re.finditer(r"\*+", text)):
        before, after = text[mark.start() - 1], text[mark.end()]
        inside, outside = (before, after) if number % 2 else (after, before)
        if sign(inside) and not sign(outside) and not outside.isspace():
            return True
    return False


def test_numbers_code_and_links_are_the_same():
    assert len(KNOWN) > 60
    assert {old: new for old, new in KNOWN.items() if kept(old) != kept(new)} == {}


def test_the_chinese_has_no_refused_term_and_no_wrong_mark():
    assert {text: found for text in KNOWN.values() if (found := faults(text))} == {}


@pytest.mark.parametrize(
    ("english", "chinese"),
    [
        ("It is 3.64.", "它是 3.46。"),
        ("Pass `labels`.", "传入 labels。"),
        ("See [01](a.ipynb#What?).", "见 [01](b.ipynb#What?)。"),
        ("Put [MASK] there.", "放在那里。"),
        ("({n} minutes)", "(分钟)"),
    ],
)
def test_a_lost_number_code_or_link_is_seen(english, chinese):
    assert kept(chinese) != kept(english)


@pytest.mark.parametrize(
    "chinese",
    [
        "位置被掩码。",
        "这个令牌",
        "损失,标签",
        "看labels。",
        "看 `labels`吗",
        "**停。**再读",
        "看**`labels`** 吗",
        "损失 ，标签",
        "一\n二",
    ],
)
def test_a_fault_of_the_chinese_is_seen(chinese):
    assert faults(chinese)


def test_a_term_that_holds_a_refused_word_is_none():
    assert (
        faults("注意力掩码 `attention_mask` 与掩码语言模型，**标签。** 再读 [01](a.ipynb)。") == []
    )


def test_no_term_is_refused_by_another():
    names = [term["zh"] for term in TERMS["terms"]]
    assert len(names) == len(set(names))
    refused = TERMS["refused"] + [word for term in TERMS["terms"] for word in term["refused"]]
    assert set(names) & set(refused) == set()
    assert all(term["en"] and isinstance(term["refused"], list) for term in TERMS["terms"])


# --- What is finished ---


def english(place, known):
    """Return the texts of today's lesson or page that stay English."""
    return translate.translate(translate.load(place), known)[1]


def test_no_lesson_and_no_page_with_a_catalog_has_a_fuzzy_or_missing_text():
    places = [place for place, name in translate.documents().items() if name]
    assert {place: english(place, KNOWN) for place in places} == {place: [] for place in places}


def test_a_text_that_stays_english_is_seen():
    texts = english(PLACES["00"], {})
    assert len(texts) > 50
    known = dict.fromkeys(texts[1:], "译文")
    assert english(PLACES["00"], known) == texts[:1]
