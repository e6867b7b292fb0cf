"""What the site adds to a lesson: links to terms, functions and threads, cases, and how to run it.

The lessons are written for JupyterLab. ``docs/conf.py`` passes the JSON of each one through
:func:`page` while Sphinx reads it; nothing is written back.
"""

import html
import json
import pathlib
import re

from explorer_page import places

import mlmtutor
from tools import lessons
from tools.explorer import presets

DOCS = pathlib.Path(__file__).resolve().parent
THREAD = r"(?:[\w-]+/)?[\w.-]+#\d+"
OWNERS = dict.fromkeys(["transformers", "tokenizers", "datasets", "trl"], "huggingface")
OWNERS |= {"pytorch": "pytorch", "tensorflow": "tensorflow"}
FORUMS = {
    "Stack Overflow": "https://stackoverflow.com/questions",
    "HF forum": "https://discuss.huggingface.co/t",
    "discuss.pytorch.org": "https://discuss.pytorch.org/t",
}
CITED = re.compile(rf"(?<![\w/#-]){THREAD}\b|(?:{'|'.join(map(re.escape, FORUMS))}) \d+")
# Text in which no word becomes a link: code, links, formulas, HTML tags, headings.
PROTECTED = re.compile(
    r"```.*?```|`[^`\n]+`|!?\[[^\]]*\]\([^)]*\)|\$[^$\n]+\$|<[^>\n]+>|^#[^\n]*$|\*\*[^*\n]+\*\*",
    re.S | re.M,
)
NAVIGATION = re.compile(r"\n+[^\n]*\[(?:Map of the lessons|← Back to)[^\n]*$")  # the theme has one
NOT_LINKED = {"V", "head", "labels", "input_ids"}  # of the glossary: too frequent, or another word


def thread(name):
    """Return the address of a thread, or nothing where the name doesn't say where it is.

    >>> thread("transformers#2946")
    'https://github.com/huggingface/transformers/issues/2946'
    >>> thread("Stack Overflow 61470768")
    'https://stackoverflow.com/questions/61470768'
    """
    forum, _, number = name.rpartition(" ")
    if forum in FORUMS:
        return f"{FORUMS[forum]}/{number}"
    found = re.fullmatch(r"(?:([\w-]+)/)?([\w.-]+)#(\d+)", name)
    owner = found and (found[1] or OWNERS.get(found[2]))
    return f"https://github.com/{owner}/{found[2]}/issues/{found[3]}" if owner else ""


def link_threads(text):
    """Return text with each thread that is known as a link."""

    def link(match):
        address = thread(match[0])
        return f'<a href="{address}">{match[0]}</a>' if address else match[0]

    return CITED.sub(link, text)


def terms():
    """Return the terms of the glossary."""
    text = (DOCS / "glossary.md").read_text(encoding="utf-8").split("```{glossary}\n")[1]
    found = re.findall(r"^(\S.*)\n  \S", text, re.M)
    return [term.strip("`") for term in found if term.strip("`") not in NOT_LINKED]


def targets():
    """Return where each function and each term is explained, from the root of the site."""
    found = {term: f"glossary.html#term-{term.replace(' ', '-')}" for term in terms()}
    for name in mlmtutor.__all__:
        if module := getattr(getattr(mlmtutor, name), "__module__", None):
            found[name] = f"api.html#{module}.{name}"
    return found


def link_words(text, wanted, root):
    """Return Markdown in which each word of ``wanted`` is a link where it first stands.

    What became a link is taken out of ``wanted``, so that the next call leaves it alone.
    """
    terms = [word for word in wanted if wanted[word].startswith("glossary") and "_" not in word]
    words = re.compile(rf"\b({'|'.join(map(re.escape, terms))})\b") if terms else None

    def link(word, shown):
        return f'<a href="{root}{wanted.pop(word)}">{shown}</a>' if word in wanted else shown

    def outside(part):
        part = link_threads(part)
        pieces = re.split(r"(<a .*?</a>)", part) if words else [part]
        return "".join(
            piece if piece.startswith("<a ") or not words
            else words.sub(lambda match: link(match[0], match[0]), piece)
            for piece in pieces
        )  # fmt: skip

    def inside(part):
        name = part.strip("`")
        if part.startswith("```") or not part.startswith("`"):
            return part
        if address := thread(name):
            return f'<a href="{address}">{name}</a>'
        shown = f"<code>{html.escape(name, quote=False)}</code>"
        return link(name, shown) if name in wanted else part

    done, parts = 0, []
    for match in PROTECTED.finditer(text):
        parts += [outside(text[done : match.start()]), inside(match[0])]
        done = match.end()
    return "".join([*parts, outside(text[done:])])


def prompts(cell):
    """Say in a cell's own words what a click opens."""
    tags = cell["metadata"].get("tags", [])
    if "solution" in tags:
        what = "the solution"
        cell["metadata"]["tags"] = [t for t in tags if not t.startswith("hide-")] + ["hide-cell"]
    elif "proof" in tags:
        what = "the proof"
    elif "hide-output" in tags:
        what = None
    else:
        return
    show, hide = (f"Show {what}", f"Hide {what}") if what else ("I have decided: show", "Hide it")
    cell["metadata"]["mystnb"] = {"code_prompt_show": show, "code_prompt_hide": hide}


def link_cases(stem, cells):
    """Put a line for each case of the explorer at the end of the sections that show it."""
    for case in presets():
        for heading in (heading for lesson, heading in places(case) if lesson == stem):
            sources = ["".join(cell["source"]) for cell in cells]
            start = next(i for i, text in enumerate(sources) if text.startswith(f"## {heading}\n"))
            heads = (i for i, text in enumerate(sources) if i > start and re.match("##+ ", text))
            end = next(i for i in heads if cells[i]["cell_type"] == "markdown")
            line = f"Try it: [{case['title']}](#{case['id']}), in the explorer."
            name = f"{case['id']}-{end}"
            cells.insert(end, {"cell_type": "markdown", "id": name, "metadata": {}, "source": line})


def page(docname, notebook):
    """Return the JSON of a lesson as the site shows it."""
    content = json.loads(notebook)
    stem = docname.removeprefix("lessons/")
    root = "../" * docname.count("/")
    cells = content["cells"]
    wanted = targets()
    for cell in cells:
        tags = cell["metadata"].get("tags", [])
        if cell["cell_type"] == "code":
            prompts(cell)
            continue
        text = "".join(cell["source"]).replace("](questions.md)", f"]({root}questions.md)")
        text = text.replace(
            "build the site with `make site`: its explorer",
            f"open [the explorer]({root}explorer.md): it",
        )
        if "practice" in tags or "quiz" in tags:
            text = NAVIGATION.sub("", link_threads(text))
        else:
            text = link_words(text, wanted, root)
        if "about" in tags:
            text += (
                "\n\n<small>You read stored outputs here. To run the lesson, "
                f"[get the project and call `make lab`]({root}reading.md)."
            )
            if stem.startswith("deeper/"):
                [core] = lessons.NOTEBOOKS.glob(f"{stem[7:9]}_*.ipynb")
                title = lessons.title(lessons.read(core))
                text += f" It goes one level deeper than [{stem[7:9]} {title}](../{core.name})."
            text += "</small>"
        cell["source"] = text
    link_cases(stem, cells)
    content["cells"] = cells
    return json.dumps(content)
