"""Find obsolete and harmful uses of masked-LM labels in source files, without running them.

A file is parsed only if it holds a word that a rule needs. What a finding says stands in
``source.toml``, what transformers no longer has in ``obsolete.toml`` (generated) and what to write
instead in ``instead.toml``. What cannot be read is a note, never a finding.
"""

import ast
import bisect
import functools
import importlib.resources
import io
import json
import os
import re
import textwrap
import tokenize
import tomllib
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlmtutor.doctor.recipes import (
    FUNCTIONS, MASKED, SPELLINGS, Found, Program, Recipe, dotted, is_labels, last, number,
)  # fmt: skip

LARGEST = 2_000_000  # characters of one file; more is data, and takes minutes to parse
SKIPPED = {"__pycache__", "node_modules", "site-packages", "build", "dist"}
ABOUT_MASKS = re.compile(
    rb"MaskedLM|mask_token|masked_lm_labels|ForLanguageModeling|fill-mask|ForPreTraining|\[MASK\]|<mask>"
)
IMPORTS = re.compile(rb"^[ \t]*(?:from|import)[ \t]+transformers\b|import_module\(.transformers", re.M)
ANGLES = re.compile(
    r"(XLM|Xlm)?(Roberta|Camembert|Longformer)Tokenizer|(FacebookAI/)?(xlm-)?roberta-(base|large)$|"
    r"(distilbert/)?distilroberta-base$|(almanach/)?camembert(-base)?$|allenai/longformer-base-4096$|"
    r"vinai/bertweet-(base|large)$|microsoft/codebert-base$"
)
OLD_LIBRARIES = {"pytorch_transformers", "pytorch_pretrained_bert"}
BRACKETS = re.compile(
    r"(Distil)?(Bert|Electra)Tokenizer|(google-bert/)?bert-(base|large)-|(distilbert/)?distilbert-base-|"
    r"(albert/)?albert-\w+-v\d|google/(electra|mobilebert)|answerdotai/ModernBERT|microsoft/deberta-"
)


@dataclass(frozen=True)
class Rule:
    """One thing that is looked for, and what is said of it."""

    code: str
    severity: str
    title: str
    fix: str
    source: str


@dataclass(frozen=True)
class LintFinding:
    """One place in a file.

    Attributes:
        path: the file, as it was found.
        line: the line, from 1; in a notebook, of the cell.
        column: the column, from 1.
        cell: the cell of a notebook, from 0 as in the file; ``None`` in a Python file.
        code: the code of the rule.
        severity: ``error`` or ``warning``.
        message: what is wrong.
        fix: what to write instead.
    """

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
    """What :func:`lint_paths` returns.

    Attributes:
        findings: what was found.
        files: the number of files that were read.
        unread: files and cells that could not be read, with the reason.
        unusable: paths that are no program and hold none.
    """

    findings: tuple[LintFinding, ...]
    files: int
    unread: tuple[str, ...]
    unusable: tuple[str, ...]


def _table(name: str) -> dict[str, Any]:
    return tomllib.loads(importlib.resources.files("mlmtutor.doctor").joinpath(name).read_text("utf-8"))


RULES = tuple(Rule(code, **rule) for code, rule in _table("source.toml").items())


# What transformers no longer has ------------------------------------------------------------------


@functools.cache
def _gone() -> dict[str, dict[str, str]]:
    """For each list of obsolete.toml: name -> the first release without it."""
    table = _table("obsolete.toml")
    lists = {"names": table["names"], "modules": table["modules"], **table["keywords"]}
    gone = {k: {n: since for since, names in v.items() for n in names.split()} for k, v in lists.items()}
    methods = dict.fromkeys(_table("instead.toml")["methods"], "5.0.0")
    return gone | {"forward": {"masked_lm_labels": "4.0.0", "lm_labels": "3.0.0"}, "methods": methods}


@functools.cache
def instead(table: str, name: str) -> str:
    """What to write instead of a name."""
    tables = _table("instead.toml")
    known: dict[str, str] = tables.get(table) or tables["keywords"].get(table, {})
    patterns = known | (tables["families"] if table == "names" else {})
    return next((text for p, text in patterns.items() if re.fullmatch(p, name)), "")


def gone_since(table: str, name: str) -> str | None:
    """The first release that no longer has a name, ``None`` for one that is still there."""
    if since := _gone()[table].get(name):
        return since
    family = table == "names" and instead(table, name) and name not in _gone()[table]
    tensorflow = table == "modules" and re.search(r"(^|\.|_)(tf|flax)_", name)
    return "5.0.0" if (family and not name.endswith("FeatureExtractor")) or tensorflow else None


def _obsolete(program: Program) -> Iterator[Found]:
    def told(table: str, name: str, node: ast.AST, what: str) -> Iterator[Found]:
        since = gone_since(table, name)
        if since and not _for_old_releases(program, node):
            advice = instead(table, name)
            fix = f"write {advice}" if advice.startswith("``") else advice or "leave it out"
            yield "obsolete-name", node, {"what": f"{what} since transformers {since}", "instead": fix}

    for node in program.nodes:
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "transformers":
            module = (node.module or "")[13:]
            if not node.level and module and gone_since("modules", module):
                yield from told("modules", module, node, f"``transformers.{module}`` is gone")
            elif not node.level:
                for alias in node.names:
                    name = alias.name
                    yield from told("names", name, alias, f"``{name}`` cannot be imported")
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.startswith("transformers."):
                    module = alias.name[13:]
                    yield from told("modules", module, alias, f"``transformers.{module}`` is gone")
        elif isinstance(node, ast.Attribute) and program.origin(dotted(node)).startswith("transformers."):
            if dotted(node).count(".") == 1:
                yield from told("names", node.attr, node, f"``{node.attr}`` cannot be imported")
        elif isinstance(node, ast.Name) and program.origins.get("*") == "transformers.*":
            if node.id not in program.definitions and node.id not in program.origins:
                yield from told("names", node.id, node, f"``{node.id}`` cannot be imported")
    for call in program.calls:
        name = _class_of_transformers(program, call.func)
        if name in _gone():
            for word, _, place in program.keywords(call):
                yield from told(name, word, place, f"``{word}`` is a TypeError in {name}")
        if last(call.func) in ("encode_plus", "batch_encode_plus") and any(
            origin.startswith("transformers.") and "Tokenizer" in origin
            for origin in program.origins.values()
        ):
            if not _for_old_releases(program, call):
                what = f"tokenizers have no ``{last(call.func)}`` since transformers 5.0.0"
                fix = instead("methods", last(call.func))
                yield "obsolete-name", call.func, {"what": what, "instead": fix}
        yield from _old_labels(program, call)


def _old_labels(program: Program, call: ast.Call) -> Iterator[Found]:
    """``masked_lm_labels`` of a masked model of transformers."""
    kinds = program.kinds(call.func)
    origins = {program.origin(n).split(".")[0] for n in program.origins if MASKED.search(n)}
    guess = not kinds and re.search(r"model|net|bert|mlm|encoder", dotted(call.func).lower())
    if kinds - {"masked"} or not (kinds or guess) or origins & OLD_LIBRARIES:
        return
    if not "masked" in program.models and not program.origins.get("AutoModelWithLMHead"):
        return
    words = [(w, place) for w, _, place in program.keywords(call)]
    for star in (dotted(w.value) for w in call.keywords if w.arg is None):
        for node in program.nodes if kinds else ():
            if isinstance(node, ast.Assign):
                words += [
                    (last(t), t)
                    for t in node.targets
                    if isinstance(t, ast.Subscript) and dotted(t.value) == star
                ]
    for word, place in words:
        own = any(name == word for _, name in program.parameters)
        if word in ("masked_lm_labels", "lm_labels")[: 2 if kinds else 1] and not (own and not kinds):
            if not _for_old_releases(program, call) and "logits" not in [w for w, _ in words]:
                what = f"``{word}`` is the old name: transformers 5 ignores it, the loss is None; 4.x raises a TypeError"
                yield "obsolete-name", place, {"what": what, "instead": "call it ``labels``"}


def _class_of_transformers(program: Program, function: ast.expr) -> str:
    """The name of the class of transformers that is called, also through a class of this file."""
    name = dotted(function)
    for _ in range(10):
        own = program.definitions.get(name)
        if not isinstance(own, ast.ClassDef):
            break
        inside = {getattr(n, "name", None) for n in own.body}
        if "__init__" in inside or not own.bases or any(isinstance(n, ast.AnnAssign) for n in own.body):
            return ""
        name = dotted(own.bases[0])
    origin = program.origin(name)
    if not origin and program.origins.get("*") != "transformers.*":
        return ""
    return (origin or name).rpartition(".")[2] if re.match(r"transformers\b|$", origin) else ""


def _for_old_releases(program: Program, node: ast.AST) -> bool:
    """Whether a place is guarded: by ``try``, by a look at the version, or for type checkers."""
    child, parent = node, program.parents.get(node)
    while parent is not None:
        caught = []
        if isinstance(parent, ast.ExceptHandler):
            caught = [parent]
        elif isinstance(parent, ast.Try) and child in parent.body:
            caught = parent.handlers
        names = {last(n) for handler in caught for n in ast.walk(handler.type or ast.Name("Exception"))}
        if names & {"ImportError", "ModuleNotFoundError", "AttributeError", "TypeError", "Exception"}:
            return True
        if isinstance(parent, ast.If | ast.IfExp):
            words = " ".join(last(n) for n in ast.walk(parent.test))
            if re.search(r"version|is_\w+_available|TYPE_CHECKING|hasattr|signature", words, re.I):
                return True
        child, parent = parent, program.parents.get(parent)
    return False


# Rules that look at calls ---------------------------------------------------------------------------


def _hand_spelled(program: Program) -> Iterator[Found]:
    """A mask token in a text that is given to a tokenizer of another family."""
    for call in program.calls:
        owner = call.func
        if last(owner) in ("tokenize", "encode", "encode_plus", "batch_encode_plus", "convert_tokens_to_ids"):
            owner = getattr(owner, "value", owner)
        families = {_family(value) for value, _ in program.values(owner)} if dotted(owner) else set()
        if len(families) != 1 or not (own := families.pop()):
            continue
        wrong = set(SPELLINGS) - {own}
        for argument in (*call.args, *(w.value for w in call.keywords)):
            known = [argument]
            if dotted(argument):
                known += [v for v, i in program.values(argument) if i is None]
            for node in (n for value in known for n in ast.walk(value)):
                if isinstance(node, ast.Call):
                    break  # the text may be changed there
                text = node.value if isinstance(node, ast.Constant) else ""
                for spelled in wrong if isinstance(text, str) else ():
                    if spelled in text and "</mask>" not in text:
                        yield "hand-spelled-mask", node, {"spelled": f"``{spelled}``"}


def _family(value: ast.expr) -> str:
    """The mask token of the tokenizer or pipeline that an expression makes, if that is certain."""
    if not isinstance(value, ast.Call):
        return ""
    method, words = last(value.func), {w.arg: w.value for w in value.keywords}
    if method == "from_pretrained":
        names = [last(getattr(value.func, "value", None)), *value.args[:1]]
    elif method == "pipeline":
        names = [words.get("tokenizer") or words.get("model"), *value.args[1:2]]
    else:
        return ""
    texts = [getattr(n, "value", n) for n in names]
    texts = [text for text in texts if isinstance(text, str)]
    if "mask_token" in words:
        return ""
    if any(ANGLES.match(text) for text in texts):
        return "<mask>"
    return "[MASK]" if any(BRACKETS.match(text) for text in texts) else ""


def _trainers(program: Program) -> Iterator[Found]:
    """``Trainer``: the model, its collator, its labels and its metric belong together."""
    texts = {n.value for n in program.nodes if isinstance(n, ast.Constant) and isinstance(n.value, str)}
    texts = {text for text in texts if text.isidentifier()}
    names = {last(n) for n in program.nodes} | {getattr(n, "arg", None) for n in program.nodes} | texts
    for call in program.calls:
        if _class_of_transformers(program, call.func) != "Trainer":
            continue
        words = {word: value for word, value, _ in program.keywords(call)}
        kinds = program.kinds(words.get("model") or (call.args[0] if call.args else None))
        given = words.get("data_collator") or (call.args[2] if len(call.args) > 2 else None)
        made = [given] + ([v for v, _ in program.values(given)] if dotted(given) else []) if given else []
        collators = [v for v in made if isinstance(v, ast.Call)]
        masks = {
            program.masks(c) for c in collators if last(c.func) == "DataCollatorForLanguageModeling"
        }
        if kinds == {"causal"} and masks == {True}:
            what = "this collator masks tokens, but the model is a causal one: it shifts the labels by one"
            fix = "``mlm=False`` for this model, or load it with ``AutoModelForMaskedLM``"
            yield "collator-of-another-task", call, {"what": what, "instead": fix}
        if kinds != {"masked"}:
            continue
        if masks == {False}:
            what = "``mlm=False`` masks nothing: each label is the token that the masked model sees"
            yield "collator-of-another-task", call, {"what": what, "instead": "``mlm=True``"}
        plain = not given or {last(c.func) for c in collators} & {"DataCollatorWithPadding"}
        tokenizes = any(re.search(r"tok\w*$", dotted(c.func), re.I) for c in program.calls)
        if plain and tokenizes and not program.collates and not any(is_labels(str(n)) for n in names - {None}):
            yield "no-labels-for-trainer", call, {}
        metric = program.definitions.get(last(words.get("compute_metrics")))
        if isinstance(metric, FUNCTIONS):
            yield from _metric(metric)


def _metric(function: ast.AST) -> Iterator[Found]:
    """A metric that takes all positions: nothing in it looks for the ignored ones."""
    inside = list(ast.walk(function))
    chooses = any(
        number(n) == -100 or isinstance(n, ast.NotEq | ast.Gt | ast.GtE) or "ignore" in last(n).lower()
        for n in inside
    )
    for node in inside if not chooses else ():
        compared = isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.Eq)
        scored = isinstance(node, ast.Call) and re.match(
            r"(accuracy|f1|precision|recall)_score|compute$", last(node.func)
        )
        if (compared or scored) and any(is_labels(last(n)) for n in ast.walk(node)):
            yield "metric-counts-ignored", node, {}
            return


def _half_resized(program: Program) -> Iterator[Found]:
    for call in program.calls:
        owner = getattr(call.func, "value", None)
        if last(call.func) == "resize_token_embeddings" and isinstance(owner, ast.Attribute):
            if owner.attr != "module" and program.kinds(owner.value) == {"masked"}:
                yield "half-resized", call, {}


def _recipes(program: Program) -> Iterator[Found]:
    bodies = [n.body for n in program.nodes if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    for body in [program.root.body, *bodies]:
        yield from Recipe(program, body).found.values()


# Files --------------------------------------------------------------------------------------------


def _concerns(text: bytes) -> bool:
    """Whether a rule could find anything: decided before a file is parsed."""
    if ABOUT_MASKS.search(text):
        return True
    if not IMPORTS.search(text):
        return False
    words = set(re.findall(r"\w{3,}", text.decode("utf-8", "replace")))
    every = set().union(*_gone().values(), ("encode_plus", "batch_encode_plus"))
    modules = r"transformers\.[\w.]*(tf_|flax_|modeling_|tokenization_|configuration_|tools|onnx|agents|data)"
    return bool(words & every or re.search(rb"\b(TF|Flax)[A-Z]", text) or re.search(modules.encode(), text))


def lint_source(source: str, path: str = "<source>") -> list[LintFinding]:
    """Find what a Python program does wrong with masked-LM labels.

    Args:
        source: the text of a Python file. It is parsed, never run.
        path: the name to report.

    Returns:
        The findings, by line. None for a text that is not Python: :func:`lint_paths` says so.

    Raises:
        TypeError: ``source`` is not a str.

    Example:
        >>> source = '''
        ... from transformers import BertForMaskedLM
        ... model = BertForMaskedLM.from_pretrained("bert-base-uncased")
        ... loss = model(input_ids, masked_lm_labels=labels)[0]
        ... '''
        >>> [(finding.line, finding.code) for finding in lint_source(source)]
        [(4, 'obsolete-name')]
    """
    _require_text("source", source)
    return _lint_cells([(None, source)], path, [])


def lint_notebook(text: str, path: str = "<notebook>") -> list[LintFinding]:
    """Find what a Jupyter notebook does wrong with masked-LM labels, all cells together.

    Args:
        text: the JSON of the file. Magics are left out; a notebook of another kernel has no
            findings, nor has a cell that cannot be read.
        path: the name to report.

    Returns:
        The findings, by cell and line.

    Raises:
        TypeError: ``text`` is not a str.
    """
    _require_text("text", text)
    return _lint_notebook(text, path, [])


def _lint_notebook(text: str, path: str, unread: list[str]) -> list[LintFinding]:
    try:
        notebook = json.loads(text)
        metadata = notebook.get("metadata") or {}
        language = (metadata.get("kernelspec") or {}).get("language")
        language = language or (metadata.get("language_info") or {}).get("name") or "python"
        if not str(language).lower().startswith(("python", "ipython")):
            return []
        cells = notebook.get("cells")
        if cells is None:  # before format 4
            cells = [cell for sheet in notebook["worksheets"] for cell in sheet["cells"]]
        sources = [
            (index, "".join(cell.get("source", cell.get("input", ""))))
            for index, cell in enumerate(cells)
            if cell.get("cell_type") == "code"
        ]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        unread.append(f"{path}: not a notebook: {type(error).__name__}: {error}")
        return []
    return _lint_cells(sources, path, unread)


def _require_text(name: str, value: object) -> None:
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a str, but is a {type(value).__name__}: decode it first.")


def _lint_cells(
    cells: list[tuple[int | None, str]], path: str, unread: list[str]
) -> list[LintFinding]:
    if not _concerns("\n".join(source for _, source in cells).encode("utf-8", "replace")):
        return []
    findings: dict[tuple[object, ...], LintFinding] = {}
    body: list[ast.stmt] = []
    starts: list[tuple[int, int | None]] = []  # the line before each cell, in all cells together
    lines = size = 0
    for cell, source in cells:
        starts.append((lines, cell))
        size += len(source)
        where = path if cell is None else f"{path}: cell {cell}"
        try:
            if size > LARGEST:
                raise ValueError(f"more than {LARGEST:,} characters")
            tree = _parse(source, notebook=cell is not None)
        except (SyntaxError, ValueError, OverflowError, RecursionError, MemoryError) as error:
            line = f", line {error.lineno}" if isinstance(error, SyntaxError) else ""
            unread.append(f"{where}{line}: {getattr(error, 'msg', None) or error}")
            continue
        ast.increment_lineno(tree, lines)
        body += tree.body
        lines += source.count("\n") + 2
    try:
        program = Program(body)
        rules = (_obsolete, _recipes, _hand_spelled, _trainers, _half_resized)
        found = [one for rule in rules for one in rule(program)]
    except RecursionError:
        unread.append(f"{path}: too deeply nested")
        return []
    texts = {rule.code: rule for rule in RULES}
    for code, node, words in found:
        line, column = getattr(node, "lineno", 1), getattr(node, "col_offset", 0) + 1
        start, cell = starts[bisect.bisect_left([first for first, _ in starts], line) - 1]
        rule = texts[code]
        title, fix = (t.format(**words).replace("``", "`") for t in (rule.title, rule.fix))
        findings.setdefault(
            (code, line, column),
            LintFinding(path, line - start, column, cell, code, rule.severity, title, fix),
        )
    return sorted(findings.values(), key=lambda found: (found.cell or 0, found.line, found.column))


def _parse(source: str, notebook: bool) -> ast.Module:
    """Parse without running. A notebook cell may use ``await``, and magics."""
    flags = ast.PyCF_ONLY_AST | (ast.PyCF_ALLOW_TOP_LEVEL_AWAIT if notebook else 0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the source that is read: "\d" and the like
        try:
            return compile(source, "<source>", "exec", flags, dont_inherit=True)  # type: ignore[return-value]
        except SyntaxError:
            if not notebook:
                raise
        return compile(_without_magics(source), "<source>", "exec", flags, dont_inherit=True)  # type: ignore[return-value]


def _without_magics(source: str) -> str:
    """A cell as Python: by IPython where it is installed, else without the lines of magics."""
    start = re.match(r"\s*%%(\w+)[^\n]*", source)
    if start and start[1] not in ("time", "timeit", "capture", "prun"):
        return ""
    source = textwrap.dedent("\n" * start[0].count("\n") + source[start.end() :] if start else source)
    try:
        from IPython.core.inputtransformer2 import TransformerManager
    except ImportError:
        source = re.sub(r"^([ \t]*)(?:[%!?].*|[\w.]+\?{1,2}\s*)$", r"\1pass", source, flags=re.M)
        return re.sub(r"=\s*[%!][^\n]*", "= None", source)
    empty = len(source) - len(source.lstrip("\n"))  # which IPython takes away
    return "\n" * empty + TransformerManager().transform_cell(source)


def lint_file(path: Path, unread: list[str] | None = None) -> list[LintFinding]:
    """Lint a ``.py`` or ``.ipynb`` file; why one cannot be read is added to ``unread``."""
    name, notes = str(path), [] if unread is None else unread
    try:
        data = path.read_bytes()
        if not _concerns(data):
            return []
        if path.suffix == ".ipynb":
            return _lint_notebook(data.decode("utf-8-sig"), name, notes)
        encoding, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
        text = io.StringIO(data.decode(encoding), newline=None).read()
    except (OSError, SyntaxError, UnicodeDecodeError, LookupError) as error:
        notes.append(f"{name}: {error}")
        return []
    return _lint_cells([(None, text)], name, notes)


def lint_paths(paths: Iterable[str | os.PathLike[str]]) -> Report:
    """Lint files, and all ``.py`` and ``.ipynb`` files of folders.

    Folders are not entered through symbolic links, so that a loop ends. Hidden folders, virtual
    environments and the like are left out.

    Args:
        paths: files and folders.

    Returns:
        A :class:`Report`.

    Raises:
        TypeError: ``paths`` is no list, or holds what is no path.
    """
    if isinstance(paths, str | bytes | os.PathLike) or not isinstance(paths, Iterable):
        kind = type(paths).__name__
        raise TypeError(f"paths must be a list of files and folders, but is a {kind}: write [path].")
    findings: list[LintFinding] = []
    unread: list[str] = []
    unusable: list[str] = []
    files: dict[str, Path] = {}
    for given in paths:
        if not isinstance(given, str | os.PathLike):
            raise TypeError(f"paths must hold str or paths, but hold a {type(given).__name__}.")
        path = Path(given)
        if str(given) and os.path.isdir(path):
            found = list(_python_files(path, unread))
        else:
            found = [path] if path.suffix in (".py", ".ipynb") and os.path.isfile(path) else []
        if not found:
            unusable.append(str(given) or "''")
        for file in found:
            files.setdefault(os.path.realpath(file), file)
    skipped = 0
    for file in files.values():
        before = len(unread)
        findings += lint_file(file, unread)
        skipped += any(": cell " not in note for note in unread[before:])
    return Report(tuple(findings), len(files) - skipped, tuple(unread), tuple(unusable))


def _python_files(folder: Path, unread: list[str]) -> Iterator[Path]:
    """Yield the files of a folder; note in ``unread`` which folders may not be read."""
    for root, folders, names in os.walk(folder, onerror=lambda e: unread.append(str(e))):
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".")
            and name not in SKIPPED
            and not os.path.exists(os.path.join(root, name, "pyvenv.cfg"))
        )
        for name in sorted(names):
            if name.endswith((".py", ".ipynb")) and not name.startswith("."):
                if os.path.isfile(path := Path(root, name)):
                    yield path


# What is printed ----------------------------------------------------------------------------------


def printable(text: str) -> str:
    """Return text that is one line in a terminal: a file name may hold anything."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def as_text(report: Report) -> str:
    """For people: a line for each place, and under it what to write instead."""
    lines = [
        line
        for f in report.findings
        for line in (f"{f.place}: {f.severity} {f.code}: {f.message}", f"    fix: {f.fix}")
    ]
    files = f"{report.files} file{'s' * (report.files != 1)} read"
    found = f"{len(report.findings)} finding{'s' * (len(report.findings) != 1)}"
    return "\n".join([*map(printable, lines), f"{files}, {found}."])


def as_json(report: Report) -> str:
    """For programs: the findings with all their fields."""
    return json.dumps(vars(report) | {"findings": [vars(f) for f in report.findings]}, indent=2)


def as_github(report: Report) -> str:
    """For GitHub Actions: a workflow command for each place, which marks it in the pull request."""

    def escaped(text: str, more: str = "") -> str:
        text = text.encode(errors="backslashreplace").decode()
        for character in "%\r\n" + more:
            text = text.replace(character, f"%{ord(character):02X}")
        return text

    return "\n".join(
        f"::{f.severity} file={escaped(f.path, ':,')},line={f.line if f.cell is None else 1},"
        f"col={f.column},title={escaped(f.code, ':,')}::"
        + escaped(
            f"{'' if f.cell is None else f'cell {f.cell}, line {f.line}: '}{f.message}. "
            f"Fix: {f.fix}"
        )
        for f in report.findings
    )
