"""Lesson 03, choose what to predict: its exercises and its figures."""

import math
from collections.abc import Mapping, Sequence

import torch

from mlmtutor.figure import COLOURS, PALE, Figure, box, drawing, figure, finish
from mlmtutor.lessons.exercise import ByHand, WrongAnswer, exercise, refuse_where, require_like

# The exercise

MASK_ID, VOCAB_SIZE = 103, 30522


def corrupt(
    input_ids, selected, mask_id, vocab_size, mask=0.8, random=0.1, draw=None, random_ids=None
):
    """The right answer to exercise 1; ``draw`` and ``random_ids`` may be given."""
    draw = torch.rand(input_ids.shape) if draw is None else draw
    random_ids = torch.randint(vocab_size, input_ids.shape) if random_ids is None else random_ids
    changed = torch.where(selected & (draw < mask + random), random_ids, input_ids)
    corrupted = torch.where(selected & (draw < mask), mask_id, changed)
    return corrupted, torch.where(selected, input_ids, -100)


def judge_corrupt(answer):
    """Look at the labels of one call, and at the shares of the replaced tokens of four."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        original = torch.randint(1000, VOCAB_SIZE, (200, 400))
        selected = torch.rand(original.shape) < 0.5
        judge_labels(answer, original, selected)
        for mask, random in ((0.8, 0.1), (0.5, 0.4), (1.0, 0.0)):
            try:
                corrupted, _ = answer(original.clone(), selected, MASK_ID, VOCAB_SIZE, mask, random)
            except WrongAnswer as wrong:
                if not isinstance(wrong.__cause__, ZeroDivisionError):
                    raise
                raise WrongAnswer(
                    f"With mask={mask} your function divides by 0: no selected token is left for a "
                    "second toss. Toss it only where `mask` is below 1, or draw one number for "
                    "each position."
                ) from wrong
            judge_shares(corrupted, original, selected, mask, random)
        corrupted, _ = answer(original.clone(), selected, MASK_ID, VOCAB_SIZE, 0.0, 1.0)
    if len(corrupted[selected].unique()) < 1000:
        raise WrongAnswer(
            "Your random tokens are all the same, or one of a few. Draw a random id for each "
            "position: `torch.randint(vocab_size, input_ids.shape)`."
        )
    return "80/10/10, 50/40/10 and 100/0/0 are kept to, and every selected token has its label."


def judge_labels(answer, original, selected):
    """Say what is wrong with the labels, or with tokens that weren't selected."""
    given, chosen = original.clone(), selected.clone()
    found = answer(given, chosen, MASK_ID, VOCAB_SIZE)
    if not (torch.equal(given, original) and torch.equal(chosen, selected)):
        raise WrongAnswer(
            "Your function changes a tensor that it was given, so the caller's ids are lost. "
            "Work on a copy (`input_ids.clone()`), or use `torch.where`."
        )
    right = torch.where(selected, original, -100)
    require_like(found, (original, right), ("corrupted", "labels"), "")
    corrupted, labels = found
    where = (labels != right).nonzero()
    if len(where):
        row, column = where[0].tolist()
        refuse_where({
            "Your two tensors are in the wrong order: return the corrupted ids first, the labels "
            "second.": torch.equal(corrupted, right),
            "Only positions that hold [MASK] have a label. Random and kept tokens are scored too: "
            "make the labels from `selected`.":
                torch.equal(labels, torch.where(corrupted == MASK_ID, original, -100)),
            "Your labels hold what the model sees. A label is the original id: take it from "
            "`input_ids`, before anything is replaced.":
                torch.equal(labels[selected], corrupted[selected]),
            "Your labels are the wrong way round: -100 stands where a token is selected.":
                (labels[selected] == -100).all(),
            "Every position has a label. The label is -100 where nothing was selected.":
                torch.equal(labels, original),
            f"The label at row {row}, position {column} is {int(labels[row, column])}, and it "
            f"should be {int(right[row, column])}.": True,
        })  # fmt: skip
    if not torch.equal(corrupted[~selected], original[~selected]):
        raise WrongAnswer(
            "Your function replaces tokens that were not selected. Combine each condition with "
            "`selected`: `selected & (draw < mask)`."
        )


def judge_shares(corrupted, original, selected, mask, random):
    """Say which share of the replacements is wrong."""

    def close(found, expected):
        return abs(found - expected) < 0.015  # 6 standard errors at 40,000 selected tokens

    hidden = selected & (corrupted == MASK_ID)
    other = selected & ~hidden & (corrupted != original)
    masked, changed = (float(part.sum() / selected.sum()) for part in (hidden, other))
    if close(masked, mask) and close(changed, random):
        return
    by_row = hidden.sum(1) / selected.sum(1)
    never = masked in (0.0, 1.0) and mask not in (0.0, 1.0)
    what, condition = ("is masked", "true") if masked == 0 else ("is left unmasked", "false")
    told = {
        f"no selected token {what}. Is the condition ever {condition}, and is there a draw for "
        "each position?": never,
        "all tokens of a row get the same replacement. Draw one number for each position: "
        "`torch.rand(input_ids.shape)`.": bool(((by_row == 0) | (by_row == 1)).all()),
        f"{masked:.1%} of the selected tokens became [MASK], and it should be {mask:.0%} of "
        "them.": not close(masked, mask),
        f"{changed:.1%} of the selected tokens became random ones: that is `random` of the rest. A "
        "coin that is tossed for the rest is random / (1 - "
        "mask).": close(changed, (1 - mask) * random),
        f"{changed:.1%} of the selected tokens became random ones: half of the rest, whatever "
        "`random` is. The coin of 0.5 belongs to 80/10/10 alone.": close(changed, (1 - mask) / 2),
        "every selected token that isn't [MASK] became a random one. The share "
        "1 - mask - random keeps its token.": close(changed, 1 - mask),
        f"{changed:.1%} of the selected tokens became random ones, and it should be {random:.0%} "
        "of them.": True,
    }
    message = next(message for message, holds in told.items() if holds)
    raise WrongAnswer(f"With mask={mask} and random={random}, {message}")


check_corrupt = ByHand(corrupt, judge_corrupt)


def wrong_masker(shares=None, where=None, draws=None, returns=None):
    """Return a masker with other shares, positions or draws, or that returns something else."""

    def answer(ids, selected, mask_id, vocab_size, mask=0.8, random=0.1):
        rates = shares(mask, random) if shares else (mask, random)
        chosen, drawn = where(selected) if where else selected, draws(ids) if draws else {}
        seen, _ = corrupt(ids, chosen, mask_id, vocab_size, *rates, **drawn)
        labels = torch.where(selected, ids, -100)
        return returns(ids, selected, seen, labels) if returns else (seen, labels)

    return answer


for said, labels in {
    "Your labels hold what the model sees": lambda ids, on, seen: seen.where(on, -100),
    "Only positions that hold [MASK]": lambda ids, on, seen: ids.where(seen == 103, -100),
    "the wrong way round": lambda ids, on, seen: ids.where(~on, -100),
    "Every position has a label": lambda ids, on, seen: ids.clone(),
    "and it should be -100": lambda ids, on, seen: ids.where(on, -1),
}.items():
    check_corrupt.wrong[said] = wrong_masker(
        returns=lambda *made, labels=labels: (made[2], labels(*made[:3]))
    )
for said, shares in {
    "no selected token is masked": lambda mask, random: (0.0, 0.0),
    "no selected token is left unmasked": lambda mask, random: (1.0, 0.0),
    "became [MASK], and it should be": lambda mask, random: (mask * 0.15, random * 0.15),
    "`random` of the rest": lambda mask, random: (mask, random * (1 - mask)),
    "half of the rest, whatever `random` is": lambda mask, random: (mask, (1 - mask) / 2),
    "divides by 0: no selected": lambda mask, random: (mask, random / (1 - mask) * (1 - mask)),
    "every selected token that isn't [MASK]": lambda mask, random: (mask, 1 - mask),
    " 0.0% of the selected tokens became random ones": lambda mask, random: (mask, 0.0),
}.items():
    check_corrupt.wrong[said] = wrong_masker(shares)
check_corrupt.wrong |= {
    "changes a tensor": wrong_masker(returns=lambda ids, on, seen, y: (ids.copy_(seen), y)),
    "in the wrong order": wrong_masker(returns=lambda ids, on, seen, y: (y, seen)),
    "It should return 2 values": wrong_masker(returns=lambda ids, on, seen, y: seen),
    "replaces tokens that were not selected": wrong_masker(where=torch.ones_like),
    "a row get the same": wrong_masker(draws=lambda ids: {"draw": torch.rand(len(ids), 1)}),
    "Draw a random id":
        wrong_masker(draws=lambda ids: {"random_ids": torch.randint(VOCAB_SIZE, ())}),
}  # fmt: skip


# The exercise of the deeper notebook

SPECIAL_IDS = [100, 102, 0, 101, 103]


def _rows():
    four = [
        [101, 2009, 15538, 1012, 102, 0, 0, 0, 0],
        [101, 1996, 4758, 3892, 5095, 2035, 2305, 1012, 102],
        [101, 102, 0, 0, 0, 0, 0, 0, 0],
        [101, 2748, 1012, 102, 0, 0, 0, 0, 0],
    ]
    two = [[101, 2009, 103, 102, 0], [101, 2748, 2009, 1012, 102]]
    return [(torch.tensor(four), SPECIAL_IDS, 0.3), (torch.tensor(two), SPECIAL_IDS)]


@exercise(
    _rows,
    says="(1 - select)^n for each row, and a row of special tokens alone never has a label.",
    hint="There is one probability for each row, so sum over dim=1.",
    of=lambda ids, special, select=0.15: (select, ordinary(ids, special), ids),
)
def check_chance_of_no_label(input_ids, special_ids, select=0.15):
    """chance_of_no_label(input_ids, special_ids, select): one probability for each row."""
    return (1 - select) ** ordinary(input_ids, special_ids)


def ordinary(input_ids, special_ids):
    """How many tokens of each row can be selected."""
    return (~torch.isin(input_ids, torch.tensor(special_ids))).sum(dim=1)


check_chance_of_no_label.wrong |= {
    "You count all positions of a row. Special tokens and padding are never selected: count the "
    "others alone.": lambda rate, n, ids: torch.full((len(ids),), (1 - rate) ** ids.shape[1]),
    "You count [CLS] and [SEP]. They are never selected either: `torch.isin(input_ids, "
    "torch.tensor(special_ids))` finds all special tokens.":
        lambda rate, n, ids: (1 - rate) ** (ids != 0).sum(dim=1),
    "You count the special tokens. The others are those that can be selected: negate the mask.":
        lambda rate, n, ids: (1 - rate) ** (ids.shape[1] - n),
    "That is the probability that every token is selected. One token is left alone with the "
    "probability 1 - select.": lambda rate, n, ids: rate**n,
    "That is the probability of at least one label. Its opposite is asked for.":
        lambda rate, n, ids: 1 - (1 - rate) ** n,
    "Your answer doesn't change with `select`: you use the rate 0.15.":
        lambda rate, n, ids: 0.85**n,
    "You multiply by the number of tokens. Independent draws multiply with each other: raise 1 - "
    "select to a power.": lambda rate, n, ids: (1 - rate) * n,
    "That is the expected number of labels of each row, not a probability.":
        lambda rate, n, ids: rate * n,
    "That is the number of tokens that can be selected, and one step is missing.":
        lambda rate, n, ids: n,
    "That is one number for the whole batch. There is one probability for each row: sum over "
    "dim=1.":
        lambda rate, n, ids: (1 - rate) ** n.sum(),
    lambda input_ids, special_ids, *_: "Your count is one too small: row 0 has "
    f"{int(ordinary(input_ids, special_ids)[0])} tokens that can be selected.":
        lambda rate, n, ids: (1 - rate) ** (n - 1),
    "Your answer is a float, not a tensor. Return a tensor of shape (4,).":
        lambda rate, n, ids: (1 - rate) ** 5,
}  # fmt: skip


# Figures


def thousand_squares(counts: Mapping[str, int]) -> Figure:
    """Draw one square for each token, coloured by what becomes of it, 40 in a row."""
    ways = {
        "untouched": (10, PALE, "not selected: label -100"),
        "[MASK]": (19.5, COLOURS["replaced"], "become [MASK]"),
        "random": (22.2, COLOURS["wrong"], "become a random token"),
        "kept": (24.7, COLOURS["right"], "keep their token"),
    }
    total, start = sum(counts.values()), 0
    rows = -(-total // 40)
    canvas, axes = drawing(70, rows + 1, size=(7.2, 7.2 * (rows + 1) / 66))
    for name, (y, fill, text) in ways.items():
        end = start + counts[name]
        for row in range(start // 40, -(-end // 40)):
            left, right = max(start - 40 * row, 0), min(end - 40 * row, 40)
            box(axes, left, row, "", width=right - left, fill=fill)
        box(axes, 41.5, y - 0.6, "", width=1.2, height=1.2, fill=fill)
        axes.text(43.5, y, f"{counts[name]} {text}", va="center", size=13)
        start = end
    axes.vlines(range(41), 0, rows, color="white", linewidth=0.8)
    axes.hlines(range(rows + 1), 0, 40, color="white", linewidth=0.8)
    scored = f"{total - counts['untouched']} selected and scored:"
    axes.text(41.5, 17, scored, size=13, color=COLOURS["scored"], weight="bold")
    return finish(canvas, alt=f"{total} squares, one a token: "
        f"{', '.join(f'{count} {name}' for name, count in counts.items())}.",
        caption="Every coloured square is scored, whatever became of its token.")  # fmt: skip


def shares_against_rule(counts: Mapping[str, Sequence[int]], rule: Mapping[str, float]) -> Figure:
    """Draw counted shares less those of a rule, with 99.9 % intervals; the first is right."""
    canvas, axes = figure()
    axes.axvline(0, color=COLOURS["ignored"], linewidth=1)
    words = []
    for number, (masker, count) in enumerate(counts.items()):
        colour, marker = (COLOURS["wrong"], "s") if number else (COLOURS["right"], "o")
        gaps = []
        for row, (part, share) in enumerate(zip(count, rule.values(), strict=True)):
            found = part / sum(count)
            bar = 329 * math.sqrt(found * (1 - found) / sum(count))
            gap, place = 100 * (found - share), row + 0.3 * number - 0.15 * (len(counts) - 1)
            axes.errorbar(gap, place, xerr=bar, fmt=marker, color=colour, capsize=4)
            gaps.append(f"{list(rule)[row]} {round(gap, 1) + 0.0:+.1f}")  # + 0.0: no "-0.0"
        axes.annotate(masker, (gap + bar, place), (8, 0), textcoords="offset points",
                      va="center", color=colour, size=12)  # fmt: skip
        words.append(f"{masker}: {', '.join(gaps)}")
    axes.set_yticks(range(len(rule)), [f"{name} ({100 * p:g} %)" for name, p in rule.items()])
    axes.invert_yaxis()
    axes.margins(x=0.25)
    axes.set_xlabel("share of the tokens less the rule (percentage points)")
    return finish(canvas, alt=f"Share less the rule, in percentage points. {'; '.join(words)}.",
        caption="How far each share is from the rule, in percentage points of all ordinary tokens. "
        "Where a bar crosses zero, the masker agrees with the rule.")  # fmt: skip
