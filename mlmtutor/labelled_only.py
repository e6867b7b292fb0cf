"""Keep the loss right at scale: over micro-batches and processes, and on labelled positions alone.

The loss of a masked language model is a sum over labelled positions divided by their number.
Whoever cuts the batch into parts must divide by the number in the whole batch
(:func:`trainer_loss`); and nothing but the labelled positions needs logits
(:func:`labelled_only_loss`).
"""

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
import transformers
from torch.nn.functional import cross_entropy

from mlmtutor._validate import require_dense, require_ids, require_not_negative, require_same_shape
from mlmtutor.labels import IGNORE_INDEX


class _Parts(NamedTuple):
    """A model in two: what makes the hidden states, and what turns some of them into logits."""

    body: Callable[[Any], Any]
    head: Callable[[Any, torch.Tensor], torch.Tensor]


def _deberta_head(model: Any, hidden: torch.Tensor) -> torch.Tensor:
    if model.config.legacy:
        logits: torch.Tensor = model.cls(hidden)
    else:
        logits = model.lm_predictions(hidden, model.deberta.embeddings.word_embeddings)
    return logits


def _distilbert_head(model: Any, hidden: torch.Tensor) -> torch.Tensor:
    hidden = model.activation(model.vocab_transform(hidden))
    logits: torch.Tensor = model.vocab_projector(model.vocab_layer_norm(hidden))
    return logits


# Read off the forward of each class. Every head treats each position by itself.
_KNOWN = {
    "AlbertForMaskedLM": _Parts(lambda m: m.albert, lambda m, h: m.predictions(h)),
    "BertForMaskedLM": _Parts(lambda m: m.bert, lambda m, h: m.cls(h)),
    "DebertaV2ForMaskedLM": _Parts(lambda m: m.deberta, _deberta_head),
    "DistilBertForMaskedLM": _Parts(lambda m: m.distilbert, _distilbert_head),
    "ElectraForMaskedLM": _Parts(
        lambda m: m.electra, lambda m, h: m.generator_lm_head(m.generator_predictions(h))
    ),
    # The one of these that turns its logits into float32 before the loss.
    "ModernBertForMaskedLM": _Parts(lambda m: m.model, lambda m, h: m.decoder(m.head(h)).float()),
    "RobertaForMaskedLM": _Parts(lambda m: m.roberta, lambda m, h: m.lm_head(h)),
}


def labelled_only_loss(
    model: torch.nn.Module, input_ids: torch.Tensor, labels: torch.Tensor, **inputs: Any
) -> torch.Tensor:
    """Loss of ``model(input_ids, labels=labels, **inputs)``, with logits at labels alone.

    The body of the model sees every position. The head, which multiplies each hidden state with
    the whole vocabulary, sees only the positions that have a label: with 15 % of them, 0.15 of
    its multiplications and of its memory. Loss and gradients are those of the dense computation
    up to rounding, in evaluation and, from one state of the random generator, in training.

    From torch 2.13 on, and where BERT in float32 has at least as many labels as hidden units, the
    logits are made and used up in chunks of 512 positions. Such a loss has no second derivative,
    and ``torch.func`` does not take it.

    Args:
        model: a ``...ForMaskedLM`` of transformers: ALBERT, BERT, DeBERTa-v2, DistilBERT,
            ELECTRA, ModernBERT or RoBERTa. Not a wrapper such as ``DistributedDataParallel`` or
            ``PeftModel``: what it does in its own ``forward`` would not happen. Put the call
            into the ``forward`` of a module and wrap that.
        input_ids: int64, (batch, length).
        labels: int64, (batch, length): token ids, and -100 where nothing is scored.
        **inputs: the other tensors of the batch, such as ``attention_mask``.

    Returns:
        The mean over the labelled positions, a scalar. With no label at all it is nan, as in the
        dense computation, and the gradient is zero.

    Raises:
        TypeError: the model is of no known class, is wrapped or has a changed ``forward``, or an
            argument has the wrong type or an unknown name.
        ValueError: a shape or dtype is wrong, or a label is outside the vocabulary.

    Example:
        >>> from mlmtutor import load_tutor
        >>> model, tokenizer = load_tutor()
        >>> batch = tokenizer("She opened the [MASK].", return_tensors="pt")
        >>> labels = torch.where(batch["input_ids"] == 103, 2341, -100)
        >>> loss = labelled_only_loss(model, labels=labels, **batch)
        >>> bool(torch.isclose(loss, model(**batch, labels=labels).loss))
        True

    Source: ``gather_indexes`` in ``run_pretraining.py`` of google-research/bert, which scores
    only masked positions; transformers#2926; the chunks,
    ``torch.nn.functional.linear_cross_entropy``.
    """
    parts = _parts_of(model)
    _check_batch(model, input_ids, labels, inputs)
    hidden = parts.body(model)(input_ids=input_ids, return_dict=True, **inputs)[0]
    return _head_and_loss(model, parts, hidden.flatten(0, 1), labels.to(hidden.device).flatten())


_CHUNK = 512  # positions whose logits exist at a time


def _head_and_loss(
    model: Any, parts: _Parts, hidden: torch.Tensor, labels: torch.Tensor
) -> torch.Tensor:
    """Return the loss at the labelled rows of ``hidden``, in chunks where that is possible."""
    positions = (labels != IGNORE_INDEX).nonzero().squeeze(1)
    kept, labels = hidden.index_select(0, positions), labels[positions]
    if not _can_be_chunked(model, kept):
        return cross_entropy(parts.head(model, kept), labels)
    predictions = model.cls.predictions
    loss: torch.Tensor = torch.nn.functional.linear_cross_entropy(
        predictions.transform(kept),
        predictions.decoder.weight,
        labels,
        linear_bias=predictions.decoder.bias,
        options=torch.nn.LinearCrossEntropyOptions(
            batch_chunk_size=_CHUNK, allow_retain_graph=True
        ),
    )
    return loss


def _can_be_chunked(model: Any, kept: torch.Tensor) -> bool:
    """Whether torch can take BERT's last layer and the loss together, as 2.13 and later can.

    It pays once there are as many positions as hidden units; it does not heed autocast; and the
    last layer must be the one that transformers made, with nothing attached.
    """
    if not isinstance(model, transformers.BertForMaskedLM):
        return False
    from transformers.models.bert import modeling_bert  # at the top it takes a second

    left_out = {  # the modules whose forward is not called
        "cls": modeling_bert.BertOnlyMLMHead,
        "cls.predictions": modeling_bert.BertLMPredictionHead,
        "cls.predictions.decoder": torch.nn.Linear,
    }
    modules = dict(model.named_modules())
    return (
        hasattr(torch.nn.functional, "linear_cross_entropy")
        and kept.shape[0] >= kept.shape[1]
        and kept.dtype == torch.float32
        and not torch.is_autocast_enabled(kept.device.type)
        and all(type(modules.get(name)) is kind for name, kind in left_out.items())
        and not any(_has_hooks(modules[name]) for name in left_out)
    )


def _has_hooks(module: torch.nn.Module) -> bool:
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
        or "forward" in vars(module)
    )


def _parts_of(model: Any) -> _Parts:
    """Return how to call the body and the head of ``model``, or say why that is not known."""
    known = ", ".join(_KNOWN)
    if not isinstance(model, torch.nn.Module):
        raise TypeError(
            f"model must be a torch.nn.Module, but is a {type(model).__name__}: pass one of {known}"
        )
    families: dict[str, Any] = {name: getattr(transformers, name, type(None)) for name in _KNOWN}
    name = next((name for name, family in families.items() if isinstance(model, family)), None)
    if name is None:
        wraps = [
            f"{type(inner).__name__} inside it"
            for inner in model.modules()
            if type(inner).__name__ in _KNOWN
        ]
        cause = (
            f"it wraps a model, and what it does in its own forward would be left out. Call this "
            f"function in the forward of a module that holds the {wraps[0]}, and wrap that module"
            if wraps
            else "where its head is, and whether it needs anything but hidden states, is not known"
        )
        raise TypeError(f"model must be one of {known}, but is a {type(model).__name__}: {cause}.")
    if type(model).forward is not families[name].forward or "forward" in vars(model):
        raise TypeError(
            f"this {type(model).__name__} has a forward of its own, which would not be called: "
            f"pass a {name} as transformers makes it. Mixed precision works with torch.autocast "
            "around the call."
        )
    if model._forward_hooks or model._forward_pre_hooks:
        raise TypeError(
            f"this {type(model).__name__} has forward hooks, which would not be called: remove "
            "them, or register them on the body of the model."
        )
    return _KNOWN[name]


def _most_positions(model: Any) -> float:
    """How many positions the model can read: the rows of its table, without those for padding."""
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, torch.nn.Embedding):
            unused = 0 if module.padding_idx is None else module.padding_idx + 1
            return module.num_embeddings - unused
    return math.inf


def _check_other_input(model: Any, name: str, value: Any, shape: torch.Size) -> None:
    """Check what is known about the tensors that stand beside ``input_ids``."""
    if value is None or isinstance(value, Mapping):  # ModernBERT takes a mapping of masks
        return
    if not isinstance(value, torch.Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, but is a {type(value).__name__}.")
    require_dense(name, value)
    rows = value.shape[0] if value.dim() > 1 else 1
    if value.dim() == 0 or value.shape[-1] != shape[1] or rows not in (1, shape[0]):
        raise ValueError(
            f"{name} must have the shape of input_ids, {tuple(shape)}, but has "
            f"{tuple(value.shape)}: was one of them padded or truncated without the other?"
        )
    if name == "attention_mask":
        return
    if value.dtype not in (torch.int32, torch.int64):
        raise ValueError(f"{name} must have dtype torch.int64, but has {value.dtype}.")
    key = "type_vocab_size" if name == "token_type_ids" else "max_position_embeddings"
    limit = getattr(model.config, key, None)
    if (value < 0).any() or (limit is not None and (value >= limit).any()):
        raise ValueError(
            f"{name} must be between 0 and {(limit or 2**63) - 1}, but reach from "
            f"{int(value.min())} to {int(value.max())}."
        )


def _check_batch(
    model: Any, input_ids: torch.Tensor, labels: torch.Tensor, inputs: dict[str, Any]
) -> None:
    require_ids("input_ids", input_ids)
    require_ids("labels", labels)
    if input_ids.dim() != 2:
        raise ValueError(
            "input_ids must have the shape (batch, length), but have "
            f"{tuple(input_ids.shape)}: for one sentence add a dimension with .unsqueeze(0)."
        )
    require_not_negative("input_ids", input_ids)
    require_same_shape(
        "labels", labels, "input_ids", input_ids.shape, "there is one label for each position."
    )
    if input_ids.numel() == 0:
        raise ValueError(f"input_ids must hold an id, but have the shape {tuple(input_ids.shape)}.")
    rows = model.get_input_embeddings().num_embeddings
    if input_ids.max() >= rows:
        raise ValueError(
            f"input_ids must be between 0 and {rows - 1}, the last that the model knows, but "
            f"{int(input_ids.max())} is among them: do these ids come from another tokenizer?"
        )
    limit = _most_positions(model)
    if input_ids.shape[1] > limit:
        raise ValueError(
            f"input_ids must have at most {limit} positions for this model, but have "
            f"{input_ids.shape[1]}: truncate the text when you tokenize it."
        )
    for name in ("attention_mask", "token_type_ids", "position_ids"):
        _check_other_input(model, name, inputs.get(name), input_ids.shape)
    accepted = set(inspect.signature(type(model).forward).parameters)
    accepted -= {"self", "kwargs", "input_ids", "labels", "inputs_embeds", "return_dict",
                 "output_attentions", "output_hidden_states"}  # fmt: skip
    unknown = sorted(set(inputs) - accepted)
    if unknown:
        raise TypeError(
            f"{type(model).__name__} must be given arguments that it knows, but {unknown[0]!r} is "
            f"none that makes a loss: it takes {', '.join(sorted(accepted))}."
        )
    vocab_size = model.config.vocab_size
    outside = labels[(labels != IGNORE_INDEX) & ((labels < 0) | (labels >= vocab_size))]
    if outside.numel() > 0:
        raise ValueError(
            f"labels must be between 0 and {vocab_size - 1}, or -100, but {int(outside[0])} is "
            "among them: positions that are not scored have the label -100."
        )
