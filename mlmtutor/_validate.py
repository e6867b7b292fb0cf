"""Checks that several modules make on their input, with messages that name the likely cause."""

from collections.abc import Mapping
from typing import Any

import torch


def require_ids(name: str, value: Any) -> None:
    """Raise unless ``value`` is an int64 tensor, the dtype of token ids and of labels."""
    if isinstance(value, Mapping):
        raise TypeError(
            f"{name} must be a torch.Tensor, but is a {type(value).__name__}: "
            "pass one of its tensors, such as batch['input_ids']."
        )
    if not isinstance(value, torch.Tensor):
        raise TypeError(
            f"{name} must be a torch.Tensor, but is a {type(value).__name__}: "
            "call the tokenizer with return_tensors='pt', or use torch.tensor(...)."
        )
    if value.dtype != torch.int64:
        raise ValueError(
            f"{name} must have dtype torch.int64, but has {value.dtype}: convert it with .long()."
        )


def require_not_negative(name: str, value: torch.Tensor) -> None:
    """Raise if ``value``, a tensor of token ids, holds a negative number."""
    if (value < 0).any():
        found = int(value.min())
        raise ValueError(
            f"{name} must hold token ids, which are not negative, but holds {found}: "
            "labels have negative entries, input ids never do. Are the two exchanged?"
        )


def require_same_shape(
    name: str, value: torch.Tensor, other_name: str, shape: torch.Size, cause: str
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
