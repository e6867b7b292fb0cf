"""The last part of the table: is it likely?

Rates and shares are tested against the recipe that the batch was made by: that of the collator, or
``policy=``. Without one they are told as an info, where no recipe in common use has them.
"""
# ruff: noqa: D103  what each function looks for stands in rules.toml

from collections.abc import Callable
from typing import Any

import torch

from mlmtutor.doctor.facts import Case, Memory, get, most_common, starts
from mlmtutor.doctor.rules import (
    ALPHA,
    REMASK,
    Problem,
    at_least,
    count_of,
    counted,
    too_few,
    too_many,
)
from mlmtutor.masking import MaskingPolicy

LOWEST_RATE, HIGHEST_RATE = 0.10, 0.50
"""Selection rates in common use, with room for short texts and whole words: 15 to 40 %."""

LEAST_MASK, MOST_RANDOM, MOST_KEPT = 0.70, 0.25, 0.25
"""Shares of the selected positions in common use. 80/10/10 (BERT), 85/0/15 (ELECTRA), 100/0/0
(whole words in transformers), 80/20/0 and 80/0/20 lie inside."""


def policy_of(collator: object) -> MaskingPolicy | None:
    """The recipe of transformers' own collator, where nothing in it was replaced."""
    from transformers import DataCollatorForLanguageModeling as Collator

    own = ("torch_mask_tokens", "numpy_mask_tokens", "torch_call", "numpy_call", "__call__")
    if not isinstance(collator, Collator) or not collator.mlm or get(collator, "whole_word_mask"):
        return None
    if any(getattr(type(collator), name, 0) is not getattr(Collator, name, 0) for name in own):
        return None
    rates = (
        get(collator, "mlm_probability"),
        get(collator, "mask_replace_prob", 0.8),  # not there before 4.48
        get(collator, "random_replace_prob", 0.1),
    )
    try:
        return MaskingPolicy(*rates)
    except (TypeError, ValueError):
        return None


def _draws(case: Case) -> int:
    """How many draws decided what stands at the scored positions: spans are replaced together.

    A span masker keeps to a budget of some 15 %; beyond a quarter, tokens count by themselves.
    """
    chosen = count_of(case.chosen)
    spans = chosen <= 0.25 * count_of(case.maskable) or case.whole_word
    return count_of(starts(case.chosen)) if spans and case.policy is None else chosen


def _chance_of_agreement(rows: torch.Tensor, rate: float) -> float:
    """How likely as many independent rows as given, a number for each column, all agree."""
    rows = rows[rows > 1].double()
    return float((rate**rows + (1 - rate) ** rows).log().sum().exp())


def _rate(case: Case) -> float:
    return count_of(case.chosen) / max(1, count_of(case.maskable))


def whole_rows(case: Case) -> Problem | None:
    text, chosen = case.maskable.sum(dim=1), case.chosen.sum(dim=1)
    whole = (chosen > 0.8 * text) & (text > 1)  # a sign at its end may be a word of its own
    if not whole.any() or not ((chosen == 0) & (text > 1)).any():
        return None
    if not (whole | (chosen == 0)).all() or _chance_of_agreement(0.8 * text, _rate(case)) > ALPHA:
        return None
    return Problem(
        f"{count_of(whole)} of {len(text)} rows are masked as a whole, and no other row at all",
        where=case.chosen,
    )


def partial_word(case: Case) -> Problem | str | None:
    words = case.words
    if not (words >= 0).any():
        return "this tokenizer does not say where a word begins"
    first = torch.arange(len(words)).unsqueeze(1) * words.shape[1]
    word = torch.where(words >= 0, words + first, words.numel())  # counted through all rows
    size = torch.bincount(word[words >= 0], minlength=words.numel() + 1)
    chosen = torch.bincount(word[case.scored & (words >= 0)], minlength=words.numel() + 1)
    where = ((chosen > 0) & (chosen < size))[word]
    if not where.any():
        return None
    return Problem(
        f"{counted(where, 'position is a piece', 'positions are pieces')} of words that are masked "
        "only in part",
        where=where,
    )


def constant_replacement(case: Case) -> Problem | None:
    changed = case.scored & ~case.kept & ~case.masked
    if count_of(changed) < 4:
        return None
    value, count = most_common(case.input_ids[changed])
    where = changed & (case.input_ids == value)
    no_mask = not case.masked.any()
    if not no_mask and (count < count_of(changed) or value in case.special_ids):
        return None  # special ids are what random-special is about
    if count < 0.7 * count_of(changed):
        return None
    answers = case.labels[changed].unique().numel()  # one word that is always replaced alike
    choices = max(2, len(case.tokenizer) - len(case.special_ids) - 1)
    if answers < 3 or choices * at_least(count, count_of(changed), 1 / choices) > ALPHA:
        return None
    token = case.tokenizer.convert_ids_to_tokens(value)
    if no_mask:
        return Problem(
            f"one id, {value} ({token}), stands at {count} of {count_of(case.scored)} scored "
            f"positions and the mask token {case.mask_id} at none: is the id of another "
            "tokenizer's mask token written into the program?",
            "use tokenizer.mask_token_id: "
            f'`batch["input_ids"] = torch.where((batch["labels"] != -100) & (batch["input_ids"] == '
            f'{value}), tokenizer.mask_token_id, batch["input_ids"])`',
            where,
        )
    return Problem(
        f"the same id, {value} ({token}), stands at all {count} positions that were replaced at "
        "random: it was drawn once for all of them",
        where=where,
        severity="warning",
    )


def never_replaced(case: Case) -> Problem | None:
    chosen, policy = case.chosen, case.policy
    kept = 0.15 if policy is None else 1 - policy.mask - policy.random
    if not case.kept[chosen].all() or kept ** _draws(case) > ALPHA:
        return None
    return Problem(
        f"all {count_of(chosen)} scored positions still hold their own token: nothing was masked",
        where=chosen,
    )


def replacement_shares(case: Case) -> Problem | None:
    chosen, policy = case.chosen, case.policy
    count, masked = count_of(chosen), count_of(chosen & case.masked)
    kept = count_of(chosen & case.kept & ~case.masked)
    drawn = count - masked - kept
    if policy is None:
        draws = _draws(case)
        parts = [round(n * draws / max(1, count)) for n in (masked, drawn, kept)]
        odd = too_few(parts[0], draws, LEAST_MASK) or (
            too_many(parts[1], draws, MOST_RANDOM) or too_many(parts[2], draws, MOST_KEPT)
        )
        mask, random, told = 0.8, 0.1, "no recipe is known here"
    else:
        mask, random, told = policy.mask, policy.random, "the recipe is known"
        # A random token may be the mask token, or the very one that it replaces.
        slack = random / max(1, len(case.tokenizer) - len(case.special_ids))
        odd = any(
            too_few(seen, count, share - below) or too_many(seen, count, share + above)
            for seen, share, below, above in (
                (masked, mask, 0.0, slack),
                (drawn, random, 2 * slack, 0.0),
                (kept, 1 - mask - random, 0.0, slack),
            )
        )
    if not odd:
        return None
    own = 1 - mask - random
    said = (
        f"of {count} scored positions {masked} hold [MASK], {drawn} a random token and {kept} "
        f"their own; {mask:.0%}/{random:.0%}/{own:.0%} would give about {mask * count:.0f}, "
        f"{random * count:.0f} and {own * count:.0f} ({told})"
    )
    return _judged_by(policy, said, chosen & ~case.masked)


def _judged_by(policy: Any, said: str, where: torch.Tensor | None = None) -> Problem:
    """An info without a recipe; with one a warning, whose fix masks again by it."""
    if policy is None:
        return Problem(said, where=where, severity="info")
    rates = ", ".join(f"{name}={getattr(policy, name)}" for name in ("select", "mask", "random"))
    again = REMASK.replace("tokenizer)", f"tokenizer, policy=MaskingPolicy({rates}))")
    return Problem(said, f"mask again: {again}", where)


def _rate_is_odd(case: Case, odd: Callable[..., bool], common: float) -> Problem | None:
    """The problem where the number of scored tokens, or whole words, is not that of the recipe."""
    chosen, text, policy = case.chosen, case.maskable, case.policy
    if policy is not None and policy.whole_word:
        first = torch.nn.functional.pad(case.words, (1, 0), value=-1)[:, :-1] != case.words
        chosen, text = chosen & first, text & first
    count, total = count_of(chosen), count_of(text)
    if not odd(count, total, common if policy is None else policy.select):
        return None
    usual = "15 to 40 % are usual, and no recipe is known here"
    if policy is not None:
        usual = f"the recipe has {policy.select:.0%}"
    said = f"{count} of {total} positions of text are scored, {count / total:.1%}; {usual}"
    return _judged_by(policy, said)


def selection_low(case: Case) -> Problem | None:
    prompt = case.policy is None and case.is_cloze
    return None if prompt else _rate_is_odd(case, too_few, LOWEST_RATE)


def selection_high(case: Case) -> Problem | None:
    return _rate_is_odd(case, too_many, HIGHEST_RATE)


def random_special(case: Case) -> Problem | None:
    special_ids = case.special_ids[case.special_ids != case.mask_id].unique()
    random = case.scored & ~case.kept & ~case.masked
    where = random & torch.isin(case.input_ids, special_ids)
    if not where.any():
        return None
    # What is seen as random is neither the mask token nor the answer itself.
    rate = len(special_ids) / max(1, len(case.tokenizer) - 2)
    said = (
        f"of {counted(random, 'random replacement', 'random replacements')} "
        f"{counted(where, 'is a special token', 'are special tokens')}"
    )
    if too_many(count_of(where), count_of(random), min(rate, 1.0)):
        return Problem(said, where=where)
    healthy = "nothing: transformers draws from the whole vocabulary; mask_tokens draws none"
    return Problem(said, healthy, where, "info")


def same_mask_rows(case: Case) -> Problem | None:
    text, chosen = case.maskable, case.chosen
    rows, count = text.sum(dim=0), chosen.sum(dim=0)
    if case.is_prompt or not chosen.any() or ((count > 0) & (count < rows)).any():
        return None
    if _chance_of_agreement(rows, _rate(case)) > ALPHA:
        return None
    places = counted(count > 0, "position", "positions")
    return Problem(f"all {len(text)} rows are masked at the same {places}", where=chosen)


def _texts_that_come_again(case: Case, earlier: Memory) -> int:
    """How many positions of repeated texts are masked alike; 0 if a text is masked in a new way."""
    positions = 0
    for row, (text, mask) in enumerate(case.rows()):
        for before in earlier.masks.get(text, []):
            if before != mask:
                return 0
            positions += count_of(case.maskable[row])
    return positions


def same_mask_epochs(case: Case) -> Problem | None:
    earlier: Any = case.earlier
    if case.is_prompt and earlier.is_prompt:
        return None
    now = torch.where(case.maskable, case.scored.to(torch.int8), -1)
    for positions, what in (
        (_texts_that_come_again(case, earlier), "texts that come again are masked alike"),
        (earlier.agreeing(now) or 0, "every batch is masked at the same positions"),
    ):
        if _chance_of_agreement(torch.full((positions,), 2), _rate(case)) < ALPHA:
            return Problem(what, where=case.scored)
    return None


def padding_attended(case: Case) -> Problem | None:
    pads = case.original == case.pad_id  # at an end of the row: others were drawn at random
    pads = pads.int().cumprod(dim=1).bool() | pads.flip(1).int().cumprod(dim=1).flip(1).bool()
    where = pads if case.visible is None else pads & case.visible
    missing = case.raw("attention_mask") is None
    if case.pad_means_more or not where.any() or (case.visible is None and not missing):
        return None
    return Problem(
        f"the model reads {counted(where, 'position', 'positions')} of padding",
        where=where,
        severity="info" if missing else "warning",
    )
