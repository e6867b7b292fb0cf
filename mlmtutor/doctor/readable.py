"""The first part of the table: can the batch be read, and by this tokenizer and this model?"""
# ruff: noqa: D103  what each function looks for stands in rules.toml

import inspect
import json
import re
from typing import Any

import torch

from mlmtutor.doctor.facts import TOO_SMALL, Case, get
from mlmtutor.doctor.rules import REMASK, Problem, answers

AT_MASKS = 'batch["input_ids"] == tokenizer.mask_token_id'
SEEN = '`batch["attention_mask"] = (original != tokenizer.pad_token_id).long()`'
AGAIN = "pass what the collator returns, batch = collator(rows)"


def not_a_tokenizer(case: Case) -> Problem | None:
    given = case.given_tokenizer
    if given is None or case.tokenizer is not None:
        return None
    exchanged = get(case.given_model, "all_special_ids") is not None
    return Problem(
        f"the tokenizer is {_kind(given)}" + (": tokenizer and model look exchanged" * exchanged)
    )


def not_a_model(case: Case) -> Problem | None:
    if case.given_model is None or case.model is not None:
        return None
    return Problem(f"the model is {_kind(case.given_model)}")


def _kind(given: Any) -> str:
    if isinstance(given, type):
        return f"the class {given.__name__}, not an object of it"
    return f"a {type(given).__name__}"


def model_class(case: Case) -> Problem | None:
    kind = type(case.model)
    if case.model is None or not kind.__module__.startswith("transformers.models."):
        return None
    from transformers.models.auto import modeling_auto as auto

    name, masked = kind.__name__, auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES
    if name in masked.values() or name.endswith("ForMaskedLM"):  # those that read images too
        return None
    wanted = get(get(case.model, "config"), "model_type")
    fix = f"load the weights as {masked.get(wanted, 'a class ForMaskedLM')}"
    source = inspect.getsource(kind.forward)
    second = re.search(r"if labels is not None and (\w+_label) is not None", source)
    if case.discriminates:
        values = case.tensor(str(case.label_key))
        if values is not None and case.visible is not None and values.shape == case.visible.shape:
            values = values[case.visible]  # what attention_mask hides is not in its loss
        if values is None or bool(torch.isin(values, torch.tensor([0, 1])).all()):
            return None
        said = "is a discriminator: its labels are 0 (original) and 1 (replaced), at every token"
        if values.max() <= 1:
            fix = "give each token 0 or 1: this loss leaves nothing out for a label of -100"
    elif second is not None:
        if case.raw(second[1]) is not None:
            return None
        said = f"returns no loss from labels alone: it wants {second[1]} too"
        fix += f", or add {second[1]} to the batch"
    elif "labels" not in inspect.signature(kind.forward).parameters:
        said = "has no masked-LM head: it takes no labels and returns no loss"
    elif name.endswith(("ForCausalLM", "LMHeadModel")):
        said = "shifts the labels by one, as causal models do: each answer is the next token"
    elif name.endswith("ForPreTraining") and case.rows_out is not None:
        return None  # BigBird's, which adds a second loss only where it gets the second label
    else:
        said = "has another head: its labels are not ids of masked tokens"
    return Problem(f"{name} {said}", fix)


def not_a_batch(case: Case) -> Problem | None:
    if case.is_mapping:
        return None
    kind = type(case.given).__name__
    return Problem(f"a batch is a mapping with input_ids and labels, but this is a {kind}")


def no_input_ids(case: Case) -> Problem | str | None:
    if case.raw("input_ids") is not None:
        return None
    if case.raw("inputs_embeds") is not None:
        return "the batch has inputs_embeds in place of input_ids"
    return Problem(f"no input_ids among the keys {sorted(map(str, case.keys))}")


def labels_missing(case: Case) -> Problem | None:
    if case.label_key is not None:
        return None
    masked = case.input_ids is not None and case.masked.any()
    return Problem(
        f"no labels among the keys {sorted(map(str, case.keys))}, so the loss is None",
        f"keep the answers: {answers(AT_MASKS)}" if masked else f"mask the ids: {REMASK}",
    )


def labels_misnamed(case: Case) -> Problem | None:
    name = case.label_key
    if name is None or name == "labels":
        return None
    forward = get(case.model, "forward")
    if forward is not None and name in inspect.signature(forward).parameters:
        return None
    if forward is None:  # two tasks: the model is somebody's own, and so are its names
        others = [key for key in case.keys if re.search(r"labels?$", str(key)) and key != name]
        shape = get(case.raw(name), "shape")
        if "labels" in others or any(get(case.raw(key), "shape", 0) == shape for key in others):
            return None
    return Problem(
        f"the labels are under {name!r}: transformers 5 ignores that name without a word and "
        "the loss is None, 4.x raises a TypeError",
        f'`batch["labels"] = batch.pop({json.dumps(name)})`',
    )


def dtype(case: Case) -> Problem | None:
    for name, key, allowed in (
        ("input_ids", "input_ids", (torch.int64, torch.int32)),
        ("labels", None if case.discriminates else case.label_key, (torch.int64,)),
    ):
        value = None if key is None else case.tensor(key)
        if value is None or value.dtype in allowed or value.numel() == 0:
            continue
        if value.dtype == torch.bool and name == "labels":
            return Problem(
                "labels are bool: they say where, but not which id is the answer",
                "put the ids there: " + answers('batch["labels"]'),
            )
        if value.dtype in TOO_SMALL:
            return Problem(
                f"{key} has the dtype {value.dtype}, which cannot hold -100 and every id",
                "make it int64 where it is made, before the ids are lost",
            )
        return Problem(
            f"{key} has the dtype {value.dtype}, where int64 is needed",
            f'convert it: `batch["{name}"] = batch["{name}"].long()`',
        )
    return None


def device(case: Case) -> Problem | None:
    ids = case.raw("input_ids")
    labels = None if case.label_key is None else case.raw(case.label_key)
    if not isinstance(ids, torch.Tensor) or not isinstance(labels, torch.Tensor):
        return None
    if ids.device == labels.device:
        return None
    return Problem(f"input_ids are on {ids.device}, labels on {labels.device}")


def unreadable(case: Case) -> Problem | None:
    _ = case.labels, case.visible  # which reads all that is there
    if not case.unread:
        return None
    reasons = "; ".join(f"{key}: {reason}" for key, reason in case.unread.items())
    return Problem(f"these could not be read as integers, {reasons}")


def empty(case: Case) -> Problem | None:
    if case.input_ids is None or case.input_ids.numel() > 0:
        return None
    shape = tuple(case.input_ids.shape)
    return Problem(f"input_ids have the shape {shape}: there is nothing to read")


def mask_is_unk(case: Case) -> Problem | None:
    if case.mask_id is None or case.mask_id != case.unk_id:
        return None
    return Problem(
        f"the id of the mask token {case.tokenizer.mask_token} is {case.mask_id}, that of the "
        "unknown token: the vocabulary does not hold it"
    )


def foreign_mask(case: Case) -> Problem | None:
    rows, spelled = [], ""
    for row in (~case.masked.any(dim=1)).nonzero().flatten().tolist():
        ids = case.input_ids[row][~case.padded[row]]
        ids = ids[(ids >= 0) & (ids < len(case.tokenizer))]
        text = case.tokenizer.decode(ids, skip_special_tokens=True).replace(" ", "")
        if match := re.search(r"<mask>|\[mask\]", text, re.IGNORECASE):
            rows.append(row)
            spelled = spelled or match[0]
    if not rows:
        return None
    token = case.tokenizer.mask_token
    lowered = spelled == token.lower()
    if not lowered:
        spelled = "<mask>" if spelled[0] == "<" else "[MASK]"
    return Problem(
        f"{spelled} is written in row {rows[0]}{f' and {len(rows) - 1} more' if rows[1:] else ''} "
        f"but is ordinary text to this tokenizer, whose mask token is {token}"
        + (": the text was put into lower case after the mask was written" if lowered else ""),
        severity="info" if case.masked.any() else "error",
    )


def shape(case: Case) -> Problem | None:
    ids = case.tensor("input_ids")
    if ids is None:
        return None
    shape = tuple(ids.shape)
    packed = any(re.search("seq_?len|position_ids", str(key)) for key in case.keys)
    if ids.dim() == 1 and not packed:
        return Problem(
            f"input_ids have the shape {shape}, without a batch dimension",
            "add it: `batch.update({key: value.unsqueeze(0) for key, value in batch.items()})`",
        )
    if ids.dim() == 3 and 1 in shape[:2]:
        side = 1 if shape[1] == 1 else 0
        return Problem(
            f"input_ids have the shape {shape}: there is an extra dimension of 1, as each example "
            'was made with return_tensors="pt"',
            f"take it out: `batch.update({{key: value.squeeze({side}) for key, value in "
            "batch.items()})`",
        )
    if ids.dim() not in (1, 2):
        return Problem(f"input_ids have the shape {shape}, not (rows, columns)", AGAIN)
    labels = None if case.label_key is None else case.tensor(case.label_key)
    if labels is not None and labels.shape != ids.shape and not case.decodes:
        why = ": are special tokens or padding counted in only one of them?"
        if tuple(labels.shape) in ((len(ids),), (len(ids), 1)):
            why = ": one label for each row, as for classes of sentences"
        masked = case.input_ids is not None and case.masked.any()
        return Problem(
            f"labels must have the shape of input_ids, {shape}, but have "
            f"{tuple(labels.shape)}{why}",
            f"take both from the same ids: {answers(AT_MASKS) if masked else REMASK}",
        )
    mask = case.tensor("attention_mask") if case.visible is None else None
    if mask is not None:
        return Problem(
            f"attention_mask must have the shape of input_ids, {shape}, but has "
            f"{tuple(mask.shape)}",
            f"make it from the ids: {SEEN}",
        )
    return None


def labels_strided(case: Case) -> Problem | None:
    labels = case.raw(str(case.label_key))
    if not isinstance(labels, torch.Tensor) or labels.is_contiguous():
        return None
    weights = next(case.model.parameters(), None) if case.model is not None else None
    stays = weights is not None and weights.device == labels.device
    moved = labels.to("meta").is_contiguous()
    return Problem(
        "the labels are not contiguous in memory, and the model flattens them with view(-1)"
        + ("" if stays or not moved else "; a copy on another device is contiguous"),
        severity="info" if moved and not stays else "error",
    )
