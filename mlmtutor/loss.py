"""The loss of a masked language model: in four steps, and divided as Trainer needs it."""

import sys
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch.nn.functional import cross_entropy

from mlmtutor._validate import require_ids, require_type
from mlmtutor.labels import IGNORE_INDEX


def masked_lm_loss(
    logits: torch.Tensor,
    labels: torch.Tensor,
    *,
    ignore_index: int = IGNORE_INDEX,
    reduction: Literal["none", "sum", "mean"] = "mean",
) -> torch.Tensor:
    """Cross-entropy at the labelled positions, written to be read.

    Equal to ``torch.nn.functional.cross_entropy`` on flattened input, in value, dtype and
    gradient, and so to ``model(input_ids, labels=labels).loss``. Position *i* of the logits is
    scored against position *i* of the labels: nothing is shifted.

    The two agree to 4 times the machine epsilon of the dtype, which is that of the logits.
    ``torch.compile`` takes this function with graph breaks, since it reads the values of the
    labels; with ``fullgraph=True`` it raises an error. There call ``cross_entropy``.

    Args:
        logits: scores before softmax, floating point, (..., V) for a vocabulary of V tokens.
        labels: int64, the shape of ``logits`` without its last dimension. Each is a token id
            between 0 and V - 1, or ``ignore_index``.
        ignore_index: the label that is left out of the sum and of the count.
        reduction: ``"mean"`` over the labelled positions of the whole batch, ``"sum"`` of them,
            or ``"none"`` for a loss at each position, 0 where it is ignored.

    Returns:
        The loss in nats: a scalar, or for ``"none"`` a tensor of the shape of ``labels``. With no
        label at all the mean is ``nan`` (0 divided by 0) and the sum is 0, as in torch; the
        gradient is zero in both cases.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: a shape or dtype is wrong, a label is outside the vocabulary, or the
            reduction is unknown.

    Example:
        >>> logits = torch.tensor([[2.0, 0.0, 0.0], [0.0, 1.0, 0.0], [-3.0, 5.0, 1.0]])
        >>> f"{masked_lm_loss(logits, torch.tensor([0, 1, 2])):.4f}"
        '1.6032'
        >>> f"{masked_lm_loss(logits, torch.tensor([0, 1, -100])):.4f}"
        '0.3955'

    Source: ``CrossEntropyLoss()(scores.view(-1, V), labels.view(-1))`` in
    ``BertForMaskedLM.forward`` of transformers.
    """
    _check_loss_input(logits, labels, ignore_index)
    if reduction not in ("none", "sum", "mean"):
        raise ValueError(f"reduction must be 'none', 'sum' or 'mean', but is {reduction!r}.")
    scored = labels != ignore_index

    # 1. Log-softmax: turn the scores at each position into log-probabilities.
    log_probs = logits.log_softmax(dim=-1)

    # 2. Gather: take the log-probability of the label (of id 0 where there is no label).
    answers = labels.masked_fill(~scored, 0)
    token_loss = -log_probs.gather(-1, answers.unsqueeze(-1)).squeeze(-1)

    # 3. Keep: drop the positions without a label.
    if reduction == "none":
        return token_loss.masked_fill(~scored, 0.0)
    kept = token_loss[scored]

    # 4. Reduce: one number for the batch.
    return kept.sum() if reduction == "sum" else kept.mean()


def _check_loss_input(logits: torch.Tensor, labels: torch.Tensor, ignore_index: int) -> None:
    cause = "from the output of a model, pass output.logits."
    require_type("logits", logits, torch.Tensor, cause)
    if not logits.is_floating_point():
        raise ValueError(
            f"logits must be floating point, but have dtype {logits.dtype}: "
            "they are the scores of the model, not its argmax. Are logits and labels exchanged?"
        )
    if logits.dim() == 0 or logits.shape[-1] == 0:
        raise ValueError(
            "logits must have the shape (..., V), with a score for each of V > 0 tokens, "
            f"but have {tuple(logits.shape)}."
        )
    require_ids("labels", labels)
    if labels.shape != logits.shape[:-1]:
        raise ValueError(
            "labels must have the shape of logits without the last dimension, "
            f"{tuple(logits.shape[:-1])}, but have {tuple(labels.shape)}: "
            f"{_cause_of_shape(logits.shape, labels.shape)}"
        )
    if labels.device != logits.device:
        raise ValueError(
            f"labels must be on the device of logits, {logits.device}, but are on "
            f"{labels.device}: use labels.to(logits.device)."
        )
    require_labels_below(logits.shape[-1], labels, ignore_index)


def require_labels_below(
    vocab_size: int, labels: torch.Tensor, ignore_index: int = IGNORE_INDEX
) -> None:
    """Raise unless each label is ``ignore_index`` or an id of the vocabulary."""
    outside = labels[(labels != ignore_index) & ((labels < 0) | (labels >= vocab_size))]
    if outside.numel() > 0:
        found = int(outside[0])
        raise ValueError(
            f"labels must be between 0 and {vocab_size - 1}, or {ignore_index} where nothing is "
            f"scored, but {found} is among them: {_cause_of_label(found, vocab_size)}"
        )


def _cause_of_shape(logits: torch.Size, labels: torch.Size) -> str:
    if len(logits) >= 3 and (logits[0], *logits[2:]) == labels:
        return "the vocabulary must come last; use logits.transpose(1, -1)."
    if len(labels) == len(logits) - 1 and labels[:-1] == logits[:-2]:
        return "were special tokens or padding added to only one of the two?"
    return "flatten both, or neither: logits.view(-1, V) goes with labels.view(-1)."


def _cause_of_label(found: int, vocab_size: int) -> str:
    if found == IGNORE_INDEX:
        return "-100 is ignored only while ignore_index is -100, the default."
    if found == -1:
        return "-1 was the ignore value up to transformers 2.3.0; use -100."
    if found < 0:
        return "positions that are not scored have the label -100."
    if found == vocab_size:
        return "ids start at 0, so the size of the vocabulary isn't a valid id."
    return (
        "does the tokenizer have more tokens than the model? After adding tokens call "
        "model.resize_token_embeddings(len(tokenizer))."
    )


def trainer_loss(
    outputs: Any,
    labels: torch.Tensor,
    num_items_in_batch: torch.Tensor | int | None = None,
) -> torch.Tensor:
    """Loss of one micro-batch, for ``Trainer(..., compute_loss_func=trainer_loss)``.

    In training it is the sum over the labelled positions of the micro-batch, divided by the
    number of labelled positions in everything that one optimizer step sees, so the gradients that
    Trainer adds up are those of the one large batch. With several processes Trainer counts over
    all of them (``average_tokens_across_devices=True``, the default of transformers 5).

    In evaluation Trainer averages over batches. One without a label returns nan, which
    transformers 5 leaves out; one with few labels weighs as much as one with many. For an
    ``eval_loss`` that is the mean over all labels, whatever the batch size, let Trainer keep the
    loss at each position::

        Trainer(
            ...,
            compute_loss_func=trainer_loss,
            preprocess_logits_for_metrics=lambda logits, labels: masked_lm_loss(
                logits, labels, reduction="none"
            ),
            compute_metrics=lambda seen: {
                "loss": seen.predictions[seen.label_ids != -100].mean().item()
            },
        )

    ``label_smoothing_factor`` is honoured: it is read from the Trainer that calls.

    Args:
        outputs: what the model returned when it was called without labels: an object or a
            mapping with ``logits``, or a tuple whose first entry they are; (batch, length, V).
        labels: int64, (batch, length): token ids, and -100 where nothing is scored.
        num_items_in_batch: how many positions are labelled in the whole batch, a number or a
            tensor of one element. ``None``: those of ``labels``, so the result is their mean.

    Returns:
        A scalar. If no position is labelled in the whole batch: 0 with a gradient of zero in
        training, where nan would spread, and nan where the logits carry no gradient.

    Raises:
        TypeError: an argument has the wrong type, or ``labels`` is missing.
        ValueError: a shape or dtype is wrong, a label is outside the vocabulary, or
            ``num_items_in_batch`` is smaller than the number of labels in this part.

    Example:
        >>> logits = torch.tensor([[[2.0, 0.0], [0.0, 1.0], [0.0, 3.0]], [[1.0, 0.0]] * 3])
        >>> labels = torch.tensor([[0, 0, 0], [1, -100, -100]])
        >>> whole = trainer_loss({"logits": logits}, labels)
        >>> rows = [trainer_loss({"logits": logits[i]}, labels[i], 4) for i in range(2)]
        >>> f"{whole:.4f} = {rows[0]:.4f} + {rows[1]:.4f}"
        '1.4505 = 1.1222 + 0.3283'

    Source: ``Trainer.compute_loss``, ``Trainer.evaluation_loop`` and
    ``Trainer._get_num_items_in_batch`` of transformers; transformers#47688, transformers#34242.
    """
    if labels is None:
        raise TypeError(
            "labels must be a torch.Tensor, but are None: the batches that the collator makes "
            "need the key 'labels'."
        )
    if isinstance(outputs, tuple):
        logits = outputs[0] if outputs else None
    elif isinstance(outputs, Mapping):
        logits = outputs.get("logits")
    else:
        logits = getattr(outputs, "logits", None)
    if logits is None:
        raise TypeError(
            "outputs must hold logits, as an attribute, a key or the first entry of a tuple, but "
            f"this {type(outputs).__name__} has none: pass what the model returned."
        )
    _check_loss_input(logits, labels, IGNORE_INDEX)
    scored = labels != IGNORE_INDEX
    total = cross_entropy(
        logits[scored], labels[scored], reduction="sum", label_smoothing=_smoothing_of_the_caller()
    )
    number = _number_of_items(num_items_in_batch, int(scored.sum()))
    return total / number if number or not total.requires_grad else total


def _number_of_items(given: torch.Tensor | int | None, here: int) -> float:
    """Return the divisor: what was given, checked, or the labels that are here."""
    if isinstance(given, torch.Tensor) and given.numel() != 1:
        raise ValueError(
            "num_items_in_batch must have one element, but has the shape "
            f"{tuple(given.shape)}: Trainer repeats it when one process drives several GPUs. "
            "Start one process for each GPU with torchrun."
        )
    number = float(here if given is None else given)
    if not number >= here:
        raise ValueError(
            f"num_items_in_batch must count the labels of the whole batch, but is {given} where "
            f"this part alone has {here}: count labels that are not -100, over all micro-batches "
            "and processes."
        )
    return number


def _smoothing_of_the_caller() -> float:
    """Return the ``label_smoothing_factor`` of the Trainer that calls, 0 without one."""
    frame = sys._getframe().f_back
    while frame is not None:
        caller = getattr(frame.f_locals.get("self"), "__dict__", {})
        if "label_smoother" in caller:
            return getattr(caller["label_smoother"], "epsilon", 0.0)
        frame = frame.f_back
    return 0.0
