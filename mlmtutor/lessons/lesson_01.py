"""What lesson 01 needs: its two exercises, its figure of the flow of data, and `reload`."""

import math
import tempfile
from typing import Any

import torch
import transformers

from mlmtutor.figure import COLOURS, PALE, TEXT, Figure, arrow, box, drawing, finish, plain
from mlmtutor.lessons.exercise import CHANGED, NOTHING, exercise
from mlmtutor.model import load_tutor

# The figure: where the labels join


def dataflow(batch, tokenizer, logits) -> Figure:
    """Draw how a sentence with one label becomes logits, and the label a loss.

    Args:
        batch: input_ids and labels, one row; one position is scored.
        tokenizer: names the ids.
        logits: what the model returned, (1, length, V).
    """
    ids, labels = (batch[name][0].tolist() for name in ("input_ids", "labels"))
    [here] = [i for i, label in enumerate(labels) if label != -100]
    p = logits[0, here].softmax(-1)
    best = [*p.topk(4).indices.tolist(), labels[here]]
    rows = dict(zip(tokenizer.convert_ids_to_tokens(best), p[best].tolist(), strict=True))
    canvas, axes = drawing(72, 45)
    for i, token in enumerate(tokenizer.convert_ids_to_tokens(ids)):
        _position(axes, i, f"{token}\n{ids[i]}", f"{labels[i]}".replace("-", "−"), i == here)
    reads = "the model reads the ids, never the labels"
    box(axes, 9.5, 8.2, reads, width=61.8, height=3.6, fill=TEXT, colour="white")
    _softmax_and_loss(axes, 9.5 + 6.9 * here + 3.3, here, rows)
    found = ", ".join(f"{word} {share:.3f}" for word, share in rows.items())
    word, share = rows.popitem()
    return finish(
        canvas,
        alt=f"The model turns each token into a row of logits. The softmax of row {here} gives "
        f"{found}. The label at {here}, {labels[here]}, picks {word}, and the loss "
        f"is minus the logarithm of {share:.3f}: {-math.log(share):.2f}. No arrow leads from the "
        "labels to the model.",
        caption="The labels join at the last step: they pick the number that becomes the loss.",
    )


def _position(axes, i, token, label, scored):
    """Draw one column of the data flow: token and id, the row of logits, the label."""
    x, cell, word = 9.5 + 6.9 * i, {"fill": PALE, "colour": COLOURS["ignored"]}, {}
    if scored:
        cell = {"fill": COLOURS["scored"], "colour": "white", "weight": "bold"}
        word = {"fill": COLOURS["replaced"], "colour": "black", "weight": "bold"}
    box(axes, x, 0, token, width=6.6, height=5.6, **word)
    box(axes, x, 14.4, f"row {i}", width=6.6, height=3, **cell)
    box(axes, x, 40, label, width=6.6, height=3.6, **cell)
    axes.plot([x + 3.3] * 2, [7.1, 13.2], "v", color=COLOURS["scored" if scored else "ignored"])


def _softmax_and_loss(axes, x, here, rows):
    """Draw the lower half of the data flow: probabilities, the one that is picked, the loss."""
    blue, red, most = COLOURS["scored"], COLOURS["wrong"], max(rows.values())
    arrow(axes, (x, 17.6), (x, 20), blue)
    axes.text(x, 21.4, f"softmax of row {here}", ha="center", va="center", color=blue, size=12)
    for i, (word, share) in enumerate(rows.items()):
        y, colour = 23 + 2.6 * i, blue if i == len(rows) - 1 else COLOURS["ignored"]
        middle = {"va": "center", "color": colour, "size": 12}
        box(axes, x, y, "", width=9 * share / most, height=2.2, fill=colour)
        axes.text(x - 0.8, y + 1.1, plain(word), ha="right", **middle)
        axes.text(x + 9 * share / most + 0.6, y + 1.1, f"{share:.3f}", **middle)
    arrow(axes, (x, 39.8), (x, 36.4), blue)
    axes.text(x + 1, 38.2, "the label picks one number", va="center", color=blue, size=12)
    arrow(axes, (x + 10.5, 34.5), (x + 15.5, 34.5), blue)
    loss = f"loss = −ln p\n= {-math.log(share):.2f}"
    box(axes, x + 16, 31.5, loss, width=15, height=6, colour=blue, weight="bold", size=13)
    axes.plot([5, 5, 9], [39, 10, 10], color=red, linestyle="--", zorder=0)
    axes.text(5, 26, "✗", ha="center", va="center", color=red, size=20, backgroundcolor="white")
    axes.text(8, 26, "labels hide\nnothing", va="center", color=red, size=12)
    for y, name in ((2.8, "tokens\nids"), (15.9, "logits"), (41.8, "labels")):
        axes.text(0, y, name, va="center", color=TEXT, backgroundcolor="white")


# The deeper notebook: a model, saved, and loaded into another class


def reload(model, name, seed=0):
    """Save a model and load its file into a class of transformers, what is missing drawn anew.

    Returns:
        the new model, and the names of the weights that the file doesn't hold.
    """
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        torch.manual_seed(seed)
        load = getattr(transformers, name).from_pretrained
        loaded, info = load(folder, output_loading_info=True)
    return loaded, set(info["missing_keys"])


# Exercise 1


def _masked_sentences():
    rows = [
        [101, 1045, 2215, 2000, 2689, 1996, 2088, 102],
        [101, 2016, 4149, 1996, 2482, 1012, 102, 0],
    ]
    bert = torch.tensor(rows)
    hidden = torch.zeros_like(bert, dtype=torch.bool)
    hidden[0, 4] = hidden[1, 1] = hidden[1, 4] = True
    roberta = torch.tensor([[0, 713, 16, 10, 2], [0, 100, 236, 7, 2], [0, 12, 9, 2, 1]])
    dark = torch.zeros_like(roberta, dtype=torch.bool)
    dark[0, 1:3] = dark[1, 3] = dark[2, 2] = True
    return [
        (bert.masked_fill(hidden, 103), bert, 103),
        (roberta.masked_fill(dark, 50264), roberta, 50264),
    ]


@exercise(
    cases=_masked_sentences,
    says="Labelled positions hold the original id, all others -100, and no input changed.",
    returns=("label tensor",),
    hint="There is one label for each position, ignored ones too.",
)
def check_labels_for_masked(input_ids, original_ids, mask_token_id):
    """labels_for_masked(input_ids, original_ids, mask_token_id): labels of the masked positions."""
    return _labels(input_ids, original_ids, mask_token_id)


def _labels(ids, old, mask):
    return torch.where(ids == mask, old, -100)


def _turned_round(ids, old, mask):
    return old.masked_fill(ids == mask, -100)


def _one_a_row(ids, old, mask):
    labels = torch.full_like(ids, -100)
    for row, column in enumerate((ids == mask).int().argmax(-1)):
        labels[row, column] = old[row, column]
    return labels


check_labels_for_masked.mistakes += [
    (
        lambda ids, old, mask: torch.where(ids == mask, ids, -100),
        lambda ids, old, mask, found: (
            f"The label at a masked position is {mask}, the id of [MASK]: the model would learn "
            "to answer [MASK]. The label is the token that stood there before."
        ),
    ),
    (
        lambda *case: _labels(*case).tolist(),
        lambda ids, old, mask, found: (
            f"Your function returns a list, not a tensor. Return labels as a tensor of shape "
            f"{tuple(ids.shape)}."
        ),
    ),
    (
        lambda ids, old, mask: old[ids == mask],
        lambda ids, old, mask, found: (
            f"Your labels have shape {tuple(found.shape)}, and the input has shape "
            f"{tuple(ids.shape)}. There is one label for each position, ignored ones too."
        ),
    ),
]
_said_of_labels: dict[str, Any] = {
    "Every position has its id as label, so every position is scored. Where nothing was masked "
    "the label is -100.": lambda ids, old, mask: old.clone(),
    "Your labels are the input_ids: every position is scored, and a masked one is to answer "
    "[MASK]. The right tokens stand in original_ids.": lambda ids, old, mask: ids.clone(),
    "Your labels are the wrong way round: -100 stands at the masked positions, which are the ones "
    "to score, and ids stand at the others.": _turned_round,
    "Your labels are shifted by one position. In a masked language model the label stands at the "
    "position that it scores.": lambda *case: _labels(*case).roll(-1, dims=-1),
    CHANGED: lambda ids, old, mask: old.masked_fill_(ids != mask, -100),
    "Your labels have dtype torch.float32. The loss takes token ids, which are torch.int64 "
    "(torch.long).": lambda *case: _labels(*case).float(),
    "A row can have several masked positions, and you label only the first of each row.": (
        _one_a_row
    ),
    "You look for the id 103. That is [MASK] in the vocabulary of BERT; in another one it has "
    "another id, and mask_token_id says which.": lambda ids, old, mask: _labels(ids, old, 103),
}
for _value in (0, -1):
    _said_of_labels[
        f"The other positions hold {_value}, and the loss leaves out -100 alone: any other value "
        "is taken for the id of a token."
    ] = lambda ids, old, mask, value=_value: torch.where(ids == mask, old, value)
check_labels_for_masked.mistakes += [(wrong, said) for said, wrong in _said_of_labels.items()]


# Exercise 2


def _gaps():
    model, tokenizer = load_tutor()
    return [
        (model, tokenizer, "She poured a cup of [MASK].", "tea"),
        (model, tokenizer, "They want to [MASK] the world, and we will see how.", "change"),
    ]


def _surprise(model, tokenizer, sentence, word, *, label=None, everywhere=False):
    """Return the loss of one label at the gap, and the logits of all positions."""
    inputs = tokenizer(sentence, return_tensors="pt")
    masked = inputs["input_ids"] == tokenizer.mask_token_id
    label = tokenizer.convert_tokens_to_ids(word) if label is None else label
    rest = inputs["input_ids"] if everywhere else torch.full_like(inputs["input_ids"], -100)
    with torch.no_grad():
        output = model(**inputs, labels=torch.where(masked, label, rest))
    return output.loss.item(), output.logits[0], masked[0], label


@exercise(
    cases=_gaps,
    says=lambda model, tokenizer, sentence, word: (
        f"-log p({word}) = {_surprise(model, tokenizer, sentence, word)[0]:.2f} at the "
        "masked position, and nothing else is scored."
    ),
    none="Or the loss is None: transformers 5 accepts an argument that it doesn't know, such as "
    "`masked_lm_labels`, and drops it. The argument is `labels`.",
    errors={
        "'NoneType' object": "The loss is None. transformers 5 accepts an argument that it "
        "doesn't know, such as `masked_lm_labels`, and drops it. The argument is `labels`.",
        "unexpected keyword argument 'masked_lm_labels'": "`masked_lm_labels` was the name before "
        "release 3. The argument is `labels`.",
    },
    divisor=lambda model, tokenizer, sentence, word: 1,
)
def check_surprise(model, tokenizer, sentence, word):
    """surprise(model, tokenizer, sentence, word): -log p(word) at the one [MASK], as a float."""
    return _surprise(model, tokenizer, sentence, word)[0]


def _read_at(position, *case, log=True):
    """Return minus what the model says of the word at a position; None: at the gap."""
    _, logits, masked, label = _surprise(*case)
    said = logits.log_softmax(-1) if log else logits
    return -said[masked if position is None else [position]][0, label].item()


_said_of_surprise: dict[str, Any] = {
    "That is log p(word). The loss is minus that: a small probability gives a large loss.": (
        lambda *case: -_surprise(*case)[0]
    ),
    "That is the probability of the word. The loss is minus its logarithm.": (
        lambda *case: math.exp(-_surprise(*case)[0])
    ),
    "That is -log p(word) in base 2. The loss uses the natural logarithm.": (
        lambda *case: _surprise(*case)[0] / math.log(2)
    ),
    "That is -log p(word) in base 10. The loss uses the natural logarithm.": (
        lambda *case: _surprise(*case)[0] / math.log(10)
    ),
    "That is the mean over every position of the sentence. Set the label of all positions but the "
    "masked one to -100.": lambda *case: _surprise(*case, everywhere=True)[0],
    "That is minus the logit. A logit isn't a log probability: the softmax is missing.": (
        lambda *case: _read_at(None, *case, log=False)
    ),
    "That reads position 4, where the sentence of the lesson has its [MASK]. Find the position in "
    "the sentence that you get.": lambda *case: _read_at(4, *case),
    "That is the loss of the label 103: the id of [MASK] itself. The label is the id of the "
    "word.": lambda *case: _surprise(*case, label=103)[0],
    f"{NOTHING} {check_surprise.none}": lambda *case: None,
}
check_surprise.mistakes += [(wrong, said) for said, wrong in _said_of_surprise.items()]
check_surprise.mistakes += [
    (
        lambda model, tokenizer, sentence, word: _surprise(model, tokenizer, sentence, "the")[0],
        lambda model, tokenizer, sentence, word, found: (
            f"That is the loss of the word `the`, not of `{word}`: the word is an argument."
        ),
    ),
]
