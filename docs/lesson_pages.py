"""What the site adds to a lesson: links to terms, functions and threads, cases, and how to run it.

The lessons are written for JupyterLab. ``docs/conf.py`` passes the JSON of each one through
:func:`page` while Sphinx reads it; nothing is written back.
"""

import functools
import html
import json
import pathlib
import posixpath
import re

from docutils.nodes import make_id
from explorer_page import places

import mlmtutor
from mlmtutor._messages import translated
from tools import lessons, translate
from tools.explorer import presets

DOCS = lessons.NOTEBOOKS.parent / "docs"
# The pages of the Chinese edition. Their links to all others lead to the English site.
CHINESE = {pathlib.Path(page).stem for page in translate.PAGES if page.startswith("docs/")}
CHINESE |= {f"lessons/{path.stem}" for path in lessons.lesson_paths()[: translate.TRANSLATED]}
CHINESE |= {"search"}
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
LINK = re.compile(r"\[((?:[^][]|\[[^][]*\])*)\]\(([^()\s#:]+)\.(?:md|ipynb)(#[^()\s]*)?\)")
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


def here(docname):
    """Return whether a page is part of the edition that is built."""
    return translate.LANGUAGE == "en" or docname in CHINESE


@functools.cache
def english_anchors(docname):
    """Return the fragments of the English headings of a lesson, by those of its own headings."""
    place = docname.removeprefix("lessons/") + ".ipynb"
    folders = lessons.NOTEBOOKS, lessons.ROOT / "notebooks"
    if not (folders[0] / place).exists():
        return {}
    own, english = (translate.anchors(lessons.read(folder / place)) for folder in folders)
    return dict(zip(own, english, strict=True))


def to_english(text, docname):
    """Return text whose links to pages that are not here lead to the English site, and say so."""
    root, folder = "../" * docname.count("/"), posixpath.dirname(docname)

    def target(name):
        return posixpath.normpath(posixpath.join(folder, name))

    def link(match):
        shown, name, fragment = match.groups(default="")
        if here(page := target(name)):
            return match[0]
        if fragment:
            fragment = f"#{make_id(english_anchors(page).get(fragment[1:], fragment[1:]))}"
        return f'<a href="{name}.html{fragment}">{shown}</a>'

    def lead(match):
        page = target(match[1])
        return match[0] if here(page) else f'<a hreflang="en" href="{root}../{page}.html'

    return re.sub(r'<a href="([^":#]+)\.html', lead, LINK.sub(link, text))


def targets():
    """Return where each function and each term is explained, from the root of the site."""
    text = (DOCS / "glossary.md").read_text(encoding="utf-8").split("```{glossary}\n")[1]
    found = {}
    for term in re.findall(r"^`?([^\s`].*?)`?\n  \S", text, re.M):
        word, _, english = term.rstrip("）").partition("（")
        name = english or word  # without an English name Sphinx gives it a number
        if name.isascii() and name not in NOT_LINKED:
            found[word] = f"glossary.html#term-{name.replace(' ', '-')}"
    for name in mlmtutor.__all__:
        if module := getattr(getattr(mlmtutor, name), "__module__", None):
            found[name] = f"api.html#{module}.{name}"
    return found


def link_words(text, wanted, root):
    """Return Markdown in which each word of ``wanted`` is a link where it first stands.

    What became a link is taken out of ``wanted``, so that the next call leaves it alone.
    """
    terms = [word for word in wanted if wanted[word].startswith("glossary") and "_" not in word]
    alone = rf"(?<![A-Za-z0-9_])({'|'.join(map(re.escape, terms))})(?![A-Za-z0-9_])"
    words = re.compile(alone) if terms else None

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
        show, hide = translated("Show the solution"), translated("Hide the solution")
        cell["metadata"]["tags"] = [t for t in tags if not t.startswith("hide-")] + ["hide-cell"]
    elif "proof" in tags:
        show, hide = translated("Show the proof"), translated("Hide the proof")
    elif "hide-output" in tags:
        show, hide = translated("I have decided: show"), translated("Hide it")
    else:
        return
    cell["metadata"]["mystnb"] = {"code_prompt_show": show, "code_prompt_hide": hide}


def link_cases(docname, cells):
    """Put a line for each case of the explorer at the end of the sections that show it."""
    known, stem = english_anchors(docname), docname.removeprefix("lessons/")
    page = "" if here("explorer") else f"{'../' * docname.count('/')}explorer.md"
    for case in presets():
        for heading in (heading for lesson, heading in places(case) if lesson == stem):
            sources = ["".join(cell["source"]) for cell in cells]
            heads = [(i, m[1]) for i, t in enumerate(sources) if (m := re.match("##+ (.+)", t))]
            asked = lessons.anchor(heading)
            start = next(i for i, own in heads if known.get(lessons.anchor(own)) == asked)
            end = next(i for i, _ in heads if i > start and cells[i]["cell_type"] == "markdown")
            link = f"[{translated(case['title'])}]({page}#{case['id']})"
            line = to_english(translated("Try it: {0}, in the explorer.").format(link), docname)
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
            translated("build the site with `make site`: its explorer"),
            translated("open [the explorer]({0}): it").format(f"{root}explorer.md"),
        )
        if "practice" in tags:
            text = link_threads(text).rpartition("\n\n")[0]  # the theme has what leads on
        elif "quiz" in tags:
            text = link_threads(text)
        else:
            text = link_words(text, wanted, root)
        if "about" in tags:
            how = translated(
                "You read stored outputs here. To run the lesson, "
                "[get the project and call `make lab`]({0})."
            ).format(f"{root}reading.md")
            text += f"\n\n<small>{how}"
            if stem.startswith("deeper/"):
                [core] = lessons.NOTEBOOKS.glob(f"{stem[7:9]}_*.ipynb")
                title = lessons.title(lessons.read(core))
                text += f" It goes one level deeper than [{stem[7:9]} {title}](../{core.name})."
            text += "</small>"
        cell["source"] = to_english(text, docname)
    link_cases(docname, cells)
    content["cells"] = cells
    return json.dumps(content)
