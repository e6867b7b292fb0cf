"""The slides are what they should be, in a real browser and without a network."""

import ast
import re

import pytest
import stored
from browser import SCREENSHOTS, needs_chromium

from tools import slides
from tools.lessons import minutes

pytestmark = pytest.mark.browser


LESSONS = [path.stem for path in stored.CORE]

# What is wider or lower than the slide, or cut off, and the sizes of the text that is shown.
LOOK = """() => {
    const slide = Reveal.getCurrentSlide(), over = [], sizes = {prose: [], code: [], table: []};
    for (const node of slide.querySelectorAll('*')) {
        const box = node.getBoundingClientRect(), style = getComputedStyle(node);
        if (!box.width || node.closest('aside')) continue;
        const low = node.className === 'lesson' ? 720 : 706;
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
@pytest.mark.parametrize("stem", LESSONS)
def test_slides_advance_to_the_last_and_fit(folder, browser, stem):
    path = folder / f"{stem}.html"
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
        assert min(shown["sizes"]["code"], default=18) >= 14, where
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
def test_output_waits_for_the_next_step_and_its_reading_for_the_one_after(folder, browser):
    page, _ = open_deck(browser, folder / f"{LESSONS[3]}.html")
    page.evaluate("Reveal.slide(1)")
    steps = page.evaluate("document.querySelectorAll('section.present .fragment').length")
    reads = page.locator("section.present .reads")
    assert steps >= 2
    assert reads.evaluate("node => getComputedStyle(node).visibility") == "hidden"
    while page.evaluate("Reveal.availableFragments().next"):
        page.keyboard.press("ArrowRight")
    page.wait_for_function(
        "() => getComputedStyle(document.querySelector('section.present .reads')).opacity == 1"
    )
    page.close()


@needs_chromium
def test_speaker_notes_open(folder, browser):
    page, complaints = open_deck(browser, folder / f"{LESSONS[0]}.html")
    with page.expect_popup() as popup:
        page.keyboard.press("s")
    popup.value.wait_for_selector("#speaker-controls")
    assert complaints == []
    popup.value.close()
    page.close()


@pytest.mark.parametrize("path", stored.CORE, ids=LESSONS)
def test_deck_has_its_size_its_exercises_and_no_assertion(path):
    notebook = stored.read(path)
    deck = slides.deck(notebook)
    exercises = sum("### Exercise" in cell.source for cell in notebook.cells)
    assert 3 <= len(deck) - 2 - exercises <= minutes(notebook) / 2  # without title and summary
    assert "Summary" in deck[-1][0]
    assert sum(body.startswith("<h2>Exercise") for body, _ in deck) == exercises
    assert not any('<span class="k">assert</span>' in body for body, _ in deck)


@pytest.mark.parametrize("path", stored.CORE, ids=LESSONS)
def test_answer_to_a_predict_is_in_its_notes(path):
    for body, notes in slides.deck(stored.read(path)):
        assert ("Predict." in body) == ("Answer: " in notes)


def test_no_file_names_another_place(folder):
    for path in [*folder.glob("*.html"), *folder.glob("*.css")]:
        text = re.sub(r"base64,[A-Za-z0-9+/=]+", "", path.read_text("utf-8"))
        assert not re.search(r"""(?:src|href)=["']?(?:https?:)?//|url\(|@import""", text), path.name


def test_index_lists_every_deck(folder):
    index = (folder / "index.html").read_text("utf-8")
    assert re.findall(r'<a href="([^"]+)"', index) == [f"{stem}.html" for stem in LESSONS]


def test_code_is_wrapped_and_stays_the_same_code():
    source = f"values = [{', '.join(map(str, range(40)))}]"
    shown = slides.wrapped(source)
    assert slides.longest(shown) <= slides.COLUMNS
    assert ast.dump(ast.parse(shown)) == ast.dump(ast.parse(source))


def test_needed_statements_are_shown_once_and_in_order():
    earlier = slides.statements("import torch\na = 1\nb = a + 1\nassert b\nc = 3")
    assert slides.needed({"b"}, earlier, set()) == ["a = 1", "b = a + 1"]
    assert slides.needed({"b"}, earlier, {"a = 1"}) == ["b = a + 1"]
