"""Plausible wrong answers to the exercises, each with what its checker must say.

``MISTAKES[checker]`` maps the name of a mistake to ``(function, part of the message)``. The right
answers are the solution cells of the lessons.
"""

import math

import torch

MISTAKES = {}


def mistake(checker, name, message):
    """Register the decorated function as a mistake that ``checker`` must name."""

    def register(function):
        MISTAKES.setdefault(checker, {})[name] = (function, message)
        return function

    return register


# Lesson 01, exercise 1: labels_for_masked(input_ids, original_ids, mask_token_id)

LABELS = "check_labels_for_masked"


@mistake(LABELS, "the id of [MASK]", "103, the id of [MASK]")
def _(input_ids, original_ids, mask_token_id):
    return torch.where(input_ids == mask_token_id, input_ids, -100)


@mistake(LABELS, "everything labelled", "every position is scored")
def _(input_ids, original_ids, mask_token_id):
    return original_ids.clone()


@mistake(LABELS, "inverted", "wrong way round")
def _(input_ids, original_ids, mask_token_id):
    return torch.where(input_ids == mask_token_id, -100, original_ids)


@mistake(LABELS, "zero for ignored", "The other positions hold 0")
def _(input_ids, original_ids, mask_token_id):
    return torch.where(input_ids == mask_token_id, original_ids, 0)


@mistake(LABELS, "minus one for ignored", "The other positions hold -1")
def _(input_ids, original_ids, mask_token_id):
    return torch.where(input_ids == mask_token_id, original_ids, -1)


@mistake(LABELS, "shifted as in a causal model", "shifted by one position")
def _(input_ids, original_ids, mask_token_id):
    return torch.where(input_ids == mask_token_id, original_ids, -100).roll(-1, dims=-1)


@mistake(LABELS, "in place", "changes a tensor that it was given")
def _(input_ids, original_ids, mask_token_id):
    original_ids[input_ids != mask_token_id] = -100
    return original_ids


@mistake(LABELS, "a list", "returns list, not a tensor")
def _(input_ids, original_ids, mask_token_id):
    return torch.where(input_ids == mask_token_id, original_ids, -100).tolist()


@mistake(LABELS, "only the labelled ones", "one label for each position")
def _(input_ids, original_ids, mask_token_id):
    return original_ids[input_ids == mask_token_id]


@mistake(LABELS, "floats", "dtype torch.float32")
def _(input_ids, original_ids, mask_token_id):
    return torch.where(input_ids == mask_token_id, original_ids, -100).float()


@mistake(LABELS, "one masked position forgotten", "The label at row 1, position 4 is -100")
def _(input_ids, original_ids, mask_token_id):
    labels = torch.full_like(input_ids, -100)
    for row, ids in enumerate(input_ids.tolist()):
        first = ids.index(mask_token_id)
        labels[row, first] = original_ids[row, first]
    return labels


# Lesson 01, exercise 2: surprise(model, tokenizer, sentence, word)

SURPRISE = "check_surprise"


def _surprise(model, tokenizer, sentence, word, label=None, everywhere=False):
    inputs = tokenizer(sentence, return_tensors="pt")
    masked = inputs["input_ids"] == tokenizer.mask_token_id
    label = tokenizer.convert_tokens_to_ids(word) if label is None else label
    rest = inputs["input_ids"] if everywhere else torch.full_like(inputs["input_ids"], -100)
    with torch.no_grad():
        out = model(**inputs, labels=torch.where(masked, label, rest))
    return out.loss.item(), out.logits[masked][0, label].item()


@mistake(SURPRISE, "log p", "That is log p(word)")
def _(model, tokenizer, sentence, word):
    return -_surprise(model, tokenizer, sentence, word)[0]


@mistake(SURPRISE, "probability", "That is the probability")
def _(model, tokenizer, sentence, word):
    return math.exp(-_surprise(model, tokenizer, sentence, word)[0])


@mistake(SURPRISE, "bits", "in base 2")
def _(model, tokenizer, sentence, word):
    return _surprise(model, tokenizer, sentence, word)[0] / math.log(2)


@mistake(SURPRISE, "the id of [MASK]", "That is the loss of the label 103")
def _(model, tokenizer, sentence, word):
    return _surprise(model, tokenizer, sentence, word, label=tokenizer.mask_token_id)[0]


@mistake(SURPRISE, "every position", "the mean over every position")
def _(model, tokenizer, sentence, word):
    return _surprise(model, tokenizer, sentence, word, everywhere=True)[0]


@mistake(SURPRISE, "the logit", "minus the logit")
def _(model, tokenizer, sentence, word):
    return -_surprise(model, tokenizer, sentence, word)[1]


@mistake(SURPRISE, "no return", "Your function returns None")
def _(model, tokenizer, sentence, word):
    _surprise(model, tokenizer, sentence, word)


@mistake(SURPRISE, "another word", "Your function returns")
def _(model, tokenizer, sentence, word):
    return _surprise(model, tokenizer, sentence, "the")[0]
