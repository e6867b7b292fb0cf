"""Lesson 07, find the bug: its exercises and its figure."""

import copy
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from mlmtutor.figure import COLOURS, PALE, Figure, arrow, box, drawing, finish, plain
from mlmtutor.lessons.exercise import ByHand, WrongAnswer, exercise

MASK = 103  # the id of [MASK]


def outcome(batch: Mapping[str, Any], model: Any) -> str:
    """Return what somebody sees who passes this batch to the model: the loss, or the error."""
    try:
        loss = model(**batch).loss
    except (IndexError, TypeError) as error:
        return f"{type(error).__name__}: {error}"
    return "loss None" if loss is None else f"loss {loss:.2f}"


def trainer_of(batch: Mapping[str, Any], collator: Any, model: Any, tokenizer: Any) -> Any:
    """Return a ``transformers.Trainer`` that trains and evaluates on the rows of a batch."""
    import transformers

    rows = [dict(zip(batch, row, strict=True)) for row in zip(*batch.values(), strict=True)]
    with tempfile.TemporaryDirectory() as folder:
        options = transformers.TrainingArguments(
            folder, report_to="none", disable_tqdm=True, use_cpu=True
        )
        return transformers.Trainer(
            model, options, collator, rows, rows, processing_class=tokenizer
        )


def symptom_map(places: Mapping[str, str]) -> Figure:
    """Draw for each symptom where its cause is looked for.

    Args:
        places: what you see, and the place to look at.

    Returns:
        The figure: one row a symptom, an arrow from what you see to where you look.
    """
    canvas, axes = drawing(72, 2 + 7 * len(places))
    for row, (seen, place) in enumerate(places.items()):
        y = 2 + 7 * row
        box(axes, 0, y, seen, width=25, height=5, fill=COLOURS["wrong"], fontsize=14)
        arrow(axes, (26, y + 2.5), (32, y + 2.5), COLOURS["ignored"])
        box(axes, 33, y, "", width=39, height=5, fill=PALE)
        axes.text(34, y + 2.5, plain(place), ha="left", va="center", fontsize=14)
    told = "; ".join(f"{seen}: {place}" for seen, place in places.items())
    return finish(
        canvas,
        alt=f"What you see, and where to look. {told}.",
        caption="Left: what you see. Right: where to look first.",
    )


def _broken_batches() -> list[tuple[Any, ...]]:
    """Two batches with three defects in their labels, each with its ids from before masking."""
    first = [
        [101, 1045, 2215, 2000, 2689, 1996, 2088, 102],
        [101, 2016, 4149, 1996, 2482, 1012, 102, 0],
    ]
    second = [
        [101, 1996, 2210, 2158, 102],
        [101, 2057, 2939, 102, 0],
        [101, 2026, 3566, 2626, 102],
    ]
    cases: list[tuple[Any, ...]] = []
    for rows, masked, drawn, kept in (
        (first, [(0, 4), (1, 1)], (0, 2), (1, 4)),
        (second, [(0, 3), (2, 1)], (1, 1), (2, 2)),
    ):
        original = torch.tensor(rows)
        input_ids = original.clone()
        for place in masked:
            input_ids[place] = MASK
        input_ids[drawn] = 7592
        chosen = input_ids != original
        chosen[kept] = True
        batch = {
            "input_ids": input_ids,
            "attention_mask": (original != 0).long(),
            "masked_lm_labels": input_ids.masked_fill(~chosen, -1),
        }
        cases.append((batch, original))
    return cases


@exercise(
    cases=_broken_batches,
    says="All three defects are gone: the name, the ignore value, and the copied answers.",
    returns=("batch",),
)
def check_repair_batch(batch, original):
    """repair_batch(batch, original): a new batch, a dict, that trains."""
    repaired = dict(batch)
    old = repaired.pop("masked_lm_labels")
    repaired["labels"] = torch.where(old == -1, -100, original)
    return repaired


def _with_labels(batch, labels):
    rest = {name: value for name, value in batch.items() if name != "masked_lm_labels"}
    return {**rest, "labels": labels}


@check_repair_batch.mistake(
    "One defect is left: the labels still stand under `masked_lm_labels`, and there are no "
    "`labels`. transformers 5 ignores the old name, and the loss is None."
)
def _(batch, original):
    labels = torch.where(batch["masked_lm_labels"] == -1, -100, original)
    return {**batch, "masked_lm_labels": labels}


@check_repair_batch.mistake(
    "The old key `masked_lm_labels` is still there beside `labels`. transformers 4 raises a "
    "TypeError for it: `pop` it."
)
def _(batch, original):
    return {**batch, "labels": torch.where(batch["masked_lm_labels"] == -1, -100, original)}


@check_repair_batch.mistake(
    "One defect is left: -1 marks what is not scored, and the loss takes it for an id."
)
def _(batch, original):
    return _with_labels(batch, torch.where(batch["masked_lm_labels"] == -1, -1, original))


@check_repair_batch.mistake(
    "One defect is left: the answers were copied after masking. The label at (0, 4) is 103, the "
    "id of [MASK]; `original` holds the answer."
)
def _(batch, original):
    old = batch["masked_lm_labels"]
    return _with_labels(batch, old.masked_fill(old == -1, -100))


@check_repair_batch.mistake(
    "One defect is half repaired: the label at (0, 2) is 7592, the random token that was put "
    "there. Where [MASK] stands your answers are right."
)
def _(batch, original):
    old = batch["masked_lm_labels"]
    return _with_labels(batch, torch.where(old == MASK, original, old.masked_fill(old == -1, -100)))


@check_repair_batch.mistake(
    "Only the [MASK] positions are labelled now. The random token at (0, 2) and the kept one at "
    "(1, 4) were chosen too: all that were not -1."
)
def _(batch, original):
    return _with_labels(batch, torch.where(batch["input_ids"] == MASK, original, -100))


@check_repair_batch.mistake(
    "Every position has a label now, padding too. What was -1 becomes -100."
)
def _(batch, original):
    return _with_labels(batch, original.clone())


@check_repair_batch.mistake(
    "The kept token at (1, 4) has lost its label. It was chosen, though the input still shows it: "
    "the old labels say which positions were chosen, the input doesn't."
)
def _(batch, original):
    return _with_labels(batch, torch.where(batch["input_ids"] == original, -100, original))


@check_repair_batch.mistake(
    "Your function changes the dictionary that it was given, and the caller loses it. Make a new "
    "one: `new = dict(given)`."
)
def _(batch, original):
    old = batch.pop("masked_lm_labels")
    batch["labels"] = torch.where(old == -1, -100, original)
    return batch


@check_repair_batch.mistake("Your function returns the labels. Return the repaired batch, a dict.")
def _(batch, original):
    return torch.where(batch["masked_lm_labels"] == -1, -100, original)


@check_repair_batch.mistake(
    "Your batch has other input_ids: the text is no longer masked. All three defects are in the "
    "labels."
)
def _(batch, original):
    labels = torch.where(batch["masked_lm_labels"] == -1, -100, original)
    return {**_with_labels(batch, labels), "input_ids": original.clone()}


def _unknown_right(batch, tokenizer):
    """diagnose_unknown(batch, tokenizer): diagnose, with a rule for labels that are [UNK]."""
    return _diagnose_with(_unk_labels, batch, tokenizer)


def _diagnose_with(function, batch, tokenizer, code="unk-labelled", severity="warning", needs=None):
    """Diagnose with ``function(case)``, which says where, registered for this call."""
    from mlmtutor.doctor import RULES, Problem, diagnose, rule

    @rule(code, severity, needs=("labels", "tokenizer") if needs is None else needs)
    def unk_labelled(case):
        where = function(case)
        return Problem("labels are [UNK]", "set them to -100", where) if where.any() else None

    try:
        return diagnose(batch, tokenizer)
    finally:
        del RULES[code]


def _unk_labels(case):
    return case.labels == case.tokenizer.unk_token_id


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
    from mlmtutor.doctor import RULES
    from mlmtutor.model import load_tutor

    _, tokenizer = load_tutor()
    other = copy.deepcopy(tokenizer)
    other.unk_token = "[unused0]"
    for one in (tokenizer, other):  # the id of [UNK] belongs to the tokenizer
        before = dict(RULES)
        try:
            batches = _unknown_batches(one.unk_token_id, one.mask_token_id)
            answers = [diagnose_unknown(batch, one) for batch in batches]
            after = set(RULES)
        finally:
            RULES.clear()
            RULES.update(before)
        _require_table(set(before), after)
        _require_findings(answers, other_tokenizer=one is other)
    return "Found where [UNK] is a label, nothing elsewhere, and no longer registered."


def _require_table(before, after):
    """Require that the table of rules is what it was."""
    if after - before:
        raise WrongAnswer(
            f"The rule {min(after - before)!r} stays registered after the call, so every later "
            "diagnose runs it. Take it out in a `finally`: `del RULES[code]`."
        )
    if before - after:
        raise WrongAnswer(
            "Rules of mlmtutor are missing from RULES after the call. Take out your own alone."
        )


def _require_findings(answers, other_tokenizer):
    """Require what the diagnoses of the three batches should say."""
    from mlmtutor.doctor import Diagnosis

    for answer in answers:
        if not isinstance(answer, Diagnosis):
            raise WrongAnswer(
                f"Your function returns a {type(answer).__name__}. Return what `diagnose` returns."
            )
    first, second, third = answers
    if "labels-missing" not in third.codes:
        raise WrongAnswer(
            "The other rules do not run: a batch without labels has no finding. Call "
            "`diagnose(batch, tokenizer)` while your rule is registered."
        )
    if "unk-labelled" in {code for code, why in third.unchecked if "failed" in why}:
        raise WrongAnswer(
            "On a batch without labels your rule raises an error. `needs=('labels', 'tokenizer')` "
            "tells `diagnose` not to ask it then."
        )
    found = {finding.code: finding for finding in first.findings}
    if "unk-labelled" not in found:
        if other_tokenizer:
            raise WrongAnswer(
                "With another tokenizer, whose [UNK] has another id, your rule finds nothing. Ask "
                "`case.tokenizer.unk_token_id`."
            )
        has = f"the findings {sorted(found)}" if found else "no finding"
        why = dict(first.unchecked).get("unk-labelled")
        raise WrongAnswer(
            f"A batch in which two labels are [UNK] has {has}, "
            + (f"because {why}." if why else "and none is `unk-labelled`.")
        )
    if "unk-labelled" in second.codes:
        raise WrongAnswer(
            "A batch in which no label is [UNK] has the finding too. An [UNK] that is not scored "
            "does no harm."
        )
    finding, wanted = found["unk-labelled"], ((0, 3), (1, 2))
    if not finding.positions:
        raise WrongAnswer(
            "Your finding has no positions. The third part of a Problem is `where`, a boolean "
            "tensor of the shape of the labels."
        )
    if set(finding.positions) < set(wanted):
        raise WrongAnswer(
            "The label at (0, 3) is [UNK], and the input shows [MASK] there: your rule misses it. "
            "Look at the labels, not at the input."
        )
    if finding.positions != wanted:
        raise WrongAnswer(
            f"Your finding has {len(finding.positions)} positions, the first at "
            f"{finding.positions[0]}, and the labels are [UNK] at (0, 3) and (1, 2) alone."
        )
    if finding.severity != "warning":
        raise WrongAnswer(
            f"The finding is of severity {finding.severity!r}. The batch trains, and probably not "
            "what was meant: that is a warning."
        )


check_diagnose_unknown = ByHand(_unknown_right, _judge_unknown)


@check_diagnose_unknown.mistake(
    "The rule 'unk-labelled' stays registered after the call, so every later diagnose runs it. "
    "Take it out in a `finally`: `del RULES[code]`."
)
def _(batch, tokenizer):
    from mlmtutor.doctor import RULES, diagnose

    answer = diagnose(batch, tokenizer)
    RULES["unk-labelled"] = RULES["labels-missing"]
    return answer


@check_diagnose_unknown.mistake(
    "Rules of mlmtutor are missing from RULES after the call. Take out your own alone."
)
def _(batch, tokenizer):
    from mlmtutor.doctor import RULES

    answer = _diagnose_with(_unk_labels, batch, tokenizer)
    RULES.clear()
    return answer


@check_diagnose_unknown.mistake(
    "A batch in which two labels are [UNK] has no finding, and none is `unk-labelled`."
)
def _(batch, tokenizer):
    from mlmtutor.doctor import diagnose

    return diagnose(batch, tokenizer)


@check_diagnose_unknown.mistake(
    "A batch in which two labels are [UNK] has the findings ['unknown'], and none is "
    "`unk-labelled`."
)
def _(batch, tokenizer):
    return _diagnose_with(_unk_labels, batch, tokenizer, code="unknown")


@check_diagnose_unknown.mistake(
    "The finding is of severity 'error'. The batch trains, and probably not what was meant: that "
    "is a warning."
)
def _(batch, tokenizer):
    return _diagnose_with(_unk_labels, batch, tokenizer, severity="error")


@check_diagnose_unknown.mistake(
    "A batch in which no label is [UNK] has the finding too. An [UNK] that is not scored does no "
    "harm."
)
def _(batch, tokenizer):
    return _diagnose_with(
        lambda case: case.input_ids == case.tokenizer.unk_token_id, batch, tokenizer
    )


@check_diagnose_unknown.mistake(
    "The label at (0, 3) is [UNK], and the input shows [MASK] there: your rule misses it. Look at "
    "the labels, not at the input."
)
def _(batch, tokenizer):
    unk = tokenizer.unk_token_id
    return _diagnose_with(lambda case: case.scored & (case.input_ids == unk), batch, tokenizer)


@check_diagnose_unknown.mistake(
    "Your finding has 16 positions, the first at (0, 0), and the labels are [UNK] at (0, 3) and "
    "(1, 2) alone."
)
def _(batch, tokenizer):
    return _diagnose_with(
        lambda case: _unk_labels(case).any(dim=1, keepdim=True).expand_as(case.labels),
        batch,
        tokenizer,
    )


@check_diagnose_unknown.mistake(
    "On a batch without labels your rule raises an error. `needs=('labels', 'tokenizer')` tells "
    "`diagnose` not to ask it then."
)
def _(batch, tokenizer):
    return _diagnose_with(_unk_labels, batch, tokenizer, needs=())


@check_diagnose_unknown.mistake(
    "Your finding has no positions. The third part of a Problem is `where`, a boolean tensor of "
    "the shape of the labels."
)
def _(batch, tokenizer):
    found = _diagnose_with(_unk_labels, batch, tokenizer)
    return replace(found, findings=tuple(replace(one, positions=()) for one in found.findings))


@check_diagnose_unknown.mistake("Your function returns a tuple. Return what `diagnose` returns.")
def _(batch, tokenizer):
    return _diagnose_with(_unk_labels, batch, tokenizer).findings


@check_diagnose_unknown.mistake(
    "The other rules do not run: a batch without labels has no finding. Call "
    "`diagnose(batch, tokenizer)` while your rule is registered."
)
def _(batch, tokenizer):
    from mlmtutor.doctor import Diagnosis

    own = _diagnose_with(_unk_labels, batch, tokenizer).findings
    return Diagnosis(tuple(finding for finding in own if finding.code == "unk-labelled"))


@check_diagnose_unknown.mistake(
    "With another tokenizer, whose [UNK] has another id, your rule finds nothing. Ask "
    "`case.tokenizer.unk_token_id`."
)
def _(batch, tokenizer):
    return _diagnose_with(lambda case: case.labels == 100, batch, tokenizer)
