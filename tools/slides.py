"""Make slides from the lessons, with reveal.js, for a browser without a network.

    python -m tools.slides    every lesson that has slides, to build/slides/

A slide is a cell that is tagged ``slide``. What it shows follows from the cell:

- text: the heading, the tables, the lists and the paragraphs with something in bold, and as many
  other paragraphs as there is room for; a last sentence that announces a cell without a slide
  goes to the notes
- code: the question that stands above it, the code, wrapped where its lines are long, and, one
  step later, what it prints; code that would leave no room for what it prints stays out

The speaker notes hold what is left out, and the text from here to the next slide. Press S to see
them. reveal.js comes from the package sphinx-revealjs; its fonts and themes are not used.
"""

import html
import importlib.util
import pathlib
import re
import shutil
import subprocess
import sys
import textwrap

import nbformat
from markdown_it import MarkdownIt
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

ROOT = pathlib.Path(__file__).resolve().parent.parent
WIDTH, HEIGHT = 1280, 720  # pixels of a slide; reveal.js scales it to the screen
ROOM = 1120  # pixels of a slide for a line of code or a table
LARGEST, SMALLEST = 28, 18  # font sizes of code and output, in pixels
COLUMNS = 76  # characters of a line of code or output
LONG_TEXT = 520  # characters on a text slide
HEADING, QUESTION, BOX = 150, 62, 36  # heights: what is above and below, a line, a frame
FIGURE = 560  # height of a figure with its caption
GAP, ROW = 17, 9  # pixels between two columns and two rows of an alignment table
FILES = ["dist/reset.css", "dist/reveal.css", "dist/reveal.js", "plugin/notes/notes.js", "LICENSE"]
STYLE = "github-light-high-contrast"

MARKDOWN = MarkdownIt("commonmark", {"html": False}).enable("table")
PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="stylesheet" href="reveal/reset.css">
<link rel="stylesheet" href="reveal/reveal.css">
<link rel="stylesheet" href="slides.css">
<link rel="icon" href="data:,">
</head>
<body>
<div class="reveal"><div class="slides">
{slides}
</div></div>
<script src="reveal/reveal.js"></script>
<script src="reveal/notes.js"></script>
<script>
Reveal.initialize({{
  width: {width}, height: {height}, margin: 0, center: false, hash: true, transition: "none",
  slideNumber: "c/t", maxScale: 3, plugins: [RevealNotes]
}});
</script>
</body>
</html>
"""
INDEX = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Slides</title>
<link rel="stylesheet" href="slides.css">
<link rel="icon" href="data:,">
</head>
<body class="index">
<main>
<h1>Slides</h1>
<p>Arrow keys or space turn the slides. S opens the speaker notes, F fills the screen,
O shows all slides, B makes the screen black.</p>
<ul>
{items}
</ul>
</main>
</body>
</html>
"""


def reveal_folder():
    """Return the folder of reveal.js inside the package that carries it."""
    found = importlib.util.find_spec("sphinx_revealjs")
    if found is None:
        raise SystemExit(
            "slides: reveal.js comes from the package sphinx-revealjs, which is not installed. "
            "Call: make setup"
        )
    return pathlib.Path(found.origin).parent / "_static" / "revealjs"


def tags(cell):
    """Return the tags of a cell."""
    return cell.metadata.get("tags", [])


def render(text):
    """Return HTML of Markdown."""
    return MARKDOWN.render(text)


def prediction(text):
    """Return the paragraph that asks the reader to predict, or an empty text."""
    found = [p for p in text.split("\n\n") if p.startswith("**Predict.**")]
    return found[-1] if found else ""


def short(text, announces):
    """Return what a slide shows of a Markdown text, and what is left for the notes.

    ``announces``: the cell that the text leads to is a slide, so a last sentence that ends with a
    colon has its place.
    """
    heading, _, body = text.partition("\n")
    paragraphs = [p for p in body.strip().split("\n\n") if p]
    left = []
    if paragraphs and paragraphs[-1].endswith(":") and not announces:
        kept, _, last = paragraphs.pop().rpartition(". ")
        left = [last]
        paragraphs += [f"{kept}."] if kept else []
    needed = [p for p in paragraphs if "**" in p or p.startswith(("- ", "| "))]
    room = LONG_TEXT - sum(map(len, needed))
    shown = []
    for paragraph in paragraphs:
        if paragraph in needed or len(paragraph) <= room:
            shown.append(paragraph)
            room -= 0 if paragraph in needed else len(paragraph)
        else:
            left.insert(0, paragraph)
            room = 0
    return "\n\n".join([heading, *shown]), "\n\n".join(left)


def wrapped(source):
    """Return code whose lines fit the slide: formatted again where one is too long."""
    if longest(source) <= COLUMNS:
        return source
    command = [sys.executable, "-m", "ruff", "format", f"--line-length={COLUMNS}", "-"]
    done = subprocess.run(command, input=source, capture_output=True, text=True, check=True)
    return done.stdout.rstrip()


def font_size(columns, gap=0):
    """Return the largest font in which columns of so many characters fit side by side.

    A character of the code font is 0.602 as wide as it is high; text in a table is narrower.
    """
    room = ROOM - gap * len(columns)
    return min(LARGEST, int(room / (0.602 * max(1, sum(columns)))))


def longest(text):
    """Return the length of the longest line."""
    return max(map(len, text.splitlines()), default=0)


def table(content):
    """Return an alignment table as large as its widest block allows, and its height in pixels."""
    sizes = []
    for block in re.findall(r"<table.*?</table>", content, re.S):
        rows = [
            [len(html.unescape(re.sub("<.*?>", "", cell))) for cell in re.split(r"</t[hd]>", row)]
            for row in re.findall(r"<tr.*?</tr>", block, re.S)
        ]
        sizes.append(font_size([max(column) for column in zip(*rows, strict=True)], GAP))
    lines = content.count("<tr") + content.count("<caption") + content.count("<p") + 1
    size = min(*sizes, int(((HEIGHT - HEADING) / lines - ROW) / 1.25))
    height = lines * (1.25 * size + ROW)
    return f'<div class="alignment" style="font-size:{size}px">{content}</div>', height


def printed(text):
    """Return text cut into lines that fit the slide."""
    return "\n".join(
        part for line in text.rstrip().splitlines() for part in textwrap.wrap(
            line, COLUMNS, subsequent_indent="    ", drop_whitespace=False
        ) or [""]
    )  # fmt: skip


def outputs(cell):
    """Return what a cell shows: HTML with its height, and texts with their kind."""
    drawn, height, texts = "", 0, []
    for item in cell.outputs:
        data = item.get("data", {})
        if "text/html" not in data:
            text = item.get("text") or data.get("text/plain") or f"{item.ename}: {item.evalue}"
            texts.append((item.output_type, printed(text)))
        elif "<table" in data["text/html"]:
            drawn, height = table(data["text/html"])
        else:
            drawn, height = data["text/html"], FIGURE
    return drawn, height, texts


def text_slide(cell, announces):
    """Return the body of a text slide, and the start of its notes."""
    shown, left = short(cell.source, announces)
    body = re.sub(
        r"<p>(<strong>Predict\.</strong>.*?)</p>", r'<p class="predict">\1</p>', render(shown)
    )
    return body, left


def code_slide(cell, section, above):
    """Return the body of a code slide: its section, the question above it, code, output.

    The code has the largest font that leaves room for the output, which gets what is left.
    """
    drawn, height, texts = outputs(cell)
    body = f"<h2>{section}</h2>"
    room = HEIGHT - HEADING - height - BOX * len(texts)
    if question := prediction(above):
        body += render(question).replace("<p>", '<p class="predict">', 1)
        room -= QUESTION * (1 + len(question) // 66)
    source = wrapped(cell.source)

    def largest(room, *parts):
        lines = sum(len(part.splitlines()) for part in parts)
        width = font_size([max(map(longest, parts), default=0)])
        return min(width, int(room / (1.3 * lines))) if lines else LARGEST

    printed_texts = [text for _, text in texts]
    size = largest(room - BOX, source, *printed_texts)
    if size >= SMALLEST:
        formatter = HtmlFormatter(cssclass="code", style=STYLE, prestyles=f"font-size:{size}px")
        body += highlight(source, PythonLexer(), formatter)
        room -= BOX + 1.3 * size * len(source.splitlines())
    size = largest(room, *printed_texts)
    shown = "".join(
        f'<pre class="{kind}" style="font-size:{size}px">{html.escape(text)}</pre>'
        for kind, text in texts
    )
    if shown or drawn:
        body += f'<div class="fragment">{shown}{drawn}</div>'
    return body


def deck(notebook):
    """Return the slides of a lesson as pairs: the body, and the Markdown of its notes."""
    slides, section, above = [], "", ""
    for cell, after in zip(notebook.cells, [*notebook.cells[1:], None], strict=True):
        is_text = cell.cell_type == "markdown"
        heading = re.search(r"^##? (.+)$", cell.source, re.M) if is_text else None
        if heading:
            section = MARKDOWN.renderInline(heading.group(1))
        if "slide" in tags(cell):
            if is_text:
                body, left = text_slide(cell, after is not None and "slide" in tags(after))
                slides.append([body, left])
            else:
                slides.append([code_slide(cell, section, above), ""])
        elif is_text and slides and not re.match(r"##|<details>|\[", cell.source):
            slides[-1][1] += "\n\n" + cell.source
        if is_text or "slide" in tags(cell):
            above = "" if "slide" in tags(cell) else cell.source
    return slides


def page(notebook, name):
    """Return the HTML of a deck."""
    title = re.search(r"^# (.+)$", notebook.cells[0].source, re.M).group(1)
    sections = []
    for number, (body, notes) in enumerate(deck(notebook)):
        kind = "title" if number == 0 else "plain"
        aside = f'<aside class="notes">{render(notes.strip())}</aside>' if notes.strip() else ""
        lesson = f'<p class="lesson">{name[:2]} {html.escape(title)}</p>' if number else ""
        sections.append(f'<section class="{kind}">{body}{lesson}{aside}</section>')
    return PAGE.format(
        title=html.escape(title), slides="\n".join(sections), width=WIDTH, height=HEIGHT
    )


def build(out):
    """Write a page for each lesson that has slides, and the list of them; return their names."""
    shutil.rmtree(out, ignore_errors=True)  # stale files of lessons that were renamed
    (out / "reveal").mkdir(parents=True)
    for file in FILES:
        shutil.copy(reveal_folder() / file, out / "reveal")
    colours = HtmlFormatter(style=STYLE).get_style_defs(".code")
    layout = (ROOT / "tools" / "slides.css").read_text("utf-8")
    (out / "slides.css").write_text(f"{layout}\n{colours}\n", encoding="utf-8", newline="\n")
    items, names = [], []
    for path in sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        count = len(deck(notebook))
        if not count:
            continue
        text = page(notebook, path.stem)
        (out / f"{path.stem}.html").write_text(text, encoding="utf-8", newline="\n")
        title = re.search(r"<title>(.*)</title>", text).group(1)
        name = f"{path.stem[:2]} {title}"
        items.append(f'<li><a href="{path.stem}.html">{name}</a>, {count} slides</li>')
        names.append(path.stem)
    (out / "index.html").write_text(INDEX.format(items="\n".join(items)), encoding="utf-8")
    return names


def main():
    """Make the slides."""
    out = ROOT / "build" / "slides"
    print(f"{len(build(out))} decks: open {out / 'index.html'}")


if __name__ == "__main__":
    main()
