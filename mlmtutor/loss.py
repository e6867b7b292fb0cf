"""The loss of a masked language model, in four steps, and what it is made of."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch

from mlmtutor._validate import require_dense, require_ids, require_int, require_same_shape
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

    As in torch, the result has the dtype of the logits. Sums of half-precision numbers are
    rounded once here and several times there, so a sum or mean may differ in the last bits; the
    tests allow 4 times the machine epsilon of the dtype. ``reduction="none"`` and gradients agree
    to the same bound.

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
    if not isinstance(reduction, str) or reduction not in ("none", "sum", "mean"):
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


@dataclass(frozen=True, eq=False, repr=False)
class LossBreakdown:
    """What a masked language model loss is made of. All losses are in nats.

    Attributes:
        token_loss: the loss at each position, the shape of the labels, 0 where ignored.
        count: how many positions are scored.
        mean: the loss: the sum of ``token_loss`` divided by ``count``.
        perplexity: ``exp(mean)``. 4 means: as unsure as between 4 equally likely tokens. It is
            not comparable with that of a causal model, which sees only the text on the left.
        uniform: ln V, the loss of a model that gives every token of the vocabulary the same
            probability.
        unigram: the loss of a model that knows only how often each token occurs, on the same
            labels; ``None`` unless frequencies were given.

    ``nan`` stands for a mean of nothing, where no position is scored.
    """

    token_loss: torch.Tensor
    count: int
    mean: float
    perplexity: float
    uniform: float
    unigram: float | None = None

    def __repr__(self) -> str:
        lines = [
            f"scored      {self.count} of {self.token_loss.numel()} positions",
            f"mean        {self.mean:.4f} nats per scored position",
            f"perplexity  {self.perplexity:.2f}",
            f"uniform     {self.uniform:.4f} (ln V: every token equally likely)",
        ]
        if self.unigram is not None:
            lines.append(f"unigram     {self.unigram:.4f} (token frequencies only)")
        return "\n".join(lines)


def loss_breakdown(
    logits: torch.Tensor,
    labels: torch.Tensor,
    *,
    ignore_index: int = IGNORE_INDEX,
    unigram: torch.Tensor | None = None,
) -> LossBreakdown:
    """Take a masked language model loss apart, next to the two lines it should beat.

    Args:
        logits: as for :func:`masked_lm_loss`, (..., V). The breakdown carries no gradient.
        labels: as for :func:`masked_lm_loss`.
        ignore_index: as for :func:`masked_lm_loss`.
        unigram: how often each token occurs, (V,), as counts or as probabilities: only the
            proportions matter. A label that has 0 here makes the baseline infinite; add 1 to
            every count to avoid it.

    Returns:
        A :class:`LossBreakdown`, which prints as a small table. Its ``mean`` is
        ``masked_lm_loss(logits, labels)``.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: as for :func:`masked_lm_loss`, or ``unigram`` has the wrong shape, a negative
            or non-finite entry, or no entry above 0.

    Example:
        >>> logits = torch.tensor([[2.0, 0.0, 0.0], [0.0, 1.0, 0.0], [-3.0, 5.0, 1.0]])
        >>> labels = torch.tensor([0, 1, -100])
        >>> loss_breakdown(logits, labels, unigram=torch.tensor([2, 1, 1]))
        scored      2 of 3 positions
        mean        0.3955 nats per scored position
        perplexity  1.49
        uniform     1.0986 (ln V: every token equally likely)
        unigram     1.0397 (token frequencies only)

    Source: ln V as the guessing line, google-research/bert#746 and
    aws-samples/deep-learning-models#45; the perplexity of a masked model, transformers#3927.
    """
    logits = logits.detach() if isinstance(logits, torch.Tensor) else logits
    mean = masked_lm_loss(logits, labels, ignore_index=ignore_index)
    vocab_size = logits.shape[-1]
    answers = labels[labels != ignore_index]
    baseline = None
    if unigram is not None:
        _check_unigram(unigram, vocab_size)
        frequencies = unigram.to(answers.device).double()
        frequencies = frequencies / frequencies.max()  # large counts have no finite sum
        baseline = (frequencies.sum().log() - frequencies.log()[answers]).mean().item()
    return LossBreakdown(
        token_loss=masked_lm_loss(logits, labels, ignore_index=ignore_index, reduction="none"),
        count=answers.numel(),
        mean=mean.item(),
        perplexity=mean.double().exp().item(),
        uniform=math.log(vocab_size),
        unigram=baseline,
    )


def _check_loss_input(logits: torch.Tensor, labels: torch.Tensor, ignore_index: int) -> None:
    if not isinstance(logits, torch.Tensor):
        raise TypeError(
            f"logits must be a torch.Tensor, but is a {type(logits).__name__}: "
            "from the output of a model, pass output.logits."
        )
    if not logits.is_floating_point():
        raise ValueError(
            f"logits must be floating point, but have dtype {logits.dtype}: "
            "they are the scores of the model, not its argmax. Are logits and labels exchanged?"
        )
    if logits.element_size() == 1:
        raise ValueError(
            f"logits must have 16 bits or more, but have dtype {logits.dtype}, in which torch "
            "computes no softmax: convert them with .float()."
        )
    require_dense("logits", logits)
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
    require_int("ignore_index", ignore_index)
    vocab_size = logits.shape[-1]
    outside = labels[(labels != ignore_index) & ((labels < 0) | (labels >= vocab_size))]
    if outside.numel() > 0:
        found = int(outside[0])
        raise ValueError(
            f"labels must be between 0 and {vocab_size - 1}, or ignore_index ({ignore_index}), "
            f"but {found} is among them: {_cause_of_label(found, vocab_size)}"
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
        return "ids start at 0, so the size of the vocabulary is no id."
    return (
        "does the tokenizer have more tokens than the model? After adding tokens call "
        "model.resize_token_embeddings(len(tokenizer))."
    )


def _check_unigram(unigram: torch.Tensor, vocab_size: int) -> None:
    if not isinstance(unigram, torch.Tensor):
        raise TypeError(
            f"unigram must be a torch.Tensor, but is a {type(unigram).__name__}: "
            "use torch.bincount(ids, minlength=V)."
        )
    require_dense("unigram", unigram)
    if unigram.is_complex():
        raise ValueError(f"unigram must hold real numbers, but has dtype {unigram.dtype}.")
    require_same_shape(
        "unigram",
        unigram,
        "the vocabulary",
        torch.Size([vocab_size]),
        "give one frequency for each token; torch.bincount needs minlength=V.",
    )
    frequencies = unigram.double()
    if not (frequencies.isfinite() & (frequencies >= 0)).all() or not frequencies.any():
        raise ValueError(
            "unigram must hold finite counts or probabilities, none negative and not all 0, "
            f"but holds values from {frequencies.min().item()} to {frequencies.max().item()}: "
            "log-probabilities must be turned back with .exp()."
        )


def trainer_loss(
    outputs: Any,
    labels: torch.Tensor,
    num_items_in_batch: torch.Tensor | int | None = None,
) -> torch.Tensor:
    """Loss of one micro-batch, for ``Trainer(..., compute_loss_func=trainer_loss)``.

    The sum over the labelled positions of the micro-batch, divided by the number of labelled
    positions in everything that one optimizer step sees. Trainer adds up the gradients of the
    micro-batches, so they become the gradient of the one large batch. With several processes
    Trainer counts over all of them (``average_tokens_across_devices=True``, the default of
    transformers 5) and multiplies by their number, because their gradients are averaged.

    Args:
        outputs: what the model returned when it was called without labels: an object or a
            mapping with ``logits``, or a tuple whose first entry they are; (batch, length, V).
        labels: int64, (batch, length): token ids, and -100 where nothing is scored.
        num_items_in_batch: how many positions are labelled in the whole batch, an int or a
            tensor of one element. ``None``: those of ``labels``, so the result is their mean.

    Returns:
        A scalar that carries a gradient. 0 if no position is labelled in the whole batch, where
        the mean would be nan.

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

    Source: ``Trainer.compute_loss`` and ``Trainer._get_num_items_in_batch`` of transformers;
    transformers#47688, transformers#34242.
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
    total = masked_lm_loss(logits, labels, reduction="sum")
    here = int((labels != IGNORE_INDEX).sum())
    return total / max(1, _number_of_items(num_items_in_batch, here))


def _number_of_items(given: torch.Tensor | int | None, here: int) -> int | float:
    """Return the divisor: what was given, checked, or the labels that are here."""
    if given is None:
        return here
    if isinstance(given, bool) or not isinstance(given, int | float | torch.Tensor):
        raise TypeError(
            f"num_items_in_batch must be an int or a tensor, but is a {type(given).__name__}: "
            "pass (labels != -100).sum() over all micro-batches."
        )
    if isinstance(given, torch.Tensor) and given.numel() != 1:
        raise ValueError(
            "num_items_in_batch must have one element, but has the shape "
            f"{tuple(given.shape)}: Trainer repeats it when one process drives several GPUs. "
            "Start one process for each GPU with torchrun."
        )
    if isinstance(given, torch.Tensor):
        require_dense("num_items_in_batch", given)
    number = given.item() if isinstance(given, torch.Tensor) else given
    if isinstance(number, complex) or not abs(number) < 2**63:  # nan is not smaller either
        raise ValueError(
            f"num_items_in_batch must be a number that fits into 64 bits, but is {number}."
        )
    if number < here:
        raise ValueError(
            f"num_items_in_batch must count the labels of the whole batch, but is {number} where "
            f"this part alone has {here}: count labels that are not -100, over all micro-batches "
            "and processes."
        )
    return number
