"""The site: it builds without a warning, and its pages are whole, local and accessible."""

import collections
import contextlib
import doctest
import functools
import http.server
import itertools
import os
import re
import subprocess
import sys
import threading
import urllib.parse

import pytest
import stored
from axe_playwright_python.sync_playwright import Axe
from browser import SCREENSHOTS, needs_chromium
from bs4 import BeautifulSoup
from filelock import FileLock

import mlmtutor
from tools import lessons as tool
from tools import translate

sys.path.append(str(stored.ROOT / "docs"))
import explorer_page  # noqa: F401  for test_explorer
import lesson_pages

pytestmark = pytest.mark.browser

DOCS = stored.ROOT / "docs"

LESSONS = {path: f"lessons/{path.relative_to(tool.NOTEBOOKS).with_suffix('.html')}" for path in stored.PATHS}  # fmt: skip
WITH_ERROR = next(LESSONS[p] for p in LESSONS if '"output_type": "error"' in p.read_text("utf-8"))
OWN = [
    path.with_suffix(".html").name for path in DOCS.glob("*.*") if path.suffix in (".md", ".ipynb")
]
PAGES = [*sorted(OWN), "search.html", *LESSONS.values()]
CHINESE = [f"zh/{name}.html" for name in sorted(lesson_pages.CHINESE)]


def build(folder, *python, source=DOCS, html="html", **environment):
    """Build the site into ``folder/html``, with warnings as errors."""
    command = [sys.executable, *(python or ["-m", "sphinx"]), "-W", "--keep-going", "-q", "-b", "html",
               "-c", DOCS, "-d", folder / "doctrees" / html, source, folder / html]  # fmt: skip
    built = subprocess.run(
        [*map(str, command)], capture_output=True, text=True, env={**os.environ, **environment}
    )
    assert built.returncode == 0, built.stderr


def built_once(tmp_path_factory):
    """Return a folder whose ``html`` is a site that was built from nothing, once for all workers."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "site"
    zh = folder / "zh"
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            build(folder)
            translate.write(translate.build(translate.translations())[0], zh)
            notebooks = str(zh / "notebooks")
            build(folder, source=zh / "docs", html="html/zh", MLMTUTOR_NOTEBOOKS=notebooks)
    return folder


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    return built_once(tmp_path_factory) / "html"


@functools.cache
def soup(path):
    return BeautifulSoup(path.read_text("utf-8"), "html.parser")


def test_every_page_is_there_and_no_other(site):
    built = {str(path.relative_to(site)) for path in site.rglob("*.html")}
    assert {name for name in built if "_static/" not in name} == {*PAGES, *CHINESE}


def test_no_link_is_broken_and_no_resource_is_elsewhere(site):
    broken, checked = [], 0
    for name in [*PAGES, *CHINESE]:
        page = site / name
        for tag in soup(page).find_all(["a", "link", "script", "img"]):
            target = tag.get("href") or tag.get("src") or ""
            if not target or target.startswith(("data:", "mailto:")):
                continue
            parts = urllib.parse.urlsplit(target)
            if parts.scheme:
                assert tag.name == "a", f"{name} loads {target}"
                continue
            path = urllib.parse.unquote(parts.path)
            file = (page.parent / path).resolve() if path else page
            fragment = urllib.parse.unquote(parts.fragment)
            checked += 1
            if not file.is_file() or (fragment and not soup(file).find(id=fragment)):
                broken.append(f"{name}: {target}")
    assert broken == []
    assert checked > 500


def test_every_table_has_a_caption_and_scopes(site):
    tables = [table for name in [*PAGES, *CHINESE] for table in soup(site / name).find_all("table")]
    assert len(tables) > 40
    for table in tables:
        assert table.caption.get_text().strip()
        assert table.find_all("th")
        assert all(head.get("scope") for head in table.find_all("th"))


def test_every_lesson_can_be_downloaded_as_it_is_stored(site):
    for path, name in LESSONS.items():
        page = site / name
        links = soup(page).select("a[href*='_sources'][href$='.ipynb']")
        [link] = {link["href"] for link in links}
        assert (page.parent / link).resolve().read_bytes() == path.read_bytes()


def test_every_question_leads_to_the_section_that_proves_it(site):
    page = site / "questions.html"
    entries = [p for p in soup(page).find("article").find_all("p") if p.strong and p.small]
    answers, questions = tool.answers(), tool.questions()
    asked = {re.sub("[^a-z0-9]", "", entry.strong.get_text().lower()): entry for entry in entries}
    assert len(asked) == len(answers) >= 37
    for key, links in answers.items():
        entry = asked[re.sub("[^a-z0-9]", "", questions[key]["asks"].lower())]
        inside = entry.find_all("a", class_="internal")
        assert len(inside) == len(links)
        for link, markdown in zip(inside, links, strict=True):
            heading = re.search(r"\[\d\d(?: deeper)?: (.+?)\]\(", markdown)[1]
            path, fragment = link["href"].split("#")
            target = soup(page.parent / path).find(id=urllib.parse.unquote(fragment))
            shown = target.find(re.compile("h[1-6]")).get_text().rstrip("#")
            assert re.sub("[“”]", '"', shown) == heading.replace("`", "")
        for thread in questions[key]["threads"]:
            assert thread in entry.small.get_text()


def test_editions_lead_to_each_other_and_say_their_language(site):
    for name in [*PAGES, *CHINESE]:
        page, english = soup(site / name), name.removeprefix("zh/")
        twin = f"zh/{english}" if f"zh/{english}" in CHINESE else "zh/index.html"
        [switch] = page.select("a.language")
        target = (site / name).parent / switch["href"]
        assert target.resolve() == site / (twin if name == english else english)
        assert page.html["lang"] == ("en" if name == english else "zh-CN") != switch["hreflang"]
        links = page.select("link[hreflang]")
        to = {a["hreflang"]: ((site / name).parent / a["href"]).resolve() for a in links}
        own = {"en": site / english, "zh-CN": site / twin, "x-default": site / english}
        assert to == ({} if f"zh/{english}" not in CHINESE else own)


def test_chinese_page_marks_what_leads_to_an_english_one(site):
    for name in CHINESE:
        for link in soup(site / name).find("main").find_all("a", href=re.compile(r"\.html")):
            there = (site / name).parent / urllib.parse.unquote(link["href"].split("#")[0])
            outside = not there.resolve().is_relative_to(site / "zh")
            assert (link.get("hreflang") == "en") == outside, (name, link)
    start = soup(site / "zh/lessons/00_start_here.html")
    assert start.find("article").find("a", href="../../explorer.html")
    words = soup(site / "zh/lessons/01_answer_the_question.html").get_text()
    for said in ("显示参考答案", "动手试试", "核心", "把项目拿到本地"):
        assert said in words


def test_landing_page_runs_and_shows_the_table(site):
    text = (DOCS / "index.md").read_text("utf-8")
    [code] = re.findall(r"```python\n(.*?)```", text, re.S)
    case = doctest.DocTestParser().get_doctest(code, {}, "index", "docs/index.md", 0)
    results = doctest.DocTestRunner().run(case)
    assert (results.failed, results.attempted) == (0, 9)
    article = soup(site / "index.html").find("article")
    shown, lessons = article.find_all("table")
    assert shown.caption.get_text().startswith("1 of 9 positions is scored")
    assert "✓ change" in shown.get_text()
    assert "2689" in article.find("figure").img["alt"]
    minutes = [row.find_all("td")[1].get_text() for row in lessons.find_all("tr")[1:]]
    assert minutes == [str(tool.minutes(stored.read(path))) for path in stored.FULL]


def test_api_has_every_public_name_with_its_example(site):
    page = soup(site / "api.html")
    for name in mlmtutor.__all__:
        member = getattr(mlmtutor, name)
        if not hasattr(member, "__module__") or name.startswith("_"):
            continue
        entry = page.find(id=f"{member.__module__}.{name}")
        assert entry, f"{name} is not in the API reference"
        if ">>>" in (member.__doc__ or ""):
            assert entry.find_parent("dl").find(class_="highlight"), f"{name} shows no example"


def test_what_is_hidden_says_what_a_click_opens(site):
    for path, name in LESSONS.items():
        expected = collections.Counter()
        for cell in stored.code_cells(stored.read(path)):
            if "solution" in stored.tags(cell):
                expected["Show the solution"] += 1
            elif "proof" in stored.tags(cell):
                expected["Show the proof"] += 1
            elif "hide-output" in stored.tags(cell) and cell.outputs:
                expected["I have decided: show"] += 1
        hidden = soup(site / name).select("div.cell details.hide")
        assert all(details.get("open") is None for details in hidden)
        shown = collections.Counter(d.summary.get_text().strip().split("\n")[0] for d in hidden)
        assert shown == expected, name


def test_lesson_links_threads_terms_and_functions_and_says_how_to_run_it(site):
    linked = collections.Counter()
    for path, name in LESSONS.items():
        page = soup(site / name).find("article")
        hrefs = [a.get("href", "") for a in page.find_all("a")]
        for kind in ("glossary.html#term-", "api.html#mlmtutor", "https://github.com/"):
            linked[kind] += any(kind in href for href in hrefs)
        if path in stored.FULL:
            assert "make lab" in page.get_text()
            assert "Map of the lessons" not in page.get_text()
    assert min(linked.values()) >= 10, linked
    start = soup(site / LESSONS[stored.PATHS[0]]).find("article")
    assert start.find("a", href="../explorer.html")


def test_threads_become_links_where_they_are_known():
    assert lesson_pages.link_threads("See transformers#2946 and HF forum 36407, or nobody#1.") == (
        'See <a href="https://github.com/huggingface/transformers/issues/2946">transformers#2946</a> and '
        '<a href="https://discuss.huggingface.co/t/36407">HF forum 36407</a>, or nobody#1.'
    )
    text = "# logits\n\n`logits` [logits](x) **logits** logits logits"
    linked = lesson_pages.link_words(text, {"logits": "glossary.html#term-logits"}, "../")
    assert linked.count("<a href") == 1


@contextlib.contextmanager
def served(folder):
    """Serve a folder, and give the address."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="module")
def address(site):
    with served(site) as address:
        yield address


STILL = "* { transition: none !important; animation: none !important; }"


def serious(page, context=None, **options):
    """Return the serious violations that axe-core finds in what is shown now."""
    # Without preload axe fetches no style sheet a second time, and gets no address of one wrong.
    found = Axe().run(page, context, {"preload": False, "resultTypes": ["violations"], **options})
    return [
        f"{v['id']}: {node['html'][:200]} {node['failureSummary'][:200]}"
        for v in found.response["violations"]
        if v["impact"] in ("serious", "critical")
        for node in v["nodes"][:3]
    ]


CLIPPED = """() => {
    document.querySelectorAll("article .cell details").forEach(one => { one.open = true; });
    return [...document.querySelectorAll("article .cell_output table")]
        .filter(table => table.scrollWidth > table.closest("div").clientWidth + 1)
        .map(table => [table.textContent.slice(0, 80), table.scrollWidth]);
}"""


def theme(page, name):
    page.evaluate("name => { document.documentElement.dataset.theme = name; }", name)


@needs_chromium
@pytest.mark.parametrize(
    "name", [*PAGES, "zh/questions.html", "zh/lessons/01_answer_the_question.html"]
)
def test_page_loads_whole_and_is_accessible(browser, address, name):
    page = browser.new_page(viewport={"width": 1440, "height": 1000}, color_scheme="light")
    seen = collections.defaultdict(list)
    page.on("console", lambda m: m.type in ("error", "warning") and seen["problems"].append(m.text))
    page.on("pageerror", lambda error: seen["problems"].append(str(error)))
    page.on("request", lambda r: seen["requests"].append(r.url))
    page.on("response", lambda r: r.status >= 400 and seen["problems"].append(r.url))
    page.goto(f"{address}/{name}")
    headings = "article :is(h1, h2, h3, h4)"
    levels = page.eval_on_selector_all(headings, "all => all.map(h => +h.tagName[1])")
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    bare = page.eval_on_selector_all(
        "article img",
        "all => all.filter(i => !i.alt || !i.closest('figure')?.textContent.trim()).length",
    )
    assert bare == 0
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    stem = f"site-{name.removesuffix('.html').replace('/', '-')}"
    page.screenshot(path=SCREENSHOTS / f"{stem}-1440.jpg", full_page=True)
    page.add_style_tag(content=STILL)
    # Code has thousands of coloured words in the same few colours: one lesson is enough for them.
    where = None if name == WITH_ERROR else {"exclude": [".highlight", ".sig"]}
    assert serious(page, where) == []
    if "deeper" not in name:  # these are made of what the other lessons show
        theme(page, "dark")
        assert serious(page, where, runOnly=["color-contrast"]) == []
        theme(page, "light")
    for width in (1440, 1280):
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate(CLIPPED) == [], width
    page.set_viewport_size({"width": 390, "height": 844})
    page.screenshot(path=SCREENSHOTS / f"{stem}-390.jpg", full_page=True)
    assert page.evaluate("() => document.documentElement.scrollWidth") <= 390
    elsewhere = [url for url in seen["requests"] if not url.startswith((address, "data:"))]
    assert (seen["problems"], elsewhere) == ([], [])
    assert len(seen["requests"]) > 5
    page.close()


@needs_chromium
@pytest.mark.parametrize("query", ["80/10/10", "ignore_index", "-100", "collator"])
def test_search_ranks_lessons_above_the_api(browser, address, query):
    page = browser.new_page()
    page.goto(f"{address}/search.html?q={urllib.parse.quote(query)}")
    page.get_by_text("Search finished").wait_for()
    hrefs = "all => all.map(a => a.getAttribute('href'))"
    found = page.eval_on_selector_all("ul.search li a", hrefs)
    assert found[0].startswith(("lessons/", "glossary.html")), found[:3]
    api = [number for number, href in enumerate(found) if href.startswith("api.html")]
    lessons = [number for number, href in enumerate(found) if href.startswith("lessons/")]
    assert not api or max(lessons) < min(api)
    page.close()


@needs_chromium
@pytest.mark.parametrize(
    ("query", "lesson"), [("标签", "01"), ("注意力掩码", "02"), ("-100", "04")]
)
def test_search_finds_chinese_words(browser, address, query, lesson):
    page = browser.new_page()
    page.goto(f"{address}/zh/search.html?q={urllib.parse.quote(query)}")
    page.get_by_text("搜索完成").wait_for()
    hrefs = "all => all.map(a => a.getAttribute('href'))"
    found = page.eval_on_selector_all("ul.search li a", hrefs)
    assert any(href.startswith(f"lessons/{lesson}") for href in found), found
    page.goto(f"{address}/zh/search.html?q={urllib.parse.quote('天气')}")
    page.get_by_text("没有匹配到文档").wait_for()
    page.close()


@needs_chromium
def test_chinese_pages_do_not_scroll_sideways_on_a_phone(browser, address):
    page = browser.new_page(viewport={"width": 390, "height": 844})
    for name in CHINESE:
        page.goto(f"{address}/{name}")
        assert page.evaluate("() => document.documentElement.scrollWidth") <= 390, name
    page.close()


@needs_chromium
def test_questions_are_filtered(browser, address):
    page = browser.new_page()
    page.goto(f"{address}/questions.html")
    page.locator("#filter").fill("nan loss")
    page.locator("#found", has_text="questions").wait_for()
    left = page.locator("article section section p:visible").all_inner_texts()
    assert 0 < len(left) < 15
    assert all("nan" in text.lower() and "loss" in text.lower() for text in left)
    page.locator("#filter").fill("")
    page.locator("#found", has_text=f"{len(tool.answers())} of").wait_for()
    page.close()
