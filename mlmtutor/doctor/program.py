"""The syntax tree of a program: what its names are bound to, and which of them are models.

A name stands for everything that is bound to it in its function, or else anywhere in the file. What
may be a masked model and may be another one is not judged.
"""

import ast
import functools
import importlib.resources
import re
import tomllib
from collections.abc import Iterator
from typing import Any

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)


def table(name: str) -> dict[str, Any]:
    """Read a data file of the doctor."""
    file = importlib.resources.files("mlmtutor.doctor").joinpath(name)
    return tomllib.loads(file.read_text("utf-8"))


WORDS = table("words.toml")


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


def assigned(target: ast.expr, value: Any) -> Iterator[tuple[ast.expr, Any]]:
    """Each target of an assignment with its value, with ``None`` if that is a part of something."""
    if not isinstance(target, ast.Tuple | ast.List):
        yield target, value
        return
    prepared = isinstance(value, ast.Call) and last(value.func) == "prepare"  # accelerate
    parts = value.args if prepared else getattr(value, "elts", [])
    paired = len(parts) == len(target.elts)
    for i, one in enumerate(target.elts):
        yield from assigned(one, parts[i] if paired else None)


def is_labels(name: str) -> bool:
    """Whether something is named like labels."""
    return "label" in name.lower() and not name.lower().endswith(("mask", "masks"))


class Program:
    """The syntax tree of a file and what its names stand for."""

    def __init__(self, body: list[ast.stmt]) -> None:
        self.nodes: list[ast.AST] = []  # in the order of the source
        self.parents: dict[ast.AST, ast.AST] = {}
        self.origins: dict[str, str] = {}  # imported names: where they come from
        self.bound: dict[str, list[tuple[ast.AST | None, ast.expr]]] = {}  # function, value
        self.items: dict[str, list[tuple[str, ast.expr, ast.AST]]] = {}  # batch["labels"] = ...
        self.definitions: dict[str, ast.AST] = {}
        self.parameters: set[str] = set()
        self.calls: list[ast.Call] = []
        stack: list[ast.AST] = [ast.Module(body=body, type_ignores=[])]
        while stack:  # no recursion: a tree may be deeper than Python's stack
            self.nodes.append(node := stack.pop())
            children = list(ast.iter_child_nodes(node))
            self.parents.update(dict.fromkeys(children, node))
            stack += reversed(children)
            self._learn(node)
        self.kinds = functools.cache(self._kinds)
        self.words = {word(node) for node in self.nodes}
        foreign = (self.words | self.origins.keys()) - self.definitions.keys()
        self.models = {self.kind_of_class(name) for name in foreign} - {""}
        self.has_masked = "masked" in self.models
        self.collates = any(self.masks(call) is not False
                            for call in self.called("DataCollatorForLanguageModeling"))  # fmt: skip
        trainers = [call for call in self.calls if self.class_called(call.func) == "Trainer"]
        self.trainers = [(c, self.kinds(self.argument(c, "model", 0))) for c in trainers]
        collators = {last(one) or last(getattr(one, "func", None)) for call in trainers
                     for one in self.meant(self.argument(call, "data_collator", 2))}  # fmt: skip
        self.computes = self.definitions.keys() & {"compute_loss", "training_step"}  # its own loss
        masked = [kinds == {"masked"} for _, kinds in self.trainers]
        self.trains = any(masked) and self.models == {"masked"} and not self.computes
        hides = any(named("hides", name) for name in self.words if name.isidentifier())
        self.unmasked = self.trains and not hides and collators <= set(WORDS["pads"])

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
                self.parameters.add(node.arg)
            case ast.Call():
                self.calls.append(node)
            case ast.Assign() | ast.AnnAssign(value=ast.expr()) | ast.NamedExpr():
                for target in getattr(node, "targets", None) or [node.target]:  # type: ignore[union-attr]
                    for one, part in assigned(target, node.value):
                        value: Any = part or node.value
                        self.bound.setdefault(last(one), []).append((self.function(node), value))
                        if isinstance(one, ast.Subscript):
                            items = self.items.setdefault(dotted(one.value), [])
                            items.append((last(one), value, value))

    def called(self, name: str) -> list[ast.Call]:
        """The calls of something, by its last name."""
        return [call for call in self.calls if last(call.func) == name]

    def lineage(self, name: str) -> tuple[list[ast.ClassDef], str]:
        """The classes of this file that a class is made of, and the first one from elsewhere."""
        own: list[ast.ClassDef] = []
        while isinstance(found := self.definitions.get(name), ast.ClassDef) and found not in own:
            own.append(found)
            name = dotted(found.bases[0]) if found.bases else ""
        return own, name

    def class_called(self, function: ast.expr) -> str:
        """The class of transformers that is called, also through a class of this file."""
        own, name = self.lineage(dotted(function))
        parts = [part for one in own for part in one.body]
        if any(getattr(p, "name", "") == "__init__" or isinstance(p, ast.AnnAssign) for p in parts):
            return ""  # with arguments of its own
        origin = self.origin(name)
        return origin.rpartition(".")[2] * origin.startswith("transformers.")

    def block(self, node: ast.stmt) -> tuple[ast.AST, bool]:
        """The statement around one, and whether it stands under its ``else``."""
        parent = self.parents[node]
        other = next(iter(getattr(parent, "orelse", ())), None)
        return parent, other is not None and node.lineno >= other.lineno

    def function(self, node: ast.AST) -> ast.AST | None:
        """The function around a node; ``None`` is the module."""
        parent = self.parents.get(node)
        while parent is not None and not isinstance(parent, FUNCTIONS):
            parent = self.parents.get(parent)
        return parent

    def parameter(self, node: ast.AST) -> ast.arg | None:
        """The parameter of the function around it that a name is."""
        arguments = getattr(self.function(node), "args", None)
        given = ast.walk(arguments) if arguments and isinstance(node, ast.Name) else ()
        return next((a for a in given if isinstance(a, ast.arg) and a.arg == last(node)), None)

    def origin(self, name: str) -> str:
        """The full name of something imported: ``transformers.BertForMaskedLM``."""
        first, dot, rest = name.partition(".")
        return self.origins[first] + dot + rest if first in self.origins else ""

    def values(self, node: ast.expr) -> list[ast.expr]:
        """What a name may hold: in its function, or else anywhere in the file."""
        bound = self.bound.get(last(node), [])[-50:] if dotted(node) else []
        here = [value for function, value in bound if function is self.function(node)]
        return here if here or self.parameter(node) else [value for _, value in bound]

    def meant(self, node: ast.expr | None) -> list[ast.expr]:
        """What a name may hold, or the expression itself if it is no name."""
        return [] if node is None else self.values(node) if dotted(node) else [node]

    def keywords(self, call: ast.Call) -> Iterator[tuple[str, ast.expr, ast.AST]]:
        """Name, value and place of each keyword, also of ``**arguments`` known in this file."""
        for given in call.keywords:
            if given.arg:
                yield given.arg, given.value, given
            else:
                for value in self.meant(given.value):
                    yield from items_of(value)
                yield from self.items.get(dotted(given.value) or "?", [])

    def argument(self, call: ast.Call, name: str, index: int = 999) -> ast.expr | None:
        """An argument of a call, by name or by place."""
        given = [value for key, value, _ in self.keywords(call) if key == name]
        return next(iter(given + call.args[index : index + 1]), None)

    def masks(self, call: ast.Call) -> object:
        """The argument ``mlm`` of a collator, ``None`` where it is not a constant."""
        flag = self.argument(call, "mlm", 1)
        return getattr(next(iter(self.meant(flag)), None), "value", None) if flag else True

    def kind_of_class(self, name: str) -> str:
        """``masked``, ``causal`` or ``other`` (another model); empty for what is no model."""
        bases, name = self.lineage(name)
        if any(getattr(part, "name", "") == "forward" for one in bases for part in one.body):
            return "other"  # with labels of its own
        origin = self.origin(name)
        short = (origin or name).rpartition(".")[2]
        if name in self.definitions or named("any", short):
            return "other" if bases else ""
        kind = next((kind for kind in ("masked", "causal", "other") if named(kind, short)), "")
        foreign = origin and not named("libraries", origin)
        return "other" if (kind and foreign) or (bases and not kind) else kind

    def _kinds(self, node: ast.AST | None, depth: int = 9) -> set[str]:
        """The kinds of model that an expression may be; empty: nothing is known."""
        inside: list[Any] = []
        match node:
            case ast.Call(func=function, args=arguments):
                own = self.definitions.get(last(function))
                inside = arguments[:1] if named("wrappers", last(function)) else [function]
                if isinstance(own, ast.FunctionDef):
                    inside = [n.value for n in ast.walk(own) if isinstance(n, ast.Return)]
            case ast.Name() | ast.Attribute() | ast.Subscript():
                if kind := self.kind_of_class(dotted(node)) or self._kind_of_parameter(node):
                    return {kind}
                inside = self.values(node) or [getattr(node, "value", None)]
            case ast.Dict() | ast.Tuple() | ast.List() | ast.IfExp():
                inside = list(ast.iter_child_nodes(node))
        return set[str]().union(*(self.kinds(one, depth - 1) for one in inside if depth))

    def _kind_of_parameter(self, node: ast.AST) -> str:
        """From its annotation, or from its name where a file has masked models only."""
        parameter = self.parameter(node)
        hint = self.kind_of_class(dotted(getattr(parameter, "annotation", None)))
        guess = parameter and self.models == {"masked"} and named("model_names", parameter.arg)
        return hint or ("masked" if guess else "")

    def is_mask_id(self, node: ast.AST | None, depth: int = 0) -> bool:
        """Whether an expression is the id of the mask token."""
        if isinstance(node, ast.Call):
            looks_up = last(node.func) in ("convert_tokens_to_ids", "token_to_id")
            texts = ("mask_token", *WORDS["spellings"])
            return looks_up and any(word(text) in texts for text in node.args)
        if named("mask_id", word(node)) or number(node) in WORDS["mask_ids"]:
            return True
        known = self.values(node) if isinstance(node, ast.Name) and depth < 3 else []
        return bool(known) and all(self.is_mask_id(value, depth + 1) for value in known)
