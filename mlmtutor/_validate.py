"""Checks that several modules make on their input, with messages that name the likely cause."""

from collections.abc import Mapping
from typing import Any

import torch

EXCHANGED = "labels have negative entries, input ids never do. Are the two exchanged?"


def require_type(name: str, value: Any, kind: type, cause: str) -> None:
    """Raise a TypeError unless ``value`` is a ``kind``."""
    if not isinstance(value, kind):
        expected = f"torch.{kind.__name__}" if "torch" in kind.__module__ else kind.__name__
        raise TypeError(f"{name} must be a {expected}, but is a {type(value).__name__}: {cause}")


def require_ids(name: str, value: Any) -> None:
    """Raise unless ``value`` is an int64 tensor, the dtype of token ids and of labels."""
    cause = "call the tokenizer with return_tensors='pt', or use torch.tensor(...)."
    if isinstance(value, Mapping):
        cause = "pass one of its tensors, such as batch['input_ids']."
    require_type(name, value, torch.Tensor, cause)
    if value.dtype != torch.int64:
        raise ValueError(
            f"{name} must have dtype torch.int64, but has {value.dtype}: convert it with .long()."
        )


def require_known_ids(smallest: int, largest: int, vocab_size: int, last: str) -> None:
    """Raise unless input ids from ``smallest`` to ``largest`` are of the vocabulary."""
    if smallest < 0:
        found, cause = smallest, EXCHANGED
    elif largest >= vocab_size:
        found, cause = largest, "do these ids come from another tokenizer?"
    else:
        return
    raise ValueError(
        f"input_ids must be between 0 and {vocab_size - 1}, {last}, but {found} is among them: "
        f"{cause}"
    )


def require_not_negative(name: str, value: torch.Tensor) -> None:
    """Raise if ``value``, a tensor of token ids, holds a negative number."""
    if (value < 0).any():
        raise ValueError(
            f"{name} must hold token ids, which are not negative, but holds {int(value.min())}: "
            f"{EXCHANGED}"
        )


def require_same_shape(
    name: str, value: Any, other_name: str, shape: torch.Size, cause: str
) -> None:
    """Raise unless ``value`` has the shape ``shape``, that of ``other_name``."""
    if value.shape != shape:
        raise ValueError(
            f"{name} must have the shape of {other_name}, {tuple(shape)}, "
            f"but has {tuple(value.shape)}: {cause}"
        )


def require_mask_token(tokenizer: Any) -> int:
    """Return the id of the mask token; raise if the tokenizer has none."""
    mask_token_id = getattr(tokenizer, "mask_token_id", None)
    if mask_token_id is None:
        raise ValueError(
            f"the tokenizer must have a mask token, but this {type(tokenizer).__name__} has none: "
            "tokenizers of causal models such as GPT-2 lack it. Load the tokenizer of a masked "
            "language model, the one that belongs to your model."
        )
    return int(mask_token_id)
