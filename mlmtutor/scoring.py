"""What the model would write at each mask of a text, and how likely it finds a whole text."""

import contextlib
import dataclasses
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from mlmtutor._validate import require_int, require_mask_token
from mlmtutor.model import is_trained as is_trained

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Prediction(NamedTuple):
    """One token that the model predicts at a mask.

    Attributes:
        token: the entry of the vocabulary, so with ``##`` or ``Ġ`` where it has one; ``?`` if the
            tokenizer has no token for the id.
        token_id: its id.
        probability: its probability among all tokens that the model has, between 0 and 1.
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

    Each mask is predicted on its own: two masks side by side do not know what the other became.
    No label is involved, and none is needed. The model runs in eval mode and without gradient;
    afterwards each of its modules is in the mode that it was in.

    Args:
        text: one text with at least one ``tokenizer.mask_token`` in it. It is never truncated.
        tokenizer: the tokenizer of the model.
        model: a model with an MLM head, such as ``BertForMaskedLM``.
        k: how many tokens for each mask, from 1 to the size of the model's vocabulary.

    Returns:
        One list for each mask, in the order of the text, each with ``k`` predictions, the most
        likely first.

    Raises:
        TypeError: ``text`` is not a string, ``k`` is not an int, or the model has no MLM head.
        ValueError: the text has no mask or is too long for the model, ``k`` is out of range, the
            tokenizer has no mask token, or it has ids that the model does not know; the text
            is no valid Unicode, or the logits are nan or inf.

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
    _check_text(model, text)
    _check_k(model, k)
    encoded = tokenizer(text, return_tensors="pt", truncation=False, verbose=False)
    input_ids = encoded["input_ids"]
    _check_tokens(model, tokenizer, input_ids[0], mask_token_id)

    with _evaluating(model):
        output = model(
            input_ids=input_ids.to(model.device),
            attention_mask=encoded["attention_mask"].to(model.device),
        )

    at_masks = output.logits[0].cpu()[input_ids[0] == mask_token_id]
    _check_logits(at_masks)
    probabilities, ids = at_masks.float().softmax(dim=-1).topk(k)
    predictions = []
    for row_ids, row_probabilities in zip(ids.tolist(), probabilities.tolist(), strict=True):
        tokens = [token or "?" for token in tokenizer.convert_ids_to_tokens(row_ids)]
        predictions.append(list(map(Prediction, tokens, row_ids, row_probabilities)))
    return predictions


@dataclasses.dataclass(frozen=True)
class PseudoLogLikelihood:
    """The score of a text: how likely each of its tokens is, given all the others.

    Attributes:
        tokens: the scored tokens in the order of the text, so without ``[CLS]`` and ``[SEP]``.
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

    The model runs in eval mode and without gradient; afterwards each of its modules is in the
    mode that it was in. Its head is applied to the hidden token of each row alone, so no logits
    of shape (rows, length, V) are made.

    Args:
        text: one text. It is never truncated. Special tokens that the tokenizer adds are not
            scored.
        tokenizer: the tokenizer of the model.
        model: a model with an MLM head, such as ``BertForMaskedLM``.
        within_word: hide, together with a token, the later pieces of its word. Without it the
            later pieces give the earlier ones away, and rare words get too high a score.
        batch_size: how many rows the model reads at a time. It bounds the memory, and does not
            change the score.

    Returns:
        The tokens and their log-probabilities, with ``total`` and ``pseudo_perplexity``.

    Raises:
        TypeError: ``text`` is not a string, ``batch_size`` is not an int, or the model has no MLM
            head.
        ValueError: the text has no token, holds a mask, or is too long for the model;
            ``batch_size`` is less than 1; the tokenizer has no mask token, or has ids that the
            model does not know, or is slow and ``within_word`` is set; the text is no valid
            Unicode, or the logits are nan or inf.

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
    _check_text(model, text)
    _check_batch_size(batch_size)
    if not isinstance(within_word, bool):
        raise TypeError(f"within_word must be a bool, but is a {type(within_word).__name__}.")
    if within_word and not tokenizer.is_fast:
        raise ValueError(
            f"within_word needs a tokenizer that knows which word a token belongs to, but "
            f"{type(tokenizer).__name__} is a slow one: load the fast one, for example with "
            "AutoTokenizer.from_pretrained(..., use_fast=True)."
        )
    encoded = tokenizer(
        text,
        return_tensors="pt",
        return_special_tokens_mask=True,
        truncation=False,
        verbose=False,
    )
    input_ids = encoded["input_ids"]
    positions = (encoded["special_tokens_mask"][0] == 0).nonzero()[:, 0]
    _check_scored_text(model, tokenizer, input_ids[0], len(positions), mask_token_id)

    # Row i of `hidden` says what the model must not see while it is asked for token i.
    hidden = positions.unsqueeze(1) == torch.arange(input_ids.shape[1])
    if within_word:
        words = torch.tensor([-1 if word is None else word for word in encoded.word_ids(0)])
        same_word = words[positions].unsqueeze(1) == words
        hidden |= same_word & (torch.arange(len(words)) > positions.unsqueeze(1))

    log_p = []
    with _evaluating(model):
        for rows, asked in zip(hidden.split(batch_size), positions.split(batch_size), strict=True):
            batch = torch.where(rows, mask_token_id, input_ids)
            mask = encoded["attention_mask"].expand_as(batch)
            logits = _logits_at(model, asked.to(model.device), batch, mask).float().cpu()
            _check_logits(logits)
            answers = input_ids[0, asked].unsqueeze(1)
            log_p += logits.log_softmax(dim=-1).gather(1, answers)[:, 0].tolist()
    tokens = tokenizer.convert_ids_to_tokens(input_ids[0, positions].tolist())
    return PseudoLogLikelihood(tuple(tokens), tuple(log_p))


def _logits_at(
    model: Any, positions: torch.Tensor, input_ids: torch.Tensor, attention_mask: torch.Tensor
) -> torch.Tensor:
    """Return logits of shape (rows, V): those at one position of each row.

    What turns hidden states into logits works on each position by itself. So the other positions
    are dropped before it, which saves most of the memory and much of the work.
    """
    rows = torch.arange(len(positions), device=positions.device)
    length = input_ids.shape[1]

    def keep_one(module: Any, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        states = arguments[0]
        if states.shape[:2] != (len(rows), length):
            return arguments
        return states[rows, positions].unsqueeze(1), *arguments[1:]

    handle = model.get_output_embeddings().register_forward_pre_hook(keep_one)
    try:
        logits: torch.Tensor = model(
            input_ids=input_ids.to(model.device), attention_mask=attention_mask.to(model.device)
        ).logits
    finally:
        handle.remove()
    return logits[:, 0] if logits.shape[1] == 1 else logits[rows, positions]


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


def _check_text(model: Any, text: str) -> None:
    if not isinstance(text, str):
        raise TypeError(
            f"text must be a str, but is a {type(text).__name__}: call this once for each text."
        )
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"text must be valid Unicode, but has a lone surrogate at {error.start}: read the "
            "file with its own encoding, or drop what cannot be read with errors='ignore'."
        ) from None
    find_head = getattr(model, "get_output_embeddings", None)
    if find_head is None or find_head() is None:
        raise TypeError(
            f"model must have an MLM head, but {type(model).__name__} has none: "
            "load it with AutoModelForMaskedLM."
        )


def _check_logits(logits: torch.Tensor) -> None:
    """Raise unless a softmax of ``logits`` has a meaning."""
    if not logits.amax(dim=-1).isfinite().all():  # the largest is nan if any is
        raise ValueError(
            "model must give logits with a finite largest value, but gives nan or inf: are its "
            "weights those of a training that diverged, or is float16 too small for it?"
        )


def _check_k(model: Any, k: int) -> None:
    if isinstance(k, bool) or not isinstance(k, int):
        raise TypeError(f"k must be an int, but is a {type(k).__name__}.")
    if not 1 <= k <= model.config.vocab_size:
        raise ValueError(
            f"k must be between 1 and {model.config.vocab_size}, the number of tokens that the "
            f"model chooses from, but is {k}."
        )


def _check_tokens(
    model: Any,
    tokenizer: "PreTrainedTokenizerBase",
    input_ids: torch.Tensor,
    mask_token_id: int,
) -> None:
    limit = _max_length(model, tokenizer)
    if len(input_ids) > limit:
        raise ValueError(
            f"text must have at most {limit} tokens for this model, special tokens included, but "
            f"has {len(input_ids)}: shorten it around the mask. It is not truncated for you, "
            "because that could drop a mask."
        )
    if mask_token_id not in input_ids:
        tokens = " ".join(tokenizer.convert_ids_to_tokens(input_ids.tolist()))
        other = "<mask>" if tokenizer.mask_token != "<mask>" else "[MASK]"
        raise ValueError(
            f"text must contain {tokenizer.mask_token}, the mask token of this tokenizer, but was "
            f"split into: {tokens}\nWrite {tokenizer.mask_token} where the model must predict; "
            f"{other}, the mask token of other tokenizers, is ordinary text here."
        )
    _check_ids(model, tokenizer, input_ids)


def _check_scored_text(
    model: Any,
    tokenizer: "PreTrainedTokenizerBase",
    input_ids: torch.Tensor,
    scored: int,
    mask_token_id: int,
) -> None:
    if not scored:
        raise ValueError(
            "text must have at least one token to score, but has none: it is empty, or the "
            "tokenizer drops all of its characters."
        )
    limit = _max_length(model, tokenizer)
    if len(input_ids) > limit:
        raise ValueError(
            f"text must have at most {limit} tokens for this model, special tokens included, but "
            f"has {len(input_ids)}: score its sentences one by one. It is not truncated for you, "
            "because the score would be that of another text."
        )
    if mask_token_id in input_ids:
        raise ValueError(
            f"text must not contain {tokenizer.mask_token}, but does: each token is hidden for "
            "you, one after the other. Give the complete text; for the answer at a mask call "
            "top_predictions."
        )
    _check_ids(model, tokenizer, input_ids)


def _check_batch_size(batch_size: int) -> None:
    if isinstance(batch_size, bool) or not isinstance(batch_size, int):
        raise TypeError(f"batch_size must be an int, but is a {type(batch_size).__name__}.")
    if batch_size < 1:
        raise ValueError(
            f"batch_size must be at least 1, but is {batch_size}: it is how many rows the model "
            "reads at a time."
        )
    require_int("batch_size", batch_size)


def _check_ids(model: Any, tokenizer: "PreTrainedTokenizerBase", input_ids: torch.Tensor) -> None:
    vocab_size = model.config.vocab_size
    if int(input_ids.max()) >= vocab_size:
        token_id = int(input_ids.max())
        raise ValueError(
            f"every id must be between 0 and {vocab_size - 1}, the last that the model knows, but "
            f"the tokenizer gives {tokenizer.convert_ids_to_tokens(token_id)!r} the id {token_id}: "
            "do the tokenizer and the model belong together?"
        )


def _max_length(model: Any, tokenizer: "PreTrainedTokenizerBase") -> int:
    """How many tokens the model can read; a huge number if nothing says so."""
    limits = [tokenizer.model_max_length]
    positions = getattr(model.config, "max_position_embeddings", None)
    if positions is not None:
        # RoBERTa counts positions from padding_idx + 1, so it cannot use its first few rows.
        for name, module in model.named_modules():
            if name.endswith("position_embeddings"):
                padding = getattr(module, "padding_idx", None)
                positions -= 0 if padding is None else padding + 1
        limits.append(positions)
    return min(limits)
