"""What a program does with its labels, read from its syntax tree and never run.

:class:`Recipe` follows ids through one function: where they were copied, where the mask token was
written, which positions were set aside, and what reached ``labels=``.
"""

import ast
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from mlmtutor.doctor.program import (
    WORDS,
    Program,
    dotted,
    is_labels,
    items_of,
    last,
    named,
    number,
    unpacked,
)

Found = tuple[str, ast.AST, str, str]  # code of a rule, place, what is said, fix; "": the rule's
SAME, COPY, HARMLESS = (set(words.split()) for words in WORDS["calls"].values())
LABELS = WORDS["labels"]


@dataclass(eq=False)
class Ids:
    """What is known of one tensor or list of ids inside a function.

    Two with the same content hold the same ids. Positions are set aside by a test: ``special``
    tokens, ``masks``, the ``rest`` (all but the masks) or ``other`` ones.
    """

    content: tuple[object, int] | None = None  # where the ids come from, the last write to them
    aside: set[str] = field(default_factory=set)
    fills: dict[object, ast.AST] = field(default_factory=dict)  # a number, pad, mask, single ids
    doubts: dict[str, ast.AST] = field(default_factory=dict)  # which may be taken back later on
    place: ast.AST | None = None  # where it was made

    def copied(self, place: ast.AST) -> "Ids":
        """A copy of its own."""
        doubts = dict.fromkeys(self.doubts, place)
        return Ids(self.content, set(self.aside), dict(self.fills), doubts, place)


class Recipe:
    """One function, or the module outside of functions, statement by statement."""

    def __init__(self, program: Program, statements: list[ast.stmt]) -> None:
        self.program = program
        self.known: dict[str, Ids] = {}
        self.made: dict[str, ast.expr] = {}  # what a name or an element was set to
        self.pairs: list[tuple[Ids | None, Ids, ast.AST]] = []  # inputs, labels, place
        self.found: list[Found] = []
        self.stamp = itertools.count(1)
        for node in statements:
            for child in ast.iter_child_nodes(node):
                for part in ast.walk(child) if isinstance(child, ast.expr | ast.withitem) else ():
                    self._pair({key: value for key, value, _ in items_of(part)})
                    if isinstance(part, ast.Call):
                        self._call(part, last(part.func), dotted(getattr(part.func, "value", None)))
            self._run(node)
        self._close()

    def _run(self, node: ast.stmt) -> None:
        match node:
            case ast.Assign() | ast.AnnAssign(value=ast.expr()):
                for target in getattr(node, "targets", None) or [node.target]:  # type: ignore[union-attr]
                    self._assign(target, node.value, node)
            case ast.AugAssign():
                self._touch(dotted(node.target))
            case ast.Return(value=ast.Tuple(elts=parts)):
                names = [dotted(part).rpartition(".")[2] for part in parts]
                keys = ["labels" if is_labels(name) else name for name in names]
                if others := [key for key in keys if key != "labels"]:
                    keys[keys.index(others[0])] = "input_ids"
                self._pair(dict(zip(keys, parts, strict=True)))
            case ast.For() | ast.AsyncFor():
                self._assign(node.target, None, node)

    # What an expression holds

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
        return ("text", dotted(call.func), ast.unparse(call.args[0]), *versions)

    def _value(self, node: ast.expr | None) -> Ids | None:
        """What is known of an expression."""
        if last(node) == "input_ids" and (text := self._text(getattr(node, "value", None))):
            return Ids((text, 0), place=node)
        if path := dotted(node):
            return None if path in self.program.origins else self._get(path.removesuffix(".data"))
        match node:
            case ast.Call():
                return self._call_value(node, last(node.func), getattr(node.func, "value", None))
            case ast.Subscript():
                base = self._value(node.value)
                if base is None or base.content is None or ast.unparse(node.slice) == ":":
                    return base and base.copied(node)
                return Ids(((base.content[0], ast.unparse(node.slice)), base.content[1]))
            case ast.List(elts=elts) | ast.Tuple(elts=elts):
                fillers = [c for one in elts[:2] if (c := self._constant(one)) is not None]
                if len(fillers) == len(elts) < 2:  # [] or [-100], often times a length
                    return Ids(fills=dict.fromkeys(fillers, node))
                if len(elts) == 1 and (inner := self._value(elts[0])):
                    return inner.copied(node)
                ignored = {number(n) for n in ast.walk(node)} & {-1, -100}
                aside = {"other"} if ignored else set()
                return Ids((ast.unparse(node), 0), aside, dict.fromkeys(ignored, node))
            case ast.BinOp(op=ast.Mult(), left=left):
                if any(last(getattr(n, "func", None)).startswith("ones") for n in ast.walk(node)):
                    factor = {number(left), number(node.right)} - {None}
                    return Ids(fills=dict.fromkeys(factor, node), place=node)
                return self._value(left) if isinstance(left, ast.List) else None
            case ast.BinOp():
                sides = [v for v in (self._value(node.left), self._value(node.right)) if v]
                fills = {k: place for side in sides for k, place in side.fills.items()}
                return Ids(None, set().union(*(side.aside for side in sides)), fills, place=node)
            case ast.ListComp(elt=elt, generators=[loop, *_]):
                if base := self._value(loop.iter):
                    self.known[dotted(loop.target)] = base
                if isinstance(elt, ast.IfExp):
                    return self._chosen(elt.test, elt.body, elt.orelse, node)
                inner = self._value(elt)
                content = inner.content if inner and inner is base else None
                return inner and replace(inner.copied(node), content=content)
        return None

    def _call_value(self, node: ast.Call, name: str, owner: ast.expr | None) -> Ids | None:
        """What a call makes of ids: ``x.clone()``, ``torch.where(...)``, ``x.masked_fill(...)``."""
        is_module = owner is None or dotted(owner).split(".")[0] in self.program.origins
        arguments = node.args if is_module or owner is None else [owner, *node.args]
        match name, arguments:
            case "where", [one, two, no]:
                return self._chosen(*((one, two) if is_module else (two, one)), no, node)
            case "masked_fill", [no, test, yes]:
                return self._chosen(test, yes, no, node)
            case _ if (at := WORDS["filled"].get(name)) and (name != "pad" or is_module):
                words = ("fill_value", "padding_value", "value", "constant_values")
                filler = [w.value for w in node.keywords if w.arg in words] + node.args[at : at + 1]
                made = Ids(place=node)
                self._store(made, None, filler[0] if filler else ast.Constant(0), node)
                return made
            case "encode" | "convert_tokens_to_ids", _:
                return Ids((self._text(node), 0), place=node)
            case _, [first, *_] if name in SAME | COPY:
                base = self._value(first)
                return base if name in SAME and not is_module else base and base.copied(node)
        return None

    def _constant(self, node: ast.expr | None) -> object:
        """A number, ``pad``, or ``None`` for what is not a constant."""
        if (value := number(node)) is not None:
            return value
        if special := re.search(r"(pad(_?token)?_?(id|idx|index)$)|ignore", last(node), re.I):
            return "pad" if special[1] else -100
        known = self.program.values(node) if isinstance(node, ast.Name) else []
        return number(known[0][0]) if len(known) == 1 else None

    def _test(self, node: ast.expr | None) -> tuple[bool, Ids | None, object]:
        """``(True, ids, mask)`` of ``ids == mask_id``; ``(False, ids, -1)`` of ``ids != -1``."""
        equal = True
        for _ in range(9):
            match node:
                case ast.Name():
                    node = self.made.get(node.id)
                case ast.UnaryOp(op=ast.Invert() | ast.Not(), operand=node):
                    equal = not equal
                case ast.Call(func=ast.Attribute(value=node, attr="bool" | "to")):
                    pass
        match node:
            case ast.Compare(left=left, ops=[ast.Eq() | ast.NotEq() as op], comparators=[right]):
                equal ^= isinstance(op, ast.NotEq)
            case ast.Call(
                func=ast.Attribute(value=left, attr="eq" | "ne" as op), args=[*more, right]
            ):
                left, equal = (more or [left])[0], equal ^ (op == "ne")
            case _:
                return False, None, None
        if self.program.is_mask_id(left):
            left, right = right, left
        what = "mask" if self.program.is_mask_id(right) else self._constant(right)
        return what is not None and equal, self._value(left), what

    def _chosen(self, test: ast.expr, yes: ast.expr, no: ast.expr, place: ast.AST) -> Ids:
        """``where(test, yes, no)``: one side is copied, the other is written over it."""
        written = number(yes) is not None or self.program.is_mask_id(yes) or not self._value(yes)
        if not written:
            test, yes, no = ast.UnaryOp(ast.Not(), test), no, yes
        base = self._value(no) if self._constant(no) is None else None
        made = base.copied(place) if base else Ids(place=place)
        self._store(made, test, yes, place, base)
        return made

    # What a statement changes

    def _store(
        self, ids: Ids, test: ast.expr | None, value: Any, place: ast.AST, base: Ids | None = None
    ) -> None:
        """``ids[test] = value``, where ``ids`` may be a copy of ``base``."""
        constant, masks = self._constant(value), self.program.is_mask_id(value)
        if value and self.program.is_mask_id(self.made.get(ast.unparse(value))):
            ids.doubts["label-is-mask"] = place  # ids[i] = mask_id; labels[i] = ids[i]
        elif masks or constant is None or (isinstance(constant, int) and constant > 0):
            source = self._value(value.value) if isinstance(value, ast.Subscript) else None
            if ids.content:  # other ids stand in it now
                ids.content = (ids.content[0], next(self.stamp))
            elif source and not masks:
                ids.content, ids.fills["ids"] = source.content, place
            if masks:
                ids.fills["mask"] = ids.doubts["label-is-mask"] = place
            else:  # an answer
                ids.aside.add("other")
                ids.doubts.pop("label-is-mask", None)
        else:
            equal, other, what = self._test(test)
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
        for key, ids in self.known.items():
            if path and f"{key}.".startswith(f"{path}."):
                vars(ids).update(vars(Ids((next(self.stamp), 0), {"other"}, place=ids.place)))

    def _assign(self, target: ast.expr, value: Any, place: ast.stmt) -> None:
        parts = [(one, v if i is None else None) for one, v, i in unpacked(target, value)]
        for one, part, ids in [(*pair, self._value(pair[1])) for pair in parts]:
            base = getattr(one, "value", None)
            while isinstance(base, ast.Subscript) and not last(base):
                base = base.value
            if not isinstance(one, ast.Subscript) or last(one):
                self._bind(dotted(one), ids, part)
            elif owner := self._value(base):
                self.made[ast.unparse(one)] = part or ast.Constant(None)
                if ast.unparse(one.slice) == ":":
                    owner.content, owner.aside, owner.fills, owner.doubts = None, set(), {}, {}
                self._store(owner, one.slice, part, place)

    def _bind(self, path: str, ids: Ids | None, value: ast.expr | None) -> None:
        owner = getattr(getattr(value, "func", None), "value", None)
        if not path or (owner and dotted(owner) == path and not ids):
            return  # batch = batch.to(device)
        for key in [k for k in self.known if k.startswith(f"{path}.")]:
            del self.known[key]
        self.known[path] = ids or Ids(((path, next(self.stamp)), 0), place=value)
        self.made.pop(path, None)
        if value is not None:
            self.made[path] = value
            for key, part, _ in items_of(value):
                if inner := self._value(part):
                    self.known[f"{path}.{key}"] = inner

    def _pair(self, parts: dict[str, ast.expr]) -> None:
        """``{"input_ids": ids, "labels": labels}``, or ``return input_ids, labels``."""
        chooses = any(named("chosen", key) for key in parts)
        if not chooses and (labels := self._value(parts.get("labels"))):
            self.pairs.append((self._value(parts.get("input_ids")), labels, parts["labels"]))

    def _call(self, node: ast.Call, name: str, owner: str) -> None:
        words = {given.arg: given.value for given in node.keywords if given.arg}
        stars = [dotted(given.value) for given in node.keywords if not given.arg]
        given = next((words[key] for key in LABELS if key in words), None)
        paths = [f"{star}.{key}" for star in stars for key in LABELS]
        parts = [self._value(given)] if given else [self.known.get(path) for path in paths]
        labels = next(filter(None, parts), None)
        kinds = self.program.kinds(node.func)
        if labels and kinds <= {"masked"}:
            inputs = words.get("input_ids") or next(iter(node.args), None)
            seen = self._value(inputs)
            if stars and not inputs:
                seen = self._get(f"{stars[0]}.input_ids")
            pair = seen, labels, given or labels.place or node
            if not kinds:
                self.pairs.append(pair)
                return
            for code, fills in ("ignore-minus-one", {-1}), ("ignore-padding", {0, "pad"}):
                for value in fills & set(labels.fills):
                    self._report(code, labels.fills[value])
            self._judge(*pair, called=True)
        elif name in ("masked_fill_", "append", "index_fill_") and node.args and owner:
            test = node.args[0] if name == "masked_fill_" else ast.Constant(0)
            self._store(self._get(owner), test, node.args[-1], node)
        elif name.endswith("_"):
            self._touch(owner)
        elif name not in HARMLESS | SAME | COPY and not kinds and not labels:
            for argument in (*node.args, *words.values()):
                self._touch(dotted(argument))

    # What is wrong

    def _report(self, code: str, place: ast.AST) -> None:
        self.found.append((code, place, "", ""))

    def _doubt(self, labels: Ids) -> bool:
        if labels.aside & {"other", "rest"}:
            labels.doubts.pop("inverted-selection", None)
        for code, place in labels.doubts.items():
            self._report(code, place)
        return bool(labels.doubts)

    def _judge(self, seen: Ids | None, labels: Ids, place: ast.AST, called: bool = False) -> None:
        """Labels beside the ids that a model sees; ``called`` is a masked model in this file."""
        if self._doubt(labels) or not seen or not labels.content or not seen.content:
            return
        plain, program = labels.aside <= {"special"}, self.program
        not_other = program.models <= {"masked"}
        if not called and (program.collates or "mask" not in seen.fills or not plain):
            return
        if labels.content == seen.content:
            one = labels.fills.get("ids")
            masks = not called or "rest" in labels.aside or (one and program.masked_text)
            self._report("label-is-mask" if masks else "labels-are-inputs", one or place)
        elif labels.content[0] == seen.content[0] and plain and (called or not_other):
            self._report("labels-are-inputs", place)

    def _close(self) -> None:
        """At the end of the function: what its labels are beside its ids."""
        for path, ids in list(self.known.items()):
            base, _, key = path.rpartition(".")
            if is_labels(key):
                text = named("masked_text", str(ids.content)) and "other" not in ids.aside
                if text and ids.place:  # labels = tokenizer("[MASK]").input_ids
                    ids.doubts["label-is-mask"] = ids.place
                self._doubt(ids)
            if key == "labels" and base not in ("", "self") and path in self.made:
                self.pairs.append((self.known.get(f"{base}.input_ids"), ids, self.made[path]))
        for pair in self.pairs:
            self._judge(*pair)


def follow(program: Program) -> Iterator[Found]:
    """What is wrong with the recipe of each function, and of the module outside of them."""
    blocks: dict[ast.AST | None, list[ast.stmt]] = {}
    for node in program.nodes:
        if isinstance(node, ast.stmt) and not isinstance(program.parents[node], ast.ClassDef):
            blocks.setdefault(program.scope(node), []).append(node)
    for statements in blocks.values():
        yield from Recipe(program, statements).found
