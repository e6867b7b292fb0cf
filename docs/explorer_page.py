"""The page of the explorer: the case tables, what the script starts from, and where lessons link.

``docs/conf.py`` puts what these functions return into ``explorer.md``; what the page loads is made
by ``tools/explorer.py``.
"""

import html
import json
import re
import urllib.parse

import torch

import mlmtutor
from tools.explorer import SOURCE, files, loaded, missing, presets, rows, tour, tutor


def in_html(text):
    """Return a line of Markdown with `code`, *emphasis* and **strong** as HTML."""
    text = re.sub("`(.+?)`", r"<code>\1</code>", html.escape(text, quote=False))
    text = re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", text)
    return re.sub(r"\*(.+?)\*", r"<em>\1</em>", text)


def fragment(state):
    """Return the part of the address after # that stands for a state."""
    parts = {"text": state["text"], "padding": state.get("padding", 0)}
    for name in ("input", "labels"):
        pairs = state.get(name, {}).items()
        parts[name] = ",".join(f"{position}:{token_id}" for position, token_id in pairs)
    return urllib.parse.urlencode({name: value for name, value in parts.items() if value})


def table(state):
    """Return the alignment table of a state in HTML, computed by the model as it ships."""
    ids, mask, labels, values = rows(state)
    batch = {"input_ids": torch.tensor(ids), "labels": torch.tensor(labels)}
    batch |= {"attention_mask": torch.tensor(mask)} if state.get("padding") else {}
    return mlmtutor.alignment(batch, tutor()[1], values)._repr_html_()


def weight():
    """Return what the button loads, in megabytes."""
    return f"{loaded() / 1e6:.1f}"


def places(case):
    """Return the sections that lead to a case, as pairs of lesson and heading; its own is first."""
    also = (place.split("#") for place in case.get("also", []))
    return [(case["lesson"], case["section"]), *map(tuple, also)]


def explorer():
    """Return the explorer as a block of raw HTML for MyST."""
    states = {case["id"]: fragment(case["state"]) for case in presets()}
    folder = next((name.split("/")[0] for name in files() if name.endswith("/config.json")), "")
    steps = [
        {
            "state": fragment(step["state"]),
            "asks": in_html(step["asks"]),
            "choices": [in_html(choice) for choice in step["choices"]],
            "right": step["right"],
            "says": in_html(step["says"]),
        }
        for step in tour()
    ]
    page = (SOURCE / "explorer.html").read_text(encoding="utf-8")
    for name, value in {
        "MODEL": folder,
        "BYTES": str(loaded()),
        "MEGABYTES": weight(),
        "MISSING": html.escape(missing()),
        "EXAMPLE": table(presets()[0]["state"]),
        "OPTIONS": "".join(
            f'<option value="{case["id"]}">{case["title"].replace("`", "")}</option>'
            for case in presets()
        ),
        "PRESETS": json.dumps(states).replace("<", "\\u003c"),
        "TOUR": json.dumps(steps).replace("<", "\\u003c"),
    }.items():
        page = page.replace(f"{{{name}}}", value)
    style = '<link rel="stylesheet" href="_static/explorer/explorer.css">'
    return f"```{{raw}} html\n{style}\n{page}\n```"


def cases():
    """Return a section for each preset: what to see, the lesson, and the table without scripts."""
    parts = []
    for case in presets():
        number, anchor = case["lesson"][:2], re.sub("[`*]", "", case["section"]).replace(" ", "-")
        where = f"[Lesson {number}: {case['section']}](lessons/{case['lesson']}.ipynb#{anchor})"
        name = case["title"].replace("`", "")
        opens = f'<p class="x-open" hidden><a href="#{case["id"]}">Open “{name}” above</a></p>'
        parts += [
            f"({case['id']})=",
            f"### {case['title']}\n",
            f"{case['see']} {where} proves it.\n",
            "```{raw} html",
            opens,
            "<details><summary>The table of this case, in full precision</summary>",
            table(case["state"]),
            "</details>",
            "```\n",
        ]
    return "\n".join(parts)
