"""What a program does with its labels, read from its syntax tree and never run.

:class:`Program` follows names through a file: what a variable was made of, which model it is.
:class:`Recipe` follows ids through one function: where they were copied, where the mask token was
written, which positions were set aside, and what reached ``labels=``.
"""

import ast
import bisect
import functools
import importlib.resources
import itertools
import re
import tomllib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

Found = tuple[str, ast.AST, dict[str, str]]  # the code of a rule, the place, words for its text
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
MASKED = re.compile(r"ForMaskedLM$|^(TF|Flax)?(Bert|Albert|MobileBert)ForPreTraining$")
CAUSAL = re.compile(r"ForCausalLM$|^(TF|Flax)?(GPT2|OpenAIGPT|Bert|CTRL)LMHeadModel$")
MODEL = re.compile(r"^(?!DataCollator)[A-Z]\w*(For[A-Z]\w+|LMHeadModel|Model)$")
ANY_MODEL = re.compile(r"^(TF|Flax)?(PreTrained|Auto|Peft)?Model(ForPreTraining|WithLMHead)?$")
WRAPPERS = re.compile(r"DataParallel$|^(compile|prepare|get_peft_model|prepare_model)$")
METHODS = re.compile(r"_?from_|(to|eval|train|cuda|cpu|half|float|bfloat16)$")
MASK_ID = re.compile(r"_?(mask|MASK)(_?(token|TOKEN))?_?(id|ID|idx|index)|\[mask\]|<mask>|\[MASK\]")
MASK_IDS = {103, 50264, 50284, 250001, 32004}  # BERT, RoBERTa, ModernBERT, XLM-R, CamemBERT
SPELLINGS = ("[MASK]", "<mask>", "[mask]", "<MASK>")
MASKED_TEXT = re.compile(r"\('text'.*(\[MASK\]|<mask>)")
LABELS = ("labels", "masked_lm_labels", "lm_labels")
CHOSEN = re.compile(r"^(?!attention)\w*(mask|weight|select|chosen|indices|position)")


def table(name: str) -> dict[str, Any]:
    """Read a data file of the doctor."""
    file = importlib.resources.files("mlmtutor.doctor").joinpath(name)
    return tomllib.loads(file.read_text("utf-8"))


SAME, COPY, HARMLESS = (set(words.split()) for words in table("words.toml").values())
HARMLESS |= SAME | COPY


def dotted(node: ast.AST | None) -> str:
    """``a.b.c`` of a chain of attributes; empty for anything else."""
    if isinstance(node, ast.Attribute):
        return (base := dotted(node.value)) and f"{base}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def last(node: ast.AST | None) -> str:
    """The last name of an expression: ``c`` of ``a.b.c`` and of ``a.b["c"]``."""
    key = node.slice if isinstance(node, ast.Subscript) else None
    name = getattr(key, "value", None) or getattr(node, "attr", None) or getattr(node, "id", None)
    return name if isinstance(name, str) else ""


def number(node: ast.AST | None) -> int | None:
    """The value of an integer literal; -100 is a minus sign and 100."""
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return None if (value := number(node.operand)) is None else -value
    return node.value if isinstance(node, ast.Constant) and type(node.value) is int else None


def is_labels(name: str) -> bool:
    """Whether something is named like labels."""
    return "label" in name.lower() and not name.lower().endswith(("mask", "masks"))


class Program:
    """The syntax tree of a file and what its names stand for."""

    def __init__(self, body: list[ast.stmt]) -> None:
        self.root = ast.Module(body=body, type_ignores=[])
        self.nodes: list[ast.AST] = []
        self.parents: dict[ast.AST, ast.AST] = {}
        self.origins: dict[str, str] = {}  # imported names: where they come from
        self.bound: dict[tuple[ast.AST | None, str], list[tuple[int, ast.expr, int | None]]] = {}
        self.parameters: dict[tuple[ast.AST | None, str], ast.arg] = {}
        self.definitions: dict[str, ast.AST] = {}
        self.called: dict[str, list[ast.Call]] = {}
        stack: list[ast.AST] = [self.root]
        while stack:  # no recursion: a tree may be deeper than Python's stack
            self.nodes.append(node := stack.pop())
            children = list(ast.iter_child_nodes(node))
            self.parents.update(dict.fromkeys(children, node))
            stack += reversed(children)
        for node in self.nodes:
            self._learn(node)
        self.kinds = functools.cache(self._kinds)
        self.calls = [node for node in self.nodes if isinstance(node, ast.Call)]
        names = {last(n) for n in self.nodes if isinstance(n, ast.Name | ast.Attribute)}
        self.models = {self.kind_of_class(name) for name in names | set(self.origins)} - {None}
        texts = {n.value for n in self.nodes if isinstance(n, ast.Constant)} - set(SPELLINGS)
        self.masked_text = any(word in str(text) for text in texts for word in SPELLINGS)
        collators = self.called.get("DataCollatorForLanguageModeling", [])
        self.collates = any(self.masks(call) is not False for call in collators)

    def _learn(self, node: ast.AST) -> None:
        match node:
            case ast.Import() | ast.ImportFrom():
                start = "." * getattr(node, "level", 0) + (getattr(node, "module", "") or "")
                for alias in node.names:
                    name = alias.name if start or alias.asname else alias.name.split(".")[0]
                    dot = "." if isinstance(node, ast.ImportFrom) else ""
                    self.origins[alias.asname or name] = start + dot + name
            case ast.ClassDef() | ast.FunctionDef() | ast.AsyncFunctionDef():
                self.definitions[node.name] = node
            case ast.arg():
                self.parameters[self.scope(node), node.arg] = node
            case ast.Call():
                self.called.setdefault(last(node.func), []).append(node)
            case ast.Assign():
                for target in node.targets:
                    self._bind(target, node.value)
            case ast.AnnAssign(value=ast.expr()) | ast.NamedExpr():
                self._bind(node.target, node.value)  # type: ignore[arg-type]

    def _bind(self, target: ast.expr, value: ast.expr, index: int | None = None) -> None:
        if isinstance(target, ast.Tuple | ast.List):
            parts = getattr(value, "elts", [])
            if isinstance(value, ast.Call) and last(value.func) == "prepare":
                parts = value.args  # accelerate: model, optimizer = accelerator.prepare(...)
            paired = len(parts) == len(target.elts)
            for i, one in enumerate(target.elts):
                self._bind(one, parts[i] if paired else value, None if paired else i)
        elif name := dotted(target):
            place = (self.scope(target, name), name)
            self.bound.setdefault(place, []).append((target.lineno, value, index))

    def scope(self, node: ast.AST, name: str = "") -> ast.AST | None:
        """The function around a node, for ``self.x`` the class; ``None`` is the module."""
        kinds = (ast.ClassDef,) if name.startswith("self.") else FUNCTIONS
        parent = self.parents.get(node)
        while parent is not None and not isinstance(parent, kinds):
            parent = self.parents.get(parent)
        return parent

    def origin(self, name: str) -> str:
        """The full name of something imported: ``transformers.BertForMaskedLM``."""
        first, dot, rest = name.partition(".")
        return self.origins[first] + dot + rest if first in self.origins else ""

    def masks(self, call: ast.Call) -> object:
        """The argument ``mlm`` of a collator, ``None`` where it is not a constant."""
        flags = [w.value for w in call.keywords if w.arg == "mlm"] + call.args[1:2]
        if flags and dotted(flags[0]):
            flags = [value for value, _ in self.values(flags[0])] or flags
        return getattr(flags[0], "value", None) if flags else True

    def kind_of_class(self, name: str) -> str | None:
        """``masked``, ``causal``, ``other`` (another model), or ``None`` (none that is known)."""
        mine = own = self.definitions.get(name)
        while isinstance(own, ast.ClassDef) and name:
            name = dotted(own.bases[0]) if own.bases else ""
            own = self.definitions.get(name) if own is not self.definitions.get(name) else None
        origin = self.origin(name)
        short = (origin or name).rpartition(".")[2]
        ours = not origin or re.match(r"transformers\b|adapters\b|pytorch_", origin)
        if isinstance(mine, ast.FunctionDef) or not MODEL.search(short) or ANY_MODEL.search(short):
            return "other" if isinstance(mine, ast.ClassDef) else None
        if ours and MASKED.search(short):
            return "masked"
        return "causal" if ours and CAUSAL.search(short) else "other"

    def values(self, node: ast.expr) -> list[tuple[ast.expr, int | None]]:
        """What a name may hold where it stands, each with its place in the tuple it came out of."""
        name = dotted(node)
        scope = self.scope(node, name)
        while (scope, name) not in self.bound and (scope, name) not in self.parameters:
            if scope is None:
                return []
            scope = self.scope(scope)
        if bound := self.bound.get((scope, name)):
            at = bisect.bisect_left(bound, node.lineno, key=lambda one: one[0])
            before = bound[at - 1 : at] if at and not name.startswith("self.") else []
            return [one[1:] for one in before or bound[-20:]]
        places = [a.arg for a in scope.args.args]  # type: ignore[union-attr]
        places = places[places[:1] in (["self"], ["cls"]) :]
        at = places.index(name) if name in places else 999
        calls = self.called.get(getattr(scope, "name", ""), [])[:20]  # that fill the parameter
        given = [value for call in calls for value in call.args[at : at + 1]]
        given += [w.value for call in calls for w in call.keywords if w.arg == name]
        return [(value, None) for value in given]

    def _kinds(self, node: ast.expr | None, index: int | None = None, depth: int = 0) -> set[str]:
        """The kinds of model that an expression may be; empty where nothing is known."""

        def union(values: Iterable[tuple[ast.expr | None, int | None]]) -> set[str]:
            found = (self.kinds(value, i, depth + 1) for value, i in values if depth < 12)
            return set[str]().union(*found)

        match node:
            case ast.Tuple() if index is not None:
                return union((part, None) for part in node.elts[index : index + 1])
            case ast.Call(func=ast.Name(id="super")):
                mine = self.scope(node, "self.")
                kind = self.kind_of_class(getattr(mine, "name", ""))
                return {kind} if kind else set()
            case ast.Call():
                name, owner = last(node.func), getattr(node.func, "value", None)
                if isinstance(own := self.definitions.get(name), ast.FunctionDef):
                    returns = (n for n in ast.walk(own) if isinstance(n, ast.Return))
                    return union((n.value, index) for n in returns)
                if WRAPPERS.search(name):
                    return union((argument, None) for argument in node.args[:1])
                inner = owner if METHODS.match(name) else node.func
                return union([(inner, None)]) if index is None else set()
            case ast.Attribute(attr="module" | "forward"):
                return union([(node.value, None)])
            case ast.Subscript():  # CLASSES["bert"]
                tables = [v for v, _ in self.values(node.value) if isinstance(v, ast.Dict)]
                return union((value, None) for table in tables for value in table.values)
            case ast.Name() | ast.Attribute():
                return self._kinds_of_name(node, dotted(node), union)
        return set()

    def _kinds_of_name(self, node: ast.expr, name: str, union: Callable[..., set[str]]) -> set[str]:
        known = [pair for pair in self.values(node) if pair[0] is not node] if name else []
        parameter = self.parameters.get((self.scope(node), name))
        annotated = self.kind_of_class(dotted(getattr(parameter, "annotation", None)))
        if kind := self.kind_of_class(name):
            return {kind}
        if found := union(known):
            return found
        # An argument that no call in this file fills: is a global of its name a masked model?
        free = parameter and not known and not parameter.annotation and (None, name) in self.bound
        guess = "masked" if free and self.models == {"masked"} else annotated
        return {guess} if guess else set()

    def is_mask_id(self, node: ast.expr | None, depth: int = 0) -> bool:
        """Whether an expression is the id of the mask token."""
        if isinstance(node, ast.Call):
            looks_up = last(node.func) in ("convert_tokens_to_ids", "token_to_id")
            texts = [last(a) or getattr(a, "value", "") for a in node.args]
            return looks_up and any(text in ("mask_token", *SPELLINGS) for text in texts)
        if MASK_ID.fullmatch(last(node)) or number(node) in MASK_IDS:
            return True
        known = self.values(node) if isinstance(node, ast.Name) and depth < 3 else []
        return any(index is None and self.is_mask_id(value, depth + 1) for value, index in known)

    def keywords(self, call: ast.Call) -> Iterator[tuple[str, ast.expr, ast.AST]]:
        """Name, value and place of each keyword, also of ``**arguments`` known in this file."""
        for word in call.keywords:
            if word.arg:
                yield word.arg, word.value, word
                continue
            known = [v for v, _ in self.values(word.value)] if dotted(word.value) else [word.value]
            for value in known:
                for key, item in items_of(value).items():
                    yield last_key(key), item, key


def items_of(node: ast.AST | None) -> dict[ast.AST, ast.expr]:
    """Keys and values of ``{"a": x}`` or ``dict(a=x)``."""
    if isinstance(node, ast.Dict):
        return {k: v for k, v in zip(node.keys, node.values, strict=True) if k is not None}
    is_dict = isinstance(node, ast.Call) and last(node.func) == "dict"
    return {w: w.value for w in node.keywords if w.arg} if is_dict else {}  # type: ignore[union-attr]


def last_key(node: ast.AST) -> str:
    """The text of a key."""
    return str(getattr(node, "arg", None) or getattr(node, "value", ""))


@dataclass(eq=False)
class Ids:
    """What is known of one tensor or list of ids inside a function.

    Attributes:
        content: where its ids come from, and a stamp that changes when ids are written; two with
            the same content hold the same ids. ``None``: no ids were copied into it.
        aside: which positions were taken out: ``special``, ``masks``, ``rest`` (all but the masks)
            or ``other``.
        fills: the constants that were written, and where.
        doubts: findings that a later statement may take back.
        masked: whether the mask token was written.
        place: where it was made.
        element: where single ids were copied: ``labels[i] = input_ids[i]``.
    """

    content: tuple[object, int] | None = None
    aside: set[str] = field(default_factory=set)
    fills: dict[object, ast.AST] = field(default_factory=dict)
    doubts: dict[str, ast.AST] = field(default_factory=dict)
    masked: bool = False
    place: ast.AST | None = None
    element: ast.AST | None = None

    def copied(self, place: ast.AST) -> "Ids":
        """A copy of its own."""
        doubts = dict.fromkeys(self.doubts, place)
        return replace(
            self, aside=set(self.aside), fills=dict(self.fills), doubts=doubts, place=place
        )

    def written(self, stamp: int) -> None:
        """Other ids stand in it now."""
        self.content = self.content and (self.content[0], stamp)


class Recipe:
    """One function, or the module outside of functions, statement by statement."""

    def __init__(self, program: Program, body: list[ast.stmt]) -> None:
        self.program = program
        self.known: dict[str, Ids] = {}
        self.made: dict[str, ast.expr] = {}  # what a name was set to
        self.pairs: list[
            tuple[Ids | str | None, Ids, ast.AST]
        ] = []  # inputs or their owner, labels
        self.hidden: set[str] = set()  # places that hold the mask token now
        self.found: dict[tuple[str, ast.AST], Found] = {}
        self.stamp = itertools.count(1)
        self._run(body)
        self._close()

    def _run(self, body: list[ast.stmt]) -> None:
        """Follow the statements in order, without those of inner functions."""
        for node in body:
            if isinstance(node, (*FUNCTIONS, ast.ClassDef)):
                continue
            for child in ast.iter_child_nodes(node):
                if isinstance(child, ast.expr | ast.withitem):
                    self._scan(child)
            match node:
                case ast.Assign() | ast.AnnAssign(value=ast.expr()):
                    for target in getattr(node, "targets", None) or [node.target]:  # type: ignore[union-attr]
                        self._assign(target, node.value, node)  # type: ignore[arg-type]
                case ast.AugAssign():
                    self._touch(self._path(node.target))
                case ast.Return(value=ast.Tuple(elts=parts)):
                    names = [self._path(part).rpartition(".")[2] for part in parts]
                    keys = ["labels" if is_labels(name) else name for name in names]
                    if others := [key for key in keys if key != "labels"]:
                        keys[keys.index(others[0])] = "input_ids"
                    self._pair(dict(zip(keys, parts, strict=True)))
                case ast.For() | ast.AsyncFor():
                    for name in (n for n in ast.walk(node.target) if isinstance(n, ast.Name)):
                        self._bind(name.id, None, None)
            for part in ("body", "orelse", "handlers", "finalbody", "cases"):
                for one in getattr(node, part, []):
                    self._run(getattr(one, "body", []) if part in ("handlers", "cases") else [one])

    def _path(self, node: ast.AST | None) -> str:
        """The name that is followed: ``x``, and ``batch.labels`` also for ``batch["labels"]``."""
        if isinstance(node, ast.Subscript | ast.Attribute) and last(node):
            return (base := self._path(node.value)) and f"{base}.{last(node)}"
        return node.id if isinstance(node, ast.Name) else ""

    def _get(self, path: str) -> Ids:
        base, _, key = path.rpartition(".")
        if path not in self.known:
            text = self._text(self.made.get(base)) if key == "input_ids" else None
            self.known[path] = Ids((text or (path, next(self.stamp)), 0))
        return self.known[path]

    def _text(self, call: ast.AST | None) -> object:
        """A key for the text that is tokenized: the same text gives the same ids."""
        if not isinstance(call, ast.Call) or not call.args:
            return None
        names = sorted({n.id for n in ast.walk(call.args[0]) if isinstance(n, ast.Name)})
        versions = (id(self.known.get(name)) for name in names)
        return ("text", dotted(call.func), ast.dump(call.args[0]), *versions)

    def _value(self, node: ast.expr | None) -> Ids | None:
        """What is known of an expression."""
        if last(node) == "input_ids" and (text := self._text(getattr(node, "value", None))):
            return Ids((text, 0), place=node)
        if path := self._path(node):
            return None if path in self.program.origins else self._get(path.removesuffix(".data"))
        match node:
            case ast.Call():
                return self._call_value(node, last(node.func), getattr(node.func, "value", None))
            case ast.Subscript():
                base = self._value(node.value)
                if base is None or base.content is None or whole(node.slice):
                    return base and base.copied(node)
                return Ids(((base.content[0], ast.dump(node.slice)), base.content[1]))
            case ast.List() | ast.Tuple():
                only = node.elts[0] if len(node.elts) == 1 else None
                if not node.elts or self._constant(only) is not None:
                    return Ids(fills={self._constant(only): node} if only else {})
                if only is not None and (inner := self._value(only)):
                    return inner.copied(node)
                ignored = {number(n) for n in ast.walk(node)} & {-1, -100}
                aside = {"other"} if ignored else set()
                return Ids((ast.dump(node), 0), aside, dict.fromkeys(ignored, node))
            case ast.BinOp():
                sides = [v for v in (self._value(node.left), self._value(node.right)) if v]
                if isinstance(node.op, ast.Mult):
                    factor = {number(node.left), number(node.right)} - {None}
                    if any(
                        last(getattr(n, "func", None)).startswith("ones") for n in ast.walk(node)
                    ):
                        return Ids(fills=dict.fromkeys(factor, node), place=node)
                    return sides[0] if isinstance(node.left, ast.List) else None
                fills = {k: place for side in sides for k, place in side.fills.items()}
                return Ids(None, set().union(*(side.aside for side in sides)), fills, place=node)
            case ast.ListComp():
                loop = node.generators[0]
                if base := self._value(loop.iter):
                    self.known[dotted(loop.target)] = base
                if isinstance(node.elt, ast.IfExp):
                    return self._chosen(node.elt.test, node.elt.body, node.elt.orelse, node)
                inner = self._value(node.elt)
                content = inner.content if inner and inner is base else None
                return inner and replace(inner.copied(node), content=content)
        return None

    def _call_value(self, node: ast.Call, name: str, owner: ast.expr | None) -> Ids | None:
        """What a call makes of ids: ``x.clone()``, ``torch.where(...)``, ``x.masked_fill(...)``."""
        is_module = owner is None or dotted(owner).split(".")[0] in self.program.origins
        arguments = node.args if is_module or owner is None else [owner, *node.args]
        if name == "where" and len(arguments) == 3:
            test, yes = arguments[:2] if is_module else arguments[1::-1]
            return self._chosen(test, yes, arguments[2], node)
        if name == "masked_fill" and len(arguments) == 3:
            return self._chosen(arguments[1], arguments[2], arguments[0], node)
        if name in ("full", "full_like", "zeros_like", "zeros"):
            filler = (
                node.args[1] if name.startswith("full") and len(node.args) > 1 else ast.Constant(0)
            )
            self._store(made := Ids(place=node), None, filler, node)
            return made
        if name == "pad_sequence" or (name == "pad" and is_module):
            words = ("padding_value", "value", "constant_values")
            padding = [w.value for w in node.keywords if w.arg in words] + node.args[2:3]
            return Ids(fills={self._constant(padding[0]) if padding else 0: node}, place=node)
        if name in SAME or name in COPY:
            base = self._value(arguments[0]) if arguments else None
            return base if name in SAME and not is_module else base and base.copied(node)
        is_text = name in ("encode", "convert_tokens_to_ids")
        return Ids((self._text(node), 0), place=node) if is_text else None

    def _constant(self, node: ast.expr | None) -> object:
        """A number, ``pad``, or ``None`` for what is not a constant."""
        if (value := number(node)) is not None:
            return value
        if special := re.search(r"(pad(_?token)?_?(id|idx|index)$)|ignore", last(node), re.I):
            return "pad" if special[1] else -100
        known = self.program.values(node) if isinstance(node, ast.Name) else []
        return number(known[0][0]) if len(known) == 1 else None

    def _test(
        self, node: ast.expr | None, depth: int = 0
    ) -> tuple[bool, Ids | None, object] | None:
        """``(True, ids, mask)`` of ``ids == mask_id``; ``(False, ids, -1)`` of ``ids != -1``."""
        match node:
            case ast.Name() if depth < 9:
                return self._test(self.made.get(node.id), depth + 1)
            case ast.UnaryOp(op=ast.Invert() | ast.Not()):
                inner = self._test(node.operand, depth)
                return inner and (not inner[0], *inner[1:])
            case ast.Call(func=ast.Attribute(value=owner, attr="bool" | "to")):
                return self._test(owner, depth)
            case ast.Call(func=ast.Attribute(value=owner, attr="eq" | "ne" as operator)):
                sides = node.args if len(node.args) == 2 else [owner, *node.args]
                equal = operator == "eq"
            case ast.Compare(ops=[ast.Eq() | ast.NotEq()]):
                sides, equal = [node.left, node.comparators[0]], isinstance(node.ops[0], ast.Eq)
            case _:
                return None
        if len(sides) != 2:
            return None
        left, right = sides[::-1] if self.program.is_mask_id(sides[0]) else sides
        what = "mask" if self.program.is_mask_id(right) else self._constant(right)
        return None if what is None else (equal, self._value(left), what)

    def _chosen(self, test: ast.expr, yes: ast.expr, no: ast.expr, place: ast.AST) -> Ids:
        """``where(test, yes, no)``: one side is copied, the other is written over it."""
        constant = (
            number(yes) is not None or self.program.is_mask_id(yes) or self._value(yes) is None
        )
        kept, written = (no, yes) if constant else (yes, no)
        base = self._value(kept) if self._constant(kept) is None else None
        made = base.copied(place) if base else Ids(place=place)
        self._store(made, test if constant else ast.UnaryOp(ast.Not(), test), written, place, base)
        return made

    def _store(self, ids: Ids, test: ast.expr | None, value: ast.expr, place: ast.AST,
               base: Ids | None = None) -> None:  # fmt: skip
        """``ids[test] = value``, where ``ids`` may be a copy of ``base``."""
        constant = self._constant(value)
        if ast.dump(value) in self.hidden:  # ids[i] = mask_id; labels[i] = ids[i]
            ids.doubts["label-is-mask"] = place
        elif self.program.is_mask_id(value):
            ids.masked, ids.doubts["label-is-mask"] = True, place
            ids.written(next(self.stamp))
        elif constant is None or (isinstance(constant, int) and constant > 0):  # an answer
            source = self._value(value.value) if isinstance(value, ast.Subscript) else None
            if ids.content is None and source is not None:
                ids.content, ids.element = source.content, place
            else:
                ids.written(next(self.stamp))
            ids.aside.add("other")
            ids.doubts.pop("label-is-mask", None)
        else:
            equal, other, what = self._test(test) or (False, None, None)
            same = other and ids.content and (other in (ids, base) or other.content == ids.content)
            if what == "mask":
                ids.aside.add("masks" if equal else "rest")
                if (equal and constant == -100) or (same and not equal):
                    ids.doubts["inverted-selection" if equal else "label-is-mask"] = place
            elif test is not None:
                ids.aside.add("special" if equal else "other")
                ids.fills.pop(what if equal else None, None)
            ids.fills[constant] = place

    def _touch(self, path: str) -> None:
        """Something unknown may have changed it: nothing is claimed any more."""
        for key in [k for k in self.known if path and (k == path or k.startswith(f"{path}."))]:
            ids = self.known[key]
            ids.content, ids.masked, ids.aside = (next(self.stamp), 0), False, {"other"}
            ids.doubts, ids.fills = {}, {}

    def _assign(self, target: ast.expr, value: ast.expr, place: ast.stmt) -> None:
        if isinstance(target, ast.Tuple | ast.List):
            parts = value.elts if isinstance(value, ast.Tuple | ast.List) else []
            paired = len(parts) == len(target.elts)
            made = [self._value(part) for part in parts] if paired else [None] * len(target.elts)
            for one, ids, part in zip(target.elts, made, parts if paired else made, strict=True):
                self._bind(self._path(one), ids, part)  # type: ignore[arg-type]
        elif path := self._path(target):
            self._bind(path, self._value(value), value)
        elif isinstance(target, ast.Subscript):
            base = target.value
            while isinstance(base, ast.Subscript) and not last(base):
                base = base.value
            if ids := self._value(base):
                if whole(target.slice):
                    ids.content, ids.aside, ids.fills, ids.doubts = None, set(), {}, {}
                self._store(ids, target.slice, value, place)
            here = ast.dump(target).replace("Store()", "Load()")
            (self.hidden.add if self.program.is_mask_id(value) else self.hidden.discard)(here)

    def _bind(self, path: str, ids: Ids | None, value: ast.expr | None) -> None:
        owner = getattr(getattr(value, "func", None), "value", None)
        if not path or (owner and self._path(owner) == path and not ids):
            return  # batch = batch.to(device)
        for key in [k for k in self.known if k.startswith(f"{path}.")]:
            del self.known[key]
        self.known[path] = ids or Ids(((path, next(self.stamp)), 0), place=value)
        self.made.pop(path, None)
        if value is not None:
            self.made[path] = value
            for item, part in items_of(value).items():
                if inner := self._value(part):
                    self.known[f"{path}.{last_key(item)}"] = inner
            base, _, key = path.rpartition(".")
            if key == "labels" and base not in ("", "self"):
                self.pairs.append((base, self.known[path], value))

    def _pair(self, parts: dict[str, ast.expr]) -> None:
        """``{"input_ids": ids, "labels": labels}``, or ``return input_ids, labels``."""
        chooses = any(CHOSEN.search(key) for key in parts)
        if not chooses and (labels := self._value(parts.get("labels"))):
            self.pairs.append((self._value(parts.get("input_ids")), labels, parts["labels"]))

    def _scan(self, node: ast.AST) -> None:
        """Look at the calls and dictionaries inside an expression."""
        for part in ast.walk(node):
            self._pair({last_key(key): value for key, value in items_of(part).items()})
            if isinstance(part, ast.Call):
                self._call(part, last(part.func), getattr(part.func, "value", None))

    def _call(self, node: ast.Call, name: str, owner: ast.expr | None) -> None:
        words = {word.arg: word.value for word in node.keywords if word.arg}
        stars = [self._path(word.value) for word in node.keywords if not word.arg]
        given = next((words[key] for key in LABELS if key in words), None)
        paths = [
            path for star in stars for key in LABELS if (path := f"{star}.{key}") in self.known
        ]
        labels = self._value(given) if given else self.known[paths[0]] if paths else None
        kinds = self.program.kinds(node.func)
        if labels is not None and kinds <= {"masked"}:
            inputs = words.get("input_ids") or (node.args[0] if node.args else None)
            seen = (
                self._value(inputs)
                if inputs
                else self._get(f"{stars[0]}.input_ids")
                if stars
                else None
            )
            self.pairs.append((seen, labels, given or labels.place or node))
            if kinds:
                self._use(*self.pairs.pop())  # type: ignore[arg-type]
        elif name in ("masked_fill_", "append", "index_fill_") and node.args and self._path(owner):
            test = node.args[0] if name == "masked_fill_" else ast.Constant(0)
            self._store(self._get(self._path(owner)), test, node.args[-1], node)
        elif name.endswith("_"):
            self._touch(self._path(owner))
        elif name not in HARMLESS and not kinds and labels is None:
            for argument in (*node.args, *words.values()):
                self._touch(self._path(argument))

    def _use(self, seen: Ids | None, labels: Ids, place: ast.AST) -> None:
        """Labels reach a masked model together with the ids that it sees."""
        wrong = next((k for k in (-1, 0, "pad") if k in labels.fills), None)
        if wrong is not None:
            self._report(
                "ignore-minus-one" if wrong == -1 else "ignore-padding", labels.fills[wrong]
            )
        if self._doubt(labels) or not seen or not labels.content or not seen.content:
            return
        if labels.content == seen.content:
            hidden = "rest" in labels.aside or (labels.element and self.program.masked_text)
            self._report(
                "label-is-mask" if hidden else "labels-are-inputs", labels.element or place
            )
        elif labels.content[0] == seen.content[0] and labels.aside <= {"special"}:
            self._report("labels-are-inputs", place)

    def _doubt(self, labels: Ids) -> bool:
        if labels.aside & {"other", "rest"}:
            labels.doubts.pop("inverted-selection", None)
        for code, place in labels.doubts.items():
            self._report(code, place)
        return bool(labels.doubts)

    def _report(self, code: str, place: ast.AST) -> None:
        self.found[code, place] = (code, place, {})

    def _close(self) -> None:
        """At the end of the function: what its labels are beside its ids."""
        for path, ids in self.known.items():
            if is_labels(path.rpartition(".")[2]):
                if ids.place and "other" not in ids.aside and MASKED_TEXT.search(str(ids.content)):
                    ids.doubts["label-is-mask"] = (
                        ids.place
                    )  # labels = tokenizer("[MASK]").input_ids
                self._doubt(ids)
        for seen, labels, place in self.pairs:
            if isinstance(seen, str):
                if self.known.get(f"{seen}.labels") is not labels:
                    continue  # something else took its place
                seen = self.known.get(f"{seen}.input_ids")
            if self._doubt(labels) or self.program.collates or not seen or not seen.masked:
                continue
            if not labels.content or not seen.content or not labels.aside <= {"special"}:
                continue
            if labels.content == seen.content:
                self._report("label-is-mask", place)
            elif labels.content[0] == seen.content[0] and self.program.models <= {"masked"}:
                self._report("labels-are-inputs", place)


def whole(index: ast.expr) -> bool:
    """Whether a subscript is ``[:]``."""
    return isinstance(index, ast.Slice) and not (index.lower or index.upper)
