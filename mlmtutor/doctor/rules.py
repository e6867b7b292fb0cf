"""What a check is, what it returns, and the table in which all checks stand.

A check is a small function that looks for one thing. The table runs them in the order in which
they were registered. A mistake is often visible in many ways, so a check names the findings that
would explain what it sees (``unless``) and is silent after one of them: one mistake gives one
finding, at its cause.
"""

import html
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

ALPHA = 1e-4
"""The level of each statistical test: the share of healthy batches on which it may be wrong. One
batch meets nine of them, so at most 9 in 10,000 healthy batches raise an alarm (Bonferroni), if
each token is drawn by itself."""

REMASK = '`batch["input_ids"], batch["labels"] = mask_tokens(original, tokenizer)`'


@dataclass(frozen=True, repr=False)
class Finding:
    """One thing that is wrong with a batch.

    Attributes:
        code: the stable name of the finding, such as ``label-is-mask``.
        severity: ``error`` (the loss is wrong, or the model crashes), ``warning`` (probably not
            what was meant) or ``info``.
        message: what was found, how many times, and where.
        fix: what to write instead. Code in backticks runs where ``batch`` is the batch,
            ``original`` its ids before masking, ``rows`` what the collator got, and ``collator``,
            ``tokenizer``, ``model``, ``torch``, ``mask_tokens`` what their names say.
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
        findings: what was found, in the order of the table of checks.
        unchecked: pairs of a code and the reason why it could not be checked.
    """

    findings: tuple[Finding, ...] = ()
    unchecked: tuple[tuple[str, str], ...] = ()

    @property
    def ok(self) -> bool:
        """Whether there is no error and no warning."""
        return all(finding.severity == "info" for finding in self.findings)

    @property
    def codes(self) -> tuple[str, ...]:
        """The codes of the findings."""
        return tuple(finding.code for finding in self.findings)

    def raise_for_errors(self) -> None:
        """Raise a ``ValueError`` that holds the errors, if there are any."""
        errors = [str(finding) for finding in self.findings if finding.severity == "error"]
        if errors:
            raise ValueError("This batch cannot be trained on:\n" + "\n".join(errors))

    def _not_checked(self) -> list[str]:
        reasons: dict[str, list[str]] = {}
        for code, reason in self.unchecked:
            reasons.setdefault(reason, []).append(code)
        return [f"not checked, {reason}: {', '.join(codes)}" for reason, codes in reasons.items()]

    def __str__(self) -> str:
        """Return all findings as text, then what could not be checked."""
        verdict = ["No error and no warning."] if self.ok else []
        return "\n".join([*map(str, self.findings), *verdict, *self._not_checked()])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        """Return a table with inline styles only, which an untrusted notebook keeps."""
        colours = {  # background and text: a dark theme must not choose one of them
            "error": ("✗", "background:#D55E00;color:#000;"),
            "warning": ("!", "background:#E69F00;color:#000;"),
            "info": ("i", "background:#6B7280;color:#fff;"),
        }
        cell = "padding:3px 7px;text-align:left;vertical-align:top;border:0;"
        rows = []
        for finding in self.findings:
            sign, colour = colours[finding.severity]
            rows.append(
                f'<tr style="background:transparent;"><th scope="row" style="{cell}{colour}'
                f'white-space:nowrap;">{sign} {finding.severity}</th>'
                + "".join(
                    f'<td style="{cell}">{html.escape(text)}</td>'
                    for text in (finding.code, finding.message, finding.fix)
                )
                + "</tr>"
            )
        verdict = "✓ no error and no warning" if self.ok else f"{len(self.findings)} found"
        head = "".join(
            f'<th scope="col" style="{cell}">{title}</th>'
            for title in ("severity", "code", "what was found", "what to write instead")
        )
        notes = "".join(
            f'<p style="margin:6px 0;opacity:.72;">{html.escape(line)}</p>'
            for line in self._not_checked()
        )
        table = f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody>" if rows else ""
        return (
            '<div style="overflow-x:auto;"><table style="border-collapse:collapse;">'
            f'<caption style="text-align:left;font-weight:bold;">Diagnosis: {verdict}</caption>'
            f"{table}</table>{notes}</div>"
        )


class Problem(NamedTuple):
    """What a check returns; the table adds the code, and the positions of ``where``."""

    message: str
    fix: str
    where: torch.Tensor | None = None  # bool (rows, columns)
    severity: str | None = None  # where it differs from that of the check


@dataclass(frozen=True)
class Rule:
    """A row of the table."""

    code: str
    severity: str
    needs: tuple[str, ...]
    unless: tuple[str, ...]
    function: Callable[[Any], Problem | str | None]


RULES: dict[str, Rule] = {}
TRAINER_RULES: dict[str, Rule] = {}


def rule(
    code: str,
    severity: str,
    *,
    needs: Iterable[str] = (),
    unless: Iterable[str] = (),
    table: dict[str, Rule] = RULES,
) -> Callable[[Callable[[Any], Problem | str | None]], Callable[[Any], Problem | str | None]]:
    """Register a check: from now on :func:`diagnose` runs it after all others.

    The function gets a :class:`Case` and returns ``None`` (healthy), a :class:`Problem`, or a
    text: why it could not be checked. ``del RULES[code]`` takes it out again.

    Args:
        code: the name of the finding. A code that you registered before is replaced, so that a
            cell can be run again.
        severity: ``error``, ``warning`` or ``info``.
        needs: attributes of :class:`Case` without which there is nothing to check, such as
            ``labels`` or ``tokenizer``.
        unless: codes of findings that explain what this check would see. It is silent after them.
        table: ``RULES`` for batches, ``TRAINER_RULES`` for :func:`diagnose_trainer`.

    Returns:
        A decorator that returns the function unchanged.

    Raises:
        TypeError: the code is no text, or ``needs`` or ``unless`` is no list of texts.
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
    if not isinstance(severity, str) or severity not in ("error", "warning", "info"):
        raise ValueError(f"severity must be error, warning or info, but is {severity!r}.")
    if not isinstance(code, str):
        raise TypeError(f"code must be a str, but is a {type(code).__name__}.")
    for name, words in (("needs", needs), ("unless", unless)):
        if not isinstance(words, list | tuple) or not all(isinstance(w, str) for w in words):
            raise TypeError(f"{name} must be a list or tuple of str, but is {words!r}.")

    def register(
        function: Callable[[Any], Problem | str | None],
    ) -> Callable[[Any], Problem | str | None]:
        if code in table and table[code].function.__module__.startswith("mlmtutor."):
            raise ValueError(f"code must be new, but {code!r} is mlmtutor's own: choose another.")
        table[code] = Rule(code, severity, tuple(needs), tuple(unless), function)
        return function

    return register


def run_rules(table: Mapping[str, Rule], case: Any) -> Diagnosis:
    """Run the checks of a table in order."""
    findings: dict[str, Finding] = {}
    unchecked = []
    for item in list(table.values()):
        if any(code in findings for code in item.unless):
            continue
        try:
            missing = next((need for need in item.needs if getattr(case, need) is None), None)
            problem = item.function(case) if missing is None else case.why_not(missing)
        except Exception as error:  # a batch may hold anything, and a check may be a reader's
            problem = f"the check failed with {type(error).__name__}: {error}"
        if isinstance(problem, str):
            unchecked.append((item.code, problem))
        elif problem is not None:
            positions = [] if problem.where is None else problem.where.nonzero().tolist()
            places = ", ".join(f"({row}, {column})" for row, column in positions[:3])
            more = f" and {len(positions) - 3} more" if len(positions) > 3 else ""
            message = problem.message + (f"; at (row, column) {places}{more}" if places else "")
            findings[item.code] = Finding(
                item.code,
                problem.severity or item.severity,
                message if message.endswith("?") else message + ".",
                problem.fix + ".",
                tuple((row, column) for row, column in positions),
            )
    return Diagnosis(tuple(findings.values()), tuple(unchecked))


def at_least(count: int, trials: int, rate: float) -> float:
    """P(X >= count) for X ~ Binomial(trials, rate), summed exactly in float64."""
    if count <= 0:
        return 1.0
    k = torch.arange(count, trials + 1, dtype=torch.float64)
    n = torch.tensor(float(trials), dtype=torch.float64)
    ways = torch.lgamma(n + 1) - torch.lgamma(k + 1) - torch.lgamma(n - k + 1)
    return float((ways + k * math.log(rate) + (n - k) * math.log1p(-rate)).exp().sum())


def at_most(count: int, trials: int, rate: float) -> float:
    """P(X <= count) for X ~ Binomial(trials, rate)."""
    return at_least(trials - count, trials, 1 - rate)


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
