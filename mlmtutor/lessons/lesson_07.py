"""Lesson 07, find the bug: its exercises and its figure."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch.nn.functional import one_hot

from mlmtutor.doctor import RULES, Diagnosis, Problem, diagnose, rule
from mlmtutor.figure import COLOURS, PALE, Figure, arrow, box, drawing, finish, plain
from mlmtutor.lessons.exercise import CHANGED_KEYS, ByHand, exercise, refuse_where
from mlmtutor.lessons.lesson_06 import quiet_trainer
from mlmtutor.loss import masked_lm_loss
from mlmtutor.model import load_tutor

MASK = 103  # the id of [MASK]
FOUR = [
    "The old man sat down by the fire and lit his pipe.",
    "We walked along the river until it was dark.",
    "My mother wrote me a long letter from the city.",
    "The horse ran across the field and jumped over the wall.",
]


def outcome(batch: Mapping[str, Any], model: Any) -> str:
    """Return what somebody sees who passes this batch to the model: the loss, or the error."""
    try:
        loss = model(**batch).loss
    except (IndexError, TypeError) as error:
        return f"{type(error).__name__}: {error}"
    return "loss None" if loss is None else f"loss {loss:.2f}"


def trainer_of(batch: Mapping[str, Any], collator: Any, model: Any, tokenizer: Any) -> Any:
    """Return a ``transformers.Trainer`` that trains and evaluates on the rows of a batch."""
    rows = [dict(zip(batch, row, strict=True)) for row in zip(*batch.values(), strict=True)]
    given = {"train_dataset": rows, "data_collator": collator, "processing_class": tokenizer}
    return quiet_trainer(model, rows, **given)


def copier_loss(batch: Mapping[str, Any], vocab_size: int) -> torch.Tensor:
    """Return the loss of a machine that copies its input and guesses evenly at [MASK]."""
    logits = 40 * one_hot(batch["input_ids"], vocab_size).double()  # sure of what it reads
    logits[batch["input_ids"] == MASK] = 0
    return masked_lm_loss(logits, batch["labels"])


def wrong_on(loss: Callable[..., torch.Tensor]) -> list[str]:
    """Return on which of four small batches a loss function isn't ``masked_lm_loss``."""
    scores = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    batches = {"one answer": [3], "four answers": [3, 1, 4, 2]}
    batches |= {"two ignored": [3, 1, -100, -100], "id 0": [3, 0, 4, 2]}
    toys = {name: (scores[: len(a)], torch.tensor(a)) for name, a in batches.items()}
    return [n for n, toy in toys.items() if not torch.isclose(loss(*toy), masked_lm_loss(*toy))]


def symptom_map(places: Mapping[str, str]) -> Figure:
    """Draw a row for each symptom, with an arrow to the place where its cause is looked for."""
    canvas, axes = drawing(72, 2 + 7 * len(places))
    for row, (seen, place) in enumerate(places.items()):
        y = 2 + 7 * row
        box(axes, 0, y, seen, width=25, height=5, fill=COLOURS["wrong"], fontsize=14)
        arrow(axes, (26, y + 2.5), (32, y + 2.5), COLOURS["ignored"])
        box(axes, 33, y, "", width=39, height=5, fill=PALE)
        axes.text(34, y + 2.5, plain(place), ha="left", va="center", fontsize=14)
    told = "; ".join(f"{seen}: {place}" for seen, place in places.items())
    return finish(canvas, alt=f"What you see, and where to look. {told}.",
        caption="Left: what you see. Right: where to look first.")  # fmt: skip


def _broken_batches():
    """Two batches with three defects in their labels, each with its ids from before masking."""
    first = [101, 1045, 2215, 2000, 2689, 1996, 2088, 102]
    second = [101, 2016, 4149, 1996, 2482, 1012, 102, 0]
    other = [[101, 1996, 2210, 2158, 102], [101, 2057, 2939, 102, 0], [101, 2026, 3566, 2626, 102]]
    cases = []
    for rows, changed, kept in (
        ([first, second], {(0, 4): MASK, (1, 1): MASK, (0, 2): 7592}, (1, 4)),
        (other, {(0, 3): MASK, (2, 1): MASK, (1, 1): 7592}, (2, 2)),
    ):
        original = torch.tensor(rows)
        input_ids, old = original.clone(), torch.full_like(original, -1)
        for place, token_id in changed.items():
            input_ids[place] = old[place] = token_id
        old[kept] = original[kept]
        rest = {"input_ids": input_ids, "attention_mask": (original != 0).long()}
        cases.append(({**rest, "masked_lm_labels": old}, original))
    return cases


def with_labels(batch, labels, **more):
    rest = {name: value for name, value in batch.items() if name != "masked_lm_labels"}
    return {**rest, "labels": labels, **more}


def _parts(batch, original):
    """The batch, its ids before masking, its old labels, and the right ones."""
    old = batch["masked_lm_labels"]
    return batch, original, old, torch.where(old == -1, -100, original)


@exercise(
    cases=_broken_batches,
    says="All three defects are gone: the name, the ignore value, and the copied answers.",
    returns=("batch",),
    of=_parts,
)
def check_repair_batch(batch, original):
    """repair_batch(batch, original): a new batch, a dict, that trains."""
    return with_labels(batch, _parts(batch, original)[-1])


check_repair_batch.wrong |= {
    "One defect is left: the labels still stand under `masked_lm_labels`, and there are no "
    "`labels`. transformers 5 ignores the old name, and the loss is None.":
        lambda b, o, old, y: {**b, "masked_lm_labels": y},
    "The old key `masked_lm_labels` is still there beside `labels`. transformers 4 raises a "
    "TypeError for it: `pop` it.": lambda b, o, old, y: {**b, "labels": y},
    "One defect is left: -1 marks what is not scored, and the loss takes it for an id.":
        lambda b, o, old, y: with_labels(b, torch.where(old == -1, -1, o)),
    "One defect is left: the answers were copied after masking. The label at (0, 4) is 103, the id "
    "of [MASK]; `original` holds the answer.":
        lambda b, o, old, y: with_labels(b, old.masked_fill(old == -1, -100)),
    "One defect is half repaired: the label at (0, 2) is 7592, the random token that was put "
    "there. Where [MASK] stands your answers are right.":
        lambda b, o, old, y: with_labels(b, torch.where(old == 7592, old, y)),
    "Only the [MASK] positions are labelled now. The random token at (0, 2) and the kept one at "
    "(1, 4) were chosen too: all that were not -1.":
        lambda b, o, old, y: with_labels(b, torch.where(b["input_ids"] == MASK, o, -100)),
    "Every position has a label now, padding too. What was -1 becomes -100.":
        lambda b, o, old, y: with_labels(b, o.clone()),
    "The kept token at (1, 4) has lost its label. It was chosen, though the input still shows it: "
    "the old labels say which positions were chosen, the input doesn't.":
        lambda b, o, old, y: with_labels(b, torch.where(b["input_ids"] == o, -100, o)),
    CHANGED_KEYS: lambda b, o, old, y: b.update(labels=y) or b,
    "Your function returns the labels. Return the repaired batch, a dict.": lambda b, o, old, y: y,
    "Your batch has other input_ids: the text is no longer masked. All three defects are in the "
    "labels.": lambda b, o, old, y: with_labels(b, y, input_ids=o.clone()),
}  # fmt: skip


def _unk_labels(case):
    return case.labels == case.tokenizer.unk_token_id


def _unknown(batch, tokenizer, where=_unk_labels, code="unk-labelled", severity="warning",
             needs=("labels", "tokenizer"), points=True):  # fmt: skip
    """diagnose_unknown(batch, tokenizer): diagnose, with a rule for labels that are [UNK]."""

    @rule(code, severity, needs=needs)
    def unk_labelled(case):
        found = where(case)
        shown = found if points else None
        return Problem("labels are [UNK]", "set them to -100", shown) if found.any() else None

    try:
        return diagnose(batch, tokenizer)
    finally:
        del RULES[code]


def _unknown_batches(unk, mask):
    """A batch with [UNK] as label at (0, 3) and (1, 2), one with other labels, one without."""
    original = torch.tensor(
        [[101, 2002, 8823, unk, 1998, unk, 1012, 102], [101, 1996, unk, 2001, 3835, 1012, 102, 0]]
    )
    labels, input_ids = torch.full_like(original, -100), original.clone()
    labels[0, 3] = labels[1, 2] = unk  # (0, 5) is [UNK], and isn't scored
    labels[0, 2] = original[0, 2]
    input_ids[0, 2] = input_ids[0, 3] = mask
    sick = {"input_ids": input_ids, "attention_mask": original.ne(0).long(), "labels": labels}
    healthy = {**sick, "labels": labels.masked_fill(labels == unk, -100)}
    healthy["input_ids"] = input_ids.masked_fill(labels == unk, unk)
    return sick, healthy, {name: value for name, value in sick.items() if name != "labels"}


def _judge_unknown(diagnose_unknown):
    _, tokenizer = load_tutor()
    other = copy.deepcopy(tokenizer)
    other.unk_token = "[unused0]"
    for one in (tokenizer, other):  # the id of [UNK] belongs to the tokenizer
        before = dict(RULES)
        try:
            batches = _unknown_batches(one.unk_token_id, one.mask_token_id)
            answers = [diagnose_unknown(batch, one) for batch in batches]
            added, lost = set(RULES) - set(before), set(before) - set(RULES)
        finally:
            RULES.clear()
            RULES.update(before)
        _refuse_what_is_wrong(answers, added, lost, other_tokenizer=one is other)
    return "Found where [UNK] is a label, nothing elsewhere, and no longer registered."


def _refuse_what_is_wrong(answers, added, lost, other_tokenizer):
    """Say what is wrong with the table of rules or the diagnoses, if anything is."""
    types = {type(answer) for answer in answers} - {Diagnosis}
    refuse_where({
        f"The rule {min(added, default='')!r} stays registered after the call, so every later "
        "diagnose runs it. Take it out in a `finally`: `del RULES[code]`.": added,
        "Rules of mlmtutor are missing from RULES after the call. Take out your own alone.": lost,
        f"Your function returns a {', '.join(each.__name__ for each in types)}. Return what "
        "`diagnose` returns.": types,
    })  # fmt: skip
    first, second, third = answers
    found = {finding.code: finding for finding in first.findings}
    finding, wanted = found.get("unk-labelled"), ((0, 3), (1, 2))
    at, severity = (finding.positions, finding.severity) if finding else ((), "")
    why = dict(first.unchecked).get("unk-labelled")
    refuse_where({
        "The other rules do not run: a batch without labels has no finding. Call "
        "`diagnose(batch, tokenizer)` while your rule is registered.":
            "labels-missing" not in third.codes,
        "On a batch without labels your rule raises an error. `needs=('labels', 'tokenizer')` "
        "tells `diagnose` not to ask it then.":
            "unk-labelled" in {code for code, why in third.unchecked if "failed" in why},
        "With another tokenizer, whose [UNK] has another id, your rule finds nothing. Ask "
        "`case.tokenizer.unk_token_id`.": not finding and other_tokenizer,
        "A batch in which two labels are [UNK] has "
        f"{f'the findings {sorted(found)}' if found else 'no finding'}, "
        f"{f'because {why}.' if why else 'and none is `unk-labelled`.'}": not finding,
        "A batch in which no label is [UNK] has the finding too. An [UNK] that is not scored does "
        "no harm.": "unk-labelled" in second.codes,
        "Your finding has no positions. The third part of a Problem is `where`, a boolean tensor "
        "of the shape of the labels.": not at,
        "The label at (0, 3) is [UNK], and the input shows [MASK] there: your rule misses it. Look "
        "at the labels, not at the input.": set(at) < set(wanted),
        f"Your finding has {len(at)} positions, the first at {(*at, None)[0]}, and the labels are "
        "[UNK] at (0, 3) and (1, 2) alone.": at != wanted,
        f"The finding is of severity {severity!r}. The batch trains, and probably not what was "
        "meant: that is a warning.": severity != "warning",
    })  # fmt: skip


check_diagnose_unknown = ByHand(_unknown, _judge_unknown)


def _input_is_unk(case):
    return case.input_ids == case.tokenizer.unk_token_id


def _stays(batch, tokenizer):
    RULES["unk-labelled"] = RULES["labels-missing"]
    return diagnose(batch, tokenizer)


def _cleared(batch, tokenizer):
    answer = _unknown(batch, tokenizer)
    RULES.clear()
    return answer


def _alone(batch, tokenizer):
    answer = _unknown(batch, tokenizer)
    own = (finding for finding in answer.findings if finding.code == "unk-labelled")
    return replace(answer, findings=tuple(own))


check_diagnose_unknown.wrong |= {  # by some words of what is said
    "'unk-labelled' stays registered": _stays,
    "Rules of mlmtutor are missing": _cleared,
    "has no finding, and none is `unk-labelled`": diagnose,
    "has the findings ['unkn": partial(_unknown, code="unknown"),
    "is of severity 'error'": partial(_unknown, severity="error"),
    "no label is [UNK] has the finding too": partial(_unknown, where=_input_is_unk),
    "your rule misses it": partial(_unknown, where=lambda c: c.scored & _input_is_unk(c)),
    "has 16 positions, the first at (0, 0)":
        partial(_unknown, where=lambda c: _unk_labels(c).any(1, True).expand_as(c.labels)),
    "your rule raises an error": partial(_unknown, needs=()),
    "has no positions": partial(_unknown, points=False),
    "returns a tuple": lambda batch, tokenizer: _unknown(batch, tokenizer).findings,
    "The other rules do not run": _alone,
    "whose [UNK] has another id": partial(_unknown, where=lambda c: c.labels == 100),
}  # fmt: skip
