"""Find obsolete and harmful uses of masked-LM labels in source files, without running them.

A file is parsed only if it holds a word that a rule needs. What a finding says stands in
``source.toml``, what transformers no longer has in ``obsolete.toml`` (generated) and what to write
instead in ``instead.toml``. What cannot be read is a note, never a finding.
"""

import ast
import bisect
import functools
import io
import json
import os
import re
import textwrap
import tokenize
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mlmtutor.doctor import recipes
from mlmtutor.doctor.recipes import Found, Program, dotted, is_labels, last, number

LARGEST = 2_000_000  # characters of one file; more is data, and takes minutes to parse
SKIPPED = {"__pycache__", "node_modules", "site-packages", "build", "dist"}
OLD_LIBRARIES = {"pytorch_transformers", "pytorch_pretrained_bert"}
ABOUT_MASKS = re.compile(
    rb"MaskedLM|mask_token|masked_lm_labels|ForLanguageModeling|fill-mask|ForPreTraining|"
    rb"\[MASK\]|<mask>"
)
IMPORTS = re.compile(rb"^[ \t]*(?:from|import)[ \t]+transformers\b", re.M)
FAMILIES = {  # the mask token of a class of tokenizer or a checkpoint, where it is certain
    "<mask>": re.compile(
        r"(XLM|Xlm)?(Roberta|Camembert|Longformer)Tokenizer|vinai/bertweet-(base|large)$|"
        r"(FacebookAI/)?(xlm-)?roberta-(base|large)$|(distilbert/)?distilroberta-base$|"
        r"(almanach/)?camembert(-base)?$|(allenai/longformer|microsoft/codebert)-base(-4096)?$"
    ),
    "[MASK]": re.compile(
        r"(Distil)?(Bert|Electra)Tokenizer|(google-bert/)?bert-(base|large)-|microsoft/deberta-|"
        r"(distilbert/)?distilbert-base-|(albert/)?albert-\w+-v\d|google/(electra|mobilebert)|"
        r"answerdotai/ModernBERT"
    ),
}


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


RULES = tuple(Rule(code, **rule) for code, rule in recipes.table("source.toml").items())


# What transformers no longer has ------------------------------------------------------------------


@functools.cache
def _gone() -> dict[str, dict[str, str]]:
    """For each list of names: name -> the first release without it."""
    read = recipes.table("obsolete.toml")
    lists = {"names": read["names"], "modules": read["modules"], **read["keywords"]}
    gone = {
        title: {name: since for since, names in releases.items() for name in names.split()}
        for title, releases in lists.items()
    }
    gone["methods"] = dict.fromkeys(recipes.table("instead.toml")["methods"], "5.0.0")
    return gone


@functools.cache
def instead(title: str, name: str) -> str:
    """What to write instead of a name; empty where nobody knows."""
    read = recipes.table("instead.toml")
    known = read.get(title) or read["keywords"].get(title, {})
    patterns = known | (read["families"] if title == "names" else {})
    return next((text for pattern, text in patterns.items() if re.fullmatch(pattern, name)), "")


def gone_since(title: str, name: str) -> str | None:
    """The first release that no longer has a name, ``None`` for one that is still there."""
    family = title == "names" and re.match(
        r"TF[A-Z]|Flax[A-Z]|load_tf_|.*_ARCHIVE_(MAP|LIST)$", name
    )
    module = title == "modules" and re.search(r"(^|\.|_)(tf|flax)_", name)
    return _gone()[title].get(name) or ("5.0.0" if family or module else None)


def _obsolete(program: Program) -> Iterator[Found]:
    """Imports, attributes, keywords and methods that are gone."""
    names: list[tuple[str, str, ast.AST, str]] = []  # list, name, place, what is said
    imports, module_gone = "``{}`` cannot be imported", "``transformers.{}`` is gone"
    for node in program.nodes:
        match node:
            case ast.ImportFrom(module=str(module), level=0) if module.startswith("transformers."):
                names.append(("modules", module[13:], node, module_gone))
                names += [("names", alias.name, alias, imports) for alias in node.names]
            case ast.ImportFrom(module="transformers", level=0):
                names += [("names", alias.name, alias, imports) for alias in node.names]
            case ast.Import():
                names += [("modules", a.name[13:], a, module_gone) for a in node.names
                          if a.name.startswith("transformers.")]  # fmt: skip
            case ast.Attribute(value=ast.Name(id=owner)) if program.origin(owner) == "transformers":
                names.append(("names", node.attr, node, imports))
            case ast.Name() if program.origins.get("*") == "transformers.*":
                if node.id not in program.definitions and node.id not in program.origins:
                    names.append(("names", node.id, node, imports))
    tokenizers = any(re.match(r"transformers\..*Tokenizer", o) for o in program.origins.values())
    for call in program.calls:
        owner, method = _class_of_transformers(program, call.func), last(call.func)
        if owner in _gone():
            told = "``{}`` is a TypeError in " + owner
            names += [(owner, word, place, told) for word, _, place in program.keywords(call)]
        if tokenizers and method in ("encode_plus", "batch_encode_plus"):
            names.append(("methods", method, call.func, "tokenizers have no ``{}``"))
        yield from _old_labels(program, call)
    reported: set[ast.AST] = set()
    for title, name, node, told in names:
        since = gone_since(title, name)
        if since and program.parents.get(node) not in reported and not _is_guarded(program, node):
            reported.add(node)
            advice = instead(title, name) or "leave it out"
            fix = f"write {advice}" if advice.startswith("``") else advice
            what = f"{told.format(name)} since transformers {since}"
            yield "obsolete-name", node, {"what": what, "instead": fix}


def _old_labels(program: Program, call: ast.Call) -> Iterator[Found]:
    """``masked_lm_labels`` of a masked model of transformers."""
    bound = last(call.func) == "partial" and call.args
    kinds = program.kinds(call.args[0] if bound else call.func)
    about = "masked" in program.models or "AutoModelWithLMHead" in program.origins
    guess = re.search(r"model|net|bert|mlm|encoder", dotted(call.func).lower())
    origins = {origin.split(".")[0] for origin in program.origins.values()}
    if kinds - {"masked"} or not about or not (kinds or guess) or origins & OLD_LIBRARIES:
        return
    words = [(word, place) for word, _, place in program.keywords(call)]
    stars = {dotted(word.value) for word in call.keywords if word.arg is None} - {""}
    for node in program.nodes if kinds and stars else ():  # batch["masked_lm_labels"] = ...
        if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store):
            words += [(last(node), node)] if dotted(node.value) in stars else []
    taken = {name for _, name in program.parameters}  # by a function of this file
    old = ["masked_lm_labels", "lm_labels"] if kinds else ["masked_lm_labels"]
    for word, place in words:
        likely = kinds or (word not in taken and "logits" not in dict(words))
        if word in old and likely and not _is_guarded(program, call):
            what = f"``{word}`` is the old name: transformers 5 drops it and the loss is None"
            what += "; 4.x raises a TypeError"
            yield "obsolete-name", place, {"what": what, "instead": "call it ``labels``"}


def _class_of_transformers(program: Program, function: ast.expr) -> str:
    """The class of transformers that is called, also through a class of this file."""
    name = dotted(function)
    own = program.definitions.get(name)
    if isinstance(own, ast.ClassDef):
        changed = any(getattr(n, "name", "") == "__init__" or isinstance(n, ast.AnnAssign)
                      for n in own.body)  # fmt: skip
        same = not own.bases or dotted(own.bases[0]) == name
        return "" if changed or same else _class_of_transformers(program, own.bases[0])
    origin = program.origin(name)
    if not origin and program.origins.get("*") == "transformers.*":
        origin = f"transformers.{name}"
    return origin.rpartition(".")[2] if re.match(r"transformers\b", origin) else ""


def _is_guarded(program: Program, node: ast.AST) -> bool:
    """Whether a place is for other releases: in a ``try``, after a look at the version."""
    parent = program.parents.get(node)
    while parent is not None:
        handlers = [parent] if isinstance(parent, ast.ExceptHandler) else []
        if isinstance(parent, ast.Try) and node in parent.body:
            handlers = parent.handlers
        caught = {last(n) for h in handlers for n in ast.walk(h.type or ast.Name("Exception"))}
        test = parent.test if isinstance(parent, ast.If | ast.IfExp) else ast.Pass()
        words = " ".join(last(n) for n in ast.walk(test))
        if caught & {
            "ImportError",
            "ModuleNotFoundError",
            "AttributeError",
            "TypeError",
            "Exception",
        }:
            return True
        if re.search(r"version|is_\w+_available|TYPE_CHECKING|hasattr|signature", words, re.I):
            return True
        node, parent = parent, program.parents.get(parent)
    return False


# Rules that look at calls -------------------------------------------------------------------------


def _hand_spelled(program: Program) -> Iterator[Found]:
    """A mask token in a text that is given to a tokenizer of another family."""
    for call in program.calls:
        owner = call.func
        if re.match(r"tokenize$|(batch_)?encode(_plus)?$|convert_tokens_to_ids$", last(owner)):
            owner = getattr(owner, "value", owner)
        families = {_family(v) for v, _ in program.values(owner)} if dotted(owner) else set()
        if len(families) != 1 or not (own := families.pop()):
            continue
        for argument in (*call.args, *(word.value for word in call.keywords)):
            known = [value for value, _ in program.values(argument)] if dotted(argument) else []
            parts = [node for value in known or [argument] for node in ast.walk(value)]
            for node in parts if not any(isinstance(part, ast.Call) for part in parts) else ():
                text = str(getattr(node, "value", "")) if isinstance(node, ast.Constant) else ""
                for wrong in set(recipes.SPELLINGS) - {own}:
                    if wrong in text and "</mask>" not in text:
                        what = f"this tokenizer does not know ``{wrong}``: it is split up, and "
                        yield "hand-spelled-mask", node, {"what": what + "nothing is masked"}


def _family(value: ast.expr) -> str:
    """The mask token of the tokenizer or pipeline that an expression makes, if that is certain."""
    if not isinstance(value, ast.Call):
        return ""
    words = {word.arg: word.value for word in value.keywords}
    names: list[object] = [last(getattr(value.func, "value", None)), *value.args[:1]]
    if last(value.func) == "pipeline":
        names = [words.get("tokenizer") or words.get("model"), *value.args[1:2]]
    elif last(value.func) != "from_pretrained" or "mask_token" in words:
        return ""
    texts = [str(getattr(name, "value", name)) for name in names]
    found = [mask for mask, known in FAMILIES.items() if any(known.match(text) for text in texts)]
    return found[0] if found else ""


def _trainers(program: Program) -> Iterator[Found]:
    """``Trainer``: the model, its collator, its labels and its metric belong together."""
    names = {last(node) for node in program.nodes} | {
        str(getattr(node, "arg", getattr(node, "value", ""))) for node in program.nodes
    }
    labelled = any(is_labels(name) for name in names if name.isidentifier())
    tokenizes = any(re.search(r"tok\w*$", dotted(call.func), re.I) for call in program.calls)
    for call in program.calls:
        if _class_of_transformers(program, call.func) != "Trainer":
            continue
        words = {word: value for word, value, _ in program.keywords(call)}
        kinds = program.kinds(words.get("model") or next(iter(call.args), None))
        given = words.get("data_collator") or next(iter(call.args[2:]), None)
        made = [v for v, _ in program.values(given)] if given and dotted(given) else [given]
        collators = {last(c.func): c for c in made if isinstance(c, ast.Call)}
        masker = collators.get("DataCollatorForLanguageModeling")
        masks = program.masks(masker) if masker else None
        if kinds == {"causal"} and masks is True:
            what = "this collator masks tokens, but a causal model shifts the labels by one"
            fix = "``mlm=False`` for this model, or load it with ``AutoModelForMaskedLM``"
            yield "collator-of-another-task", call, {"what": what, "instead": fix}
        if kinds != {"masked"}:
            continue
        if masks is False:
            what = "``mlm=False`` masks nothing: each label is the token that the model sees"
            yield "collator-of-another-task", call, {"what": what, "instead": "``mlm=True``"}
        plain = not given or "DataCollatorWithPadding" in collators
        if plain and tokenizes and not labelled and not program.collates:
            yield "no-labels-for-trainer", call, {}
        yield from _metric(program.definitions.get(last(words.get("compute_metrics"))))


def _metric(function: ast.AST | None) -> Iterator[Found]:
    """A metric that takes all positions: nothing in it looks for the ignored ones."""
    inside = list(ast.walk(function)) if function else []
    for n in inside:
        if number(n) == -100 or isinstance(n, ast.NotEq | ast.Gt | ast.GtE) or "ignore" in last(n):
            return
    for node in inside:
        scores = isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.Eq)
        if isinstance(node, ast.Call):
            scores = bool(
                re.match(r"(accuracy|f1|precision|recall)_score|compute$", last(node.func))
            )
        if scores and any(is_labels(last(n)) for n in ast.walk(node)):
            yield "metric-counts-ignored", node, {}
            return


def _half_resized(program: Program) -> Iterator[Found]:
    for call in program.called.get("resize_token_embeddings", []):
        owner = getattr(call.func, "value", None)
        whole = owner.value if isinstance(owner, ast.Attribute) and owner.attr != "module" else None
        if program.kinds(whole) == {"masked"}:
            yield "half-resized", call, {}


def _recipes(program: Program) -> Iterator[Found]:
    bodies = [
        n.body for n in program.nodes if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    for body in [program.root.body, *bodies]:
        yield from recipes.Recipe(program, body).found.values()


# Files --------------------------------------------------------------------------------------------


def _concerns(text: bytes) -> bool:
    """Whether a rule could find anything: decided before a file is parsed."""
    if ABOUT_MASKS.search(text):
        return True
    if not IMPORTS.search(text):
        return False
    words = set(re.findall(r"\w{3,}", text.decode("utf-8", "replace")))
    modules = rb"transformers\.[\w.]*(tf_|flax_|modeling_|tokenization_|configuration_|tools|data)"
    gone = words & set().union(*_gone().values())
    return bool(gone or re.search(rb"\b(TF|Flax)[A-Z]", text) or re.search(modules, text))


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
        sources: list[tuple[int | None, str]] = [
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
    findings: dict[tuple[str, int, int], LintFinding] = {}
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
        looks = (_obsolete, _recipes, _hand_spelled, _trainers, _half_resized)
        found = [one for look in looks for one in look(program)]
    except RecursionError:
        unread.append(f"{path}: too deeply nested")
        return []
    rules = {rule.code: rule for rule in RULES}
    for code, place, words in found:
        first, column = getattr(place, "lineno", 1), getattr(place, "col_offset", 0) + 1
        start, index = starts[bisect.bisect_left([line for line, _ in starts], first) - 1]
        rule = rules[code]
        texts = words.get("what", rule.title), words.get("instead", rule.fix)
        title, fix = (text.replace("``", "`") for text in texts)
        findings[code, first, column] = LintFinding(
            path, first - start, column, index, code, rule.severity, title, fix
        )
    return sorted(findings.values(), key=lambda found: (found.cell or 0, found.line, found.column))


def _parse(source: str, notebook: bool) -> ast.Module:
    """Parse without running. A notebook cell may use ``await``, and magics."""
    flags = ast.PyCF_ONLY_AST | (ast.PyCF_ALLOW_TOP_LEVEL_AWAIT if notebook else 0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the source that is read: "\d" and the like
        try:
            tree = compile(source, "<source>", "exec", flags, dont_inherit=True)
        except SyntaxError:
            if not notebook:
                raise
            tree = compile(_without_magics(source), "<source>", "exec", flags, dont_inherit=True)
    assert isinstance(tree, ast.Module)
    return tree


def _without_magics(source: str) -> str:
    """A cell as Python: by IPython where it is installed, else without the lines of magics."""
    start = re.match(r"\s*%%(\w+)[^\n]*", source)
    if start and start[1] not in ("time", "timeit", "capture", "prun"):
        return ""
    source = "\n" * start[0].count("\n") + source[start.end() :] if start else source
    source = textwrap.dedent(source)
    try:
        from IPython.core.inputtransformer2 import TransformerManager
    except ImportError:
        source = re.sub(r"^([ \t]*)(?:[%!?].*|[\w.]+\?{1,2}\s*)$", r"\1pass", source, flags=re.M)
        return re.sub(r"=\s*[%!][^\n]*", "= None", source)
    empty = len(source) - len(source.lstrip("\n"))  # which IPython takes away
    return "\n" * empty + str(TransformerManager().transform_cell(source))  # type: ignore[no-untyped-call]


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
        told = f"paths must be a list of files and folders, but is a {type(paths).__name__}"
        raise TypeError(f"{told}: write [path].")
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
            path = Path(root, name)
            wanted = name.endswith((".py", ".ipynb")) and not name.startswith(".")
            if wanted and os.path.isfile(path):
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
