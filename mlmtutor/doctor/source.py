"""Find obsolete and harmful uses of masked-LM labels in source files, without running them.

A file is parsed only if it imports transformers or speaks of masks. What a finding says stands in
``source.toml``, what transformers no longer has in ``obsolete.toml`` (generated) and what to write
instead in ``instead.toml``. What cannot be read is a note, never a finding.
"""

import ast
import functools
import itertools
import json
import os
import re
import textwrap
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlmtutor.doctor.program import (
    FUNCTIONS,
    WORDS,
    Program,
    dotted,
    is_labels,
    last,
    named,
    number,
    table,
    word,
)
from mlmtutor.doctor.recipes import follow

LARGEST = 2_000_000  # characters of one file; more is data, and takes minutes to parse
SUFFIXES = (".py", ".ipynb")
SKIPPED = {"__pycache__", "node_modules", "site-packages", "build", "dist"}
IMPORTS = re.compile(rb"(^|\\n|\")[ \t]*(from|import)[ \t]+transformers\b", re.M)  # also in JSON
CELL = 10_000_000  # is added to the lines of a notebook, once for each cell and the one before


@dataclass(frozen=True)
class LintFinding:
    """One place in a file: lines and columns from 1, the cells of a notebook from 0."""

    path: str
    line: int
    column: int
    cell: int | None
    code: str
    severity: str
    message: str
    fix: str

    @property
    def place(self) -> str:
        """The file and the line, as terminals and editors know it."""
        cell = "" if self.cell is None else f"cell {self.cell}:"
        return f"{self.path}:{cell}{self.line}:{self.column}"


@dataclass(frozen=True)
class Report:
    """What :func:`lint_paths` returns."""

    findings: tuple[LintFinding, ...]
    files: int  # that were read
    unread: tuple[str, ...]  # files and cells that could not be read, with the reason
    unusable: tuple[str, ...]  # paths that are no program and hold none


RULES: dict[str, dict[str, str]] = table("source.toml")  # what is said of each mistake
Found = tuple[str, ast.AST | None] | tuple[str, ast.AST, str, str]  # code, place; message, fix


# What transformers no longer has ------------------------------------------------------------------


@functools.cache
def _gone() -> dict[str, dict[str, str]]:
    """For each list of names: name -> the first release without it."""
    read, advice = table("obsolete.toml"), table("instead.toml")
    lists = {"names": read["names"], "modules": read["modules"], **read["keywords"]}
    lists["methods"] = {"5.0.0": " ".join(advice["methods"])}
    lists["forward"] = {"4.0.0": " ".join(advice["keywords"]["forward"])}
    return {
        title: {name: since for since, names in releases.items() for name in names.split()}
        for title, releases in lists.items()
    }


@functools.cache
def instead(title: str, name: str) -> str:
    """What to write instead of a name; empty where nobody knows."""
    read = table("instead.toml")
    known = read.get(title) or read["keywords"].get(title, {})
    patterns = known | (read["families"] if title == "names" else {})
    return next((text for pattern, text in patterns.items() if re.fullmatch(pattern, name)), "")


def gone_since(title: str, name: str) -> str | None:
    """The first release that no longer has a name, ``None`` for one that is still there."""
    family = f"gone_{title}" in WORDS["patterns"] and named(f"gone_{title}", name)
    return _gone()[title].get(name) or ("5.0.0" if family else None)


def _used(program: Program) -> Iterator[tuple[str, str, ast.AST]]:
    """What a program takes from transformers: the list that it may be in, the name, the place."""
    tokenizers = any(re.match(r"transformers\..*Tokenizer", o) for o in program.origins.values())
    star, own = program.origins.get("*") == "transformers.*", program.definitions | program.origins
    for node in program.nodes:
        match node:
            case ast.ImportFrom(module=str(name), level=0) if name.split(".")[0] == "transformers":
                yield "modules", name[13:], node
                yield from (("names", alias.name, alias) for alias in node.names)
            case ast.alias(name=name) if name.startswith("transformers."):
                yield "modules", name[13:], node
            case ast.Attribute(value=ast.Name(id=owner)) if program.origin(owner) == "transformers":
                yield "names", node.attr, node
            case ast.Name(id=name) if star and name not in own:
                yield "names", name, node
            case ast.Call(func=function):
                owner = program.class_called(function)
                if owner in _gone():
                    yield from ((owner, key, place) for key, _, place in program.keywords(node))
                named_so = {"encode_plus", "batch_encode_plus"} - program.definitions.keys()
                if tokenizers and last(function) in named_so:
                    yield "methods", last(function), function
                yield from _old_labels(program, node)


def _old_labels(program: Program, call: ast.Call) -> Iterator[tuple[str, str, ast.AST]]:
    """``masked_lm_labels`` of a masked model of transformers."""
    words = {key: place for key, _, place in program.keywords(call)}
    old = words.keys() & _gone()["forward"].keys()
    before = any(re.match("pytorch_(transformers|pretrained)", o) for o in program.origins.values())
    if not old or before:  # the libraries before transformers have no other name
        return
    kinds = program.kinds(call.func)
    model = named("model_names", dotted(call.func)) and "logits" not in words
    if not kinds and program.has_masked and model:
        kinds, old = {"masked"}, old & {"masked_lm_labels"} - program.parameters
    yield from (("forward", key, words[key]) for key in old if "masked" in kinds)


def _obsolete(program: Program) -> Iterator[Found]:
    """Imports, attributes, keywords and methods that are gone."""
    reported: set[ast.AST] = set()
    for title, name, node in _used(program):
        since = gone_since(title, name)
        if since and program.parents.get(node) not in reported and not _is_guarded(program, node):
            reported.add(node)
            advice = instead(title, name) or "leave it out"
            told = WORDS["gone"].get(title, "``{}`` is a TypeError in " + title)
            fix = f"write {advice}" if advice.startswith("``") else advice
            yield "obsolete-name", node, f"{told.format(name)} since transformers {since}", fix


def _is_guarded(program: Program, node: ast.AST) -> bool:
    """Whether a place is for other releases: in a ``try``, after a look at the version."""
    while parent := program.parents.get(node):
        caught = [
            handler.type or ast.Name("Exception") for handler in getattr(parent, "handlers", [])
        ]
        looks = [getattr(parent, "test", None), getattr(parent, "type", None), *caught]
        if any(isinstance(look, ast.expr) and named("guards", ast.unparse(look)) for look in looks):
            return True
        node = parent
    return False


# Rules that look at calls -------------------------------------------------------------------------


def _hand_spelled(program: Program) -> Iterator[Found]:
    """A mask token in a text that is given to a tokenizer of another family."""
    if any("mask_token" in ast.unparse(call) for call in program.called("add_special_tokens")):
        return
    for call in program.calls:
        encodes = named("encodes", last(call.func))
        tokenizer = getattr(call.func, "value", call.func) if encodes else call.func
        families = {_family(made) for made in program.meant(tokenizer)}
        own = families.pop() if len(families) == 1 else ""
        for argument in (*call.args, *(given.value for given in call.keywords)) if own else ():
            parts = [node for value in program.meant(argument) for node in ast.walk(value)]
            texts = [node for node in parts if isinstance(node, ast.Constant)]
            changed = any(isinstance(part, ast.Call) for part in parts)  # by replace, by format
            wrong = set(WORDS["spellings"]) - {own} if not changed else ()
            for node, mask in itertools.product(texts, wrong):
                if mask in str(node.value) and "</mask>" not in str(node.value):
                    yield "hand-spelled-mask", node


def _family(value: ast.expr) -> str:
    """The mask token of the tokenizer or pipeline that an expression makes, if that is certain."""
    if not isinstance(value, ast.Call) or last(value.func) not in ("from_pretrained", "pipeline"):
        return ""
    words = {given.arg: given.value for given in value.keywords}
    made_of = words.get("tokenizer", words.get("model"))
    names = [word(n) for n in (getattr(value.func, "value", None), *value.args[:2], made_of)]
    families = WORDS["families"] if "mask_token" not in words else {}
    known = (mask for mask, pattern in families.items() if any(re.match(pattern, n) for n in names))
    return next(known, "")


def _trainers(program: Program) -> Iterator[Found]:
    """``Trainer``: the model, its collator, its labels and its metric belong together."""
    labelled = any(is_labels(name) for name in program.words if name.isidentifier())
    tokenizes = any(re.search(r"tok\w*$", last(call.func), re.I) for call in program.calls)
    for call, kinds in program.trainers:
        given = program.argument(call, "data_collator", 2)
        made = {last(one.func): one for one in program.meant(given) if isinstance(one, ast.Call)}
        masker = made.get("DataCollatorForLanguageModeling")
        if masker and (kinds, program.masks(masker)) in (({"causal"}, True), ({"masked"}, False)):
            yield "collator-of-another-task", call
        labels = labelled or program.collates or not tokenizes or program.computes
        if kinds == {"masked"} and not labels and (not given or "DataCollatorWithPadding" in made):
            yield "no-labels-for-trainer", call
        given = program.argument(call, "compute_metrics")
        metrics = [program.definitions.get(last(given)), *program.meant(given)]
        for metric in metrics if kinds == {"masked"} else ():
            yield from _metric(metric) if isinstance(metric, FUNCTIONS) else ()


def _metric(function: Any) -> Iterator[Found]:
    """A metric that takes all positions: nothing in it looks for the ignored ones."""
    inside: list[Any] = list(ast.walk(function))
    given = {parameter.arg for parameter in function.args.args}
    for node in inside:
        helper = isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        helped = helper and any(last(one) in given for one in node.args)
        chooses = isinstance(node, ast.NotEq | ast.Gt | ast.GtE) or named("keeps", last(node))
        if helped or chooses or number(node) == -100:
            return
    for node in inside:
        scores = isinstance(node, ast.Call) and named("scores", last(node.func))
        equals = isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.Eq)
        if (scores or equals) and any(is_labels(last(n)) for n in ast.walk(node)):
            yield "metric-counts-ignored", node
            return


# Files --------------------------------------------------------------------------------------------


def lint_source(
    source: str | bytes, path: str = "<source>", unread: list[str] | None = None
) -> list[LintFinding]:
    """Find what a Python program does wrong with masked-LM labels.

    Args:
        source: the text of a Python file or of a notebook, whose code cells are read together and
            without magics. It is parsed, never run.
        path: the name to report. A name that ends in ``.ipynb`` stands for a notebook.
        unread: a list to which is added what could not be read, and why.

    Returns:
        The findings, by cell and line. None in what is not Python.

    Example:
        >>> source = '''
        ... from transformers import BertForMaskedLM
        ... model = BertForMaskedLM.from_pretrained("bert-base-uncased")
        ... loss = model(input_ids, masked_lm_labels=labels)[0]
        ... '''
        >>> [(finding.line, finding.code) for finding in lint_source(source)]
        [(4, 'obsolete-name')]
    """
    data = source.encode(errors="ignore") if isinstance(source, str) else source
    about_masks = any(text.encode() in data for text in WORDS["about_masks"])
    if not about_masks and not (b"transformers" in data and IMPORTS.search(data)):
        return []
    notes = [] if unread is None else unread
    body: list[ast.stmt] = []
    findings: dict[tuple[int, int, str], LintFinding] = {}
    try:
        cells = _cells(source) if path.endswith(".ipynb") else [(-1, source)]
        if sum(len(text) for _, text in cells) > LARGEST:
            raise ValueError(f"more than {LARGEST:,} characters")
        for index, text in cells:
            try:
                body += ast.increment_lineno(_parse(text, index >= 0), CELL * (index + 1)).body
            except (SyntaxError, ValueError, OverflowError, RecursionError, MemoryError) as error:
                where = f"{path}: cell {index}" if index >= 0 else path
                where += f", line {error.lineno}" if isinstance(error, SyntaxError) else ""
                notes.append(f"{where}: {getattr(error, 'msg', None) or error}")
        program = Program(body)
        looks = (_obsolete, follow, _hand_spelled, _trainers)
        found = [one for look in looks for one in look(program)]
    except (ValueError, RecursionError) as error:
        notes.append(f"{path}: {error}")
        return []
    for code, place, *said in found:
        at, column, rule = getattr(place, "lineno", 1), getattr(place, "col_offset", 0), RULES[code]
        cell, line = divmod(at, CELL)
        texts = [text.replace("``", "`") for text in said or (rule["title"], rule["fix"])]
        position = path, line, column + 1, cell - 1 if cell else None
        findings[at, column, code] = LintFinding(*position, code, rule["severity"], *texts)
    return [findings[key] for key in sorted(findings)]


def _cells(text: str | bytes) -> list[tuple[int, str]]:
    """The code cells of a notebook in Python, with their numbers."""
    try:
        notebook = json.loads(text)
        metadata = notebook.get("metadata") or {}
        language = (metadata.get("kernelspec") or {}).get("language")
        language = language or (metadata.get("language_info") or {}).get("name") or "python"
        if not str(language).lower().startswith(("python", "ipython")):
            return []
        return [
            (index, "".join(cell["source"]))
            for index, cell in enumerate(notebook["cells"])
            if cell.get("cell_type") == "code"
        ]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"not a notebook: {type(error).__name__}: {error}") from error


def _parse(source: str | bytes, notebook: bool) -> Any:
    """Parse without running. A notebook cell may use ``await``, and magics."""
    flags = ast.PyCF_ONLY_AST | (ast.PyCF_ALLOW_TOP_LEVEL_AWAIT if notebook else 0)
    parse: Any = functools.partial(compile, filename="", mode="exec", flags=flags)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the source that is read: "\d" and the like
        try:
            return parse(source)
        except SyntaxError:
            if not isinstance(source, str) or not notebook:
                raise
            return parse(_without_magics(source))


def _without_magics(source: str) -> str:
    """A cell as Python: by IPython where it is installed, else without the lines of magics."""
    long = r"^([ \t]*)[%!](?:.*\\\n)+.*"  # a command over several lines
    source = re.sub(long, lambda m: m[1] + "pass" + "\n" * m[0].count("\n"), source, flags=re.M)
    source = textwrap.dedent(re.sub(r"\A(\s*)%%(time|timeit|capture|prun)\b.*", r"\1", source))
    if source.lstrip().startswith("%%"):
        return ""
    try:
        from IPython.core.inputtransformer2 import TransformerManager
    except ImportError:
        source = re.sub(r"^([ \t]*)(?:[%!?].*|[\w.]+\?{1,2}\s*)$", r"\1pass", source, flags=re.M)
        return re.sub(r"=\s*[%!][^\n]*", "= None", source)
    empty = len(source) - len(source.lstrip("\n"))  # which IPython takes away
    return "\n" * empty + str(TransformerManager().transform_cell(source))  # type: ignore[no-untyped-call]


def lint_paths(paths: str | Path | Iterable[str | Path]) -> Report:
    """Lint files, and all ``.py`` and ``.ipynb`` files of folders.

    Folders are not entered through symbolic links, so that a loop ends. Hidden folders, virtual
    environments and the like are left out.

    Args:
        paths: files and folders, or one of them.

    Returns:
        A :class:`Report`.
    """
    findings: list[LintFinding] = []
    unread: list[str] = []
    unusable: list[str] = []
    files: dict[str, str] = {}
    for given in [paths] if isinstance(paths, str | Path) else paths:
        found = list(_programs(str(given), unread))
        if not found:
            unusable.append(str(given) or "''")
        for path in found:
            files.setdefault(os.path.realpath(path), path)
    walked = len(unread)
    for path in files.values():
        try:
            findings += lint_source(Path(path).read_bytes(), path, unread)
        except OSError as error:
            unread.append(f"{path}: {error}")
    skipped = sum(": cell " not in note for note in unread[walked:])
    return Report(tuple(findings), len(files) - skipped, tuple(unread), tuple(unusable))


def _programs(path: str, unread: list[str]) -> Iterator[str]:
    """Yield the files of a folder; note in ``unread`` which folders may not be read."""
    if os.path.isfile(path) and path.endswith(SUFFIXES):
        yield path
    onerror = (lambda error: unread.append(str(error))) if os.path.isdir(path) else None
    for root, folders, names in os.walk(path, onerror=onerror):
        venvs = {n for n in folders if os.path.exists(os.path.join(root, n, "pyvenv.cfg"))}
        folders[:] = sorted(n for n in set(folders) - venvs - SKIPPED if not n.startswith("."))
        wanted = (n for n in sorted(names) if n.endswith(SUFFIXES) and not n.startswith("."))
        yield from filter(os.path.isfile, (os.path.join(root, name) for name in wanted))
