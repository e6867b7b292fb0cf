"""What lesson 01 needs: its two exercises and its figure of the flow of data."""

import math

import torch

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
    return torch.where(input_ids == mask_token_id, original_ids, -100)


@check_labels_for_masked.mistake(
    lambda ids, original, mask, found: (
        f"The label at a masked position is {mask}, the id of [MASK]: the model would learn to "
        "answer [MASK]. The label is the token that stood there before."
    )
)
def _(input_ids, original_ids, mask_token_id):
    return torch.where(input_ids == mask_token_id, input_ids, -100)


@check_labels_for_masked.mistake(
    "Every position has its id as label, so every position is scored. Where nothing was masked "
    "the label is -100."
)
def _(input_ids, original_ids, mask_token_id):
    return original_ids.clone()


@check_labels_for_masked.mistake(
    "Your labels are the input_ids: every position is scored, and a masked one is to answer "
    "[MASK]. The right tokens stand in original_ids."
)
def _(input_ids, original_ids, mask_token_id):
    return input_ids.clone()


@check_labels_for_masked.mistake(
    "Your labels are the wrong way round: -100 stands at the masked positions, which are the ones "
    "to score, and ids stand at the others."
)
def _(input_ids, original_ids, mask_token_id):
    return torch.where(input_ids == mask_token_id, -100, original_ids)


for _value in (0, -1):

    @check_labels_for_masked.mistake(
        f"The other positions hold {_value}, and the loss leaves out -100 alone: any other value "
        "is taken for the id of a token."
    )
    def _(input_ids, original_ids, mask_token_id, value=_value):
        return torch.where(input_ids == mask_token_id, original_ids, value)


@check_labels_for_masked.mistake(
    "Your labels are shifted by one position. In a masked language model the label stands at the "
    "position that it scores."
)
def _(input_ids, original_ids, mask_token_id):
    return torch.where(input_ids == mask_token_id, original_ids, -100).roll(-1, dims=-1)


@check_labels_for_masked.mistake(CHANGED)
def _(input_ids, original_ids, mask_token_id):
    original_ids[input_ids != mask_token_id] = -100
    return original_ids


@check_labels_for_masked.mistake(
    lambda ids, original, mask, found: (
        f"Your function returns a list, not a tensor. Return labels as a tensor of shape "
        f"{tuple(ids.shape)}."
    )
)
def _(input_ids, original_ids, mask_token_id):
    return torch.where(input_ids == mask_token_id, original_ids, -100).tolist()


@check_labels_for_masked.mistake(
    lambda ids, original, mask, found: (
        f"Your labels have shape {tuple(found.shape)}, and the input has shape "
        f"{tuple(ids.shape)}. There is one label for each position, ignored ones too."
    )
)
def _(input_ids, original_ids, mask_token_id):
    return original_ids[input_ids == mask_token_id]


@check_labels_for_masked.mistake(
    "Your labels have dtype torch.float32. The loss takes token ids, which are torch.int64 "
    "(torch.long)."
)
def _(input_ids, original_ids, mask_token_id):
    return torch.where(input_ids == mask_token_id, original_ids, -100).float()


@check_labels_for_masked.mistake(
    "A row can have several masked positions, and you label only the first of each row."
)
def _(input_ids, original_ids, mask_token_id):
    labels = torch.full_like(input_ids, -100)
    for row, ids in enumerate(input_ids.tolist()):
        first = ids.index(mask_token_id)
        labels[row, first] = original_ids[row, first]
    return labels


@check_labels_for_masked.mistake(
    "You look for the id 103. That is [MASK] in the vocabulary of BERT; in another one it has "
    "another id, and mask_token_id says which."
)
def _(input_ids, original_ids, mask_token_id):
    return torch.where(input_ids == 103, original_ids, -100)


# Exercise 2


def _gaps():
    model, tokenizer = load_tutor()
    return [
        (model, tokenizer, "She poured a cup of [MASK].", "tea"),
        (model, tokenizer, "They want to [MASK] the world, and we will see how.", "change"),
    ]


def _surprise(model, tokenizer, sentence, word, label=None, everywhere=False):
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


@check_surprise.mistake(
    "That is log p(word). The loss is minus that: a small probability gives a large loss."
)
def _(*case):
    return -_surprise(*case)[0]


@check_surprise.mistake("That is the probability of the word. The loss is minus its logarithm.")
def _(*case):
    return math.exp(-_surprise(*case)[0])


@check_surprise.mistake("That is -log p(word) in base 2. The loss uses the natural logarithm.")
def _(*case):
    return _surprise(*case)[0] / math.log(2)


@check_surprise.mistake("That is -log p(word) in base 10. The loss uses the natural logarithm.")
def _(*case):
    return _surprise(*case)[0] / math.log(10)


@check_surprise.mistake(
    lambda model, tokenizer, sentence, word, found: (
        f"That is the loss of the label {tokenizer.mask_token_id}: the id of [MASK] itself. The "
        "label is the id of the word."
    )
)
def _(model, tokenizer, sentence, word):
    return _surprise(model, tokenizer, sentence, word, label=tokenizer.mask_token_id)[0]


@check_surprise.mistake(
    "That is the mean over every position of the sentence. Set the label of all positions but the "
    "masked one to -100."
)
def _(model, tokenizer, sentence, word):
    return _surprise(model, tokenizer, sentence, word, everywhere=True)[0]


@check_surprise.mistake(
    "That is minus the logit. A logit isn't a log probability: the softmax is missing."
)
def _(*case):
    _, logits, masked, label = _surprise(*case)
    return -logits[masked][0, label].item()


@check_surprise.mistake(
    "That reads position 4, where the sentence of the lesson has its [MASK]. Find the position in "
    "the sentence that you get."
)
def _(*case):
    _, logits, _, label = _surprise(*case)
    return -logits.log_softmax(-1)[4, label].item()


@check_surprise.mistake(f"{NOTHING} {check_surprise.none}")
def _(*case):
    _surprise(*case)


@check_surprise.mistake(
    lambda model, tokenizer, sentence, word, found: (
        f"That is the loss of the word `the`, not of `{word}`: the word is an argument."
    )
)
def _(model, tokenizer, sentence, word):
    return _surprise(model, tokenizer, sentence, "the")[0]
