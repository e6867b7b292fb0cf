"""Find what is wrong with a batch for masked language modeling, and say how to repair it.

:func:`diagnose` runs a table of small rules over a batch; what a rule is stands in ``rules.py``. A
rule of your own is a function with a decorator; see :func:`rule`.
"""

import contextlib
import copy
import logging
from collections.abc import Callable
from dataclasses import replace
from numbers import Integral
from typing import Any

from mlmtutor.doctor import likely, placed, possible, readable, trainer
from mlmtutor.doctor.facts import Case, Memory
from mlmtutor.doctor.fixes import proven
from mlmtutor.doctor.rules import (
    ALPHA,
    RULES,
    TRAINER_RULES,
    Diagnosis,
    Finding,
    Problem,
    Rule,
    own_rules,
    rule,
    run_rules,
)
from mlmtutor.doctor.trainer import look_at
from mlmtutor.masking import MaskingPolicy

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

RULES.update(own_rules("batches", readable, possible, placed, likely))
TRAINER_RULES.update(own_rules("trainers", trainer))


def diagnose(
    batch: Any,
    tokenizer: Any = None,
    model: Any = None,
    *,
    whole_word: bool = False,
    policy: MaskingPolicy | None = None,
) -> Diagnosis:
    """Find what is wrong with a batch for masked language modeling.

    Never raises on a bad batch, never changes it, runs no model and draws from no generator of
    yours. Each fix was run on a copy of the batch before it is printed as code.

    The statistical rules use exact binomial probabilities at a level of ``ALPHA`` each, so a small
    batch raises none of them. Rates and shares are tested against ``policy`` alone; without it
    they are told as an info, because masked diffusion, MaskGIT or RetroMAE have others on purpose.

    Args:
        batch: what a collator returns: a mapping of tensors, arrays or lists, with ``input_ids``
            and ``labels`` of shape (rows, columns), int64. Or a list of such batches; then also
            whether a mask comes again.
        tokenizer: the tokenizer that made the ids. Without it nothing is known about [MASK],
            padding and special tokens, and the result says so.
        model: the model that the batch is for; its class, vocabulary and positions are compared.
        whole_word: whether whole words are meant to be masked.
        policy: the recipe that the batch was made by.

    Returns:
        A :class:`Diagnosis`.

    Raises:
        TypeError: ``policy`` is not a :class:`MaskingPolicy`.

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

    Source: each rule names its thread; all of them are in ``docs/doctor.md``.
    """
    if policy is not None and not isinstance(policy, MaskingPolicy):
        raise TypeError(
            f"policy must be a MaskingPolicy, but is a {type(policy).__name__}: "
            "from a rate, use MaskingPolicy(select=0.15)."
        )
    whole_word = whole_word or (policy is not None and policy.whole_word)
    batches = list(batch) if isinstance(batch, list | tuple) and batch else [batch]
    several = len(batches) > 1
    earlier = Memory()
    first: list[tuple[Case, list[Finding]]] = []  # what a batch is the first to have
    where: dict[str, list[int]] = {}
    unchecked: dict[tuple[str, str], None] = {}
    failed: dict[str, None] = {}
    for number, one in enumerate(batches):
        case = Case(one, tokenizer, model, whole_word, policy, earlier if number else None)
        result = run_rules(RULES, case)
        unchecked |= dict.fromkeys(result.unchecked)
        failed |= dict.fromkeys(result.failed)
        if new := [finding for finding in result.findings if finding.code not in where]:
            first.append((case, new))
        for code in result.codes:
            where.setdefault(code, []).append(number)
        if several:
            with contextlib.suppress(Exception):  # what can't be read is not remembered
                earlier.add(case)
    places = None
    if several:  # which batches a fix goes through
        places = {
            code: "batch" if len(numbers) == len(batches) else f"[batch[n] for n in {numbers}]"
            for code, numbers in where.items()
        }
    findings = [finding for case, new in first for finding in proven(new, case, places)]
    if several:
        findings = [
            replace(
                finding,
                message=f"{finding.message} In {len(where[finding.code])} of {len(batches)} "
                f"batches; these positions are of batch {where[finding.code][0]}.",
                batches=tuple(where[finding.code]),
            )
            for finding in findings
        ]
    return Diagnosis(tuple(findings), tuple(unchecked), tuple(failed))


class CheckedCollator:
    """A collator that looks at its first batches before it hands them out.

    Errors are raised, warnings are logged once (logger ``mlmtutor.doctor``). Later batches pass
    through untouched and cost nothing. Rates and shares are tested where ``collator`` is that of
    transformers, which says its recipe, or where ``policy`` does.

    Args:
        collator: any function from a list of examples to a batch.
        tokenizer: the tokenizer that made the ids.
        batches: how many batches are diagnosed; in each worker process of a data loader.
        model: the model that the batches are for, as in :func:`diagnose`.
        policy: the recipe of the collator.

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

    Source: the rules of :func:`diagnose` name their threads.
    """

    def __init__(
        self,
        collator: Callable[..., Any],
        tokenizer: Any,
        batches: int = 2,
        *,
        model: Any = None,
        policy: MaskingPolicy | None = None,
    ) -> None:
        if not callable(collator):
            raise TypeError(
                f"collator must be callable, but is a {type(collator).__name__}: pass the collator "
                "itself, not the batch that it makes."
            )
        if isinstance(batches, bool) or not isinstance(batches, Integral) or batches < 1:
            raise ValueError(f"batches must be a whole number of at least 1, but is {batches!r}.")
        self.collator: Callable[..., Any] = collator
        self.tokenizer: Any = tokenizer
        self.batches: int = int(batches)
        self.model: Any = model
        self.policy: MaskingPolicy | None = (
            policy if policy is not None else likely.policy_of(collator)
        )
        self._seen: list[Any] = []
        self._logged: set[str] = set()
        self._left: int = self.batches

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Return the batch of the wrapped collator."""
        batch = self.collator(*args, **kwargs)
        if self._left:
            self._left -= 1
            self._seen.append(copy.copy(batch))
            seen = self._seen if len(self._seen) > 1 else batch
            diagnosis = diagnose(seen, self.tokenizer, self.model, policy=self.policy)
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

    Runs one tiny forward where gradients are accumulated, and draws the first batch of each
    evaluation set twice and one of the first training rows. The model, the trainer, its collator
    and all random states are left as they were; a stream, from which a row would be lost, is not
    drawn from. More training batches are looked at by :class:`CheckedCollator`.

    Args:
        trainer: a trainer before ``trainer.train()``.

    Returns:
        A :class:`Diagnosis`; its codes are those of ``TRAINER_RULES``.

    Raises:
        TypeError: ``trainer`` is not a trainer.

    Example:
        >>> import tempfile
        >>> from transformers import DataCollatorForLanguageModeling, Trainer, TrainingArguments
        >>> from mlmtutor import load_tutor
        >>> model, tokenizer = load_tutor()
        >>> arguments = TrainingArguments(tempfile.mkdtemp(), report_to=[], use_cpu=True)
        >>> rows = [tokenizer("The cat sat.")]
        >>> diagnose_trainer(Trainer(model, arguments, lambda rows: rows, rows)).codes
        ()

    Source: transformers#47688, transformers#26357, transformers PR #1633, PR #36357.
    """
    if not all(hasattr(trainer, name) for name in ("args", "model", "compute_loss")):
        raise TypeError(
            f"trainer must be a transformers.Trainer, but is a {type(trainer).__name__}: for a "
            "batch, use diagnose(batch)."
        )
    return look_at(trainer)
