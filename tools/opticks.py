"""Make mlmtutor/data/opticks.txt, the text of lesson 06, from a plain-text edition of the book.

    python -m tools.opticks Isaac.Newton-Opticks.txt

The edition is ``src/testdata/Isaac.Newton-Opticks.txt`` in the sources of Go (Debian package
golang-1.19-src 1.19.8-2). Kept are paragraphs of prose, one a line, up to 300,000 bytes; left out
are the words of the edition, headings, figures, tables and what holds Greek letters.
"""

import argparse
import pathlib
import re
import sys

from tools import atomic

TARGET = pathlib.Path(__file__).resolve().parent.parent / "mlmtutor" / "data" / "opticks.txt"
FIRST_WORDS = "My Design in this Book"
FIGURE = re.compile(r"\s*[\[(](?:in |See )?(?:the )?Figs?\.[^\])]*[\])]")
LIMIT = 300_000


def paragraphs(edition):
    """Yield the paragraphs of prose of the edition, each as one line of ASCII."""
    for block in re.split(r"\n\s*\n", edition[edition.index(FIRST_WORDS) :]):
        line = FIGURE.sub("", " ".join(block.split()).replace("_", ""))
        line = re.sub(r"\s+([,.;:])", r"\1", line.replace("--", ", ").replace("Æ", "Ae"))
        digits = sum(character.isdigit() for character in line)
        is_prose = len(line) >= 120 and line[0].isupper() and line[-1] in ".?"
        is_plain = line.isascii() and not set(line) & set("[]|") and digits <= 0.03 * len(line)
        if is_prose and is_plain and not block.startswith(" "):
            yield line


def main():
    """Write the text."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("edition", type=pathlib.Path)
    edition = parser.parse_args().edition.read_text(encoding="utf-8").replace("\r", "")
    text = ""
    for line in paragraphs(edition):
        if len(text) + len(line) < LIMIT:
            text += line + "\n"
    atomic.write(TARGET, text)
    print(f"{TARGET.name}: {text.count(chr(10))} paragraphs, {len(text):,} bytes")


if __name__ == "__main__":
    sys.exit(main())
