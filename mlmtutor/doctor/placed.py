"""The third part of the table: do the labels stand where they should?"""
# ruff: noqa: D103  what each function looks for stands in rules.toml

from typing import Any

import torch

from mlmtutor.doctor.facts import Case, most_common
from mlmtutor.doctor.readable import AT_MASKS
from mlmtutor.doctor.rules import (
    ALPHA,
    REMASK,
    Problem,
    answers,
    at_least,
    count_of,
    counted,
    ignore,
    set_labels,
    too_many,
)


def _moved(values: torch.Tensor, step: int) -> torch.Tensor:
    """What stands ``step`` positions to the right of each position."""
    return values.roll(-step, dims=1)


def shifted(case: Case) -> Problem | None:
    ids, labels, scored = case.input_ids, case.labels, case.scored
    count = count_of(scored)
    if count == 0:
        return None
    bare = case.masked & ~scored  # a healthy batch has few [MASK] without a label
    shown = ~case.masked & ~case.padded
    misfits = count_of(case.kept | (scored & case.masked)) <= 0.5 * count
    pairs = (shown & _moved(shown, 1))[:, :-1]
    alike = count_of(pairs & (ids[:, :-1] == ids[:, 1:]))
    by_chance = (alike + 1) / (count_of(pairs) + 2)  # a text may repeat itself
    for step, word in ((1, "next"), (-1, "previous")):
        edge = torch.ones_like(scored)
        edge[:, -1 if step == 1 else 0] = False
        near = scored & edge & _moved(shown, step) & ~case.kept
        fits = near & (_moved(ids, step) == labels)
        found, places = count_of(fits), count_of(near)
        several = labels[fits].unique().numel() > 1  # and not one prompt before one word
        seen = several and found > 0.8 * places and too_many(found, places, by_chance)
        # Or: does every bare [MASK] get a label by moving them?
        cured = misfits and bool(bare.any()) and not (case.masked & ~_moved(scored, -step)).any()
        if seen or cured:
            told = found if seen else count_of(scored & edge & _moved(case.masked, step))
            return Problem(
                f"{told} of {count} labels belong to the {word} position: "
                "masked models answer at the same index, only causal models shift",
                "move them back: " + set_labels(f'batch["labels"].roll({step}, dims=1)'),
                scored,
            )
    return _other_side(case, misfits)


def _other_side(case: Case, misfits: bool) -> Problem | None:
    """Labels that were padded on the other side than the ids."""
    pads = case.padded.sum(dim=1)
    if not misfits or case.visible is None:
        return None
    for sign, ids_on, labels_on in ((1, "left", "right"), (-1, "right", "left")):
        if not case.padded[:, 0 if sign == 1 else -1].any():
            continue
        moved, scored = (
            torch.stack([row.roll(sign * n) for row, n in zip(x, pads.tolist(), strict=True)])
            for x in (case.labels, case.scored)
        )
        fit = scored & (case.masked | (case.input_ids == moved))
        found, count = count_of(fit & ~case.padded), count_of(scored)
        if found > 0.6 * count and too_many(found, count, 0.3):
            known = ("input_ids", "attention_mask", "token_type_ids")
            keys = [key for key in known if key in case.keys] if sign == 1 else ["labels"]
            return Problem(
                f"ids are padded on the {ids_on} side and labels on the {labels_on} one, so each "
                "row of labels is shifted by its own padding",
                "pad both on the right, as positions are counted from the first token: "
                "`batch.update({key: torch.stack([row.roll(-int(n)) for row, n in zip(batch[key], "
                f'(batch["attention_mask"] == 0).sum(1))]) for key in {keys}}})`',
                case.scored,
            )
    return None


def inverted(case: Case) -> Problem | None:
    hidden = case.masked & ~case.scored
    shown = case.maskable & ~case.masked
    if not hidden.any() or (case.masked & case.scored).any():
        return None
    if count_of(shown & case.scored) <= 0.5 * count_of(shown):
        return None
    return Problem(
        f"{counted(case.masked, 'position holds', 'positions hold')} [MASK] without a label, but "
        f"{counted(case.scored, 'other has one', 'others have one')}: -100 goes where nothing is "
        "predicted",
        where=hidden,
    )


def everything_labelled(case: Case) -> Problem | None:
    text = case.maskable
    kept, count = count_of(case.kept & text), count_of(text)
    if not text.any() or not case.scored[text].all() or kept <= 0.5 * count:
        return None  # where the answers are hidden, none can be copied
    ends = case.special & ~case.padding & ~case.masked
    # Maskers never select [CLS] or [SEP]: if all of those are scored, that is proof. Otherwise
    # ask how likely it is to select all, and to keep as many, at rates of 40 % and 20 %.
    chance = 0.4**count * at_least(kept, count, 0.2)
    proof = bool(ends.any()) and bool(case.scored[ends].all())
    if not proof and chance > ALPHA:
        return None
    labels = case.labels[case.scored]
    answer_lost = case.mask_id is not None and bool((labels == case.mask_id).any())
    if answer_lost:
        fix = set_labels('torch.where(batch["input_ids"] == original, -100, original)')
    elif torch.equal(case.kept, case.scored):
        fix = f"nothing is masked either, so mask the text: {REMASK}"
    else:
        fix = ignore('batch["input_ids"] == batch["labels"]')
    pads = count_of(case.scored & case.padding)
    return Problem(
        f"all {count_of(case.scored)} positions are scored"
        + (f", {pads} of them padding" if pads else "")
        + ": most answers can be copied from the input"
        + ("; where [MASK] stands, the label is [MASK] too" if answer_lost else ""),
        fix,
        case.scored,
    )


def label_is_mask(case: Case) -> Problem | None:
    where = case.scored & (case.labels == case.mask_id)
    if not where.any():
        return None
    # A few among many are mask tokens that stood in the text and were selected like a word.
    literal = count_of(where & case.masked) < 0.5 * count_of(case.scored & case.masked)
    cause, fix = "the labels were taken from ids that were masked already", ""
    if literal:
        cause = "the text itself has mask tokens, and the masker selected them"
        fix = "protect all special tokens: " + ignore('batch["labels"] == tokenizer.mask_token_id')
    return Problem(
        f"{counted(where, 'label is', 'labels are')} {case.mask_id}, the id of "
        f"{case.tokenizer.mask_token} itself: {cause}",
        fix,
        where,
        "warning" if literal else "error",
    )


def _put_back(which: str, condition: str) -> str:
    """The fix that takes labels away and gives the input its tokens back."""
    return (
        f"`{which} = {condition}`, "
        f'`batch["input_ids"] = torch.where({which}, batch["labels"], batch["input_ids"])`, '
        f'`batch["labels"] = torch.where({which}, -100, batch["labels"])`'
    )


def _padding_scored(case: Case) -> Any:
    """Where a label answers for padding. The label is the original, so [PAD] there is padding."""
    hidden = torch.zeros_like(case.scored) if case.visible is None else case.scored & ~case.visible
    if case.pad_id is None:
        same = case.labels[hidden].unique().numel() == 1
        return hidden if same else torch.zeros_like(hidden)
    pads = case.scored & (case.labels == case.pad_id)
    return pads & hidden if case.pad_means_more else pads


def padding_labelled(case: Case) -> Problem | None:
    where = _padding_scored(case)
    if not where.any():
        return None
    condition = f'batch["labels"] == {case.pad_id}'
    if case.pad_id is None or case.pad_means_more:
        condition = '(batch["attention_mask"] == 0) & (batch["labels"] >= 0)'
    return Problem(
        f"{counted(where, 'position of padding is', 'positions of padding are')} scored",
        "leave it out: " + _put_back("pads", condition),
        where,
    )


def _astray(case: Case) -> bool:
    """Whether most labels stand beside the masks, and most masks have none: they belong there."""
    fit = count_of(case.scored & case.masked)
    return fit < 0.5 * min(count_of(case.scored), count_of(case.masked))


def label_hidden(case: Case) -> Problem | str | None:
    if case.visible is None:
        given = case.raw("attention_mask") is not None
        return "the attention_mask could not be read" if given else None
    where = case.scored & ~case.visible & ~_padding_scored(case)
    if not where.any() or _astray(case):
        return None
    pads = case.padding if case.pad_id is None else case.input_ids == case.pad_id
    at_masks = torch.equal(~case.visible & ~pads, case.masked)
    return Problem(
        f"attention_mask is 0 at {counted(where, 'scored position', 'scored positions')}"
        + ": it is 0 exactly at the mask tokens, but it says what is padding" * at_masks,
        where=where,
    )


def special_labelled(case: Case) -> Problem | None:
    others = {case.pad_id, case.mask_id, case.unk_id}
    ends = sorted(set(case.special_ids.tolist()) - others)
    where = case.scored & torch.isin(case.original, torch.tensor(ends, dtype=torch.int64))
    if not where.any():
        return None
    found = sorted(set(case.original[where].tolist()))
    fix = _put_back("special", f'sum(batch["labels"] == id for id in {found}) > 0')
    diffusion = case.is_diffusion
    return Problem(
        f"{counted(where, 'special token is', 'special tokens are')} scored, of the "
        f"{'id' if len(found) == 1 else 'ids'} {', '.join(map(str, found))}",
        "usual in masked diffusion" if diffusion else f"protect them: {fix}",
        where,
        "info" if diffusion else "warning",
    )


def mask_without_label(case: Case) -> Problem | None:
    where = case.masked & ~case.scored
    if not where.any():
        return None
    dropped = (where.sum(dim=1) > 1) & ~case.scored.any(dim=1)  # rows
    few = count_of(where) <= 0.25 * count_of(case.masked) and not dropped.any()
    why = "it was dropped, or the ids held them before masking, as when masked twice"
    fix = answers(AT_MASKS, 'batch["labels"]')
    if _astray(case):
        why = "the labels stand elsewhere, so they belong to other rows or other positions"
        fix = answers(AT_MASKS)
    fix = f"take mask tokens out of the text before masking, and score all the others: {fix}"
    return Problem(
        f"of {counted(case.masked, 'mask token', 'mask tokens')} in the input "
        f"{counted(where, 'has', 'have')} no label: {why}",
        "nothing to do where the text is about masks" if few else fix,
        where,
        "info" if few else "warning",
    )


def mostly_unknown(case: Case) -> Problem | None:
    if case.unk_id is None or case.pad_id == case.unk_id or not case.scored.any():
        return None
    where = case.scored & (case.labels == case.unk_id)
    lost = ~case.padding & (case.original == case.unk_id)
    real = lost | case.maskable
    if count_of(where) <= 0.5 * count_of(case.scored):
        return None
    cloze = case.is_cloze and torch.equal(lost, where)
    if not cloze and not too_many(count_of(lost), count_of(real), 0.4):
        return None
    why = f"{count_of(lost)} of {count_of(real)} tokens of the text are unknown to this tokenizer"
    fix = "load the tokenizer that belongs to the text and the model"
    if cloze:
        why = "the word is not one token of this vocabulary"
        fix = "take the id from tokenizer(word, add_special_tokens=False), "
        fix += "with one [MASK] for each piece"
    said = f"{count_of(where)} of {counted(case.scored, 'label is', 'labels are')}"
    return Problem(f"{said} {case.tokenizer.unk_token}: {why}", fix, where)


def one_answer(case: Case) -> Problem | None:
    shown = case.original[case.maskable & ~case.scored]
    if case.is_prompt or not len(shown) or not case.chosen.any():
        return None
    value, count = most_common(case.labels[case.chosen])
    if count < count_of(case.chosen):
        return None
    share, kinds = (count_of(shown == value) + 2) / (len(shown) + 4), shown.unique().numel()
    if kinds * share**count > ALPHA:
        return None
    return Problem(
        f"all {count} labels are {value}, though the text has {kinds} tokens",
        where=case.chosen,
    )


def word_without_space(case: Case) -> Problem | None:
    if not case.is_cloze or not case.scored.any():
        return None
    named, number = case.tokenizer.convert_ids_to_tokens, case.tokenizer.convert_tokens_to_ids
    shown = [str(token) for token in named(case.input_ids[case.maskable & ~case.masked])]
    space = next((sign for sign in "Ġ▁" if any(token.startswith(sign) for token in shown)), None)
    if space is None:
        return None
    # Blanks behind a word and before the next one: "The <mask> ran", and not "<mask>ing".
    blanks = case.scored & case.masked & _moved(case.maskable & ~case.masked, -1)
    blanks[:, [0, -1]] = False
    after = named(_moved(case.input_ids, 1)[blanks])
    blanks[blanks.clone()] = torch.tensor(
        [str(t).startswith(space) or not str(t)[0].isalnum() for t in after], dtype=torch.bool
    )
    words = [str(token) for token in named(case.labels[blanks])]
    bare = [not t.startswith(space) and number(space + t) != case.unk_id for t in words]
    if not bare or not all(bare):
        return None
    pieces = (1 + sum(not token.startswith(space) for token in shown)) / (2 + len(shown))
    return Problem(
        f"{counted(blanks, 'answer is a word', 'answers are words')} without the space before, "
        f"such as {words[0]!r}: between two words the token is {space + words[0]!r}",
        where=blanks,
        severity="info" if pieces ** len(bare) > ALPHA else None,
    )
