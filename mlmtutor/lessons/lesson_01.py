"""What lesson 01 needs: its two exercises, its figure of the flow of data, and `reload`."""

import math
import tempfile

import torch
import transformers

from mlmtutor.figure import COLOURS, Figure, bars, cells, drawing, finish, notes
from mlmtutor.lessons.exercise import CHANGED, NOTHING, exercise
from mlmtutor.model import load_tutor

# The figure: where the labels join


def dataflow(batch, tokenizer, logits) -> Figure:
    """Draw how one row becomes logits, (1, length, V), and its one label the loss."""
    ids, labels = (batch[name][0].tolist() for name in ("input_ids", "labels"))
    [here] = [i for i, label in enumerate(labels) if label != -100]
    p, shown = logits[0, here].softmax(-1), range(len(ids))[max(here - 3, 0) : here + 4]
    best, loss = [*p.topk(4).indices.tolist(), labels[here]], f"{-p[labels[here]].log():.2f}"
    tokens, words = (tokenizer.convert_ids_to_tokens(each) for each in (ids, best))
    chances, (blue, red, grey) = p[best].tolist(), map(COLOURS.get, ("scored", "wrong", "ignored"))
    (canvas, axes), n = drawing(72, 50, size=(4.9, 3.4)), len(shown)
    for y, h, texts, looks in (
        (0, 7, [f"{tokens[i]}\n{ids[i]}" for i in shown], ("plain", "replaced")),
        (15.6, 4, [f"row {i}" for i in shown], ("ignored", "scored")),
        (46, 4, [labels[i] for i in shown], ("ignored", "scored")),
    ):
        cells(axes, 3, y, texts, [looks[i == here] for i in shown], width=9.5, height=h, gap=0.35)
    reads, x = ["the model reads the ids, never the labels"], 7.75 + 9.85 * shown.index(here)
    cells(axes, 3, 9, reads, ["dark"], width=9.85 * n - 0.35, height=4.6)
    axes.plot([7.75 + 9.85 * i for i in range(n)] * 2, [8] * n + [14.6] * n, "v", color=grey)
    axes.plot([2.8, 1, 1, 1, 1, 1, 2.8], [11.3, 11.3, 28, math.nan, 34, 48, 48], "--", color=red)
    end = bars(axes, x, 24, words, chances, [*["ignored"] * 4, "scored"], length=10, step=3.5)
    notes(axes, (3, 21.6, "rows of logits"), (x - 1, 21.6, f"↓ softmax of row {here}", blue),
          (3, 43.8, "labels"), (x - 1, 43.8, "↑ picks one number", blue), (0, 31, "✗", red),
          (4, 31, "no path to\nthe model", red),
          (end + 10, 39.75, f"loss = −ln p = {loss}", blue))  # fmt: skip
    return finish(canvas, alt="The model turns each token into a row of logits. The softmax of row "
        f"{here} gives {', '.join(f'{w} {p:.4f}' for w, p in zip(words, chances, strict=True))}. "
        f"The label at {here}, {labels[here]}, picks {words[-1]}, and the loss is minus the "
        f"logarithm of {chances[-1]:.4f}: {loss}. No arrow leads from the labels to the model.",
        caption="The labels join at the last step: they pick the number that becomes the loss."
    )  # fmt: skip


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


# The exercise


def _masked_sentences():
    first = [101, 1045, 2215, 2000, 2689, 1996, 2088, 102]
    second = [101, 2016, 4149, 1996, 2482, 1012, 102, 0]
    bert = torch.tensor([first, second])
    roberta = torch.tensor([[0, 713, 16, 10, 2], [0, 100, 236, 7, 2], [0, 12, 9, 2, 1]])
    return [
        (ids.masked_fill(torch.isin(ids, torch.tensor(gone)), mask), ids, mask)
        for ids, gone, mask in ((bert, [2689, 2016, 2482], 103), (roberta, [713, 16, 7, 9], 50264))
    ]


@exercise(
    cases=_masked_sentences,
    says="Labelled positions hold the original id, all others -100, and no input changed.",
    returns=("label tensor",),
    hint="There is one label for each position, ignored ones too.",
)
def check_labels_for_masked(input_ids, original_ids, mask_token_id, rest=-100):
    """labels_for_masked(input_ids, original_ids, mask_token_id): labels of the masked positions."""
    return torch.where(input_ids == mask_token_id, original_ids, rest)


_labels = check_labels_for_masked.right
check_labels_for_masked.wrong |= {
    lambda ids, old, mask, found: f"The label at a masked position is {mask}, the id of [MASK]: "
    "the model would learn to answer [MASK]. The label is the token that stood there before.":
        lambda ids, old, mask: _labels(ids, ids, mask),
    lambda ids, old, mask, found: "Your function returns a list, not a tensor. Return labels as a "
    f"tensor of shape {tuple(ids.shape)}.": lambda *case: _labels(*case).tolist(),
    lambda ids, old, mask, found: f"Your labels have shape {tuple(found.shape)}, and the input has "
    f"shape {tuple(ids.shape)}. There is one label for each position, ignored ones too.":
        lambda ids, old, mask: old[ids == mask],
    "Every position has its id as label, so every position is scored. Where nothing was masked the "
    "label is -100.": lambda ids, old, mask: old.clone(),
    "Your labels are the input_ids: every position is scored, and a masked one is to answer "
    "[MASK]. The right tokens stand in original_ids.": lambda ids, old, mask: ids.clone(),
    "Your labels are the wrong way round: -100 stands at the masked positions, which are the ones "
    "to score, and ids stand at the others.":
        lambda ids, old, mask: old.masked_fill(ids == mask, -100),
    "Your labels are shifted by one position. In a masked language model the label stands at the "
    "position that it scores.": lambda *case: _labels(*case).roll(-1, dims=-1),
    CHANGED: lambda ids, old, mask: old.masked_fill_(ids != mask, -100),
    "Your labels have dtype torch.float32. The loss takes token ids, which are torch.int64 "
    "(torch.long).": lambda *case: _labels(*case).float(),
    "A row can have several masked positions, and you label only the first of each row.":
        lambda ids, old, mask: _labels(ids * ((ids == mask).cumsum(-1) == 1), old, mask),
    "You look for the id 103. That is [MASK] in the vocabulary of BERT; in another one it has "
    "another id, and mask_token_id says which.": lambda ids, old, mask: _labels(ids, old, 103),
    "The other positions hold 0, and the loss leaves out -100 alone: any other value is taken for "
    "the id of a token.": lambda ids, old, mask: _labels(ids, old, mask, rest=0),
    "The other positions hold -1, and the loss leaves out -100 alone: any other value is taken for "
    "the id of a token.": lambda ids, old, mask: _labels(ids, old, mask, rest=-1),
}  # fmt: skip


# The exercise of the deeper notebook


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
    errors={
        "'NoneType' object": "The loss is None. transformers 5 accepts an argument that it "
        "doesn't know, such as `masked_lm_labels`, and drops it. The argument is `labels`.",
        "unexpected keyword argument 'masked_lm_labels'": "`masked_lm_labels` was the name before "
        "release 3. The argument is `labels`.",
    },
    divisor=lambda model, tokenizer, sentence, word: 1,
    of=lambda *case: (case, *_surprise(*case)),
)
def check_surprise(model, tokenizer, sentence, word):
    """surprise(model, tokenizer, sentence, word): -log p(word) at the one [MASK], as a float."""
    return _surprise(model, tokenizer, sentence, word)[0]


check_surprise.wrong |= {
    f"{NOTHING} Or the loss is None: transformers 5 accepts an argument that it doesn't know, such "
    "as `masked_lm_labels`, and drops it. The argument is `labels`.": lambda *_: None,
    "That is log p(word). The loss is minus that: a small probability gives a large loss.":
        lambda case, loss, *_: -loss,
    "That is the probability of the word. The loss is minus its logarithm.":
        lambda case, loss, *_: math.exp(-loss),
    "That is -log p(word) in base 2. The loss uses the natural logarithm.":
        lambda case, loss, *_: loss / math.log(2),
    "That is -log p(word) in base 10. The loss uses the natural logarithm.":
        lambda case, loss, *_: loss / math.log(10),
    "That is the mean over every position of the sentence. Set the label of all positions but the "
    "masked one to -100.": lambda case, *_: _surprise(*case, everywhere=True)[0],
    "That is minus the logit. A logit isn't a log probability: the softmax is missing.":
        lambda case, loss, logits, gap, label: -logits[gap][0, label],
    "That reads position 4, where the sentence of the lesson has its [MASK]. Find the position in "
    "the sentence that you get.":
        lambda case, loss, logits, gap, label: -logits[4].log_softmax(-1)[label],
    "That is the loss of the label 103: the id of [MASK] itself. The label is the id of the word.":
        lambda case, *_: _surprise(*case, label=103)[0],
    lambda model, tokenizer, sentence, word, found: "That is the loss of the word `the`, not of "
    f"`{word}`: the word is an argument.":
        lambda case, *_: _surprise(case[0], case[1], case[2], "the")[0],
}  # fmt: skip
