"""What lesson 05 needs: its batch, two exercises, figures, and losses to compare with."""

import math
import re

import numpy as np
import torch
from torch.nn.functional import cross_entropy, one_hot

from mlmtutor.figure import COLOURS, cells, drawing, figure, finish, plain
from mlmtutor.lessons.exercise import CHANGED, Function, exercise
from mlmtutor.lessons.lesson_04 import picked, token_loss
from mlmtutor.loss import masked_lm_loss

STORY = (
    "The old man walked down to the river and looked at the water for a long time.",
    "When the rain stopped, the children went out to play in the garden behind the house.",
    "She put the letter on the table and told her brother that she would leave in the morning.",
    "The train was late, so we sat in a small room and talked about the war.",
    "He had never seen so many people in one place, and he did not know what to say.",
)


def two_sentences(tokenizer):
    """Return a batch of two sentences with "change", "cup" and "tea" hidden, and its labels."""
    sentences = ["I want to change the world.", "He drank a cup of tea and went home."]
    batch = tokenizer(sentences, padding=True, return_tensors="pt")
    answers = torch.tensor(tokenizer.convert_tokens_to_ids(["change", "cup", "tea"]))
    hidden = torch.isin(batch["input_ids"], answers)
    labels = torch.where(hidden, batch["input_ids"], -100)
    batch["input_ids"] = batch["input_ids"].masked_fill(hidden, tokenizer.mask_token_id)
    return batch, labels


# The exercise


def _batches():
    random, _ = torch.Generator().manual_seed(5), -100
    first = torch.tensor([[_, 3, 0, 1, _, 3, _], [_, _, 0, _, _, _, _]])
    second = torch.tensor([[_, 8, _, _], [5, 9, 8, 0], [_, _, 5, _]])
    far = torch.zeros(1, 3, 4)  # exp(-300) is 0 in float32
    far[0, 0, 0] = 300.0
    return [
        (torch.randn(2, 7, 8, generator=random), first),
        (torch.randn(3, 4, 10, generator=random), second),
        (far, torch.tensor([[1, -100, 2]])),
    ]


@exercise(
    cases=_batches,
    says=lambda logits, labels: (
        f"{masked_lm_loss(logits, labels):.4f}, the mean of {int((labels != -100).sum())} values; "
        "and logits of 300 do no harm."
    ),
    without=("cross_entropy", "CrossEntropyLoss", "nll_loss", "NLLLoss", "masked_lm_loss"),
    divisor=lambda logits, labels: int((labels != -100).sum()),
    of=lambda x, y: (token_loss(x, y), y != -100, x, y),
)
def check_loss_by_hand(logits, labels):
    """loss_by_hand(logits, labels): mean of -log p(label) over the labelled positions."""
    return token_loss(logits, labels)[labels != -100].mean()


check_loss_by_hand.wrong |= {
    "That is the sum over the labelled positions. Divide it by how many there are.":
        lambda loss, on, *_: loss[on].sum(),
    "That is divided by the number of all positions: the ignored ones have left the sum, and they "
    "leave the count too.": lambda loss, on, *_: loss[on].sum() / on.numel(),
    "That is divided by the length of a row: the ignored ones have left the sum, and they leave "
    "the count too.": lambda loss, on, *_: loss[on].sum() / on.shape[1],
    "That scores the ignored positions as well, as if their label were id 0. Keep only the "
    "positions whose label is not -100.": lambda loss, on, *_: loss.mean(),
    "That is the mean of log p. The loss is minus that.": lambda loss, on, *_: -loss[on].mean(),
    "That is the mean of the means of the rows. Every labelled position of the batch counts the "
    "same, whichever row it is in.": lambda loss, on, *_: ((loss * on).sum(1) / on.sum(1)).mean(),
    "That is minus the mean of the probabilities: the logarithm is missing.":
        lambda loss, on, *_: -(-loss[on]).exp().mean(),
    "That is one loss for each labelled position. Return one number for the batch: their mean.":
        lambda loss, on, *_: loss[on],
    "That is in bits, from the logarithm to the base 2. The loss takes the natural logarithm.":
        lambda loss, on, *_: loss[on].mean() / math.log(2),
    "That drops a label of 0, which is the id of a token. Only -100 is ignored.":
        lambda loss, on, x, y: loss[y > 0].mean(),
    "That scores each label with the logits of the position before. A masked language model does "
    "not shift.": lambda loss, on, x, y: cross_entropy(x[:, :-1].flatten(0, 1), y[:, 1:].flatten()),
    "The softmax goes over the wrong dimension. Probabilities add up to 1 over the vocabulary, the "
    "last dimension.": lambda loss, on, x, y: token_loss(x, y, dim=1)[on].mean(),
    "That is minus the mean of the logits: the softmax is missing.":
        lambda loss, on, x, y: picked(x[on], y[on]).mean(),
    "The softmax goes over the wrong dimension. After `logits[scored]` the first dimension holds "
    "the labelled positions; probabilities add up to 1 over the vocabulary, the last one.":
        lambda loss, on, x, y: picked(x[on].log_softmax(0), y[on]).mean(),
    "Right for small logits. For the logits [300, 0, 0, 0] and the label 1 it gives infinity, and "
    "the loss there is 300: a probability became 0 before its logarithm was taken. Use "
    "log_softmax.":
        lambda loss, on, x, y: picked(x[on].softmax(-1).log(), y[on]).mean(),
    CHANGED: lambda loss, on, x, y: token_loss(x, y.masked_fill_(~on, 0))[on].mean(),
}  # fmt: skip


# The exercise of the deeper notebook


@exercise(
    cases=_batches,
    says="(p - 1 at the label) / number of labels where scored, and exactly 0 elsewhere.",
    returns=("gradient",),
    hint="A gradient has the shape of what it belongs to, the logits.",
    without=("backward", "autograd"),
    divisor=lambda logits, labels: int((labels != -100).sum()),
    of=lambda x, y: (_gradient(x, y), (y != -100).unsqueeze(-1), x, y),
)
def check_loss_gradient(logits, labels, start=None):
    """loss_gradient(logits, labels): d loss / d logits for the mean loss."""
    scored = (labels != -100).unsqueeze(-1)
    start = logits.softmax(-1) if start is None else start
    return scored * (start - one_hot(labels.clamp(min=0), logits.shape[-1])) / scored.sum()


_gradient: Function = check_loss_gradient.right
check_loss_gradient.wrong |= {
    "That is the gradient of the sum. The loss is a mean: divide by the labels.":
        lambda right, on, *_: right * on.sum(),
    "That is divided by the number of all positions. The loss is a mean over the labelled "
    "positions.": lambda right, on, *_: right * on.sum() / on.numel(),
    "That is divided by the length of a row. The loss is a mean over the labelled positions.":
        lambda right, on, *_: right * on.sum() / on.shape[1],
    "That is divided by the number of rows. The loss is a mean over the labelled positions.":
        lambda right, on, *_: right * on.sum() / len(on),
    "The sign is turned round: a step against the gradient must make the label likelier.":
        lambda right, *_: -right,
    "The probabilities are there, but nothing is taken from the one at the label.":
        lambda right, on, x, y: on * x.softmax(-1) / on.sum(),
    "The ignored positions have a gradient: the probabilities. They are not in the loss, so theirs "
    "is 0.": lambda right, on, x, y: right + ~on * x.softmax(-1) / on.sum(),
    "The ignored positions are treated as if their label were id 0. Their gradient is 0.":
        lambda right, on, x, y: _gradient(x, y.clamp(min=0)) * on.numel() / on.sum(),
    "That starts from the logits. The gradient starts from the probabilities: softmax first.":
        lambda right, on, x, y: _gradient(x, y, start=x),
    "The softmax goes over the wrong dimension. Probabilities add up to 1 over the vocabulary, the "
    "last dimension.": lambda right, on, x, y: _gradient(x, y, start=x.softmax(1)),
    "Those are the rows of the scored positions alone. A gradient has the shape of what it belongs "
    "to, the logits, with 0 at the ignored positions.": lambda right, on, *_: right[on.squeeze(-1)],
    "Your function returns a list, not a tensor. The gradient has one number for each logit.":
        lambda right, *_: right.tolist(),
    CHANGED: lambda right, on, x, y: right + 0 * x.sub_(x.logsumexp(-1, keepdim=True)),
}  # fmt: skip


# Losses to compare with


def word_frequencies(tokenizer):
    """Return how often each token occurs in Python's own manual, plus 1; (V,)."""
    from pydoc_data.topics import topics

    text = re.sub(r"[^A-Za-z.,]+", " ", " ".join(topics.values()))
    ids = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    return torch.bincount(torch.tensor(ids), minlength=len(tokenizer)) + 1


def five_sentences(tokenizer):
    """Return ``STORY``, each sentence five times, with another fifth of its tokens hidden."""
    batch = tokenizer(
        [*STORY] * 5, padding=True, return_tensors="pt", return_special_tokens_mask=True
    )
    ordinary, ids = ~batch.pop("special_tokens_mask").bool(), batch["input_ids"]
    fifth = torch.arange(ids.shape[1]) % 5 == torch.arange(25).unsqueeze(1) // 5
    batch["input_ids"] = ids.masked_fill(ordinary & fifth, tokenizer.mask_token_id)
    return batch, torch.where(ordinary & fifth, ids, -100)


def losses_on_five_sentences(tokenizer, model):
    """Return the loss of word frequencies, of the model, and of copying, on ``STORY``.

    Each token is scored once. For copying the model sees every token that it is scored on.
    """
    batch, labels = five_sentences(tokenizer)
    frequencies, answers = word_frequencies(tokenizer), labels[labels != -100]
    seen = tokenizer([*STORY], padding=True, return_tensors="pt")
    special = torch.isin(seen["input_ids"], torch.tensor(tokenizer.all_special_ids))
    with torch.no_grad():
        this = model(**batch, labels=labels).loss
        copied = model(**seen, labels=seen["input_ids"].masked_fill(special, -100)).loss
    unigram = -(frequencies / frequencies.sum()).log()[answers].mean()
    losses = {"word frequencies": unigram, "this model": this, "copying": copied}
    return {name: loss.item() for name, loss in losses.items()}


# Figures


def loss_grid(input_ids, labels, token_losses, tokenizer):
    """F7: from a batch and the -log p of each label to its loss, with two wrong ways out."""
    scored, each = labels != -100, token_losses.flatten()
    total, rows = each.sum(), each.split(scored.sum(1).tolist())
    by_all = f"{total:.2f} / {labels.numel()} positions = {total / labels.numel():.2f}"
    by_row = f"mean of row means = {torch.stack([row.mean() for row in rows]).mean():.2f}"
    mean = f"{total:.2f} / {len(each)} = {each.mean():.2f}"
    canvas, axes = drawing(12, 7.6)
    for y, (row, here) in enumerate(zip(input_ids, scored, strict=True)):
        cells(axes, 0, y, tokenizer.convert_ids_to_tokens(row), np.where(here, "scored", "ignored"))
    words = tokenizer.convert_ids_to_tokens(labels[scored])
    for x, word, loss in zip((2.5, 4.5, 6.5), words, each, strict=True):
        cells(axes, x - 0.75, 2.5, [word], ["scored"], width=1.5, height=0.9, size=13)
        axes.text(x, 4.25, f"{(-loss).exp():.3f}", ha="center", size=14)
        axes.text(x, 5.15, f"{loss:.2f}", ha="center", size=14)
    axes.plot((1.75, 7.25), (5.4, 5.4), color=COLOURS["scored"])
    axes.text(4.5, 6.15, f"{total:.2f}", ha="center", size=14)
    axes.text(4.5, 7.2, mean, ha="center", size=15, color=COLOURS["right"], weight="bold")
    for at, name in ((3.1, "label"), (4.25, "p"), (5.15, "−ln p"), (6.15, "sum"), (7.2, "loss")):
        axes.text(0.1, at, name, size=13)
    for at, wrong in ((6.15, by_all), (7.2, by_row)):
        axes.text(7.6, at, f"✗ {wrong}", color=COLOURS["ignored"], size=13)
    told = ", ".join(f"{word} with -ln p {x:.2f}" for word, x in zip(words, each, strict=True))
    return finish(canvas, alt=f"A grid of {labels.numel()} positions. {(~scored).sum()} are grey: "
        f"ignored. {len(each)} are blue: scored, and the input shows [MASK]. Their labels are "
        f"{told}. The loss is the mean, {mean}. In grey the wrong ways out: {by_all}; {by_row}.",
        caption="Add -ln p of each label, divide by their number. Only what is shown is rounded."
    )  # fmt: skip


def loss_ladder(losses):
    """F8: losses in nats, from "untrained" to "copying", and what each of them means."""
    means = {
        "untrained": "stuck here: nothing was learned yet",
        "guessing": "every token equally likely (ln V)",
        "word frequencies": "stuck here: the context isn't used",
        "this model": "uses the context",
        "copying": "so low: the answers stand in the input",
    }
    colours = {"this model": COLOURS["right"], "copying": COLOURS["wrong"]}
    canvas, axes = figure(size=(7.2, 4.6))
    for name, loss in losses.items():
        colour = colours.get(name, COLOURS["ignored"])
        axes.plot((0, 1), (loss, loss), color=colour, linewidth=3, solid_capstyle="butt")
        below = name == "guessing"  # its rung is close to the one above it
        place = {"va": "top" if below else "bottom", "color": colour}
        y = loss - 0.15 if below else loss + 0.1
        axes.text(0, y, f"{loss:.2f}  {name}", weight="bold", fontsize=13, **place)
        axes.text(1, y, means[name], ha="right", fontsize=12, **place)
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.4, 11.6), xticks=[], ylabel="loss (nats)")
    axes.spines["bottom"].set_visible(False)
    told = " ".join(f"{loss:.2f}: {name}, {means[name]}." for name, loss in losses.items())
    return finish(canvas, alt=f"A ladder of losses. {told}",
        caption="What the size of a loss tells, for a vocabulary of 30,522 tokens. The lowest "
        "three are measured on five sentences.")  # fmt: skip


def surprise_curve(probabilities):
    """F9: -ln p as a curve, with the probabilities of some words on it."""
    canvas, axes = figure(size=(7.2, 3.8))
    grid = torch.logspace(-7, 0, 400)
    axes.plot(grid, -grid.log(), color=COLOURS["scored"], linewidth=2)
    losses = {word: -math.log(p) for word, p in probabilities.items()}
    for word, p in probabilities.items():
        axes.plot(p, losses[word], "o", color=COLOURS["wrong"])
        axes.annotate(f"{plain(word)} {losses[word]:.2f}", (p, losses[word]), (9, 5),
                      textcoords="offset points", fontsize=13)  # fmt: skip
    axes.set(xlabel="probability of the label", ylabel="−ln p", xlim=(-0.02, 1.02), ylim=(0, 17))
    told = ", ".join(f"{word} {loss:.2f}" for word, loss in losses.items())
    return finish(canvas, alt="The curve -ln p falls from above 16 at p near 0 to 0 at p = 1. On "
        f"it: {told}.",
        caption="What one label adds to the sum. Near p = 0 the curve has no top: one label that "
        "the model rules out can outweigh all others.")  # fmt: skip


def gradients(tokens, labels, at_logits, at_inputs):
    """The size of two gradients of the loss at each position of one sentence."""
    canvas, panels = figure(2, 1, sharex=True)
    colours = [COLOURS["ignored" if label == -100 else "scored"] for label in labels]
    said = []
    for axes, name, sizes in (panels[0], "logits", at_logits), (panels[1], "embeddings", at_inputs):
        axes.bar(range(len(tokens)), sizes, color=colours)
        for position, size in enumerate(sizes):
            if size == 0:
                axes.text(position, 0, "0", ha="center", va="bottom", color=colours[position])
        axes.set_title(f"gradient at the {name}")
        axes.set_yticks([])
        reached = [token for token, size in zip(tokens, sizes, strict=True) if size]
        said.append(f"Gradient at the {name}: not 0 at {', '.join(reached)}.")
    ticks = [f"{plain(t)}\n{label}" for t, label in zip(tokens, labels, strict=True)]
    panels[-1].set_xticks(range(len(tokens)), ticks)
    for tick, colour in zip(panels[-1].get_xticklabels(), colours, strict=True):
        tick.set_color(colour)
    panels[-1].set_xlabel("token and its label")
    return finish(canvas, alt=f"Bars over the tokens of one sentence. {' '.join(said)}",
        caption="How large the gradient of the loss is at each position. Blue: scored. Grey: the "
        "label is -100.")  # fmt: skip
