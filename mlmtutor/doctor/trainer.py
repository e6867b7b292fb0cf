"""The table of checks for a ``transformers.Trainer``."""

import inspect
import random
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import numpy as np
import torch

from mlmtutor.doctor.facts import Case
from mlmtutor.doctor.rules import RULES, TRAINER_RULES, Problem, rule, run_rules


class TrainerCase:
    """A trainer as the checks see it.

    Attributes:
        trainer: what was given.
        eval_data: the evaluation set, or the first of several; ``None`` if there is none.
    """

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer
        self.tokenizer = getattr(trainer, "processing_class", None)
        sets = getattr(trainer, "eval_dataset", None)
        self.eval_data = next(iter(sets.values()), None) if isinstance(sets, dict) else sets

    def why_not(self, need: str) -> str | None:
        """Say why an attribute is ``None``."""
        return "the trainer has no eval_dataset" if need == "eval_data" else None

    @cached_property
    def eval_batches(self) -> list[Any]:
        """The first evaluation batch, twice, as two evaluations would draw it."""
        with _random_state_kept(self.trainer.data_collator):
            return [next(iter(self.trainer.get_eval_dataloader(self.eval_data))) for _ in "12"]


@contextmanager
def _random_state_kept(collator: Any) -> Iterator[None]:
    """Leave every generator that a collator may draw from as it was."""
    generator: Any = getattr(collator, "generator", None)
    state = generator.get_state() if isinstance(generator, torch.Generator) else None
    # A call can put another generator in its place; since 5.24 one that another process made, too.
    names = [name for name in ("generator", "_generator_pid") if hasattr(collator, name)]
    kept = {name: getattr(collator, name) for name in names}
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
        if state is not None:
            generator.set_state(state)
        for name, value in kept.items():
            if getattr(collator, name) is not value:  # it may be one that cannot be set
                setattr(collator, name, value)


@rule("accumulation-inflated", "error", table=TRAINER_RULES)
def _accumulation_inflated(case: TrainerCase) -> Problem | None:
    """Gradients are summed over the accumulation steps, and never divided by their number.

    Trainer takes ``**kwargs`` in ``forward`` for a promise that the model divides by
    ``num_items_in_batch``. Decided by a tiny forward: is the loss another one when it is given?

    Symptom: loss and gradient norm grow with ``gradient_accumulation_steps``.
    Source: transformers#47688, transformers#37766.
    """
    trainer = case.trainer
    steps = trainer.args.gradient_accumulation_steps
    if steps < 2:
        return None
    scaled = getattr(trainer, "loss_is_scaled_for_ga", None)
    if scaled is None:
        scaled = trainer.model_accepts_loss_kwargs or trainer.compute_loss_func is not None
    if not scaled:
        return None
    model = trainer.model
    ids = torch.tensor([[0, 1, 2, 3], [3, 2, 1, 0]], device=next(model.parameters()).device)
    ids = ids % model.get_input_embeddings().weight.shape[0]
    losses = []
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            for items in (ids.numel(), 2 * ids.numel()):
                batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids}
                number = torch.tensor(items, device=ids.device)
                losses.append(trainer.compute_loss(model, batch, num_items_in_batch=number))
    finally:
        model.train(training)
    if not torch.isclose(losses[0], losses[1]):
        return None  # it divides by the number, so twice the number gives half the loss
    return Problem(
        f"the loss of {type(model).__name__} ignores num_items_in_batch, but the trainer counts on "
        f"it: {steps} accumulation steps give a loss and a gradient {steps} times too large",
        "before the trainer is made, set `model.accepts_loss_kwargs = False`; for this one, "
        "`trainer.model_accepts_loss_kwargs = False`",
    )


@rule("column-dropped", "error", table=TRAINER_RULES)
def _column_dropped(case: TrainerCase) -> Problem | None:
    """The dataset has a column of labels whose name ``forward`` does not have.

    Symptom: "The model did not return a loss from the inputs".
    Source: transformers#26357; ``Trainer._remove_unused_columns``.
    """
    trainer = case.trainer
    if not trainer.args.remove_unused_columns:
        return None
    known = {*inspect.signature(trainer.model.forward).parameters, "label", "label_ids"}
    known |= set(getattr(trainer, "label_names", None) or ())
    columns = [name for name in _columns(trainer.train_dataset) if name not in known]
    lost = [name for name in columns if "label" in name.lower()]
    if not lost:
        return None
    return Problem(
        f"Trainer drops the columns {lost}: {type(trainer.model).__name__}.forward has no argument "
        "of that name",
        "rename the column to labels: `trainer.train_dataset = "
        f'[{{("labels" if key == "{lost[0]}" else key): value for key, value in row.items()}} '
        "for row in trainer.train_dataset]`",
    )


@rule("labels-overwritten", "warning", table=TRAINER_RULES)
def _labels_overwritten(case: TrainerCase) -> Problem | None:
    """The dataset has labels, and the collator makes its own.

    Symptom: whatever stands in the column ``labels``, the training is the same.
    Source: transformers#26357, PR #26438.
    """
    collator = case.trainer.data_collator
    if "labels" not in _columns(case.trainer.train_dataset) or not getattr(collator, "mlm", False):
        return None
    return Problem(
        f"{type(collator).__name__} overwrites the column labels with labels of its own",
        "for your labels, `trainer.data_collator = transformers.default_data_collator`; for those "
        "of the collator, leave the column out",
    )


@rule("eval-unmasked", "error", needs=("eval_data",), table=TRAINER_RULES)
def _eval_unmasked(case: TrainerCase) -> Problem | None:
    """The evaluation is done on text that is not masked.

    Symptom: an evaluation loss near 0, a perplexity of about 1.0.
    Source: transformers PR #1633.
    """
    findings = run_rules(RULES, Case(case.eval_batches[0], case.tokenizer)).findings
    copied = ("everything-labelled", "never-replaced", "labels-missing")
    found = [finding for finding in findings if finding.code in copied]
    if not found:
        return None
    return Problem(
        f"the first evaluation batch: {found[0].message.rstrip('.')}",
        "evaluate with the collator that masks: `trainer.data_collator = "
        "transformers.DataCollatorForLanguageModeling(tokenizer)`",
    )


@rule(
    "eval-mask-changes",
    "warning",
    needs=("eval_data",),
    unless=("eval-unmasked",),
    table=TRAINER_RULES,
)
def _eval_mask_changes(case: TrainerCase) -> Problem | None:
    """Each evaluation masks other positions of the same text.

    Symptom: the evaluation loss jumps between two evaluations of one model.
    Source: transformers PR #36357, HF course chapter 7.3.
    """
    first, second = (torch.as_tensor(batch["labels"]) for batch in case.eval_batches)
    if torch.equal(first, second):
        return None
    return Problem(
        "two draws of the first evaluation batch have different masks, so two evaluations of one "
        "model differ",
        "mask the evaluation set once: `mlm = trainer.data_collator`, "
        "`fixed = mlm(list(trainer.eval_dataset))`, `trainer.eval_dataset = "
        "[dict(zip(fixed, row)) for row in zip(*fixed.values())]`, `trainer.data_collator = "
        'lambda rows: (transformers.default_data_collator if "labels" in rows[0] else mlm)(rows)`',
    )


def _columns(dataset: Any) -> list[str]:
    """The column names of a dataset: of its table, or of its first example."""
    names = getattr(dataset, "column_names", None)
    if names is None:
        try:
            names = list(dataset[0])
        except Exception:  # streams have no first example that could be put back
            names = []
    return [str(name) for name in names]
