"""The first half of the table: can the batch be read, and is each value possible?"""

import inspect

import torch

from mlmtutor.doctor.facts import TOO_SMALL, Case
from mlmtutor.doctor.rules import REMASK, Problem, count_of, counted, rule, set_labels
from mlmtutor.labels import IGNORE_INDEX

AT_MASKS = 'torch.where(batch["input_ids"] == tokenizer.mask_token_id, original, -100)'

# Can the batch be read? --------------------------------------------------------------------------


@rule("not-a-batch", "error")
def _not_a_batch(case: Case) -> Problem | None:
    """What was given is not a mapping.

    Symptom: the model call fails before it starts.
    Source: ``data_collator.py`` of transformers, whose collators return mappings.
    """
    if case.is_mapping:
        return None
    return Problem(
        f"a batch is a mapping with input_ids and labels, but this is a "
        f"{type(case.given).__name__}",
        "pass what the collator returns: `batch = collator(rows)`",
    )


@rule("no-input-ids", "error", unless=("not-a-batch",))
def _no_input_ids(case: Case) -> Problem | str | None:
    """The batch has no key ``input_ids``.

    Symptom: "You have to specify either input_ids or inputs_embeds".
    Source: ``modeling_bert.py`` of transformers.
    """
    if case.raw("input_ids") is not None:
        return None
    if case.raw("inputs_embeds") is not None:
        return "the batch has inputs_embeds in place of input_ids"
    return Problem(
        f"no input_ids among the keys {sorted(map(str, case.keys))}",
        "the tokenizer makes them: `batch = collator(rows)`",
    )


@rule("labels-missing", "error", unless=("not-a-batch", "no-input-ids"))
def _labels_missing(case: Case) -> Problem | None:
    """The batch has no labels.

    Symptom: the loss is ``None``, or Trainer says that the model did not return a loss.
    Source: artidoro/qlora#179, huggingface/course#291 (a collator that forgot them).
    """
    if case.label_key is not None:
        return None
    return Problem(
        f"no labels among the keys {sorted(map(str, case.keys))}, so the loss is None",
        f"mask the ids and keep the answers: {REMASK}",
    )


@rule("labels-misnamed", "error")
def _labels_misnamed(case: Case) -> Problem | None:
    """The labels have an old or misspelled name.

    Symptom: transformers 5 swallows the argument and the loss is ``None``; 4.x raises TypeError.
    Source: transformers#3315, transformers#5156.
    """
    name = case.label_key
    if name is None or name == "labels":
        return None
    forward = getattr(case.model, "forward", None)
    if forward is not None and name in inspect.signature(forward).parameters:
        return None
    return Problem(
        f"the labels are under {name!r}: transformers 5 ignores that name without a word and "
        "the loss is None, 4.x raises a TypeError",
        f'`batch["labels"] = batch.pop("{name}")`',
    )


@rule("dtype", "error")
def _dtype(case: Case) -> Problem | None:
    """Ids or labels have a dtype that the embedding or the loss refuses.

    Symptom: "expected target dtype to be Long or Byte", or an error of the embedding.
    Source: ``torch.nn.functional.cross_entropy``.
    """
    for key, allowed in (
        ("input_ids", (torch.int64, torch.int32)),
        (case.label_key, (torch.int64,)),
    ):
        value = None if key is None else case.tensor(key)
        if value is None or value.dtype in allowed or value.numel() == 0:
            continue
        if value.dtype == torch.bool and key != "input_ids":
            return Problem(
                "labels are bool: they say where, but not which id is the answer",
                set_labels('torch.where(batch["labels"], original, -100)'),
            )
        if value.dtype in TOO_SMALL:
            return Problem(
                f"{key} has the dtype {value.dtype}, which cannot hold -100 and every id",
                "make it int64 before the ids are lost: `batch = collator(rows)`",
            )
        return Problem(
            f"{key} has the dtype {value.dtype}, where int64 is needed",
            f'`batch["{key}"] = batch["{key}"].long()`',
        )
    return None


@rule("device", "error")
def _device(case: Case) -> Problem | None:
    """Tensors of one batch are on different devices.

    Symptom: "Expected all tensors to be on the same device".
    Source: ``torch.nn.functional.cross_entropy``.
    """
    ids = case.raw("input_ids")
    labels = None if case.label_key is None else case.raw(case.label_key)
    if not isinstance(ids, torch.Tensor) or not isinstance(labels, torch.Tensor):
        return None
    if ids.device == labels.device:
        return None
    return Problem(
        f"input_ids are on {ids.device}, labels on {labels.device}",
        set_labels('batch["labels"].to(batch["input_ids"].device)'),
    )


@rule("unreadable", "error", unless=("dtype", "device"))
def _unreadable(case: Case) -> Problem | None:
    """A value holds no rectangular block of integers.

    Symptom: the collator or the model raises, far from the row that is too long or missing.
    Source: HF forum 36407; ``torch.as_tensor`` on ragged lists.
    """
    if not case.unread:
        return None
    reasons = "; ".join(f"{key}: {reason}" for key, reason in case.unread.items())
    return Problem(
        f"these could not be read as integers, {reasons}",
        "pad the rows to one length and keep ids as int64: `batch = collator(rows)`",
    )


@rule("empty", "error")
def _empty(case: Case) -> Problem | None:
    """The batch has no positions at all.

    Symptom: the loss is nan, or a shape error inside the model.
    Source: transformers#16711.
    """
    if case.input_ids is None or case.input_ids.numel() > 0:
        return None
    return Problem(
        f"input_ids have the shape {tuple(case.input_ids.shape)}: there is nothing to read",
        "drop empty texts before they are batched: `batch = collator(rows)`",
    )


@rule("foreign-mask", "error", needs=("input_ids", "mask_id"), unless=("empty",))
def _foreign_mask(case: Case) -> Problem | None:
    """The text holds the mask token of another family, which was split into pieces.

    Symptom: "The size of tensor a (11) must match", or nothing labelled.
    Source: transformers#2132, transformers#3318; the generated docstring of BertForMaskedLM 5.23.
    """
    ids = case.input_ids
    rows = []
    spelled = ""
    for row in (~case.masked.any(dim=1)).nonzero().flatten().tolist():
        readable = [token for token in ids[row].tolist() if 0 <= token < len(case.tokenizer)]
        text = case.tokenizer.decode(readable).replace(" ", "").lower()
        for other in ("<mask>", "[mask]"):
            if other in text:
                rows.append(row)
                spelled = other if other == "<mask>" else "[MASK]"
    if not rows:
        return None
    return Problem(
        f"{spelled} is written in row {rows[0]}{f' and {len(rows) - 1} more' if rows[1:] else ''} "
        f"but is ordinary text to this tokenizer, whose mask token is {case.tokenizer.mask_token}",
        f'`texts = [text.replace("{spelled}", tokenizer.mask_token) for text in texts]`, then '
        '`batch["input_ids"] = tokenizer(texts, padding=True, return_tensors="pt")["input_ids"]`',
        None,
        "warning" if case.masked.any() else "error",  # a text may well be about masks
    )


@rule("shape", "error", unless=("foreign-mask", "empty"))
def _shape(case: Case) -> Problem | None:
    """Labels or attention mask do not have the shape of the ids, or there is no batch dimension.

    Symptom: "Expected input batch_size (16) to match target batch_size (10)".
    Source: transformers#6452 (the message), transformers#18267.
    """
    ids = case.tensor("input_ids")
    if ids is None:
        return None
    if ids.dim() == 1 and not any("cu_seq" in str(key) for key in case.keys):
        return Problem(
            f"input_ids have the shape {tuple(ids.shape)}, without a batch dimension",
            "`batch = {key: value.unsqueeze(0) for key, value in batch.items()}`",
        )
    labels = None if case.label_key is None else case.tensor(case.label_key)
    if labels is not None and labels.shape != ids.shape:
        return Problem(
            f"labels must have the shape of input_ids, {tuple(ids.shape)}, but have "
            f"{tuple(labels.shape)}: are special tokens or padding counted in only one of them?",
            "take both from the same ids: " + set_labels(AT_MASKS),
        )
    mask = case.tensor("attention_mask")
    if mask is not None and case.visible is None:
        return Problem(
            f"attention_mask must have the shape of input_ids, {tuple(ids.shape)}, but has "
            f"{tuple(mask.shape)}",
            '`batch["attention_mask"] = (original != tokenizer.pad_token_id).long()`',
        )
    return None


@rule("labels-strided", "error", needs=("labels",))
def _labels_strided(case: Case) -> Problem | None:
    """The labels are a slice or a transposed view.

    Symptom: "view size is not compatible with input tensor's size and stride".
    Source: ``labels.view(-1)`` in ``modeling_bert.py`` of transformers.
    """
    labels = case.raw(str(case.label_key))
    if not isinstance(labels, torch.Tensor) or labels.is_contiguous():
        return None
    return Problem(
        "the labels are not contiguous in memory, and the model flattens them with view(-1)",
        set_labels('batch["labels"].contiguous()'),
    )


# Is each value possible? -------------------------------------------------------------------------


@rule("vocab-mismatch", "error", needs=("tokenizer", "rows_in"))
def _vocab_mismatch(case: Case) -> Problem | None:
    """The tokenizer has more tokens than the model has rows.

    Symptom: "index out of range in self", sometimes only when a random token is drawn.
    Source: transformers#12763, transformers#2468.
    """
    rows = min(size for size in (case.rows_in, case.rows_out) if size is not None)
    if len(case.tokenizer) <= rows:
        return None
    return Problem(
        f"the tokenizer has {len(case.tokenizer)} tokens, the model has rows for {rows}",
        "`model.resize_token_embeddings(len(tokenizer))`",
    )


@rule("ignore-in-input", "error", needs=("input_ids",))
def _ignore_in_input(case: Case) -> Problem | None:
    """-100 stands in ``input_ids``.

    Symptom: "index out of range in self" on the CPU, a device-side assert on CUDA.
    Source: HF forum 36407.
    """
    where = case.input_ids == IGNORE_INDEX
    if not where.any():
        return None
    exchanged = case.labels is not None and not (case.labels < 0).any()
    as_mask = case.labels is not None and bool(case.scored[where].all())
    meant = "tokenizer.mask_token_id" if as_mask else "original"
    return Problem(
        f"{counted(where, 'input id is', 'input ids are')} -100, which is no token"
        + (": input_ids and labels look exchanged" if exchanged else ""),
        '`batch["input_ids"], batch["labels"] = batch["labels"], batch["input_ids"]`'
        if exchanged
        else '`batch["input_ids"] = torch.where(batch["input_ids"] == -100, '
        f'{meant}, batch["input_ids"])`',
        where,
    )


@rule(
    "input-out-of-range",
    "error",
    needs=("input_ids",),
    unless=("vocab-mismatch", "ignore-in-input"),
)
def _input_out_of_range(case: Case) -> Problem | None:
    """An input id is negative, or the model has no row for it.

    Symptom: "index out of range in self".
    Source: transformers#5611, transformers#3097.
    """
    ids = case.input_ids
    rows = case.rows_in or case.rows_out
    where = ids < 0 if rows is None else (ids < 0) | (ids >= rows)
    if not where.any():
        return None
    last = "the vocabulary" if rows is None else rows - 1
    return Problem(
        f"{counted(where, 'input id is', 'input ids are')} outside 0 to {last}, such as "
        f"{int(ids[where][0])}: were they made by another tokenizer?",
        "encode the text again with the tokenizer of this model: `batch = collator(rows)`",
        where,
    )


@rule("too-long", "error", needs=("input_ids", "model"), unless=("empty",))
def _too_long(case: Case) -> Problem | None:
    """The rows have more positions than the model.

    Symptom: "index out of range in self", or a size mismatch of 512 and something larger.
    Source: transformers#482, transformers#2020.
    """
    ids = case.input_ids
    for name, module in case.model.named_modules():
        last = name.rpartition(".")[2]
        if last not in ("position_embeddings", "embed_positions", "wpe"):
            continue
        if not isinstance(module, torch.nn.Embedding):
            continue
        limit = module.num_embeddings - getattr(module, "offset", 0)
        buffer = getattr(case.model.get_submodule(name.rpartition(".")[0]), "position_ids", None)
        if isinstance(buffer, torch.Tensor):
            limit = min(limit, buffer.shape[-1])
        length = ids.shape[1]
        packed = case.ids("position_ids")
        if packed is not None and packed.numel() > 0:
            length = int(packed.max()) + 1
        elif module.padding_idx is not None:  # RoBERTa counts from there, and skips padding
            limit -= module.padding_idx + 1
            length = int((ids != module.padding_idx).sum(dim=1).max())
        if length > limit:
            return Problem(
                f"rows have {length} positions, the model has {limit}",
                f"truncate: `batch = {{key: value[:, :{limit}].contiguous() "
                "for key, value in batch.items()}`",
            )
    return None


@rule("ignore-minus-one", "error", needs=("labels",), unless=("ignore-in-input",))
def _ignore_minus_one(case: Case) -> Problem | None:
    """-1 marks the positions that are not scored: the convention before release 2.4.0.

    Symptom: "Target -1 is out of bounds", or a device-side assert on CUDA.
    Source: transformers#2718, transformers#2737; EricFillion/happy-transformer#128.
    """
    where = case.labels == -1
    if not where.any():
        return None
    return Problem(
        f"{counted(where, 'label is', 'labels are')} -1: the value for 'not scored' "
        "is -100 since 2.4.0",
        set_labels('torch.where(batch["labels"] == -1, -100, batch["labels"])'),
        where,
    )


@rule("labels-binary", "error", needs=("labels",), unless=("ignore-in-input",))
def _labels_binary(case: Case) -> Problem | None:
    """The labels are 0 and 1: a selection, or a mask of the tokenizer, in place of answers.

    Symptom: the loss falls to 0: the only answers are the tokens with the ids 0 and 1.
    Source: keras-io ``masked_language_modeling.py`` (weights beside labels); d2l-ai/d2l-en#2582.
    """
    values = case.labels.unique().tolist()
    if values != [0, 1] or int(case.input_ids.max()) <= 1:
        return None
    return Problem(
        "all labels are 0 or 1: they say where something is predicted, not which id it is",
        set_labels('torch.where(batch["labels"] == 1, original, -100)'),
    )


@rule("ignore-pad", "error", needs=("labels",), unless=("ignore-in-input", "labels-binary"))
def _ignore_pad(case: Case) -> Problem | None:
    """The id of [PAD], or 0, marks the positions that are not scored.

    Symptom: the loss falls fast, because most answers are [PAD].
    Source: codertimo/BERT-pytorch#29, codertimo/BERT-pytorch#49, mosaicml/examples#457.
    """
    value = case.ignored_value
    if value < 0:
        return None
    where = case.labels == value
    name = "[PAD]" if value == case.pad_id else "0"
    return Problem(
        f"{counted(where, 'label is', 'labels are')} {value} and none is -100: {name} is used "
        "for 'not scored', but the loss scores it like any token",
        set_labels(f'torch.where(batch["labels"] == {value}, -100, batch["labels"])'),
        where,
    )


@rule(
    "label-out-of-range", "error", needs=("labels",), unless=("vocab-mismatch", "ignore-in-input")
)
def _label_out_of_range(case: Case) -> Problem | None:
    """A label is neither -100 nor an id that the model can score.

    Symptom: "IndexError: Target 30522 is out of bounds", or a device-side assert on CUDA.
    Source: transformers#2442; cbert_aug#4; HF forum 36407.
    """
    labels, rows = case.labels, case.rows_out
    where = (labels < 0) & (labels != IGNORE_INDEX) & (labels != case.ignored_value)
    if rows is not None:
        where = where | (labels >= rows)
    if not where.any():
        return None
    values = sorted(set(labels[where].tolist()))
    last = "the vocabulary" if rows is None else rows - 1
    meant = ": it looks like a value for 'not scored', which is -100" if len(values) == 1 else ""
    some = ", ".join(map(str, values[:3])) + (", ..." if values[3:] else "")
    bound = "" if rows is None else f' | (batch["labels"] >= {rows})'
    return Problem(
        f"{counted(where, 'label is', 'labels are')} outside 0 to {last} ({some}){meant}",
        set_labels(f'torch.where((batch["labels"] < 0){bound}, -100, batch["labels"])'),
        where,
    )


@rule(
    "nothing-labelled",
    "error",
    needs=("labels",),
    unless=("label-out-of-range", "ignore-in-input", "foreign-mask", "vocab-mismatch"),
)
def _nothing_labelled(case: Case) -> Problem | None:
    """No position of the whole batch is scored.

    Symptom: the loss is nan: a mean of nothing.
    Source: transformers#16711, pytorch#70348; tokenizers#1193 (short texts often get no mask).
    """
    if case.scored.any():
        return None
    text = count_of(case.maskable)
    if case.masked.any():
        fix = set_labels(AT_MASKS)
    elif 0.85**text < 0.01:  # not bad luck
        fix = REMASK
    else:
        free = case.maskable if case.maskable.any() else ~case.scored
        row, column = free.nonzero()[0].tolist()
        fix = (
            f'skip the batch, or score one position: `batch["labels"][{row}, {column}] = '
            f'original[{row}, {column}]`, `batch["input_ids"][{row}, {column}] = '
            "tokenizer.mask_token_id`"
        )
    return Problem(
        "no position is scored, so the loss is nan (0 / 0); at a rate of 15 %, "
        f"this happens to {counted(text, 'position', 'positions')} of text in "
        f"{0.85**text:.1%} of the draws",
        fix,
    )
