"""The alignment table: each token with its id, its label, and what is scored there."""

import dataclasses
import html
import math
from collections.abc import Mapping
from typing import Any

import torch

from mlmtutor._html import CELL, HEADER, STYLES, printable
from mlmtutor._messages import translated
from mlmtutor._validate import require_same_shape
from mlmtutor.labels import IGNORE_INDEX
from mlmtutor.loss import masked_lm_loss

BLOCK = 12  # positions side by side, fewer where their texts are wide
WIDEST = 128  # characters of a block, with two between columns: fits a page of 1280 pixels
LONGEST = 40  # more positions than this are folded to the first 24 and the last 12
HEAD, TAIL = 24, 12
MOST_ROWS = 8  # more rows of a batch than this are folded


@dataclasses.dataclass(frozen=True)
class Cell:
    """One cell of the table: its text, and which of ``STYLES`` it has."""

    text: str
    style: str = "plain"


@dataclasses.dataclass(frozen=True)
class Block:
    """Positions of one row of the batch that stand side by side, or a note on folded ones."""

    title: str
    lines: tuple[tuple[str, tuple[Cell, ...]], ...] = ()


@dataclasses.dataclass(frozen=True)
class Alignment:
    """What :func:`alignment` returns: HTML in a notebook, text in a terminal.

    Attributes:
        blocks: the tables, from the first row of the batch to the last.
        summary: how many positions are scored, and what the loss is the mean of.
        scored: number of labelled positions.
        loss: mean of -log p(label) over them, in nats; ``nan`` where nothing is scored, ``None``
            where no logits were given or a label is outside the vocabulary.
    """

    blocks: tuple[Block, ...]
    summary: str
    scored: int
    loss: float | None

    def __str__(self) -> str:
        """Return the table as text, with the columns that the HTML has."""
        from tabulate import tabulate  # here: it takes a fifth of the import of mlmtutor

        parts = []
        for block in self.blocks:
            if len(self.blocks) > 1:
                parts.append(translated(block.title))
            if block.lines:
                rows = [[translated(name), *(c.text for c in cells)] for name, cells in block.lines]
                sides = ["right"] + ["center"] * len(block.lines[0][1])
                parts.append(tabulate(rows, (), "plain", colalign=sides, disable_numparse=True))
        return "\n".join([*parts, translated(self.summary)])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        """Return tables with inline styles only, which an untrusted notebook keeps."""
        if len(self.blocks) == 1:
            content = _table(self.blocks[0], self.summary, "bottom")
        else:
            content = "".join(
                _table(block, block.title, "top") if block.lines else _note(block.title, "muted")
                for block in self.blocks
            ) + _note(self.summary, "plain")
        return f'<div style="overflow-x:auto;">{content}</div>'


def alignment(
    batch: Mapping[str, Any], tokenizer: Any, logits: torch.Tensor | None = None
) -> Alignment:
    """Line up tokens, ids, labels and losses, as the sentence is read.

    Under each token stand its id, its label, whether the position is scored and as which token,
    and, where logits are given, -log p(label) in nats. The summary says of which values the loss
    is the mean. More than 12 positions, or fewer wide ones, wrap into stacked blocks; more than 40
    positions, or 8 rows, are folded, and a line says how many, and how many of them are scored.
    What is folded counts in the summary.

    Args:
        batch: what a collator or a tokenizer returns, the mapping that ``diagnose`` takes too.
            ``input_ids`` are integers of shape ``(n,)`` or ``(batch, n)``, a tensor or nested
            lists. ``labels``, if there, have the same shape; -100 marks a position that isn't
            scored. ``attention_mask``, if there, adds a row to the table. Other keys are ignored.
        tokenizer: the tokenizer that made the ids.
        logits: floats of shape ``input_ids.shape + (V,)``, as the model returns them.

    Returns:
        An :class:`Alignment`. A label that is neither -100 nor an id is marked as an error: the
        table is there to show it.

    Raises:
        ValueError: a shape does not fit, or logits come without labels.
        TypeError: the batch isn't a mapping with ``input_ids``, ids or labels aren't integers,
            logits aren't floats, or the tokenizer isn't a tokenizer.

    Example:
        >>> from mlmtutor import load_tutor
        >>> model, tokenizer = load_tutor()
        >>> ids = [101, 1045, 2215, 2000, 103, 1996, 2088, 1012, 102]
        >>> labels = [-100, -100, -100, -100, 2689, -100, -100, -100, -100]
        >>> batch = {"input_ids": ids, "labels": labels}
        >>> alignment(batch, tokenizer)  # doctest: +NORMALIZE_WHITESPACE
        position     0     1     2     3       4       5      6     7      8
           token   [CLS]   i    want   to   [MASK]    the   world   .    [SEP]
        input_ids   101   1045  2215  2000    103    1996   2088   1012   102
          labels   -100   -100  -100  -100   2689    -100   -100   -100  -100
          scored     ·     ·     ·     ·   ✓ change    ·     ·      ·      ·
        1 of 9 positions is scored (✓): position 4.
    """
    if not isinstance(batch, Mapping) or "input_ids" not in batch:
        raise TypeError(
            "batch must be a mapping with input_ids, as a tokenizer or a collator returns it, but "
            f"is a {type(batch).__name__}: alignment({{'input_ids': ids, 'labels': labels}}, "
            "tokenizer)."
        )
    if not hasattr(tokenizer, "convert_ids_to_tokens"):
        raise TypeError(
            f"tokenizer must be that of the model, but is a {type(tokenizer).__name__}: "
            "load_tutor() returns one, and AutoTokenizer.from_pretrained(...) does."
        )
    given = {
        name: _integers(name, batch[name])
        for name in ("input_ids", "labels", "attention_mask")
        if name == "input_ids" or batch.get(name) is not None
    }
    shape, cause = given["input_ids"].shape, "one value for each position, special tokens included."
    if len(shape) not in (1, 2):
        raise ValueError(f"input_ids must have shape (n,) or (batch, n), but has {tuple(shape)}.")
    for name, tensor in given.items():
        require_same_shape(name, tensor, "input_ids", shape, cause)
    vocabulary = len(tokenizer)
    if logits is not None:
        if "labels" not in given:
            raise ValueError("logits were given without labels: -log p(label) needs both.")
        _check_logits(logits, shape)
        vocabulary = logits.shape[-1]
        given["loss"] = _negative_log_probability(logits.detach(), given["labels"])

    is_batch = len(shape) == 2
    rows = {name: torch.atleast_2d(tensor) for name, tensor in given.items()}
    blocks: list[Block] = []
    for i in range(min(len(rows["input_ids"]), MOST_ROWS)):
        row = {name: tensor[i] for name, tensor in rows.items()}
        blocks += _blocks(f"row {i}, " if is_batch else "", row, tokenizer, vocabulary)
    if (more := len(rows["input_ids"]) - MOST_ROWS) > 0:
        rest = {name: tensor[MOST_ROWS:] for name, tensor in rows.items()}
        blocks.append(_folded(f"{more} more rows", rest))
    labels = rows.get("labels")
    summary, loss = _summary(labels, rows.get("loss"), vocabulary, is_batch)
    return Alignment(tuple(blocks), summary, 0 if labels is None else _scored(labels), loss)


def _integers(name: str, value: Any) -> torch.Tensor:
    try:
        tensor = torch.as_tensor(value).detach()
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(
            f"{name} must be a tensor or nested lists of integers, with rows of one length, but "
            f"this {type(value).__name__} is not: {error}"
        ) from None
    if tensor.is_floating_point() and tensor.numel():
        raise TypeError(f"{name} must hold integers (token ids), but has dtype {tensor.dtype}.")
    return tensor.cpu().long()


def _check_logits(logits: torch.Tensor, shape: torch.Size) -> None:
    if not isinstance(logits, torch.Tensor) or not logits.is_floating_point():
        kind = logits.dtype if isinstance(logits, torch.Tensor) else type(logits).__name__
        raise TypeError(f"logits must be a tensor of floats, but are {kind}: pass output.logits.")
    if logits.shape[:-1] != shape:
        raise ValueError(
            f"logits must have shape {(*shape, 'V')}, one row for each position, but have "
            f"{tuple(logits.shape)}: did you pass logits of one sentence with ids of a batch?"
        )


def _scored(labels: torch.Tensor) -> int:
    return int((labels != IGNORE_INDEX).sum())


def _negative_log_probability(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return -log p(label) of shape ``labels.shape``: nan where unscored or out of range."""
    valid = (labels >= 0) & (labels < logits.shape[-1])
    rows = logits[valid.to(logits.device)].float().cpu()
    out = torch.full(labels.shape, math.nan)
    out[valid] = masked_lm_loss(rows, labels[valid], reduction="none")
    return out


def _blocks(
    prefix: str, row: dict[str, torch.Tensor], tokenizer: Any, vocabulary: int
) -> list[Block]:
    """Cut one sentence into blocks of 12 positions, fewer of wide ones, and fold a long middle."""
    length = len(row["input_ids"])
    spans = [(0, length)] if length <= LONGEST else [(0, HEAD), (length - TAIL, length)]
    blocks = []
    for first, last in spans:
        if first:
            middle = {name: tensor[HEAD:first] for name, tensor in row.items()}
            blocks.append(_folded(f"{prefix}positions {HEAD} to {first - 1}", middle))
        parts: list[list[dict[str, Cell]]] = []
        width = WIDEST
        for position in range(first, last):
            values = {name: tensor[position].item() for name, tensor in row.items()}
            cells = _cells(position, values, tokenizer, vocabulary)
            needed = 2 + max(len(cell.text) for cell in cells.values())
            if width + needed > WIDEST or len(parts[-1]) == BLOCK:
                parts.append([])
                width = 0
            parts[-1].append(cells)
            width += needed
        for part in parts:
            start, end = part[0]["position"].text, part[-1]["position"].text
            lines = tuple((name, tuple(cells[name] for cells in part)) for name in part[0])
            blocks.append(Block(f"{prefix}positions {start} to {end}", lines))
    return blocks


def _folded(what: str, part: dict[str, torch.Tensor]) -> Block:
    """Return the note on positions that aren't shown."""
    scored = f", {_scored(part['labels'])} scored" if "labels" in part else ""
    return Block(f"… {what} are folded: {part['input_ids'].numel()} positions{scored} …")


def _cells(
    position: int, values: dict[str, Any], tokenizer: Any, vocabulary: int
) -> dict[str, Cell]:
    """Return what stands at one position, under the names of the lines."""
    token_id, label = values["input_ids"], values.get("labels")
    is_id = label is not None and 0 <= label < vocabulary
    if token_id == tokenizer.mask_token_id or (is_id and label != token_id):
        style = "replaced"
    else:
        style = "special" if token_id in tokenizer.all_special_ids else "plain"
    cells = {
        "position": Cell(str(position), "muted"),
        "token": Cell(_token(tokenizer, token_id), style),
        "input_ids": Cell(str(token_id)),
    }
    if (attended := values.get("attention_mask")) is not None:
        cells["attention_mask"] = Cell(str(attended), "plain" if attended else "muted")
    if label is None:
        return cells
    if label == IGNORE_INDEX:
        style, scored = "muted", Cell("·", "muted")
    elif is_id:
        style, scored = "scored", Cell(f"✓ {_token(tokenizer, label)}", "strong")
    else:
        style, scored = "error", Cell(translated("✗ not an id"), "strong")
    cells |= {"labels": Cell(str(label), style), "scored": scored}
    if "loss" in values:
        cells["−log p(label)"] = Cell(f"{values['loss']:.2f}" if is_id else "", "strong")
    return cells


def _token(tokenizer: Any, token_id: int) -> str:
    """Return the token as printable text; the model may have ids the tokenizer does not know."""
    token = tokenizer.convert_ids_to_tokens(token_id) if token_id >= 0 else None
    return translated("(no token)") if token is None else printable(token)


def _summary(
    labels: torch.Tensor | None, losses: torch.Tensor | None, vocabulary: int, is_batch: bool
) -> tuple[str, float | None]:
    """Return the sentence under the table, and the loss where there is one."""
    if labels is None:
        return "No labels: nothing is scored, and the model returns no loss.", None
    scored, count = labels != IGNORE_INDEX, _scored(labels)
    of_all = f"{count} of {labels.numel()} positions"
    wrong = labels[scored & ((labels < 0) | (labels >= vocabulary))]
    if len(wrong):
        return (
            f"{of_all} {'has' if count == 1 else 'have'} a label, and there is no loss: "
            f"label {int(wrong[0])} is neither -100 nor an id from 0 to {vocabulary - 1}. The "
            "model raises an IndexError.",
            None,
        )
    text = f"{of_all} {'is' if count == 1 else 'are'} scored (✓)"
    places = scored.nonzero().tolist() if count <= 6 else []
    if is_batch:
        where = ", ".join(f"row {row} position {position}" for row, position in places)
    else:
        where = ", ".join(str(position) for _, position in places)
        where = where and f"position{'' if count == 1 else 's'} {where}"
    if losses is None:
        return f"{text}: {where}." if where else f"{text}.", None
    loss = float(losses[scored].mean())
    values = "1 value" if count == 1 else f"{count} values"
    of = f" ({where})" if where else ""
    return f"{text}. loss = mean of {values}{of} = {loss:.2f}", loss


def _note(text: str, style: str) -> str:
    return f'<p style="margin:6px 0;{STYLES[style]}">{html.escape(translated(text))}</p>'


def _table(block: Block, caption: str, side: str) -> str:
    """Return one block as an HTML table."""
    rows = []
    for name, cells in block.lines:
        tag, scope = ("th", ' scope="col"') if name == "position" else ("td", "")
        columns = "".join(
            f'<{tag}{scope} style="{CELL}{STYLES[cell.style]}">{html.escape(cell.text)}</{tag}>'
            for cell in cells
        )
        header = f'<th scope="row" style="{HEADER}{STYLES["muted"]}">{translated(name)}</th>'
        rows.append(f'<tr style="background:transparent;">{header}{columns}</tr>')
    return (
        '<table style="border-collapse:separate;border-spacing:3px 2px;border:0;margin:4px 0;'
        'table-layout:auto;width:auto;">'
        f'<caption style="caption-side:{side};text-align:left;padding:4px 0;'
        f'color:inherit;">{html.escape(translated(caption))}</caption>'
        f"<tbody>{''.join(rows)}</tbody></table>"
    )
