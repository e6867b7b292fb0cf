"""What a program does with its labels, read from its syntax tree and never run.

:class:`Recipe` follows ids through one function: where they were copied, where the mask token was
written, which positions were set aside, and what reached ``labels=``.
"""

import ast
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from mlmtutor.doctor.program import (
    WORDS,
    Program,
    assigned,
    dotted,
    is_labels,
    items_of,
    last,
    named,
    number,
)

COPY, LOOK, HARMLESS, MODULES = (set(words.split()) for words in WORDS["calls"].values())


@dataclass(eq=False)
class Ids:
    """What is known of one tensor or list of ids.

    Two with the same root were made from the same ids, and hold the same ones if the version is
    the same too. ``written`` has the place of ``"mask"`` (the mask token), of ``"one"`` (an id at
    its own position), of ``"masks"``, ``"rest"`` and ``"some"`` (the masked positions, all the
    others or some of them are not scored), and of each number, or ``"pad"``, that was written
    for "not scored".
    """

    root: object = None
    version: int = 0
    written: dict[object, ast.AST] = field(default_factory=dict)
    place: ast.AST | None = None

    def copied(self, place: ast.AST) -> "Ids":
        """A copy; what copies masked ids is named as the place of their mask token."""
        copies = "mask" in self.written and not self.written.keys() & {"one", -100}
        mask = {"mask": place} if copies else {}
        return Ids(self.root, self.version, self.written | mask, place)

    def holds_same(self, other: "Ids") -> bool:
        """Whether both hold the same ids, apart from what is not scored."""
        return bool(self.root) and (self.root, self.version) == (other.root, other.version)


class Recipe:
    """One function, or the module outside of functions, statement by statement."""

    def __init__(self, program: Program, statements: list[ast.stmt]) -> None:
        self.program = program
        self.known: dict[str, Ids] = {}
        # what leaves: in a dictionary, in a call, to the caller
        self.given: dict[str, tuple[Ids | None, ast.AST]] = {}
        self.hidden: set[object] = set()  # positions that got the mask token, and in which block
        self.found: list[tuple[str, ast.AST | None]] = []
        self.stamp = itertools.count(1)
        for statement in statements:
            self.block = program.block(statement)
            self._run(statement)

    def _run(self, node: ast.stmt) -> None:
        for child in ast.iter_child_nodes(node):
            for part in ast.walk(child) if isinstance(child, ast.expr) else ():
                self.given |= {key: (self._value(v), v) for key, v, _ in items_of(part)}
                if isinstance(part, ast.Call):
                    self._call(part)
        match node:
            case ast.Assign(targets=targets, value=value):
                for target in targets:
                    self._assign(target, value)
            case ast.AnnAssign(target=target) | ast.For(target=target):
                self._assign(target, getattr(node, "value", None))
            case ast.Return(value=ast.Tuple(elts=parts)):
                self._give(parts)
            case ast.Expr(value=ast.Call() as call) if last(call.func) not in HARMLESS:
                for part in (*call.args, *(given.value for given in call.keywords)):
                    self._touch(dotted(part))  # a call that stands alone may change its arguments

    def _give(self, parts: list[ast.expr]) -> None:
        """To the caller, or to a dataset: ``ids, torch.tensor(labels)``."""
        for part in parts:
            inner: Any = part
            while isinstance(inner, ast.Call) and last(inner.func) in COPY:
                inner = next(iter(self._arguments(inner)[2]), None)
            names = [n.id for n in ast.walk(inner or part) if isinstance(n, ast.Name)]
            if name := dotted(inner) or next(filter(is_labels, names), ""):
                self.given[name.rpartition(".")[2]] = self._value(inner), part

    # What an expression holds

    def _get(self, path: str) -> Ids:
        return self.known.setdefault(path, Ids((path, next(self.stamp))))

    def _said(self, node: ast.AST) -> tuple[object, ...]:
        """An expression and what is in its names: equal for two if both give the same."""
        names = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)} & self.known.keys()
        held = ((self.known[name], self.known[name].version) for name in sorted(names))
        return (ast.unparse(node), *held)

    def _text(self, call: ast.Call) -> object:
        """What stands for a text that is tokenized: the same text gives the same ids."""
        return (*self._said(call.args[0]), dotted(call.func)) if call.args else call

    def _value(self, node: Any) -> Ids | None:
        """What is known of an expression."""
        if path := dotted(node):
            return None if path in self.program.origins else self._get(path)
        match node:
            case ast.Call():
                return self._made_by(node)
            case ast.Attribute(value=ast.Call() as call) | ast.Subscript(value=ast.Call() as call):
                return Ids(self._text(call))  # tokenizer(text)["input_ids"]
            case ast.Subscript(value=whole, slice=ast.Slice(None, None)):
                return (base := self._value(whole)) and base.copied(node)
            case ast.List(elts=[one]) if self._constant(one) is None:
                return (inner := self._value(one)) and inner.copied(node)
            case ast.ListComp(elt=ast.IfExp(test, yes, no)):
                return self._chosen(test, yes, no, node)
            case ast.List() | ast.BinOp() | ast.ListComp():
                lists = [part for part in ast.walk(node) if isinstance(part, ast.List)]
                fills: dict[Any, ast.AST] = {self._constant(part): part for part in (*lists, node)}
                fills.pop(None, None)
                start = self.known.get(dotted(getattr(node, "left", None)))  # ids + [0] * missing
                made = start.copied(node) if start else Ids(None if fills else node)
                made.written |= fills
                return made
        return None

    def _arguments(self, call: ast.Call) -> tuple[str, bool, list[Any]]:
        """The name of a call, whether it is a method, and its arguments, with the object first."""
        owner = getattr(call.func, "value", None)
        modules = self.program.origins.keys() | MODULES
        is_method = owner is not None and dotted(owner).split(".")[0] not in modules
        return last(call.func), is_method, [owner, *call.args] if is_method else call.args

    def _made_by(self, node: ast.Call) -> Ids | None:
        """What a call makes of ids: ``x.clone()``, ``torch.where(...)``, ``x.masked_fill(...)``."""
        name, is_method, arguments = self._arguments(node)
        match name, arguments:
            case ("where", [test, yes, no]) | ("masked_fill", [no, test, yes]):
                test, yes = (yes, test) if is_method and name == "where" else (test, yes)
                return self._chosen(test, yes, no, node)
            case _ if (constant := self._constant(node)) is not None:
                return Ids(written={constant: node})
            case "encode" | "convert_tokens_to_ids", [_, tokens, *_]:
                words = self._value(tokens)
                return Ids(self._text(node), 0, words.copied(node).written if words else {})
            case _, [first, *_] if name in COPY:
                return (base := self._value(first)) and base.copied(node)
        return None

    def _constant(self, node: ast.AST | None) -> object:
        """A number or ``pad``, also that which a list or a tensor is full of; ``None``: neither."""
        known = self.program.values(node) if isinstance(node, ast.Name) else [node]
        if len(known) == 1 and (value := number(known[0])) is not None:
            return value
        if special := re.search(r"(pad(_?token)?_?(id|idx|index)$)|ignore", last(node), re.I):
            return "pad" if special[1] else -100
        match node:
            case ast.List(elts=[one]) | ast.ListComp(elt=one):
                return self._constant(one)
            case ast.BinOp(left, ast.Mult(), right):  # torch.ones(n) * -100
                a, b = self._constant(left), self._constant(right)
                return a * b if isinstance(a, int) and isinstance(b, int) else None
            case ast.Call():
                name, is_method, arguments = self._arguments(node)
                if name in WORDS["filled"] and (name, is_method) != ("pad", True):
                    at, value = WORDS["filled"][name]
                    given = [w.value for w in node.keywords if w.arg in WORDS["values"]]
                    given += node.args[at : at + 1]
                    return self._constant(given[0]) if given else value
                return self._constant(arguments[0]) if name in COPY and arguments else None
        return None

    def _test(self, node: Any) -> tuple[bool, Ids | None, object]:
        """``(True, ids, "mask")`` of ``ids == mask_id``; ``(False, ids, -1)`` of ``ids != -1``."""
        equal = True
        for _ in range(9):
            match node:
                case ast.Name():
                    (node,) = known if len(known := self.program.values(node)) == 1 else (None,)
                case ast.UnaryOp(op=ast.Invert() | ast.Not(), operand=node):
                    equal = not equal
                case ast.Call() if last(node.func) in LOOK and self._arguments(node)[2]:
                    node = self._arguments(node)[2][0]  # torch.where(ids == mask_id)
        match node:
            case ast.Compare(left=left, ops=[ast.Eq() | ast.NotEq() as op], comparators=[right]):
                equal ^= isinstance(op, ast.NotEq)
            case ast.Call(ast.Attribute(left, "eq" | "ne" | "index" as op), [right]):
                equal ^= op == "ne"
            case _:
                return False, None, None
        what = "mask" if self.program.is_mask_id(right) else self._constant(right)
        return what is not None and equal, self._value(left), what

    def _chosen(self, test: ast.expr, yes: ast.expr, no: ast.expr, place: ast.AST) -> Ids:
        """``where(test, yes, no)``: one side is copied, the other is written over it."""
        if self._constant(yes) is None and not self.program.is_mask_id(yes) and self._value(yes):
            test, yes, no = ast.UnaryOp(ast.Not(), test), no, yes
        base = self._value(no) if self._constant(no) is None else None
        made = base.copied(place) if base else Ids(place=place)
        self._store(made, test, yes, place)
        return made

    # What a statement changes

    def _store(self, ids: Ids, test: ast.expr, value: Any, place: ast.AST) -> None:
        """``ids[test] = value``."""
        constant, masks = self._constant(value), self.program.is_mask_id(value)
        masks |= (number(value) or 0) > 1 and named("selected", ast.unparse(test))
        equal, other, what = self._test(test)
        here, fills = (self._said(test), self.block), ids.written.keys() & {0, -1, "pad"}
        if constant is None or (isinstance(constant, int) and constant > 0):
            source = self._value(value.value) if isinstance(value, ast.Subscript) else None
            old = ids.written.get("mask")  # maybe of another branch
            stored = isinstance(old, ast.Subscript) and old is not ids.written.get("rest")
            if not stored or what == "mask":
                ids.written.pop("mask", None)
            ids.written["mask" if masks else "some"] = place
            if masks:
                self.hidden.add(here)
            elif not source and isinstance(self.block[0], ast.For) and isinstance(test, ast.Name):
                ids.written = {"some": place}  # each row in turn: nothing is left of a filler
            if ids.root:
                ids.version = next(self.stamp)  # other ids stand in it now
            elif source and not masks:
                ids.root, ids.version = source.root, source.version
                at_masks = equal and what == "mask" and other and other.holds_same(source)
                wrong = "mask" in source.written or (at_masks and not source.written)
                ids.written["mask" if wrong else "one"] = place
            return
        if here in self.hidden:
            equal, other, what = True, None, "mask"
        if what == "mask":
            aside = "masks" if equal and constant == -100 else "rest"
            if aside == "masks" and ids is other and self._came_as_labels(ids):
                aside = "some"
            ids.written[aside] = place
            if not equal and other and (other is ids or ids.holds_same(other)):
                ids.written["mask"] = place  # nothing is left but the masks of these very ids
        elif equal and not named("chosen", ast.unparse(getattr(test, "elts", [test])[-1])):
            ids.written.pop(what, None)
        else:
            ids.written["some"] = place
            for fill in fills if constant == -100 else ():
                del ids.written[fill]
        ids.written[constant] = place

    def _touch(self, path: str) -> None:
        """Something unknown may have changed it: nothing is claimed any more."""
        for key, ids in self.known.items():
            if path and f"{key}.".startswith(f"{path}."):
                ids.root, ids.written = (key, next(self.stamp)), {}

    def _assign(self, target: ast.expr, value: Any) -> None:
        parts = list(assigned(target, value))
        for one, part, ids in [(one, part, self._value(part)) for one, part in parts]:
            base = getattr(one, "value", None)
            while isinstance(base, ast.Subscript) and not last(base):
                base = base.value
            if not isinstance(one, ast.Subscript) or last(one):
                self._bind(dotted(one), ids, part)
            elif owner := self._value(base):
                self._store(owner, one.slice, part, one)

    def _bind(self, path: str, ids: Ids | None, value: Any) -> None:
        source = getattr(value, "func", None)  # batch.to
        made = ids or Ids((path, next(self.stamp)))
        made.place = made.place or value
        text = self._text(value) if isinstance(value, ast.Call) else None
        self.known[path] = made
        if not source or dotted(getattr(source, "value", None)) != path:  # batch = batch.to("cuda")
            for key in [key for key in self.known if key.startswith(f"{path}.")]:
                del self.known[key]
            if text:
                self.known[f"{path}.input_ids"] = Ids(text)

    def _call(self, node: ast.Call) -> None:
        name, owner = last(node.func), dotted(getattr(node.func, "value", None))
        words = {given.arg: given.value for given in node.keywords if given.arg}
        star = next((dotted(given.value) for given in node.keywords if not given.arg), "")
        for key in WORDS["labels"]:
            labels = self._value(words.get(key)) or self.known.get(f"{star}.{key}")
            kinds = self.program.kinds(node.func) if labels else set()
            if labels and kinds == {"masked"}:
                given = words.get("input_ids") or next(iter(node.args), None)
                seen = self._value(given) if given else self._get(f"{star}.input_ids")
                self._judge(labels, seen, words.get(key) or labels.place or node, called=True)
        if name[:1].isupper() and not re.search("loss|entropy", name, re.I):
            self._give([*node.args, *words.values()])  # TensorDataset(ids, labels)
        if not owner or not node.args:
            return
        value = node.args[-1]
        match name:
            case "fill_":
                self._get(owner).written = {self._constant(value): node}
            case "masked_fill_":
                self._store(self._get(owner), node.args[0], value, node)

    # What is wrong

    def _judge(
        self, labels: Ids, seen: Ids | None, place: ast.AST | None, called: bool = False
    ) -> None:
        """Labels beside the ids that a model sees; ``called`` is a masked model in this file."""
        written = labels.written
        aside, one = written.keys() & {"masks", "rest", "some"}, written.get("one")
        for code, fills in ("ignore-minus-one", {-1}), ("ignore-padding", {0, "pad"}):
            self.found += [(code, written[fill]) for fill in fills & written.keys() if called]
        if "mask" in written:
            self.found.append(("label-is-mask", written["mask"]))
        elif aside == {"masks"} and labels.root and (self.program.has_masked or self.hidden):
            self.found.append(("inverted-selection", written["masks"]))
        elif seen and called and (labels.holds_same(seen) or self._answers(labels, seen)):
            text = "rest" in aside or (one and "[MASK]" in " ".join(self.program.words))
            self.found.append(("label-is-mask" if text else "labels-are-inputs", one or place))
        elif seen and labels.root and labels.root == seen.root and not aside:
            self.found.append(("labels-are-inputs", place))

    def repairs(self) -> bool:
        """Whether labels that came from elsewhere are set aside here."""
        aside = (ids for ids in self.known.values() if {"rest", "some"} & ids.written.keys())
        return any(self._came_as_labels(ids) for ids in aside)

    def _came_as_labels(self, ids: Ids) -> bool:
        root = str(ids.root[0]) if isinstance(ids.root, tuple) else ""
        return is_labels(root.rpartition(".")[2])

    def _spelled(self, ids: Ids) -> bool:
        """Whether they are a text with a mask in it, which no call like ``replace`` changed."""
        text = str(ids.root[0]) if isinstance(ids.root, tuple) else ""
        masked = any(mask in text for mask in WORDS["spellings"])
        return masked and not re.search(r"\.\w+\(", text)

    def _answers(self, labels: Ids, seen: Ids) -> bool:
        """Whether they are the whole answer to a text with a mask: nothing is set aside."""
        roots = [ids.root[-1:] for ids in (labels, seen) if isinstance(ids.root, tuple)]
        return self._spelled(seen) and not labels.written and roots[1:] == roots[:1]

    def close(self) -> None:
        """At the end of the function: what its labels are beside the ids that it masks."""
        program = self.program
        ends = {path: path.rpartition(".")[2] for path in self.known}
        leave = [(key, ids) for key, (ids, _) in self.given.items() if ids]
        leave += [(ends[path], ids) for path, ids in self.known.items() if "." in path]
        here = [(ends[path], ids) for path, ids in self.known.items()]
        labels = {ids: key for key, ids in here + leave if is_labels(key)}
        alone = program.models == {"masked"} and not program.collates
        chooses = any(named("chosen", key) for key in self.given)  # for a loss of its own
        masked = [ids for _, ids in leave if "mask" in ids.written and alone and not chooses]
        inputs = [ids for key, ids in leave if key == "input_ids" and program.unmasked]
        for ids in labels:
            if self._spelled(ids) and not ids.written.keys() & {"some", "masks"} and ids.place:
                ids.written.setdefault("mask", ids.place)  # labels = tokenizer("[MASK]").input_ids
            trained = program.trains and ("labels", ids) in leave
            place = ids.place or self.given.get(labels[ids], (None, None))[1]
            seen = masked + inputs if any(ids is given for _, given in leave) else []
            for one in (None, *seen):
                self._judge(ids, one, place, trained)


def follow(program: Program) -> Iterator[tuple[str, ast.AST | None]]:
    """What is wrong with the recipe of each function, and of the module outside of them."""
    blocks: dict[ast.AST | None, list[ast.stmt]] = {}
    for node in program.nodes:
        if isinstance(node, ast.stmt) and not isinstance(program.parents[node], ast.ClassDef):
            blocks.setdefault(program.function(node), []).append(node)
    recipes = [Recipe(program, statements) for statements in blocks.values()]
    repaired = any(recipe.repairs() for recipe in recipes)
    for recipe in recipes:
        sure = len(recipe.found)
        recipe.close()
        later = recipe.found[sure:]
        yield from recipe.found[:sure]
        yield from (one for one in later if not repaired or one[0] != "labels-are-inputs")
