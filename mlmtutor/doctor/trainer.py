"""The table of rules for a ``transformers.Trainer``, which is left as it was."""
# ruff: noqa: D103  what each function looks for stands in rules.toml

import copy
import inspect
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from torch.utils.data import IterableDataset, Subset

from mlmtutor.doctor import readable
from mlmtutor.doctor.facts import OLD_NAMES, Case, unwrapped
from mlmtutor.doctor.fixes import CODE, in_words, quiet
from mlmtutor.doctor.rules import RULES, TRAINER_RULES, Diagnosis, Problem, is_own, run_rules

UNMASKED = ("everything-labelled", "never-replaced", "labels-missing")


class TrainerCase:
    """A trainer as the rules see it.

    Attributes:
        trainer: a copy that shares all parts, with the collator inside a ``CheckedCollator``.
        tokenizer: its ``processing_class``.
        model: its model, unwrapped.
        columns: the columns of the training set.
        eval_sets: the evaluation sets by name, ``""`` for a single one; ``None`` without any.
    """

    def __init__(self, trainer: Any) -> None:
        self.trainer = copy.copy(trainer)
        self.trainer.args = copy.copy(trainer.args)
        if hasattr(trainer, "_eval_dataloaders"):
            self.trainer._eval_dataloaders = dict(trainer._eval_dataloaders)
        collator: Any = getattr(trainer, "data_collator", None)
        while hasattr(collator, "_left") and hasattr(collator, "collator"):
            collator = collator.collator
        self.trainer.data_collator = collator
        self.tokenizer = getattr(trainer, "processing_class", None)
        self.model = unwrapped(trainer.model)
        self.columns = _columns(getattr(trainer, "train_dataset", None))
        sets = getattr(trainer, "eval_dataset", None)
        sets = sets if isinstance(sets, dict) else {"": sets}
        self.eval_sets = {name: rows for name, rows in sets.items() if rows is not None} or None

    def why_not(self, need: str) -> str | None:
        """Say why an attribute is ``None``."""
        return {
            "eval_sets": "the trainer has no eval_dataset",
            "train_batch": "the loss is your own, or the training rows can be read once only",
        }.get(need)

    @cached_property
    def train_batch(self) -> Any:
        """A batch of the first training rows; ``None`` where it may be meant for another loss."""
        trainer = copy.copy(self.trainer)
        rows: Any = getattr(trainer, "train_dataset", None)
        own = getattr(trainer, "compute_loss_func", None) is not None
        own = own or not type(trainer).compute_loss.__module__.startswith("transformers.")
        own = own or not type(self.model).__module__.startswith("transformers.models.")
        if own or _is_stream(rows) or not hasattr(rows, "__len__"):
            return None
        trainer.train_dataset = Subset(rows, range(min(trainer.args.train_batch_size, len(rows))))
        return next(iter(trainer.get_train_dataloader()))

    @cached_property
    def eval_batches(self) -> dict[str, list[Any]]:
        """The first batch of each evaluation set, twice, as two evaluations would draw it."""
        drawn = {}
        for name, rows in (self.eval_sets or {}).items():
            if _is_stream(rows):
                raise TypeError(f"{_named(name)} is a stream, and a look would take rows from it")
            try:
                drawn[name] = [next(iter(self.trainer.get_eval_dataloader(rows))) for _ in (1, 2)]
            except Exception as error:
                told = f"drawing a batch of {_named(name)} raised {type(error).__name__}: {error}"
                raise RuntimeError(told) from error
        return drawn


def look_at(trainer: Any) -> Diagnosis:
    """Run all rules, and then each fix on another copy."""
    with _all_left_as_it_was(trainer):
        result = run_rules(TRAINER_RULES, TrainerCase(trainer))
        findings = [
            finding
            if not is_own(TRAINER_RULES[finding.code]) or _cures(trainer, finding.code, finding.fix)
            else replace(finding, fix=in_words(finding.fix))
            for finding in result.findings
        ]
    return replace(result, findings=tuple(findings))


def _cures(trainer: Any, code: str, fix: str) -> bool:
    """Whether the finding is gone after the fix, on a copy with one batch of each set."""
    import transformers

    import mlmtutor

    case = TrainerCase(trainer)
    size = trainer.args.eval_batch_size
    names: dict[str, Any] = {"trainer": case.trainer, "model": case.model, "mlmtutor": mlmtutor}
    names |= {"torch": torch, "transformers": transformers, "tokenizer": case.tokenizer}
    try:
        few = {
            name: Subset(rows, range(min(size, len(rows))))
            for name, rows in (case.eval_sets or {}).items()
            if not _is_stream(rows)
        }
        case.trainer.eval_dataset = few.get("", few or None)
        for snippet in CODE.findall(fix):
            exec(snippet, names)  # the code is the package's own, and sets attributes of a copy
        after = run_rules(TRAINER_RULES, TrainerCase(case.trainer))
    except Exception:
        return False
    return code not in after.codes and code not in after.failed


@contextmanager
def _all_left_as_it_was(trainer: Any) -> Iterator[None]:
    """Put back every generator, every attribute of every module, and what accelerate keeps."""
    sets = getattr(trainer, "eval_dataset", None)
    owners = [getattr(trainer, "data_collator", None), getattr(trainer, "train_dataset", None)]
    owners += list(sets.values()) if isinstance(sets, dict) else [sets]
    undo: list[Callable[[], Any]] = [
        partial(random.setstate, random.getstate()),
        partial(np.random.set_state, np.random.get_state()),  # noqa: NPY002
    ]
    for owner in owners:
        _remember(owner, undo, 4)
    for module in trainer.model.modules():  # BigBird replaces its attention for a short row
        for holder in (vars(module), module._modules, module._parameters, module._buffers):
            undo.append(partial(_restore, holder, dict(holder)))
        if hasattr(module, "config"):
            undo.append(partial(_restore, vars(module.config), dict(vars(module.config))))
    loaders = getattr(getattr(trainer, "accelerator", None), "_dataloaders", None)
    if isinstance(loaders, list):
        undo.append(partial(loaders.__setitem__, slice(None), list(loaders)))
    try:
        with quiet():
            yield
    finally:
        for step in undo:
            step()


def _restore(holder: dict[str, Any], before: dict[str, Any]) -> None:
    if holder.keys() != before.keys() or any(holder[k] is not v for k, v in before.items()):
        holder.clear()
        holder.update(before)


def _remember(owner: Any, undo: list[Callable[[], Any]], depth: int) -> None:
    """Note how to put back the generators that an object holds, and what it holds them in."""
    if isinstance(owner, torch.Generator):  # noqa: SIM114  two types for mypy
        undo.append(partial(owner.set_state, owner.get_state()))
    elif isinstance(owner, np.random.RandomState):
        undo.append(partial(owner.set_state, owner.get_state()))
    elif isinstance(owner, np.random.Generator):
        bits = owner.bit_generator
        undo.append(partial(setattr, bits, "state", copy.deepcopy(bits.state)))
    elif isinstance(owner, random.Random):
        undo.append(partial(owner.setstate, owner.getstate()))
    elif depth and isinstance(owner, partial):
        for part in (owner.func, *owner.args, *owner.keywords.values()):
            _remember(part, undo, depth - 1)
    elif isinstance(owner, list | tuple | dict):
        if depth and len(owner) <= 16:  # a few generators, and not the rows of a dataset
            for part in owner.values() if isinstance(owner, dict) else owner:
                _remember(part, undo, depth - 1)
    elif depth and not isinstance(owner, type | torch.Tensor | torch.nn.Module):
        held = getattr(owner, "__dict__", None)
        if isinstance(held, dict):
            undo.append(partial(_restore, held, dict(held)))
        parts = [*(held or {}).values(), getattr(owner, "generator", None)]
        parts += [cell.cell_contents for cell in getattr(owner, "__closure__", None) or ()]
        for part in parts:
            _remember(part, undo, depth - 1)


def _is_stream(rows: Any) -> bool:
    """Whether rows can be read once only; those of ``datasets`` begin again each time."""
    by_number = hasattr(rows, "__getitem__") and not isinstance(rows, IterableDataset)
    return not by_number and not type(rows).__module__.startswith("datasets.")


def _named(name: str) -> str:
    return f"the evaluation set {name!r}" if name else "the evaluation set"


def _columns(dataset: Any) -> list[str]:
    """The column names of a dataset: of its table, or of its first example."""
    names = getattr(dataset, "column_names", None)
    if names is None and not _is_stream(dataset):
        try:
            names = list(dataset[0])
        except Exception:
            names = []
    return [str(name) for name in names or ()]


def model_class(case: TrainerCase) -> Problem | str | None:
    batch: dict[str, Any] = dict.fromkeys(case.columns, torch.zeros(1, 1).long())
    if getattr(case.trainer.data_collator, "mlm", False):
        batch["labels"] = torch.tensor([[-100]])
    if getattr(case.trainer, "compute_loss_func", None) is not None:
        return None  # a loss of one's own may take any logits
    return readable.model_class(Case(batch, case.tokenizer, case.model))


def accumulation_inflated(case: TrainerCase) -> Problem | None:
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
    ids = ids % case.model.get_input_embeddings().weight.shape[0]
    losses = []
    model.eval()  # each module gets its own mode back
    with torch.no_grad():
        for items in (ids.numel(), 2 * ids.numel()):
            batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids}
            number = torch.tensor(items, device=ids.device)
            losses.append(trainer.compute_loss(model, batch, num_items_in_batch=number))
    if not torch.isclose(losses[0], losses[1]):
        return None  # it divides by the number, so twice the number gives half the loss
    return Problem(
        f"the loss of {type(case.model).__name__} ignores num_items_in_batch, but the trainer "
        f"counts on it: {steps} accumulation steps give a loss and a gradient {steps} times too "
        "large"
    )


def column_dropped(case: TrainerCase) -> Problem | None:
    trainer = case.trainer
    if not trainer.args.remove_unused_columns:
        return None
    known = {*inspect.signature(case.model.forward).parameters, "label", "label_ids"}
    known |= set(getattr(trainer, "label_names", None) or ())
    dropped = [name for name in case.columns if name not in known]
    lost = [name for name in dropped if "label" in name.lower()]
    if getattr(trainer.data_collator, "mlm", False) or "labels" in case.columns:
        lost = [name for name in lost if name in OLD_NAMES]  # the others are of another task
    said = f"{type(case.model).__name__}.forward has no argument of that name"
    if lost:
        return Problem(
            f"Trainer drops the columns {lost}: {said}",
            "rename the column to labels: `trainer.train_dataset = "
            f'[{{("labels" if key == "{lost[0]}" else key): value for key, value in row.items()}} '
            "for row in trainer.train_dataset]`",
        )
    whole_word = getattr(trainer.data_collator, "whole_word_mask", False)
    if whole_word and "offset_mapping" in dropped:
        return Problem(
            f"Trainer drops the column offset_mapping, by which the collator knows words: {said}",
            "keep it, and pad all rows to one length: `trainer.args.remove_unused_columns = False`",
        )
    return None


def labels_overwritten(case: TrainerCase) -> Problem | None:
    collator = case.trainer.data_collator
    if "labels" not in case.columns or not getattr(collator, "mlm", False):
        return None
    kind = type(collator).__name__
    return Problem(f"{kind} overwrites the column labels with labels of its own")


def eval_unmasked(case: TrainerCase) -> Problem | None:
    for name, (batch, _) in case.eval_batches.items():
        findings = run_rules(RULES, Case(batch, case.tokenizer)).findings
        found = [finding for finding in findings if finding.code in UNMASKED]
        if found:
            return Problem(f"the first batch of {_named(name)}: {found[0].message.rstrip('.')}")
    return None


def train_batch(case: TrainerCase) -> Problem | None:
    batch, own = case.train_batch, set(case.trainer.label_names) - {"labels"}
    findings = run_rules(RULES, Case(batch, case.tokenizer, case.model)).findings
    error = next((finding for finding in findings if finding.severity == "error"), None)
    if error is None or own & set(batch):
        return None
    said = f"the first batch of training has {error.code}: {error.message.rstrip('.')}"
    return Problem(said, "" if error.code in UNMASKED else in_words(error.fix).rstrip("."))


def no_eval_loss(case: TrainerCase) -> Problem | None:
    names = list(getattr(case.trainer, "label_names", None) or ())
    for name, (batch, _) in case.eval_batches.items():
        missing = [label for label in names if label not in batch]
        if missing and "labels" in batch:
            return Problem(
                f"Trainer evaluates a loss only where all of label_names={names} are in a batch, "
                f"and {_named(name)} has no {', '.join(missing)}: there will be no eval_loss"
            )
    return None


def eval_mask_changes(case: TrainerCase) -> Problem | None:
    for name, batches in case.eval_batches.items():
        first, second = (torch.as_tensor(batch["labels"]) for batch in batches)
        if torch.equal(first, second):
            continue
        masked = "masked(trainer.eval_dataset)"
        if name:
            masked = "{name: masked(rows) for name, rows in trainer.eval_dataset.items()}"
        return Problem(
            f"two draws of the first batch of {_named(name)} have different masks, so two "
            "evaluations of one model differ",
            "mask the evaluation set once: `masked = lambda rows: [dict(zip(batch, row)) for batch "
            "in trainer.get_eval_dataloader(rows) for row in zip(*batch.values())]`, "
            f"`trainer.eval_dataset = {masked}`, `trainer.data_collator = lambda rows, "
            "mlm=trainer.data_collator: (transformers.default_data_collator if "
            '"labels" in rows[0] else mlm)(rows)`',
        )
    return None
