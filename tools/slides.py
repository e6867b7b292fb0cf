"""Make slides from the lessons, with reveal.js, for a browser without a network.

    python -m tools.slides    every lesson, to build/slides/

With MLMTUTOR_NOTEBOOKS=build/zh/notebooks the slides are Chinese, in build/zh/slides/.

A deck has a title, one slide for each exercise, and the summary. Between them stand, in the order
of the lesson, the tables in text cells tagged ``slide``, and the code cells tagged ``slide`` or
``figure``:

- what is asked, with the text in front of it for which there is room;
- the code without its assertions, and before it the statements that bind what it uses and that no
  earlier slide has shown; a figure stands without code;
- one step later what it prints, and one step later the sentence that reads it.

Nothing is made smaller than can be read from the back of a room: what doesn't fit is shown in
turns, one behind the other, on the same slide (slides.js). The notes hold the text around the
code, and the answer to a **Predict**. Press S to see them. reveal.js comes from the package
sphinx-revealjs; its fonts and themes are not used.
"""

import ast
import builtins
import contextlib
import dataclasses
import html
import itertools
import os
import pathlib
import re
import shutil
import subprocess
import sys
import textwrap

import sphinx_revealjs
from markdown_it import MarkdownIt
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

from mlmtutor._messages import translated
from tools.lessons import BUILD, GENERATED, ROOT, lesson_paths, read, tags, title
from tools.translate import LANGUAGE, TRANSLATED

os.environ["MLMTUTOR_LANG"] = LANGUAGE

COLUMNS = 88  # characters of a line of code
LINES = 20  # lines of code beside each other on one turn
# Bytes of text, so that a Chinese character, which is wide, counts for three letters.
ROOM = 600  # on a slide for what is asked and the text in front of it
BESIDE = 160  # what a figure leaves room for
REVEAL = pathlib.Path(sphinx_revealjs.__file__).parent / "_static" / "revealjs"
FILES = ["dist/reset.css", "dist/reveal.css", "dist/reveal.js", "plugin/notes/notes.js", "LICENSE"]
STYLE = "github-light-high-contrast"

EXERCISE = re.compile(r"### (\w+ \d) ?[(（](\w+)(?:, |，)(\d+ \w+)[)）]")
MARKDOWN = MarkdownIt("commonmark", {"html": False}).enable("table")
PAGE = """<!doctype html>
<html lang="{lang}">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="stylesheet" href="reveal/reset.css">
<link rel="stylesheet" href="reveal/reveal.css">
<link rel="stylesheet" href="slides.css">
<link rel="icon" href="data:,">
</head>
{body}
</html>
"""
DECK = """<body>
<div class="reveal"><div class="slides">
{slides}
</div></div>
<script src="reveal/reveal.js"></script>
<script src="reveal/notes.js"></script>
<script src="slides.js"></script>
</body>"""
INDEX = """<body class="index">
<main>
<h1>{title}</h1>
<p>{keys}</p>
<ul>
{items}
</ul>
</main>
</body>"""


@dataclasses.dataclass
class Slide:
    """What a slide shows and says: texts in Markdown, code, and the stored outputs of a cell."""

    kind: str  # title, table, code, figure, exercise or summary
    heading: str
    asks: str = ""
    code: list[str] = dataclasses.field(default_factory=list)  # what it needs, and the code of it
    outputs: list = dataclasses.field(default_factory=list)
    reads: str = ""
    notes: str = ""


def predict():
    """Return the words that a question to the reader begins with."""
    return translated("**Predict.**")


def paragraphs(text):
    """Return the paragraphs, lists, tables and blocks of code of a text, without its headings."""
    text = re.sub(r"^#+ [^\n]*|<details>.*?</details>", "", text, flags=re.M | re.S)
    return [part.strip() for part in re.split(r"\n\n+", text) if part.strip()]


def aloud(text):
    """Return a text without what nobody reads aloud: threads, and links to other lessons."""
    found = r" \([^()]*(?:\w#\d|arXiv|forum)[^()]*\)|[ ]\(\[[^]]*\]\([^)]*\)\)"
    text = re.sub(rf"{found}|（[^（）]*(?:\w#\d|arXiv)[^（）]*）|（\[[^]]*\]\([^)]*\)）", "", text)
    return re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", text)


def first_sentence(paragraph):
    """Return the first sentence of a paragraph, unless it leads to something that follows it."""
    if not paragraph or paragraph.startswith(("- ", "| ", "#", "```", "<", predict())):
        return ""
    end = r"(?<=[.:?])\s+(?=[A-Z`\"(*])|(?<=[。？])(?=[^*）”])"
    sentence = re.split(end, paragraph)[0].replace("\n", " ")
    return "" if sentence.endswith((":", "：")) else aloud(sentence)


def asked(text):
    """Return the question of a text with what stands before it, and what answers it, if it does."""
    parts = paragraphs(text)
    predicts = [n for n, part in enumerate(parts) if part.startswith(predict())]
    end = predicts[-1] + 1 if predicts else len(parts)
    start = end
    while start and len("".join(parts[start - 1 : end]).encode()) <= ROOM:
        start -= 1
    return aloud("\n\n".join(parts[start:end])), "".join(parts[end : end + 1])


def statements(source):
    """Return the top-level statements of a cell, without assertions, each with its own text."""
    nested = re.sub(r"^ +assert .*\n?", "", source, flags=re.M)
    with contextlib.suppress(SyntaxError):  # a block of assertions alone stays
        ast.parse(nested)
        source = nested
    body = [n for n in ast.parse(source).body if ast.Assert not in map(type, ast.walk(n))]
    return [(n, ast.get_source_segment(source, n)) for n in body]


def bound(node):
    """Return the names that a statement binds."""
    names = set()
    for part in ast.walk(node):
        if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store):
            names.add(part.id)
        elif isinstance(part, ast.alias):
            names.add((part.asname or part.name).split(".")[0])
        else:  # a function, a class or an error that is caught
            names.add(getattr(part, "name", None))
    return names


def used(node):
    """Return the names that a statement reads from the outside."""
    parts = list(ast.walk(node))
    names = {n.id for n in parts if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
    own = {argument.arg for argument in parts if isinstance(argument, ast.arg)}
    return names - own - set(dir(builtins)) - bound(node)


def changed(node):
    """Return the names that a statement binds or whose object it changes, as ``x[0] = 1``."""
    parts = [part for part in ast.walk(node) if isinstance(getattr(part, "ctx", None), ast.Store)]
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        parts += [node.value.func] * isinstance(node.value.func, ast.Attribute)
    names = bound(node)
    for part in parts:
        while not isinstance(part, ast.Name | None):
            part = getattr(part, "value", None) or getattr(part, "func", None)
        names |= {part.id} if part else set()
    return names


def needed(names, earlier, shown):
    """Return the texts of earlier statements that these names need and that no slide has shown."""
    texts, names = [], set(names)
    for node, text in reversed(earlier):
        if names & changed(node):
            names = (names - bound(node)) | used(node)
            if text not in shown and not isinstance(node, ast.Import | ast.ImportFrom):
                texts.insert(0, text)
    return texts


def wrapped(source):
    """Return code whose lines fit the slide: formatted again where one is too long."""
    if max(map(len, source.splitlines()), default=0) <= COLUMNS:
        return source
    command = [sys.executable, "-m", "ruff", "format", f"--line-length={COLUMNS}", "-"]
    done = subprocess.run(command, input=source, capture_output=True, text=True, check=True)
    return re.sub(r"\n{3,}", "\n\n", done.stdout.rstrip())


def printed(item):
    """Return what a cell printed, with the lines that are too long cut into several."""
    text = item.get("text") or item.get("data", {}).get("text/plain")
    lines = (text or f"{item.ename}: {item.evalue}").rstrip().splitlines()
    cut = {"subsequent_indent": "    ", "drop_whitespace": False}
    return "\n".join("\n".join(textwrap.wrap(line, COLUMNS, **cut)) for line in lines)


def seen(cell, after, heading, text):
    """Return the slide of a cell, without its code, and the paragraph that reads what it shows."""
    kind = "figure" if "figure" in tags(cell) else "code"
    asks, reading = asked(text)
    slide = Slide(kind, heading, asks, outputs=cell.outputs, notes=text)
    if kind == "figure":  # it shows what its cell prints, and needs the room
        prints = [item for item in cell.outputs if item.output_type == "stream"]
        slide.outputs = [item for item in cell.outputs if item not in prints]
        slide.notes += "".join(f"\n\n```\n{printed(item)}\n```" for item in prints)
    read_after = predict() in asks or (kind == "code" and cell.outputs)
    if not reading and read_after and after.cell_type == "markdown":
        reading = after.source.split("\n\n")[0]
    slide.reads = first_sentence(reading)
    if not slide.reads:
        return slide, ""
    answer = translated("Answer: ") if predict() in asks else ""
    slide.notes += f"\n\n{answer}{reading}"
    return slide, reading


def deck(notebook):
    """Return the slides of a lesson."""
    head, about = (cell.source for cell in notebook.cells[:2])
    slides = [Slide("title", title(notebook), "\n\n".join(paragraphs(head)), notes=about)]
    heading, text, earlier, shown, reading = "", "", [], set(), ""
    for cell, after in itertools.pairwise(notebook.cells[2:]):
        marks, source = {*tags(cell)}, cell.source
        if GENERATED & marks or {"exercise", "solution"} & marks:
            continue
        if cell.cell_type == "markdown":
            if found := re.search(r"^##+ (.+)$", source, re.M):
                slides[-1].notes += text  # no slide came to take it
                heading, text = found[1], ""
            if found := EXERCISE.match(source):
                name, level, time = found.groups()
                stub = [statements(after.source)[0][1]]
                slide = Slide("exercise", f"{name} · {time}", code=stub, notes=level)
            elif heading == translated("Summary"):
                slide = Slide("summary", heading)
            else:
                slide, text = None, text + "\n\n" + source.removeprefix(reading)
            if slide:
                slide.asks = "\n\n".join(paragraphs(source))
                slides.append(slide)
            elif "slide" in marks and "\n| ---" in source:
                before, table, rest = re.split(r"((?:^\|.*\n?)+)", text, maxsplit=1, flags=re.M)
                asks = aloud("\n\n".join([*paragraphs(before)[-1:], table]))
                slides.append(Slide("table", heading, asks, notes=before + table))
                text = rest
            reading = ""
            continue
        code = statements(source)
        if {"slide", "figure"} & marks:
            slide, reading = seen(cell, after, heading, text)
            if slide.kind == "code":
                names = {name for node, _ in code for name in used(node)}
                texts = needed(names, earlier, shown), [part for _, part in code]
                shown |= {part for some in texts for part in some}
                slide.code = [wrapped("\n".join(some)) for some in texts if some]
            slides.append(slide)
            text = ""
        elif "proof" not in marks:  # what leads to code that is on no slide is left out
            text = re.sub(r"[^.?!。？\n]*[:：]\s*$", "", text)
        earlier += code
    return slides


def section(slide, name):
    """Return the HTML of a slide: the parts that stand together where they fit, and its notes."""
    above = MARKDOWN.render(slide.asks)
    beside = predict() not in slide.asks and len(slide.asks.encode()) < BESIDE
    beside &= slide.kind == "figure"
    parts = [above] if above and not beside else []
    formatter = HtmlFormatter(cssclass="code", style=STYLE)
    boxes = [highlight(source, PythonLexer(), formatter) for source in slide.code]
    long = sum(source.count("\n") for source in slide.code) > LINES
    parts += boxes if long else ["".join(boxes)] * bool(boxes)
    parts = [f'<div class="part">{part}</div>' for part in parts]
    drawn = above * beside
    for item in slide.outputs:
        if figure := item.get("data", {}).get("text/html"):
            drawn += f'<div class="drawn">{figure}</div>'
        else:
            drawn += f'<pre class="{item.output_type}">{html.escape(printed(item))}</pre>'
    if slide.reads:
        drawn += f'<div class="fragment reads">{MARKDOWN.render(slide.reads)}</div>'
    if drawn:
        parts.append(f'<div class="part{" fragment" * bool(parts)}">{drawn}</div>')
    asks = MARKDOWN.renderInline(predict())
    body = "".join(parts).replace(f"<p>{asks}", f'<p class="predict">{asks}')
    level = "h1" if slide.kind == "title" else "h2"
    notes = MARKDOWN.render("\n\n".join(paragraphs(slide.notes)))
    return (
        f'<section class="{slide.kind}"><{level}>{MARKDOWN.renderInline(slide.heading)}</{level}>'
        f'<div class="fit">{body}</div><p class="lesson">{name}</p>'
        f'<aside class="notes">{notes}</aside></section>'
    )


def build(out):
    """Write a page for each lesson, and the list of them; return its entries."""
    shutil.rmtree(out, ignore_errors=True)  # stale files of lessons that were renamed
    (out / "reveal").mkdir(parents=True)
    for file in FILES:
        shutil.copy(REVEAL / file, out / "reveal")
    colours = HtmlFormatter(style=STYLE).get_style_defs(".code")
    layout = (ROOT / "tools" / "slides.css").read_text("utf-8")
    (out / "slides.css").write_text(f"{layout}\n{colours}\n", "utf-8")
    shutil.copy(ROOT / "tools" / "slides.js", out)
    items, lang = [], LANGUAGE.replace("_", "-")
    for path in lesson_paths()[1 : None if LANGUAGE == "en" else TRANSLATED]:
        notebook = read(path)
        called, slides = html.escape(title(notebook)), deck(notebook)
        name = f"{path.stem[:2]} {called}"
        body = DECK.format(slides="\n".join(section(slide, name) for slide in slides))
        page = PAGE.format(title=called, body=body, lang=lang)
        (out / f"{path.stem}.html").write_text(page, "utf-8")
        count = translated("{0} slides").format(len(slides))
        items.append(f'<li><a href="{path.stem}.html">{name}</a>, {count}</li>')
    called = translated("Slides")
    keys = translated(
        "Arrow keys or space turn the slides. S opens the speaker notes, F fills the screen, "
        "O shows all slides, B makes the screen black."
    )
    body = INDEX.format(title=called, keys=keys, items="\n".join(items))
    index = PAGE.format(title=called, body=body, lang=lang)
    (out / "index.html").write_text(index, "utf-8")
    return items


def main():
    """Make the slides."""
    out = BUILD / "slides"
    print(f"{len(build(out))} decks: open {out / 'index.html'}")


if __name__ == "__main__":
    main()
