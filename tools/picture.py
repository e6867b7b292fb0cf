"""Draw the alignment table of the README, docs/_static/alignment.png, with Chromium.

    python -m tools.picture

The table has the sentence of lesson 01 and the rows that need no model, so a new embedded model
changes nothing. Chromium must be on the path; no network is used.
"""

import pathlib
import shutil

from playwright.sync_api import sync_playwright
from transformers import AutoTokenizer

import mlmtutor
from tools import atomic

ROOT = pathlib.Path(__file__).resolve().parent.parent
SENTENCE, WORD = "I want to [MASK] the world.", "change"
PICTURE = ROOT / "docs" / "_static" / "alignment.png"
PAGE = """<!doctype html><meta charset="utf-8">
<body style="margin:0;background:#fff;color:#1b1f24;font:17px 'DejaVu Sans',Arial,sans-serif">
<div id="picture" style="display:inline-block;padding:14px 20px">{table}</div>
"""


def content():
    """Return the HTML of the table."""
    tokenizer = AutoTokenizer.from_pretrained(pathlib.Path(mlmtutor.__file__).parent / "tutor_bert")
    ids = tokenizer(SENTENCE)["input_ids"]
    word = tokenizer.convert_tokens_to_ids(WORD)
    labels = [word if i == tokenizer.mask_token_id else -100 for i in ids]
    return mlmtutor.alignment(tokenizer, ids, labels)._repr_html_()


def draw(path):
    """Write the picture, two pixels for each pixel of the page."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        raise SystemExit("picture: no chromium on the path (on Debian: apt install chromium)")
    path.parent.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page(device_scale_factor=2, viewport={"width": 1000, "height": 500})
        page.set_content(PAGE.format(table=content()))
        atomic.write(path, page.locator("#picture").screenshot())
        browser.close()


if __name__ == "__main__":
    draw(PICTURE)
    print(PICTURE.relative_to(ROOT))
