"""Labels: at each position the id to predict, or the value that means "not scored"."""

import dataclasses
from typing import Any, Literal, get_args

import torch

from mlmtutor._validate import require_ids, require_not_negative, require_same_shape

IGNORE_INDEX = -100
"""The label of a position that is not scored: the default ``ignore_index`` of
``torch.nn.functional.cross_entropy``. No token has this id, and nothing in BERT knows it."""


@dataclasses.dataclass(frozen=True)
class MaskedPositions:
    """Labels as google-research/bert writes them: where, which id, and whether it counts.

    Short rows are filled up with entries of weight 0, which aren't scored, whatever position and
    id stand there.

    Attributes:
        positions: int64, (batch, predictions).
        ids: int64, same shape: the right id at each position.
        weights: float32, same shape: 1 for an answer, 0 for filling.
    """

    positions: torch.Tensor
    ids: torch.Tensor
    weights: torch.Tensor


@dataclasses.dataclass(frozen=True)
class SelectedTargets:
    """Labels as a mask and the text: which positions are scored, and the right ids.

    Attributes:
        selected: bool, (batch, length): True where the model is scored.
        targets: int64, same shape: the right ids, and anything where ``selected`` is False.
    """

    selected: torch.Tensor
    targets: torch.Tensor


LabelConvention = Literal["-100", "-1", "pad", "positions", "selected"]
Labels = torch.Tensor | MaskedPositions | SelectedTargets


def convert_labels(
    labels: Labels,
    source: LabelConvention,
    target: LabelConvention,
    *,
    length: int | None = None,
    pad_token_id: int = 0,
) -> Labels:
    """Write the same labels in another convention.

    =============== ========================================== ========================
    convention      labels                                     used by
    =============== ========================================== ========================
    ``"-100"``      int64 (batch, length), -100 is not scored  transformers from 2.4.0
    ``"-1"``        int64 (batch, length), -1 is not scored    transformers until 2.3.0
    ``"pad"``       int64 (batch, length), [PAD] is not scored codertimo/BERT-pytorch
    ``"positions"`` :class:`MaskedPositions`                   google-research/bert
    ``"selected"``  :class:`SelectedTargets`                   maskers that keep a mask
    =============== ========================================== ========================

    Which positions are scored and which id is right there is kept by every conversion. What a
    convention cannot say is refused, never rounded.

    Args:
        labels: a tensor, :class:`MaskedPositions` or :class:`SelectedTargets`, as ``source`` says.
        source: the convention of ``labels``.
        target: the convention that you want.
        length: tokens in a row; for ``"positions"``, which don't hold it, and for these alone.
        pad_token_id: the id of [PAD], which isn't scored in the convention ``"pad"``.

    Returns:
        The labels in the convention ``target``: new tensors that share no memory with ``labels``.
        In ``"selected"`` the targets are 0 where nothing is scored; in ``"positions"`` the
        positions of a row ascend.

    Raises:
        TypeError: ``labels`` is not of the type that ``source`` says.
        ValueError: a convention is unknown; ``length`` is missing or too much; a shape or dtype
            is wrong; a label is negative and not the ignored value; a position is out of range or
            given twice in a row; a weight is neither 0 nor 1; or an answer is [PAD], which the
            convention ``"pad"`` can't score.

    Example:
        >>> labels = torch.tensor([[-100, 7, -100, 9], [-100, -100, 8, -100]])
        >>> convert_labels(labels, "-100", "-1").tolist()
        [[-1, 7, -1, 9], [-1, -1, 8, -1]]
        >>> masked = convert_labels(labels, "-100", "positions")
        >>> masked.positions.tolist(), masked.ids.tolist(), masked.weights.tolist()
        ([[1, 3], [2, 0]], [[7, 9], [8, 0]], [[1.0, 1.0], [1.0, 0.0]])
        >>> torch.equal(convert_labels(masked, "positions", "-100", length=4), labels)
        True

    Source: ``masked_lm_positions``, ``masked_lm_ids`` and ``masked_lm_weights`` in
    ``create_pretraining_data.py`` of google-research/bert; [PAD] as the ignored label in
    codertimo/BERT-pytorch#29; -1 and -100 in transformers#2759.
    """
    for name, convention in (("source", source), ("target", target)):
        if convention not in get_args(LabelConvention):
            known = ", ".join(map(repr, get_args(LabelConvention)))
            raise ValueError(f"{name} must be one of {known}, but is {convention!r}.")
    if (length is not None) != (source == "positions"):
        raise ValueError(
            f"length must be given if and only if source is 'positions', but is {length} and "
            f"source is {source!r}: pass length=input_ids.shape[1] with positions alone."
        )
    ignored = {"-100": -100, "-1": -1, "pad": pad_token_id}
    kind = {"positions": MaskedPositions, "selected": SelectedTargets}.get(source)
    if kind is not None and not isinstance(labels, kind):
        names = ", ".join(field.name for field in dataclasses.fields(kind))
        raise TypeError(
            f"labels in the convention {source!r} must be {kind.__name__}, but are a "
            f"{type(labels).__name__}: pass {kind.__name__}({names})."
        )
    if source == "positions":
        dense = _from_positions(labels, length or 0)
    elif source == "selected":
        dense = _from_selected(labels)
    else:
        dense = _from_tensor(labels, source, ignored[source])

    scored = dense != IGNORE_INDEX
    if target == "positions":
        return _to_positions(dense, scored)
    if target == "selected":
        return SelectedTargets(scored, dense.masked_fill(~scored, 0))
    if target == "pad" and (dense == pad_token_id).any():
        raise ValueError(
            f"the convention 'pad' cannot score [PAD], but the answer at a position is "
            f"{pad_token_id}, the pad_token_id: it would be left out of the loss. Keep -100."
        )
    return dense.masked_fill(~scored, ignored[target])


def _from_tensor(labels: Any, source: str, ignored: int) -> torch.Tensor:
    """Return the labels with -100 where nothing is scored, from a tensor with ``ignored`` there."""
    require_ids(f"labels in the convention {source!r}", labels)
    _require_rows("labels", labels)
    answers = labels[labels != ignored]
    if (answers < 0).any():
        raise ValueError(
            f"labels in the convention {source!r} must be ids or {ignored}, but hold "
            f"{int(answers.min())}: which convention do they follow?"
        )
    dense: torch.Tensor = labels.masked_fill(labels == ignored, IGNORE_INDEX)
    return dense


def _from_selected(labels: Any) -> torch.Tensor:
    require_ids("targets", labels.targets)
    _require_rows("targets", labels.targets)
    if not isinstance(labels.selected, torch.Tensor) or labels.selected.dtype != torch.bool:
        kind = getattr(labels.selected, "dtype", type(labels.selected).__name__)
        raise TypeError(
            f"selected must be a bool torch.Tensor, but is {kind}: it has True at each scored "
            "position. From 0 and 1, use .bool()."
        )
    cause = "it needs one True or False for each id. Is the batch dimension missing?"
    require_same_shape("selected", labels.selected, "targets", labels.targets.shape, cause)
    require_not_negative("targets where selected", labels.targets[labels.selected])
    dense: torch.Tensor = labels.targets.masked_fill(~labels.selected, IGNORE_INDEX)
    return dense


def _from_positions(labels: Any, length: int) -> torch.Tensor:
    require_ids("positions", labels.positions)
    require_ids("ids", labels.ids)
    _require_rows("positions", labels.positions)
    for name, value in (("ids", labels.ids), ("weights", labels.weights)):
        cause = "there is one id and one weight for each position."
        require_same_shape(name, value, "positions", labels.positions.shape, cause)
    scored = labels.weights == 1
    if not (scored | (labels.weights == 0)).all():
        raise ValueError(
            "weights must be 0 or 1, but hold another number: labels say whether a position is "
            "scored, not how much it counts. Compute a weighted loss yourself."
        )
    require_not_negative("ids of weight 1", labels.ids[scored])
    rows, positions = scored.nonzero()[:, 0], labels.positions[scored]
    if ((positions < 0) | (positions >= length)).any():
        raise ValueError(
            f"positions of weight 1 must be between 0 and {length - 1}, but reach from "
            f"{int(positions.min())} to {int(positions.max())}: is length the width of input_ids?"
        )
    if len(torch.stack((rows, positions)).unique(dim=1).T) < len(rows):
        raise ValueError(
            "a position is given twice in one row: labels hold one answer for each position."
        )
    dense: torch.Tensor = labels.ids.new_full((len(scored), length), IGNORE_INDEX)
    dense[rows, positions] = labels.ids[scored]
    return dense


def _to_positions(dense: torch.Tensor, scored: torch.Tensor) -> MaskedPositions:
    """Return the answers of each row from the left, filled up to the longest row."""
    counts = scored.sum(dim=1)
    places = torch.arange(int(counts.max()) if len(counts) else 0, device=dense.device)
    filled = places < counts.unsqueeze(1)
    positions, ids = dense.new_zeros(filled.shape), dense.new_zeros(filled.shape)
    positions[filled] = scored.nonzero()[:, 1]
    ids[filled] = dense[scored]
    return MaskedPositions(positions, ids, filled.float())


def _require_rows(name: str, value: torch.Tensor) -> None:
    if value.dim() != 2:
        raise ValueError(
            f"{name} must have two dimensions, (batch, length), but has {value.dim()}: add the "
            "batch dimension with .unsqueeze(0)."
        )
