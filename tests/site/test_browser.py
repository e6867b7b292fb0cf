"""Lessons run to their end in JupyterLab, in a real browser."""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request

import pytest
import stored
from browser import SCREENSHOTS, needs_chromium

pytestmark = [pytest.mark.browser, needs_chromium]

# Reads the model and not the page: JupyterLab does not attach all cells.
CELLS = """() => {
    const panel = window.jupyterapp?.shell.currentWidget;
    const model = panel?.content?.model;
    if (!model) return null;
    return Array.from({length: model.cells.length}, (_, i) => model.cells.get(i))
        .filter(cell => cell.type === 'code')
        .map(cell => ({count: cell.executionCount, state: cell.executionState,
                       outputs: cell.outputs.toJSON()}));
}"""


@pytest.fixture(scope="module")
def jupyterlab(tmp_path_factory):
    """JupyterLab on a copy of the lessons; gives its address, and ends it afterwards."""
    home = tmp_path_factory.mktemp("home")
    folder = shutil.copytree(stored.ROOT / "notebooks", home / "notebooks")
    # Attach all cells to the page, not those in view alone: a test can then look at any of them.
    settings = home / "config/lab/user-settings/@jupyterlab/notebook-extension"
    settings.mkdir(parents=True)
    (settings / "tracker.jupyterlab-settings").write_text('{"windowingMode": "none"}')
    (home / "config/custom").mkdir()
    shutil.copy(stored.ROOT / "tools" / "lab.css", home / "config/custom/custom.css")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1",
        f"--port={port}", "--ServerApp.port_retries=0", "--IdentityProvider.token=",
        f"--ServerApp.root_dir={folder}", "--expose-app-in-browser", "--LabApp.custom_css=True",
    ]  # fmt: skip
    clean = {**os.environ, "HOME": str(home), "JUPYTER_CONFIG_DIR": str(home / "config")}
    with open(home / "log", "w") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, env=clean)
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(1200):
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"{address}/api", timeout=60).close()
                break
            assert server.poll() is None, (home / "log").read_text()
            time.sleep(0.5)
        else:
            pytest.fail((home / "log").read_text())
        yield address
    finally:
        server.terminate()
        try:
            server.wait(120)
        except subprocess.TimeoutExpired:
            server.kill()


def open_lesson(browser, address, name, width=1440):
    """Return a page that shows one lesson, and the list of requests that leave the machine."""
    page = browser.new_page(viewport={"width": width, "height": 1000})
    elsewhere = []
    own = (address, "data:", "blob:", "ws://127.0.0.1")
    page.on("request", lambda request: request.url.startswith(own) or elsewhere.append(request.url))
    page.goto(f"{address}/lab/tree/{name}?reset")  # without the lessons of an earlier page
    page.wait_for_function(
        "name => { const shown = window.jupyterapp?.shell.currentWidget;"
        "return shown?.context?.path === name && shown.context.isReady "
        "&& shown.sessionContext.session?.kernel; }",
        arg=name,
    )
    return page, elsewhere


@pytest.mark.parametrize("name", ["01_answer_the_question", "05_compute_the_loss_by_hand"])
def test_lesson_runs_to_its_end(browser, jupyterlab, name):
    page, elsewhere = open_lesson(browser, jupyterlab, f"{name}.ipynb")
    before = stored.code_cells(stored.read(stored.ROOT / "notebooks" / f"{name}.ipynb"))
    page.evaluate(
        "async () => { await window.jupyterapp.commands.execute('notebook:clear-all-cell-outputs');"
        "window.jupyterapp.commands.execute('notebook:run-all-cells'); }"
    )
    page.wait_for_function(f"() => ({CELLS})().every(cell => cell.count)")
    cells = page.evaluate(CELLS)
    assert [cell["count"] for cell in cells] == list(range(1, len(before) + 1))
    for cell, old in zip(cells, before, strict=True):
        kinds = [output["output_type"] for output in cell["outputs"]]
        assert ("error" in kinds) == ("raises-exception" in stored.tags(old))
    assert [len(cell["outputs"]) for cell in cells] == [len(cell.outputs) for cell in before]
    assert elsewhere == []
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"lesson-{name[:2]}.png")
    page.close()


def test_untrusted_lesson_shows_its_tables_and_figures(browser, jupyterlab):
    # A fresh copy is untrusted: only what the sanitizer of JupyterLab lets through is shown.
    page, _ = open_lesson(browser, jupyterlab, "01_answer_the_question.ipynb", width=1280)
    table = page.locator("table:has(caption)").first
    table.scroll_into_view_if_needed()
    assert table.locator("th[scope=row]").all_inner_texts()[0] == "position"
    label = table.get_by_text("2689").first
    background, colour = label.evaluate(
        "cell => [getComputedStyle(cell).backgroundColor, getComputedStyle(cell).color]"
    )
    assert (background, colour) == ("rgb(0, 114, 178)", "rgb(255, 255, 255)")
    picture = page.locator("figure img").first
    picture.scroll_into_view_if_needed()
    assert picture.evaluate("image => image.decode().then(() => image.naturalWidth)") > 300
    wide = page.evaluate(
        "() => Array.from(document.querySelectorAll('.jp-OutputArea-output > div'))"
        ".filter(node => node.scrollWidth > node.clientWidth + 1).length"
    )
    assert wide == 0
    page.close()


def test_closed_outputs_do_not_show_their_first_line(browser, jupyterlab):
    page, _ = open_lesson(browser, jupyterlab, "05_compute_the_loss_by_hand.ipynb")
    closed = page.locator(".jp-OutputPlaceholder").first
    closed.scroll_into_view_if_needed()
    assert "logits:" in closed.text_content()
    assert "logits:" not in closed.inner_text()
    page.close()
