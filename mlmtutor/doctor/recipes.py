"""What a program does with its labels, read from its syntax tree and never run.

:class:`Program` follows names through a file: what a variable was made of, which model it is.
:class:`Recipe` follows ids through one function: where they were copied, where the mask token was
written, which positions were set aside, and what reached ``labels=``.
"""

import ast
import bisect
import functools
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

Found = tuple[str, ast.AST, dict[str, str]]  # the code of a rule, the place, words for its text
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
MASKED = re.compile(r"ForMaskedLM$|^(TF|Flax)?(Bert|Albert|MobileBert)ForPreTraining$")
CAUSAL = re.compile(r"ForCausalLM$|^(TF|Flax)?(GPT2|OpenAIGPT|Bert|CTRL)LMHeadModel$")
MODEL = re.compile(r"^(?!DataCollator)[A-Z]\w*(For[A-Z]\w+|LMHeadModel|Model)$")
ANY_MODEL = re.compile(r"^(TF|Flax)?(PreTrained|Auto|Peft)?Model(ForPreTraining|WithLMHead)?$")
SPELLINGS = ("[MASK]", "<mask>", "[mask]", "<MASK>")
MASK_IDS = {103, 50264, 50284, 250001, 32004}  # BERT, RoBERTa, ModernBERT, XLM-R, CamemBERT
MASKED_TEXT = re.compile(r"\('text'.*(\[MASK\]|<mask>)")
LABEL_KEYWORDS = ("labels", "masked_lm_labels", "lm_labels")
CHOSEN = re.compile(r"^(?!attention)\w*(mask|weight|select|chosen|indices|position)")
SAME = set("detach view squeeze unsqueeze numpy contiguous reshape".split())
COPY = set(
    "clone copy deepcopy list tuple tensor LongTensor IntTensor as_tensor array asarray tolist cast "
    "from_numpy stack to cuda cpu long int repeat expand new_tensor flatten constant astype".split()
)
HARMLESS = set(
    "print len range enumerate zip size sum max min any all full full_like zeros zeros_like append "
    "ones ones_like where masked_fill eq ne bool float bernoulli rand rand_like randint dict set sorted "
    "pad_sequence get_special_tokens_mask decode batch_decode convert_ids_to_tokens argmax shuffle "
    "sample isinstance DataLoader TensorDataset Dataset from_dict".split()
) | SAME | COPY  # fmt: skip


def dotted(node: ast.AST | None) -> str:
    """``a.b.c`` of a chain of attributes; empty for anything else."""
    if isinstance(node, ast.Attribute):
        base = dotted(node.value)
        return base and f"{base}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def last(node: ast.AST | None) -> str:
    """The last name of an expression: ``c`` of ``a.b.c`` and of ``a.b["c"]``."""
    if isinstance(node, ast.Subscript):
        key = getattr(node.slice, "value", None)
        return key if isinstance(key, str) else ""
    return getattr(node, "attr", None) or getattr(node, "id", None) or ""


def number(node: ast.AST | None) -> int | None:
    """The value of an integer literal; -100 is a minus sign and 100."""
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        value = number(node.operand)
        return None if value is None else -value
    value = getattr(node, "value", None) if isinstance(node, ast.Constant) else None
    return value if type(value) is int else None


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
            node = stack.pop()
            self.nodes.append(node)
            children = list(ast.iter_child_nodes(node))
            self.parents.update(dict.fromkeys(children, node))
            stack += reversed(children)
        for node in self.nodes:
            self._learn(node)
        self.calls = [node for node in self.nodes if isinstance(node, ast.Call)]
        self.kinds = functools.cache(self._kinds)
        names = {node.id for node in self.nodes if isinstance(node, ast.Name)} | set(self.origins)
        names |= {node.attr for node in self.nodes if isinstance(node, ast.Attribute)}
        self.models = {self.kind_of_class(name) for name in names} - {None}  # kinds in this file
        texts = [n.value for n in self.nodes if isinstance(n, ast.Constant) and isinstance(n.value, str)]
        self.masked_text = any(word in text != word for text in texts for word in SPELLINGS)
        collators = self.called.get("DataCollatorForLanguageModeling", [])
        self.collates = any(self.masks(call) is not False for call in collators)

    def _learn(self, node: ast.AST) -> None:
        if isinstance(node, ast.Import | ast.ImportFrom):
            start = ""
            if isinstance(node, ast.ImportFrom):
                start = "." * node.level + (node.module or "") + "."
            for alias in node.names:
                first = alias.name if start or alias.asname else alias.name.split(".")[0]
                self.origins[alias.asname or first] = start + first
        elif isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            self.definitions[node.name] = node
        elif isinstance(node, ast.arg):
            self.parameters[self.scope(node), node.arg] = node
        elif isinstance(node, ast.Call):
            self.called.setdefault(last(node.func), []).append(node)
        elif isinstance(node, ast.Assign):
            for target in node.targets:
                self._bind(target, node.value)
        elif isinstance(node, ast.AnnAssign | ast.NamedExpr) and node.value is not None:
            self._bind(node.target, node.value)

    def _bind(self, target: ast.expr, value: ast.expr, index: int | None = None) -> None:
        if isinstance(target, ast.Tuple | ast.List):
            parts = getattr(value, "elts", [])
            if isinstance(value, ast.Call) and last(value.func) == "prepare":
                parts = value.args  # accelerate: model, optimizer = accelerator.prepare(...)
            for i, one in enumerate(target.elts):
                paired = len(parts) == len(target.elts)
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
        while True:
            bound = self.bound.get((scope, name), [])
            if bound:
                at = bisect.bisect_left(bound, node.lineno, key=lambda one: one[0])
                before = bound[at - 1 : at] if at and not name.startswith("self.") else []
                return [one[1:] for one in before or bound[-20:]]
            if (scope, name) in self.parameters:
                return self._arguments(scope, name)
            if scope is None:
                return []
            scope = self.scope(scope)

    def _arguments(self, function: ast.AST | None, name: str) -> list[tuple[ast.expr, None]]:
        """What the calls in this file pass for a parameter."""
        places = [a.arg for a in function.args.args]  # type: ignore[union-attr]
        places = places[places[:1] in (["self"], ["cls"]) :]
        at = places.index(name) if name in places else 999
        calls = self.called.get(getattr(function, "name", ""), [])[:20]
        return [(value, None) for call in calls for value in
                [*call.args[at : at + 1], *(w.value for w in call.keywords if w.arg == name)]]  # fmt: skip

    def _kinds(self, node: ast.expr | None, index: int | None = None, depth: int = 0) -> set[str]:
        """The kinds of model that an expression may be; empty where nothing is known."""
        if node is None or depth > 12:
            return set()

        def union(values: Iterator[tuple[ast.expr | None, int | None]]) -> set[str]:
            return set[str]().union(*(self.kinds(value, i, depth + 1) for value, i in values))

        if isinstance(node, ast.Tuple) and index is not None:
            return union((part, None) for part in node.elts[index : index + 1])
        if isinstance(node, ast.Call):
            name, owner = last(node.func), getattr(node.func, "value", None)
            if isinstance(own := self.definitions.get(name), ast.FunctionDef):
                return union((n.value, index) for n in ast.walk(own) if isinstance(n, ast.Return))
            if re.search(r"DataParallel$|^(compile|prepare|get_peft_model|prepare_model)$", name):
                return union((argument, None) for argument in node.args[:1])
            if re.match(r"(_?from_|to$|eval$|train$|cuda$|cpu$|half$|float$|bfloat16$)", name):
                return union(iter([(owner, None)]))
            return union(iter([(node.func, None)])) if index is None else set()
        if isinstance(node, ast.Attribute) and node.attr in ("module", "forward"):
            return union(iter([(node.value, None)]))
        if isinstance(node, ast.Subscript):  # CLASSES["bert"]
            tables = [v for v, _ in self.values(node.value) if isinstance(v, ast.Dict)]
            return union((value, None) for table in tables for value in table.values)
        name = dotted(node)
        if kind := self.kind_of_class(name):
            return {kind}
        known = [pair for pair in self.values(node) if pair[0] is not node] if name else []
        if found := union(iter(known)):
            return found
        parameter = self.parameters.get((self.scope(node), name))
        if kind := self.kind_of_class(dotted(getattr(parameter, "annotation", None))):
            return {kind}
        # An argument that no call in this file fills: is a global of its name a masked model?
        is_global = parameter and not known and parameter.annotation is None and (None, name) in self.bound
        return {"masked"} if is_global and self.models == {"masked"} else set()

    def is_mask_id(self, node: ast.expr | None, depth: int = 0) -> bool:
        """Whether an expression is the id of the mask token."""
        if isinstance(node, ast.Call):
            texts = (last(a) == "mask_token" or getattr(a, "value", "") in SPELLINGS for a in node.args)
            return last(node.func) in ("convert_tokens_to_ids", "token_to_id") and any(texts)
        if last(node) in SPELLINGS or number(node) in MASK_IDS:
            return True
        if re.fullmatch(r"_?(mask|MASK)(_?(token|TOKEN))?_?(id|ID|idx|index)", last(node)):
            return True
        known = self.values(node) if isinstance(node, ast.Name) and depth < 3 else []
        return any(index is None and self.is_mask_id(value, depth + 1) for value, index in known)

    def keywords(self, call: ast.Call) -> Iterator[tuple[str, ast.expr, ast.AST]]:
        """Name, value and place of each keyword, also of ``**arguments`` known in this file."""
        yield from ((word.arg, word.value, word) for word in call.keywords if word.arg)
        for word in (word for word in call.keywords if not word.arg):
            for value in [v for v, _ in self.values(word.value)] if dotted(word.value) else [word.value]:
                if isinstance(value, ast.Dict):
                    for key, item in zip(value.keys, value.values, strict=True):
                        if key is not None and isinstance(name := getattr(key, "value", None), str):
                            yield name, item, key
                elif isinstance(value, ast.Call) and last(value.func) == "dict":
                    yield from ((w.arg, w.value, w) for w in value.keywords if w.arg)


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
        return replace(self, aside=set(self.aside), fills=dict(self.fills), doubts=doubts, place=place)


class Recipe:
    """One function, or the module outside of functions, statement by statement."""

    def __init__(self, program: Program, body: list[ast.stmt]) -> None:
        self.program = program
        self.known: dict[str, Ids] = {}
        self.tests: dict[str, ast.expr] = {}  # what a name was set to
        self.pairs: list[tuple[Ids | str | None, Ids, ast.AST]] = []  # inputs or their owner, labels
        self.written: set[str] = set()  # places that hold the mask token now
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
            if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
                for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                    self._assign(target, node.value, node)
            elif isinstance(node, ast.AugAssign) and self._path(node.target) in self.known:
                self._touch(self._path(node.target))
            elif isinstance(node, ast.Return) and node.value is not None:
                self._returned(node.value)
            elif isinstance(node, ast.For | ast.AsyncFor):
                for name in (n for n in ast.walk(node.target) if isinstance(n, ast.Name)):
                    self._bind(name.id, None, None)
            for part in ("body", "orelse", "handlers", "finalbody", "cases"):
                inner = getattr(node, part, [])
                self._run([s for h in inner for s in h.body] if part in ("handlers", "cases") else inner)

    def _path(self, node: ast.AST | None) -> str:
        """The name that is followed: ``x``, and ``batch.labels`` also for ``batch["labels"]``."""
        if isinstance(node, ast.Subscript | ast.Attribute) and last(node):
            base = self._path(node.value)
            return base and f"{base}.{last(node)}"
        return node.id if isinstance(node, ast.Name) else ""

    def _get(self, path: str) -> Ids:
        base, _, key = path.rpartition(".")
        if path not in self.known:
            text = self._text(self.tests.get(base)) if key == "input_ids" else None
            self.known[path] = Ids((text or (path, next(self.stamp)), 0))
        return self.known[path]

    def _text(self, call: ast.expr | None) -> object:
        """A key for the text that is tokenized: the same text gives the same ids."""
        if not isinstance(call, ast.Call) or not call.args:
            return None
        names = sorted({n.id for n in ast.walk(call.args[0]) if isinstance(n, ast.Name)})
        versions = [id(self.known.get(name)) for name in names]
        return ("text", dotted(call.func), ast.dump(call.args[0]), *versions)

    def _value(self, node: ast.expr | None) -> Ids | None:
        """What is known of an expression."""
        if last(node) == "input_ids" and (text := self._text(getattr(node, "value", None))):
            return Ids((text, 0), place=node)
        if path := self._path(node):
            return None if path in self.program.origins else self._get(path.removesuffix(".data"))
        if isinstance(node, ast.Call):
            return self._made(node)
        if isinstance(node, ast.Subscript):
            base = self._value(node.value)
            if base is None or base.content is None or whole(node.slice):
                return base and base.copied(node)
            return Ids(((base.content[0], ast.dump(node.slice)), base.content[1]))
        if isinstance(node, ast.List | ast.Tuple):
            only = node.elts[0] if len(node.elts) == 1 else None
            if not node.elts or self._constant(only) is not None:
                return Ids(fills={self._constant(only): node} if only else {})
            if only is not None and (inner := self._value(only)):
                return inner.copied(node)
            ignored = {number(n) for n in ast.walk(node)} & {-1, -100}
            return Ids((ast.dump(node), 0), {"other"} if ignored else set(), dict.fromkeys(ignored, node))
        if isinstance(node, ast.BinOp):
            sides = [v for v in (self._value(node.left), self._value(node.right)) if v]
            if isinstance(node.op, ast.Mult):
                return sides[0] if isinstance(node.left, ast.List) else None
            fills = {k: place for side in sides for k, place in side.fills.items()}
            return Ids(None, set().union(*(side.aside for side in sides)), fills, place=node)
        if isinstance(node, ast.ListComp):
            base, name = self._value(node.generators[0].iter), dotted(node.generators[0].target)
            if base and name:
                self.known[name] = base
            if isinstance(node.elt, ast.IfExp):
                return self._chosen(node.elt.test, node.elt.body, node.elt.orelse, node)
            inner = self._value(node.elt)
            return inner and replace(inner.copied(node), content=inner.content if inner is base else None)
        return None

    def _made(self, node: ast.Call) -> Ids | None:
        """What a call makes of ids."""
        name, owner = last(node.func), getattr(node.func, "value", None)
        is_module = owner is None or dotted(owner).split(".")[0] in self.program.origins
        arguments = node.args if is_module else [owner, *node.args]  # type: ignore[list-item]
        if name == "where" and len(arguments) == 3:
            test = arguments[0] if is_module else node.args[0]
            return self._chosen(test, *(arguments[1:] if is_module else (owner, node.args[1])), node)
        if name == "masked_fill" and len(arguments) == 3:
            return self._chosen(arguments[1], arguments[2], arguments[0], node)
        if name in ("full", "full_like", "zeros_like", "ones_like", "zeros"):
            filler = node.args[1] if name.startswith("full") and len(node.args) > 1 else ast.Constant(0)
            self._store(made := Ids(place=node), None, filler, node)
            return made
        if name == "pad_sequence":
            padding = [w.value for w in node.keywords if w.arg == "padding_value"] + node.args[2:3]
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
        if re.search(r"pad(_?token)?_?(id|idx|index)$", last(node), re.I):
            return "pad"
        if re.search(r"ignore", last(node), re.I):
            return -100
        known = self.program.values(node) if isinstance(node, ast.Name) else []
        return number(known[0][0]) if len(known) == 1 else None

    def _test(self, node: ast.expr | None, depth: int = 0) -> tuple[str, Ids | None, object] | None:
        """``(==, ids, mask)`` of ``ids == mask_token_id``; ``(!=, ids, -1)`` of ``ids != -1``."""
        if depth > 9:
            return None
        if isinstance(node, ast.Name):
            return self._test(self.tests.get(node.id), depth + 1)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Invert | ast.Not):
            inner = self._test(node.operand, depth + 1)
            return inner and ("!=" if inner[0] == "==" else "==", *inner[1:])
        if isinstance(node, ast.Call):
            owner = getattr(node.func, "value", None)
            if last(node.func) in ("bool", "to"):
                return self._test(owner, depth + 1)
            operator = {"eq": "==", "ne": "!="}.get(last(node.func))
            sides = node.args if len(node.args) == 2 else [owner, *node.args]
        elif isinstance(node, ast.Compare) and len(node.ops) == 1:
            operator = {ast.Eq: "==", ast.NotEq: "!="}.get(type(node.ops[0]))
            sides = [node.left, node.comparators[0]]
        else:
            return None
        if operator is None or len(sides) != 2:
            return None
        left, right = sides[::-1] if self.program.is_mask_id(sides[0]) else sides
        what = "mask" if self.program.is_mask_id(right) else self._constant(right)
        return None if what is None else (operator, self._value(left), what)

    def _chosen(self, test: ast.expr, yes: ast.expr, no: ast.expr, place: ast.AST) -> Ids:
        """``where(test, yes, no)``: one side is copied, the other is written over it."""
        constant = number(yes) is not None or self.program.is_mask_id(yes) or self._value(yes) is None
        kept, written = (no, yes) if constant else (yes, no)
        base = self._value(kept) if self._constant(kept) is None else None
        made = base.copied(place) if base else Ids(place=place)
        self._store(made, test if constant else ast.UnaryOp(ast.Not(), test), written, place, base)
        return made

    def _store(self, ids: Ids, test: ast.expr | None, value: ast.expr | None, place: ast.AST,
               base: Ids | None = None) -> None:  # fmt: skip
        """``ids[test] = value``, where ``ids`` may be a copy of ``base``."""
        constant = self._constant(value)
        if self.program.is_mask_id(value):
            ids.masked, ids.doubts["label-is-mask"] = True, place
            ids.content = ids.content and (ids.content[0], next(self.stamp))
        elif constant is None or (isinstance(constant, int) and constant > 0):  # an answer
            source = self._value(value.value) if isinstance(value, ast.Subscript) else None
            if ids.content is None and source is not None:
                ids.content, ids.element = source.content, place
            else:
                ids.content = ids.content and (ids.content[0], next(self.stamp))
            ids.aside.add("other")
            ids.doubts.pop("label-is-mask", None)
        else:
            operator, other, what = self._test(test) or ("", None, None)
            if what == "mask":
                ids.aside.add("masks" if operator == "==" else "rest")
                same = other and (other in (ids, base) or other.content == ids.content)
                if operator == "==" and constant == -100:
                    ids.doubts["inverted-selection"] = place
                elif operator == "!=" and same and ids.content is not None:
                    ids.doubts["label-is-mask"] = place
            elif test is not None:
                ids.aside.add("special" if operator == "==" else "other")
                if operator == "==":
                    ids.fills.pop(what, None)
            ids.fills[constant] = place

    def _put(self, ids: Ids, index: ast.expr | None, value: ast.expr, place: ast.AST) -> None:
        """``ids[index] = value``, or ``ids.append(value)``."""
        if ast.dump(value) in self.written:  # ids[i] = mask_id; labels[i] = ids[i]
            ids.doubts["label-is-mask"] = place
        else:
            self._store(ids, index or ast.Constant(0), value, place)

    def _touch(self, path: str) -> None:
        """Something unknown may have changed it: nothing is claimed any more."""
        for key in [k for k in self.known if k == path or k.startswith(f"{path}.")]:
            ids = self.known[key]
            ids.content, ids.masked, ids.aside = (next(self.stamp), 0), False, {"other"}
            ids.doubts, ids.fills = {}, {}

    def _assign(self, target: ast.expr, value: ast.expr, place: ast.stmt) -> None:
        if isinstance(target, ast.Tuple | ast.List):
            parts = value.elts if isinstance(value, ast.Tuple | ast.List) else []
            paired = len(parts) == len(target.elts)
            made = [self._value(part) if paired else None for part in parts or target.elts]
            for i, one in enumerate(target.elts):
                if path := self._path(one):
                    self._bind(path, made[i] if paired else None, parts[i] if paired else None)
        elif path := self._path(target):
            self._bind(path, self._value(value), value)
        elif isinstance(target, ast.Subscript):
            base = target.value
            while isinstance(base, ast.Subscript) and not last(base):
                base = base.value
            if ids := self._value(base):
                if whole(target.slice):
                    ids.content, ids.aside, ids.fills, ids.doubts = None, set(), {}, {}
                self._put(ids, target.slice, value, place)
            here = ast.dump(target).replace("Store()", "Load()")
            (self.written.add if self.program.is_mask_id(value) else self.written.discard)(here)

    def _bind(self, path: str, ids: Ids | None, value: ast.expr | None) -> None:
        owner = getattr(getattr(value, "func", None), "value", None)
        if owner and self._path(owner) == path and not ids:
            return  # batch = batch.to(device)
        for key in [k for k in self.known if k.startswith(f"{path}.")]:
            del self.known[key]
        self.known[path] = ids or Ids(((path, next(self.stamp)), 0), place=value)
        self.tests.pop(path, None)
        if value is not None:
            self.tests[path] = value
            self._display(value, path)
            base, _, key = path.rpartition(".")
            if key == "labels" and base not in ("", "self"):
                self.pairs.append((base, self.known[path], value))

    def _display(self, node: ast.AST, path: str = "") -> None:
        """``{"input_ids": ids, "labels": labels}``."""
        items = {}
        if isinstance(node, ast.Dict):
            items = {getattr(k, "value", None): v for k, v in zip(node.keys, node.values, strict=True)}
        elif isinstance(node, ast.Call) and last(node.func) == "dict":
            items = {word.arg: word.value for word in node.keywords}
        known = {str(key): self._value(value) for key, value in items.items()}
        if path:
            self.known |= {f"{path}.{key}": ids for key, ids in known.items() if ids}
        if (labels := known.get("labels")) and not any(CHOSEN.search(key) for key in known):
            self.pairs.append((known.get("input_ids"), labels, items["labels"]))

    def _returned(self, node: ast.expr) -> None:
        """``return input_ids, labels``."""
        parts = node.elts if isinstance(node, ast.Tuple) else []
        names = [self._path(part).rpartition(".")[2] for part in parts]
        if any(CHOSEN.search(name) for name in names):
            return
        others = [ids for name, part in zip(names, parts, strict=True)
                  if not is_labels(name) and (ids := self._value(part))]  # fmt: skip
        for name, part in zip(names, parts, strict=True):
            if is_labels(name) and others and (labels := self._value(part)):
                self.pairs.append((others[0], labels, part))

    def _scan(self, node: ast.AST) -> None:
        """Look at the calls and dictionaries inside an expression."""
        for part in ast.walk(node):
            if isinstance(part, ast.Call):
                self._call(part)
            elif isinstance(part, ast.Dict):
                self._display(part)

    def _call(self, node: ast.Call) -> None:
        name, owner = last(node.func), getattr(node.func, "value", None)
        words = {word.arg: word.value for word in node.keywords if word.arg}
        stars = [self._path(word.value) for word in node.keywords if not word.arg]
        given = next((words[key] for key in LABEL_KEYWORDS if key in words), None)
        paths = [path for s in stars for k in LABEL_KEYWORDS if (path := f"{s}.{k}") in self.known]
        labels = self._value(given) if given else self.known[paths[0]] if paths else None
        kinds = self.program.kinds(node.func)
        if labels is not None and kinds <= {"masked"}:
            inputs = words.get("input_ids") or (node.args[0] if node.args else None)
            seen = self._value(inputs) if inputs else self._get(f"{stars[0]}.input_ids") if stars else None
            if kinds:
                self._use(seen, labels, given or labels.place or node)
            else:
                self.pairs.append((seen, labels, given or node))
        elif name in ("masked_fill_", "append", "index_fill_") and node.args and self._path(owner):
            test = node.args[0] if name == "masked_fill_" else None
            self._put(self._get(self._path(owner)), test, node.args[-1], node)
        elif name.endswith("_"):
            self._touch(self._path(owner))
        elif name not in HARMLESS and not kinds and labels is None:
            for argument in (*node.args, *words.values()):
                if path := self._path(argument):
                    self._touch(path)

    def _use(self, seen: Ids | None, labels: Ids, place: ast.AST) -> None:
        """Labels reach a masked model together with the ids that it sees."""
        wrong = next((k for k in (-1, 0, "pad") if k in labels.fills), None)
        if wrong is not None:
            self._report("ignore-minus-one" if wrong == -1 else "ignore-padding", labels.fills[wrong])
        if self._doubt(labels) or not seen or not labels.content or not seen.content:
            return
        if labels.content == seen.content:
            hidden = "rest" in labels.aside or (labels.element and self.program.masked_text)
            self._report("label-is-mask" if hidden else "labels-are-inputs", labels.element or place)
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
                    ids.doubts["label-is-mask"] = ids.place  # labels = tokenizer("[MASK]").input_ids
                self._doubt(ids)
        for seen, labels, place in self.pairs:
            if isinstance(seen, str):
                if self.known.get(f"{seen}.labels") is not labels:
                    continue  # something else took its place
                seen = self.known.get(f"{seen}.input_ids")
            certain = not self._doubt(labels) and not self.program.collates
            if not certain or not seen or not seen.masked or not seen.content or not labels.content:
                continue
            if labels.content[0] == seen.content[0] and labels.aside <= {"special"}:
                if labels.content == seen.content:
                    self._report("label-is-mask", place)
                elif self.program.models <= {"masked"}:
                    self._report("labels-are-inputs", place)


def whole(index: ast.expr) -> bool:
    """Whether a subscript is ``[:]``."""
    return isinstance(index, ast.Slice) and not (index.lower or index.upper)
