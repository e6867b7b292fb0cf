"""Find what is wrong with a batch for masked language modeling, and say how to repair it.

:func:`diagnose` runs a table of small checks over a batch. What a check is stands in
``rules.py``, the checks themselves in ``possible.py`` (can it be read, is each value
possible) and ``likely.py`` (which positions are labelled, is that likely), and those of a
Trainer in ``trainer.py``. A check of your own is a function with a decorator; see
:func:`rule`.
"""

import logging
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from mlmtutor.doctor import likely  # noqa: F401  fills the table, after possible
from mlmtutor.doctor.facts import Case
from mlmtutor.doctor.rules import (
    ALPHA,
    RULES,
    TRAINER_RULES,
    Diagnosis,
    Finding,
    Problem,
    Rule,
    rule,
    run_rules,
)
from mlmtutor.doctor.trainer import TrainerCase

__all__ = [
    "ALPHA",
    "RULES",
    "TRAINER_RULES",
    "Case",
    "CheckedCollator",
    "Diagnosis",
    "Finding",
    "Problem",
    "Rule",
    "diagnose",
    "diagnose_trainer",
    "rule",
]

logger = logging.getLogger(__name__)


def diagnose(
    batch: Any, tokenizer: Any = None, model: Any = None, *, whole_word: bool = False
) -> Diagnosis:
    """Find what is wrong with a batch for masked language modeling.

    Never raises on a bad batch, never changes it, runs no model and draws no random number.

    The statistical checks (selection rate, replacement shares, special tokens among the random
    ones, equal masks) use exact binomial probabilities at a level of ``ALPHA`` each, so a small
    batch raises none of them, and at most 9 in 10,000 healthy batches raise any, if each
    token is drawn by itself. Whole words and spans are drawn together, and warn more often.

    Args:
        batch: what a collator returns: a mapping of tensors, arrays or lists, with ``input_ids``
            and ``labels`` of shape (rows, columns). Or a list of such batches; then also whether
            a mask comes again.
        tokenizer: the tokenizer that made the ids. Without it nothing is known about [MASK],
            padding and special tokens, and the result says so.
        model: the model that the batch is for; its vocabulary and its positions are compared.
        whole_word: whether whole words are meant to be masked.

    Returns:
        A :class:`Diagnosis`.

    Example:
        The label of the masked position is ``[MASK]`` itself.

        >>> import torch
        >>> from mlmtutor import load_tutor
        >>> _, tokenizer = load_tutor()
        >>> ids = tokenizer("I want to [MASK] the world.", return_tensors="pt")["input_ids"]
        >>> labels = torch.where(ids == tokenizer.mask_token_id, ids, -100)
        >>> diagnosis = diagnose({"input_ids": ids, "labels": labels}, tokenizer)
        >>> diagnosis.codes
        ('label-is-mask',)
        >>> diagnosis.findings[0].positions
        ((0, 4),)

    Source: each check names its thread; all of them are in ``docs/doctor.md``.
    """
    batches = list(batch) if isinstance(batch, list | tuple) and batch else [batch]
    cases: list[Case] = []
    merged: dict[str, Finding] = {}
    unchecked: dict[tuple[str, str], None] = {}
    for number, one in enumerate(batches):
        cases.append(Case(one, tokenizer, model, whole_word, cases[:]))
        result = run_rules(RULES, cases[-1])
        unchecked |= dict.fromkeys(result.unchecked)
        for finding in result.findings:
            first = merged.setdefault(finding.code, _for_tensors(finding, cases[-1]))
            where = (*first.batches, number) if len(batches) > 1 else ()
            merged[finding.code] = replace(first, batches=where)
    findings = [
        replace(
            finding,
            message=f"{finding.message} In {len(finding.batches)} of {len(batches)} "
            f"batches; these positions are of batch {finding.batches[0]}.",
        )
        if finding.batches
        else finding
        for finding in merged.values()
    ]
    return Diagnosis(tuple(findings), tuple(unchecked))


def _for_tensors(finding: Finding, case: Case) -> Finding:
    """The finding, with a fix that first makes tensors where it computes with arrays or lists."""
    keys = [key for key in ("input_ids", "attention_mask", case.label_key) if key is not None]
    keys = [key for key in keys if case.raw(key) is not None]
    if not re.search(r"= .*batch\[", finding.fix) or all(
        isinstance(case.raw(key), torch.Tensor) for key in keys
    ):
        return finding
    code = f"batch.update({{key: torch.as_tensor(batch[key]) for key in {keys}}})"
    return replace(finding, fix=f"make tensors, `{code}`, then: {finding.fix}")


class CheckedCollator:
    """A collator that looks at its first batches before it hands them out.

    Errors are raised, warnings are logged once (logger ``mlmtutor.doctor``). Later batches pass
    through untouched and cost nothing.

    Args:
        collator: any function from a list of examples to a batch.
        tokenizer: the tokenizer that made the ids.
        batches: how many batches are diagnosed; in each worker process of a data loader.

    Raises:
        TypeError: ``collator`` cannot be called.
        ValueError: ``batches`` is not a positive whole number; or, when called, a batch has an
            error.

    Example:
        >>> from mlmtutor import load_tutor
        >>> _, tokenizer = load_tutor()
        >>> def careless(texts):
        ...     batch = tokenizer(texts, return_tensors="pt")
        ...     return {**batch, "labels": batch["input_ids"]}
        >>> CheckedCollator(careless, tokenizer)(["I want to change the world."])
        Traceback (most recent call last):
        ...
        ValueError: This batch cannot be trained on:
        error everything-labelled: ...
    """

    def __init__(self, collator: Callable[..., Any], tokenizer: Any, batches: int = 2) -> None:
        if not callable(collator):
            raise TypeError(
                f"collator must be callable, but is a {type(collator).__name__}: pass the collator "
                "itself, not the batch that it makes."
            )
        if isinstance(batches, bool) or not isinstance(batches, int) or batches < 1:
            raise ValueError(f"batches must be a whole number of at least 1, but is {batches!r}.")
        self.collator = collator
        self.tokenizer = tokenizer
        self.batches = batches
        self._seen: list[Any] = []
        self._logged: set[str] = set()
        self._left = batches

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Return the batch of the wrapped collator."""
        batch = self.collator(*args, **kwargs)
        if self._left:
            self._left -= 1
            self._seen.append(batch)
            diagnosis = diagnose(self._seen if len(self._seen) > 1 else batch, self.tokenizer)
            diagnosis.raise_for_errors()
            for finding in diagnosis.findings:
                if finding.severity == "warning" and finding.code not in self._logged:
                    self._logged.add(finding.code)
                    logger.warning("%s", finding)
            if not self._left:
                self._seen.clear()
        return batch


def diagnose_trainer(trainer: Any) -> Diagnosis:
    """Find what a ``transformers.Trainer`` would do wrong with masked language modeling.

    Runs one tiny forward where gradients are accumulated, and draws the first evaluation batch
    twice. The model, its mode and all random states are left as they were. The training batches
    are the business of :class:`CheckedCollator`.

    Args:
        trainer: a trainer before ``trainer.train()``.

    Returns:
        A :class:`Diagnosis` with the codes ``accumulation-inflated``, ``column-dropped``,
        ``labels-overwritten``, ``eval-unmasked``, ``eval-mask-changes``.

    Raises:
        TypeError: ``trainer`` is not a trainer.

    Source: transformers#47688, transformers#26357, transformers PR #1633, PR #36357.
    """
    if not all(hasattr(trainer, name) for name in ("args", "model", "compute_loss")):
        raise TypeError(
            f"trainer must be a transformers.Trainer, but is a {type(trainer).__name__}: for a "
            "batch, use diagnose(batch)."
        )
    return run_rules(TRAINER_RULES, TrainerCase(trainer))
