"""Lesson 04, ignore positions with -100: its exercises and its figures."""

import itertools
import math
from collections.abc import Mapping, Sequence

import torch
from torch.nn.functional import cross_entropy

from mlmtutor.figure import COLOURS, TEXT, Figure, arrow, cells, drawing, figure, finish, notes
from mlmtutor.lessons.exercise import CHANGED, NOTHING, exercise

MADE = torch.Generator().manual_seed(4)
LOGITS = torch.randn(7, 5, generator=MADE), torch.randn(9, 6, generator=MADE)


def token_loss(logits, labels, dim=-1):
    """-log p(label) at each position, of id 0 where the label is negative."""
    return picked(logits.log_softmax(dim), labels.clamp(min=0))


def picked(log_p, labels):
    """Minus the entry of each row that its label picks."""
    return -log_p.gather(-1, labels.unsqueeze(-1)).squeeze(-1)


# The exercise


@exercise(
    lambda: [
        (LOGITS[0], torch.tensor([0, 2, -100, 2, -100, 2, -100]), -100),
        (LOGITS[1], torch.tensor([5, 0, 2, 2, 1, 0, 4, 2, 3]), 0),
    ],
    says="Equal to cross_entropy with ignore_index, for -100 and for the id of a token.",
    without=("ignore_index",),
    divisor=lambda logits, labels, ignored: int((labels != ignored).sum()),
    of=lambda x, y, ignored: (token_loss(x, y), y != ignored, x, y, ignored),
)
def check_loss_without_ignore_index(logits, labels, ignored):
    """loss_without_ignore_index(logits, labels, ignored): what ignore_index does, without it."""
    kept = labels != ignored
    return cross_entropy(logits[kept], labels[kept])


def _class_removed(loss, on, logits, labels, ignored):
    removed = torch.arange(logits.shape[1]) == ignored
    return cross_entropy(logits[on].masked_fill(removed, -math.inf), labels[on])


check_loss_without_ignore_index.wrong |= {
    "The ignored rows are scored, as if their label were 0. Drop these rows before the loss.":
        lambda loss, on, x, y, ignored: loss.mean() if ignored < 0 else math.nan,
    lambda x, y, ignored, found: f"With ignored = {ignored} every row is scored: your function "
    "ignores a fixed number instead of the one that it is given.":
        lambda loss, on, x, y, _: loss[y != -100].mean(),
    "A row with the label 0 is left out. 0 is the id of a token; compare with `ignored`.":
        lambda loss, on, x, y, _: loss[y > 0].mean(),
    lambda x, y, ignored, found: "The ignored rows are missing from the sum but not from the "
    f"count: you divide by {len(y)}, and {int((y != ignored).sum())} rows are left.":
        lambda loss, on, *_: (loss * on).mean(),
    "That is the sum over the rows that are left. The loss is their mean.":
        lambda loss, on, *_: loss[on].sum(),
    "The sign is wrong: the loss is minus the mean log-probability.":
        lambda loss, on, *_: -loss[on].mean(),
    lambda x, y, ignored, found: f"Your function returns {found.numel()} values, and a loss is one "
    "number: the mean over the rows that are left.": lambda loss, on, *_: loss[on],
    "That is the loss of the rows to be ignored. Keep the others: `labels != ignored`.":
        lambda loss, on, *_: loss[~on].mean(),
    NOTHING: lambda *_: None,
    "You take the logits as they are. They are log-probabilities only after log_softmax.":
        lambda loss, on, x, y, _: picked(x[on], y[on]).mean(),
    "The ignored class is removed from the softmax too. ignore_index drops rows; the class stays a "
    "candidate in the others.": _class_removed,
    CHANGED: lambda loss, on, x, y, _: token_loss(x, y.masked_fill_(~on, 0)).mean(),
}  # fmt: skip


# The exercise of the deeper notebook


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
    of=lambda length, positions, ids, weights: (length, positions, ids, weights > 0),
)  # fmt: skip
def check_labels_from_positions(length, positions, ids, weights):
    """labels_from_positions(length, positions, ids, weights): labels (length,) with -100."""
    return written(length, positions, ids, weights > 0)


def written(length, at, ids, used, ignored=-100):
    """The labels when the ``used`` places are written, and no other."""
    return torch.full((length,), ignored).index_put((at[used],), ids[used])


_SHIFTED = "Your labels are shifted by one. A position counts from 0, with [CLS] at 0."
check_labels_from_positions.wrong |= {
    "Position 0 has the label 0. An unused place points there; its weight is 0.0, so it must not "
    "be written.": lambda n, at, ids, used: written(n, at, ids, used >= 0),
    "The other positions hold 0, which is the id of a token. What isn't scored has the label -100.":
        lambda n, at, ids, used: written(n, at, ids, used, ignored=0),
    "The other positions hold -1, the ignore value of old programs. What isn't scored has the "
    "label -100.": lambda n, at, ids, used: written(n, at, ids, used, -1),
    _SHIFTED: lambda n, at, ids, used: written(n, at - 1, ids, used),
    f"{_SHIFTED} Yours stand one place too far right.":
        lambda n, at, ids, used: written(n, at + 1, ids, used),
    lambda n, at, ids, weights, found: "The answer with id 0 at position "
    f"{at[((weights > 0) & (ids == 0)).int().argmax()]} is lost. In some vocabularies 0 is a word; "
    "only the weight says whether a place is used.":
        lambda n, at, ids, used: written(n, at, ids, ids > 0),
    "The answer at position 0 is lost. Unused places have position 0 too; only the weight tells "
    "them apart.": lambda n, at, ids, used: written(n, at, ids, at > 0),
    lambda n, at, ids, weights, found: f"Not all used places are written: position {int(at[1])} "
    "has no label.": lambda n, at, ids, used: written(n, at[:1], ids[:1], used[:1]),
    "Your labels hold positions. A label is the id of the token that belongs there.":
        lambda n, at, ids, used: written(n, at, at, used),
    "Your labels have dtype torch.float32, because the weights took part in the arithmetic. Labels "
    "are int64; a weight only says whether its place is written.":
        lambda n, at, ids, used: torch.full((n,), -100.0).index_copy(0, at, ids * used.float()),
    lambda n, at, ids, weights, found: f"You return {len(at)} labels, one for each place, and the "
    f"sentence has {n} positions: there is one label for each position.":
        lambda n, at, ids, used: ids.masked_fill(~used, -100),
    CHANGED: lambda n, at, ids, used: written(n, at, ids.masked_fill_(~used, -100), used),
}  # fmt: skip


# Figures


def three_rows(logits: torch.Tensor, labels: Sequence[int], words: Sequence[str]) -> Figure:
    """Draw the probabilities of each row, the one that its label picks, and the mean."""
    canvas, axes = drawing(72, 25)
    for x, word in zip((13, 24, 35, 44, 58), (*words, "label", "−log p"), strict=True):
        axes.text(x, 2.5, word, ha="center", size=14)
    losses, told = [], []
    for row, (chances, label) in enumerate(zip(logits.softmax(-1).tolist(), labels, strict=True)):
        y, rest, loss = 4 + 5.4 * row, "ignored", "ignored"
        if label >= 0:
            losses.append(-math.log(chances[label]))
            rest, loss = "pale", f"{losses[-1]:.4f}"
        looks = ["scored" if column == label else rest for column in range(len(chances))]
        texts = [f"{chance:.2f}" for chance in chances]
        cells(axes, 8, y, texts, looks, width=10.4, height=4.8, gap=0.6, size=14)
        ink = COLOURS["scored" if label >= 0 else "ignored"]
        marks = (3.5, f"row {row}"), (44, label), (58, loss)
        notes(axes, *((x, y + 2.4, mark, ink) for x, mark in marks), ha="center", size=14)
        told.append(f"row {row}, label {label}: {loss}")
    mean = f"{sum(losses):.4f} / {len(losses)} = {sum(losses) / len(losses):.4f}"
    notes(axes, (66, 23, f"mean: {mean}"), ha="right", size=15)
    return finish(canvas, alt=f"The -log p that each label picks. {'; '.join(told)}. Sum and mean: "
        f"{mean}.",
        caption="The label picks one probability of its row. The ignored row picks none."
    )  # fmt: skip


def four_fields(tokens: Sequence[str], hidden: Sequence[bool], labels: Sequence[str]) -> Figure:
    """Draw each token in its field: hidden or visible, scored or ignored (label ``""``)."""
    canvas, axes = drawing(72, 36)
    names = ((28, 2.4, "scored"), (57.5, 2.4, "ignored"), (7, 11.5, "hidden"), (7, 28, "visible"))
    notes(axes, *names, ha="center", size=15)
    asks = {("hidden", "scored"): "find the word", ("visible", "scored"): "correct the word"}
    words = []
    for row, column in itertools.product(("hidden", "visible"), ("scored", "ignored")):
        x, y = (14 if column == "scored" else 43.5), (4.5 if row == "hidden" else 21)
        cells(axes, x, y, [""], ["pale"], width=28, height=15)
        inside = [
            (token, label)
            for token, covered, label in zip(tokens, hidden, labels, strict=True)
            if covered == (row == "hidden") and bool(label) == (column == "scored")
        ]
        for place, (token, label) in enumerate(inside):
            left, top = x + 0.8 + 9 * (place % 3), y + 1 + 4.8 * (place // 3)
            look = "replaced" if label or row == "hidden" else "plain"
            cells(axes, left, top, [token], [look], width=8.4, height=4.2, size=13)
            if label:
                arrow(axes, (left + 8.6, top + 2.1), (left + 12.4, top + 2.1), TEXT)
                cells(axes, left + 12.6, top, [label], ["scored"], width=10.4, height=4.2, size=13)
        axes.text(x + 1.2, y + 13.3, asks.get((row, column), "no question"), size=12, color=TEXT)
        words.append(f"{row} and {column}: {len(inside)} ({' '.join(t for t, _ in inside)})")
    return finish(canvas, alt="Two by two fields with the tokens of one sentence. "
        f"{'; '.join(words)}.",
        caption="The ids say what is hidden, the labels say what is scored.")  # fmt: skip


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
    return finish(canvas, alt=f"The loss against the number of [PAD]. {'; '.join(words)}.",
        caption="With both in place the loss doesn't notice the padding.")  # fmt: skip
