"""The second part of the table: can each value be right, for this tokenizer and this model?"""
# ruff: noqa: D103  what each function looks for stands in rules.toml

from typing import Any

import torch

from mlmtutor.doctor.facts import Case, get
from mlmtutor.doctor.readable import AT_MASKS
from mlmtutor.doctor.rules import REMASK, Problem, answers, count_of, counted, ignore
from mlmtutor.labels import IGNORE_INDEX
from mlmtutor.model import longest_input


def vocab_mismatch(case: Case) -> Problem | None:
    rows = min(size for size in (case.rows_in, case.rows_out) if size is not None)
    if len(case.tokenizer) <= rows:
        return None
    said = f"the tokenizer has {len(case.tokenizer)} tokens, the model has rows for {rows}"
    if case.rows_out != case.rows_in:
        said += f" (it reads {case.rows_in}, and its head scores {case.rows_out})"
    return Problem(said)


def half_resized(case: Case) -> Problem | None:
    try:
        head = case.model.get_output_embeddings()
        sizes = {"reads": case.rows_in, "scores": len(head.weight)}
    except Exception:
        return None
    for module in case.model.modules():
        bias = get(module, "bias") if head in (module, *module.children()) else None
        if isinstance(bias, torch.Tensor):
            sizes["biases"] = len(bias)
    if len(set(sizes.values())) == 1:
        return None
    parts = ", ".join(f"{name} {size}" for name, size in sizes.items())
    return Problem(f"only a part of the model was resized: the numbers of ids differ ({parts})")


def ignore_in_input(case: Case) -> Problem | None:
    where = case.input_ids == IGNORE_INDEX
    if not where.any():
        return None
    exchanged = case.labels is not None and not (case.labels < 0).any()
    as_mask = case.labels is not None and bool(case.scored[where].all())
    meant = "tokenizer.mask_token_id" if as_mask else "original"
    return Problem(
        f"{counted(where, 'input id is', 'input ids are')} -100, which is not a token"
        + (": input_ids and labels look exchanged" if exchanged else ""),
        'exchange them: `batch["input_ids"], batch["labels"] = batch["labels"], batch["input_ids"]`'
        if exchanged
        else 'put a token there: `batch["input_ids"] = torch.where(batch["input_ids"] == -100, '
        f'{meant}, batch["input_ids"])`',
        where,
    )


def input_out_of_range(case: Case) -> Problem | None:
    ids = case.input_ids
    rows = case.rows_in or case.rows_out
    where = ids < 0 if rows is None else (ids < 0) | (ids >= rows)
    if not where.any():
        return None
    last = "the vocabulary" if rows is None else rows - 1
    return Problem(
        f"{counted(where, 'input id is', 'input ids are')} outside 0 to {last}, such as "
        f"{int(ids[where][0])}: were they made by another tokenizer?",
        where=where,
    )


def _table(case: Case, name: str) -> Any:
    """The first table of this name in the model."""
    for path, module in case.model.named_modules():
        if path.rpartition(".")[2] == name and get(get(module, "weight"), "ndim") == 2:
            return module
    return None


def _outside(case: Case, key: str, table: Any) -> Problem | None:
    """What of a second kind of ids the model has no row for."""
    values = case.ids(key)
    if values is None or table is None or values.dim() > 2:
        return None
    rows = len(table.weight)
    where = (values < 0) | (values >= rows)
    if not where.any():
        return None
    return Problem(
        f"{counted(where, 'entry', 'entries')} of {key} outside 0 to {rows - 1}, such as "
        f"{int(values[where][0])}: {type(case.model).__name__} has {rows} in its table",
        where=where if where.shape == case.input_ids.shape else None,
    )


def token_type_out_of_range(case: Case) -> Problem | None:
    return _outside(case, "token_type_ids", _table(case, "token_type_embeddings"))


def position_out_of_range(case: Case) -> Problem | None:
    table, values = _table(case, "position_embeddings"), case.ids("position_ids")
    problem = _outside(case, "position_ids", table)
    if problem or values is None or values.shape != case.input_ids.shape:
        return problem
    first = -1 if get(table, "padding_idx") is None else table.padding_idx
    where = (values <= first) & ~case.padded
    if not where.any():
        return None
    return Problem(
        f"{counted(where, 'position is', 'positions are')} at most {first}, but "
        f"{type(case.model).__name__} counts from {first + 1}",
        f'count from there: `batch["position_ids"] = batch["position_ids"] + {first + 1}`',
        where,
        "warning",
    )


def too_long(case: Case) -> Problem | None:
    ids = case.input_ids
    if get(case.model, "config") is None or case.ids("position_ids") is not None:
        return None
    limit, length = longest_input(case.model), ids.shape[1]
    if length > limit:
        padding = get(_table(case, "position_embeddings"), "padding_idx")
        if padding is not None:  # RoBERTa doesn't count padding
            length = int((ids != padding).sum(dim=1).max())
    if length <= limit:
        return None
    return Problem(
        f"rows have {length} positions, the model has {limit}",
        f"truncate when you encode, or here: `batch.update({{key: value[:, :{limit}].contiguous() "
        "for key, value in batch.items()})`",
    )


def ignore_minus_one(case: Case) -> Problem | None:
    where = case.labels == -1
    if not where.any():
        return None
    return Problem(
        f"{counted(where, 'label is', 'labels are')} -1: the value for 'not scored' "
        "is -100 since 2.4.0",
        where=where,
    )


def labels_binary(case: Case) -> Problem | None:
    labels, text = case.labels, ~case.padded
    values = set(labels.unique().tolist()) - {IGNORE_INDEX}
    if values not in ({0, 1}, {1}) or int(case.input_ids.max()) <= 1:
        return None
    given = (labels >= 0) & text
    enough = 3 if values == {1} and case.is_cloze is False else 0.5 * count_of(text)
    if count_of(given) <= enough or (
        count_of(given & (labels == case.input_ids)) > 0.5 * count_of(given)
        or count_of(text & (case.input_ids == 1)) > 0.1 * count_of(text)
    ):
        return None  # a few answers, or a text, of the tokens 0 and 1
    chosen = int(values == {1} or count_of(labels == 1) <= count_of(labels == 0))
    return Problem(
        "all labels are 0 or 1: they say where something is predicted, not which id it is",
        "put the ids there: " + answers(f'batch["labels"] == {chosen}'),
    )


def ignore_pad(case: Case) -> Problem | None:
    on_text, on_padding = case.ignored
    value = on_text if on_text >= 0 else on_padding
    if value < 0:
        return None
    beside = "none is -100"
    if (case.labels == IGNORE_INDEX).any():
        here, there = ("text", "padding") if on_text >= 0 else ("padding", "text")
        beside = f"-100 is beside it ({value} on {here}, -100 on {there})"
    names = {case.pad_id: "[PAD]", case.mask_id: "[MASK]"}
    where = case.labels == value
    return Problem(
        f"{counted(where, 'label is', 'labels are')} {value} and {beside}: "
        f"{names.get(value, value)} is used for 'not scored', but the loss scores it like any "
        "token",
        ignore(f'batch["labels"] == {value}'),
        where,
    )


def label_out_of_range(case: Case) -> Problem | None:
    labels, rows = case.labels, case.rows_out
    where = (labels < -1) & (labels != IGNORE_INDEX)
    if rows is not None:
        where = where | (labels >= rows)
    if not where.any():
        return None
    values = sorted(set(labels[where].tolist()))
    last = "the vocabulary" if rows is None else rows - 1
    marks = len(values) == 1 or not (labels == IGNORE_INDEX).any()
    meant = ": it looks like a value for 'not scored', which is -100" if len(values) == 1 else ""
    some = ", ".join(map(str, values[:3])) + (", ..." if values[3:] else "")
    beyond = '(batch["labels"] < 0)' + ("" if rows is None else f' | (batch["labels"] >= {rows})')
    return Problem(
        f"{counted(where, 'label is', 'labels are')} outside 0 to {last} ({some}){meant}",
        ignore(beyond) if marks else answers('batch["labels"] != -100'),
        where,
    )


def nothing_labelled(case: Case) -> Problem | None:
    if case.scored.any():
        return None
    text = count_of(case.maskable)
    rate = case.policy.select if case.policy is not None else 0.15
    luck = (1 - rate) ** text
    bad_luck = luck >= 1e-3 and text > 0 and not case.masked.any()
    unknown = 0 if case.unk_id is None else count_of(case.original == case.unk_id)
    said = (
        f"; at a rate of {rate:.0%}, this happens to {counted(text, 'position', 'positions')} of "
        f"text in {luck:.1%} of the draws"
    )
    if unknown > text:
        said = f": {unknown} of {unknown + text} tokens of text are [UNK], which no masker selects"
    if case.masked.any():
        fix = f"score the mask tokens: {answers(AT_MASKS)}"
    elif unknown > text:
        fix = "load the tokenizer that belongs to the text: this one does not know its words"
    elif luck < 1e-3:
        fix = f"mask the text: {REMASK}"
    else:
        fix = (
            "batch more text together; with compute_loss_func=mlmtutor.trainer_loss such a batch "
            "adds 0 on every process, where leaving it out on one of several would hang"
        )
    return Problem(
        f"no position is scored, so the loss is nan (0 / 0){said}",
        fix,
        severity="warning" if bad_luck else "error",
    )
