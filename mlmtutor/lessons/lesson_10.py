"""Lesson 10, migrate old code: its exercises and its figure."""

import itertools
from collections.abc import Mapping, Sequence
from functools import partial

import torch

from mlmtutor.figure import COLOURS, PALE, TEXT, Figure, box, drawing, finish, plain
from mlmtutor.lessons.exercise import CHANGED, CHANGED_KEYS, ByHand, WrongAnswer, exercise
from mlmtutor.lessons.lesson_04 import picked
from mlmtutor.lessons.lesson_07 import with_labels
from mlmtutor.releases import Release, label_history


def timeline(releases: Sequence[Release], rows: Mapping[str, Sequence[str]]) -> Figure:
    """Draw what was true when: a column for each release in which a word of a row changes."""
    words = list(zip(*rows.values(), strict=True))
    starts = [i for i in range(len(words)) if i == 0 or words[i] != words[i - 1]]
    width = 100 / len(starts)
    canvas, axes = drawing(100, 9 + 12 * len(rows))
    told, colours_mean = [], {}
    for column, i in enumerate(starts):
        label = f"{releases[i].version}\n{(releases[i].date or '')[:7]}"
        axes.text(column * width, 7, label, va="bottom", fontsize=13)
    for row, (title, values) in enumerate(rows.items()):
        y = 9 + 12 * row
        axes.text(0, y + 2, plain(title), va="center", fontsize=13, weight="bold")
        marks = [k for k, i in enumerate(starts) if k == 0 or values[i] != values[starts[k - 1]]]
        for first, end in itertools.pairwise([*marks, len(starts)]):
            word = values[starts[first]]
            fill, colour, meaning = _meaning(word)
            colours_mean[meaning] = True
            box(axes, first * width, y + 4, word, width=(end - first) * width, height=6, fill=fill,
                colour=colour, fontsize=13)  # fmt: skip
        said = ", ".join(f"{values[starts[k]]} from {releases[starts[k]].version}" for k in marks)
        told.append(f"{title}: {said}.")
    return finish(canvas, alt=f"What releases did. {' '.join(told)}",
        caption="At the top: the releases where something changes, with their "
        f"months.{''.join(colours_mean)}")  # fmt: skip


def _meaning(word: str) -> tuple[str, str, str]:
    """Return the colour of a bar of :func:`timeline`, that of its word, and what it means."""
    if word in ("accepted", "warning", "right"):
        return COLOURS["right"], "white", " Green: it works."
    if word.endswith("Error"):
        return COLOURS["wrong"], "black", " Vermilion: an error."
    if word in ("dropped", "loss is None"):
        return COLOURS["ignored"], "white", " Grey: no error, and the labels are lost."
    return PALE, TEXT, ""


def _old_calls():
    """Two calls for transformers 2.3.0; 0 and 103 are among the answers of the first."""
    first = [[101, 2016, 103, 1012, 102], [101, 103, 103, 102, 0]]
    second = [[101, 103, 2003, 102], [101, 2054, 103, 102], [101, 7, 102, 0]]
    answers = [[-1, 2009, -1, -1], [-1, -1, 2003, -1], [-1, 0, -1, -1]]
    cases = []
    for rows, old in (first, [[-1, -1, 2441, -1, -1], [-1, 0, 5, -1, -1]]), (second, answers):
        ids = torch.tensor(rows)
        call = {"input_ids": ids, "attention_mask": (ids != 0).long()}
        cases.append(({**call, "masked_lm_labels": torch.tensor(old)},))
    return cases


def _labels(call):
    old = call["masked_lm_labels"]
    return call, old, old.masked_fill(old == -1, -100)


@exercise(
    cases=_old_calls,
    says="The call has today's name and today's ignored label, and the old call is intact.",
    returns=("arguments",),
    of=_labels,
)
def check_migrate(arguments):
    """migrate(arguments): today's arguments from those of a call for transformers 2.3.0."""
    return with_labels(arguments, _labels(arguments)[-1])


check_migrate.wrong |= {
    "The labels still hold -1. The loss of today leaves out -100 alone.":
        lambda call, old, new: with_labels(call, old.clone()),
    "The old name `masked_lm_labels` is still in the call: release 4 refuses it, and release 5 "
    "drops it.": lambda call, old, new: call | {"masked_lm_labels": new},
    "Both names are in the call. Release 4 refuses the old one with a TypeError: `pop` it.":
        lambda call, old, new: call | {"labels": new},
    CHANGED_KEYS: lambda call, old, new: call.update(labels=new) or call,
    CHANGED: lambda call, old, new: with_labels(call, old.masked_fill_(old == -1, -100)),
    "A label of 0 became -100. 0 is the id of a token and can be an answer; only -1 meant that a "
    "position is not scored.":
        lambda call, old, new: with_labels(call, old.masked_fill(old <= 0, -100)),
    "`attention_mask` is lost. Only the labels have a new form.":
        lambda call, old, new: {"input_ids": call["input_ids"], "labels": new},
    "The call has no `labels`, so there is no loss.":
        lambda call, *_: {name: call[name] for name in ("input_ids", "attention_mask")},
    "The labels are the input ids. The answers were in the old labels.":
        lambda call, *_: with_labels(call, call["input_ids"].clone()),
    "Your function returns the labels. Return the arguments of the call, a dictionary.":
        lambda call, old, new: new,
}  # fmt: skip


def _position_batches():
    """Two batches; an answer has the id 0, and one the position 0, and both count."""
    cases = []
    for seed, length, size, positions, ids, weights in (
        (0, 9, 13, [[0, 2, 4, 7], [3, 0, 0, 0]], [[6, 0, 0, 11], [3, 0, 0, 0]],
         [[1, 1, 1, 1], [1, 0, 0, 0]]),
        (1, 8, 10, [[0, 5], [3, 0], [6, 7]], [[2, 0], [9, 0], [1, 4]], [[1, 1], [1, 0], [1, 1]]),
    ):  # fmt: skip
        generator = torch.Generator().manual_seed(seed)
        log_p = torch.randn(len(ids), length, size, generator=generator).log_softmax(-1)
        cases.append((log_p, *map(torch.tensor, (positions, ids)), torch.tensor(weights).float()))
    return cases


def _costs(log_p, positions, ids, weights):
    cost = -log_p[torch.arange(len(log_p)).unsqueeze(1), positions, ids]
    return cost, weights, log_p, positions, ids


@exercise(
    cases=_position_batches,
    says="The loss is the mean of -log p over the entries of weight 1, and no label was -100.",
    returns=("loss",),
    divisor=lambda log_p, positions, ids, weights: int(weights.sum()),
    of=_costs,
)
def check_positions_loss(log_p, positions, ids, weights):
    """positions_loss(log_p, positions, ids, weights): the mean of -log p where the weight is 1."""
    return (weights * _costs(log_p, positions, ids, weights)[0]).sum() / weights.sum()


check_positions_loss.wrong |= {
    "That is the mean over every entry, those of weight 0 included: they only fill up the rows.":
        lambda cost, *_: cost.mean(),
    "The entries of weight 0 add nothing, and they are still counted: divide by the sum of the "
    "weights.": lambda cost, w, *_: (w * cost).mean(),
    "That is the sum. Divide by the sum of the weights.": lambda cost, w, *_: (w * cost).sum(),
    "That is the mean of log p. The loss is minus that.":
        lambda cost, w, *_: -(w * cost).sum() / w.sum(),
    "That is the mean of the means of the rows. Each scored position counts the same: take one sum "
    "over the batch.": lambda cost, w, *_: ((w * cost).sum(1) / w.sum(1)).mean(),
    "You scored the first positions of each row. `positions` says which ones the ids belong to.":
        lambda cost, w, log_p, at, ids: (w * picked(log_p[:, : at.shape[1]], ids)).sum() / w.sum(),
    "You divide by the number of ids above 0. A token with the id 0 can be an answer; the weights "
    "say what counts.": lambda cost, w, log_p, at, ids: (w * cost).sum() / (ids > 0).sum(),
    "You divide by the number of positions above 0. Position 0 can be scored; the weights say what "
    "counts.": lambda cost, w, log_p, at, ids: (w * cost).sum() / (at > 0).sum(),
    "`log_p[:, positions, ids]` reads the positions of each row in every row. Index the rows too: "
    "`torch.arange(len(log_p)).unsqueeze(1)` in place of the colon.":
        lambda cost, w, log_p, at, ids: -(w * log_p[:, at, ids]).sum() / w.sum(),
    "Your function returns a tensor of shape (2, 4). Return one number.":
        lambda cost, w, *_: w * cost,
}  # fmt: skip


def _uses(release, keyword):
    return release.labels == keyword or release.takes(keyword).endswith("Warning")


def _runs_on(releases, keyword, ignored, fits=_uses):
    """runs_on(releases, keyword, ignored): those that give the masked loss for such labels."""
    return [r for r in releases if r.ignore_index == ignored and fits(r, keyword)]


def _judge_runs_on(runs_on):
    releases = label_history()
    keywords = ("masked_lm_labels", "labels", "lm_labels", "label")
    for keyword, ignored in itertools.product(keywords, (-100, -1)):
        answer = runs_on(list(releases), keyword, ignored)
        if not isinstance(answer, list) or not all(isinstance(r, Release) for r in answer):
            raise WrongAnswer(
                "Your function does not return a list of releases. Return those of the list "
                "`releases` that fit, as they are."
            )
        expected = _runs_on(releases, keyword, ignored)
        if answer != expected:
            raise WrongAnswer(_releases_mistake(answer, expected, keyword, ignored))
    return "Each release that gives the right loss is there, and none that fails or says nothing."


def _releases_mistake(answer, expected, keyword, ignored):
    """Return the message for a list of releases that is another one than the right one."""
    call = f"`{keyword}=` with {ignored}"
    for release in (release for release in answer if release not in expected):
        has = f"For {call} your list has {release}"
        if release.ignore_index != ignored:
            wrong = f"whose loss does not ignore {ignored}: the labels would be out of bounds."
            return f"{has}, {wrong}"
        return has + {
            "dropped": ", which drops the keyword: the call runs, and there is no loss.",
            "accepted": ". It accepts the keyword, and computes another loss with it: compare with "
            "the name in `release.labels`.",
        }.get(release.takes(keyword), ", which refuses the name.")
    for release in (release for release in expected if release not in answer):
        warns = " It warns, and the loss is right: a warning isn't an error."
        said = warns if release.takes(keyword).endswith("Warning") else ""
        return f"For {call} your list lacks {release}.{said}"
    return "Your list has a release twice, or another order than `releases`."


check_runs_on = ByHand(_runs_on, _judge_runs_on)
check_runs_on.wrong |= {  # by some words of what is said
    "-100 your list has pytorch-pretrained-bert 0.1.1":
        lambda releases, keyword, ignored: [r for r in releases if _uses(r, keyword)],
    "has transformers 5.0.0, which drops the keyword":
        partial(_runs_on, fits=lambda r, name: not r.takes(name).endswith("Error")),
    "has transformers 2.4.0. It accepts the keyword, and computes another loss":
        partial(_runs_on, fits=lambda r, name: r.takes(name) == "accepted" or _uses(r, name)),
    "lacks transformers 3.0.0. It warns": partial(_runs_on, fits=lambda r, name: r.labels == name),
    "lacks transformers 3.1.0. It warns":
        partial(_runs_on, fits=lambda r, name: _uses(r, name) and r.takes(name) != "FutureWarning"),
    "does not return a list of releases": lambda *call: [r.version for r in _runs_on(*call)],
    "has transformers 4.0.0, which refuses the name":
        partial(_runs_on, fits=lambda r, name: r.takes(name) != "dropped"),
    "a release twice, or another order": lambda *call: _runs_on(*call)[::-1],
}  # fmt: skip
