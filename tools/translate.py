"""Keep the Chinese edition in step with the English lessons.

    python -m tools.translate extract    count the texts, and how many have no translation
    python -m tools.translate update     bring the catalogs up to date with the English text
    python -m tools.translate build      make the Chinese lessons and pages in build/zh/

A text in ``locale/zh_CN/*.po`` is a line of Markdown without its marks: a paragraph, a heading, an
item, a cell of a table, a choice of the quiz. Or it is a caption, an alt text or the name of a row
of an output. Each text stands once, in the catalog of the first lesson or page that has it, so
that the title of a lesson reads the same in every link to it. Blocks of code are left alone.

``mlmtutor.po`` has what the package says to a learner, and the words around the lessons on the
site and on slides. Where a text depends on the answer, it is a template, with ``{0}`` for a value,
and a comment shows it filled. ``build`` compiles this catalog, with the captions and alt texts,
for the package.

``update`` keeps what still fits. The translation of a text that was changed is marked fuzzy, and
the text that it was made from stands beside it. ``build`` leaves a text in English when it has no
translation or a fuzzy one, and counts it. Links to headings lead to the translated headings.
"""

import argparse
import difflib
import html
import io
import posixpath
import re
from datetime import UTC, datetime

import nbformat
from babel.messages.catalog import Catalog, Message
from babel.messages.mofile import write_mo
from babel.messages.pofile import denormalize, read_po, write_po

from mlmtutor._messages import LOCALE as PACKAGED
from tools import atomic
from tools.lessons import BUILD, ROOT, all_paths, anchor, lesson_paths, read, tags
from tools.messages import said

LOCALE = ROOT / "locale" / "zh_CN"
OUT = ROOT / "build" / "zh"
PAGES = ["notebooks/questions.md", "docs/glossary.md", "docs/cheat_sheet.md", "README.md"]
PAGES += ["tools/student.md", "docs/index.md", "docs/questions.md"]
COMPILED = PACKAGED / "zh_CN" / "LC_MESSAGES" / "mlmtutor.mo"
TRANSLATED = 8  # the lessons that have a catalog: 00 to 07
LANGUAGE = "en" if BUILD == ROOT / "build" else "zh_CN"  # of what is made from MLMTUTOR_NOTEBOOKS
HEADER = r"""msgid ""
msgstr ""
"Project-Id-Version: mlmtutor\n"
"Language: zh_CN\n"
"MIME-Version: 1.0\n"
"Content-Type: text/plain; charset=utf-8\n"
"Content-Transfer-Encoding: 8bit\n"

"""

# A block of code, and what stands before the title of a page.
BLOCK = re.compile(r"(^```\w.*?^```$|\A---\n.*?^---$)", re.S | re.M)
# What stands around the texts of a line and is the same in every language: the marks of headings,
# items and choices, in a table the bars, and in a generated line also what makes its links.
MARKS = (
    r"^\s*(?:#+ |[-✓✗] |\d+\. |\*\*\d+\.\*\* )?|\s*$|</?(?:details|summary)>"
    r"|(?<=Predict\.\*\*) |(?<=minutes\.\*\*) "
)
BARS = rf"{MARKS}|\|"
LINKS = (
    rf"{BARS}|\[(?![A-Z]+\])(?:← )?(?:\d\d:? )?|(?: →)?\]\([^()]*\):?| [→·] |\*\*"
    r"|<small>.*?</small>|(?<=deeper): |(?<=Back to) \d\d |(?=\(\d+ minutes\))"
)
GENERATED = {"practice", "navigation", "lesson-table"}
LESSON_ROW = re.compile(r"\| (?:\d\d|↳) \[")
# What needs no translation where it stands alone.
WORDLESS = re.compile(r"^```.*|`[^`]*`|<[^>]*>|\[[A-Z]+\]|\]\([^)]*\)")
ROW = '<th scope="row"[^>]*>(?=(?:position|token|scored|✗ error)<)'
OUTPUT = re.compile(rf'(<(?:fig)?caption[^>]*>|<img alt="|{ROW})([^<]+?)(?=<|" style=)')


def documents():
    """Return where each lesson and page stands, with the name of its catalog or with None."""
    found = dict.fromkeys(all_paths())
    found |= {path: path.name[:2] for path in lesson_paths()[:TRANSLATED]}
    found |= {ROOT / page: (ROOT / page).stem for page in PAGES}
    return {path.relative_to(ROOT).as_posix(): name for path, name in found.items()}


def load(place):
    """Read a lesson; or a page, as a notebook of one cell."""
    path = ROOT / place
    if path.suffix == ".ipynb":
        return read(path)
    cell = nbformat.v4.new_markdown_cell(path.read_text(encoding="utf-8"), id=path.stem)
    cell.metadata["tags"] = ["practice"] if path.stem == "questions" else []
    return nbformat.v4.new_notebook(cells=[cell])


def dump(notebook, place):
    """Return what stands in the file that :func:`load` read."""
    if place.endswith(".ipynb"):
        return nbformat.writes(notebook).rstrip("\n") + "\n"
    return notebook.cells[0].source


def pieces(source, generated):
    """Yield the pieces of Markdown, which add up to it, each with whether it is a text."""
    for number, block in enumerate(BLOCK.split(source)):
        if number % 2:
            yield block, False
            continue
        for line in block.splitlines(keepends=True):
            table = BARS if line.startswith("|") else MARKS
            marks = LINKS if generated or LESSON_ROW.match(line) else table
            for index, piece in enumerate(re.split(rf"(\s*(?:{marks})\s*)", line)):
                yield piece, index % 2 == 0 and re.search("[A-Za-z]", WORDLESS.sub("", piece))


def rewrite(notebook, change):
    """Replace each text of a lesson or a page by ``change(text, id of the cell)``, in place."""
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            parts = pieces(cell.source, GENERATED & {*tags(cell)})
            cell.source = "".join(ask(change, p, cell.id) if text else p for p, text in parts)
        for output in cell.get("outputs", []):
            if "text/html" in output.get("data", {}):
                parts = OUTPUT.split(output.data["text/html"])  # every third is a text
                plain = [html.unescape(text) for text in parts[2::3]]
                parts[2::3] = [html.escape(ask(change, text, cell.id)) for text in plain]
                output.data["text/html"] = "".join(parts)


def ask(change, text, place):
    """Return what ``change`` makes of a text; a generated number of minutes is none of it."""
    minutes = re.search(r"(\d+) minutes", text)
    if not minutes:
        return change(text, place)
    return change(text.replace(minutes[0], "{n} minutes"), place).replace("{n}", minutes[1])


def extract():
    """Return today's messages without translations, by text, for each catalog by its name."""
    catalogs, found = {}, {}
    for document, name in documents().items():
        if name is None:
            continue
        messages = catalogs.setdefault(name, {})

        def add(text, place, messages=messages):
            if text not in found:
                found[text] = messages[text] = Message(text)
            if text in messages:
                messages[text].locations.append((place, None))
            return text

        rewrite(load(document), add)
    messages = catalogs["mlmtutor"] = {}
    for text, place, example in said():
        if text not in found:
            found[text] = messages[text] = Message(text, auto_comments=[example] if example else [])
        if text in messages and (place, None) not in messages[text].locations:
            messages[text].locations.append((place, None))
    return catalogs


def compiled(known, texts):
    """Return the translations that the package has: of its own ``texts``, and those of outputs."""
    texts = [*texts]
    for place in documents():
        for cell in load(place).cells:
            for output in cell.get("outputs", []):
                parts = OUTPUT.split(output.get("data", {}).get("text/html", ""))
                texts += map(html.unescape, parts[2::3])
    return {text: known[text] for text in sorted(set(texts)) if text in known}


def mo(messages):
    """Return the bytes of a compiled catalog: the same for the same messages."""
    long_ago = datetime(2026, 1, 1, tzinfo=UTC)
    catalog, file = Catalog("zh_CN", creation_date=long_ago, revision_date=long_ago), io.BytesIO()
    for text, string in messages.items():
        catalog[text] = Message(text, string)
    write_mo(file, catalog)
    return file.getvalue()


def stored():
    """Return the messages of all catalogs as they are stored, by text."""
    found = {}
    for path in sorted(LOCALE.glob("*.po")):
        with path.open("rb") as file:
            messages = [message for message in read_po(file) if message.id]
        for message in messages:
            # Babel writes the text before a change, and reads it as a comment.
            before = [c for c in message.user_comments if c.startswith("| msgid ")]
            message.previous_id = [denormalize(c.removeprefix("| msgid ")) for c in before]
            message.user_comments = [c for c in message.user_comments if c not in before]
            found[message.id] = message
    return found


def merge(catalogs, old):
    """Give the messages of catalogs the translations of ``old``."""
    today = {text for messages in catalogs.values() for text in messages}
    gone = [text for text, message in old.items() if message.string and text not in today]
    for messages in catalogs.values():
        for text, message in messages.items():
            close = [] if text in old else difflib.get_close_matches(text, gone, 1)
            if known := old.get(close[0] if close else text):
                message.string, message.user_comments = known.string, known.user_comments
                if (before := known.previous_id or close) != [text]:  # it isn't as it was
                    message.previous_id = before
                    message.flags |= known.flags | ({"fuzzy"} if close else set())


def po(messages):
    """Return the text of a catalog: the same for the same messages."""
    catalog, file = Catalog(), io.BytesIO()
    for message in messages.values():
        message.flags &= {"fuzzy"}  # Babel takes "15 % of" for a format of Python
        catalog[message.id] = message
    write_po(file, catalog, width=10**6, omit_header=True, include_previous=True)
    return HEADER + file.getvalue().decode().rstrip("\n") + "\n"


def translations():
    """Return the translations that hold, by text."""
    return {text: m.string for text, m in stored().items() if m.string and not m.fuzzy}


def translate(notebook, known):
    """Translate a lesson or a page in place; return its texts, and those that stay English."""
    texts, english = [], []

    def change(text, place):
        texts.append(text)
        if text not in known:
            english.append(text)
        return known.get(text, text)

    rewrite(notebook, change)
    return texts, english


def anchors(notebook):
    """Return what links to the headings of a notebook end in."""
    sources = [BLOCK.sub("", c.source) for c in notebook.cells if c.cell_type == "markdown"]
    return [anchor(found) for text in sources for found in re.findall(r"^#+ (.+)$", text, re.M)]


def build(known):
    """Return each lesson and page in Chinese, and the texts of each as ``translate`` does."""
    made, counts, renamed = {}, {}, {}
    for place in documents():
        notebook = made[place] = load(place)
        before = anchors(notebook)
        counts[place] = translate(notebook, known)
        renamed |= {(place, a): b for a, b in zip(before, anchors(notebook), strict=True)}
    for place, notebook in made.items():

        def link(found, place=place):
            target = posixpath.join(posixpath.dirname(place), found[1]) if found[1] else place
            target = posixpath.normpath(target).replace("docs/lessons/", "notebooks/")
            return f"]({found[1]}#{renamed.get((target, found[2]), found[2])})"

        for cell in notebook.cells:
            if cell.cell_type == "markdown":
                text = re.sub(r"\]\(([^()\s#]*)#([^()\s]+)\)", link, cell.source)
                text = re.sub(r"(?<=\)): (?=[\u3400-\u9fff])", "：", text)  # in generated lines
                cell.source = text.replace("。 （", "。（")
    return made, counts


def write(made, out):
    """Write what :func:`build` made into a folder."""
    for place, notebook in made.items():
        (out / place).parent.mkdir(parents=True, exist_ok=True)
        atomic.write(out / place, dump(notebook, place))


def main():
    """Do what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("command", choices=["extract", "update", "build"])
    command = parser.parse_args().command
    if command != "build":
        catalogs = extract()
        merge(catalogs, stored())
        for name, messages in catalogs.items():
            if command == "update":
                atomic.write(LOCALE / f"{name}.po", po(messages))
            empty = sum(not message.string for message in messages.values())
            fuzzy = sum(message.fuzzy for message in messages.values())
            print(f"{name}: {len(messages)} texts, {empty} empty, {fuzzy} fuzzy")
        return
    known = translations()
    texts = {text for text, *_ in said()}
    COMPILED.parent.mkdir(parents=True, exist_ok=True)
    atomic.write(COMPILED, mo(compiled(known, texts)))
    print(f"mlmtutor: {len(texts - known.keys())} of {len(texts)} texts stay English")
    made, counts = build(known)
    write(made, OUT)
    for place, name in documents().items():
        texts, english = counts[place]
        if name:
            print(f"{name}: {len(english)} of {len(texts)} texts stay English")


if __name__ == "__main__":
    main()
