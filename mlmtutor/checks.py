"""Checkers of the exercises: each accepts a right answer and names the mistake in a wrong one.

A checker calls your function on small inputs, compares what comes back with the right answer and,
where they differ, with what the usual mistakes give. ``tests/mistakes.py`` holds the mistakes
that each checker must tell apart.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import torch


class WrongAnswer(AssertionError):
    """The answer to an exercise is wrong; the message says how."""

    def _render_traceback_(self) -> list[str]:
        """Tell IPython to show the message alone: the frames of the checker teach nothing."""
        return [f"✗ {self}"]


def _checker(check: Callable[[Callable[..., Any]], str]) -> Callable[[Callable[..., Any]], None]:
    """Turn ``check``, which returns what a right answer proves, into what a lesson calls."""

    @functools.wraps(check)
    def run(answer: Callable[..., Any]) -> None:
        try:
            proven = check(answer)
        except NotImplementedError:
            print("Not written yet: put your answer in place of `raise NotImplementedError`.")
        else:
            print(f"✓ {proven}")

    return run


def _tensor_like(answer: object, expected: torch.Tensor, name: str) -> torch.Tensor:
    """Return ``answer`` if it is an int64 tensor of the shape of ``expected``."""
    if not isinstance(answer, torch.Tensor):
        raise WrongAnswer(
            f"Your function returns {type(answer).__name__}, not a tensor. Return {name} as a "
            f"tensor of shape {tuple(expected.shape)}."
        )
    if answer.shape != expected.shape:
        raise WrongAnswer(
            f"Your {name} have shape {tuple(answer.shape)}, and the input has shape "
            f"{tuple(expected.shape)}. There is one label for each position, ignored ones too."
        )
    if answer.dtype != torch.int64:
        raise WrongAnswer(
            f"Your {name} have dtype {answer.dtype}. The loss takes token ids, which are "
            "torch.int64 (torch.long)."
        )
    return answer


# Lesson 01


@_checker
def check_labels_for_masked(labels_for_masked: Callable[..., torch.Tensor]) -> str:
    """Check ``labels_for_masked(input_ids, original_ids, mask_token_id)`` of lesson 01."""
    mask = 103
    original = torch.tensor(
        [
            [101, 1045, 2215, 2000, 2689, 1996, 2088, 102],
            [101, 2016, 4149, 1996, 2482, 1012, 102, 0],
        ]
    )
    masked = torch.zeros_like(original, dtype=torch.bool)
    masked[0, 4] = masked[1, 1] = masked[1, 4] = True
    input_ids = original.masked_fill(masked, mask)
    expected = original.masked_fill(~masked, -100)

    given = input_ids.clone(), original.clone()
    labels = labels_for_masked(*given, mask)
    if not (torch.equal(given[0], input_ids) and torch.equal(given[1], original)):
        raise WrongAnswer(
            "Your function changes a tensor that it was given: the caller's ids are lost. Work on "
            "a copy (`original_ids.clone()`, `torch.where`, `masked_fill`)."
        )
    labels = _tensor_like(labels, expected, "labels")
    if torch.equal(labels, expected):
        return "Labelled positions hold the original id, all others -100, and no input changed."
    if (labels[masked] == mask).all():
        raise WrongAnswer(
            "The label at a masked position is 103, the id of [MASK]: the model would learn to "
            "answer [MASK]. The label is the token that stood there before."
        )
    if torch.equal(labels, original):
        raise WrongAnswer(
            "Every position has its id as label, so every position is scored. Where nothing was "
            "masked the label is -100."
        )
    if torch.equal(labels.roll(1, -1)[masked], expected[masked]):
        raise WrongAnswer(
            "Your labels are shifted by one position. In a masked language model the label "
            "stands at the position that it scores."
        )
    if (labels[masked] == -100).all():
        raise WrongAnswer(
            "Your labels are the wrong way round: -100 stands at the masked positions, which are "
            "the ones to score, and ids stand at the others."
        )
    others = labels[~masked].unique()
    if torch.equal(labels[masked], expected[masked]) and len(others) == 1:
        raise WrongAnswer(
            f"The other positions hold {int(others[0])}, and the loss leaves out -100 alone: "
            "any other value is taken for the id of a token."
        )
    row, column = (labels != expected).nonzero()[0].tolist()
    raise WrongAnswer(
        f"The label at row {row}, position {column} is {int(labels[row, column])}, and it should "
        f"be {int(expected[row, column])}."
    )


@_checker
def check_surprise(surprise: Callable[..., float]) -> str:
    """Check ``surprise(model, tokenizer, sentence, word)`` of lesson 01."""
    from mlmtutor.model import load_tutor

    model, tokenizer = load_tutor()
    sentence, word = "She poured a cup of [MASK].", "tea"
    inputs = tokenizer(sentence, return_tensors="pt")
    label = tokenizer.convert_tokens_to_ids(word)
    with torch.no_grad():
        logits = model(**inputs).logits[0]
    log_p = logits.log_softmax(-1)
    position = inputs["input_ids"][0].tolist().index(tokenizer.mask_token_id)
    right = -float(log_p[position, label])
    everywhere = inputs["input_ids"][0].clone()
    everywhere[position] = label
    of_all = -float(log_p.gather(1, everywhere.unsqueeze(1)).mean())
    mistakes = {
        float(log_p[position, label]): "That is log p(word). The loss is minus that: a small "
        "probability gives a large loss.",
        math.exp(-right): "That is the probability of the word. The loss is minus its logarithm.",
        right / math.log(2): "That is -log p(word) in base 2. The loss uses the natural logarithm.",
        -float(log_p[position, tokenizer.mask_token_id]): "That is the loss of the label 103: the "
        "id of [MASK] itself. The label is the id of the word.",
        of_all: "That is the mean over every position of the sentence. Set the label of all "
        "positions but the masked one to -100.",
        -float(logits[position, label]): "That is minus the logit. A logit is no log probability "
        "before the softmax.",
    }
    answer = surprise(model, tokenizer, sentence, word)
    if answer is None:
        raise WrongAnswer(
            "Your function returns None. Either it has no `return`, or the loss is None: "
            "transformers 5 swallows an argument that it does not know, such as "
            "`masked_lm_labels`. The argument is `labels`."
        )
    if math.isclose(float(answer), right, abs_tol=1e-4):
        return f"-log p({word}) = {right:.2f} at the masked position, and nothing else is scored."
    for value, message in mistakes.items():
        if math.isclose(float(answer), value, abs_tol=1e-4):
            raise WrongAnswer(message)
    raise WrongAnswer(f"Your function returns {float(answer):.4f}; -log p({word}) is {right:.4f}.")
