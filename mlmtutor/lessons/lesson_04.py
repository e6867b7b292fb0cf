"""Lesson 04, ignore positions with -100: its exercises and its figures."""

import math
from collections.abc import Mapping, Sequence

import torch
from torch.nn.functional import cross_entropy

from mlmtutor.figure import COLOURS, PALE, TEXT, Figure, arrow, box, drawing, figure, finish
from mlmtutor.lessons.exercise import CHANGED, NOTHING, exercise

MADE = torch.Generator().manual_seed(4)
LOGITS = torch.randn(7, 5, generator=MADE), torch.randn(9, 6, generator=MADE)


def token_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """-log p(label) of each row, of id 0 where the label is negative."""
    return -logits.log_softmax(-1).gather(1, labels.clamp(min=0).unsqueeze(1)).squeeze(1)


# Exercise 1


@exercise(
    lambda: [
        (LOGITS[0], torch.tensor([0, 2, -100, 2, -100, 2, -100]), -100),
        (LOGITS[1], torch.tensor([5, 0, 2, 2, 1, 0, 4, 2, 3]), 0),
    ],
    says="Equal to cross_entropy with ignore_index, for -100 and for the id of a token.",
    without=("ignore_index",),
    divisor=lambda logits, labels, ignored: int((labels != ignored).sum()),
)
def check_loss_without_ignore_index(logits, labels, ignored):
    """loss_without_ignore_index(logits, labels, ignored): what ignore_index does, without it."""
    kept = labels != ignored
    return cross_entropy(logits[kept], labels[kept])


def wrong_mean(message, mean):
    """Register ``mean(losses, labels, ignored)`` of the losses of all rows."""

    @check_loss_without_ignore_index.mistake(message)
    def _(logits, labels, ignored):
        return mean(token_loss(logits, labels), labels, ignored)


wrong_mean("The ignored rows are scored, as if their label were 0. Drop these rows before the "
           "loss.",
           lambda loss, labels, ignored: loss.mean() if ignored < 0 else math.nan)  # fmt: skip
wrong_mean(lambda logits, labels, ignored, found: (
               f"With ignored = {ignored} every row is scored: your function ignores a fixed "
               "number instead of the one that it is given."
           ),
           lambda loss, labels, ignored: loss[labels != -100].mean())  # fmt: skip
wrong_mean("A row with the label 0 is left out. 0 is the id of a token; compare with `ignored`.",
           lambda loss, labels, ignored: loss[labels > 0].mean())  # fmt: skip
wrong_mean(lambda logits, labels, ignored, found: (
               "The ignored rows are missing from the sum but not from the count: you divide by "
               f"{len(labels)}, and {int((labels != ignored).sum())} rows are left."
           ),
           lambda loss, labels, ignored: (loss * (labels != ignored)).mean())  # fmt: skip
wrong_mean("That is the sum over the rows that are left. The loss is their mean.",
           lambda loss, labels, ignored: loss[labels != ignored].sum())  # fmt: skip
wrong_mean("The sign is wrong: the loss is minus the mean log-probability.",
           lambda loss, labels, ignored: -loss[labels != ignored].mean())  # fmt: skip
wrong_mean(lambda logits, labels, ignored, found: (
               f"Your function returns {found.numel()} values, and a loss is one number: the mean "
               "over the rows that are left."
           ),
           lambda loss, labels, ignored: loss[labels != ignored])  # fmt: skip
wrong_mean("That is the loss of the rows to be ignored. Keep the others: `labels != ignored`.",
           lambda loss, labels, ignored: loss[labels == ignored].mean())  # fmt: skip
wrong_mean(NOTHING, lambda loss, labels, ignored: None)


@check_loss_without_ignore_index.mistake(
    "You take the logits as they are. They are log-probabilities only after log_softmax."
)
def _(logits, labels, ignored):
    kept = labels != ignored
    return -logits[kept].gather(1, labels[kept].unsqueeze(1)).mean()


@check_loss_without_ignore_index.mistake(
    "The ignored class is removed from the softmax too. ignore_index drops rows; the class stays "
    "a candidate in the others."
)
def _(logits, labels, ignored):
    if ignored >= 0:
        logits = logits.index_fill(1, torch.tensor([ignored]), -math.inf)
    kept = labels != ignored
    return cross_entropy(logits[kept], labels[kept])


@check_loss_without_ignore_index.mistake(CHANGED)
def _(logits, labels, ignored):
    labels[labels == ignored] = 0
    return token_loss(logits, labels).mean()


# Exercise 2


@exercise(
    lambda: [
        (9, torch.tensor([2, 5, 0, 0]), torch.tensor([3899, 4937, 0, 0]),
         torch.tensor([1.0, 1.0, 0.0, 0.0])),
        (11, torch.tensor([0, 3, 6, 0, 0]), torch.tensor([41, 0, 7, 0, 0]),
         torch.tensor([1.0, 1.0, 1.0, 0.0, 0.0])),
    ],
    says="Used places became labels, unused places nothing, and the rest is -100.",
    returns=("label tensor",),
    hint="There is one label for each position of the sentence, whether it is used or not.",
)  # fmt: skip
def check_labels_from_positions(length, positions, ids, weights):
    """labels_from_positions(length, positions, ids, weights): labels (length,) with -100."""
    return written(length, positions, ids, weights > 0)


def written(length, positions, ids, used, ignored=-100):
    """The labels when the ``used`` places are written, and no other."""
    labels = torch.full((length,), ignored)
    labels[positions[used]] = ids[used]
    return labels


def wrong_places(message, used=lambda positions, ids, weights: weights > 0, ignored=-100, shift=0):
    """Register what is written to other places, or with another number in the rest."""

    @check_labels_from_positions.mistake(message)
    def _(length, positions, ids, weights):
        return written(length, positions + shift, ids, used(positions, ids, weights), ignored)


wrong_places("Position 0 has the label 0. An unused place points there; its weight is 0.0, so it "
             "must not be written.",
             lambda positions, ids, weights: weights >= 0)  # fmt: skip
wrong_places("The other positions hold 0, which is the id of a token. What isn't scored has the "
             "label -100.", ignored=0)  # fmt: skip
wrong_places("The other positions hold -1, the ignore value of old programs. What isn't scored has "
             "the label -100.", ignored=-1)  # fmt: skip
SHIFTED = "Your labels are shifted by one. A position counts from 0, with [CLS] at 0."
wrong_places(SHIFTED, shift=-1)
wrong_places(f"{SHIFTED} Yours stand one place too far right.", shift=1)
wrong_places(lambda length, positions, ids, weights, found: (
                 "The answer with id 0 at position "
                 f"{int(positions[(weights > 0) & (ids == 0)][0])} is lost. In some vocabularies 0 "
                 "is a word; only the weight says whether a place is used."
             ),
             lambda positions, ids, weights: ids > 0)  # fmt: skip
wrong_places("The answer at position 0 is lost. Unused places have position 0 too; only the weight "
             "tells them apart.",
             lambda positions, ids, weights: positions > 0)  # fmt: skip
wrong_places(lambda length, positions, ids, weights, found: (
                 f"Not all used places are written: position {int(positions[1])} has no label."
             ),
             lambda positions, ids, weights: torch.arange(len(ids)) == 0)  # fmt: skip


@check_labels_from_positions.mistake(
    "Your labels hold positions. A label is the id of the token that belongs there."
)
def _(length, positions, ids, weights):
    return written(length, positions, positions, weights > 0)


@check_labels_from_positions.mistake(
    "Your labels have dtype torch.float32, because the weights took part in the arithmetic. "
    "Labels are int64; a weight only says whether its place is written."
)
def _(length, positions, ids, weights):
    labels = torch.full((length,), -100.0)
    labels[positions] = ids * weights
    return labels


@check_labels_from_positions.mistake(
    lambda length, positions, ids, weights, found: (
        f"You return {len(positions)} labels, one for each place, and the sentence has {length} "
        "positions: there is one label for each position."
    )
)
def _(length, positions, ids, weights):
    return ids.masked_fill(weights == 0, -100)


@check_labels_from_positions.mistake(CHANGED)
def _(length, positions, ids, weights):
    ids[weights == 0] = -100
    return written(length, positions, ids, weights > 0)


# Figures


def three_rows(logits: torch.Tensor, labels: Sequence[int], words: Sequence[str]) -> Figure:
    """Draw the probabilities of each row, the one that its label picks, and the mean."""
    canvas, axes = drawing(72, 25)
    for column, word in enumerate(words):
        axes.text(8 + 11 * column + 5, 2.5, word, ha="center", size=14, style="italic")
    axes.text(44, 2.5, "label", ha="center", size=14)
    axes.text(58, 2.5, "−log p", ha="center", size=14)
    scored, told = [], []
    for row, (chances, label) in enumerate(zip(logits.softmax(-1).tolist(), labels, strict=True)):
        y, ignored = 4 + 5.4 * row, label < 0
        axes.text(7, y + 2.4, f"row {row}", ha="right", va="center", size=14)
        for column, chance in enumerate(chances):
            picked = column == label
            box(axes, 8 + 11 * column, y, f"{chance:.2f}", width=10.4, height=4.8, size=14,
                fill=COLOURS["scored"] if picked else PALE,
                colour="white" if picked else COLOURS["ignored"] if ignored else TEXT)  # fmt: skip
        if not ignored:
            scored.append(-math.log(chances[label]))
        loss = "ignored" if ignored else f"{scored[-1]:.4f}"
        told.append(f"row {row}, label {label}: {loss}")
        for x, text in ((44, str(label)), (58, loss)):
            axes.text(x, y + 2.4, text, ha="center", va="center", size=14,
                      color=COLOURS["ignored" if ignored else "scored"])  # fmt: skip
    mean = f"{sum(scored):.4f} / {len(scored)} = {sum(scored) / len(scored):.4f}"
    axes.text(66, 23, mean, ha="right", va="center", size=15, color=TEXT)
    return finish(
        canvas,
        alt=f"The -log p that each label picks. {'; '.join(told)}. Sum and mean: {mean}.",
        caption="The label picks one probability of its row. The ignored row picks none.",
    )


def four_fields(tokens: Sequence[str], hidden: Sequence[bool], labels: Sequence[str]) -> Figure:
    """Draw each token in its field: hidden or visible, scored or ignored (label ``""``)."""
    asks = {
        ("hidden", "scored"): "find the word", ("hidden", "ignored"): "no question",
        ("visible", "scored"): "correct the word", ("visible", "ignored"): "read it, no question",
    }  # fmt: skip
    canvas, axes = drawing(72, 36)
    words = []
    for (row, column), asked in asks.items():
        x, y = (14 if column == "scored" else 43.5), (4.5 if row == "hidden" else 21)
        if row == "hidden":
            axes.text(x + 14, 2.4, column, ha="center", size=15, color=COLOURS[column])
        if column == "scored":
            axes.text(12.5, y + 7, row, ha="right", va="center", size=15, color=TEXT)
        box(axes, x, y, "", width=28, height=15, fill=PALE)
        inside = [
            (token, label)
            for token, covered, label in zip(tokens, hidden, labels, strict=True)
            if covered == (row == "hidden") and bool(label) == (column == "scored")
        ]
        for place, (token, label) in enumerate(inside):
            left, top = x + 0.8 + 9 * (place % 3), y + 1 + 4.8 * (place // 3)
            fill = COLOURS["replaced"] if label or row == "hidden" else "white"
            box(axes, left, top, token, width=8.4, height=4.2, fill=fill, size=13)
            if label:
                arrow(axes, (left + 8.6, top + 2.1), (left + 12.4, top + 2.1), TEXT)
                box(axes, left + 12.6, top, label, width=10.4, height=4.2, size=13,
                    fill=COLOURS["scored"], colour="white")  # fmt: skip
        axes.text(x + 1.2, y + 12.8, f"{len(inside)} token{'s'[: len(inside) - 1]}: {asked}",
                  va="center", size=12, color=TEXT)  # fmt: skip
        words.append(f"{row} and {column}: {len(inside)} ({' '.join(t for t, _ in inside)})")
    return finish(
        canvas,
        alt=f"Two by two fields with the tokens of one sentence. {'; '.join(words)}.",
        caption="The ids say what is hidden, the labels say what is scored.",
    )


def losses_by_padding(losses: Mapping[str, Mapping[int, float]]) -> Figure:
    """Draw the loss of one sentence against the number of ``[PAD]``, a line for each way."""
    canvas, axes = figure()
    words = []
    for number, (name, line) in enumerate(losses.items()):
        counts, values = list(line), list(line.values())
        colour = COLOURS["wrong" if number else "right"]
        axes.plot(counts, values, "o-", color=colour, linewidth=2)
        text = f"{name}: {values[0]:.2f} → {values[-1]:.2f}"
        axes.annotate(text, (counts[-1], values[-1]), (9, 0), textcoords="offset points",
                      va="center", color=colour, size=12)  # fmt: skip
        words.append(f"{name}: " + ", ".join(f"{v:.2f} at {c}" for c, v in line.items()))
    axes.set(xlim=(-1, 2.1 * counts[-1]), ylim=(0, None), xticks=counts)
    axes.set_xlabel("number of [PAD] behind the sentence", loc="left")
    axes.set_ylabel("loss")
    return finish(
        canvas,
        alt=f"The loss against the number of [PAD]. {'; '.join(words)}.",
        caption="With both in place the loss doesn't notice the padding.",
    )
