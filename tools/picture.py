"""Draw the two pictures of the README, both of the sentence of lesson 01.

    python -m tools.picture

``docs/_static/dataflow.svg`` is the figure of lesson 01; ``docs/_static/alignment.png`` is the
alignment table, with the rows that need no model. Chromium must be on the path; no network is used.
"""

import pathlib
import shutil

import torch
from playwright.sync_api import sync_playwright

import mlmtutor
from mlmtutor.lessons.lesson_01 import dataflow
from tools import atomic

ROOT = pathlib.Path(__file__).resolve().parent.parent
SENTENCE, WORD = "I want to [MASK] the world.", "change"
PICTURE = ROOT / "docs" / "_static" / "alignment.png"
PAGE = """<!doctype html><meta charset="utf-8">
<body style="margin:0;background:#fff;color:#1b1f24;font:17px 'DejaVu Sans',Arial,sans-serif">
<div id="picture" style="display:inline-block;padding:14px 20px">{table}</div>
"""


def sentence():
    """Return the model, its tokenizer, and the batch of the sentence with its labels."""
    model, tokenizer = mlmtutor.load_tutor()
    batch = tokenizer(SENTENCE, return_tensors="pt")
    hidden = batch["input_ids"] == tokenizer.mask_token_id
    labels = torch.where(hidden, tokenizer.convert_tokens_to_ids(WORD), -100)
    return model, tokenizer, {"input_ids": batch["input_ids"], "labels": labels}


def figure():
    """Return the figure of lesson 01."""
    model, tokenizer, batch = sentence()
    with torch.no_grad():
        return dataflow(batch, tokenizer, model(**batch).logits)


def content():
    """Return the HTML of the table."""
    _, tokenizer, batch = sentence()
    return mlmtutor.alignment(batch, tokenizer)._repr_html_()


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
    atomic.write(PICTURE.with_name("dataflow.svg"), figure().svg)
