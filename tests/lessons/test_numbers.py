"""Every number in the text of a lesson is printed or stands in a cell of the same section.

A number is a run of digits, with its sign, comma groups, decimals and percent sign, or a release
such as 2.4.0. Number words are not looked at. It is shown when a cell of its section prints it, or
has it in its code (comments, docstrings and the widths of formats do not count). A percentage may
also be shown as a fraction, or by a printed number that rounds to it.

- What stands above the first section, in a Summary or in "Where this goes wrong in practice" speaks
  of the whole lesson, and is looked for in all of it; so are the numbers of `CONSTANTS`.
- The options of a **Predict** are guesses: one of them has to be shown. What is said before the
  question is text as any other.
- Headings are questions, and the tables of the map are generated: neither is looked at.
- All others are listed in ``plain_numbers.toml``, each with the words around it and a reason.
"""

import ast
import re
import tomllib
from typing import NamedTuple

import nbformat
import pytest
import stored

from tools.lessons import GENERATED

LISTED = tomllib.loads(
    (stored.ROOT / "tests" / "lessons" / "plain_numbers.toml").read_text("utf-8")
)["plain"]
# ignore_index, [MASK], and BERT's rule: a lesson shows them once, and speaks of them everywhere.
CONSTANTS = {-100, 103, 0.15, 0.8, 0.1}
WHOLE = ("Summary", "Where this goes wrong")
NO_NUMBERS = [
    r"\[\d\d( deeper)?\]\([^)]*\)|\]\([^)]*\)",  # the link to a lesson; the target of another
    r"<summary>.*?</summary>|<[^>]*>",
    r"^#+ [^\n]*",  # a heading
    r"arXiv:[\d.]+(, section [\d.]+)?|discuss\.pytorch\.org \d+|\bforum \d+|[\w./-]+#\d+",  # a source
    r"[Ll]essons? \d\d(?:(?:,| and| to) \d\d)*|\b[Cc]ases? \d+(?:(?:,| and| to) \d+)*",
    r"\d+ minutes",
    r"^\d+\.\s",  # a numbered list
    r"\b(?:GPT-2|SHA-256|float32|d2l)\b|[\w/]+\.(?:ipynb|py)\b",  # a name
]
RELEASE = re.compile(r"(?<![\w.-])\d+\.\d+\.\d+(?![\w-]|\.\d)")
NUMBER = re.compile(
    r"(?<![\w.,-])[-−]?\d+(?:,\d{3})*(?:\.\d+)?(?:e-?\d+)?(?:\s?%)?(?![^\W²³]|[.,]\d)"
)
IN_CODE = re.compile(r"(?<![\w.])-?\d+(?:[_,]\d{3})*(?:\.\d+)?(?:e[+-]?\d+)?%?(?!\w|\.\d)")


class Statement(NamedTuple):
    """A number in a text: its section, its paragraph, and how it is written.

    The options of a question are one statement, written with " or " between them.
    """

    section: str
    paragraph: str
    number: str


def value(text):
    """Return the number that a text means; a release is its text."""
    if RELEASE.fullmatch(text):
        return text
    plain = text.replace(",", "").replace("_", "").replace("−", "-").rstrip("% \u00a0\u202f")
    return float(plain) / (100 if "%" in text else 1)


def plain(text):
    """Return a piece of Markdown without what is no number, and of code the numbers alone."""
    for pattern in NO_NUMBERS:
        text = re.sub(pattern, " ", text, flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"`([^`]*)`", lambda span: f" {' '.join(IN_CODE.findall(span[1]))} ", text)
    return re.sub(r"\b(\d+)/(\d+)/(\d+)\b", r"\1 % \2 % \3 %", text)  # BERT's rule, 80/10/10


def numbers(text):
    """Return the numbers in a piece of Markdown, as they are written."""
    text = plain(text)
    return RELEASE.findall(text) + NUMBER.findall(RELEASE.sub(" ", text))


def paragraphs(cell):
    """Return what is written in a cell by hand, without blocks of code."""
    if cell.cell_type != "markdown" or GENERATED & set(stored.tags(cell)):
        return []
    return re.sub(r"```.*?```", "", cell.source, flags=re.DOTALL).split("\n\n")


def said(paragraph):
    """Return the numbers of a paragraph, and those of each question that a **Predict** asks."""
    text, _, rest = paragraph.partition("**Predict.**")
    sentences = re.split(r"(?<=[.:?])\s", rest)
    questions = [numbers(sentence) for sentence in sentences if sentence.endswith("?")]
    text += "".join(f" {sentence}" for sentence in sentences if not sentence.endswith("?"))
    return numbers(text), [options for options in questions if options]


class Literals(ast.NodeVisitor):
    """Collect the numbers of a program, and those in its strings."""

    def __init__(self):
        self.values = set()

    def visit_Constant(self, node):
        if isinstance(node.value, str):
            self.values |= values_in(node.value)
        elif type(node.value) in (int, float):
            self.values.add(float(node.value))

    def visit_UnaryOp(self, node):
        if isinstance(node.op, ast.USub) and isinstance(node.operand, ast.Constant):
            self.values.add(-float(node.operand.value))
        else:
            self.generic_visit(node)

    def visit_FormattedValue(self, node):
        self.visit(node.value)  # and not the format

    def visit_Expr(self, node):
        if not (isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)):
            self.generic_visit(node)


def values_in(text):
    """Return the values of all numbers and releases in what a program prints."""
    releases = set(RELEASE.findall(text))
    majors = {float(release.partition(".")[0]) for release in releases}
    return releases | majors | {value(found) for found in IN_CODE.findall(RELEASE.sub(" ", text))}


def shown(cells):
    """Return the values in the code of cells and in what they print."""
    literals = Literals()
    for cell in cells:
        if cell.cell_type == "code":
            literals.visit(ast.parse(cell.source))
            for output in cell.outputs:
                data = output.get("data", {})
                html = re.sub(r"<[^>]*>", " ", data.get("text/html", ""))
                for text in (output.get("text", ""), output.get("evalue", ""), html):
                    literals.values |= values_in(text)
                literals.values |= values_in(data.get("text/plain", ""))
    return literals.values


def sections(notebook):
    """Return (heading, cells) for each section of a lesson; what is above the first has none."""
    parts = [("", [])]
    for cell in notebook.cells:
        heading = re.match(r"## (.+)", cell.source) if cell.cell_type == "markdown" else None
        if heading:
            parts.append((heading[1], []))
        parts[-1][1].append(cell)
    return parts


def is_shown(number, values):
    """Say whether a number as it is written is one of the values."""
    wanted = value(number)
    if "%" not in number:
        return wanted in values
    decimals = len(number.rstrip("% ").partition(".")[2])
    fractions = (v for v in values if isinstance(v, float))
    return any(round(100 * v, decimals) == round(100 * wanted, decimals) for v in fractions)


def statements(notebook):
    """Yield a `Statement` for each number of the text, and the values that may show it."""
    everywhere = shown(notebook.cells)
    for heading, cells in sections(notebook):
        here = everywhere if not heading or heading.startswith(WHOLE) else shown(cells)
        here = here | CONSTANTS & everywhere
        for cell in cells:
            for paragraph in paragraphs(cell):
                text, questions = said(paragraph)
                for options in [[number] for number in text] + questions:
                    yield Statement(heading, paragraph, " or ".join(options)), here


def unmatched(notebook):
    """Return the statements of a lesson that no cell shows, as a list of `Statement`."""
    return [
        statement
        for statement, values in statements(notebook)
        if not any(is_shown(number, values) for number in statement.number.split(" or "))
    ]


def entries_for(statement, entries):
    """Return the entries of the list that name a statement."""
    return [
        entry
        for entry in entries
        if entry["words"] in statement.paragraph and statement.number in numbers(entry["words"])
    ]


def listed(path):
    return [entry for entry in LISTED if path.name.startswith(entry["lesson"])]


@pytest.mark.parametrize("path", stored.PATHS, ids=stored.NAMES)
def test_every_number_is_shown_or_listed(path):
    missing = unmatched(stored.read(path))
    assert [statement for statement in missing if not entries_for(statement, listed(path))] == []


def test_every_listed_number_is_needed():
    used = [
        entry
        for path in stored.PATHS
        for statement in unmatched(stored.read(path))
        for entry in entries_for(statement, listed(path))
    ]
    assert [entry for entry in LISTED if entry not in used] == []


@pytest.mark.parametrize("path", stored.PATHS, ids=stored.NAMES)
def test_no_digit_is_overlooked(path):
    for cell in stored.read(path).cells:
        for paragraph in paragraphs(cell):
            rest = NUMBER.sub(" ", RELEASE.sub(" ", plain(paragraph)))
            assert not re.search(r"\d", rest), paragraph


def test_each_listed_number_has_a_reason():
    assert 0 < len(LISTED) <= 20, "show more, list less"
    assert all(len(entry["reason"].split()) >= 3 for entry in LISTED)


def toy(text):
    """A lesson of two sections; the first prints 0.1523, 30,522 and 2.3.0 and asserts 8.

    Its comment, docstring and format hold 9, 1.5 and 7, which are not shown.
    """
    source = 'def f(n):\n    """1.5"""\n    assert n == 8  # not 9\n    print(f"{share:7}", size)'
    code = nbformat.v4.new_code_cell(source)
    code.outputs = [nbformat.v4.new_output("stream", text="0.1523 30,522 2.3.0\n")]
    other = nbformat.v4.new_code_cell("ignored, wrong = -100, -99")
    cells = [nbformat.v4.new_markdown_cell("# T"), nbformat.v4.new_markdown_cell("## A"), code]
    cells += [nbformat.v4.new_markdown_cell(text), nbformat.v4.new_markdown_cell("## B"), other]
    return nbformat.v4.new_notebook(cells=cells)


@pytest.mark.parametrize(
    "text",
    ["8", "0.1523", "30522", "15 %", "15.2 %", "`-100`", "2.3.0", "2", "`n == 8`",
     "x.\n\n**Predict.** Is it 7, 8 or 9?", "x.\n1. one\n2. two", "x.\n\n## Why 7?\n",
     "BERT-5, x5 and GPT-2, in 03_train.ipynb", "$p(8-p)$, arXiv:1810.04805, section 3.1",
     "of lesson 04 and transformers#2946: case 3, HF forum 1202, 5 minutes"],
)  # fmt: skip
def test_number_that_is_shown_is_found(text):
    assert unmatched(toy(f"It is {text}")) == []


@pytest.mark.parametrize(
    ("text", "number"),
    [
        *((number, number) for number in ("9", "-8", "0.15", "0.152", "30,523", "16 %", "15.3 %")),
        *((number, number) for number in ("-99", "103", "80 %", "2.4.0", "1", "1.5", "−3", "1e-4")),
        ("0.02²", "0.02"),
        ("1/9", "9"),
        ("a 12-layer model", "12"),
        ("`-101`", "-101"),
        ("`n == 9`", "9"),
        ("on\n| a | b |\n| --- | --- |\n| c | 70 % |", "70 %"),
        ("70/8/8", "70 %"),
        ("told. **Predict.** Is it 7 or 9?", "7 or 9"),
        ("told. **Predict.** One has 7. Is it 8?", "7"),
        ("told. **Predict.** There are 5 tokens: is it 4 or 44 %?", "4 or 44 %"),
    ],
)
def test_changed_number_is_found_missing(text, number):
    assert number in [statement.number for statement in unmatched(toy(f"It is {text}"))]


def test_entry_of_the_list_excuses_its_own_words_alone():
    [statement] = unmatched(toy("In 1730 it was 8."))
    assert entries_for(statement, [{"words": "In 1730"}])
    assert not entries_for(statement, [{"words": "in 1730"}])
    assert not entries_for(statement, [{"words": "it was 8"}])
