"""Make slides from the lessons, with reveal.js, for a browser without a network.

    python -m tools.slides    every lesson, to build/slides/

A deck is made from the code cells that are tagged ``slide`` or ``figure``, in their order:

- the section, the question or the sentence above the code, and the code without its assertions;
  in front of it the statements that bind what it uses and that no earlier slide has shown;
- one step later what it prints, and one step later the sentence that reads it.

Before them stands the title, and behind them one slide for each exercise and one for the summary.
The notes hold the text between, and the answer to a **Predict**. Press S to see them. reveal.js
comes from the package sphinx-revealjs; its fonts and themes are not used.
"""

import ast
import builtins
import contextlib
import html
import importlib.util
import pathlib
import re
import shutil
import subprocess
import sys
import textwrap

from markdown_it import MarkdownIt
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

from tools.lessons import GENERATED, ROOT, lesson_paths, read, tags, title

WIDTH, HEIGHT = 1280, 720  # pixels of a slide; reveal.js scales it to the screen
ROOM = 1120  # pixels of a slide for a line of code or a table
LARGEST, SMALLEST = 28, 18  # font sizes of code and output, in pixels
COLUMNS = 76  # characters of a line of code or output
HEADING, QUESTION, BOX = 150, 62, 36  # heights: what is above and below, a line, a frame
FIGURE = 520  # height of a figure with its caption
GAP, ROW = 17, 9  # pixels between two columns and two rows of an alignment table
FILES = ["dist/reset.css", "dist/reveal.css", "dist/reveal.js", "plugin/notes/notes.js", "LICENSE"]
STYLE = "github-light-high-contrast"

EXERCISE = re.compile(r"### (Exercise \d) \((\w+), (\d+ minutes)\)\n+(.*)", re.S)
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
function fit() {{  // what is too large for its slide becomes smaller as a whole
  const box = Reveal.getCurrentSlide().querySelector(".fit");
  box.style.zoom = 1;
  const over = Math.max(box.scrollHeight / {height_room}, box.scrollWidth / {width_room});
  if (over > 1) box.style.zoom = 1 / over;
}}
Reveal.on("ready", fit);
Reveal.on("slidechanged", fit);
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


def render(text):
    """Return HTML of Markdown."""
    return MARKDOWN.render(text)


def first_sentence(text):
    """Return the first sentence of a Markdown text, if it starts with one."""
    paragraph = text.strip().split("\n\n")[0]
    if paragraph.startswith(("- ", "| ", "#", "```", "<", "**Predict.**")):
        return ""
    sentence = re.split(r"(?<=[.:?])\s+(?=[A-Z`\"(])", paragraph)[0].replace("\n", " ")
    return "" if sentence.endswith(":") else sentence


def asked(text):
    """Return what a slide says above its code: the question, or the last sentence of the text."""
    paragraphs = [p for p in re.sub(r"^#+ .*$", "", text, flags=re.M).split("\n\n") if p.strip()]
    for paragraph in paragraphs:
        if paragraph.strip().startswith("**Predict.**"):
            return paragraph.strip()
    last = paragraphs[-1].strip() if paragraphs else ""
    return last if len(last) < 260 and not last.startswith(("- ", "|", "<", "```")) else ""


def statements(source):
    """Return the top-level statements of a cell, without assertions, each with its own text."""
    nested = re.sub(r"^ +assert .*\n?", "", source, flags=re.M)
    with contextlib.suppress(SyntaxError):  # a block of assertions alone stays
        ast.parse(nested)
        source = nested
    body = ast.parse(source).body
    return [(n, ast.get_source_segment(source, n)) for n in body if not isinstance(n, ast.Assert)]


def bound(node):
    """Return the names that a statement binds."""
    names = {getattr(node, "name", None)}
    for part in ast.walk(node):
        if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store):
            names.add(part.id)
        elif isinstance(part, ast.alias):
            names.add((part.asname or part.name).split(".")[0])
    return names


def used(node):
    """Return the names that a statement reads from the outside."""
    parts = list(ast.walk(node))
    names = {n.id for n in parts if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
    own = {argument.arg for argument in parts if isinstance(argument, ast.arg)}
    return names - own - set(dir(builtins)) - bound(node)


def needed(names, earlier, shown):
    """Return the texts of earlier statements that bind these names and stand on no slide yet."""
    texts, names = [], set(names)
    for node, text in reversed(earlier):
        if names & bound(node):
            names = (names - bound(node)) | used(node)
            if text not in shown and not isinstance(node, ast.Import | ast.ImportFrom):
                texts.insert(0, text)
    return texts


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
    size = max(SMALLEST, min(*sizes, int(((HEIGHT - HEADING) / lines - ROW) / 1.25)))
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


def highlighted(source, size):
    """Return HTML of code in a font of this size."""
    formatter = HtmlFormatter(cssclass="code", style=STYLE, prestyles=f"font-size:{size}px")
    return highlight(source, PythonLexer(), formatter)


def code_slide(section, above, source, cell, reads):
    """Return the body of a code slide: its section, what is asked, code, output, what it says.

    The code has the largest font that leaves room for the output, which gets what is left. Where
    both don't fit, the output takes the place of question and code.
    """
    drawn, height, texts = outputs(cell)
    printed_texts = [text for _, text in texts]
    source = "" if "figure" in tags(cell) else wrapped(source)
    kind = ' class="predict"' if above.startswith("**Predict.**") else ""
    head = f"<h2>{section}</h2>"
    question = render(above).replace("<p>", f"<p{kind}>", 1) if above else ""
    told = f'<div class="fragment reads">{render(reads)}</div>' if reads else ""
    free = HEIGHT - HEADING - BOX * len(texts) - 46 * (len(section) > 42)
    says = QUESTION * bool(reads) * (1 + len(reads) // 66)
    asks = QUESTION * bool(above) * (1 + len(above) // 66)

    def largest(room, *parts):
        lines = sum(len(part.splitlines()) for part in parts)
        width = font_size([max(map(longest, parts), default=0)])
        return max(SMALLEST - 4, min(width, int(room / (1.3 * lines)))) if lines else LARGEST

    def shown(size, step):
        body = "".join(
            f'<pre class="{kind}" style="font-size:{size}px">{html.escape(text)}</pre>'
            for kind, text in texts
        )
        return f'<div class="{step}">{body}{drawn}</div>' if body or drawn else ""

    size = largest(free - height - says - asks - BOX * bool(source), source, *printed_texts)
    if size >= SMALLEST and (not drawn or free - height - says - asks >= 0):
        code = highlighted(source, size) if source else ""
        room = free - height - says - asks - BOX - 1.3 * size * len(source.splitlines())
        step = "fragment" if source or above else "whole"
        return head + question + code + shown(largest(room, *printed_texts), step) + told
    first = highlighted(source, largest(HEIGHT - HEADING - BOX - asks, source)) if source else ""
    second = shown(largest(free - height - says, *printed_texts), "whole")
    return (
        f'{head}<div class="stack"><div class="fragment fade-out" data-fragment-index="0">'
        f'{question}{first}</div><div class="fragment" data-fragment-index="0">{second}</div></div>'
        f"{told}"
    )


def deck(notebook):
    """Return the slides of a lesson as pairs: the body, and the Markdown of its notes."""
    head, about = (cell.source for cell in notebook.cells[:2])
    slides, section, text, earlier, shown = [[render(head), about]], "", "", [], set()
    for cell, after in zip(notebook.cells, [*notebook.cells[1:], None], strict=True):
        if cell.cell_type == "markdown":
            heading = re.search(r"^##+ (.+)$", cell.source, re.M)
            if heading:
                section = MARKDOWN.renderInline(heading.group(1))
            if exercise := re.match(
                r"### (Exercise \d) \((\w+), (\d+ minutes)\)\n+(.*)", cell.source, re.S
            ):
                name, level, time, task = exercise.groups()
                stub = wrapped(statements(after.source)[0][1])
                stub = highlighted(stub, min(SMALLEST + 2, font_size([longest(stub)])))
                slides.append([f"<h2>{name}: {time}</h2>{render(task)}{stub}", f"It is {level}."])
            elif cell.source.startswith("## Summary"):
                slides.append([render(cell.source), ""])
            elif (heading and not GENERATED & {*tags(cell)}) or not heading:
                text += "\n\n" + cell.source
            continue
        if {"proof", "exercise", "solution"} & {*tags(cell)}:
            continue
        code_here = statements(cell.source)
        if {"slide", "figure"} & {*tags(cell)}:
            follows = after.source if after is not None and after.cell_type == "markdown" else ""
            reads, above = first_sentence(follows), asked(text)
            names = {name for node, _ in code_here for name in used(node)}
            code = [*needed(names, earlier, shown), *(part for _, part in code_here)]
            shown |= set(code)
            answer = f"Answer: {follows.split(chr(10) * 2)[0]}" if "**Predict.**" in above else ""
            if sum(len(part.splitlines()) for part in code) > 18:  # it would be too small to read
                code = [part for _, part in code_here]
            source = "\n".join(code)
            body = code_slide(section, above, source, cell, reads)
            slides.append([body, f"{text}\n\n{answer}"])
            text = ""
        earlier += code_here
    return slides


def page(notebook, name):
    """Return the HTML of a deck."""
    sections, called = [], html.escape(title(notebook))
    for number, (body, notes) in enumerate(deck(notebook)):
        kind = "title" if number == 0 else "plain"
        notes = re.sub(r"^#+ .*$|<details>.*?</details>", "", notes, flags=re.M | re.S).strip()
        aside = f'<aside class="notes">{render(notes)}</aside>' if notes else ""
        lesson = f'<p class="lesson">{name[:2]} {called}</p>' if number else ""
        sections.append(
            f'<section class="{kind}"><div class="fit">{body}</div>{lesson}{aside}</section>'
        )
    return PAGE.format(
        title=called, slides="\n".join(sections), width=WIDTH, height=HEIGHT,
        height_room=HEIGHT - 84, width_room=WIDTH - 118,
    )  # fmt: skip


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
    for path in lesson_paths()[1:]:
        notebook = read(path)
        text = page(notebook, path.stem)
        (out / f"{path.stem}.html").write_text(text, encoding="utf-8", newline="\n")
        name, count = f"{path.stem[:2]} {html.escape(title(notebook))}", len(deck(notebook))
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
