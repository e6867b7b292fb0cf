"""What a rule is, what it returns, and the tables in which all rules stand.

A rule is a small function that looks for one thing. mlmtutor's own run in the order of
``rules.toml``, and yours after them. A mistake is often visible in many ways, so a rule names the
findings that would explain what it sees (``unless``) and is silent after one of them: one mistake
gives one finding, at its cause.
"""

import html
import importlib.resources
import math
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any, NamedTuple

import torch

from mlmtutor._html import COLOURS

ALPHA = 1e-4
"""The level of each statistical test: the share of healthy batches on which it may be wrong."""

REMASK = '`batch["input_ids"], batch["labels"] = mask_tokens(original, tokenizer)`'


@dataclass(frozen=True, repr=False)
class Finding:
    """One thing that is wrong with a batch.

    Attributes:
        code: the stable name of the finding, such as ``label-is-mask``.
        severity: ``error`` (the loss is wrong, or the model crashes), ``warning`` (probably not
            what was meant) or ``info``.
        message: what was found, how many times, and where.
        fix: what to write instead. Code in backticks was run on a copy of the batch first, and the
            finding was gone. It runs where ``batch`` is the batch, ``original`` its ids before
            masking, ``texts`` and ``word_ids`` those of your tokenizing, and the other names what
            they say. Where no code cures it, the fix is said in words.
        positions: the (row, column) of each, in reading order.
        batches: which batches have it, where a list of batches was diagnosed.
    """

    code: str
    severity: str
    message: str
    fix: str
    positions: tuple[tuple[int, int], ...] = ()
    batches: tuple[int, ...] = ()

    def __str__(self) -> str:
        """Return the finding as two lines of text."""
        return f"{self.severity} {self.code}: {self.message}\n    fix: {self.fix}"

    __repr__ = __str__


@dataclass(frozen=True, repr=False)
class Diagnosis:
    """What :func:`diagnose` returns: text in a terminal, a table in a notebook.

    Attributes:
        findings: what was found, in the order of the table of rules.
        unchecked: pairs of a code and the reason why it could not be checked.
        failed: the codes among them that were asked for: the tokenizer or model for them was
            given, or the rule began and could not end.
    """

    findings: tuple[Finding, ...] = ()
    unchecked: tuple[tuple[str, str], ...] = ()
    failed: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether there is no error and no warning, and all that was asked for was checked."""
        return not self.failed and not self._loud

    @property
    def _loud(self) -> list[Finding]:
        return [finding for finding in self.findings if finding.severity != "info"]

    @property
    def codes(self) -> tuple[str, ...]:
        """The codes of the findings."""
        return tuple(finding.code for finding in self.findings)

    def raise_for_errors(self) -> None:
        """Raise a ``ValueError`` that holds the errors, if there are any."""
        errors = [str(finding) for finding in self.findings if finding.severity == "error"]
        if errors:
            raise ValueError("This batch cannot be trained on:\n" + "\n".join(errors))

    def _verdict(self) -> str:
        if self._loud:
            return counted(len(self._loud), "finding", "findings")
        if self.failed:
            return "Not everything that was asked for could be checked."
        return "No error and no warning."

    def _not_checked(self) -> list[str]:
        reasons: dict[str, list[str]] = {}
        for code, reason in self.unchecked:
            reasons.setdefault(reason, []).append(code)
        return [
            f"not checked, {reason}: {', '.join(codes[:5])}"
            + (f" and {len(codes) - 5} more" if len(codes) > 5 else "")
            for reason, codes in reasons.items()
        ]

    def __str__(self) -> str:
        """Return all findings as text, then what could not be checked."""
        verdict = [] if self._loud else [self._verdict()]
        return "\n".join([*map(str, self.findings), *verdict, *self._not_checked()])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        """Return a table with inline styles only, which an untrusted notebook keeps."""
        colours = {  # background and text: a dark theme must not choose one of them
            "error": ("✗", f"background:{COLOURS['wrong']};color:#000;"),
            "warning": ("!", f"background:{COLOURS['replaced']};color:#000;"),
            "info": ("i", f"background:{COLOURS['scored']};color:#fff;"),
        }
        cell = "text-align:left;vertical-align:top;padding:3px 8px;white-space:normal;"
        cell += "overflow-wrap:break-word;"
        table = "".join(
            f'<th scope="col" style="{cell}">{name}</th>' for name in ("code", "found", "fix")
        )
        table = f"<thead><tr>{table}</tr></thead>" if self.findings else ""
        for finding in self.findings:
            sign, colour = colours[finding.severity]
            table += (
                f'<tr><th scope="row" style="{cell}{colour}">{sign} {finding.severity}<br>'
                f'{html.escape(finding.code)}</th><td style="{cell}">{_code(finding.message)}</td>'
                f'<td style="{cell}">{_code(finding.fix)}</td></tr>'
            )
        verdict = self._verdict()
        if self.ok:
            verdict = "✓ " + verdict[0].lower() + verdict[1:-1]
        notes = "".join(f"<li>{html.escape(line)}</li>" for line in self._not_checked())
        if notes:
            opened = " open" if self.failed else ""
            notes = (
                f'<details{opened} style="margin:6px 0;opacity:.72;"><summary>not checked: '
                f"{len(self.unchecked)}</summary><ul>{notes}</ul></details>"
            )
        return (
            '<div style="overflow-x:auto;"><table style="border-collapse:collapse;">'
            f'<caption style="text-align:left;font-weight:bold;">Diagnosis: {verdict}</caption>'
            f"{table}</table>{notes}</div>"
        )


def _code(text: str) -> str:
    """Text as HTML, with what stands in backticks as code."""
    parts = html.escape(text).split("`")
    return "".join(
        f'<code style="white-space:pre-wrap;">{part}</code>' if number % 2 else part
        for number, part in enumerate(parts)
    )


class Problem(NamedTuple):
    """What a rule returns; the table adds the code, and the positions of ``where``.

    Attributes:
        message: what was found.
        fix: what to write instead; left out where the row of the rule says it.
        where: bool (rows, columns): the positions that the finding names.
        severity: where it differs from that of the rule.
    """

    message: str
    fix: str = ""
    where: torch.Tensor | None = None
    severity: str | None = None


Function = Callable[[Any], Problem | str | None]


@dataclass(frozen=True)
class Rule:
    """A row of the table."""

    code: str
    severity: str
    needs: tuple[str, ...]
    unless: tuple[str, ...]
    function: Function
    what: str = ""
    symptom: str = ""
    source: str = ""
    fix: str = ""


RULES: dict[str, Rule] = {}
TRAINER_RULES: dict[str, Rule] = {}


def rule(
    code: str,
    severity: str,
    *,
    needs: Iterable[str] = (),
    unless: Iterable[str] = (),
    table: dict[str, Rule] = RULES,
) -> Callable[[Function], Function]:
    """Register a rule: from now on :func:`diagnose` runs it after all others.

    The function gets a :class:`Case` and returns ``None`` (healthy), a :class:`Problem`, or a
    text: why it could not be checked. ``del RULES[code]`` takes it out again.

    Args:
        code: the name of the finding. A code that you registered before is replaced, so that a
            cell can be run again.
        severity: ``error``, ``warning`` or ``info``.
        needs: attributes of :class:`Case` without which there is nothing to check, such as
            ``labels`` or ``tokenizer``.
        unless: codes of findings that explain what this rule would see. It is silent after them.
        table: ``RULES`` for batches, ``TRAINER_RULES`` for :func:`diagnose_trainer`.

    Returns:
        A decorator that returns the function unchanged.

    Raises:
        TypeError: ``needs`` or ``unless`` is not a list of texts.
        ValueError: the severity is unknown, or the code is one of mlmtutor's own.

    Example:
        >>> from mlmtutor.doctor import diagnose
        >>> @rule("too-few", "info", needs=("labels",))
        ... def too_few(case):
        ...     if case.scored.sum() < 3:
        ...         return Problem("fewer than 3 labels", "use longer texts", case.scored)
        >>> labels = torch.tensor([[-100, 7]])
        >>> diagnose({"input_ids": torch.tensor([[2, 3]]), "labels": labels}).codes
        ('too-few',)
        >>> del RULES["too-few"]
    """
    if severity not in ("error", "warning", "info"):
        raise ValueError(f"severity must be error, warning or info, but is {severity!r}.")
    for name, words in (("needs", needs), ("unless", unless)):
        if not isinstance(words, list | tuple) or not all(isinstance(w, str) for w in words):
            raise TypeError(f"{name} must be a list or tuple of str, but is {words!r}.")

    def register(function: Function) -> Function:
        if code in table and is_own(table[code]):
            raise ValueError(f"code must be new, but {code!r} is mlmtutor's own: choose another.")
        table[code] = Rule(code, severity, tuple(needs), tuple(unless), function)
        return function

    return register


def own_rules(part: str, *modules: ModuleType) -> dict[str, Rule]:
    """The rules of one part of ``rules.toml``, each with the function of its name."""
    text = importlib.resources.files("mlmtutor.doctor").joinpath("rules.toml").read_text("utf-8")
    toml = tomllib.loads(text)
    functions = {name: value for module in modules for name, value in vars(module).items()}
    rules = {}
    for code, row in toml[part].items():
        names = (toml["groups"].get(name, [name]) for name in row.pop("unless", ()))
        row["unless"] = tuple(code for group in names for code in group)
        row["needs"] = tuple(row.pop("needs", ()))
        rules[code] = Rule(code, function=functions[code.replace("-", "_")], **row)
    return rules


def is_own(item: Rule) -> bool:
    """Whether a rule is one of mlmtutor's own."""
    return item.function.__module__.startswith("mlmtutor.")


def run_rules(table: Mapping[str, Rule], case: Any) -> Diagnosis:
    """Run the rules of a table in order."""
    findings: dict[str, Finding] = {}
    unchecked, failed = [], []
    for item in list(table.values()):
        if any(code in findings for code in item.unless):
            continue
        try:
            missing = next((need for need in item.needs if getattr(case, need) is None), None)
            problem = item.function(case) if missing is None else case.why_not(missing)
            asked = missing is None or (missing == "mask_id" and case.tokenizer is not None)
        except Exception as error:  # a batch may hold anything, and a rule may be a reader's
            problem, asked = f"the rule failed with {type(error).__name__}: {error}", True
        if isinstance(problem, str):
            unchecked.append((item.code, problem))
            failed += [item.code] * asked
        elif problem is not None:
            positions = [] if problem.where is None else problem.where.nonzero().tolist()
            message = problem.message
            if positions:
                places = ", ".join(f"({row}, {column})" for row, column in positions[:3])
                more = f" and {len(positions) - 3} more" if len(positions) > 3 else ""
                message += f"; at (row, column) {places}{more}"
            findings[item.code] = Finding(
                item.code,
                problem.severity or item.severity,
                message + "." * (not message.endswith("?")),
                (problem.fix or item.fix) + ".",
                tuple((row, column) for row, column in positions),
            )
    return Diagnosis(tuple(findings.values()), tuple(unchecked), tuple(failed))


def at_least(count: int, trials: int, rate: float) -> float:
    """P(X >= count) for X ~ Binomial(trials, rate), summed exactly in float64."""
    if count <= 0:
        return 1.0
    if not 0 < rate < 1:
        return float(rate >= 1 and count <= trials)
    k = torch.arange(count, trials + 1, dtype=torch.float64)
    n = torch.tensor(float(trials), dtype=torch.float64)
    ways = torch.lgamma(n + 1) - torch.lgamma(k + 1) - torch.lgamma(n - k + 1)
    return float((ways + k * math.log(rate) + (n - k) * math.log1p(-rate)).exp().sum())


def at_most(count: int, trials: int, rate: float) -> float:
    """P(X <= count) for X ~ Binomial(trials, rate)."""
    return at_least(trials - count, trials, 1 - rate)


def too_many(count: int, trials: int, rate: float) -> bool:
    """Whether so many are not chance at this rate."""
    return count > trials * rate and at_least(count, trials, rate) <= ALPHA


def too_few(count: int, trials: int, rate: float) -> bool:
    """Whether so few are not chance at this rate."""
    return count < trials * rate and at_most(count, trials, rate) <= ALPHA


def count_of(where: torch.Tensor) -> int:
    """How many are True."""
    return int(where.sum())


def counted(count: int | torch.Tensor, one: str, many: str) -> str:
    """The number with its noun: ``1 label is`` or ``3 labels are``."""
    count = int(count.sum()) if isinstance(count, torch.Tensor) else count
    return f"{count} {one if count == 1 else many}"


def set_labels(expression: str) -> str:
    """The fix that assigns an expression to the labels."""
    return f'`batch["labels"] = {expression}`'


def answers(where: str, elsewhere: str = "-100") -> str:
    """The fix that makes the original ids the labels at some places."""
    return set_labels(f"torch.where({where}, original, {elsewhere})")


def ignore(where: str) -> str:
    """The fix that leaves some labels out."""
    return set_labels(f'torch.where({where}, -100, batch["labels"])')
