"""Every public function is fed what callers pass by mistake, and what nobody would pass.

The outcome must be a right answer, compared with a slow one that is computed another way, or a
``ValueError`` or ``TypeError`` whose message names an argument. Any other exception, a wait of
more than ``PATIENCE`` seconds, and an input that was changed are failures. A case without a broken
argument must not be refused.

``make test`` tries few cases, the same each time. ``python tools/fuzz.py`` sets ``FUZZ_EXAMPLES``
and tries many, others each time. What was tried is counted in ``build/fuzz.json``.
"""

# ruff: noqa: PT017, PT028  what looks like a test with fixtures is an oracle of the judge

import ast
import contextlib
import copy
import dataclasses
import importlib
import inspect
import json
import math
import os
import pathlib
import pkgutil
import re
import signal
import tempfile
import time
import types
import warnings

import stored
import numpy as np
import proofs
import pytest
import torch
import toys
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

import mlmtutor
from mlmtutor import checks, data_parallel, doctor, history, lint, model, figure, predict
from mlmtutor.labels import MaskedPositions, SelectedTargets

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "0"))
PATIENCE = 30  # seconds for one case
TRIED = {}  # name of the function: [cases, right answers, refusals]
TARGETS = set()


# What is tried, and how it is judged --------------------------------------------------------------


@dataclasses.dataclass
class Case:
    """Arguments by name, and which of them is broken (``None``: the case must be answered)."""

    arguments: dict
    broken: str | None = None

    def _repr_pretty_(self, printer, cycle):
        """Say what hypothesis prints of a failing case: no model, no tokenizer."""
        told = {
            name: type(value).__name__ if len(repr(value)) > 600 else value
            for name, value in self.arguments.items()
        }
        printer.text(f"Case({told}, {self.broken!r})")


def frozen(value):
    """Return what can be compared later: nan equals nan, and an object is itself."""
    if isinstance(value, torch.Tensor):
        about = (value.dtype, str(value.layout), value.requires_grad, value.device)
        if value.is_nested:
            return about
        about = (*about, value.shape)
        if value.is_meta:
            return about
        plain = value.detach()
        plain = plain if plain.layout is torch.strided else plain.to_dense()
        return *about, repr(plain.resolve_conj().reshape(-1).tolist())
    if isinstance(value, np.ndarray):
        return value.dtype, value.shape, value.tobytes()
    if isinstance(value, dict):
        return [(key, frozen(item)) for key, item in value.items()]
    if isinstance(value, list | tuple):
        return type(value), [frozen(item) for item in value]
    if isinstance(value, types.SimpleNamespace | MaskedPositions | SelectedTargets):
        return frozen(vars(value))
    if isinstance(value, torch.Generator):
        return None  # drawing from it is what it is for
    return repr(value) if isinstance(value, int | float | str | bytes) else id(value)


@contextlib.contextmanager
def patience(seconds=PATIENCE):
    """Fail where what happens inside does not end."""

    def give_up(number, frame):
        raise AssertionError(f"no end after {seconds} seconds")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def feed(function, name, case, oracle, refuses=(ValueError, TypeError), words=()):
    """Call ``function`` once and judge what happens; ``words`` may stand for a name."""
    counts = TRIED.setdefault(name, [0, 0, 0])
    counts[0] += 1
    before = frozen(case.arguments)
    parameters = inspect.signature(function).parameters
    arguments = dict(case.arguments)
    place = [p.name for p in parameters.values() if p.kind is p.VAR_POSITIONAL]
    star = arguments.pop(place[0], ()) if place else ()
    with patience(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            result = function(*star, **arguments)
        except refuses as error:
            message = str(error)
            assert case.broken is not None, f"a healthy case is refused: {message}"
            names = {*parameters, *case.arguments, *words}
            said = [word for word in names if re.search(rf"(?<!\w){re.escape(word)}\b", message)]
            assert said, f"names no argument of {name}: {type(error).__name__}: {message}"
            counts[2] += 1
        else:
            oracle(result, **case.arguments)
            counts[1] += 1
    assert frozen(case.arguments) == before, f"{name} changed its input"


def fuzz(function, cases, *met, name=None, examples=12, refuses=(ValueError, TypeError), names=()):
    """Turn an oracle into a test of ``function``; ``met`` are cases that once failed."""
    name = name or f"{function.__module__.removeprefix('mlmtutor.')}.{function.__name__}"
    TARGETS.add(name)

    def decorate(oracle):
        @settings(
            max_examples=examples * EXAMPLES // 12 if EXAMPLES else examples,
            derandomize=not EXAMPLES,
            deadline=None,
            database=None,
            phases=(Phase.explicit, Phase.generate) + ((Phase.shrink,) if not EXAMPLES else ()),
            suppress_health_check=list(HealthCheck),
        )
        @given(case=cases)
        def test(case):
            feed(function, name, case, oracle, refuses, names)

        for case in met:
            test = example(case=case)(test)
        test.__name__ = test.__qualname__ = oracle.__name__
        return test

    return decorate


@pytest.fixture(scope="module", autouse=True)
def _counted():
    """Write what was tried when all tests of this file have ended."""
    yield
    proofs.record("fuzz", {name: dict(zip(("cases", "right", "refused"), counts, strict=True))
                    for name, counts in sorted(TRIED.items())})  # fmt: skip


# What is drawn ------------------------------------------------------------------------------------

STRANGE_TEXTS = [
    "", " ", "\0", "a\0b", "e\u0301\u0323\u0300" * 5, "שלום עולם", "\u202eabc\u202c", "👩‍👩‍👧‍👦🇹🇷", "ﬁ",
    "İstanbul", "\ufeffthe cat", "\u2028", "<script>alert(1)</script>", "$x_{", "\ud800", "##s",
    "[MASK]", "[mask]", "<mask>", "[MASK][MASK] [SEP]", "\x1b[31m", "a" * 300, "0x1F" * 40,
    "%s%n{0}", "../../etc/passwd", "\r\n",
]  # fmt: skip
texts = st.one_of(
    st.sampled_from(STRANGE_TEXTS),
    st.text(max_size=30),
    st.lists(st.sampled_from([*toys.WORDS, "[MASK]", "é", "猫", "😀"]), max_size=12).map(" ".join),
)


class Bare:
    """An object with nothing in it."""


def junk():
    """Values of every kind that is none of what is wanted."""
    return st.sampled_from(
        [
            None, True, 0, 3, -1, 2**80, -(2**80), 1.5, math.nan, math.inf, 1j, "text", "\ud800",
            b"bytes", [], [1, 2], [[1, 2], [3]], [None], ["a"], (), {}, {"input_ids": [1]}, set(),
            range(3), Bare, Bare(), len, np.array([1, 2]), np.array("x"), np.float64(0.5),
            np.array([None]), torch.tensor(1), torch.tensor([1.5]), torch.tensor([]),
            torch.tensor([1, 2], device="meta"), torch.Generator(), torch.nn.Linear(1, 1),
            pathlib.Path("x"), ValueError("x"), iter([1]),
        ]
    )  # fmt: skip


FLOATS = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
DTYPES = [
    torch.int64, torch.int32, torch.int8, torch.uint8, torch.bool, torch.complex64,
    torch.float8_e4m3fn, torch.uint64, *FLOATS,
]  # fmt: skip


def laid_out(tensor, how):
    """Return the same values in another layout of memory."""
    if how == "strided" and tensor.dim():
        return torch.stack([tensor, tensor], dim=-1)[..., 0]
    if how == "transposed" and tensor.dim() > 1:
        return tensor.transpose(0, -1).contiguous().transpose(0, -1)
    if how == "offset" and tensor.dim():
        return torch.cat([tensor[:1], tensor])[min(1, len(tensor)) :]
    if how == "parameter" and tensor.is_floating_point():
        return torch.nn.Parameter(tensor.clone())
    return tensor


layouts = st.sampled_from(["plain", "strided", "transposed", "offset", "parameter"])


@st.composite
def spoiled(draw, value):
    """Return something near ``value`` that is wrong, or might be."""
    if isinstance(value, torch.Tensor):
        ways = ["junk", "meta", "sparse", "dtype", "shape", "values", "list", "numpy", "nested"]
        how = draw(st.sampled_from(ways))
        if how == "meta":
            return value.to("meta")
        if how == "sparse" and not value.is_nested:
            return value.to_sparse() if value.dim() else value
        if how == "dtype":
            return value.to(draw(st.sampled_from(DTYPES)))
        if how == "shape":
            shapes = [lambda v: v.unsqueeze(0), lambda v: v.flatten(), lambda v: v[..., :-1]]
            shapes += [lambda v: v[..., :0], lambda v: v.new_empty(0), lambda v: v.new_zeros(())]
            shapes += [lambda v: v[:0], lambda v: torch.cat([v, v]), lambda v: v.unsqueeze(-1)]
            return draw(st.sampled_from(shapes if value.dim() else shapes[:2]))(value).clone()
        if how == "values" and value.numel():
            bad = [-1, -100, -101, 30522, 2**31, 2**62, -(2**63), 1, 0]
            bad = [math.nan, math.inf, -math.inf, 0.5, 1e30] if value.is_floating_point() else bad
            bad = [True, False] if value.dtype == torch.bool else bad
            spoilt = value.detach().clone(memory_format=torch.contiguous_format)
            spoilt.view(-1)[draw(st.integers(0, spoilt.numel() - 1))] = draw(st.sampled_from(bad))
            return spoilt
        if how == "list":
            return value.tolist()
        if how == "numpy" and value.dtype != torch.bfloat16:
            return value.detach().numpy().copy()
        if how == "nested" and value.dim():
            return torch.nested.nested_tensor([value.detach().clone()])
    elif isinstance(value, bool):
        return draw(st.one_of(st.sampled_from([0, 1, None, "yes"]), junk()))
    elif isinstance(value, int):
        near = [-1, 0, 1, value + 1, float(value), str(value), 2**40, 2**63, -(2**63), -(2**70)]
        return draw(st.one_of(st.sampled_from(near), junk()))
    elif isinstance(value, str):
        return draw(
            st.one_of(
                st.sampled_from([value.encode(errors="replace"), value.upper(), [value]]), junk()
            )
        )
    elif isinstance(value, list) and value:
        near = [value[:-1], [*value, None], [value], tuple(value), value[0], [*value[:-1], "x"]]
        near += [[*value[:-1], math.nan], [*value[:-1], 2**70], [*value[:-1], -1], np.array(value)]
        return copy.deepcopy(draw(st.one_of(st.sampled_from(near), junk())))
    return draw(junk())


@st.composite
def perhaps_spoiled(draw, arguments, healthy=1 / 3):
    """Break one of the arguments in two cases of three, in a copy."""
    if draw(st.floats(0, 1, width=16)) <= healthy:
        return Case(arguments)
    name = draw(st.sampled_from(sorted(arguments)))
    return Case(arguments | {name: draw(spoiled(arguments[name]))}, name)


def int64(rows, columns, low, high):
    """Tensors of ids; many values are at the ends."""
    ids = st.one_of(st.sampled_from([low, high]), st.integers(low, high))
    return st.lists(
        st.lists(ids, min_size=columns, max_size=columns), min_size=rows, max_size=rows
    ).map(lambda lists: torch.tensor(lists, dtype=torch.int64).reshape(rows, columns))


sizes = st.sampled_from([0, 1, 1, 2, 3, 5])


# The loss -----------------------------------------------------------------------------------------


@st.composite
def scored(draw, specials=True):
    """Logits (rows, columns, V) and labels that fit, of any float dtype and layout."""
    rows, columns, size = draw(sizes), draw(sizes), draw(st.sampled_from([1, 2, 4, 7]))
    numbers = st.floats(-30, 30, width=16)
    if specials:
        extremes = [math.nan, math.inf, -math.inf, 0.0, 3e4, -3e4]
        numbers = st.one_of(numbers, numbers, numbers, st.sampled_from(extremes))
    count = rows * columns * size
    values = draw(st.lists(numbers, min_size=count, max_size=count))
    logits = torch.tensor(values, dtype=torch.float64).reshape(rows, columns, size)
    logits = laid_out(logits.to(draw(st.sampled_from(FLOATS))), draw(layouts))
    labels = draw(int64(rows, columns, -1, size - 1))
    labels = laid_out(labels.masked_fill(labels == -1, -100), draw(layouts))
    return logits, labels


def slow_losses(logits, labels, ignore_index=-100):
    """-log p(label) at each labelled position, in Python numbers, and None elsewhere."""
    rows = logits.detach().double().reshape(-1, logits.shape[-1]).tolist()
    answers = []
    for row, label in zip(rows, labels.reshape(-1).tolist(), strict=True):
        top = max(row) if not any(map(math.isnan, row)) else math.nan
        if label == ignore_index:
            answers.append(None)
        elif math.isnan(top) or math.isinf(top):
            answers.append(math.nan)
        else:
            total = math.log(math.fsum(math.exp(x - top) for x in row))
            answers.append(total - (row[label] - top))
    return answers


def close(found, wanted, dtype):
    """Whether two numbers agree as well as ``dtype`` can say."""
    if not (math.isfinite(wanted) and abs(wanted) < 6e4):
        return math.isnan(found) if math.isnan(wanted) else found > 5e4 or math.isnan(found)
    bound = {torch.float64: 1e-9, torch.float32: 1e-5}.get(dtype, 0.04)
    return math.isclose(found, wanted, rel_tol=bound, abs_tol=bound)


def reduced(losses, reduction):
    """Return the sum, or the mean, of what is scored."""
    kept = [loss for loss in losses if loss is not None]
    total = math.nan if any(map(math.isnan, kept)) else sum(kept)
    if reduction == "sum":
        return total
    return total / len(kept) if kept else math.nan


@st.composite
def loss_cases(draw):
    logits, labels = draw(scored())
    ignore_index = draw(st.sampled_from([-100, -100, -1, 2**62, logits.shape[-1]]))
    labels = labels.masked_fill(labels == -100, ignore_index)
    reduction = draw(st.sampled_from(["mean", "sum", "none"]))
    arguments = {"logits": logits, "labels": labels, "ignore_index": ignore_index}
    return draw(perhaps_spoiled(arguments | {"reduction": reduction}))


LOGITS, LABELS = torch.zeros(2, 3), torch.tensor([0, -100])


@fuzz(
    mlmtutor.masked_lm_loss,
    loss_cases(),
    Case({"logits": LOGITS.to("meta"), "labels": LABELS}, "logits"),
    Case({"logits": LOGITS, "labels": LABELS.to("meta")}, "labels"),
    Case({"logits": LOGITS.to_sparse(), "labels": LABELS}, "logits"),
    Case({"logits": LOGITS.to(torch.float8_e4m3fn), "labels": LABELS}, "logits"),
    Case({"logits": LOGITS, "labels": LABELS, "ignore_index": 2**70}, "ignore_index"),
    Case({"logits": LOGITS, "labels": LABELS, "reduction": np.array([1, 2])}, "reduction"),
    examples=60,
)
def test_masked_lm_loss(result, logits, labels, ignore_index=-100, reduction="mean"):
    losses = slow_losses(logits, labels, ignore_index)
    assert result.dtype == logits.dtype
    if reduction == "none":
        assert result.shape == labels.shape
        for found, wanted in zip(result.reshape(-1).tolist(), losses, strict=True):
            assert close(found, wanted or 0.0, logits.dtype)
    elif len(losses) < 20:
        assert close(result.item(), reduced(losses, reduction), logits.dtype)


@st.composite
def breakdown_cases(draw):
    logits, labels = draw(scored())
    counts = draw(st.lists(st.sampled_from([1, 2, 1000, 0.25]), min_size=7, max_size=7))
    unigram = torch.tensor(counts, dtype=draw(st.sampled_from([torch.float64, torch.float32])))
    unigram = unigram[: logits.shape[-1]] * draw(st.sampled_from([1, 1e35]))
    arguments = {"logits": logits, "labels": labels, "ignore_index": -100, "unigram": unigram}
    return draw(perhaps_spoiled(arguments))


@fuzz(
    mlmtutor.loss_breakdown,
    breakdown_cases(),
    Case(
        {
            "logits": LOGITS,
            "labels": LABELS,
            "unigram": torch.full((3,), 1e308, dtype=torch.float64),
        }
    ),
    Case({"logits": LOGITS, "labels": LABELS, "unigram": torch.ones(3).to("meta")}, "unigram"),
    Case({"logits": LOGITS, "labels": LABELS, "unigram": torch.ones(3) * 1j}, "unigram"),
    examples=40,
)
def test_loss_breakdown(result, logits, labels, ignore_index=-100, unigram=None):
    losses = slow_losses(logits, labels, ignore_index)
    kept = [loss for loss in losses if loss is not None]
    assert result.count == len(kept)
    assert result.uniform == math.log(logits.shape[-1])
    assert close(result.mean, reduced(losses, "mean"), logits.dtype)
    assert result.token_loss.shape == labels.shape
    if unigram is not None and kept:
        weights = [float(weight) for weight in unigram.tolist()]
        whole = sum(weight / max(weights) for weight in weights)
        answers = [label for label in labels.reshape(-1).tolist() if label != ignore_index]
        shares = [weights[label] / max(weights) / whole for label in answers]
        wanted = sum(-math.log(share) if share else math.inf for share in shares) / len(shares)
        assert math.isclose(result.unigram, wanted, rel_tol=1e-6, abs_tol=1e-9)
    assert str(len(kept)) in repr(result)


@st.composite
def trainer_cases(draw):
    logits, labels = draw(scored(specials=False))
    form = draw(st.sampled_from(["mapping", "tuple", "object"]))
    outputs = {"mapping": {"logits": logits}, "tuple": (logits, None),
               "object": types.SimpleNamespace(logits=logits)}[form]  # fmt: skip
    here = int((labels != -100).sum())
    number = draw(st.sampled_from([None, here, here + 5, torch.tensor(here + 2), here + 0.5]))
    arguments = {"outputs": outputs, "labels": labels, "num_items_in_batch": number}
    case = draw(perhaps_spoiled(arguments))
    if case.broken == "outputs" and form == "mapping" and draw(st.booleans()):
        case.arguments["outputs"] = {"logits": draw(spoiled(logits))}
    return case


OUTPUTS = {"logits": LOGITS}


@fuzz(
    mlmtutor.trainer_loss,
    trainer_cases(),
    Case({"outputs": (), "labels": LABELS}, "outputs"),
    *[
        Case({"outputs": OUTPUTS, "labels": LABELS, "num_items_in_batch": number}, "num_items")
        for number in (math.nan, math.inf, 2**80, torch.tensor(1j), torch.tensor(5).to("meta"))
    ],
    examples=40,
    names=("logits",),  # those that the outputs hold
)
def test_trainer_loss(result, outputs, labels, num_items_in_batch=None):
    logits = outputs[0] if isinstance(outputs, tuple) else getattr(outputs, "logits", None)
    logits = outputs["logits"] if logits is None else logits
    losses = slow_losses(logits, labels)
    number = num_items_in_batch
    if number is None:
        number = sum(loss is not None for loss in losses)
    wanted = reduced(losses, "sum") / max(1, float(number))
    assert close(result.item(), wanted, logits.dtype)


@st.composite
def process_cases(draw):
    logits, labels = draw(scored(specials=False))
    return draw(perhaps_spoiled({"logits": logits, "labels": labels, "divisor": "own"}))


@fuzz(
    data_parallel.process_loss,
    process_cases(),
    Case({"logits": LOGITS[None], "labels": LABELS, "divisor": "own"}, "labels"),
    examples=25,
)
def test_process_loss(result, logits, labels, divisor):
    losses = slow_losses(logits, labels)
    count = sum(loss is not None for loss in losses)
    assert close(result.item(), reduced(losses, "sum") / max(1, count), logits.dtype)


# Labels -------------------------------------------------------------------------------------------


@st.composite
def position_cases(draw):
    rows, columns = draw(sizes), draw(sizes)
    input_ids = laid_out(draw(int64(rows, columns, 0, 30521)), draw(layouts))
    positions = laid_out(draw(int64(rows, columns, 0, 1)).bool(), draw(layouts))
    targets = draw(st.one_of(st.none(), int64(rows, columns, 0, 2**62)))
    arguments = {"input_ids": input_ids, "positions": positions, "targets": targets}
    return draw(perhaps_spoiled(arguments | {"ignore_index": -100}))


IDS, WHERE = torch.tensor([[5, 6]]), torch.tensor([[True, False]])


@fuzz(
    mlmtutor.label_positions,
    position_cases(),
    Case({"input_ids": IDS.to("meta"), "positions": WHERE}, "input_ids"),
    Case({"input_ids": IDS, "positions": WHERE.to("meta")}, "positions"),
    Case({"input_ids": IDS, "positions": WHERE, "ignore_index": 2**70}, "ignore_index"),
    examples=40,
)
def test_label_positions(result, input_ids, positions, targets=None, ignore_index=-100):
    answers = (input_ids if targets is None else targets).reshape(-1).tolist()
    chosen = positions.reshape(-1).tolist()
    wanted = [a if c else ignore_index for a, c in zip(answers, chosen, strict=True)]
    assert result.reshape(-1).tolist() == wanted
    assert (result.shape, result.dtype) == (input_ids.shape, torch.int64)


def answers_of(labels, convention, pad):
    """What is scored, as {(row, column): id}, read slowly from any convention."""
    found = {}
    if convention == "positions":
        rows = zip(labels.positions.tolist(), labels.ids.tolist(), labels.weights.tolist(),
                   strict=True)  # fmt: skip
        for row, (places, ids, weights) in enumerate(rows):
            for place, token_id, weight in zip(places, ids, weights, strict=True):
                if weight:
                    found[row, place] = token_id
        return found
    if convention == "selected":
        rows, ignored = labels.targets.tolist(), object()
        chosen = labels.selected.tolist()
    else:
        rows, chosen = labels.tolist(), None
        ignored = {"-100": -100, "-1": -1, "pad": pad}[convention]
    for row, values in enumerate(rows):
        for column, value in enumerate(values):
            if chosen[row][column] if chosen else value != ignored:
                found[row, column] = value
    return found


@st.composite
def convention_cases(draw):
    rows, columns = draw(sizes), draw(sizes)
    dense = draw(int64(rows, columns, -1, 9))
    pad = draw(st.sampled_from([0, 7, 10, 2**40]))
    dense = dense.masked_fill((dense == -1) | (dense == pad), -100)
    source = draw(st.sampled_from(["-100", "-1", "pad", "positions", "selected"]))
    target = draw(st.sampled_from(["-100", "-1", "pad", "positions", "selected"]))
    labels = mlmtutor.convert_labels(dense, "-100", source, pad_token_id=pad)
    if isinstance(labels, torch.Tensor):
        labels = laid_out(labels, draw(layouts))
    arguments = {"labels": labels, "source": source, "target": target, "pad_token_id": pad}
    arguments["length"] = columns if source == "positions" else None
    case = draw(perhaps_spoiled(arguments))
    if case.broken == "labels" and not isinstance(labels, torch.Tensor) and draw(st.booleans()):
        field = draw(st.sampled_from(sorted(vars(labels))))
        spoilt = {field: draw(spoiled(getattr(labels, field)))}
        case.arguments["labels"] = dataclasses.replace(labels, **spoilt)
        case.arguments |= {field: None}  # a message may name the field
    return case


def converted(labels, source, target, **options):
    """Call ``convert_labels``; the names of fields are for the messages alone."""
    options = {key: options[key] for key in ("length", "pad_token_id") if key in options}
    return mlmtutor.convert_labels(labels, source, target, **options)


MASKED = MaskedPositions(torch.tensor([[1]]), torch.tensor([[7]]), torch.ones(1, 1))


@fuzz(
    converted,
    convention_cases(),
    *[
        Case({"labels": IDS, "source": "-100", "target": "pad", "pad_token_id": pad}, "pad")
        for pad in (None, 2.0, 2**70, -7, int(IDS[0, 0]))
    ],
    *[
        Case({"labels": MASKED, "source": "positions", "target": "-1", "length": n}, "length")
        for n in (-1, True, 2.0, "2", 2**50, 2**70)
    ],
    Case(
        {
            "labels": MaskedPositions(MASKED.positions, MASKED.ids, None),
            "source": "positions",
            "target": "-1",
            "length": 3,
            "weights": None,
        },
        "weights",
    ),
    name="labels.convert_labels",
    examples=60,
)
def test_convert_labels(result, labels, source, target, pad_token_id=0, **ignored):
    assert answers_of(result, target, pad_token_id) == answers_of(labels, source, pad_token_id)


# Masking ------------------------------------------------------------------------------------------

BERT, BPE, CAUSAL = toys.wordpiece(), toys.byte_level_bpe(), toys.without_mask_token()
NO_PAD = copy.deepcopy(BERT)
NO_PAD.pad_token = None
NO_MASK = copy.deepcopy(BERT)
NO_MASK.mask_token = None


rates = st.one_of(st.sampled_from([0, 1, 0.0, 1.0, 0.5]), st.floats(0, 1))


@st.composite
def policy_cases(draw):
    mask = draw(rates)
    arguments = {"select": draw(rates), "mask": mask, "random": draw(rates) * (1 - mask) / 2}
    return draw(perhaps_spoiled(arguments | {"whole_word": draw(st.booleans())}))


@fuzz(mlmtutor.MaskingPolicy, policy_cases(), examples=40)
def test_masking_policy(result, select, mask, random, whole_word):
    assert (result.select, result.mask, result.random) == (select, mask, random)
    assert 0 <= select <= 1
    assert 0 <= mask + random <= 1
    mlmtutor.mask_tokens(
        torch.tensor([[2, 5, 3]]), BERT, policy=result, word_ids=[[0, 1, 2]] if whole_word else None
    )


@st.composite
def mask_cases(draw):
    rows, columns = draw(sizes), draw(st.sampled_from([0, 1, 2, 5, 9]))
    tokenizer = draw(st.sampled_from([BERT, BPE, NO_PAD, NO_MASK, CAUSAL]))
    input_ids = laid_out(draw(int64(rows, columns, 0, len(tokenizer) - 1)), draw(layouts))
    whole = draw(st.booleans())
    mask = draw(rates)
    random = draw(rates) * (1 - mask)
    policy = mlmtutor.MaskingPolicy(draw(rates), mask, min(random, 1 - mask), whole)
    numbers = int64(rows, columns, -1, 3)
    words = draw(numbers) if whole else None
    if whole and rows and draw(st.booleans()):
        words = [[None if word < 0 else word for word in row] for row in words.tolist()]
    arguments = {
        "input_ids": input_ids,
        "tokenizer": tokenizer,
        "policy": policy,
        "generator": torch.Generator().manual_seed(draw(st.integers(0, 9))),
        "special_tokens_mask": draw(st.one_of(st.none(), int64(rows, columns, 0, 1))),
        "word_ids": words,
    }
    case = draw(perhaps_spoiled(arguments))
    if tokenizer in (NO_MASK, CAUSAL):
        case.broken = case.broken or "tokenizer"
    return case


def masking(**changes):
    """A case of ``mask_tokens`` with one change."""
    arguments = {"input_ids": torch.tensor([[2, 5, 6, 3]]), "tokenizer": BERT}
    return Case(arguments | changes, next(iter(changes)))


POLICY = mlmtutor.MaskingPolicy()
WHOLE = mlmtutor.MaskingPolicy(whole_word=True)


@fuzz(
    mlmtutor.mask_tokens,
    mask_cases(),
    masking(input_ids=torch.tensor([[2, 5]], device="meta")),
    masking(special_tokens_mask=torch.tensor([[0, 0.5, 0, 0]])),
    masking(special_tokens_mask=torch.tensor([[0, math.nan, 0, 0]])),
    masking(special_tokens_mask=torch.zeros(1, 4).to("meta")),
    masking(word_ids=5, policy=WHOLE),
    masking(word_ids=[["a", "b", "c", "d"]], policy=WHOLE),
    masking(word_ids=[[0, 1.5, 2, 3]], policy=WHOLE),
    masking(word_ids=[[0, math.inf, 2, 3]], policy=WHOLE),
    masking(word_ids=[[0, [1], 2, 3]], policy=WHOLE),
    masking(word_ids=[[0, 2**60, 2**60 + 1, 3]], policy=WHOLE),
    masking(word_ids=[0, None, [1], 2], policy=WHOLE),
    examples=60,
)
def test_mask_tokens(
    result, input_ids, tokenizer, policy=POLICY, generator=None,
    special_tokens_mask=None, word_ids=None,
):  # fmt: skip
    corrupted, labels = result
    assert corrupted.shape == labels.shape == input_ids.shape
    special = set(tokenizer.all_special_ids)
    shape = input_ids.shape if input_ids.dim() == 2 else (1, *input_ids.shape)
    table = [t.reshape(shape).tolist() for t in (input_ids, corrupted, labels)]
    extra = torch.zeros(shape) if special_tokens_mask is None else special_tokens_mask
    words = torch.as_tensor([[-1 if w is None else int(w) for w in row] for row in word_ids]
                            ) if isinstance(word_ids, list) and word_ids and isinstance(
                                word_ids[0], list) else word_ids  # fmt: skip
    for row in range(shape[0]):
        ids, seen, answers = (values[row] for values in table)
        free = [i not in special and not p
                for i, p in zip(ids, extra.reshape(shape)[row].tolist(), strict=True)]  # fmt: skip
        for token_id, now, answer, maskable in zip(ids, seen, answers, free, strict=True):
            assert answer == -100 or (answer == token_id and maskable)
            assert now == token_id or (answer == token_id)
            assert now in (token_id, tokenizer.mask_token_id) or now not in special
            if maskable and policy.select == 1 and not policy.whole_word:
                assert answer == token_id
                assert policy.mask < 1 or now == tokenizer.mask_token_id
        if policy.whole_word and isinstance(words, torch.Tensor):
            runs, start = {}, 0
            numbers = words.reshape(shape)[row].tolist()
            for i, number in enumerate(numbers):
                start = i if not i or number != numbers[i - 1] else start
                runs.setdefault(start, []).append(i)
            for run in runs.values():
                chosen = {answers[i] != -100 for i in run}
                assert len(chosen) == 1
                assert chosen == {False} or (all(free[i] for i in run) and numbers[run[0]] >= 0)


# A model and its answers --------------------------------------------------------------------------

MODELS = {name: toys.small_model(name) for name in ("Bert", "DistilBert")}
DEEP = toys.small_model("Bert")
with torch.no_grad():
    DEEP.cls.predictions.bias[7] = math.nan


@st.composite
def labelled_only_cases(draw):
    rows, columns = draw(st.sampled_from([1, 2])), draw(st.sampled_from([1, 2, 5]))
    labels = draw(int64(rows, columns, -1, 59))
    arguments = {
        "model": draw(st.sampled_from(list(MODELS.values()))),
        "input_ids": laid_out(draw(int64(rows, columns, 0, 59)), draw(layouts)),
        "labels": laid_out(labels.masked_fill(labels == -1, -100), draw(layouts)),
        "attention_mask": torch.ones(rows, columns, dtype=torch.int64),
    }
    return draw(perhaps_spoiled(arguments))


def only(**changes):
    """A case of ``labelled_only_loss`` with one change."""
    arguments = {"model": MODELS["Bert"], "input_ids": IDS, "labels": IDS}
    return Case(arguments | changes, next(iter(changes)))


@fuzz(
    mlmtutor.labelled_only_loss,
    labelled_only_cases(),
    only(input_ids=torch.tensor([[5, 60]])),
    only(input_ids=torch.full((1, 600), 5), labels=torch.full((1, 600), 5)),
    only(input_ids=torch.empty(1, 0).long(), labels=torch.empty(1, 0).long()),
    only(attention_mask=torch.ones(1, 5)),
    only(attention_mask=[[1, 1]]),
    only(attention_mask=torch.ones(1, 2).to("meta")),
    only(token_type_ids=torch.tensor([[0, 9]])),
    only(position_ids=torch.tensor([[0, 900]])),
    only(position_ids=torch.tensor([0.0, 1.0])),
    examples=40,
)
def test_labelled_only_loss(result, model, input_ids, labels, **inputs):
    dense = model(input_ids=input_ids, labels=labels.contiguous(), **inputs).loss
    assert close(result.item(), dense.item(), torch.float32)


def text_cases(extra):
    """Cases with a text, a model, and a tokenizer of any kind."""

    @st.composite
    def cases(draw):
        model, tokenizer = MODELS["Bert"], draw(st.sampled_from([BERT, NO_PAD, NO_MASK, CAUSAL]))
        text = draw(texts)
        arguments = {"model": model, "tokenizer": tokenizer, "text": text} | draw(extra)
        case = draw(perhaps_spoiled(arguments, healthy=0.6))
        case.broken = case.broken or "text"  # whether a text can be answered is for the oracle
        return case

    return cases()


def predicting(text="the [MASK] sat", **changes):
    arguments = {"model": MODELS["Bert"], "tokenizer": BERT, "text": text}
    return Case(arguments | changes, "text")


@fuzz(
    mlmtutor.top_predictions,
    text_cases(st.fixed_dictionaries({"k": st.sampled_from([1, 3, 60])})),
    predicting("\ud800 [MASK]"),
    predicting("[MASK]" + "a" * 1_000_000),
    predicting("[MASK] " * 150_000),
    predicting("\0" * 1_000_000 + "[MASK]"),
    predicting(model=None),
    predicting(model=torch.nn.Linear(1, 1)),
    predicting(model=DEEP),
    predicting(tokenizer=None),
    examples=40,
)
def test_top_predictions(result, model, tokenizer, text, k=5):
    ids = tokenizer(text)["input_ids"]
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([ids])).logits[0].double().numpy()
    masks = [place for place, i in enumerate(ids) if i == tokenizer.mask_token_id]
    assert len(result) == len(masks) > 0
    for place, found in zip(masks, result, strict=True):
        weights = np.exp(logits[place] - logits[place].max())
        shares = weights / weights.sum()
        assert [p.probability for p in found] == pytest.approx(sorted(shares)[::-1][:k], rel=1e-4)
        assert [p.probability for p in found] == pytest.approx(
            [shares[p.token_id] for p in found], rel=1e-4
        )
        for p in found:
            assert p.token == (tokenizer.convert_ids_to_tokens(p.token_id) or "?")


@fuzz(
    mlmtutor.pseudo_log_likelihood,
    text_cases(
        st.fixed_dictionaries(
            {"within_word": st.booleans(), "batch_size": st.sampled_from([1, 2, 500])}
        )
    ),
    predicting("the \ud800"),
    predicting("a" * 1_000_000),
    predicting("the cat", model=DEEP),
    predicting("the cat", model=None),
    predicting("the cat", batch_size=2**70),
    examples=40,
)
def test_pseudo_log_likelihood(result, model, tokenizer, text, within_word=False, batch_size=32):
    encoded = tokenizer(text)
    ids, words = encoded["input_ids"], encoded.word_ids()
    places = [place for place, word in enumerate(words) if word is not None]
    assert result.tokens == tuple(tokenizer.convert_ids_to_tokens([ids[p] for p in places]))
    for place, found in list(zip(places, result.log_probabilities, strict=True))[:6]:
        hidden = list(ids)
        hidden[place] = tokenizer.mask_token_id
        for later in range(place + 1, len(ids)):
            if within_word and words[later] == words[place]:
                hidden[later] = tokenizer.mask_token_id
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([hidden])).logits[0, place].double()
        assert found == pytest.approx(float(logits.log_softmax(-1)[ids[place]]), rel=1e-3)
    assert result.total == pytest.approx(sum(result.log_probabilities))
    assert result.pseudo_perplexity >= 1 - 1e-6


@fuzz(
    predict.is_trained,
    st.sampled_from([BERT, NO_PAD, NO_MASK, CAUSAL]).flatmap(
        lambda tokenizer: perhaps_spoiled({"model": MODELS["Bert"], "tokenizer": tokenizer})
    ).map(lambda case: Case(case.arguments, "tokenizer")),
    examples=15,
)  # fmt: skip
def test_is_trained(result, model, tokenizer):
    assert result is False


def test_a_pseudo_perplexity_beyond_the_largest_number_is_inf():
    hopeless = predict.PseudoLogLikelihood(("a",), (-800.0,))
    assert hopeless.pseudo_perplexity == math.inf
    assert predict.PseudoLogLikelihood(("a",), (-math.inf,)).pseudo_perplexity == math.inf


# What is shown ------------------------------------------------------------------------------------


@st.composite
def alignment_cases(draw):
    rows, columns = draw(sizes), draw(st.sampled_from([0, 1, 3, 14, 45]))
    tokenizer = draw(st.sampled_from([BERT, BPE, NO_PAD, NO_MASK, CAUSAL]))
    input_ids = draw(int64(rows, columns, 0, len(tokenizer) + 3))
    labels = draw(int64(rows, columns, -1, 9))
    labels = labels.masked_fill(labels == -1, -100)
    logits = torch.randn(rows, columns, 10, generator=torch.Generator().manual_seed(0))
    arguments = {
        "tokenizer": tokenizer,
        "input_ids": laid_out(input_ids, draw(layouts)),
        "labels": laid_out(labels, draw(layouts)),
        "logits": draw(st.sampled_from([None, logits])),
        "attention_mask": draw(st.one_of(st.none(), int64(rows, columns, 0, 1))),
    }
    return draw(perhaps_spoiled(arguments))


def aligned(**changes):
    arguments = {"tokenizer": BERT, "input_ids": IDS, "labels": IDS}
    return Case(arguments | changes, next(iter(changes)))


@fuzz(
    mlmtutor.alignment,
    alignment_cases(),
    Case({"tokenizer": BERT, "input_ids": torch.tensor([[2**40, 5]]), "labels": IDS}),
    aligned(tokenizer=None),
    aligned(input_ids=None),
    aligned(input_ids="text"),
    aligned(input_ids=[[1, 2], [3]]),
    aligned(input_ids=[2**70]),
    aligned(input_ids=IDS.to("meta")),
    aligned(input_ids=IDS * 1j),
    aligned(logits=[[1.0, 2.0]]),
    aligned(logits=torch.zeros(1, 2, 9).to("meta")),
    aligned(logits=torch.zeros(1, 2, 9, dtype=torch.int64)),
    Case(
        {
            "tokenizer": BERT,
            "input_ids": IDS,
            "labels": IDS,
            "logits": torch.full((1, 2, 9), math.nan),
        }
    ),
    examples=40,
)
def test_alignment(result, tokenizer, input_ids, labels=None, logits=None, attention_mask=None):
    text, drawn = str(result), result._repr_html_()
    assert "<script" not in drawn
    if labels is None:
        assert (result.scored, result.loss) == (0, None)
        return
    flat = torch.as_tensor(labels).reshape(-1)
    scored_here = [label for label in flat.tolist() if label != -100]
    assert result.scored == len(scored_here)
    assert f"{len(scored_here)} of {flat.numel()} positions" in text
    if logits is not None and all(0 <= label < logits.shape[-1] for label in scored_here):
        losses = slow_losses(logits.float(), flat.reshape(logits.shape[:-1]))
        assert close(result.loss, reduced(losses, "mean"), torch.float32)
        if any(math.isnan(loss) for loss in losses if loss is not None) and flat.numel() < 40:
            assert "nan" in text.partition("log p")[2]


# The doctor ---------------------------------------------------------------------------------------


@st.composite
def batch_cases(draw):
    rows, columns = draw(sizes), draw(st.sampled_from([0, 1, 5, 9]))
    labels = draw(int64(rows, columns, -1, 28))
    batch = {
        "input_ids": laid_out(draw(int64(rows, columns, 0, 28)), draw(layouts)),
        "labels": laid_out(labels.masked_fill(labels == -1, -100), draw(layouts)),
        "attention_mask": draw(int64(rows, columns, 0, 1)),
    }
    name = draw(st.sampled_from([None, *batch]))
    if name:
        batch[name] = draw(spoiled(batch[name]))
    if draw(st.booleans()):
        batch[draw(st.sampled_from(["lm_labels", "position_ids", "Labels", 5]))] = draw(junk())
    whole = draw(st.one_of(st.just(batch), st.just([batch, batch]), junk()))
    tokenizers = st.sampled_from([None, BERT, BPE, NO_PAD, NO_MASK, CAUSAL])
    models = st.sampled_from([None, *MODELS.values()])
    arguments = {"batch": whole, "tokenizer": draw(tokenizers), "model": draw(models)}
    return Case(arguments | {"whole_word": draw(st.booleans())})


class Broken:
    """Whatever is asked of it raises."""

    def __getattr__(self, name):
        raise RuntimeError(f"no {name}")


@fuzz(
    mlmtutor.diagnose,
    batch_cases(),
    Case({"batch": Broken()}),
    Case({"batch": {"input_ids": IDS, "labels": IDS.to(torch.float8_e4m3fn)}}),
    Case({"batch": {"input_ids": IDS, "attention_mask": IDS.to(torch.float8_e5m2)}}),
    Case({"batch": {"input_ids": IDS, "labels": IDS}, "tokenizer": Broken(), "model": Broken()}),
    Case({"batch": {"input_ids": IDS, "labels": IDS}, "tokenizer": junk, "model": 5}),
    Case({"batch": {"input_ids": torch.full((3, 4), 2**62), "labels": IDS}, "tokenizer": BERT}),
    Case({"batch": {"input_ids": torch.zeros(2000, 500).long(), "labels": IDS}}),
    examples=60,
)
def test_diagnose(result, batch, tokenizer=None, model=None, whole_word=False):
    healthy_arguments = not isinstance(tokenizer, Broken | type(junk))
    failed = [reason for _, reason in result.unchecked if "failed with" in reason]
    assert not failed or not healthy_arguments
    assert str(result)
    assert "<script" not in result._repr_html_()
    ids = batch.get("input_ids") if isinstance(batch, dict) else None
    labels = batch.get("labels") if isinstance(batch, dict) else None
    if not all(isinstance(t, torch.Tensor) for t in (ids, labels)):
        return  # lists and arrays are read too
    readable = [
        not (t.is_meta or t.is_nested or t.layout != torch.strided)
        and (t.dtype == torch.int64 or (t is ids and t.dtype == torch.int32))
        and t.dim() == 2
        for t in (ids, labels)
    ]
    if not all(readable):
        assert not result.ok
    elif ids.shape == labels.shape and ids.numel():
        wrong = (labels < 0) & (labels != -100)
        if wrong.any() or (ids < 0).any() or (labels == -100).all():
            assert any(finding.severity == "error" for finding in result.findings)
        for finding in result.findings:
            assert all(r < ids.shape[0] and c < ids.shape[1] for r, c in finding.positions)


@st.composite
def collator_cases(draw):
    case = draw(batch_cases())
    batch = case.arguments["batch"]
    arguments = {"collator": lambda: batch, "tokenizer": case.arguments["tokenizer"], "batches": 2}
    return draw(perhaps_spoiled(arguments))


@fuzz(mlmtutor.CheckedCollator, collator_cases(), examples=40)
def test_checked_collator(result, collator, tokenizer, batches=2):
    if not inspect.isfunction(collator):
        return
    wanted = collator()
    before = frozen(wanted)
    for _ in range(3):
        try:
            assert result() is wanted
        except ValueError as error:
            assert str(error).startswith("This batch cannot be trained on:\nerror ")
    assert frozen(wanted) == before


@fuzz(
    mlmtutor.diagnose_trainer,
    junk().map(lambda value: Case({"trainer": value}, "trainer")),
    Case({"trainer": types.SimpleNamespace(args=1, model=None, compute_loss=None)}),
)
def test_diagnose_trainer(result, trainer):
    assert all("failed with" in reason or "no eval" in reason for _, reason in result.unchecked)
    assert result.findings == ()


@st.composite
def check_cases(draw):
    severity = draw(st.sampled_from(["error", "warning", "info"]))
    arguments = {"code": draw(texts), "severity": severity, "needs": ("labels",), "unless": ()}
    case = draw(perhaps_spoiled(arguments | {"table": {}}))
    if case.broken == "table":
        case.arguments["table"] = {}
        case.broken = None
    return case


@fuzz(
    doctor.check,
    check_cases(),
    Case({"code": [], "severity": "info", "table": {}}, "code"),
    Case({"code": "mine", "severity": "info", "needs": "labels", "table": {}}, "needs"),
    Case({"code": "mine", "severity": "info", "unless": 5, "table": {}}, "unless"),
    name="doctor.check",
    examples=25,
)
def test_check(result, code, severity, table, needs=(), unless=()):
    result(lambda case: None)
    assert list(table) == [code]
    table.clear()


# History ------------------------------------------------------------------------------------------

KNOWN = [
    "IndexError: Target -1 is out of bounds.",
    "forward() got an unexpected keyword argument 'masked_lm_labels'",
    "'tuple' object has no attribute 'logits'",
    "Expected input batch_size (16) to match target batch_size (10).",
    "index out of range in self",
    "loss: nan",
]


@st.composite
def error_cases(draw):
    text = draw(texts)
    if draw(st.booleans()):
        text = f"{text}\n{draw(st.sampled_from(KNOWN))}\n{draw(texts)}"
    error = draw(st.sampled_from([text, text, ValueError(text), Warning(text)]))
    blank = isinstance(error, str) and not error.strip()
    case = draw(perhaps_spoiled({"error": error}, healthy=0.8))
    case.broken = case.broken or ("error" if blank else None)
    return case


class Unspeakable(Exception):
    """An exception whose text cannot be read."""

    def __str__(self):
        raise RuntimeError("no text")


@fuzz(
    mlmtutor.explain_error,
    error_cases(),
    Case({"error": "loss " * 200_000}),
    Case({"error": "unexpected keyword argument '" + "label" * 200_000}),
    Case({"error": "Unexpected keyword arguments: [" * 30_000}),
    Case({"error": "Target " + "9" * 5000 + " is out of bounds"}),
    Case({"error": "Target -" * 100_000}),
    Case({"error": "\ud800\0"}),
    Case({"error": Unspeakable()}, "error"),
    examples=40,
)
def test_explain_error(result, error):
    text = f"{type(error).__name__}: {error}" if isinstance(error, Exception) else error.strip()
    assert result.text == text
    assert str(result).startswith("means ")
    assert not any(known in text for known in KNOWN) or result.known


@pytest.mark.parametrize("function", [history.label_history, history.observed_calls])
def test_history_is_the_same_after_its_result_was_changed(function):
    TARGETS.add(f"history.{function.__name__}")
    first = function()
    before = list(first)
    first.clear()
    assert function() == before


def test_check_environment(capsys):
    TARGETS.add("environment.check_environment")
    assert mlmtutor.check_environment() is True
    assert capsys.readouterr().out.startswith("OK ")


# Files and folders --------------------------------------------------------------------------------

names = st.one_of(texts.map(lambda t: t or "x"), junk()).filter(
    lambda name: not isinstance(name, str | None) or bool(name)
)


@fuzz(
    mlmtutor.load_tutor,
    names.map(lambda name: Case({"name": name}, "name")),
    Case({"name": "no\0name"}, "name"),
    Case({"name": 0}, "name"),
    Case({"name": b"bert"}, "name"),
    Case({"name": []}, "name"),
    Case({"name": "a" * 10_000}, "name"),
    examples=15,
    refuses=(ValueError, TypeError, OSError),  # as documented: the checkpoint is not here
    names=("is no folder here", "holds no checkpoint"),
)
def test_load_tutor(result, name):
    raise AssertionError(f"{name!r} was loaded")


def verified(folder, files):
    """Verify a folder with such files; ``None`` where all is right."""
    with tempfile.TemporaryDirectory() as root:
        for name, data in files.items():
            pathlib.Path(root, name).write_bytes(data)
        try:
            model.verify_files(folder or pathlib.Path(root))
        except FileNotFoundError as error:
            raise ValueError(f"files: {error}") from None


@fuzz(
    verified,
    st.binary(max_size=40).map(
        lambda data: Case({"folder": None, "files": {"checksums.json": data}}, "checksums")
    ),
    *[
        Case({"folder": None, "files": {"checksums.json": data}}, "checksums")
        for data in (b"", b"[]", b"3", b'{"x": 5}', b"\xff", b"[" * 100_000, b'{"\\u0000": ""}')
    ],
    Case({"folder": None, "files": {"checksums.json": b"{}"}}),
    name="model.verify_files",
    names=("checksums.json",),
)
def test_verify_files(result, folder, files):
    assert json.loads(files["checksums.json"]) == {}


sources = st.one_of(
    texts,
    st.sampled_from(
        ["model = BertForMaskedLM(c)\nmodel(x, masked_lm_labels=y)", "x = (", "x = '\ud800'", "\0"]
    ),
)


@fuzz(
    lint.lint_source,
    sources.flatmap(lambda s: perhaps_spoiled({"source": s, "path": "x.py"})),
    Case({"source": 5}, "source"),
    Case({"source": b"x = 1"}, "source"),
    Case({"source": "*a"}),
    examples=40,
)
def test_lint_source(result, source, path="x.py"):
    codes = {finding.code for finding in result}
    try:
        ast.parse(source)  # not compile(), which also refuses what parses, such as a starred name
    except (SyntaxError, ValueError, MemoryError):
        assert "does-not-parse" in codes
    else:
        assert ("old-label-keyword" in codes) == ("masked_lm_labels" in source)


tree = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), texts),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(["cells", "cell_type", "source", "metadata", "kernelspec",
                             "language", "language_info", "worksheets", "name"]),
            inner, max_size=4,
        ),
    ),
    max_leaves=10,
)  # fmt: skip


@fuzz(
    lint.lint_notebook,
    st.one_of(texts, tree.map(json.dumps)).flatmap(lambda t: perhaps_spoiled({"text": t})),
    Case({"text": '{"cells": [{"cell_type": "code", "source": [1, 2]}]}'}),
    Case({"text": '{"cells": {"a": 1}}'}),
    Case({"text": '{"a":' * 50_000}),
    Case({"text": "9" * 5000}),
    Case({"text": None}, "text"),
    examples=40,
)
def test_lint_notebook(result, text, path="<notebook>"):
    try:
        read = json.loads(text)
    except (ValueError, RecursionError):
        read = None
    if not isinstance(read, dict):
        assert [finding.code for finding in result] == ["does-not-parse"]


def linted(data, suffix, paths=None):
    """Write a file, and lint it by itself and by its folder; or lint what was given."""
    if paths is not None:
        return None, lint.lint_paths(paths)
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder, "x" + suffix)
        file.write_bytes(data)
        return lint.lint_file(file), lint.lint_paths([folder])


@fuzz(
    linted,
    st.tuples(st.binary(max_size=60), st.sampled_from([".py", ".ipynb"])).map(
        lambda pair: Case({"data": pair[0], "suffix": pair[1]})
    ),
    *[
        Case({"data": b"", "suffix": "", "paths": paths}, "paths")
        for paths in ("folder", b"folder", 5, [5], [None], [b"x"])
    ],
    Case({"data": b"", "suffix": "", "paths": ["no\0where", "", "\ud800.py", "a\nb.py"]}),
    name="lint.lint_file",
    examples=40,
)
def test_lint_file_and_paths(result, data, suffix, paths=None):
    TARGETS.update({"lint.lint_paths", "lint.as_text", "lint.as_json", "lint.as_github"})
    alone, report = result
    if paths is None:
        assert report.files == 1
        assert [f.code for f in report.findings] == [f.code for f in alone]
    else:
        assert len(report.unusable) == len(paths)
    for line in lint.as_text(report).split("\n"):
        assert line.isprintable()
        line.encode()
    json.loads(lint.as_json(report))
    assert len(lint.as_github(report).split("\n")) == max(1, len(report.findings))


# Figures ------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _coarse(monkeypatch):
    """Draw with few pixels: what is drawn is the business of other tests."""
    monkeypatch.setitem(plot.STYLE, "figure.dpi", 20)


def drawn(result, alt=None):
    """A picture with words."""
    assert result.png.startswith(b"\x89PNG")
    assert result.alt.strip()
    assert result.caption.strip()
    assert "<script" not in result._repr_html_()


def said(text):
    """How a text stands in the words of a figure."""
    return text.replace("\0", "\\x00").replace("\n", "\\n").replace("\ud800", "\\ud800")


labels_of_axes = st.sampled_from(["a", "b $x$", "$\\frac{", "שלום", "😀", "\0", "a\nb", "<b>", ""])
numbers = st.floats(-1e6, 1e6, width=32)


def plotted(function, arguments, *met, **options):
    """A test of a function that draws, with healthy arguments and with one broken."""
    return fuzz(function, arguments.flatmap(lambda a: perhaps_spoiled(a)), *met, examples=4,
                **options)  # fmt: skip


RULE = {"kept": 0.85, "selected": 0.15}


@plotted(
    plot.shares_against_rule,
    st.fixed_dictionaries(
        {
            "counts": st.dictionaries(
                labels_of_axes, st.lists(st.integers(1, 99), min_size=2, max_size=2), min_size=1,
                max_size=2,
            ),
            "rule": st.just(RULE),
        }
    ),
    Case({"counts": {"a": [0, 0]}, "rule": RULE}, "counts"),
    Case({"counts": {"a": [-1, 5]}, "rule": RULE}, "counts"),
    Case({"counts": {"a": [math.nan, 5]}, "rule": RULE}, "counts"),
    Case({"counts": {}, "rule": RULE}, "counts"),
    Case({"counts": {"a": []}, "rule": {}}, "rule"),
    Case({"counts": {"a": [1, 2]}, "rule": {"x": math.nan, "y": 1}}, "rule"),
)  # fmt: skip
def test_shares_against_rule(result, counts, rule):
    drawn(result)
    for name, count in counts.items():
        found = re.search(rf"(?:points\. |; ){re.escape(said(name))}: .*? ([-+][\d.]+)", result.alt)
        gap = 100 * (count[0] / sum(count) - next(iter(rule.values())))
        assert math.isclose(float(found[1]), gap, abs_tol=0.051)


@plotted(
    plot.gradients,
    st.lists(st.tuples(labels_of_axes, st.sampled_from([-100, 7]), numbers, numbers), min_size=1,
             max_size=4).map(lambda rows: dict(zip(
                 ("tokens", "labels", "at_logits", "at_inputs"),
                 map(list, zip(*rows, strict=True)), strict=True))),
    Case({"tokens": [], "labels": [], "at_logits": [], "at_inputs": []}, "tokens"),
    Case({"tokens": ["a"], "labels": [1], "at_logits": ["x"], "at_inputs": [0.0]}, "at_logits"),
    Case({"tokens": ["a"], "labels": [1], "at_logits": [math.nan], "at_inputs": [0.0]}, "x"),
    Case({"tokens": ["$\\frac{$"], "labels": [1], "at_logits": [1.0], "at_inputs": [0.0]}),
)  # fmt: skip
def test_gradients(result, tokens, labels, at_logits, at_inputs):
    drawn(result)
    reached = [said(token) for token, size in zip(tokens, at_logits, strict=True) if size]
    assert f"logits: not 0 at {', '.join(reached) or 'any position'}" in result.alt


DAYS = ["2020-01-01", "2021-06-01", "2022-01-01"]


@plotted(
    plot.timeline,
    st.fixed_dictionaries(
        {
            "dates": st.just(DAYS),
            "names": st.just(["1.0", "$2$", "3.0"]),
            "rows": st.dictionaries(
                labels_of_axes, st.lists(labels_of_axes, min_size=3, max_size=3), min_size=1,
                max_size=2,
            ),
        }
    ),
    Case({"dates": [], "names": [], "rows": {}}, "dates"),
    Case({"dates": ["2020-01-01"], "names": ["1"], "rows": {"a": ["x"]}}, "dates"),
    Case({"dates": DAYS[::-1], "names": DAYS, "rows": {"a": DAYS}}, "dates"),
    Case({"dates": ["x", "y", "z"], "names": DAYS, "rows": {"a": DAYS}}, "dates"),
    Case({"dates": [1, 2, 3], "names": DAYS, "rows": {"a": DAYS}}, "dates"),
)  # fmt: skip
def test_timeline(result, dates, names, rows):
    drawn(result)
    for title, words in rows.items():
        assert said(f"{title}: {words[0]} from {names[0]}") in result.alt


@plotted(
    plot.pair_gaps,
    st.dictionaries(labels_of_axes, st.lists(numbers, min_size=1, max_size=3), min_size=1,
                    max_size=2).map(lambda gaps: {"gaps": gaps}),
    Case({"gaps": {"a": [math.nan]}}, "gaps"),
    Case({"gaps": {"a": [math.inf, 1.0]}}, "gaps"),
    Case({"gaps": {"a": ["x"]}}, "gaps"),
    Case({"gaps": {"a": [1e-320]}}),
    Case({"gaps": {"a": [0.0]}}),
)  # fmt: skip
def test_pair_gaps(result, gaps):
    drawn(result)
    for kind, values in gaps.items():
        assert said(f"{kind}: {sum(v > 0 for v in values)} of {len(values)}") in result.alt


LINES = {"uniform": 4.0, "unigram": 3.0, "guess": 0.2}


@plotted(
    plot.label_policies,
    st.fixed_dictionaries(
        {
            "losses": st.just({"right $a$": [4.0, 2.0], "copy": [4.0, 0.05]}),
            "accuracy": st.just({"right $a$": 0.5, "copy": 0.0}),
            "uniform": st.floats(0.5, 12),
            "unigram": st.floats(0.5, 12),
            "guess": st.floats(0.001, 1),
        }
    ),
    Case({"losses": {"a": [1.0]}, "accuracy": {"a": math.nan}, **LINES}, "accuracy"),
    Case({"losses": {"a": ["x"]}, "accuracy": {"a": 0.5}, **LINES}, "losses"),
    Case({"losses": {"a": [1.0]}, "accuracy": {"a": 0.5}, **LINES, "uniform": math.inf}, "u"),
    Case({"losses": {"a": [1.0]}, "accuracy": {"a": 0.5}, **LINES, "uniform": 0.0}, "u"),
    Case({"losses": {"a": [1.0]}, "accuracy": {"a": 0.0}, **LINES, "guess": 0.0}, "guess"),
    Case({"losses": {"a": [1.0, math.nan]}, "accuracy": {"a": 0.5}, **LINES}, "losses"),
)
def test_label_policies(result, losses, accuracy, uniform, unigram, guess):
    drawn(result)
    for name, values in losses.items():
        last = sum(values) / len(values)
        end = "below 0.1" if last < 0.1 else "below" if last < unigram else "above unigram"
        assert said(f"{name}: the loss ends {end}") in result.alt


STORED = json.loads((stored.ROOT / "mlmtutor/data/performance.json").read_text("utf-8"))


@plotted(
    plot.labelled_only_cost,
    st.just({"measurements": STORED["measurements"]}),
    Case({"measurements": [{"name": "x"}]}, "measurements"),
    Case({"measurements": [5]}, "measurements"),
    Case({"measurements": [{**row, "median": None} for row in STORED["measurements"]]}, "m"),
    Case({"measurements": [{**row, "bytes": math.nan} for row in STORED["measurements"]]}, "m"),
)
def test_labelled_only_cost(result, measurements):
    drawn(result)


def framed(rows, columns, options):
    """Make axes."""
    if not isinstance(options, dict) or not all(isinstance(key, str) for key in options):
        raise TypeError("options: Python itself refuses what is no keyword")
    return plot.figure(rows, columns, **options)


@fuzz(
    framed,
    perhaps_spoiled({"rows": 1, "columns": 2, "options": {}}),
    Case({"rows": 0, "columns": 1, "options": {}}, "rows"),
    Case({"rows": 1, "columns": 1, "options": {"no_such": 1}}, "options"),
    Case({"rows": 100_000, "columns": 100_000, "options": {}}, "rows"),
    name="plot.figure",
    examples=8,
)
def test_figure(result, rows, columns, options):
    canvas, axes = result
    assert len(canvas.axes) == rows * columns == np.size(axes)


def finished(canvas, alt, caption):
    """Draw it; an empty figure where none was given."""
    return plot.finish(plot.figure()[0] if canvas == "made" else canvas, alt=alt, caption=caption)


@fuzz(
    finished,
    st.tuples(texts, texts).flatmap(
        lambda words: perhaps_spoiled({"canvas": "made", "alt": words[0], "caption": words[1]})
    ).map(lambda case: Case(case.arguments, case.broken or "alt")),
    Case({"canvas": "made", "alt": "", "caption": "x"}, "alt"),
    Case({"canvas": None, "alt": "a", "caption": "x"}, "canvas"),
    Case({"canvas": "made", "alt": None, "caption": "x"}, "alt"),
    name="plot.finish",
    examples=8,
)  # fmt: skip
def test_finish(result, canvas, alt, caption):
    drawn(result)
    assert (result.alt, result.caption) == (alt, caption)


# Processes ----------------------------------------------------------------------------------------


def refused_before_the_start(batch, labels, processes, timeout):
    """Check the arguments of ``run_data_parallel`` and save them; start nothing."""
    started = []

    def save(command, log, seconds):
        started.append(data_parallel.load_file(command[-2]))
        data_parallel.save_file({"own.loss": labels.sum(), "all.loss": labels.sum()}, command[-1])

    real, data_parallel._run = data_parallel._run, save
    try:
        data_parallel.run_data_parallel(batch, labels, processes=processes, timeout=timeout)
    finally:
        data_parallel._run = real
    return started


@st.composite
def parallel_cases(draw):
    rows, columns = draw(st.integers(1, 3)), draw(st.integers(1, 4))
    batch = {"input_ids": laid_out(draw(int64(rows, columns, 0, 9)), draw(layouts))}
    if draw(st.booleans()):
        batch["attention_mask"] = laid_out(draw(int64(rows, columns, 0, 1)), draw(layouts))
    labels = laid_out(draw(int64(rows, columns, 0, 9)), draw(layouts))
    arguments = {"batch": batch, "labels": labels, "processes": draw(st.integers(1, rows))}
    case = draw(perhaps_spoiled(arguments | {"timeout": draw(st.sampled_from([5, 0.5]))}))
    if case.broken == "batch" and draw(st.booleans()):
        key = draw(st.sampled_from([*batch, "labels", "other"]))
        case.arguments["batch"] = batch | {key: draw(spoiled(batch["input_ids"]))}
    return case


SPREAD = torch.arange(6).reshape(2, 3).t()


@fuzz(
    refused_before_the_start,
    parallel_cases(),
    Case({"batch": {"input_ids": SPREAD}, "labels": SPREAD, "processes": 1, "timeout": 5}),
    *[
        Case({"batch": {"input_ids": IDS}, "labels": IDS, "processes": 1, "timeout": value}, "t")
        for value in ("x", math.nan, None, -1, True)
    ],
    *[
        Case({"batch": batch, "labels": IDS, "processes": 1, "timeout": 5}, "batch")
        for batch in ({"input_ids": IDS, 5: IDS}, {"input_ids": IDS.to("meta")})
    ],
    name="data_parallel.run_data_parallel",
    examples=25,
)
def test_run_data_parallel(result, batch, labels, processes, timeout):
    [saved] = result
    assert saved["labels"].tolist() == labels.tolist()
    assert all(saved[name].tolist() == tensor.tolist() for name, tensor in batch.items())


# Checkers of exercises ----------------------------------------------------------------------------

CHECKERS = {name: function for name, function in vars(checks).items() if name.startswith("check_")}
answers = st.one_of(
    junk(), texts, int64(2, 3, -100, 9), st.floats(), int64(2, 8, 0, 1),
    st.lists(st.integers(), max_size=4), st.tuples(int64(2, 5, 0, 1), int64(2, 5, 0, 1)),
)  # fmt: skip


@pytest.mark.parametrize("name", sorted(CHECKERS))
def test_a_checker_survives_every_answer(name, capsys):
    """What a function returns is never an error of the checker: it is a wrong answer."""
    target = f"checks.{name}"
    TARGETS.add(target)

    def oracle(result, answer):
        shown = capsys.readouterr().out
        assert not shown.startswith("✓ "), f"accepted: {answer()!r}"

    def judged(answer):
        try:
            return CHECKERS[name](answer)
        except checks.WrongAnswer as error:
            assert str(error)
            raise ValueError(f"answer: {error}") from None

    run = fuzz(
        judged,
        answers.map(lambda value: Case({"answer": lambda *a, **k: value}, "answer")),
        Case({"answer": 5}, "answer"),
        name=target,
        examples=3,
    )(oracle)
    run()


# The list is whole --------------------------------------------------------------------------------

RECORDS_OF_FIELDS = "a record: its fields are what was put in"
NOT_FED = {
    "data_parallel.step": "the main program of one process; run_data_parallel starts it",
    "checks.WrongAnswer": "an exception",
    "doctor.Case": "what diagnose makes of a batch; never raises, and is fed by test_diagnose",
}


def public_functions():
    """Everything on the page docs/api.md that can be called: ``module.name``."""
    found = {}
    for info in pkgutil.iter_modules(mlmtutor.__path__):
        if info.name.startswith(("_", "doctor_")):
            continue
        module = importlib.import_module(f"mlmtutor.{info.name}")
        names = getattr(module, "__all__", None) or [
            name
            for name, value in vars(module).items()
            if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__
        ]
        for name in names:
            if callable(value := getattr(module, name)):
                found[f"{info.name}.{name}"] = value
    return found


def is_record(value):
    """Whether a class only holds what it is given."""
    if not isinstance(value, type):
        return False
    plain = dataclasses.is_dataclass(value) and not hasattr(value, "__post_init__")
    return plain or hasattr(value, "_fields")


def test_every_public_function_is_fed():
    found = public_functions()
    assert len(found) > 60
    fed = {name for name, value in found.items() if not is_record(value)}
    assert fed - set(NOT_FED) - TARGETS == set(), "give each a target in this file"
    assert set(NOT_FED) <= set(found), "no longer there"


def test_all_that_mlmtutor_exports_is_among_them():
    homes = {name.partition(".")[2] for name in public_functions()}
    for name in mlmtutor.__all__:
        assert name in homes or not callable(getattr(mlmtutor, name)), name


def test_the_judge_sees_a_changed_input_a_nameless_error_and_a_refusal():
    def change(ids):
        ids[0] = 5

    def nameless(ids):
        raise ValueError("bad")

    def refuse(ids):
        raise ValueError("ids are bad")

    def crash(ids):
        raise RuntimeError("ids")

    def look_away(result, ids):
        pass

    ids = torch.tensor([1])
    with pytest.raises(AssertionError, match="changed its input"):
        feed(change, "t", Case({"ids": ids}), look_away)
    with pytest.raises(AssertionError, match="names no argument"):
        feed(nameless, "t", Case({"ids": ids}, "ids"), look_away)
    with pytest.raises(AssertionError, match="a healthy case is refused"):
        feed(refuse, "t", Case({"ids": ids}), look_away)
    with pytest.raises(RuntimeError):
        feed(crash, "t", Case({"ids": ids}, "ids"), look_away)
    with pytest.raises(AssertionError, match="no end"), patience(0.05):
        time.sleep(60)
    del TRIED["t"]
