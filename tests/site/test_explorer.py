"""The explorer: what it loads, what it computes, and how it is used, in a real browser."""

import contextlib
import functools
import json
import math
import pathlib
import re
import shutil
import stat

import pytest
import stored
import torch
from browser import SCREENSHOTS, needs_chromium
from bs4 import BeautifulSoup
from test_site import STILL, build, built_once, serious, served, theme

from mlmtutor import IGNORE_INDEX, masked_lm_loss, show
from tools import explorer

pytestmark = pytest.mark.browser

CLOZE = stored.ROOT / "tests" / "data" / "cloze.jsonl"
BOUND = 0.1  # nats: what docs/explorer.md promises
PRESETS = explorer.presets()
SENTENCES = {
    "accents": "Zürich's naïve café is open.",
    "an unknown character": "A snow✓man melts.",
    "a literal [MASK]": "I want to [MASK] the world.",
    "Chinese and signs": "The sign says 世界 — #1!",
    "60 words": " ".join(["the old man walked down to the river and sang"] * 6),
    "nothing": "",
}

needs_packages = pytest.mark.skipif(
    bool(explorer.missing()), reason=f"the site has no explorer. {explorer.missing()}"
)


def last_number(text):
    return float(re.search(r"= (nan|[\d.]+)$", text)[1])


# ---- What is committed ---------------------------------------------------------------------------


def test_every_npm_package_is_pinned_by_a_hash():
    texts = [
        (explorer.SOURCE / name).read_text("utf-8")
        for name in ("package.json", "package-lock.json")
    ]
    wanted, lock = (json.loads(text) for text in texts)
    assert all("://" not in text and '"resolved"' not in text for text in texts)
    entries = {name: entry for name, entry in lock["packages"].items() if name}
    assert len(entries) > 2
    assert all(re.fullmatch(r"sha512-[\w+/]{86}==", e["integrity"]) for e in entries.values())
    for name, version in wanted["dependencies"].items():
        assert entries[f"node_modules/{name}"]["version"] == version
    library = entries["node_modules/@huggingface/transformers"]
    assert library["dependencies"]["onnxruntime-web"] == wanted["dependencies"]["onnxruntime-web"]


def test_the_colours_are_those_of_the_alignment_table():
    css = (explorer.SOURCE / "explorer.css").read_text("utf-8")
    used = dict(re.findall(r"--(scored|replaced|special): (#\w+);", css))
    assert used == {name: show.COLOURS[name].lower() for name in ("scored", "replaced", "special")}


def test_the_ids_in_the_script_are_those_of_the_tokenizer(tokenizer):
    script = (explorer.SOURCE / "explorer.js").read_text("utf-8")
    names, numbers = re.search(r"const \[(.+?)\] = \[(.+?)\];", script).groups()
    for name, number in zip(names.split(", "), numbers.split(", "), strict=True):
        assert tokenizer.convert_tokens_to_ids(f"[{name}]") == int(number)
    assert f"IGNORE = {IGNORE_INDEX};" in script


# ---- Fetching and exporting ----------------------------------------------------------------------

FAKE_NPM = """#!/bin/sh
echo "$*" >> {log}
mkdir -p node_modules/@huggingface/transformers/dist node_modules/onnxruntime-web/dist
for file in {files}; do echo part > "node_modules/$file"; done
{end}
"""


@pytest.fixture
def empty(tmp_path, monkeypatch):
    """No npm package is here and no model is exported; npm is a script that the test writes."""
    monkeypatch.setattr(explorer, "PACKAGES", tmp_path / "packages")
    monkeypatch.setattr(explorer, "MODELS", tmp_path / "models")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(explorer, "files", functools.cache(explorer.files.__wrapped__))
    return tmp_path


def fake_npm(folder, end="exit 0"):
    script = folder / "npm"
    files = " ".join(explorer.FROM_NPM)
    script.write_text(FAKE_NPM.format(log=folder / "log", files=files, end=end))
    script.chmod(script.stat().st_mode | stat.S_IXUSR)


def test_packages_are_fetched_once(empty):
    fake_npm(empty)
    assert explorer.missing()
    assert explorer.fetch() == explorer.fetch() == ""
    calls = (empty / "log").read_text().splitlines()
    assert len(calls) == 1
    assert calls[0].startswith("ci --ignore-scripts")
    kept = {path.name for path in explorer.packages().iterdir()}
    assert kept == {pathlib.Path(name).name for name in explorer.FROM_NPM}
    assert [path.name for path in explorer.PACKAGES.iterdir()] == [explorer.packages().name]
    assert not explorer.missing()


@pytest.mark.parametrize(
    ("end", "message"),
    [
        ("echo 'npm error code ENOTFOUND' >&2; exit 1", "npm ci failed. npm error code ENOTFOUND"),
        (None, "there is no npm on the path"),
    ],
)
def test_what_cannot_be_fetched_is_one_line_and_leaves_nothing(empty, monkeypatch, end, message):
    if end:
        fake_npm(empty, end)
    else:
        monkeypatch.setenv("PATH", str(empty))
    assert explorer.fetch() == message
    assert not list(explorer.PACKAGES.glob("*"))
    assert "npm" in explorer.missing()


def test_a_failed_export_leaves_nothing_and_the_next_is_kept(empty, monkeypatch):
    def breaks(path):
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    made = []

    def works(path):
        made.append(path)
        path.write_bytes(b"whole")

    monkeypatch.setattr(explorer, "export", breaks)
    with pytest.raises(KeyboardInterrupt):
        explorer.exported()
    assert not list(explorer.MODELS.iterdir())
    monkeypatch.setattr(explorer, "export", works)
    assert explorer.exported() == explorer.exported()
    assert len(made) == 1
    assert [path.read_bytes() for path in explorer.MODELS.iterdir()] == [b"whole"]


def test_other_weights_are_exported_anew(empty, monkeypatch):
    monkeypatch.setattr(explorer, "export", lambda path: path.write_bytes(b"model"))
    first = explorer.exported()
    other = shutil.copytree(explorer.TUTOR, empty / "tutor")
    sums = json.loads((other / "checksums.json").read_text())
    (other / "checksums.json").write_text(json.dumps({**sums, "model.safetensors": "0" * 64}))
    monkeypatch.setattr(explorer, "TUTOR", other)
    assert explorer.exported() != first


def test_without_onnx_the_reason_names_it(empty, monkeypatch):
    explorer.packages().mkdir(parents=True)
    assert explorer.missing() == ""
    monkeypatch.setattr(explorer.importlib.util, "find_spec", lambda name: None)
    assert "Python package onnx" in explorer.missing()


# ---- The quantised copy --------------------------------------------------------------------------


@needs_packages
def test_the_quantised_copy_stays_within_the_bound(tutor):
    runtime = pytest.importorskip("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    session = runtime.InferenceSession(str(explorer.exported()), options)
    model, tokenizer = tutor
    cases = [json.loads(line) for line in CLOZE.read_text("utf-8").splitlines()]
    batch = tokenizer([case["text"] for case in cases], padding=True, return_tensors="pt")
    answers = tokenizer.convert_tokens_to_ids([case["answers"][0] for case in cases])
    at_mask = batch["input_ids"] == tokenizer.mask_token_id
    with torch.no_grad():
        whole = model(**batch).logits[at_mask]
    feed = {name: batch[name].numpy() for name in ("input_ids", "attention_mask")}
    copy = torch.from_numpy(session.run(None, feed)[0])[at_mask]
    labels = torch.tensor(answers)
    same = (copy.argmax(-1) == whole.argmax(-1)).float().mean().item()
    each = [masked_lm_loss(logits, labels, reduction="none") for logits in (copy, whole)]
    gap = (each[0] - each[1]).abs()
    size = explorer.exported().stat().st_size / 1e6
    print(f"\nquantised copy: {size:.1f} MB; same first prediction {same:.1%} of {len(cases)}; "
          f"loss differs by {gap.mean():.3f} on average, {gap.max():.3f} at most, "
          f"{abs(each[0].mean() - each[1].mean()):.4f} in the mean")  # fmt: skip
    assert len(cases) >= 60
    assert same >= 0.95
    assert gap.max() < BOUND, "use a smaller BLOCK in tools/explorer.py"


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
                    values[case["id"]] = eval(case["value"], namespace).item()
            section = heading[1]
            if len(values) == len(cases):
                return values
        elif cell.cell_type == "code" and "exercise" not in stored.tags(cell):
            fails = Exception if "raises-exception" in stored.tags(cell) else ()
            with contextlib.suppress(fails):
                exec(compile(cell.source, stem, "exec"), namespace)
    raise AssertionError(f"{stem} has {len(values)} of the sections of {[c['id'] for c in cases]}")


def test_the_static_tables_show_what_the_lessons_assert(site):
    page = BeautifulSoup((site / "explorer.html").read_text("utf-8"), "html.parser")
    for case in PRESETS:
        value = lesson_values(case["lesson"])[case["id"]]
        text = page.find(id=case["id"]).find("details").get_text()
        assert f"= {value:.2f}" in text


def test_each_case_and_its_section_link_to_each_other(site):
    page = BeautifulSoup((site / "explorer.html").read_text("utf-8"), "html.parser")
    for case in PRESETS:
        section = page.find(id=case["id"])
        name = f"lessons/{case['lesson']}.html"
        [there] = [a["href"] for a in section.find_all("a") if a["href"].startswith(name)]
        lesson = BeautifulSoup((site / name).read_text("utf-8"), "html.parser")
        target = lesson.find(id=there.split("#")[1])
        heading = target.find(re.compile("h[1-6]")).get_text().rstrip("#")
        assert heading == case["section"].replace("`", "")
        [back] = target.find_all("a", href=f"../explorer.html#{case['id']}")
        assert back.find_parent("section") is target


def test_without_packages_the_site_says_why_and_shows_an_example(tmp_path_factory, tmp_path):
    folder = shutil.copytree(built_once(tmp_path_factory), tmp_path / "site")
    program = (
        f"import sys, pathlib; sys.path.insert(0, {str(stored.ROOT)!r}); from tools import explorer; "
        f"explorer.PACKAGES = pathlib.Path({str(tmp_path)!r}); "
        "from sphinx.cmd.build import main; sys.exit(main(sys.argv[1:]))"
    )
    build(folder, "-c", program)
    page = BeautifulSoup((folder / "html" / "explorer.html").read_text("utf-8"), "html.parser")
    article = page.find("article")
    assert "This build of the site has no explorer. The two npm packages" in article.get_text()
    assert article.find("table").caption.get_text().startswith("1 of 9 positions is scored")
    assert not article.find_all("button", id=re.compile("^x-"))
    assert not page.find("script", src=re.compile("explorer"))
    assert {path.name for path in (folder / "html/_static/explorer").iterdir()} == {"explorer.css"}


# ---- The page in a browser -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def address(site):
    with served(site) as address:
        yield address


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
        self.page.wait_for_load_state("networkidle")

    def load(self):
        before = self.page.evaluate("performance.now()")
        self.page.locator("#x-load").click()
        self.wait()
        return (self.page.evaluate("performance.now()") - before) / 1000

    def wait(self):
        """Wait for an answer, or for the reason that there is none."""
        self.page.wait_for_function(
            """() => document.querySelector('#explorer').getAttribute('aria-busy') === 'false'
                     || document.querySelector('#x-problem').textContent""",
            timeout=60_000,
        )
        assert self.page.locator("#x-problem").text_content() == ""

    def open(self, fragment):
        self.page.evaluate("document.querySelector('#explorer').setAttribute('aria-busy', 'true')")
        self.page.evaluate("fragment => { location.hash = fragment; }", fragment)
        self.wait()

    def type(self, text):
        self.page.evaluate("document.querySelector('#explorer').setAttribute('aria-busy', 'true')")
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

    def result(self):
        return self.page.locator("#x-result").text_content()

    def best(self):
        return self.page.locator("#x-top tbody th").all_text_contents()


@pytest.fixture(scope="module")
def reader(browser, address):
    """A reader who came by the link of a lesson and has loaded the model."""
    reader = Reader(browser, address, "padding-scored")
    reader.before = list(reader.requests)
    reader.seconds = reader.load()
    reader.arrived = reader.result()
    yield reader
    reader.page.close()


in_browser = [needs_chromium, needs_packages]


def marked(function):
    for mark in in_browser:
        function = mark(function)
    return function


@marked
def test_the_model_is_loaded_when_asked_and_weighs_what_the_button_says(reader):
    own = f"{reader.address}/_static/explorer/"
    before = {url.removeprefix(own) for url in reader.before if url.startswith(own)}
    assert before == {"explorer.css", "explorer.js"}
    after = {url.removeprefix(own) for url in reader.requests if url.startswith(own)} - before
    assert after == set(explorer.files()) - before - {"LICENSE", "LICENSES.txt"}
    bytes_loaded = sum(explorer.files()[name].stat().st_size for name in after)
    button = reader.page.locator("#x-load").text_content()
    assert button == f"Load the model ({bytes_loaded / 1e6:.1f} MB)"
    bar = reader.page.locator("#x-progress")
    assert int(bar.get_attribute("max")) == bytes_loaded
    assert bar.evaluate("bar => bar.value") > 0.9 * bytes_loaded
    print(f"\nloaded and answered after {reader.seconds:.1f} s; {button}")


@marked
def test_a_link_of_a_lesson_opens_its_case(reader):
    value = lesson_values("04_ignore_positions_with_minus_100")["padding-scored"]
    assert abs(last_number(reader.arrived) - value) < BOUND


@marked
def test_the_arithmetic_is_that_of_masked_lm_loss(reader):
    generator = torch.Generator().manual_seed(3)
    for labels in (
        [4, -100, 0, 49, -100],
        [-100] * 5,
        [0, 1, 2, 3, 4],
        [-100, -100, 7, -100, -100],
    ):
        for scale in (1, 10, 300):
            logits = torch.randn(5, 50, generator=generator) * scale
            found = reader.page.evaluate(
                """async ([logits, labels]) => {
                    const explorer = await import("./_static/explorer/explorer.js");
                    const rows = Float32Array.from(logits);
                    const loss = explorer.maskedLmLoss(rows, labels);
                    const best = explorer.mostProbable(rows.subarray(0, 50));
                    return {...loss, each: loss.each.map(String), mean: String(loss.mean), best};
                }""",
                [logits.flatten().tolist(), labels],
            )
            expected = masked_lm_loss(logits.double(), torch.tensor(labels))
            each = masked_lm_loss(logits.double(), torch.tensor(labels), reduction="none")
            assert found["scored"] == sum(label != -100 for label in labels)
            assert math.isnan(float(found["mean"])) == expected.isnan().item()
            if not expected.isnan():
                assert math.isclose(float(found["mean"]), expected, rel_tol=1e-9)
            for text, value, label in zip(found["each"], each.tolist(), labels, strict=True):
                assert (
                    text == "NaN"
                    if label == -100
                    else math.isclose(float(text), value, rel_tol=1e-9, abs_tol=1e-12)
                )
            top = logits[0].double().softmax(-1).topk(5)
            assert [entry["id"] for entry in found["best"]] == top.indices.tolist()
            for entry, p in zip(found["best"], top.values.tolist(), strict=True):
                assert math.isclose(entry["p"], p, rel_tol=1e-9)


@marked
@pytest.mark.parametrize("label", [-1, 50, -99])
def test_a_label_that_is_no_id_is_refused(reader, label):
    message = reader.page.evaluate(
        """async (label) => {
            const { maskedLmLoss } = await import("./_static/explorer/explorer.js");
            try { return String(maskedLmLoss(new Float32Array(50), [label]).mean); }
            catch (error) { return `${error.name}: ${error.message}`; }
        }""",
        label,
    )
    assert message == f"RangeError: {label} is no id"
    with pytest.raises(ValueError, match="label"):
        masked_lm_loss(torch.zeros(1, 50), torch.tensor([label]))


@marked
@pytest.mark.parametrize("case", PRESETS, ids=lambda case: case["id"])
def test_a_preset_shows_the_number_of_its_lesson(reader, tutor, case):
    model, tokenizer = tutor
    reader.page.locator("#x-case").select_option("")
    reader.page.evaluate("document.querySelector('#explorer').setAttribute('aria-busy', 'true')")
    reader.page.locator("#x-case").select_option(case["id"])
    reader.wait()
    ids, mask, labels = explorer.tensors(case["state"], tokenizer)
    assert reader.ids() == ids[0].tolist()
    assert reader.ids("labels") == labels[0].tolist()
    if case["state"].get("padding"):
        assert reader.ids("attention_mask") == mask[0].tolist()
    scored = [label != -100 for label in labels[0].tolist()]
    assert [text.startswith("✓ ") for text in reader.row("scored")] == scored
    lesson = lesson_values(case["lesson"])[case["id"]]
    shown = last_number(reader.result())
    assert math.isnan(shown) if math.isnan(lesson) else abs(shown - lesson) < BOUND
    each = [float(text) for text in reader.row("−log p(label)") if text]
    assert len(each) == sum(scored)
    if each:
        assert abs(sum(each) / len(each) - shown) < 0.011  # each is rounded
    with torch.no_grad():
        logits = model(ids, attention_mask=mask).logits[0]
    chances = [float(text) for text in reader.row("p(label)") if text]
    whole = masked_lm_loss(logits, labels[0], reduction="none")[labels[0] != -100]
    for chance, nats in zip(chances, whole.neg().exp().tolist(), strict=True):
        assert abs(chance - nats) < BOUND
    section = reader.page.locator("#x-see").inner_text()
    assert section.startswith(re.sub("[`*]", "", case["see"])[:20])


@marked
def test_a_case_further_down_opens_above(reader):
    reader.open("the-hidden-word")
    link = reader.page.locator("#all-minus-100 .x-open a")
    link.focus()
    reader.page.evaluate("document.querySelector('#explorer').setAttribute('aria-busy', 'true')")
    reader.page.keyboard.press("Enter")
    reader.wait()
    assert math.isnan(last_number(reader.result()))
    case = reader.page.locator("#x-case")
    assert case.evaluate("e => e === document.activeElement && e.value") == "all-minus-100"
    assert case.evaluate(
        "e => e.getBoundingClientRect().top >= 0 && e.getBoundingClientRect().bottom <= innerHeight"
    )


@marked
def test_labels_move_the_loss_and_not_the_predictions(reader):
    reader.open("the-hidden-word")
    best, losses = reader.best(), [reader.result()]
    for selector in ('[data-label="mask"]', '[data-label="ignore"]', '[data-label="original"]'):
        reader.press(selector)
        assert reader.best() == best
        losses.append(reader.result())
    assert len(set(losses)) == 3
    assert losses[0] == losses[3]
    assert math.isnan(last_number(losses[2]))


@marked
def test_a_token_is_replaced_and_labelled(reader, tokenizer):
    reader.open("text=The+cat+sat+on+the+table.&at=2")
    [cat, dog] = tokenizer.convert_tokens_to_ids(["cat", "dog"])
    assert (reader.ids()[2], reader.ids("labels")) == (cat, [-100] * 9)
    reader.press('[data-input="mask"]')
    assert reader.ids()[2] == tokenizer.mask_token_id
    drawn = set()
    for _ in range(4):
        reader.press('[data-input="random"]')
        drawn.add(reader.ids()[2])
    assert len(drawn) > 1
    assert not drawn & set(tokenizer.all_special_ids)
    reader.press('[data-input="itself"]')
    assert reader.ids()[2] == cat
    reader.page.locator("#x-other").fill("dog")
    reader.page.locator("#x-other").press("Enter")
    reader.page.locator("#x-result", has_text="1 of 9 positions is scored").wait_for()
    assert reader.ids("labels")[2] == dog
    reader.page.locator("#x-other").fill("snowman")
    reader.page.locator("#x-other").press("Enter")
    reader.page.get_by_text("is 2 tokens: snow ##man").wait_for()
    assert reader.ids("labels")[2] == dog
    reader.press("#x-top tbody tr:nth-child(2) button")
    assert reader.row("scored")[2] == f"✓ {reader.best()[1]}"
    reader.press('[data-all="inputs"]')
    assert reader.ids("labels") == reader.ids()
    reader.press('[data-all="nothing"]')
    assert set(reader.ids("labels")) == {-100}
    reader.press('[data-input="mask"]')
    reader.press('[data-all="replaced"]')
    assert reader.ids("labels") == [-100, -100, cat, *[-100] * 6]


@marked
def test_the_address_holds_the_state(reader):
    reader.open("the-articles-mistake")
    reader.page.locator("#x-padding").fill("3")
    reader.wait()
    assert reader.ids("attention_mask") == [1] * 9 + [0] * 3
    reader.press('[data-position="6"]')
    fragment = reader.page.url.split("#")[1]
    shown = [reader.row(name) for name in ("token", "labels", "attention_mask")], reader.result()
    reader.open("all-minus-100")
    reader.open(fragment)
    again = [reader.row(name) for name in ("token", "labels", "attention_mask")], reader.result()
    assert again == shown
    assert reader.page.locator("#x-which").text_content() == "Position 6: world"
    reader.open("text=a+b&at=99&padding=999&input=1:99999999,77:103&labels=-1:5,2:30521,3:x")
    assert len(reader.ids()) == 4 + 32
    assert [label for label in reader.ids("labels") if label != -100] == [30521]


@marked
@pytest.mark.parametrize("text", SENTENCES.values(), ids=SENTENCES)
def test_a_typed_sentence_is_read_as_python_reads_it(reader, tokenizer, text):
    reader.open("the-hidden-word")
    reader.type(text)
    ids = tokenizer(text)["input_ids"]
    assert reader.ids() == ids
    assert reader.row("token") == tokenizer.convert_ids_to_tokens(ids)
    assert len(reader.best()) == 5


@marked
def test_a_very_long_text_is_cut_and_said(reader, tokenizer):
    reader.open("the-hidden-word")
    text = "river " * 300
    reader.type(text)
    assert reader.ids() == [*tokenizer(text)["input_ids"][:127], tokenizer.sep_token_id]
    assert "has 302 tokens" in reader.page.locator("#x-note").text_content()
    reader.type("Short again.")
    assert reader.page.locator("#x-note").text_content() == ""


@marked
def test_what_was_chosen_stays_where_the_token_stays(reader, tokenizer):
    reader.open("the-hidden-word")
    reader.type("I want to change the country.")
    assert reader.row("token")[4:7] == ["[MASK]", "the", "country"]
    assert reader.ids("labels")[4] == tokenizer.convert_tokens_to_ids("change")
    reader.type("We hope to see the country.")
    assert reader.row("token")[4] == "see"
    assert set(reader.ids("labels")) == {-100}


@marked
def test_the_browser_agrees_with_python_on_cloze_sentences(reader, tutor):
    model, tokenizer = tutor
    cases = [json.loads(line) for line in CLOZE.read_text("utf-8").splitlines()][::16]
    same = 0
    for case in cases:
        inputs = tokenizer(case["text"], return_tensors="pt")
        at = inputs["input_ids"][0].tolist().index(tokenizer.mask_token_id)
        answer = tokenizer.convert_tokens_to_ids(case["answers"][0])
        reader.open(explorer.fragment({"text": case["text"], "labels": {at: answer}}) + f"&at={at}")
        with torch.no_grad():
            logits = model(**inputs).logits[0, at]
        loss = masked_lm_loss(logits.unsqueeze(0), torch.tensor([answer])).item()
        assert abs(last_number(reader.result()) - loss) < BOUND, case["text"]
        same += reader.best()[0] == tokenizer.convert_ids_to_tokens(logits.argmax().item())
    assert len(cases) == 5
    assert same >= 4


GAPS = """async () => {
    const explorer = document.querySelector("#explorer");
    let last = performance.now(), gap = 0;
    const start = last;
    explorer.setAttribute("aria-busy", "true");
    document.querySelector('[data-input="random"]').click();
    while (explorer.getAttribute("aria-busy") === "true") {
        await new Promise((resolve) => setTimeout(resolve, 5));
        gap = Math.max(gap, performance.now() - last);
        last = performance.now();
    }
    return [last - start, gap];
}"""


@marked
def test_sixty_words_are_read_within_half_a_second_while_the_page_responds(reader):
    reader.type(SENTENCES["60 words"])
    assert len(SENTENCES["60 words"].split()) == 60
    runs = [reader.page.evaluate(GAPS) for _ in range(5)]
    forward, gap = (
        min(values) for values in zip(*runs, strict=True)
    )  # others use this machine too
    print(
        f"\n60 words: answer after {forward:.0f} ms at best, longest pause of the page {gap:.0f} ms"
    )
    assert forward < 500
    assert gap < 100


@marked
def test_the_keyboard_reaches_everything(browser, address, reader):
    page = reader.page
    reader.open("the-hidden-word")
    page.locator("#x-case").focus()
    reached = []
    for _ in range(60):
        here = page.evaluate(
            """() => {
                const e = document.activeElement, style = getComputedStyle(e);
                return [document.querySelector("#x-live").contains(e), e.id || e.textContent,
                        style.outlineStyle !== "none" || style.boxShadow !== "none"];
            }"""
        )
        if not here[0]:
            break
        assert here[2], f"{here[1]} shows no focus"
        reached.append(here[1])
        page.keyboard.press("Tab")
    everything = page.eval_on_selector_all(
        "#x-live :is(a, button, input, select, textarea)",
        "all => all.filter(e => e.tabIndex >= 0).map(e => e.id || e.textContent)",
    )
    assert reached == everything
    page.locator('[data-position="4"]').focus()
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.dataset.position") == "5"
    page.keyboard.press("End")
    assert page.locator("#x-which").text_content() == "Position 8: [SEP]"
    page.keyboard.press("Home")
    assert page.locator("#x-which").text_content() == "Position 0: [CLS]"
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    page.locator('[data-input="mask"]').focus()
    page.keyboard.press("Enter")
    reader.wait()
    page.locator('[data-label="original"]').focus()
    page.keyboard.press("Space")
    reader.wait()
    assert reader.row("scored")[3] == "✓ to"
    assert page.evaluate("document.activeElement.dataset.label") == "original"
    assert reader.result().startswith(
        "2 of 9 positions are scored (✓). loss = mean of 2 values (positions 3, 4)"
    )


@marked
def test_the_live_page_is_accessible_and_fits_a_phone(reader):
    page = reader.page
    reader.open("padding-scored")
    style = page.add_style_tag(content=STILL)
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    for width in (1440, 390):
        page.set_viewport_size({"width": width, "height": 1000})
        for shade in ("light", "dark"):
            theme(page, shade)
            shot = SCREENSHOTS / f"explorer-{width}-{shade}.png"
            page.screenshot(path=shot, full_page=True)
            assert serious(page, {"include": ["#explorer"]}) == []
        theme(page, "light")
        assert page.evaluate("() => document.documentElement.scrollWidth") <= width
        assert page.evaluate(
            "() => document.querySelector('#x-table').scrollWidth <= document.querySelector('#x-table').clientWidth"
        )
    reader.type(SENTENCES["60 words"])
    assert page.evaluate("() => document.documentElement.scrollWidth") <= 390
    page.set_viewport_size({"width": 1440, "height": 1000})
    style.evaluate("element => element.remove()")


@marked
def test_without_scripts_the_tables_are_there(browser, address):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{address}/explorer.html")
    assert page.locator("#x-why").is_visible()
    assert page.locator("#x-example table").is_visible()
    assert not page.locator("#x-load").is_visible()
    assert not page.locator("#x-live").is_visible()
    assert page.locator("article details").count() == len(PRESETS)
    context.close()


@marked
def test_a_model_that_is_not_there_is_said(browser, address):
    page = browser.new_page()
    page.route("**/model_quantized.onnx", lambda route: route.fulfill(status=404))
    page.goto(f"{address}/explorer.html")
    page.locator("#x-load").click()
    page.get_by_text("The model could not be loaded").wait_for()
    assert page.locator("#x-load").is_visible()
    assert page.locator("#x-example table").is_visible()
    page.unroute("**/model_quantized.onnx")
    page.locator("#x-load").click()  # a second attempt
    page.locator("#x-result", has_text="loss = mean of 1 value").wait_for()
    assert page.locator("#x-problem").text_content() == ""
    page.close()


@marked
def test_nothing_left_the_machine_and_nothing_was_wrong(reader):
    own = (f"{reader.address}/", "data:", f"blob:{reader.address}/")
    assert len(reader.requests) > 10
    assert [url for url in reader.requests if not url.startswith(own)] == []
    assert reader.problems == []
