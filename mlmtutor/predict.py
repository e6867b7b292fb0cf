"""What the model would write at each mask of a text."""

from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from mlmtutor._validate import require_mask_token

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
    model: Any, tokenizer: "PreTrainedTokenizerBase", text: str, k: int = 5
) -> list[list[Prediction]]:
    """Predict the ``k`` most likely tokens for each mask in ``text``.

    Each mask is predicted on its own: two masks side by side do not know what the other became.
    No label is involved, and none is needed. The model runs in eval mode and without gradient;
    afterwards each of its modules is in the mode that it was in.

    Args:
        model: a model with an MLM head, such as ``BertForMaskedLM``.
        tokenizer: the tokenizer that belongs to it.
        text: one text with at least one ``tokenizer.mask_token`` in it. It is never truncated.
        k: how many tokens for each mask, from 1 to the size of the model's vocabulary.

    Returns:
        One list for each mask, in the order of the text, each with ``k`` predictions, the most
        likely first.

    Raises:
        TypeError: ``text`` is not a string, ``k`` is not an int, or the model has no MLM head.
        ValueError: the text has no mask or is too long for the model, ``k`` is out of range, the
            tokenizer has no mask token, or it has ids that the model does not know.

    Example:
        >>> from mlmtutor.model import load_tutor
        >>> model, tokenizer = load_tutor()
        >>> text = "She opened the [MASK] and walked into the room."
        >>> [best] = top_predictions(model, tokenizer, text, k=10)
        >>> "door" in [token for token, _, _ in best]
        True

    Source: ``FillMaskPipeline`` of transformers; ``<mask>`` against ``[MASK]``,
    transformers#2132 and transformers#3318.
    """
    mask_token_id = require_mask_token(tokenizer)
    _check_arguments(model, text, k)
    encoded = tokenizer(text, return_tensors="pt", truncation=False, verbose=False)
    input_ids = encoded["input_ids"]
    _check_tokens(model, tokenizer, input_ids[0], mask_token_id)

    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            output = model(
                input_ids=input_ids.to(model.device),
                attention_mask=encoded["attention_mask"].to(model.device),
            )
    finally:
        for module, training in modes:
            module.training = training

    at_masks = output.logits[0].cpu()[input_ids[0] == mask_token_id]
    probabilities, ids = at_masks.float().softmax(dim=-1).topk(k)
    predictions = []
    for row_ids, row_probabilities in zip(ids.tolist(), probabilities.tolist(), strict=True):
        tokens = [token or "?" for token in tokenizer.convert_ids_to_tokens(row_ids)]
        predictions.append(list(map(Prediction, tokens, row_ids, row_probabilities)))
    return predictions


def _check_arguments(model: Any, text: str, k: int) -> None:
    if not isinstance(text, str):
        raise TypeError(
            f"text must be a str, but is a {type(text).__name__}: call this once for each text."
        )
    if model.get_output_embeddings() is None:
        raise TypeError(
            f"model must have an MLM head, but {type(model).__name__} has none: "
            "load it with AutoModelForMaskedLM."
        )
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
