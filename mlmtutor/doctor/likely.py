"""The second half of the table: which positions are labelled, and is that likely?"""

from typing import Any

import torch

from mlmtutor.doctor import possible  # noqa: F401  its rules come first
from mlmtutor.doctor.facts import Case
from mlmtutor.doctor.rules import (
    ALPHA,
    REMASK,
    Problem,
    at_least,
    at_most,
    count_of,
    counted,
    rule,
    set_labels,
)

LOWEST_RATE, HIGHEST_RATE = 0.10, 0.50
"""Selection rates that are not questioned: 15 to 40 % are in use, and short texts and whole words
need room around that."""

LEAST_MASK, MOST_RANDOM, MOST_KEPT = 0.70, 0.25, 0.25
"""Shares of the selected positions that are not questioned. 80/10/10 (BERT), 85/0/15 (ELECTRA),
100/0/0 (whole words in transformers), 80/20/0 and 80/0/20 lie inside."""

NO_LABELS = ("ignore-in-input", "labels-binary")

# Which positions are labelled? -------------------------------------------------------------------


@rule("shifted", "error", needs=("labels",), unless=NO_LABELS)
def _shifted(case: Case) -> Problem | None:
    """Each label belongs to the position next to it, as in a causal model.

    Symptom: the loss stays high; the model answers with the next token.
    Source: transformers#5886; LLaVA#171.
    """
    ids, labels, scored = case.input_ids, case.labels, case.scored
    count = count_of(scored)
    here = count_of(case.kept | (scored & case.masked))
    bare = case.masked & ~scored  # a healthy batch has no [MASK] without a label
    if not bare.any() and count < 3:
        return None
    for step, word in ((1, "next"), (-1, "previous")):
        neighbour = ids.roll(-step, dims=1)
        beside_mask = case.masked.roll(-step, dims=1) & (ids != labels)  # its answer is not here
        fits = scored & ((neighbour == labels) | beside_mask)
        fits[:, -1 if step == 1 else 0] = False
        # Does every bare [MASK] get a label by moving them? Then some random tokens may not fit.
        cured = bool(bare.any()) and not (case.masked & ~scored.roll(step, dims=1)).any()
        if count_of(fits) > 0.5 * count and (
            cured or (count_of(fits) > 0.8 * count and here <= 0.5 * count)
        ):
            return Problem(
                f"{count_of(fits)} of {count} labels belong to the {word} position: "
                "masked models answer at the same index, only causal models shift",
                set_labels(f'batch["labels"].roll({step}, dims=1)'),
                scored,
            )
    return None


@rule("inverted", "error", needs=("labels", "mask_id"), unless=(*NO_LABELS, "shifted"))
def _inverted(case: Case) -> Problem | None:
    """The labels are on the tokens that were not masked.

    Symptom: the loss is close to 0 at once: nearly every answer can be copied.
    Source: transformers#2946, transformers#3499; HF forum 2346.
    """
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
        set_labels('torch.where(batch["input_ids"] == original, -100, original)'),
        hidden,
    )


@rule(
    "everything-labelled",
    "error",
    needs=("labels",),
    unless=(*NO_LABELS, "shifted", "inverted"),
)
def _everything_labelled(case: Case) -> Problem | None:
    """Every position is scored: ``labels=input_ids``, or a clone without -100.

    Symptom: a loss far too good (0.1 to 0.2) and an accuracy near 1 that mean copying.
    Source: transformers#20797, lucidrains/mlm-pytorch#2, keras-bert#188.
    """
    text = case.maskable
    if not text.any() or not case.scored[text].all() or not case.kept.any():
        return None  # where every answer is hidden, none can be copied
    ends = case.special & ~case.padding & ~case.masked
    # Maskers never select [CLS] or [SEP]: if all of those are scored, that is proof. Otherwise
    # ask how likely it is to select all, and to keep as many, at rates of 40 % and 20 %.
    kept, count = count_of(case.kept & text), count_of(text)
    chance = 0.4**count * at_least(kept, count, 0.2)
    proof = bool(ends.any()) and bool(case.scored[ends].all())
    if not proof and chance > ALPHA:
        return None
    answer_lost = case.mask_id is not None and bool(
        (case.scored & (case.labels == case.mask_id)).any()
    )
    if answer_lost:
        fix = set_labels('torch.where(batch["input_ids"] == original, -100, original)')
    elif torch.equal(case.kept, case.scored):
        fix = f"nothing is masked either: {REMASK}"
    else:
        fix = set_labels(
            'torch.where(batch["input_ids"] == batch["labels"], -100, batch["labels"])'
        )
    pads = count_of(case.scored & case.padding)
    return Problem(
        f"all {count_of(case.scored)} positions are scored"
        + (f", {pads} of them padding" if pads else "")
        + ": most answers can be copied from the input"
        + ("; where [MASK] stands, the label is [MASK] too" if answer_lost else ""),
        fix,
        case.scored,
    )


LABELS_LIE = (*NO_LABELS, "shifted", "inverted", "everything-labelled")


@rule("label-is-mask", "error", needs=("labels", "mask_id"), unless=LABELS_LIE)
def _label_is_mask(case: Case) -> Problem | None:
    """The answer is ``[MASK]`` itself: the labels were copied after masking, or never cloned.

    Symptom: the loss falls to 0 and the model answers [MASK].
    Source: wzzzd/pretrain_bert_with_maskLM#2; the example of SO 61470768 as retold on the web.
    """
    where = case.scored & (case.labels == case.mask_id)
    if not where.any():
        return None
    # A few among many are mask tokens that stood in the text and were selected like a word.
    literal = count_of(where & case.masked) < 0.5 * count_of(case.scored & case.masked)
    cause = "the labels were taken from ids that were masked already"
    fix = "copy the ids before masking (`original = original.clone()`): " + set_labels(
        'torch.where(batch["labels"] == -100, -100, original)'
    )
    if literal:
        cause = "the text itself has mask tokens, and the masker selected them"
        fix = "protect all special tokens: " + set_labels(
            'torch.where(original == tokenizer.mask_token_id, -100, batch["labels"])'
        )
    return Problem(
        f"{counted(where, 'label is', 'labels are')} {case.mask_id}, the id of "
        f"{case.tokenizer.mask_token} itself: {cause}",
        fix,
        where,
        "warning" if literal else "error",
    )


def _padding_scored(case: Case) -> Any:
    """Where a label answers for padding. The label is the original, so [PAD] there is padding."""
    hidden = torch.zeros_like(case.scored) if case.visible is None else case.scored & ~case.visible
    if case.pad_id is None:
        same = case.labels[hidden].unique().numel() == 1
        return hidden if same else torch.zeros_like(hidden)
    pads = case.scored & (case.labels == case.pad_id)
    return pads & hidden if case.pad_means_more else pads


@rule("padding-labelled", "error", needs=("labels",), unless=(*LABELS_LIE, "label-is-mask"))
def _padding_labelled(case: Case) -> Problem | None:
    """Padding is scored. ``attention_mask`` does not prevent it: only -100 does.

    Symptom: the loss depends on how much padding a batch has, and looks better with more.
    Source: transformers#8977, d2l-ai/d2l-en#2582.
    """
    where = _padding_scored(case)
    if not where.any():
        return None
    flat = case.tensor("attention_mask")  # one of four dimensions does not fit the labels
    if flat is not None and flat.shape == where.shape and not (where & case.visible).any():
        fix = set_labels('torch.where(batch["attention_mask"] == 0, -100, batch["labels"])')
    else:
        fix = set_labels('torch.where(original == tokenizer.pad_token_id, -100, batch["labels"])')
    return Problem(
        f"{counted(where, 'position of padding is', 'positions of padding are')} scored", fix, where
    )


@rule(
    "label-hidden",
    "error",
    needs=("labels", "visible"),
    unless=LABELS_LIE,
)
def _label_hidden(case: Case) -> Problem | None:
    """``attention_mask`` is 0 at positions that are scored and are not padding.

    Symptom: the loss stays high: the model answers for positions that it may not look at.
    Source: transformers#7643; CogSciPrag/Understanding-LLMs-course#13.
    """
    where = case.scored & ~case.visible & ~_padding_scored(case)
    if not where.any():
        return None
    at_masks = torch.equal(~case.visible, case.masked)
    return Problem(
        f"attention_mask is 0 at {counted(where, 'scored position', 'scored positions')}"
        + (": it is 0 exactly at the mask tokens, but it says what is padding" if at_masks else ""),
        '`batch["attention_mask"] = (original != tokenizer.pad_token_id).long()`',
        where,
    )


@rule(
    "special-labelled",
    "warning",
    needs=("labels", "tokenizer"),
    unless=(*LABELS_LIE, "label-is-mask"),
)
def _special_labelled(case: Case) -> Problem | None:
    """[CLS] or [SEP] is scored.

    Symptom: the loss is too low: these answers are known from the position alone.
    Source: google-research/bert#166, transformers#1395, AnswerDotAI/ModernBERT#212.
    """
    names = ("cls_token_id", "sep_token_id", "bos_token_id", "eos_token_id")
    ends: set[Any] = {getattr(case.tokenizer, name, None) for name in names}
    ends -= {None, case.pad_id, case.mask_id, getattr(case.tokenizer, "unk_token_id", None)}
    where = case.scored & torch.isin(case.original, torch.tensor(sorted(ends), dtype=torch.int64))
    if not where.any():
        return None
    found = set(case.original[where].tolist())
    return Problem(
        f"{counted(where, 'special token is', 'special tokens are')} scored, of the "
        f"{'id' if len(found) == 1 else 'ids'} {', '.join(map(str, sorted(found)))}",
        set_labels(
            f"torch.where(torch.isin(original, torch.tensor({sorted(found)})), "
            '-100, batch["labels"])'
        ),
        where,
    )


@rule(
    "mask-without-label",
    "warning",
    needs=("labels", "mask_id"),
    unless=(*LABELS_LIE, "nothing-labelled", "label-out-of-range"),
)
def _mask_without_label(case: Case) -> Problem | None:
    """The model reads ``[MASK]`` at positions that are not scored.

    Symptom: fewer answers than masks; the model never learns from these.
    Source: transformers#3499.
    """
    where = case.masked & ~case.scored
    if not where.any():
        return None
    return Problem(
        f"of {counted(case.masked, 'mask token', 'mask tokens')} in the input "
        f"{counted(where, 'has', 'have')} no label: it was dropped, or the text itself held them",
        "take mask tokens out of the text before masking, and score all the others: "
        + set_labels(
            'torch.where(batch["input_ids"] == tokenizer.mask_token_id, original, batch["labels"])'
        ),
        where,
    )


@rule(
    "partial-word",
    "warning",
    needs=("whole_word", "labels", "tokenizer"),
    unless=(*LABELS_LIE, "label-is-mask", "input-out-of-range"),
)
def _partial_word(case: Case) -> Problem | str | None:
    """Some pieces of a word are scored and some are not, where whole words were asked for.

    Symptom: the answer can be read off the pieces that are left.
    Source: transformers#12998, transformers#11768.
    """
    where = torch.zeros_like(case.scored)
    tokens = [case.tokenizer.convert_ids_to_tokens(row) for row in case.original.tolist()]
    flat = [str(token) for row in tokens for token in row]
    hashes = sum(token.startswith("##") for token in flat)
    starts = sum(token.startswith(("Ġ", "▁")) for token in flat)
    if hashes == starts == 0:
        return "no token of this batch says where a word begins"
    special, scored = case.special.tolist(), case.scored.tolist()
    for row, line in enumerate(tokens):
        word: list[int] = []
        for column, token in enumerate([*line, None]):  # None, like a special token, ends a word
            piece = None if token is None or special[row][column] else token
            if word and piece and _continues(line[word[-1]], piece, hashes >= starts):
                word.append(column)
                continue
            if len({scored[row][i] for i in word}) > 1:
                where[row, word] = True
            word = [column] if piece else []
    if not where.any():
        return None
    return Problem(
        f"{counted(where, 'position is a piece', 'positions are pieces')} of words that are masked "
        "only in part",
        "choose words, then take all their pieces: "
        '`batch["input_ids"], batch["labels"] = mask_tokens(original, tokenizer, '
        "policy=MaskingPolicy(whole_word=True), word_ids=word_ids)`",
        where,
    )


def _continues(previous: str, token: str, hashes: bool) -> bool:
    """Whether a token continues the word of the previous one."""
    if hashes:  # WordPiece
        return token.startswith("##")
    letters = previous.lstrip("Ġ▁")  # "Ġ" and "▁" begin a word; "," and "n't" are words too
    return (letters.isalpha() and token.isalpha() and not token.startswith(("Ġ", "▁"))) or (
        letters.isdigit() and token.isdigit()
    )


# Is it likely? -----------------------------------------------------------------------------------


@rule(
    "never-replaced",
    "error",
    needs=("labels",),
    unless=(*LABELS_LIE, "label-is-mask", "label-hidden"),
)
def _never_replaced(case: Case) -> Problem | None:
    """Positions are selected, but the model reads the answer at every one of them.

    Symptom: the loss is close to 0 within a few steps; on real text the model copies.
    Source: codertimo/BERT-pytorch#29 (``if prob < prob * 0.8`` is never true).
    """
    chosen = case.scored & case.maskable
    count = count_of(chosen)
    if not case.kept[chosen].all() or 0.2**count > ALPHA:
        return None
    return Problem(
        f"all {count} scored positions still hold their own token: nothing was masked",
        '`batch["input_ids"] = torch.where(batch["labels"] == -100, batch["input_ids"], '
        "tokenizer.mask_token_id)`",
        chosen,
    )


@rule(
    "replacement-shares",
    "warning",
    needs=("labels", "mask_id"),
    unless=(*LABELS_LIE, "label-is-mask", "never-replaced", "mask-without-label", "label-hidden"),
)
def _replacement_shares(case: Case) -> Problem | None:
    """[MASK], random and kept tokens come in shares that no recipe has.

    Symptom: a model that trains, but worse than its recipe promises.
    Source: transformers#2858, transformers#10285; BERT, arXiv:1810.04805, appendix A.1.
    """
    chosen = case.scored & case.maskable
    count, masked = count_of(chosen), count_of(chosen & case.masked)
    kept = count_of(chosen & case.kept & ~case.masked)
    chance = min(
        at_most(masked, count, LEAST_MASK),
        at_least(count - masked - kept, count, MOST_RANDOM),
        at_least(kept, count, MOST_KEPT),
    )
    if count == 0 or chance > ALPHA:
        return None
    return Problem(
        f"of {count} scored positions {masked} hold [MASK], {count - masked - kept} a random token "
        f"and {kept} their own; 80/10/10 would give about {0.8 * count:.0f}, {0.1 * count:.0f} and "
        f"{0.1 * count:.0f} (chance of this in any known recipe: {chance:.0e})",
        REMASK,
        chosen & ~case.masked,
    )


@rule(
    "selection-low",
    "warning",
    needs=("labels", "tokenizer"),
    unless=(
        *LABELS_LIE,
        "foreign-mask",
        "label-is-mask",
        "nothing-labelled",
        "mask-without-label",
        "label-hidden",
    ),
)
def _selection_low(case: Case) -> Problem | None:
    """Fewer positions are scored than any masking rate in use gives.

    Symptom: training is slow: most of each batch teaches nothing.
    Source: arXiv:1810.04805 (15 %); arXiv:2202.08005 (40 %).
    """
    count, text = count_of(case.scored & case.maskable), count_of(case.maskable)
    if case.is_cloze or at_most(count, text, LOWEST_RATE) > ALPHA:
        return None
    return Problem(
        f"{count} of {text} positions of text are scored, {count / text:.1%}; 15 to 40 % are usual "
        f"(chance of so few at {LOWEST_RATE:.0%}: {at_most(count, text, LOWEST_RATE):.0e})",
        REMASK,
    )


@rule("selection-high", "warning", needs=("labels",), unless=(*LABELS_LIE, "nothing-labelled"))
def _selection_high(case: Case) -> Problem | None:
    """More positions are scored than any masking rate in use gives.

    Symptom: too little text is left to predict from, or most answers are copied.
    Source: arXiv:2202.08005 (40 %, and worse beyond).
    """
    count, text = count_of(case.scored & case.maskable), count_of(case.maskable)
    chance = at_least(count, text, HIGHEST_RATE)
    if text == 0 or chance > ALPHA:
        return None
    return Problem(
        f"{count} of {text} positions of text are scored, {count / text:.1%}; 15 to 40 % are usual "
        f"(chance of so many at {HIGHEST_RATE:.0%}: {chance:.0e})",
        REMASK,
    )


@rule(
    "random-special",
    "warning",
    needs=("labels", "mask_id", "rows_out"),
    unless=(*LABELS_LIE, "label-is-mask"),
)
def _random_special(case: Case) -> Problem | None:
    """Random replacements are special tokens such as [PAD] or [SEP].

    An info, not a warning, where there are no more than in draws from the whole vocabulary, as
    the collator of transformers makes them.

    Symptom: [PAD] or [SEP] in the middle of a sentence.
    Source: transformers#15342.
    """
    special_ids = case.special_ids[case.special_ids != case.mask_id]
    random = case.scored & ~case.kept & ~case.masked
    where = random & torch.isin(case.input_ids, special_ids)
    if not where.any():
        return None
    rate = len(special_ids) / len(case.tokenizer)
    chance = at_least(count_of(where), count_of(random), rate)
    return Problem(
        f"of {counted(random, 'random replacement', 'random replacements')} "
        f"{counted(where, 'is a special token', 'are special tokens')}",
        REMASK,
        where,
        "warning" if chance < ALPHA else "info",
    )


def _chance_of_agreement(rows: torch.Tensor, rate: float) -> float:
    """How likely as many independent rows as given, a number for each column, all agree."""
    rate = min(max(rate, LOWEST_RATE), HIGHEST_RATE)
    rows = rows[rows > 1].double()
    return float((rate**rows + (1 - rate) ** rows).log().sum().exp())


@rule("same-mask-rows", "warning", needs=("labels",), unless=(*LABELS_LIE, "nothing-labelled"))
def _same_mask_rows(case: Case) -> Problem | None:
    """One mask was drawn and used for every row.

    Symptom: some positions are never learned from.
    Source: transformers#5979, transformers#14284.
    """
    text, chosen = case.maskable, case.scored & case.maskable
    rows, count = text.sum(dim=0), chosen.sum(dim=0)
    one_each = bool((case.scored.sum(dim=1) == 1).all())  # a cloze at a fixed place
    if one_each or not chosen.any() or ((count > 0) & (count < rows)).any():
        return None
    if _chance_of_agreement(rows, count_of(chosen) / count_of(text)) > ALPHA:
        return None
    return Problem(
        f"all {len(text)} rows are masked at the same "
        f"{counted(count > 0, 'position', 'positions')}",
        f"draw for every row: {REMASK}",
        chosen,
    )


def _texts_that_come_again(case: Case) -> int:
    """How many positions of repeated texts are masked alike; 0 if a text is masked in a new way."""
    seen: dict[tuple[int, ...], list[torch.Tensor]] = {}
    for other in case.earlier or ():
        for row, text in enumerate(other.original if other.labels is not None else ()):
            real = ~other.padding[row]
            seen.setdefault(tuple(text[real].tolist()), []).append(other.scored[row, real])
    positions = 0
    for row, text in enumerate(case.original):
        real = ~case.padding[row]
        for before in seen.get(tuple(text[real].tolist()), []):
            if not torch.equal(before, case.scored[row, real]):
                return 0
            positions += count_of(case.maskable[row])
    return positions


def _places_that_come_again(case: Case) -> int:
    """How many positions are masked as in every earlier batch; 0 if one has another mask."""
    positions = 0
    for other in case.earlier or ():
        if other.labels is None or other.labels.shape != case.labels.shape:
            return 0
        both = case.maskable & other.maskable
        if not torch.equal(case.scored & both, other.scored & both):
            return 0
        positions += count_of(both)
    return positions


@rule(
    "same-mask-epochs",
    "warning",
    needs=("labels", "earlier"),
    unless=(*LABELS_LIE, "nothing-labelled"),
)
def _same_mask_epochs(case: Case) -> Problem | None:
    """A text that comes again has the same mask, or every batch has the same mask.

    Symptom: the training loss goes on falling and the validation loss does not (static masking).
    Source: transformers#5979, transformers#14284; RoBERTa, arXiv:1907.11692, section 4.1.
    """
    rate = count_of(case.scored & case.maskable) / max(1, count_of(case.maskable))
    for positions, what in (
        (_texts_that_come_again(case), "texts that come again are masked at the same positions"),
        (_places_that_come_again(case), "every batch is masked at the same positions"),
    ):
        if _chance_of_agreement(torch.full((positions,), 2), rate) < ALPHA:
            return Problem(
                what,
                "mask when a batch is made, not once before training, and do not set the seed for "
                "each: `batch = [collator(rows) for _ in batch]`",
                case.scored,
            )
    return None


@rule(
    "padding-attended",
    "info",
    needs=("input_ids", "pad_id"),
    unless=("label-hidden", "label-is-mask", "empty"),
)
def _padding_attended(case: Case) -> Problem | None:
    """The model reads padding: ``attention_mask`` is missing, or 1 there.

    Symptom: the answers for a text change with the length of its neighbours.
    Source: namiyousef/argument-mining#30; ``modeling_bert.py`` warns of it too.
    """
    pads = case.original == case.pad_id
    where = pads if case.visible is None else pads & case.visible
    if case.pad_means_more or not where.any():
        return None
    return Problem(
        f"the model reads {counted(where, 'position', 'positions')} of padding",
        '`batch["attention_mask"] = (original != tokenizer.pad_token_id).long()`',
        where,
    )
