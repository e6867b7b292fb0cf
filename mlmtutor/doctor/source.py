"""Find obsolete and harmful uses of masked-LM labels in source files, without running them.

Files are read as syntax trees. A finding needs evidence that the code is about masked language
modeling: a call counts as one of a masked model only where the class of the model can be followed
by its name through the file. ``labels=input_ids`` is right for a causal model, and ``labels=`` of a
classifier is nobody's business here.
"""

import ast
import bisect
import io
import json
import os
import re
import tokenize
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = [
    "LintFinding",
    "Report",
    "as_github",
    "as_json",
    "as_text",
    "lint_file",
    "lint_notebook",
    "lint_paths",
    "lint_source",
]

LARGEST_SOURCE = 2_000_000  # characters; more is data, not a program, and takes minutes to parse
MOST_STEPS = 20_000_000  # visits of nodes by all rules of a file: some seconds
LARGEST_FILE = 200_000_000  # bytes; a notebook with its pictures may be large
SKIPPED_FOLDERS = {"__pycache__", "node_modules", "site-packages", "build", "dist"}
OLD_KEYWORDS = ("masked_lm_labels", "lm_labels")
LIBRARIES = ("transformers", "pytorch_transformers", "pytorch_pretrained_bert", "adapters")
MASKED_MODEL = re.compile(r"ForMaskedLM$|^(TF|Flax)?(Bert|Albert|MobileBert)ForPreTraining$")
OTHER_MODEL = re.compile(r"^[A-Z]\w*(For[A-Z]\w+|LMHeadModel|Model)$")
BRACKETS = re.compile(
    r"(^|/)(bert-(base|large|tiny|mini|small|medium)|distilbert|albert|electra|deberta|mobilebert|"
    r"modernbert-(base|large)|scibert|biobert|finbert)",
    re.I,
)
ANGLES = re.compile(
    r"^(FacebookAI/)?(xlm-)?roberta-(base|large)|"  # klue/roberta-base has the tokenizer of BERT
    r"(^|/)(distilroberta|camembert(?!a|v2)|bertweet|longformer|codebert)",
    re.I,
)
SPELLINGS = ("[MASK]", "<mask>")
DIVIDES = re.compile(r"modern_?bert|euro_?bert", re.I)  # their loss heeds num_items_in_batch


@dataclass(frozen=True)
class Rule:
    """One thing that is looked for."""

    code: str
    severity: str
    title: str
    fix: str
    source: str
    function: Callable[["Module"], Iterator[ast.AST]]


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
    """What :func:`lint_paths` returns: findings, the number of files read, paths not usable."""

    findings: tuple[LintFinding, ...]
    files: int
    unusable: tuple[str, ...]


# One file as facts ------------------------------------------------------------------------------


@dataclass
class Scope:
    """A function, a class or the module, and what is known about the names in it."""

    parent: "Scope | None" = None
    is_class: bool = False
    kinds: dict[str, list[tuple[int, str]]] = field(default_factory=dict)


class TooMuch(Exception):
    """A file would keep the rules busy for minutes; no program that people write does."""


class Module:
    """The syntax tree of a file, with the class of each model followed by name.

    Attributes:
        nodes: all nodes, in the order of the source.
        parents: the parent of each node.
        scopes: the scope of each node.
        origins: where an imported name comes from, such as ``transformers.BertForMaskedLM``.
        dicts: dictionaries that were assigned to a name, for ``Trainer(**arguments)``.
        mask_ids: names that hold the id of the mask token.
        is_masked_lm: whether anything in the file shows that it is about masked language modeling.
    """

    def __init__(self, body: list[ast.stmt]) -> None:
        self.nodes: list[ast.AST] = []
        self.steps = 0
        self.parents: dict[ast.AST, ast.AST] = {}
        self.scopes: dict[ast.AST, Scope] = {}
        self.origins: dict[str, str] = {}
        self.dicts: dict[str, ast.AST] = {}
        self.mask_ids: set[str] = set()
        self.classes: dict[str, ast.ClassDef] = {}
        self.functions: dict[str, set[str]] = {}  # name: the kinds of model that it returns
        self.parameters: set[str] = set()
        self.anywhere: dict[str, set[str]] = {}
        self._walk(ast.Module(body=body, type_ignores=[]))
        for node in self.nodes:
            self._learn(node)
        self.is_masked_lm = any(self._is_evidence(node) for node in self.nodes)

    def _walk(self, root: ast.AST) -> None:
        """Visit all nodes without recursion: a tree may be deeper than Python's stack."""
        stack = [(root, Scope())]
        while stack:
            node, scope = stack.pop()
            self.nodes.append(node)
            self.scopes[node] = scope
            if isinstance(node, ast.ClassDef):
                self.classes[node.name] = node
                scope = Scope(scope, is_class=True)
            elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
                scope = Scope(scope)
            children = list(ast.iter_child_nodes(node))
            for child in children:
                self.parents[child] = node
            stack += [(child, scope) for child in reversed(children)]

    def _learn(self, node: ast.AST) -> None:
        if isinstance(node, ast.Import | ast.ImportFrom):
            start = f"{node.module or ''}." if isinstance(node, ast.ImportFrom) else ""
            if isinstance(node, ast.ImportFrom) and node.level:
                start = "." * node.level + start
            for alias in node.names:
                name = alias.asname or (alias.name if start else alias.name.split(".")[0])
                self.origins[name] = start + alias.name
        elif isinstance(node, ast.arg):
            self.parameters.add(node.arg)
            kind = self.kind_of_class(dotted(node.annotation))
            if kind is not None:
                self._remember(node.arg, kind, node, self.scopes[node])
        elif isinstance(node, ast.Assign):
            for target in node.targets:
                self._assign(target, node.value)
        elif isinstance(node, ast.AnnAssign | ast.NamedExpr) and node.value is not None:
            self._assign(node.target, node.value)
        elif isinstance(node, ast.Return) and node.value is not None:
            holder = self.parents.get(node)
            while holder is not None and not isinstance(holder, ast.FunctionDef):
                holder = self.parents.get(holder)
            if isinstance(holder, ast.FunctionDef):
                self.functions.setdefault(holder.name, set()).add(self.kind(node.value) or "?")

    def _assign(self, target: ast.AST, value: ast.expr) -> None:
        if isinstance(target, ast.Tuple | ast.List):
            parts: list[ast.expr] = []
            if isinstance(value, ast.Tuple | ast.List):
                parts = value.elts
            elif isinstance(value, ast.Call) and last_name(value.func) == "prepare":
                parts = value.args  # accelerate: model, optimizer = accelerator.prepare(...)
            if len(parts) == len(target.elts):
                for one, part in zip(target.elts, parts, strict=True):
                    self._assign(one, part)
            return
        name = dotted(target)
        if name is None:
            return
        self._remember(name, self.kind(value), target, self.scopes.get(target) or Scope())
        if isinstance(value, ast.Dict) or (
            isinstance(value, ast.Call) and last_name(value.func) == "dict"
        ):
            self.dicts[name] = value
        if self.is_mask_id(value):
            self.mask_ids.add(name)

    def _remember(self, name: str, kind: str | None, node: ast.AST, scope: Scope) -> None:
        while name.startswith("self.") and not scope.is_class and scope.parent is not None:
            scope = scope.parent
        scope.kinds.setdefault(name, []).append((getattr(node, "lineno", 0), kind or "?"))
        self.anywhere.setdefault(name, set()).add(kind or "?")

    def kind_of_class(self, name: str | None) -> str | None:
        """``masked``, ``other`` (another model) or ``None`` (no model that is known)."""
        if name is None:
            return None
        first, _, rest = name.partition(".")
        origin = self.origins.get(first)
        full = name if origin is None else f"{origin}.{rest}" if rest else origin
        short = full.rpartition(".")[2]
        if name in self.classes:
            bases = [dotted(base) for base in self.classes[name].bases if dotted(base) != name]
            kinds = {self.kind_of_class(base) for base in bases}
            return "masked" if "masked" in kinds else "other"
        if origin is not None and full.partition(".")[0] not in LIBRARIES:
            return "other" if OTHER_MODEL.search(short) else None
        if MASKED_MODEL.search(short):
            return "masked"
        return "other" if OTHER_MODEL.search(short) else None

    def kind(self, node: ast.AST | None) -> str | None:
        """The kind of model that an expression is."""
        for _ in range(50):  # model.to(device).eval() and the like; no recursion
            if isinstance(node, ast.Call):
                function = node.func
                method = last_name(function)
                if method in ("from_pretrained", "from_config", "_from_config"):
                    owner = function.value if isinstance(function, ast.Attribute) else None
                    return self.kind_of_class(dotted(owner))
                known = self.kind_of_class(dotted(function))
                if known is not None:
                    return known
                if method in self.functions and len(self.functions[method]) == 1:
                    only = next(iter(self.functions[method]))
                    return None if only == "?" else only
                wrappers = ("DataParallel", "DistributedDataParallel", "compile", "prepare")
                if method in (*wrappers, "get_peft_model", "prepare_model") and node.args:
                    node = node.args[0]
                elif method in ("to", "eval", "train", "cuda", "cpu", "half", "float", "bfloat16"):
                    node = function.value if isinstance(function, ast.Attribute) else None
                else:
                    return None
            elif isinstance(node, ast.Attribute) and node.attr in ("module", "forward"):
                node = node.value
            else:
                break
        name = dotted(node)
        return None if node is None or name is None else self._look_up(name, node)

    def _look_up(self, name: str, node: ast.AST) -> str | None:
        scope: Scope | None = self.scopes.get(node)
        line = getattr(node, "lineno", 0)
        while scope is not None:
            if name in scope.kinds:
                records = scope.kinds[name]
                self.charge(len(records))
                before = [kind for at, kind in records if at <= line]
                every = {kind for _, kind in records}
                found = before[-1] if before else every.pop() if len(every) == 1 else "?"
                return None if found == "?" else found
            scope = scope.parent
        # An argument: is the name used for one kind of model in the whole file?
        kinds = self.anywhere.get(name, set())
        return next(iter(kinds)) if len(kinds) == 1 and "?" not in kinds else None

    def is_mask_id(self, node: ast.AST | None) -> bool:
        """Whether an expression is the id of the mask token."""
        if isinstance(node, ast.Call) and last_name(node.func) in (
            "convert_tokens_to_ids",
            "token_to_id",
        ):
            argument = node.args[0] if node.args else None
            return last_name(argument) == "mask_token" or (
                isinstance(argument, ast.Constant) and argument.value in SPELLINGS
            )
        return last_name(node) == "mask_token_id" or dotted(node) in self.mask_ids

    def _is_evidence(self, node: ast.AST) -> bool:
        if isinstance(node, ast.Call):
            if last_name(node.func) != "DataCollatorForLanguageModeling":
                return False
            flags = [word.value for word in node.keywords if word.arg == "mlm"] + node.args[1:2]
            return not any(isinstance(f, ast.Constant) and f.value is False for f in flags)
        if isinstance(node, ast.Constant):
            return node.value == "fill-mask"
        name = getattr(node, "id", None) or getattr(node, "attr", None) or ""
        if isinstance(node, ast.alias | ast.keyword):
            name = getattr(node, "name", None) or getattr(node, "arg", None) or ""
        if MASKED_MODEL.search(name):
            return self.kind_of_class(name) == "masked" or isinstance(
                node, ast.Attribute | ast.alias
            )
        return name in ("mask_token", "mask_token_id", "DataCollatorForWholeWordMask")

    def charge(self, steps: int) -> None:
        """Count steps of work; raise where a file takes too many."""
        self.steps += steps
        if self.steps > MOST_STEPS:
            raise TooMuch

    def calls(self) -> Iterator[ast.Call]:
        """All calls, in the order of the source."""
        self.charge(len(self.nodes))
        return (node for node in self.nodes if isinstance(node, ast.Call))

    def keywords(self, call: ast.Call) -> Iterator[tuple[str, ast.expr, ast.AST]]:
        """Name, value and place of each keyword, also of ``**arguments`` known in this file."""
        for word in call.keywords:
            if word.arg is not None:
                yield word.arg, word.value, word
                continue
            value: ast.AST | None = word.value
            if not isinstance(value, ast.Dict):
                value = self.dicts.get(dotted(value) or "")
            if isinstance(value, ast.Dict):
                for key, item in zip(value.keys, value.values, strict=True):
                    if isinstance(key, ast.Constant) and isinstance(key.value, str):
                        yield key.value, item, key
            elif isinstance(value, ast.Call):
                yield from (
                    (inner.arg, inner.value, inner) for inner in value.keywords if inner.arg
                )

    def stores(self) -> Iterator[tuple[ast.expr, ast.expr, ast.stmt]]:
        """Target, value and statement of each assignment."""
        self.charge(len(self.nodes))
        for node in self.nodes:
            if isinstance(node, ast.Assign):
                yield from ((target, node.value, node) for target in node.targets)

    def uses(self, value: int) -> bool:
        """Whether a number, negative ones included, stands anywhere in the file."""
        return any(number(node) == value for node in self.nodes)

    def masked_sentence(self) -> bool:
        """Whether a text in the file holds a mask token, spelled or put in by an f-string."""
        for node in self.nodes:
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                if any(word in node.value and node.value != word for word in SPELLINGS):
                    return True
            elif isinstance(node, ast.FormattedValue) and last_name(node.value) == "mask_token":
                return True
        return False


def dotted(node: ast.AST | None) -> str | None:
    """``a.b.c`` of a chain of attributes, or ``None``."""
    parts = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name) or len(parts) > 20:
        return None
    return ".".join([node.id, *reversed(parts)])


def last_name(node: ast.AST | None) -> str | None:
    """The last name of an expression: ``c`` of ``a.b.c``."""
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", None)


def number(node: ast.AST | None) -> int | None:
    """The value of an integer literal; -100 is a minus sign and 100."""
    sign = 1
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        sign, node = -1, node.operand
    if isinstance(node, ast.Constant) and type(node.value) is int:
        return sign * node.value
    return None


def same(one: ast.AST, two: ast.AST) -> bool:
    """Whether two expressions are written alike."""
    try:
        text = [ast.dump(node).replace("Store()", "Load()") for node in (one, two)]
    except RecursionError:
        return False
    return text[0] == text[1]


def is_labels(node: ast.AST | None) -> bool:
    """Whether an expression is named like labels: ``labels``, ``batch["labels"]``, ``x.labels``."""
    name = last_name(node) or ""
    if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
        name = str(node.slice.value)
    return "label" in name.lower() and not name.lower().endswith(("mask", "masks"))


def is_inputs(node: ast.AST | None) -> bool:
    """Whether an expression is named like input ids."""
    if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
        return node.slice.value == "input_ids"
    return last_name(node) == "input_ids"


def unwrapped(node: ast.expr) -> ast.expr:
    """An expression without ``.clone()``, ``.detach()``, ``.copy()``, ``.to(...)`` around it."""
    while (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in ("clone", "detach", "copy", "to", "cuda", "long")
    ):
        node = node.func.value
    return node


# The rules --------------------------------------------------------------------------------------


def _old_keyword(module: Module) -> Iterator[ast.AST]:
    about_masks = module.is_masked_lm or "AutoModelWithLMHead" in module.origins
    for call in module.calls():
        kind = module.kind(call.func)
        if _is_for_old_versions(module, call):
            continue
        for name, _, place in module.keywords(call):
            if name not in OLD_KEYWORDS or kind == "other":
                continue
            # A model that cannot be followed counts, in a file about masked models, unless a
            # function here takes the argument. A capital letter makes a record of some kind.
            own = name in module.parameters or (last_name(call.func) or "A")[0].isupper()
            likely = about_masks and name == OLD_KEYWORDS[0] and not own
            if kind == "masked" or (likely and last_name(call.func) != "dict"):
                yield place
    uses_masked_model = any(module.kind(call.func) == "masked" for call in module.calls())
    for target, _, _ in module.stores():
        if isinstance(target, ast.Subscript) and isinstance(target.slice, ast.Constant):
            old = target.slice.value == OLD_KEYWORDS[0]
            if old and uses_masked_model and OLD_KEYWORDS[0] not in module.parameters:
                yield target


def _label_is_mask(module: Module) -> Iterator[ast.AST]:
    writes_mask = [
        target.value
        for target, value, _ in module.stores()
        if isinstance(target, ast.Subscript) and module.is_mask_id(value)
    ]
    for target, value, statement in module.stores():
        element = isinstance(target, ast.Subscript) and is_labels(target.value)
        if element and module.is_mask_id(value):
            yield statement
        elif isinstance(target, ast.Subscript) and element and number(value) == -100:
            # labels[labels != mask_token_id] = -100: what is left is the mask id
            if _compares_with_mask(module, target.slice, target.value, ast.NotEq):
                yield statement
        elif element and isinstance(target, ast.Subscript) and isinstance(value, ast.Subscript):
            # labels[i] = input_ids[i], where the text has a mask token and no id is replaced later
            base = value.value
            copied = is_inputs(base) and same(value.slice, target.slice)
            masked_here = any(same(base, written) for written in writes_mask)
            if copied and not masked_here and module.masked_sentence():
                yield statement
        elif is_labels(target) and isinstance(value, ast.ListComp):
            chosen = value.elt
            if isinstance(chosen, ast.IfExp) and (
                _compares_with_mask(module, chosen.test, chosen.body, ast.Eq)
                or _compares_with_mask(module, chosen.test, chosen.orelse, ast.NotEq)
            ):
                yield statement  # [i if i == mask_token_id else -100 for i in input_ids]
        elif is_labels(target) and isinstance(value, ast.Call):
            if _fills_with_mask(module, value):
                yield statement
        elif is_labels(target) and isinstance(value, ast.Subscript | ast.Name | ast.Attribute):
            tokenized = value.value if isinstance(value, ast.Subscript | ast.Attribute) else None
            texts = tokenized.args if isinstance(tokenized, ast.Call) else []
            if any(
                isinstance(text, ast.Constant)
                and isinstance(text.value, str)
                and any(word in text.value for word in SPELLINGS)
                for text in texts
            ):
                yield statement  # labels = tokenizer("... [MASK] ...")["input_ids"]
            elif _masked_later(module, target, value, statement):
                yield statement


def _fills_with_mask(module: Module, call: ast.Call) -> bool:
    """``where(..., mask_id, -100)``, ``where(ids == mask_id, ids, -100)``, or with ``!=``."""
    name, arguments = last_name(call.func), call.args
    if name in ("full", "full_like", "masked_fill", "where"):
        if any(module.is_mask_id(argument) for argument in arguments[1:]):
            return True
        if name == "where" and len(arguments) == 3:
            test, yes, no = arguments
            return _compares_with_mask(module, test, yes, ast.Eq) or _compares_with_mask(
                module, test, no, ast.NotEq
            )
        if name == "masked_fill" and len(arguments) == 2 and isinstance(call.func, ast.Attribute):
            return _compares_with_mask(module, arguments[0], call.func.value, ast.NotEq)
    return False


def _compares_with_mask(
    module: Module, test: ast.expr, ids: ast.expr, operator: type[ast.cmpop]
) -> bool:
    """Whether a test is ``ids == mask_token_id`` (or ``!=``) of these same ids."""
    return (
        isinstance(test, ast.Compare)
        and isinstance(test.ops[0], operator)
        and module.is_mask_id(test.comparators[0])
        and same(test.left, unwrapped(ids))
    )


def _masked_later(module: Module, labels: ast.expr, ids: ast.expr, first: ast.stmt) -> bool:
    """Labels = input_ids without a copy, and then input_ids[...] = mask_token_id."""
    if isinstance(ids, ast.Subscript) and not is_inputs(ids):
        return False
    for target, value, statement in module.stores():
        if statement.lineno <= first.lineno:
            continue
        if module.scopes[statement] is not module.scopes[first]:
            continue
        if same(target, labels) or same(target, ids):
            return False  # a new tensor: no longer the same one
        element = isinstance(target, ast.Subscript) and same(target.value, ids)
        if element and module.is_mask_id(value):
            return True
    return False


def _labels_are_inputs(module: Module) -> Iterator[ast.AST]:
    masked_calls = [call for call in module.calls() if module.kind(call.func) == "masked"]
    for call in masked_calls:
        words = {name: value for name, value, _ in module.keywords(call)}
        ids = words.get("input_ids", call.args[0] if call.args else None)
        for name, value, place in module.keywords(call):
            if name in ("labels", *OLD_KEYWORDS):
                plain = unwrapped(value)
                copied = _only_source(module, plain)
                if is_inputs(plain) or (
                    ids is not None
                    and any(same(one, unwrapped(ids)) for one in (plain, copied) if one is not None)
                ):
                    yield place
    collates = any(last_name(c.func) == "DataCollatorForLanguageModeling" for c in module.calls())
    if collates or module.uses(-100) or not masked_calls:
        return
    if any(module.kind(call.func) == "other" for call in module.calls()):
        return
    for target, value, statement in module.stores():
        key = target.slice if isinstance(target, ast.Subscript) else None
        named = isinstance(key, ast.Constant) and key.value == "labels"
        if named and is_inputs(unwrapped(value)):
            yield statement


def _only_source(module: Module, labels: ast.expr) -> ast.expr | None:
    """What a name was copied from, if nothing else is done with it than to pass it as labels."""
    if not isinstance(labels, ast.Name):
        return None
    module.charge(len(module.nodes))
    others = [n for n in module.nodes if isinstance(n, ast.Name) and n.id == labels.id]
    stores = [value for target, value, _ in module.stores() if same(target, labels)]
    return unwrapped(stores[0]) if len(stores) == 1 and len(others) == 2 else None


def _minus_one(module: Module) -> Iterator[ast.AST]:
    if not module.is_masked_lm:
        return
    losses = ("CrossEntropyLoss", "cross_entropy", "NLLLoss", "nll_loss")
    ignoring = [
        (call, place)
        for call in module.calls()
        for name, value, place in module.keywords(call)
        if name == "ignore_index" and number(value) == -1
    ]
    collates = any(
        last_name(call.func) == "DataCollatorForLanguageModeling" for call in module.calls()
    )
    made_for_100 = module.uses(-100) or collates
    for call, place in ignoring:
        if module.kind(call.func) == "masked" or (last_name(call.func) in losses and made_for_100):
            yield place
    passed = [
        dotted(value)
        for call in module.calls()
        if module.kind(call.func) == "masked"
        for name, value, _ in module.keywords(call)
        if name == "labels" or name in OLD_KEYWORDS
    ]
    names = {name for name in passed if name is not None}
    if ignoring or not passed:
        return  # a loss of its own that ignores -1 is right
    fills = ("where", "masked_fill", "full", "full_like")
    for target, value, statement in module.stores():
        owner = target.value if isinstance(target, ast.Subscript) else target
        if isinstance(target, ast.Subscript) and (is_labels(owner) or dotted(owner) in names):
            filled: ast.expr | None = value
        elif not is_labels(target) and dotted(target) not in names:
            continue
        elif isinstance(value, ast.Call) and last_name(value.func) in fills and value.args:
            filled = value.args[-1]
        elif isinstance(value, ast.BinOp) and isinstance(value.left, ast.List):
            filled = value.left.elts[0] if value.left.elts else None  # [-1] * length
        elif isinstance(value, ast.ListComp) and isinstance(value.elt, ast.IfExp):
            filled = value.elt.orelse  # [answer if chosen else -1 for ...]
        else:
            continue
        if number(filled) == -1:
            yield statement
    for call in module.calls():
        method = call.func if isinstance(call.func, ast.Attribute) else None
        fills_labels = method and method.attr == "masked_fill_" and is_labels(method.value)
        if fills_labels and call.args and number(call.args[-1]) == -1:
            yield call


def _removed_collator(module: Module) -> Iterator[ast.AST]:
    name = "DataCollatorForWholeWordMask"
    if name in module.classes:
        return
    for node in module.nodes:
        imported = isinstance(node, ast.alias) and node.name == name
        used = imported or (isinstance(node, ast.Attribute) and node.attr == name)
        if isinstance(node, ast.Name) and node.id == name and name not in module.origins:
            used = module.origins.get("*", "").partition(".")[0] in LIBRARIES
        if used and not _import_is_guarded(module, node):
            yield node


def _import_is_guarded(module: Module, node: ast.AST) -> bool:
    parent = module.parents.get(node)
    while parent is not None:
        if isinstance(parent, ast.Try):
            caught = [dotted(handler.type) for handler in parent.handlers]
            if {"ImportError", "AttributeError", "Exception", None} & set(caught):
                return True
        parent = module.parents.get(parent)
    return False


def _is_for_old_versions(module: Module, node: ast.AST) -> bool:
    """Whether a place is reached only after a TypeError, or after a look at the version."""
    parent = module.parents.get(node)
    while parent is not None:
        if isinstance(parent, ast.ExceptHandler) and dotted(parent.type) == "TypeError":
            return True
        if isinstance(parent, ast.If | ast.IfExp) and any(
            "version" in (last_name(part) or "").lower() for part in ast.walk(parent.test)
        ):
            return True
        parent = module.parents.get(parent)
    return False


def _of_transformers(module: Module, function: ast.expr, names: Iterable[str]) -> bool:
    """Whether a call is one of these classes of transformers, or of a class made from it here."""
    name = dotted(function) or ""
    for _ in range(10):
        first, _, rest = name.partition(".")
        origin = module.origins.get(first)
        full = name if origin is None else f"{origin}.{rest}" if rest else origin
        if full.rpartition(".")[2] in names:
            return origin is None or full.partition(".")[0] in LIBRARIES
        if name not in module.classes or not module.classes[name].bases:
            return False
        name = dotted(module.classes[name].bases[0]) or ""
    return False


def _evaluation_strategy(module: Module) -> Iterator[ast.AST]:
    classes = ("TrainingArguments", "Seq2SeqTrainingArguments")
    for call in module.calls() if module.is_masked_lm else ():
        if _of_transformers(module, call.func, classes) and not _is_for_old_versions(module, call):
            yield from (
                place for name, _, place in module.keywords(call) if name == "evaluation_strategy"
            )


def _trainer_tokenizer(module: Module) -> Iterator[ast.AST]:
    for call in module.calls() if module.is_masked_lm else ():
        trainer = _of_transformers(module, call.func, ("Trainer", "Seq2SeqTrainer"))
        if trainer and not _is_for_old_versions(module, call):
            yield from (place for name, _, place in module.keywords(call) if name == "tokenizer")


def _accumulation(module: Module) -> Iterator[ast.AST]:
    """Trainer with gradient accumulation, and nothing in the file that repairs its loss."""
    calls = list(module.calls()) if module.is_masked_lm else []
    if not any(_of_transformers(module, call.func, ("Trainer",)) for call in calls):
        return
    for node in module.nodes:
        repaired = isinstance(node, ast.FunctionDef) and node.name == "compute_loss"
        repaired |= isinstance(node, ast.keyword) and node.arg == "compute_loss_func"
        repaired |= isinstance(node, ast.Attribute) and node.attr in (
            "accepts_loss_kwargs",
            "model_accepts_loss_kwargs",
            "loss_is_scaled_for_ga",
        )
        text = node.value if isinstance(node, ast.Constant) else last_name(node)
        if repaired or (isinstance(text, str) and DIVIDES.search(text)):
            return
    for call in calls:
        if _of_transformers(module, call.func, ("TrainingArguments",)):
            for name, value, place in module.keywords(call):
                if name == "gradient_accumulation_steps" and (number(value) or 1) > 1:
                    yield place


def _hand_spelled(module: Module) -> Iterator[ast.AST]:
    """A mask token in a text, where every tokenizer of the file belongs to the other family."""
    families = set()
    for call in module.calls():
        owner = call.func.value if isinstance(call.func, ast.Attribute) else None
        if last_name(call.func) == "from_pretrained":
            cls = last_name(owner) or ""
            values = [*call.args[:1], *(word.value for word in call.keywords)]
        elif last_name(call.func) == "pipeline":
            cls, values = "", [*call.args, *(word.value for word in call.keywords)]
        else:
            continue
        if re.match(r"(XLM|Xlm)?(Roberta|Camembert)Tokenizer", cls):
            families.add("<mask>")
        elif re.match(r"(Distil)?(Bert|Electra)Tokenizer", cls):
            families.add("[MASK]")
        else:
            if cls and "Tokenizer" not in cls:
                continue
            names = [str(v.value) for v in values if isinstance(v, ast.Constant)]
            names = [name for name in names if name != "fill-mask"]
            known = {
                "[MASK]" if BRACKETS.search(name) else "<mask>" if ANGLES.search(name) else "?"
                for name in names[:1]
            }
            families |= known or {"?"}
    repaired = any(
        last_name(call.func) == "replace"
        and any(
            last_name(a) == "mask_token" or (isinstance(a, ast.Constant) and a.value in SPELLINGS)
            for a in call.args[1:]
        )
        for call in module.calls()
    )
    if len(families) != 1 or "?" in families or repaired:
        return
    own = families.pop()
    wrong = SPELLINGS[1 - SPELLINGS.index(own)]
    for node in module.nodes:
        if not isinstance(node, ast.Constant) or not isinstance(node.value, str):
            continue
        if wrong not in node.value or "</mask>" in node.value or _is_explained(module, node):
            continue
        parent = module.parents.get(node)
        converts = (
            isinstance(parent, ast.Call) and last_name(parent.func) == "convert_tokens_to_ids"
        )
        joined = isinstance(parent, ast.BinOp) and isinstance(parent.op, ast.Add)
        if node.value.strip() != wrong or converts or joined:
            yield node


def _is_explained(module: Module, node: ast.Constant) -> bool:
    """Whether a text is a docstring, is compared or printed, or says what the mask token is."""
    parent = module.parents.get(node)
    if isinstance(parent, ast.Expr):
        return True
    while isinstance(parent, ast.expr | ast.keyword):
        defines = isinstance(parent, ast.keyword) and "token" in (parent.arg or "")
        told = isinstance(parent, ast.Call) and last_name(parent.func) in (
            "print",
            "add_special_tokens",
            "add_tokens",
            "replace",
            "sub",
            "split",
            "warn",
            "warning",
            "info",
            "debug",
            "error",
            "add_argument",
        )
        if defines or told or isinstance(parent, ast.Compare):
            return True
        parent = module.parents.get(parent)
    return isinstance(parent, ast.Raise | ast.Assert)


RULES = (
    Rule(
        "old-label-keyword",
        "error",
        "``masked_lm_labels`` or ``lm_labels`` is passed to a masked model: transformers 5 ignores "
        "it and the loss is None, 4.x raises a TypeError",
        "call it ``labels``",
        "transformers#3315, transformers#5156; SO 61470768",
        _old_keyword,
    ),
    Rule(
        "label-is-mask",
        "error",
        "the labels are the id of the mask token itself, so the model learns to answer [MASK]",
        "take the labels from the ids before masking: ``labels = input_ids.clone()`` first",
        "wzzzd/pretrain_bert_with_maskLM#2; the example of SO 61470768 as retold on the web",
        _label_is_mask,
    ),
    Rule(
        "labels-are-inputs",
        "error",
        "``labels=input_ids`` of a masked model scores every position, and most can be copied",
        "set the labels to -100 where nothing is predicted: "
        "``torch.where(input_ids == tokenizer.mask_token_id, original_ids, -100)``",
        "transformers#20797, lucidrains/mlm-pytorch#2",
        _labels_are_inputs,
    ),
    Rule(
        "ignore-minus-one",
        "error",
        "-1 is used for 'not scored', which ended with release 2.4.0: it is out of bounds now",
        "use -100, the ignore_index of CrossEntropyLoss",
        "transformers#2718, transformers#2737",
        _minus_one,
    ),
    Rule(
        "removed-collator",
        "error",
        "``DataCollatorForWholeWordMask`` is gone from transformers 5",
        "``DataCollatorForLanguageModeling(tokenizer, whole_word_mask=True)``, and call the "
        "tokenizer with ``return_offsets_mapping=True``",
        "transformers#12998, transformers PR #39485",
        _removed_collator,
    ),
    Rule(
        "evaluation-strategy",
        "error",
        "``evaluation_strategy`` is a TypeError in transformers 5",
        "call it ``eval_strategy``",
        "huggingface/course#987",
        _evaluation_strategy,
    ),
    Rule(
        "trainer-tokenizer",
        "error",
        "``Trainer(tokenizer=...)`` is a TypeError in transformers 5",
        "call it ``processing_class``",
        "huggingface/course#987",
        _trainer_tokenizer,
    ),
    Rule(
        "accumulation-inflated",
        "warning",
        "``Trainer`` accumulates gradients of a masked model: on transformers 5 its loss and "
        "gradient are too large by the number of steps, unless the model divides by "
        "``num_items_in_batch``, which BERT does not",
        "``Trainer(..., compute_loss_func=mlmtutor.trainer_loss)``",
        "transformers#47688, transformers#37766",
        _accumulation,
    ),
    Rule(
        "hand-spelled-mask",
        "error",
        "the mask token of another family is written in the text: this tokenizer splits it up",
        'write it with the tokenizer: ``f"... {tokenizer.mask_token} ..."``',
        "transformers#2132, transformers#3318",
        _hand_spelled,
    ),
    Rule(
        "does-not-parse",
        "error",
        "the file cannot be read as Python",
        "repair the syntax, or leave the file out",
        "``ast.parse`` of Python",
        lambda module: iter(()),
    ),
)
DOES_NOT_PARSE = RULES[-1]


# Files --------------------------------------------------------------------------------------------


def lint_source(source: str, path: str = "<source>") -> list[LintFinding]:
    """Lint Python source.

    Args:
        source: the text of a Python file. It is parsed, never run.
        path: the name to report.

    Returns:
        The findings, by line.

    Raises:
        TypeError: ``source`` is not a str.

    Example:
        >>> source = '''
        ... model = BertForMaskedLM.from_pretrained("bert-base-uncased")
        ... loss = model(input_ids, masked_lm_labels=labels)[0]
        ... '''
        >>> [(finding.line, finding.code) for finding in lint_source(source)]
        [(3, 'old-label-keyword')]
    """
    _require_text("source", source)
    return _lint_cells([(None, source)], path)


def lint_notebook(text: str, path: str = "<notebook>") -> list[LintFinding]:
    """Lint a Jupyter notebook, all cells together.

    Args:
        text: the JSON of the file. Lines with magics (``%``, ``!``, ``?``) are left out, as are
            cells of other languages; a notebook of another kernel has no findings.
        path: the name to report.

    Returns:
        The findings, by cell and line.

    Raises:
        TypeError: ``text`` is not a str.
    """
    _require_text("text", text)
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
        sources: list[tuple[int | None, str]] = []
        for index, cell in enumerate(cells):
            if cell.get("cell_type") == "code":
                lines = cell.get("source", cell.get("input", ""))
                sources.append((index, lines if isinstance(lines, str) else "".join(lines)))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        return [_unparsed(path, 1, 1, None, f"not a notebook: {type(error).__name__}: {error}")]
    return _lint_cells(sources, path)


def _require_text(name: str, value: object) -> None:
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a str, but is a {type(value).__name__}: decode it first.")


def _lint_cells(cells: list[tuple[int | None, str]], path: str) -> list[LintFinding]:
    findings = []
    body: list[ast.stmt] = []
    starts: list[tuple[int, int | None]] = []  # the line before each cell, in all cells together
    lines = size = 0
    for cell, source in cells:
        starts.append((lines, cell))
        size += len(source)
        if size > LARGEST_SOURCE:
            reason = f"{size:,} characters are not read (limit {LARGEST_SOURCE:,}, all cells)"
            findings.append(_unparsed(path, 1, 1, cell, reason))
            continue
        try:
            tree = _parse(source, notebook=cell is not None)
        except (SyntaxError, ValueError, OverflowError, RecursionError, MemoryError) as error:
            line = getattr(error, "lineno", None) or 1
            column = getattr(error, "offset", None) or 1
            reason = getattr(error, "msg", None) or str(error) or type(error).__name__
            findings.append(_unparsed(path, line, column, cell, reason))
            continue
        ast.increment_lineno(tree, lines)
        body += tree.body
        lines += source.count("\n") + 2
    try:
        module = Module(body)
        places = [(rule, node) for rule in RULES for node in rule.function(module)]
    except RecursionError:
        return [*findings, _unparsed(path, 1, 1, None, "too deeply nested")]
    except TooMuch:
        return [*findings, _unparsed(path, 1, 1, None, "too long to be followed by name")]
    seen = set()
    firsts = [first for first, _ in starts]
    for rule, node in places:
        line, column = getattr(node, "lineno", 1), getattr(node, "col_offset", 0) + 1
        if (rule.code, line, column) in seen:
            continue
        seen.add((rule.code, line, column))
        start, cell = starts[bisect.bisect_left(firsts, line) - 1]
        title, fix = (text.replace("``", "`") for text in (rule.title, rule.fix))
        findings.append(
            LintFinding(path, line - start, column, cell, rule.code, rule.severity, title, fix)
        )
    return sorted(findings, key=lambda found: (found.cell or 0, found.line, found.column))


def _unparsed(path: str, line: int, column: int, cell: int | None, reason: str) -> LintFinding:
    rule = DOES_NOT_PARSE
    message = f"{rule.title}: {reason}"
    return LintFinding(path, line, column, cell, rule.code, rule.severity, message, rule.fix)


def _parse(source: str, notebook: bool) -> ast.Module:
    """Parse without running. A notebook cell may use ``await``, and magics."""
    flags = ast.PyCF_ONLY_AST | (ast.PyCF_ALLOW_TOP_LEVEL_AWAIT if notebook else 0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the source that is read: "\d" and the like
        try:
            tree: Any = compile(source, "<source>", "exec", flags, dont_inherit=True)
        except SyntaxError:
            if not notebook:
                raise
            tree = compile(_without_magics(source), "<source>", "exec", flags, dont_inherit=True)
    assert isinstance(tree, ast.Module)
    return tree


def _without_magics(source: str) -> str:
    """The lines of a cell that are Python, in their places."""
    lines = source.split("\n")
    first = next((i for i, line in enumerate(lines) if line.strip()), 0)
    cell_magic = re.match(r"%%(\w+)", lines[first].strip())
    if cell_magic:
        if cell_magic[1] not in ("time", "timeit", "capture", "prun", "python", "python3"):
            return ""
        lines[first] = ""
    continued = False
    for i, line in enumerate(lines):
        magic = re.match(r"\s*(%{1,2}\w|[!?]|[\w.\[\]\"']+\?{1,2}\s*$)", line)
        assigned = re.match(r"(\s*[\w., ]+=\s*)[%!]", line)
        if continued:
            lines[i] = ""
        elif magic:
            lines[i] = line[: len(line) - len(line.lstrip())] + "pass"
        elif assigned:
            lines[i] = assigned[1] + "None"
        continued = line.endswith("\\") and bool(continued or magic or assigned)
    return "\n".join(lines)


def lint_file(path: Path) -> list[LintFinding]:
    """Lint a ``.py`` or ``.ipynb`` file; what cannot be read is a finding."""
    name = str(path)
    try:
        with path.open("rb") as file:  # the size that the system states may be wrong
            data = file.read(LARGEST_FILE + 1)
        if len(data) > LARGEST_FILE:
            return [_unparsed(name, 1, 1, None, f"more than {LARGEST_FILE:,} bytes are not read")]
    except OSError as error:
        return [_unparsed(name, 1, 1, None, str(error.strerror or error))]
    try:
        if path.suffix == ".ipynb":
            return lint_notebook(data.decode("utf-8-sig"), name)
        encoding, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
        text = data.decode(encoding)
    except (SyntaxError, UnicodeDecodeError, LookupError) as error:
        return [_unparsed(name, 1, 1, None, f"the encoding is not the declared one: {error}")]
    return lint_source(io.StringIO(text, newline=None).read(), name)


def lint_paths(paths: Iterable[str | os.PathLike[str]]) -> Report:
    """Lint files, and all ``.py`` and ``.ipynb`` files of folders.

    Folders are not entered through symbolic links, so that a loop ends. Hidden folders, virtual
    environments and the like are left out.

    Args:
        paths: files and folders.

    Returns:
        A :class:`Report`. A path that does not exist, a file of another kind, a folder without
        Python in it and a folder that may not be read are unusable.

    Raises:
        TypeError: ``paths`` is no list, or holds what is no path.
    """
    findings: list[LintFinding] = []
    unusable: list[str] = []
    files: dict[str, Path] = {}
    if isinstance(paths, str | bytes | os.PathLike) or not isinstance(paths, Iterable):
        raise TypeError(
            f"paths must be a list of files and folders, but is a {type(paths).__name__}: "
            "put a single one into a list."
        )
    for given in paths:
        if not isinstance(given, str | os.PathLike):
            raise TypeError(f"paths must hold str or paths, but hold a {type(given).__name__}.")
        if not str(given):
            unusable.append("''")  # not the folder where the program runs
            continue
        path = Path(given)
        if os.path.isdir(path):  # of pathlib it raises where a folder above may not be read
            found = list(_python_files(path, unusable))
        else:
            found = [path] if path.suffix in (".py", ".ipynb") and os.path.isfile(path) else []
        if not found and str(path) not in unusable:
            unusable.append(str(path))
        for file in found:
            files.setdefault(os.path.realpath(file), file)
    for file in files.values():
        findings += lint_file(file)
    return Report(tuple(findings), len(files), tuple(unusable))


def _python_files(folder: Path, closed: list[str]) -> Iterator[Path]:
    """Yield the files of a folder; note in ``closed`` which folders may not be read."""
    for root, folders, names in os.walk(folder, onerror=lambda e: closed.append(e.filename)):
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".")
            and name not in SKIPPED_FOLDERS
            and not os.path.exists(os.path.join(root, name, "pyvenv.cfg"))
        )
        for name in sorted(names):
            path = Path(root, name)
            if (
                path.suffix in (".py", ".ipynb")
                and not name.startswith(".")
                and os.path.isfile(path)
            ):
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
    return json.dumps(
        {
            "files": report.files,
            "findings": [vars(finding) for finding in report.findings],
            "unusable": list(report.unusable),
        },
        indent=2,
    )


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
