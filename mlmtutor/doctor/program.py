"""The syntax tree of a program: what its names stand for, and which of them are models."""

import ast
import bisect
import functools
import importlib.resources
import itertools
import re
import tomllib
from collections.abc import Iterable, Iterator
from typing import Any

Key = int | str | None  # which part of a pair or a dictionary
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
ANY = "*"  # the key of a part that is chosen at run time


def table(name: str) -> dict[str, Any]:
    """Read a data file of the doctor."""
    file = importlib.resources.files("mlmtutor.doctor").joinpath(name)
    return tomllib.loads(file.read_text("utf-8"))


WORDS = table("words.toml")
SPELLINGS, MASK_IDS = WORDS["spellings"], WORDS["mask_ids"]


def named(what: str, text: str) -> bool:
    """Whether a name is one of ``patterns`` in words.toml."""
    return bool(re.search(WORDS["patterns"][what], text))


def last(node: ast.AST | None) -> str:
    """The last name of an expression: ``c`` of ``a.b.c`` and of ``a.b["c"]``."""
    key = node.slice if isinstance(node, ast.Subscript) else None
    name = getattr(key, "value", None) or getattr(node, "attr", None) or getattr(node, "id", None)
    return name if isinstance(name, str) else ""


def word(node: ast.AST | None) -> str:
    """A name, or the text of a constant, a keyword or a parameter."""
    return last(node) or str(getattr(node, "arg", None) or getattr(node, "value", ""))


def dotted(node: ast.AST | None) -> str:
    """``a.b.c`` of a chain of names, also of ``a.b["c"]``; empty for anything else."""
    if isinstance(node, ast.Attribute | ast.Subscript) and last(node):
        return (base := dotted(node.value)) and f"{base}.{last(node)}"
    return node.id if isinstance(node, ast.Name) else ""


def number(node: ast.AST | None) -> int | None:
    """The value of an integer literal; -100 is a minus sign and 100."""
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return None if (value := number(node.operand)) is None else -value
    return node.value if isinstance(node, ast.Constant) and type(node.value) is int else None


def items_of(node: ast.AST | None) -> Iterator[tuple[str, ast.expr, ast.AST]]:
    """Key, value and place of each item of ``{"a": x}`` or ``dict(a=x)``."""
    if isinstance(node, ast.Dict):
        yield from ((word(k), v, k) for k, v in zip(node.keys, node.values, strict=True) if k)
    elif isinstance(node, ast.Call) and last(node.func) == "dict":
        yield from ((given.arg, given.value, given) for given in node.keywords if given.arg)


def unpacked(target: ast.expr, value: Any, key: Key = None) -> Iterator[tuple[ast.expr, Any, Key]]:
    """Each target of an assignment with its value, or with all of it and the place therein."""
    if not isinstance(target, ast.Tuple | ast.List):
        yield target, value, key
        return
    parts = getattr(value, "elts", [])
    if isinstance(value, ast.Call) and last(value.func) == "prepare":
        parts = value.args  # accelerate: model, optimizer = accelerator.prepare(...)
    paired = len(parts) == len(target.elts)
    for i, one in enumerate(target.elts):
        yield from unpacked(one, *((parts[i], None) if paired else (value, i)))


def is_labels(name: str) -> bool:
    """Whether something is named like labels."""
    return "label" in name.lower() and not name.lower().endswith(("mask", "masks"))


class Program:
    """The syntax tree of a file and what its names stand for."""

    def __init__(self, body: list[ast.stmt]) -> None:
        self.nodes: list[ast.AST] = []  # in the order of the source
        self.parents: dict[ast.AST, ast.AST] = {}
        self.origins: dict[str, str] = {}  # imported names: where they come from
        self.bound: dict[tuple[ast.AST | None, str], list[tuple[int, ast.expr, Key]]] = {}
        self.parameters: dict[tuple[ast.AST | None, str], ast.arg] = {}
        self.definitions: dict[str, ast.AST] = {}
        self.called: dict[str, list[ast.Call]] = {}
        stack: list[ast.AST] = [ast.Module(body=body, type_ignores=[])]
        while stack:  # no recursion: a tree may be deeper than Python's stack
            self.nodes.append(node := stack.pop())
            children = list(ast.iter_child_nodes(node))
            self.parents.update(dict.fromkeys(children, node))
            stack += reversed(children)
            self._learn(node)
        self.kinds = functools.cache(self._kinds)
        self.words = {word(node) for node in self.nodes}
        kinds = map(self.kind_of_class, self.words | self.origins.keys())
        self.models = set[str]().union(*kinds)
        texts = self.words - set(SPELLINGS)
        self.masked_text = any(mask in text for text in texts for mask in SPELLINGS)
        collators = self.called.get("DataCollatorForLanguageModeling", [])
        self.collates = any(self.masks(call) is not False for call in collators)

    def _learn(self, node: ast.AST) -> None:
        match node:
            case ast.Import(names=names):
                for alias in names:
                    name = alias.name if alias.asname else alias.name.partition(".")[0]
                    self.origins[alias.asname or name] = name
            case ast.ImportFrom(names=names):
                start = "." * node.level + (node.module or "") + "."
                self.origins |= {alias.asname or alias.name: start + alias.name for alias in names}
            case ast.ClassDef() | ast.FunctionDef() | ast.AsyncFunctionDef():
                self.definitions[node.name] = node
            case ast.arg():
                self.parameters[self.scope(node), node.arg] = node
            case ast.Call():
                self.called.setdefault(last(node.func), []).append(node)
            case ast.Assign() | ast.AnnAssign(value=ast.expr()) | ast.NamedExpr():
                for target in getattr(node, "targets", None) or [node.target]:  # type: ignore[union-attr]
                    for one, value, key in unpacked(target, node.value):
                        if name := dotted(one):
                            values = self.bound.setdefault((self.scope(node, name), name), [])
                            values.append((one.lineno, value, key))

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

    def values(self, node: ast.expr, part: str = "") -> list[tuple[ast.expr, Key]]:
        """What a name may hold where it stands, each with its place in the tuple it came out of."""
        name = dotted(node) + part
        scope = self.scope(node, name)
        while (scope, name) not in self.bound and (scope, name) not in self.parameters:
            if scope is None:
                return []
            scope = self.scope(scope)
        if bound := self.bound.get((scope, name)):
            at = bisect.bisect_left(bound, node.lineno, key=lambda one: one[0])
            before = [] if name.startswith("self.") else bound[:at][-1:]
            return [one[1:] for one in before or bound[-20:]]
        places = [a.arg for a in scope.args.args]  # type: ignore[union-attr]
        places = places[places[:1] in (["self"], ["cls"]) :]
        at = places.index(name) if name in places else 999
        calls = self.called.get(getattr(scope, "name", ""), [])[:20]  # that fill the parameter
        given = [call.args[at : at + 1] for call in calls]
        given += [[w.value for w in call.keywords if w.arg == name] for call in calls]
        return [(value, None) for values in given for value in values]

    def meant(self, node: ast.expr) -> list[ast.expr]:
        """What a name may hold, or the expression itself if it is no name."""
        return [value for value, _ in self.values(node)] if dotted(node) else [node]

    def keywords(self, call: ast.Call) -> Iterator[tuple[str, ast.expr, ast.AST]]:
        """Name, value and place of each keyword, also of ``**arguments`` known in this file."""
        for given in call.keywords:
            if given.arg:
                yield given.arg, given.value, given
                continue
            for value in self.meant(given.value):
                yield from items_of(value)
            for (_, name), values in self.bound.items():  # batch["labels"] = ...
                owner, _, key = name.rpartition(".")
                if owner and owner == dotted(given.value):
                    yield from ((key, value, value) for _, value, _ in values)

    def argument(self, call: ast.Call, name: str, index: int = 999) -> ast.expr | None:
        """An argument of a call, by name or by place."""
        named = (value for key, value, _ in self.keywords(call) if key == name)
        return next(itertools.chain(named, call.args[index : index + 1]), None)

    def masks(self, call: ast.Call) -> object:
        """The argument ``mlm`` of a collator, ``None`` where it is not a constant."""
        flag = self.argument(call, "mlm", 1)
        return getattr(next(iter(self.meant(flag)), None), "value", None) if flag else True

    def kind_of_class(self, name: str) -> set[str]:
        """``masked``, ``causal`` or ``other`` (another model); empty for what is no model."""
        mine = own = self.definitions.get(name)
        while isinstance(own, ast.ClassDef) and name:
            name = dotted(own.bases[0]) if own.bases else ""
            own = self.definitions.get(name) if own is not self.definitions.get(name) else None
        origin = self.origin(name)
        short = (origin or name).rpartition(".")[2]
        foreign = origin and not named("libraries", origin)
        kinds = [kind for kind in ("masked", "causal", "other") if named(kind, short)]
        if isinstance(mine, ast.FunctionDef) or named("any", short):
            kinds = []
        if isinstance(mine, ast.ClassDef) or (foreign and kinds):
            kinds = ["other"] if foreign or not kinds else kinds
        return set(kinds[:1])

    def _kinds(self, node: ast.AST | None, key: Key = None, depth: int = 0) -> set[str]:
        """The kinds of model that an expression or its part may be; empty: nothing is known."""
        union = functools.partial(self._union, depth=depth + 1)
        parts = dict[Key, ast.expr](enumerate(getattr(node, "elts", [])))
        parts |= {name: value for name, value, _ in items_of(node)}
        match node:
            case _ if parts:
                return union((v, None) for name, v in parts.items() if key in (name, ANY))
            case ast.Call(func=ast.Name(id="super")):
                return self.kind_of_class(getattr(self.scope(node, "self."), "name", ""))
            case ast.Call(func=function, args=arguments):
                name, own = last(function), self.definitions.get(last(function))
                if isinstance(own, ast.FunctionDef):
                    return union((n.value, key) for n in ast.walk(own) if isinstance(n, ast.Return))
                if named("wrappers", name):
                    return union((argument, None) for argument in arguments[:1])
                inner = getattr(function, "value", None) if named("methods", name) else function
                return union([(inner, None)] if key is None else [])
            case ast.Attribute(attr="module" | "forward"):
                return union([(node.value, None)])
            case ast.Name() | ast.Attribute() | ast.Subscript():
                name, at = dotted(node), getattr(getattr(node, "slice", None), "value", ANY)
                known = [
                    (v, key if i is None else i) for v, i in self.values(node) if v is not node
                ]
                if isinstance(key, str):  # parts["model"] = ...
                    known += self.values(node, f".{key}")
                if isinstance(node, ast.Subscript) and not known:  # CLASSES["bert"]
                    known = [(node.value, at if isinstance(at, int | str) else ANY)]
                kinds = self.kind_of_class(name) or union(known)
                # An argument that no call in this file fills: is a global of its name a model?
                parameter = self.parameters.get((self.scope(node), name))
                hint = getattr(parameter, "annotation", None)
                free = parameter and not hint and not known and (None, name) in self.bound
                guess = self.models if free and self.models == {"masked"} else set()
                return kinds or self.kind_of_class(dotted(hint)) or guess
        return set()

    def _union(self, values: Iterable[tuple[ast.AST | None, Key]], depth: int) -> set[str]:
        found = (self.kinds(value, key, depth) for value, key in values if depth < 13)
        return set[str]().union(*found)

    def is_mask_id(self, node: ast.expr | None, depth: int = 0) -> bool:
        """Whether an expression is the id of the mask token."""
        if isinstance(node, ast.Call):
            looks_up = last(node.func) in ("convert_tokens_to_ids", "token_to_id")
            return looks_up and any(word(a) in ("mask_token", *SPELLINGS) for a in node.args)
        if named("mask_id", last(node)) or number(node) in MASK_IDS:
            return True
        known = self.values(node) if isinstance(node, ast.Name) and depth < 3 else []
        return any(index is None and self.is_mask_id(value, depth + 1) for value, index in known)
