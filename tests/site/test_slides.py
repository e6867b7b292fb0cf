"""The slides are what they should be, in a real browser and without a network."""

import re

import nbformat
import pytest
import stored
from browser import SCREENSHOTS, needs_chromium

from tools import slides

pytestmark = pytest.mark.browser


LONG = stored.NAMES[1:6]  # lessons 01 to 05

# What is wider or lower than the slide, or cut off, and the sizes of the text that is shown.
LOOK = """() => {
    const slide = Reveal.getCurrentSlide(), over = [], sizes = {prose: [], code: [], table: []};
    for (const node of slide.querySelectorAll('*')) {
        const box = node.getBoundingClientRect(), style = getComputedStyle(node);
        if (!box.width || node.closest('aside')) continue;
        const low = node.className === 'lesson' ? 720 : 700;
        const cut = node.scrollWidth > node.clientWidth + 1 && style.display !== 'inline';
        if (box.right > 1270 || box.left < 0 || box.bottom > low || cut)
            over.push(node.tagName + '.' + node.className);
        const size = parseFloat(style.fontSize);
        if (['P', 'LI'].includes(node.tagName) && node.className !== 'lesson'
            && !node.closest('.alignment')) sizes.prose.push(size);
        if (node.tagName === 'PRE') sizes.code.push(size);
        if (node.closest('.alignment') && node.tagName === 'TD') sizes.table.push(size);
    }
    return {over, sizes, text: slide.innerText.trim().length};
}"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("build") / "slides"
    slides.build(out)
    return out


def open_deck(browser, path):
    """Return a page that shows a deck, and the list of what it complains about or asks for."""
    page = browser.new_page(viewport={"width": slides.WIDTH, "height": slides.HEIGHT})
    complaints = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("requestfailed", lambda request: complaints.append(request.url))
    page.on(
        "request",
        lambda request: (
            None if request.url.startswith(("file:", "data:")) else complaints.append(request.url)
        ),
    )
    page.goto(path.as_uri())
    page.wait_for_function("() => window.Reveal && Reveal.isReady()")
    return page, complaints


@needs_chromium
@pytest.mark.parametrize("stem", stored.NAMES[1:])
def test_slides_advance_to_the_last_and_fit(folder, browser, stem):
    path = folder / f"{stem}.html"
    if not path.exists():
        pytest.skip("the lesson has no slides yet")
    page, complaints = open_deck(browser, path)
    total = page.evaluate("Reveal.getTotalSlides()")
    pictures = SCREENSHOTS / "slides"
    pictures.mkdir(parents=True, exist_ok=True)
    seen = 1
    while True:
        while page.evaluate("Reveal.availableFragments().next"):
            page.keyboard.press("ArrowRight")
        shown = page.evaluate(LOOK)
        where = f"{stem}, slide {seen}"
        assert shown["over"] == [], where
        assert shown["text"] > 20, where
        assert min(shown["sizes"]["prose"], default=24) >= 24, where
        assert min(shown["sizes"]["code"], default=18) >= 18, where
        assert min(shown["sizes"]["table"], default=18) >= 18, where
        page.screenshot(path=pictures / f"{stem[:2]}-{seen:02}.png")
        if page.evaluate("Reveal.isLastSlide()"):
            break
        page.keyboard.press("ArrowRight")
        seen += 1
        assert page.evaluate("Reveal.getSlidePastCount()") == seen - 1, where
    assert seen == total
    assert complaints == []
    page.close()


@needs_chromium
def test_an_output_waits_for_the_next_step(folder, browser):
    page, _ = open_deck(browser, folder / f"{LONG[0]}.html")
    page.evaluate("Reveal.slide(2)")
    table = page.locator("section.present table:has(caption)")
    assert page.locator("section.present pre").is_visible()
    assert table.evaluate("node => getComputedStyle(node).visibility") == "hidden"
    page.keyboard.press("ArrowRight")
    table.wait_for()  # until it is visible
    assert table.locator("th[scope=row]").all_inner_texts()[0] == "position"
    page.close()


@needs_chromium
def test_the_speaker_notes_open(folder, browser):
    page, complaints = open_deck(browser, folder / f"{LONG[0]}.html")
    with page.expect_popup() as popup:
        page.keyboard.press("s")
    popup.value.wait_for_selector("#speaker-controls")
    assert complaints == []
    popup.value.close()
    page.close()


@pytest.mark.parametrize("stem", LONG)
def test_a_deck_has_its_size_and_notes(stem):
    deck = slides.deck(stored.read(stored.ROOT / "notebooks" / f"{stem}.ipynb"))
    assert 10 <= len(deck) <= 15
    assert "Summary" in deck[-1][0]
    assert sum("alignment" in body for body, _ in deck) >= 1
    assert sum(bool(notes.strip()) for _, notes in deck) >= 5


def test_no_file_names_another_place(folder):
    for path in [*folder.glob("*.html"), *folder.glob("*.css")]:
        text = re.sub(r"base64,[A-Za-z0-9+/=]+", "", path.read_text("utf-8"))
        assert not re.search(r"""(?:src|href)=["']?(?:https?:)?//|url\(|@import""", text), path.name


def test_the_index_lists_every_deck(folder):
    index = (folder / "index.html").read_text("utf-8")
    decks = {path.name for path in folder.glob("*.html")} - {"index.html"}
    assert set(re.findall(r'<a href="([^"]+)"', index)) == decks
    assert {f"{stem}.html" for stem in LONG} <= decks


def cell(source, *tags):
    made = nbformat.v4.new_markdown_cell(source, metadata={"tags": list(tags)})
    return made


def test_text_between_slides_goes_to_the_notes():
    notebook = nbformat.v4.new_notebook(
        cells=[cell("# Title\n\nResult.", "slide"), cell("Between."), cell("## Next", "slide")]
    )
    (_, first), (_, second) = slides.deck(notebook)
    assert first.strip() == "Between."
    assert second == ""


def test_nothing_of_an_exercise_is_on_a_slide():
    for stem in stored.NAMES[1:]:
        notebook = stored.read(stored.ROOT / "notebooks" / f"{stem}.ipynb")
        for made in notebook.cells:
            if "slide" in stored.tags(made):
                assert not {"exercise", "solution"} & set(stored.tags(made)), made.id
        text = "\n".join(body + notes for body, notes in slides.deck(notebook))
        assert "### Exercise" not in text
        assert "<details>" not in text


def test_a_long_text_keeps_what_is_bold():
    filler = "word " * 120
    shown, left = slides.short(f"## Heading\n\n{filler.strip()}\n\n**Predict.** Which?", False)
    assert shown == "## Heading\n\n**Predict.** Which?"
    assert left == filler.strip()


def test_a_sentence_that_announces_a_cell_needs_its_slide():
    text = "## Heading\n\nOne thing. Here it is:"
    assert slides.short(text, True) == (text, "")
    assert slides.short(text, False) == ("## Heading\n\nOne thing.", "Here it is:")


def test_code_is_wrapped_and_stays_the_same_code():
    source = (
        "first = some_function(argument_number_one, argument_number_two, argument_number_three)"
    )
    made = slides.wrapped(source)
    assert max(map(len, made.splitlines())) <= slides.COLUMNS
    assert "".join(made.split()).replace(",)", ")") == "".join(source.split())
    assert slides.wrapped("x  =  1") == "x  =  1"
