"""Labels: at each position the id to predict, or the value that means "not scored"."""

import torch

from mlmtutor._validate import require_ids, require_not_negative, require_same_shape

IGNORE_INDEX = -100
"""The label of a position that is not scored: the default ``ignore_index`` of
``torch.nn.functional.cross_entropy``. No token has this id, and nothing in BERT knows it."""


def label_positions(
    input_ids: torch.Tensor,
    positions: torch.Tensor,
    targets: torch.Tensor | None = None,
    ignore_index: int = IGNORE_INDEX,
) -> torch.Tensor:
    """Build labels: the answer at each chosen position, ``ignore_index`` everywhere else.

    Labels are answers, so they need the ids from before anything was replaced by ``[MASK]``.
    Two ways to give them:

    - ``input_ids`` is the original text and is masked later: leave out ``targets``.
    - ``input_ids`` is masked already: pass the original ids as ``targets``.

    Warning:
        Without ``targets``, ids that are masked already give labels with the id of ``[MASK]``
        in them. The model then learns to answer "[MASK]" where it reads ``[MASK]``; its loss
        falls to zero and it is of no use. This function has no tokenizer, so it cannot tell.

    Args:
        input_ids: token ids, int64, of any shape, usually (batch, length).
        positions: the positions to score, bool, same shape as ``input_ids``. From a comparison
            such as ``input_ids == tokenizer.mask_token_id``, or ``mask[0, 6] = True``.
        targets: the original ids, int64, same shape as ``input_ids``: one id for every
            position. Only those at ``positions`` are used.
        ignore_index: the label that the loss leaves out. A value that is a real token id, such
            as 0, is accepted as long as no chosen position has it as its answer.

    Returns:
        Labels, int64, same shape as ``input_ids``. A new tensor: it shares no memory with the
        input, so masking ``input_ids`` in place afterwards does not change it.

    Raises:
        TypeError: an argument is not a tensor.
        ValueError: a dtype or shape is wrong, an id is negative, or an answer equals
            ``ignore_index``.

    Example:
        The sentence is masked already, so the original is the target.

        >>> original = torch.tensor([[101, 1996, 4937, 102]])
        >>> masked = torch.tensor([[101, 1996, 103, 102]])
        >>> label_positions(masked, masked == 103, targets=original).tolist()
        [[-100, -100, 4937, -100]]

        The famous mistake: no target, so the answer becomes ``[MASK]`` itself.

        >>> label_positions(masked, masked == 103).tolist()
        [[-100, -100, 103, -100]]

    Source: ``labels[~masked_indices] = -100`` in ``DataCollatorForLanguageModeling`` of
    transformers; the mistake is wzzzd/pretrain_bert_with_maskLM#2.
    """
    require_ids("input_ids", input_ids)
    require_not_negative("input_ids", input_ids)
    _require_positions(positions, input_ids)
    answers = input_ids
    if targets is not None:
        require_ids("targets", targets)
        require_same_shape(
            "targets",
            targets,
            "input_ids",
            input_ids.shape,
            "give one id for every position, also for those that are not scored. If the masked "
            "text has fewer tokens than the original, a word of several pieces got one [MASK] "
            "in place of one for each piece.",
        )
        require_not_negative("targets at the chosen positions", targets[positions])
        answers = targets
    _require_no_clash(answers[positions], ignore_index)
    return answers.masked_fill(~positions, ignore_index)


def _require_positions(positions: torch.Tensor, input_ids: torch.Tensor) -> None:
    if not isinstance(positions, torch.Tensor):
        raise TypeError(
            f"positions must be a bool torch.Tensor, but is a {type(positions).__name__}: "
            "start from torch.zeros_like(input_ids, dtype=torch.bool) and set True where the "
            "model must answer."
        )
    if positions.dtype != torch.bool:
        raise ValueError(
            f"positions must have dtype torch.bool, but has {positions.dtype}: it is a mask with "
            "True at each scored position, not a list of indices. From 0 and 1, use .bool()."
        )
    require_same_shape(
        "positions",
        positions,
        "input_ids",
        input_ids.shape,
        "it needs one True or False for each id. Is the batch dimension missing?",
    )


def _require_no_clash(answers: torch.Tensor, ignore_index: int) -> None:
    if isinstance(ignore_index, bool) or not isinstance(ignore_index, int):
        raise TypeError(f"ignore_index must be an int, but is a {type(ignore_index).__name__}.")
    if (answers == ignore_index).any():
        raise ValueError(
            f"ignore_index must differ from every answer, but {ignore_index} is the answer at a "
            "chosen position, which would not be scored: keep -100, which is no token's id."
        )
