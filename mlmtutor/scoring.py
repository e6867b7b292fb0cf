"""What the model would write at each mask of a text, and how likely it finds a whole text."""

import contextlib
import dataclasses
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from mlmtutor._validate import require_mask_token, require_type
from mlmtutor.loss import masked_lm_loss
from mlmtutor.model import longest_input

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Prediction(NamedTuple):
    """One token that the model predicts at a mask.

    Attributes:
        token: with ``##`` or ``Ġ`` where the vocabulary has it; ``?`` if it has none for the id.
        token_id: its id.
        probability: its probability among all tokens that the model has.
    """

    token: str
    token_id: int
    probability: float

    def __repr__(self) -> str:
        return f"Prediction({self.token!r}, {self.token_id}, {self.probability:.4f})"


def top_predictions(
    text: str, tokenizer: "PreTrainedTokenizerBase", model: Any, k: int = 5
) -> list[list[Prediction]]:
    """Predict the ``k`` most likely tokens for each mask in ``text``.

    Each mask is predicted on its own: two masks side by side don't know each other's answer.
    The model runs in eval mode and without gradient, and is left in the mode in which it was.

    Args:
        text: one text with at least one ``tokenizer.mask_token`` in it. It is never truncated.
        tokenizer: the tokenizer of the model.
        model: a model with an MLM head, such as ``BertForMaskedLM``.
        k: how many tokens for each mask, from 1 to the size of the model's vocabulary.

    Returns:
        One list for each mask, in the order of the text, each with ``k`` predictions, the most
        likely first.

    Raises:
        TypeError: ``text`` is not a string, or the model has no logits at each position.
        ValueError: the text has no mask or is too long for the model, ``k`` is out of range, the
            tokenizer has no mask token or has ids that the model doesn't know, or the logits are
            nan or inf.

    Example:
        >>> from mlmtutor.model import load_tutor
        >>> model, tokenizer = load_tutor()
        >>> text = "She opened the [MASK] and walked into the room."
        >>> [best] = top_predictions(text, tokenizer, model, k=10)
        >>> "door" in [token for token, _, _ in best]
        True

    Source: ``FillMaskPipeline`` of transformers; ``<mask>`` against ``[MASK]``,
    transformers#2132 and transformers#3318.
    """
    mask_token_id = require_mask_token(tokenizer)
    encoded = _encode(text, tokenizer, model)
    is_mask = encoded["input_ids"][0] == mask_token_id
    if not is_mask.any():
        pieces = " ".join(tokenizer.convert_ids_to_tokens(encoded["input_ids"][0].tolist()))
        other = "<mask>" if tokenizer.mask_token != "<mask>" else "[MASK]"
        raise ValueError(
            f"text must contain {tokenizer.mask_token}, the mask token of this tokenizer, but was "
            f"split into: {pieces}\nWrite {tokenizer.mask_token} where the model must predict; "
            f"{other}, the mask token of other tokenizers, is ordinary text here."
        )
    with _evaluating(model):
        at_masks = _logits(model, encoded["input_ids"], encoded["attention_mask"])[0, is_mask]
    if not 1 <= k <= at_masks.shape[-1]:
        raise ValueError(
            f"k must be between 1 and {at_masks.shape[-1]}, the number of tokens that the model "
            f"chooses from, but is {k}."
        )
    probabilities, ids = at_masks.softmax(dim=-1).topk(k)
    predictions = []
    for row_ids, row_probabilities in zip(ids.tolist(), probabilities.tolist(), strict=True):
        tokens = [token or "?" for token in tokenizer.convert_ids_to_tokens(row_ids)]
        predictions.append(list(map(Prediction, tokens, row_ids, row_probabilities)))
    return predictions


@dataclasses.dataclass(frozen=True)
class PseudoLogLikelihood:
    """The score of a text: how likely each of its tokens is, given all the others.

    Attributes:
        tokens: the scored tokens in the order of the text, without ``[CLS]`` and ``[SEP]``.
        log_probabilities: for each the natural logarithm of its probability while it is hidden.
    """

    tokens: tuple[str, ...]
    log_probabilities: tuple[float, ...]

    @property
    def total(self) -> float:
        """The pseudo-log-likelihood: the sum over the tokens, at most 0."""
        return math.fsum(self.log_probabilities)

    @property
    def pseudo_perplexity(self) -> float:
        """``exp(-total / n)`` for n tokens: at least 1, and not a perplexity."""
        mean = -self.total / len(self.tokens)
        return math.exp(mean) if mean < 709 else math.inf  # e to the 710 is above all floats


def pseudo_log_likelihood(
    text: str,
    tokenizer: "PreTrainedTokenizerBase",
    model: Any,
    *,
    within_word: bool = False,
    batch_size: int = 32,
) -> PseudoLogLikelihood:
    """Score a text by hiding each of its tokens in turn and asking for it.

    A text of n tokens becomes n rows. Row *i* is the text with token *i* hidden, and its one
    label stands there, so the labels are a diagonal. With all rows in one batch the total is
    ``-n * model(batch, labels=labels).loss``.

    The model runs in eval mode and without gradient, and is left in the mode in which it was. Its
    last layer is applied to the hidden token of each row alone, so no logits of shape
    (rows, length, V) are made.

    Args:
        text: one text. It is never truncated. Special tokens that the tokenizer adds are not
            scored.
        tokenizer: the tokenizer of the model.
        model: a model with an MLM head, such as ``BertForMaskedLM``.
        within_word: hide, together with a token, the later pieces of its word. Without it the
            later pieces give the earlier ones away, and rare words get too high a score.
        batch_size: how many rows the model reads at a time.

    Returns:
        A :class:`PseudoLogLikelihood`.

    Raises:
        TypeError: ``text`` is not a string, or the model has no logits at each position.
        ValueError: the text has no token, holds a mask, or is too long for the model;
            ``batch_size`` is less than 1; the tokenizer has no mask token, or has ids that the
            model doesn't know, or is slow and ``within_word`` is set; or the logits are nan or
            inf.

    Example:
        >>> from mlmtutor.model import load_tutor
        >>> model, tokenizer = load_tutor()
        >>> good = pseudo_log_likelihood("She opened the door.", tokenizer, model)
        >>> good.tokens
        ('she', 'opened', 'the', 'door', '.')
        >>> bad = pseudo_log_likelihood("Door she the opened.", tokenizer, model)
        >>> good.total > bad.total
        True

    Source: Salazar et al. 2020, arXiv:1910.14659; ``within_word`` is PLL-word-l2r of Kauf and
    Ivanova 2023, arXiv:2305.10588.
    """
    mask_token_id = require_mask_token(tokenizer)
    if within_word and not tokenizer.is_fast:
        raise ValueError(
            f"within_word needs a tokenizer that knows which word a token belongs to, but "
            f"{type(tokenizer).__name__} is a slow one: load the fast one, for example with "
            "AutoTokenizer.from_pretrained(..., use_fast=True)."
        )
    if batch_size < 1:
        raise ValueError(
            f"batch_size must be at least 1, but is {batch_size}: it is how many rows the model "
            "reads at a time."
        )
    encoded = _encode(text, tokenizer, model)
    input_ids = encoded["input_ids"]
    positions = (encoded["special_tokens_mask"][0] == 0).nonzero()[:, 0]
    if mask_token_id in input_ids:
        raise ValueError(
            f"text must not contain {tokenizer.mask_token}, but does: each token is hidden for "
            "you, one after the other. Give the complete text; for the answer at a mask call "
            "top_predictions."
        )
    if not len(positions):
        raise ValueError(
            "text must have at least one token to score, but has none: it is empty, or the "
            "tokenizer drops all of its characters."
        )

    # Row i of `hidden` says what the model must not see while it is asked for token i.
    hidden = positions.unsqueeze(1) == torch.arange(input_ids.shape[1])
    if within_word:
        words = torch.tensor([-1 if word is None else word for word in encoded.word_ids(0)])
        same_word = words[positions].unsqueeze(1) == words
        hidden |= same_word & (torch.arange(len(words)) > positions.unsqueeze(1))

    log_p: list[float] = []
    with _evaluating(model):
        for rows, asked in zip(hidden.split(batch_size), positions.split(batch_size), strict=True):
            batch = torch.where(rows, mask_token_id, input_ids)
            logits = _logits(model, batch, encoded["attention_mask"].expand_as(batch), asked)
            log_p += (-masked_lm_loss(logits, input_ids[0, asked], reduction="none")).tolist()
    tokens = tokenizer.convert_ids_to_tokens(input_ids[0, positions].tolist())
    return PseudoLogLikelihood(tuple(tokens), tuple(log_p))


def _encode(text: str, tokenizer: "PreTrainedTokenizerBase", model: Any) -> Any:
    """Return the text as a batch of one row, or say why the model can't read it."""
    require_type("text", text, str, "call this once for each text.")
    encoded = tokenizer(
        text, return_tensors="pt", return_special_tokens_mask=True, return_attention_mask=True,
        truncation=False, verbose=False,
    )  # fmt: skip
    length = encoded["input_ids"].shape[1]
    limit = min(tokenizer.model_max_length, longest_input(model))
    if length > limit:
        raise ValueError(
            f"text must have at most {limit} tokens for this model, special tokens included, but "
            f"has {length}: give it sentence by sentence. It is not truncated for you, because "
            "that would make another text of it."
        )
    token_id, vocab_size = int(encoded["input_ids"].max()), model.config.vocab_size
    if token_id >= vocab_size:
        raise ValueError(
            f"every id must be between 0 and {vocab_size - 1}, the last that the model knows, but "
            f"the tokenizer gives {tokenizer.convert_ids_to_tokens(token_id)!r} the id {token_id}: "
            "do the tokenizer and the model belong together?"
        )
    return encoded


def _logits(
    model: Any,
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor,
    asked: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return float32 logits on the CPU: (rows, length, V), or (rows, V) at one position a row."""
    rows = torch.arange(len(input_ids))
    last_layer: Any = getattr(model, "get_output_embeddings", lambda: None)()

    def keep_one(module: Any, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        states = arguments[0]  # the last layer works on each position by itself
        if states.shape[:2] != input_ids.shape:
            return arguments
        return states[rows, asked].unsqueeze(1), *arguments[1:]

    with contextlib.ExitStack() as hooks:
        if asked is not None and last_layer is not None:
            hooks.callback(last_layer.register_forward_pre_hook(keep_one).remove)
        output = model(
            input_ids=input_ids.to(model.device), attention_mask=attention_mask.to(model.device)
        )
    logits: torch.Tensor | None = getattr(output, "logits", None)
    if logits is None or logits.dim() != 3:
        raise TypeError(
            f"model must give logits at each position, but {type(model).__name__} gives none: "
            "load it with AutoModelForMaskedLM."
        )
    logits = logits[:, : input_ids.shape[1]]  # Perceiver's are as many as it has positions
    if asked is not None:
        logits = logits[:, 0] if logits.shape[1] == 1 else logits[rows, asked]
    logits = logits.float().cpu()
    if not logits.amax(dim=-1).isfinite().all():  # the largest is nan if any is
        raise ValueError(
            "model must give logits with a finite largest value, but gives nan or inf: are its "
            "weights those of a training that diverged, or is float16 too small for it?"
        )
    return logits


@contextlib.contextmanager
def _evaluating(model: Any) -> Iterator[None]:
    """Switch to eval mode and off gradients; afterwards each module is in its own mode again."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in modes:
            module.training = training
