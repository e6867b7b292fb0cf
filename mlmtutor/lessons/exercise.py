"""An exercise: a right function, the inputs that it is tried on, and the usual wrong functions.

A lesson calls the exercise with the reader's function. It prints ``✓`` and what was proven, or
raises :class:`WrongAnswer` with a sentence that names the mistake: the sentence that was registered
with the first wrong function that returns what the reader's function returned.
"""

import copy
import dataclasses
import math
import re
import traceback
from collections.abc import Callable, Iterator, Sequence
from types import CodeType
from typing import Any

import torch

from mlmtutor._messages import translated

Function = Callable[..., Any]
Message = str | Callable[..., str]  # a callable gets the arguments of the case, and the answer

NOTHING = "Your function returns nothing (None). Printing is not returning: end with `return ...`."
NOT_WRITTEN = (
    "Not written yet, or its cell failed: put your answer in place of "
    "`raise NotImplementedError`, and run its cell again."
)
CHANGED = (
    "Your function changes a tensor or a list that it was given, and the caller loses it. "
    "Work on a copy (`.clone()`, `torch.where`, `masked_fill`, `row + [...]`)."
)

CHANGED_KEYS = (
    "Your function changes the dictionary that it was given, and the caller loses it. "
    "Make a new one: `new = dict(given)`."
)


class WrongAnswer(AssertionError):
    """The answer to an exercise is wrong; the message says how."""

    frames: Sequence[str] = ()

    def __init__(self, message: Any) -> None:
        super().__init__(translated(message))

    def _render_traceback_(self) -> list[str]:
        """Tell IPython to show the message, and of the frames the reader's own."""
        return [f"✗ {self}", *self.frames]


@dataclasses.dataclass(eq=False)
class Exercise:
    """What a lesson calls with the reader's function."""

    right: Function
    # Returns the argument tuples that the answer is tried on. Choose them so that every two sizes
    # differ: batch, length, vocabulary, number of labels.
    cases: Callable[[], list[tuple[Any, ...]]] = list
    says: Message = ""  # what a right answer proves; a str, or a function of the first case
    returns: tuple[str, ...] = ("answer",)  # the names of the returned values
    hint: str = ""  # a sentence after a wrong shape
    # What to say where the text of a raised error matches a pattern.
    errors: dict[str, str] = dataclasses.field(default_factory=dict)
    without: tuple[str, ...] = ()  # names that a right answer may not use
    divisor: Callable[..., int] | None = None  # of the arguments: what the right sum is divided by
    # Makes of the arguments what the wrong functions get in their place.
    of: Callable[..., tuple[Any, ...]] = lambda *case: case
    # The wrong functions, by what is said to those who wrote them.
    wrong: dict[Any, Function] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        self.__doc__ = self.right.__doc__

    @property
    def mistakes(self) -> list[tuple[Function, Message]]:
        """Pairs of a wrong function, of the arguments, and what is said to those who wrote it."""
        return [(lambda *a, f=f: f(*self.of(*a)), said) for said, f in self.wrong.items()]

    def __call__(self, answer: Function) -> None:
        """Judge the reader's function: print ``✓``, or raise :class:`WrongAnswer`.

        Raises:
            WrongAnswer: it returns something else than the right function does, or raises.
            TypeError: ``answer`` isn't a function.
        """
        if not callable(answer):
            raise TypeError(
                f"pass your function itself, not what it returns: this is a "
                f"{type(answer).__name__}."
            )
        try:
            said = self.judge(answer)
        except NotImplementedError:
            print(translated(NOT_WRITTEN))
        else:
            print(f"✓ {translated(said)}")

    def judge(self, answer: Function) -> str:
        """Return what a right answer proves, or raise :class:`WrongAnswer`."""
        cases = self.cases()
        for case in cases:
            self._judge_case(answer, case)
        used = sorted(set(self.without) & set(names_in(getattr(answer, "__code__", None))))
        if used:
            told = translated("The number is right, but the exercise is to do it without {}.")
            raise WrongAnswer(told.format(used[0]))
        return self.says if isinstance(self.says, str) else self.says(*cases[0])

    def _judge_case(self, answer: Function, case: tuple[Any, ...]) -> None:
        right = self.right(*copied(case))
        found = call(answer, copied(case), self.errors, case)
        if same(found, right):
            return
        for wrong, message in self.mistakes:
            if same(found, outcome(wrong, copied(case))):
                raise WrongAnswer(message if isinstance(message, str) else message(*case, found))
        if found is None:
            raise WrongAnswer(NOTHING)
        require_like(found, right, self.returns, self.hint)
        raise WrongAnswer(first_difference(found, right, self.returns))


class ByHand(Exercise):
    """An exercise with a judge of its own, where comparing outputs isn't enough.

    The judge gets the reader's function, returns what was proven, and raises
    :class:`WrongAnswer`; ``wrong`` holds what it has to tell apart.
    """

    def __init__(self, right: Function, judge: Callable[[Function], str]) -> None:
        super().__init__(right)
        self._by_hand = judge

    def judge(self, answer: Function) -> str:
        """Return what a right answer proves, or raise :class:`WrongAnswer`."""

        def asked(*arguments: Any) -> Any:
            found = call(answer, arguments, {}, None)
            if found is None:
                raise WrongAnswer(NOTHING)
            return found

        return self._by_hand(asked)


def refuse_where(mistakes: dict[str, Any]) -> None:
    """Raise :class:`WrongAnswer` with the first message whose condition holds."""
    for message, holds in mistakes.items():
        if holds:
            raise WrongAnswer(message)


def exercise(
    cases: Callable[[], list[tuple[Any, ...]]], says: Message, **options: Any
) -> Callable[[Function], Exercise]:
    """Make the decorated right function an :class:`Exercise`, which says what the options are."""
    return lambda right: Exercise(right, cases, says, **options)


def call(
    answer: Function, given: tuple[Any, ...], errors: dict[str, str], case: tuple[Any, ...] | None
) -> Any:
    """Call the reader's function; an error in it becomes a :class:`WrongAnswer` with its frames.

    ``case`` is an untouched copy of what is ``given``. Where they differ afterwards, the function
    has changed what belongs to its caller. ``None``: don't look.
    """
    try:
        found = answer(*given)
    except (NotImplementedError, WrongAnswer):
        raise
    except Exception as error:
        told = translated("Your function raises {}: {}").format(type(error).__name__, error)
        for pattern, message in errors.items():
            if re.search(pattern, str(error)):
                told = message
        wrong = WrongAnswer(told)
        frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename != __file__]
        wrong.frames = "".join(traceback.format_list(frames)).splitlines()
        raise wrong from error
    for one, other in zip(given, case or (), strict=False):
        if not same(one, other):
            keys = isinstance(other, dict) and one.keys() != other.keys()
            raise WrongAnswer(CHANGED_KEYS if keys else CHANGED)
    return found


def outcome(wrong: Function, case: tuple[Any, ...]) -> Any:
    """Return what a registered wrong function returns; where it raises, nothing compares equal."""
    try:
        return wrong(*case)
    except Exception:
        return object()


def copied(case: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return copies of tensors, lists and dicts; models and tokenizers stay as they are."""
    plain = (torch.Tensor, list, dict, tuple)
    return tuple(copy.deepcopy(value) if isinstance(value, plain) else value for value in case)


def names_in(code: CodeType | None) -> Iterator[str]:
    """Yield the names that a function uses: globals, attributes and keywords of its calls."""
    if code is not None:
        yield from code.co_names
        for constant in code.co_consts:
            if isinstance(constant, CodeType):
                yield from names_in(constant)
            elif isinstance(constant, tuple):  # the keywords of a call
                yield from (name for name in constant if isinstance(name, str))


def as_number(value: Any) -> float | None:
    """Return a float, an int or a tensor of one entry as a float; ``None`` for anything else."""
    if isinstance(value, torch.Tensor):
        return float(value.detach()) if value.numel() == 1 else None
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def same(one: Any, other: Any) -> bool:
    """Return whether two answers are equal: floats to four decimals, tensors in shape and dtype."""
    tensors = isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor)
    if tensors and (one.dim() or other.dim()):
        if one.shape != other.shape or one.is_floating_point() != other.is_floating_point():
            return False
        if not one.is_floating_point():
            return one.dtype == other.dtype and torch.equal(one, other)
        return torch.allclose(one.detach().double(), other.detach().double(), atol=1e-4)
    a, b = as_number(one), as_number(other)
    if a is not None and b is not None:
        return a == b or math.isclose(a, b, abs_tol=1e-4) or (math.isnan(a) and math.isnan(b))
    if type(one) is not type(other):
        return False
    if isinstance(one, tuple | list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    return bool(one == other)


def paired(found: Any, right: Any, names: tuple[str, ...]) -> list[tuple[str, Any, Any]]:
    """Return (name, found, right) for each returned value; say so if their number is wrong."""
    if isinstance(right, tuple):
        if not isinstance(found, tuple) or len(found) != len(right):
            told = translated("Your function returns {}. It should return {} values: `return {}`.")
            raise WrongAnswer(told.format(described(found), len(right), ", ".join(names)))
        return list(zip(names, found, right, strict=True))
    if isinstance(right, dict) and isinstance(found, dict):
        for told, keys in (
            (translated("Your dictionary has {}: `{}` is missing."), right.keys() - found.keys()),
            (translated("Your dictionary has {}: `{}` should not be there."),
             found.keys() - right.keys()),
        ):  # fmt: skip
            if keys:
                raise WrongAnswer(told.format(sorted(found), min(keys)))
        return [(key, found[key], right[key]) for key in right]
    return [(*names, found, right)]


def require_like(found: Any, right: Any, names: tuple[str, ...], hint: str) -> None:
    """Say which of type, shape and dtype of an answer isn't that of the right one."""
    for name, one, other in paired(found, right, names):
        if as_number(other) is not None:
            if as_number(one) is None:
                told = translated("Your function returns {}. Return one number.")
                raise WrongAnswer(told.format(described(one)))
        elif not isinstance(other, torch.Tensor):
            if type(one) is not type(other):
                told = translated("Your function returns {}. It should return a {}.")
                raise WrongAnswer(told.format(described(one), type(other).__name__))
        elif not isinstance(one, torch.Tensor):
            told = translated("Your {} is a {}, not a tensor. Return a tensor of shape {}.")
            kind = type(one).__name__
            raise WrongAnswer(told.format(translated(name), kind, tuple(other.shape)))
        elif one.shape != other.shape:
            told = translated("Your {} has shape {}, not {}. {}")
            shapes = tuple(one.shape), tuple(other.shape)
            raise WrongAnswer(told.format(translated(name), *shapes, translated(hint)).rstrip())
        elif one.dtype != other.dtype:
            told = translated("Your {} has dtype {}, not {}.")
            raise WrongAnswer(told.format(translated(name), one.dtype, other.dtype))


def described(value: object) -> str:
    """Say in two words what a value is."""
    if isinstance(value, torch.Tensor):
        return translated("a tensor of shape {}").format(tuple(value.shape))
    if isinstance(value, tuple):
        return translated("a tuple of {}").format(len(value))
    return translated("a {}").format(type(value).__name__)


def first_difference(found: Any, right: Any, names: tuple[str, ...]) -> str:
    """Say where an answer is another one than the right one, and what should stand there."""
    name, one, other = next(
        part for part in paired(found, right, names) if not same(part[1], part[2])
    )
    if (number := as_number(other)) is not None:
        told = translated("Your function returns {:.4f}, and it should return {:.4f}.")
        return told.format(as_number(one), number)
    if not isinstance(other, torch.Tensor):
        told = translated("Your function returns {!r}, and it should return {!r}.")
        return told.format(one, other)
    differ = ~torch.isclose(one.double(), other.double(), atol=1e-4)
    where = tuple(differ.nonzero()[0].tolist())
    places = (
        translated("position {}"),
        translated("row {}, position {}"),
        translated("row {}, position {}, entry {}"),
    )
    place = places[len(where) - 1].format(*where)
    is_, should_be = (
        f"{t[where].item():.4f}" if t.is_floating_point() else f"{t[where].item()}"
        for t in (one, other)
    )
    told = translated("Your {} at {} holds {}, and it should be {}.")
    return told.format(translated(name), place, is_, should_be)
