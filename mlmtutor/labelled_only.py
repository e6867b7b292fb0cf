"""The loss of a masked language model, with logits at the labelled positions alone."""

import inspect
import math
import weakref
from collections.abc import Mapping
from typing import Any

import torch
from transformers import PreTrainedModel

from mlmtutor._validate import require_ids, require_known_ids, require_same_shape
from mlmtutor.labels import IGNORE_INDEX
from mlmtutor.loss import require_labels_below
from mlmtutor.model import longest_input


def labelled_only_loss(
    model: PreTrainedModel, input_ids: torch.Tensor, labels: torch.Tensor, **inputs: Any
) -> torch.Tensor:
    """Loss of ``model(input_ids, labels=labels, **inputs)``, with logits at labels alone.

    The body of the model sees every position. The head, which multiplies each hidden state with
    the whole vocabulary, sees only the positions that have a label: with 15 % of them, 0.15 of
    its multiplications and of its memory. Loss and gradients are those of the dense computation
    up to rounding, in evaluation and, from one state of the random generator, in training.

    This holds for a head that treats each position by itself, as those of BERT, RoBERTa and some
    40 other families do. It is tried, not believed: at the first call with a model, in each of
    its two modes, loss and gradients of two rows are compared with those of the dense
    computation, and a model for which they differ is refused.

    ``torch.compile`` works with graph breaks, since how many positions have a label depends on
    the data. So ``fullgraph=True`` fails, except for the body of the model,
    ``model.base_model.compile(fullgraph=True)``.

    Args:
        model: a ``...ForMaskedLM`` of transformers, and not a wrapper such as
            ``DistributedDataParallel`` or ``PeftModel``. Put the call into the ``forward`` of a
            module, and wrap that.
        input_ids: int64, (batch, length).
        labels: int64, (batch, length): token ids, and -100 where nothing is scored.
        **inputs: the other tensors of the batch, such as ``attention_mask``.

    Returns:
        The mean over the labelled positions, a scalar. With no label at all it is nan, as in the
        dense computation, and the gradient is zero.

    Raises:
        TypeError: the model is not one of transformers, was given a ``loss_function`` of its own,
            or its loss differs in the trial; or an argument has the wrong type.
        ValueError: a shape or dtype is wrong, or an id or a label is outside the vocabulary.

    Example:
        >>> from mlmtutor import load_tutor
        >>> model, tokenizer = load_tutor()
        >>> batch = tokenizer("She opened the [MASK].", return_tensors="pt")
        >>> labels = torch.where(batch["input_ids"] == 103, 2341, -100)
        >>> loss = labelled_only_loss(model, labels=labels, **batch)
        >>> bool(torch.isclose(loss, model(**batch, labels=labels).loss))
        True

    Source: ``gather_indexes`` in ``run_pretraining.py`` of google-research/bert, which scores
    only masked positions; transformers#2926.
    """
    _check_model(model)
    _check_batch(model, input_ids, labels, inputs)
    batch = {"input_ids": input_ids, **inputs}
    if model.training not in _TRIED.get(model, ()):
        _try_once(model, batch)
        _TRIED.setdefault(model, set()).add(model.training)
    return _sparse(model, batch, labels)


# The models for which the trial went well, with their modes: training, evaluation or both.
_TRIED: weakref.WeakKeyDictionary[PreTrainedModel, set[bool]] = weakref.WeakKeyDictionary()


def _sparse(model: PreTrainedModel, batch: dict[str, Any], labels: torch.Tensor) -> torch.Tensor:
    """Run the model, and drop the unlabelled positions between its body and its head."""
    scored = labels != IGNORE_INDEX

    def keep_scored(body: Any, arguments: Any, output: Any) -> Any:
        kept = output[0][scored.to(output[0].device)].unsqueeze(0)  # (1, scored, hidden)
        if isinstance(output, tuple):
            return (kept, *output[1:])
        output[next(iter(output))] = kept
        return output

    handle = model.base_model.register_forward_hook(keep_scored)
    try:
        return _loss(model, batch, labels[scored].unsqueeze(0))
    finally:
        handle.remove()


def _loss(model: PreTrainedModel, batch: dict[str, Any], labels: torch.Tensor) -> torch.Tensor:
    output = model(**batch, labels=labels)
    loss: torch.Tensor | None = output[0] if isinstance(output, tuple) else output.loss
    if loss is None:
        raise TypeError(f"{type(model).__name__} returns no loss for labels: is its head another?")
    return loss


def _try_once(model: PreTrainedModel, batch: dict[str, Any]) -> None:
    """Raise unless two rows have the loss and the gradients of the dense computation."""
    # The user may be in inference mode, and in the middle of a random sequence.
    device = batch["input_ids"].device
    devices = [device] if device.type == "cuda" else []
    with torch.inference_mode(False), torch.enable_grad(), torch.random.fork_rng(devices):
        two_rows = _two_rows(batch, len(batch["input_ids"]))
        labels = two_rows["input_ids"].clone()
        labels[:, 1::2] = IGNORE_INDEX
        labels[1:, 0] = IGNORE_INDEX  # the rows have different numbers of labels
        weights = [weight for weight in model.parameters() if weight.requires_grad]
        results = []
        for compute in (_loss, _sparse):
            torch.manual_seed(0)
            try:
                loss = compute(model, two_rows, labels)
                gradients = torch.autograd.grad(loss, weights, allow_unused=True) if weights else ()
            except Exception as error:  # whatever the model makes of these inputs
                with_what = "every position" if compute is _loss else "the labelled positions alone"
                raise TypeError(
                    f"labelled_only_loss can't run {type(model).__name__} with {with_what} in its "
                    f"head: {type(error).__name__}: {error}"
                ) from error
            results.append([loss.detach(), *(g for g in gradients if g is not None)])
    autocast = torch.is_autocast_enabled(device.type)
    precision = torch.get_autocast_dtype(device.type) if autocast else model.dtype
    tolerance = torch.finfo(precision).eps ** 0.5  # 0.0003 in float32; a wrong head is far off
    (dense, *dense_gradients), (sparse, *sparse_gradients) = results
    for name, right, found in (
        ("loss", [dense], [sparse]),
        ("gradient", dense_gradients, sparse_gradients),
    ):
        off = _norm([a - b for a, b in zip(found, right, strict=True)])
        if not off <= tolerance * _norm(right):
            raise TypeError(
                f"labelled_only_loss can't be used with this {type(model).__name__}: when its head "
                f"sees the labelled positions alone, the {name} of two rows is off by "
                f"{off / _norm(right):.1%}. Call the model itself."
            )


def _norm(tensors: list[torch.Tensor]) -> float:
    return math.sqrt(sum(float(x.float().square().sum()) for x in tensors))


def _two_rows(value: Any, rows: int) -> Any:
    """Return the first two rows of whatever has as many as the batch."""
    if isinstance(value, Mapping):
        return {name: _two_rows(inner, rows) for name, inner in value.items()}
    if isinstance(value, torch.Tensor):
        return (value[:2] if value.dim() and len(value) == rows else value).clone()
    return value


def _check_model(model: Any) -> None:
    if not isinstance(model, PreTrainedModel):
        inner = [m for m in getattr(model, "modules", list)() if isinstance(m, PreTrainedModel)]
        cause = (
            "it wraps one, and what it does in its own forward would be left out. Call "
            "labelled_only_loss in the forward of a module that holds the "
            f"{type(inner[0]).__name__}, and wrap that module."
            if inner
            else "load one with AutoModelForMaskedLM."
        )
        raise TypeError(
            "model must be a masked language model of transformers, but is a "
            f"{type(model).__name__}: {cause}"
        )
    if getattr(model, "_loss_function", None) is not None:
        raise TypeError(
            f"this {type(model).__name__} was given a loss_function of its own, which could need "
            "every position: call the model itself."
        )


def _check_batch(
    model: PreTrainedModel, input_ids: torch.Tensor, labels: torch.Tensor, inputs: dict[str, Any]
) -> None:
    require_ids("input_ids", input_ids)
    require_ids("labels", labels)
    if input_ids.dim() != 2 or input_ids.numel() == 0:
        raise ValueError(
            "input_ids must have the shape (batch, length), with ids in it, but have "
            f"{tuple(input_ids.shape)}: for one sentence add a dimension with .unsqueeze(0)."
        )
    cause = "there is one label for each position."
    require_same_shape("labels", labels, "input_ids", input_ids.shape, cause)
    vocab_size, last = model.config.vocab_size, "the last that the model knows"
    smallest, largest = map(int, input_ids.aminmax())
    require_known_ids(smallest, largest, vocab_size, last)
    if input_ids.shape[1] > longest_input(model):
        raise ValueError(
            f"input_ids must have at most {longest_input(model)} positions for this model, but "
            f"have {input_ids.shape[1]}: truncate the text when you tokenize it."
        )
    accepted = inspect.signature(model.forward).parameters
    unknown = sorted(name for name in inputs if name not in accepted)
    if unknown:
        raise TypeError(
            f"{type(model).__name__} doesn't take {unknown[0]!r}: it would be ignored in silence, "
            f"or stop the model. It takes {', '.join(accepted)}."
        )
    require_labels_below(vocab_size, labels)
