"""The explorer: what it loads, what it computes, and how it is used, in a real browser."""

import contextlib
import functools
import json
import math
import re
import shutil

import pytest
import stored
import torch
from browser import SCREENSHOTS, needs_chromium
from test_site import STILL, build, built_once, explorer_page, serious, served, soup, theme

from mlmtutor import masked_lm_loss
from tools import explorer

pytestmark = pytest.mark.browser

CLOZE = stored.ROOT / "tests" / "data" / "cloze.jsonl"
BOUND = 0.1  # nats: what docs/explorer.md promises
PRESETS, TOUR = explorer.presets(), explorer.tour()
SENTENCES = {
    "accents": "Zürich's naïve café is open.",
    "an unknown character": "A snow✓man melts.",
    "Chinese and signs": "The sign says 世界 — #1!",
    "60 words": " ".join(["the old man walked down to the river and sang"] * 6),
    "nothing": "",
}


# ---- What is committed ---------------------------------------------------------------------------


def test_npm_packages_are_pinned_by_hashes():
    names = ("package.json", "package-lock.json")
    texts = [(explorer.SOURCE / name).read_text("utf-8") for name in names]
    wanted, lock = (json.loads(text) for text in texts)
    assert all("://" not in text and '"resolved"' not in text for text in texts)
    entries = {name: entry for name, entry in lock["packages"].items() if name}
    assert all(re.fullmatch(r"sha512-[\w+/]{86}==", e["integrity"]) for e in entries.values())
    for name, version in wanted["dependencies"].items():
        assert entries[f"node_modules/{name}"]["version"] == version
    library = entries["node_modules/@huggingface/transformers"]
    assert library["dependencies"]["onnxruntime-web"] == wanted["dependencies"]["onnxruntime-web"]


@pytest.mark.parametrize(
    ("end", "said"),
    [
        ("exit 0", ""),
        ("echo 'npm error code ENOTFOUND' >&2; exit 1", "npm ci failed. npm error code ENOTFOUND"),
        (None, "there is no npm on the path"),
    ],
)
def test_fetch_keeps_all_or_nothing(tmp_path, monkeypatch, end, said):
    monkeypatch.setattr(explorer, "PACKAGES", tmp_path / "packages")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin" if end else str(tmp_path))
    if end:
        files = " ".join(f"node_modules/{name}" for name in explorer.FROM_NPM)
        make = f'for f in {files}; do mkdir -p "$(dirname $f)"; echo > $f; done'
        (tmp_path / "npm").write_text(f"#!/bin/sh\n{make}\n{end}\n")
        (tmp_path / "npm").chmod(0o755)
    assert explorer.fetch() == said
    if said:
        assert not list(explorer.PACKAGES.glob("*"))
        assert "npm" in explorer.missing()
    else:
        assert explorer.fetch() == explorer.missing() == ""
        assert len(list(explorer.packages().iterdir())) == len(explorer.FROM_NPM)


def test_exported_leaves_nothing_when_it_is_stopped(tmp_path, monkeypatch):
    def breaks(path):
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(explorer, "MODELS", tmp_path)
    monkeypatch.setattr(explorer, "export", breaks)
    with pytest.raises(KeyboardInterrupt):
        explorer.exported()
    assert not list(tmp_path.iterdir())


# ---- The page as it is built ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    return built_once(tmp_path_factory) / "html"


@functools.cache
def lesson_values(stem):
    """Return what the lesson computes for its presets, each at the end of its section."""
    cases = [case for case in PRESETS if case["lesson"] == stem]
    namespace, values, section = {}, {}, None
    for cell in stored.read(stored.ROOT / "notebooks" / f"{stem}.ipynb").cells:
        if cell.cell_type == "markdown" and (heading := re.match(r"##+ (.+)", cell.source)):
            for case in cases:
                if case["section"] == section and case["id"] not in values:
                    values[case["id"]] = float(
                        torch.as_tensor(eval(case["value"], namespace)).detach()
                    )
            section = heading[1]
            if len(values) == len(cases):
                return values
        elif cell.cell_type == "code" and "exercise" not in stored.tags(cell):
            fails = Exception if "raises-exception" in stored.tags(cell) else ()
            with contextlib.suppress(fails):
                exec(compile(cell.source, stem, "exec"), namespace)
    raise AssertionError(f"{stem} has {len(values)} of the sections of {[c['id'] for c in cases]}")


def test_the_static_tables_show_the_numbers_of_the_lessons(site):
    page = soup(site / "explorer.html")
    for case in PRESETS:
        value = lesson_values(case["lesson"])[case["id"]]
        text = page.find(id=case["id"]).find("details").get_text()
        assert f"= {value:.2f}" in text, case["id"]


def test_each_case_and_its_sections_link_to_each_other(site):
    page = soup(site / "explorer.html")
    for case in PRESETS:
        for number, (stem, heading) in enumerate(explorer_page.places(case)):
            article = soup(site / "lessons" / f"{stem}.html").find("article")
            backs = article.find_all("a", href=f"../explorer.html#{case['id']}")
            target = next(back.find_parent("section") for back in backs
                          if heading.replace("`", "") in back.find_parent("section").h2.get_text())  # fmt: skip
            there = [a["href"] for a in page.find(id=case["id"]).find_all("a")]
            assert number or f"lessons/{stem}.html#{target['id']}" in there


def test_without_packages_the_cases_work_and_the_page_says_why(tmp_path_factory, tmp_path):
    folder = shutil.copytree(built_once(tmp_path_factory), tmp_path / "site")
    program = (
        f"import sys, pathlib; sys.path.insert(0, {str(stored.ROOT)!r}); from tools import explorer; "
        f"explorer.PACKAGES = pathlib.Path({str(tmp_path)!r}); "
        "from sphinx.cmd.build import main; sys.exit(main(sys.argv[1:]))"
    )
    build(folder, "-c", program)
    page = (folder / "html" / "explorer.html").read_text("utf-8")
    assert "This build of the site has no model: two npm packages were not there" in page
    names = {path.name for path in (folder / "html/_static/explorer").iterdir()}
    assert names == {*explorer.OWN, "numbers.js"}


# ---- The page in a browser -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def address(site):
    with served(site) as address:
        yield address


BUSY = "document.querySelector('#explorer').setAttribute('aria-busy', 'true')"


class Reader:
    """A page with the explorer, and what a reader does in it."""

    def __init__(self, browser, address, fragment=""):
        self.address, self.requests, self.problems = address, [], []
        self.page = browser.new_page(viewport={"width": 1440, "height": 1000}, color_scheme="light")
        self.page.on("request", lambda r: self.requests.append(r.url))
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on("response", lambda r: r.status >= 400 and self.problems.append(r.url))
        self.page.on(
            "console", lambda m: m.type in ("error", "warning") and self.problems.append(m.text)
        )
        self.page.goto(f"{address}/explorer.html#{fragment}")
        self.wait()

    def wait(self):
        """Wait for an answer, or for the reason that there is none."""
        self.page.wait_for_function(
            "() => document.querySelector('#explorer').getAttribute('aria-busy') === 'false'"
        )

    def open(self, fragment):
        self.page.evaluate(BUSY)
        self.page.evaluate("fragment => { location.hash = fragment; }", fragment)
        self.wait()

    def type(self, text):
        self.page.evaluate(BUSY)
        self.page.locator("#x-text").fill(text)
        self.wait()

    def press(self, selector):
        self.page.locator(selector).click()
        self.wait()

    def row(self, name):
        """The texts of one row of the table, over all its blocks."""
        return self.page.eval_on_selector_all(
            "#x-table tr",
            """(rows, name) => rows.filter(row => row.cells[0].textContent === name)
                .flatMap(row => [...row.cells].slice(1).map(cell => cell.textContent))""",
            name,
        )

    def ids(self, name="input_ids"):
        return [int(text) for text in self.row(name)]

    def text(self, name):
        return self.page.locator(f"#x-{name}").text_content()

    def case(self):
        return self.page.locator("#x-case").input_value()

    def loss(self):
        return float(re.search(r"= (nan|[\d.]+)$", self.text("result"))[1])

    def best(self):
        return self.page.locator("#x-top tbody th").all_text_contents()


@pytest.fixture
def newcomer(browser, address):
    """A reader who has just come, and has loaded no model."""
    reader = Reader(browser, address)
    yield reader
    assert reader.problems == []
    assert not [url for url in reader.requests if "tutor_bert" in url]
    reader.page.close()


@pytest.fixture(scope="module")
def reader(browser, address):
    """A reader who came by the link of a lesson and has loaded the model."""
    if explorer.missing():
        pytest.skip(explorer.missing())
    reader = Reader(browser, address, "padding-scored")
    reader.before = list(reader.requests)
    reader.page.locator("#x-load").click()
    reader.page.locator("#x-loading").wait_for(state="hidden")
    yield reader
    reader.page.close()


@needs_chromium
@pytest.mark.parametrize("from_file", [False, True], ids=["served", "from a file"])
def test_the_cases_work_at_once(browser, address, site, from_file):
    where = site.as_uri() if from_file else address
    reader = Reader(browser, where, "the-hidden-word")
    for case in PRESETS:
        reader.page.locator("#x-case").select_option(case["id"])
        reader.wait()
        value = lesson_values(case["lesson"])[case["id"]]
        assert reader.loss() == pytest.approx(value, rel=0, abs=0.0101, nan_ok=True)
        assert reader.text("see").startswith(re.sub("[`*]", "", case["see"])[:20])
    if from_file:
        reader.page.locator("#x-text").fill("A sentence of my own.")
        reader.page.get_by_text("browsers load none. In the folder of the project call").wait_for()
    assert reader.problems == []
    reader.page.close()


@needs_chromium
def test_labels_move_the_loss_and_not_the_predictions(newcomer):
    best, losses = newcomer.best(), [newcomer.text("result")]
    for selector in ('[data-label="mask"]', '[data-label="ignore"]', '[data-label="original"]'):
        newcomer.press(selector)
        assert newcomer.best() == best
        losses.append(newcomer.text("result"))
    assert (len(set(losses)), losses[0]) == (3, losses[3])
    assert losses[2] == "0 of 9 positions are scored (✓). loss = 0 / 0 = nan"
    newcomer.press("#x-top tbody tr:nth-child(1) button")
    assert newcomer.row("scored")[4] == f"✓ {best[0]}"
    assert newcomer.case() == ""
    newcomer.press('[data-label="mask"]')
    assert newcomer.case() == "the-articles-mistake"
    newcomer.press('[data-all="inputs"]')
    assert newcomer.ids("labels") == newcomer.ids()


@needs_chromium
def test_numbers_have_bars_and_the_panel_stands_beside_the_table(newcomer):
    page = newcomer.page
    bars = page.eval_on_selector_all(
        "#x-top .x-bar",
        "all => all.map(e => parseInt(getComputedStyle(e).getPropertyValue('--bar')))",
    )
    assert bars[0] == 100
    assert bars == sorted(bars, reverse=True)
    page.set_viewport_size({"width": 1200, "height": 1000})
    table, panel = (page.locator(name).bounding_box() for name in ("#x-table", "#x-panel"))
    assert panel["x"] > table["x"] + table["width"]
    assert panel["y"] < table["y"] + table["height"]
    assert page.locator("#x-table table").count() == 1


@needs_chromium
def test_the_tour_is_taken_by_keyboard(newcomer, tutor):
    page = newcomer.page
    page.locator("#x-start").focus()
    page.keyboard.press("Enter")
    for number, step in enumerate(TOUR):
        page.wait_for_function(
            "n => document.querySelector('#x-step').textContent === `Step ${n} of 6`"
            "&& document.activeElement.dataset.guess === '0'", arg=number + 1,
        )  # fmt: skip
        assert newcomer.text("result") == ""
        assert newcomer.row("scored") == []
        assert not page.locator("#x-panel").is_visible()
        page.keyboard.press(str(step["right"] + 1 if number else 1))  # the first guess is wrong
        _, _, labels, logits = explorer.rows(step["state"])
        loss = masked_lm_loss(logits, torch.tensor(labels)).item()
        assert abs(newcomer.loss() - loss) < 0.0101
        said = newcomer.text("says")
        assert said.startswith("No. ") == (number == 0)
        assert newcomer.text("result").split()[-1] in said or "{loss}" not in step["says"]
        page.keyboard.press("Enter")
    assert "You guessed 5 of 6." in said
    assert not page.locator("#x-tour").is_visible()
    newcomer.press('[data-all="nothing"]')
    assert math.isnan(newcomer.loss())


@pytest.mark.parametrize("step", TOUR, ids=range(1, 7))
def test_the_tour_says_what_is_true(step):
    _, mask, labels, logits = explorer.rows(step["state"])
    each = masked_lm_loss(logits, torch.tensor(labels), reduction="none")
    change = -logits[4].log_softmax(-1)[2689]
    claims = {
        "One.": labels.count(-100) == len(labels) - 1,
        "The loss alone.": logits[4].argmax() == 2156 and each.sum() < change,
        "Larger": each.sum() > change,
        "Scored": labels.count(0) == 8 and each[[i for i in range(9) if i != 4]].min() > 10,
        "Yes.": mask[-2:] == (0, 0) and each[-2:].sum() > each[:-2].sum(),
        "Next to nothing:": each[1:-1].max() < 0.2 and each[[0, -1]].sum() > 0.95 * each.sum(),
    }
    assert claims[re.match(r"\*\*(.+?)\*\*", step["says"])[1]]


@needs_chromium
def test_a_case_further_down_opens_above(newcomer):
    newcomer.page.locator("#all-minus-100 .x-open a").press("Enter")
    newcomer.page.wait_for_function("() => document.activeElement.id === 'x-case'")
    assert newcomer.case() == "all-minus-100"


@needs_chromium
def test_a_link_is_copied_or_the_address_is_named(newcomer):
    newcomer.page.locator("#x-copy").click()
    newcomer.page.locator("#x-note", has_text="holds").wait_for()
    assert newcomer.page.url.endswith("#case=the-hidden-word")


@needs_chromium
def test_the_model_weighs_what_the_button_says(reader):
    own = f"{reader.address}/_static/explorer/"
    before = {url.removeprefix(own) for url in reader.before if url.startswith(own)}
    assert before == {"explorer.css", "explorer.js", "numbers.js"}
    after = {url.removeprefix(own) for url in reader.requests if url.startswith(own)} - before
    assert after == set(explorer.files()) - before - {"LICENSE", "LICENSES.txt"}
    size = sum(explorer.files()[name].stat().st_size for name in after)
    assert reader.text("load") == f"Load the model ({size / 1e6:.1f} MB)"


@needs_chromium
@pytest.mark.parametrize("scale", [1, 10, 300])
@pytest.mark.parametrize("labels", [[4, -100, 0, 49, -100], [-100] * 5, [0, 1, 2, 3, 4]])
def test_masked_lm_loss_is_that_of_the_package(reader, labels, scale):
    logits = torch.randn(5, 50, generator=torch.Generator().manual_seed(3)) * scale
    mean, best = reader.page.evaluate(
        """([logits, labels]) => {
            const answer = fromLogits(Float32Array.from(logits), labels.length);
            return [String(maskedLmLoss(answer, labels).mean), answer.best(0)];
        }""",
        [logits.flatten().tolist(), labels],
    )
    expected = masked_lm_loss(logits.double(), torch.tensor(labels)).item()
    assert float(mean) == pytest.approx(expected, rel=1e-9, nan_ok=True)
    top = logits[0].double().softmax(-1).topk(5)
    assert [entry["id"] for entry in best] == top.indices.tolist()
    assert [entry["p"] for entry in best] == pytest.approx(top.values.tolist(), rel=1e-9, abs=0)


@needs_chromium
def test_a_typed_mask_is_not_offered_its_own_id(reader, tokenizer):
    reader.open("the-hidden-word")
    reader.type("I want to [MASK] the river.")
    assert reader.text("which") == "Position 4: [MASK]"
    assert not reader.page.locator('[data-label="original"]').is_visible()
    assert "Which word stands at [MASK]?" in reader.text("result")
    reader.page.locator("#x-other").fill("cross")
    reader.page.locator("#x-other").press("Enter")
    reader.page.locator("#x-result", has_text="1 of 9 positions is scored").wait_for()
    assert reader.ids("labels")[4] == tokenizer.convert_tokens_to_ids("cross")


@needs_chromium
def test_a_new_sentence_says_what_to_do_next(reader, tokenizer):
    reader.open("the-hidden-word")
    reader.type("The cat sat on the table.")
    assert reader.text("result").startswith("Nothing is scored yet. Click a token")
    assert (reader.case(), reader.text("see")) == ("", "")
    reader.press('[data-position="2"]')
    reader.press('[data-input="mask"]')
    reader.press('[data-label="original"]')
    assert reader.ids("labels")[2] == tokenizer.convert_tokens_to_ids("cat")
    assert reader.text("result").startswith(
        "1 of 9 positions is scored (✓). loss = mean of 1 value"
    )
    drawn = set()
    for _ in range(4):
        reader.press('[data-input="random"]')
        drawn.add(reader.ids()[2])
    assert len(drawn) > 1
    assert not drawn & set(tokenizer.all_special_ids)
    reader.page.locator("#x-other").fill("snowman")
    reader.page.locator("#x-other").press("Enter")
    reader.page.get_by_text("is 2 tokens: snow ##man").wait_for()
    reader.press('[data-all="nothing"]')
    assert reader.text("note") == ""
    reader.press('[data-all="replaced"]')
    assert reader.ids("labels")[2] == tokenizer.convert_tokens_to_ids("cat")
    reader.type("The dog sat on the table.")
    assert set(reader.ids("labels")) == {-100}


@needs_chromium
def test_the_address_holds_the_state(reader):
    reader.open("the-articles-mistake")
    reader.page.locator("#x-padding").fill("200")
    reader.page.locator("#x-padding").press("Tab")
    assert reader.page.locator("#x-padding").input_value() == "32"
    reader.page.locator("#x-padding").fill("3")
    reader.wait()
    assert reader.ids("attention_mask") == [1] * 9 + [0] * 3
    reader.press('[data-position="6"]')
    fragment = reader.page.url.split("#")[1]
    shown = reader.text("table"), reader.text("result")
    reader.open("all-minus-100")
    reader.open(fragment)
    assert (reader.text("table"), reader.text("result")) == shown
    assert reader.text("which") == "Position 6: world"
    reader.open("text=a+b&at=99&padding=999&input=1:99999999,77:103&labels=-1:5,2:30521,3:x")
    assert len(reader.ids()) == 4 + 32
    assert [label for label in reader.ids("labels") if label != -100] == [30521]


@needs_chromium
@pytest.mark.parametrize("text", SENTENCES.values(), ids=SENTENCES)
def test_a_typed_sentence_is_read_as_python_reads_it(reader, tokenizer, text):
    reader.open("the-hidden-word")
    reader.type(text)
    ids = tokenizer(text)["input_ids"]
    assert reader.ids() == ids
    assert reader.row("token") == tokenizer.convert_ids_to_tokens(ids)
    assert len(reader.best()) == 5


@needs_chromium
def test_a_very_long_text_is_cut_and_said(reader, tokenizer):
    reader.open("the-hidden-word")
    text = "river " * 300
    reader.type(text)
    assert reader.ids() == [*tokenizer(text)["input_ids"][:127], tokenizer.sep_token_id]
    assert "has 302 tokens" in reader.text("note")


@needs_chromium
def test_the_browser_agrees_with_python_on_cloze_sentences(reader, tutor):
    model, tokenizer = tutor
    cases = [json.loads(line) for line in CLOZE.read_text("utf-8").splitlines()]
    same = 0
    for case in cases:
        inputs = tokenizer(case["text"], return_tensors="pt")
        at = inputs["input_ids"][0].tolist().index(tokenizer.mask_token_id)
        answer = tokenizer.convert_tokens_to_ids(case["answers"][0])
        reader.open(
            explorer_page.fragment({"text": case["text"], "labels": {at: answer}}) + f"&at={at}"
        )
        with torch.no_grad():
            logits = model(**inputs).logits[0, at]
        loss = masked_lm_loss(logits.unsqueeze(0), torch.tensor([answer])).item()
        assert abs(reader.loss() - loss) < BOUND, case["text"]
        same += reader.best()[0] == tokenizer.convert_ids_to_tokens(logits.argmax().item())
    assert len(cases) >= 60
    assert same >= 0.95 * len(cases)


@needs_chromium
def test_the_live_page_is_accessible_and_fits_a_phone(reader):
    page = reader.page
    reader.open("padding-scored")
    style = page.add_style_tag(content=STILL)
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.locator("#x-start").click()
    page.locator("#x-choices button").first.wait_for()
    assert serious(page, {"include": ["#explorer"]}) == []
    page.locator("#x-leave").click()
    for width in (1440, 390):
        page.set_viewport_size({"width": width, "height": 1000})
        for shade in ("light", "dark"):
            theme(page, shade)
            page.screenshot(path=SCREENSHOTS / f"explorer-{width}-{shade}.png", full_page=True)
            assert serious(page, {"include": ["#explorer"]}) == []
        assert page.evaluate("() => document.documentElement.scrollWidth") <= width
        assert page.locator("#x-table").evaluate("e => e.scrollWidth <= e.clientWidth")
    theme(page, "light")
    reader.type(SENTENCES["60 words"])
    assert page.evaluate("() => document.documentElement.scrollWidth") <= 390
    page.set_viewport_size({"width": 1440, "height": 1000})
    style.evaluate("element => element.remove()")


@needs_chromium
@pytest.mark.skipif(bool(explorer.missing()), reason=explorer.missing())
def test_a_model_that_is_not_there_is_said(browser, address):
    reader = Reader(browser, address)
    reader.page.route("**/model_quantized.onnx", lambda route: route.fulfill(status=404))
    reader.page.locator("#x-load").click()
    reader.page.get_by_text("The model could not be loaded").wait_for()
    assert reader.page.locator("#x-load").is_visible()
    reader.page.unroute("**/model_quantized.onnx")
    reader.type("A second attempt.")
    assert reader.text("result").startswith("Nothing is scored yet")
    assert reader.text("problem") == ""
    reader.page.close()


@needs_chromium
def test_nothing_left_the_machine_and_nothing_was_wrong(reader):
    own = (f"{reader.address}/", "data:", f"blob:{reader.address}/")
    assert len(reader.requests) > 10
    assert [url for url in reader.requests if not url.startswith(own)] == []
    assert reader.problems == []
