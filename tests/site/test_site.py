"""The site: it builds without a warning, and its pages are whole, local and accessible."""

import collections
import contextlib
import doctest
import functools
import http.server
import itertools
import os
import pathlib
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

import mlmtutor
from tools import lessons as tool

pytestmark = pytest.mark.browser

DOCS = stored.ROOT / "docs"

PAGES = ["index.html", "questions.html", "glossary.html", "api.html", "doctor.html",
         "releases.html", "performance.html", "reliability.html", "explorer.html", "reading.html",
         "instructors.html", "search.html"]  # fmt: skip
PAGES += [
    f"lessons/{path.relative_to(stored.ROOT / 'notebooks').with_suffix('.html')}" for path in stored.PATHS
]


def build(folder, *python):
    """Build the site into ``folder/html``, with warnings as errors."""
    command = [sys.executable, *(python or ["-m", "sphinx"]), "-W", "--keep-going", "-q", "-b", "html",
               "-d", str(folder / "doctrees"), str(DOCS), str(folder / "html")]  # fmt: skip
    built = subprocess.run(command, capture_output=True, text=True, env=dict(os.environ))
    assert built.returncode == 0, built.stderr


def built_once(tmp_path_factory):
    """Return a folder whose ``html`` is a site that was built from nothing, once for all tests."""
    folder = tmp_path_factory.getbasetemp() / "site"
    if not folder.exists():
        build(folder)
    return folder


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    return built_once(tmp_path_factory) / "html"


@functools.cache
def soup(path):
    return BeautifulSoup(path.read_text("utf-8"), "html.parser")


def test_every_page_is_there_and_no_other(site):
    built = {str(path.relative_to(site)) for path in site.rglob("*.html")}
    assert {name for name in built if not name.startswith("_static/")} == set(PAGES)


def test_no_link_is_broken_and_no_resource_is_elsewhere(site):
    broken, checked = [], 0
    for name in PAGES:
        page = site / name
        for tag in soup(page).find_all(["a", "link", "script", "img"]):
            target = tag.get("href") or tag.get("src") or ""
            if not target or target.startswith(("data:", "mailto:")):
                continue
            parts = urllib.parse.urlsplit(target)
            if parts.scheme:
                assert tag.name == "a", f"{name} loads {target}"
                continue
            file = page
            if parts.path:
                file = pathlib.Path(
                    os.path.normpath(page.parent / urllib.parse.unquote(parts.path))
                )
            fragment = urllib.parse.unquote(parts.fragment)
            checked += 1
            if not file.is_file() or (fragment and not soup(file).find(id=fragment)):
                broken.append(f"{name}: {target}")
    assert broken == []
    assert checked > 500


def test_every_table_has_a_caption_and_scopes(site):
    tables = [table for name in PAGES for table in soup(site / name).find_all("table")]
    assert len(tables) > 40
    for table in tables:
        assert table.caption.get_text().strip()
        assert table.find_all("th")
        assert all(head.get("scope") for head in table.find_all("th"))


def test_every_lesson_can_be_downloaded_as_it_is_stored(site):
    for path in stored.PATHS:
        page = site / "lessons" / f"{path.stem}.html"
        [link] = {a["href"] for a in soup(page).find_all("a", href=re.compile(r"\.ipynb$"))}
        assert (page.parent / link).resolve().read_bytes() == path.read_bytes()


def test_every_question_leads_to_the_section_that_proves_it(site):
    page = site / "questions.html"
    asked = {term.get_text().strip(): term for term in soup(page).find_all("dt")}
    answers = tool.answers(tool.lesson_paths())
    questions = tool.questions()
    assert len(questions) >= 36
    assert len(asked) == len(questions)
    for key, question in questions.items():
        asks = re.sub(r"[`\"]", "", question["asks"])
        [term] = [t for text, t in asked.items() if re.sub(r"[\"“”]", "", text) == asks]
        links, threads = [], ""
        node = term.find_next_sibling()
        while node is not None and node.name == "dd":
            links += node.find_all("a", class_="internal")
            threads += node.get_text()
            node = node.find_next_sibling()
        assert links, f"nothing answers question {key}: {question['asks']}"
        assert len(links) == len(answers[key])
        for link, markdown in zip(links, answers[key], strict=True):
            heading = re.search(r"\[\d\d: (.+?)\]\(", markdown)[1]
            path, fragment = link["href"].split("#")
            target = soup(page.parent / path).find(id=urllib.parse.unquote(fragment))
            shown = target.find(re.compile("h[1-6]")).get_text()
            assert shown.rstrip("#") == re.sub(r"`", "", heading)
        for thread in question["threads"]:
            assert thread in threads


def test_the_landing_page_runs_and_shows_the_table(site):
    text = (DOCS / "index.md").read_text("utf-8")
    [code] = re.findall(r"```python\n(.*?)```", text, re.S)
    case = doctest.DocTestParser().get_doctest(code, {}, "index", "docs/index.md", 0)
    results = doctest.DocTestRunner().run(case)
    assert (results.failed, results.attempted) == (0, 9)
    table = soup(site / "index.html").find("article").find("table")
    rows = {
        row.find("th").get_text(): [c.get_text() for c in row.find_all(["th", "td"])[1:]]
        for row in table.find_all("tr")
    }
    assert rows["labels"] == ["-100"] * 4 + ["2689"] + ["-100"] * 4
    assert rows["scored"][4] == "✓ change"
    assert table.caption.get_text().startswith("1 of 9 positions is scored")


def test_the_landing_page_lists_every_lesson_with_its_minutes(site):
    table = soup(site / "index.html").find("article").find_all("table")[1]
    rows = [[c.get_text() for c in row.find_all("td")] for row in table.find_all("tr")[1:]]
    expected = [
        [path.name[:2], str(tool.minutes(stored.read(path)))] for path in stored.PATHS[1:]
    ]
    assert [[row[0][:2], row[1]] for row in rows] == expected


def test_the_api_has_every_public_name_with_its_example(site):
    page = soup(site / "api.html")
    for name in mlmtutor.__all__:
        member = getattr(mlmtutor, name)
        if not hasattr(member, "__module__") or name.startswith("_"):
            continue
        entry = page.find(id=f"{member.__module__}.{name}")
        assert entry, f"{name} is not in the API reference"
        if ">>>" in (member.__doc__ or ""):
            assert entry.find_parent("dl").find(class_="highlight"), f"{name} shows no example"


def test_solutions_are_collapsed_and_nothing_else_is(site):
    for path in stored.PATHS:
        page = soup(site / "lessons" / f"{path.stem}.html")
        stored = [
            c for c in stored.code_cells(stored.read(path)) if "solution" in stored.tags(c)
        ]
        hidden = page.select("div.cell details.hide")
        assert len(hidden) == len(stored), path.name
        assert all(details.get("open") is None for details in hidden)
        assert {d.summary.get_text().strip() for d in hidden} <= {
            "Show the solution\nHide the solution",
        }


class Handler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


@contextlib.contextmanager
def served(folder):
    """Serve a folder, and give the address."""
    handler = functools.partial(Handler, directory=str(folder))
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


def theme(page, name):
    page.evaluate("name => { document.documentElement.dataset.theme = name; }", name)


@needs_chromium
@pytest.mark.parametrize("name", PAGES)
def test_a_page_loads_whole_and_is_accessible(browser, address, name):
    page = browser.new_page(viewport={"width": 1440, "height": 1000}, color_scheme="light")
    seen = collections.defaultdict(list)
    page.on("console", lambda m: m.type in ("error", "warning") and seen["console"].append(m.text))
    page.on("pageerror", lambda error: seen["console"].append(str(error)))
    page.on("request", lambda r: seen["requests"].append(r.url))
    page.on("response", lambda r: r.status >= 400 and seen["missing"].append(r.url))
    page.goto(f"{address}/{name}")
    levels = page.eval_on_selector_all(
        "article :is(h1, h2, h3, h4)", "all => all.map(h => +h.tagName[1])"
    )
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    bare = page.eval_on_selector_all(
        "article img", "all => all.filter(i => !i.alt || !i.closest('figure')?.innerText).length"
    )
    assert bare == 0
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    stem = f"site-{name.removesuffix('.html').replace('/', '-')}"
    page.screenshot(path=SCREENSHOTS / f"{stem}-1440.png", full_page=True)
    page.add_style_tag(content=STILL)
    # Code has thousands of coloured words in the same few colours: one lesson is enough for them.
    prose = {"exclude": [".highlight", ".sig"]}
    assert serious(page, prose) == []
    theme(page, "dark")
    assert serious(page, prose, runOnly=["color-contrast"]) == []
    theme(page, "light")
    page.set_viewport_size({"width": 390, "height": 844})
    page.screenshot(path=SCREENSHOTS / f"{stem}-390.png", full_page=True)
    assert page.evaluate("() => document.documentElement.scrollWidth") <= 390
    assert page.locator("mjx-merror").count() == 0
    elsewhere = [url for url in seen["requests"] if not url.startswith((address, "data:"))]
    assert (seen["console"], seen["missing"], elsewhere) == ([], [], [])
    assert len(seen["requests"]) > 5
    page.close()


@needs_chromium
@pytest.mark.parametrize("shade", ["light", "dark"])
def test_code_and_errors_can_be_read(browser, address, shade):
    page = browser.new_page(color_scheme="light")
    page.goto(f"{address}/lessons/04_ignore_positions_with_minus_100.html")
    page.add_style_tag(content=STILL)
    theme(page, shade)
    assert page.locator(".highlight-ipythontb, .traceback").count() > 0
    assert page.locator(".highlight span").count() > 500
    assert serious(page, {"include": [".highlight"]}, runOnly=["color-contrast"]) == []
    page.close()


@needs_chromium
def test_the_search_finds_ignore_index(browser, address):
    page = browser.new_page()
    page.goto(f"{address}/search.html?q=ignore_index")
    results = page.locator("ul.search li")
    results.first.wait_for()
    page.get_by_text("Search finished").wait_for()
    assert any("-100" in text for text in results.all_inner_texts())
    page.close()


@needs_chromium
def test_math_is_set_by_the_local_file(browser, address):
    page = browser.new_page()
    page.goto(f"{address}/lessons/03_choose_what_to_predict.html", wait_until="networkidle")
    assert page.locator("mjx-container svg").count() >= 2
    page.close()
