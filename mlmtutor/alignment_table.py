"""The alignment table: each token with its id, its label, and what is scored there."""

import dataclasses
import html
import math
from collections.abc import Mapping
from typing import Any

import torch

from mlmtutor._html import CELL, HEADER, STYLES, printable
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
                parts.append(block.title)
            if block.lines:
                parts.append(
                    tabulate(
                        [[name, *(cell.text for cell in cells)] for name, cells in block.lines],
                        tablefmt="plain",
                        disable_numparse=True,
                        colalign=["right"] + ["center"] * len(block.lines[0][1]),
                    )
                )
        return "\n".join([*parts, self.summary])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        """Return tables with inline styles only, which an untrusted notebook keeps."""
        summary = html.escape(self.summary)
        if len(self.blocks) == 1:
            return _scrolling(_table(self.blocks[0], summary, "bottom"))
        parts = [
            _table(block, html.escape(block.title), "top")
            if block.lines
            else f'<p style="margin:6px 0;opacity:.72;">{html.escape(block.title)}</p>'
            for block in self.blocks
        ]
        parts.append(f'<p style="margin:6px 0;">{summary}</p>')
        return _scrolling("".join(parts))


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
    ids = _integers("input_ids", batch["input_ids"])
    if ids.ndim not in (1, 2):
        raise ValueError(
            f"input_ids must have shape (n,) or (batch, n), but has {tuple(ids.shape)}."
        )
    checked = {
        name: None if batch.get(name) is None else _integers(name, batch[name])
        for name in ("labels", "attention_mask")
    }
    for name, tensor in checked.items():
        if tensor is not None and tensor.shape != ids.shape:
            raise ValueError(
                f"{name} must have the shape of input_ids, {tuple(ids.shape)}, but has "
                f"{tuple(tensor.shape)}: one value for each position, special tokens included."
            )
    if logits is not None and checked["labels"] is None:
        raise ValueError("logits were given without labels: -log p(label) needs both.")
    if logits is not None:
        _check_logits(logits)
    if logits is not None and tuple(logits.shape[:-1]) != tuple(ids.shape):
        raise ValueError(
            f"logits must have shape {(*ids.shape, 'V')}, one row for each position, but have "
            f"{tuple(logits.shape)}: did you pass logits of one sentence with ids of a batch?"
        )

    shape = (1, *ids.shape) if ids.ndim == 1 else tuple(ids.shape)
    ids2 = ids.reshape(shape)
    labels2 = None if checked["labels"] is None else checked["labels"].reshape(shape)
    mask2 = None if checked["attention_mask"] is None else checked["attention_mask"].reshape(shape)
    vocabulary = len(tokenizer) if logits is None else logits.shape[-1]
    nll = None
    if logits is not None and labels2 is not None:
        nll = _negative_log_probability(logits.detach().reshape(*shape, vocabulary), labels2)

    blocks: list[Block] = []
    has_rows = ids.ndim == 2
    for row in range(min(len(ids2), MOST_ROWS)):
        lines = _lines(
            tokenizer,
            ids2[row].tolist(),
            None if labels2 is None else labels2[row].tolist(),
            None if mask2 is None else mask2[row].tolist(),
            None if nll is None else nll[row].tolist(),
            vocabulary,
        )
        blocks += _blocks(f"row {row}, " if has_rows else "", lines, ids2.shape[1], labels2, row)
    if len(ids2) > MOST_ROWS:
        count = "" if labels2 is None else f", {_scored(labels2[MOST_ROWS:])} scored"
        rows = len(ids2) - MOST_ROWS
        positions = ids2[MOST_ROWS:].numel()
        blocks.append(Block(f"… {rows} more rows are folded: {positions} positions{count} …"))
    summary, loss = _summary(labels2, nll, vocabulary, has_rows)
    return Alignment(tuple(blocks), summary, 0 if labels2 is None else _scored(labels2), loss)


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


def _check_logits(logits: torch.Tensor) -> None:
    if not isinstance(logits, torch.Tensor) or not logits.is_floating_point():
        kind = logits.dtype if isinstance(logits, torch.Tensor) else type(logits).__name__
        raise TypeError(f"logits must be a tensor of floats, but are {kind}: pass output.logits.")


def _scored(labels: torch.Tensor) -> int:
    return int((labels != IGNORE_INDEX).sum())


def _negative_log_probability(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return -log p(label) of shape ``labels.shape``: nan where unscored or out of range."""
    valid = (labels >= 0) & (labels < logits.shape[-1])
    rows = logits[valid.to(logits.device)].float().cpu()
    out = torch.full(labels.shape, math.nan)
    out[valid] = masked_lm_loss(rows, labels[valid], reduction="none")
    return out


def _lines(
    tokenizer: Any,
    ids: list[int],
    labels: list[int] | None,
    mask: list[int] | None,
    nll: list[float] | None,
    vocabulary: int,
) -> list[tuple[str, list[Cell]]]:
    """Return the lines of one sentence: name and one cell for each position."""
    special = set(tokenizer.all_special_ids)
    tokens = []
    for i, token_id in enumerate(ids):
        label = None if labels is None else labels[i]
        changed = label is not None and 0 <= label < vocabulary and label != token_id
        if changed or token_id == tokenizer.mask_token_id:
            style = "replaced"
        else:
            style = "special" if token_id in special else "plain"
        tokens.append(Cell(_token(tokenizer, token_id), style))
    lines = [
        ("position", [Cell(str(i), "muted") for i in range(len(ids))]),
        ("token", tokens),
        ("input_ids", [Cell(str(i)) for i in ids]),
    ]
    if mask is not None:
        lines.append(("attention_mask", [Cell(str(m), "plain" if m else "muted") for m in mask]))
    if labels is None:
        return lines
    label_cells, scored_cells = [], []
    for label in labels:
        if label == IGNORE_INDEX:
            label_cells.append(Cell(str(label), "muted"))
            scored_cells.append(Cell("·", "muted"))
        elif 0 <= label < vocabulary:
            label_cells.append(Cell(str(label), "scored"))
            scored_cells.append(Cell(f"✓ {_token(tokenizer, label)}", "strong"))
        else:
            label_cells.append(Cell(str(label), "error"))
            scored_cells.append(Cell("✗ not an id", "strong"))
    lines += [("labels", label_cells), ("scored", scored_cells)]
    if nll is not None:
        lines.append(
            (
                "−log p(label)",
                [
                    Cell(f"{value:.2f}" if 0 <= label < vocabulary else "", "strong")
                    for value, label in zip(nll, labels, strict=True)
                ],
            )
        )
    return lines


def _token(tokenizer: Any, token_id: int) -> str:
    """Return the token as printable text; the model may have ids the tokenizer does not know."""
    token = tokenizer.convert_ids_to_tokens(token_id) if token_id >= 0 else None
    return "(no token)" if token is None else printable(token)


def _blocks(
    prefix: str,
    lines: list[tuple[str, list[Cell]]],
    length: int,
    labels: torch.Tensor | None,
    row: int,
) -> list[Block]:
    """Cut the lines of one sentence into blocks of 12 positions, and fold a long middle."""
    spans = [(0, length)] if length <= LONGEST else [(0, HEAD), (length - TAIL, length)]
    blocks = []
    for first, last in spans:
        if first:
            folded = "" if labels is None else f", {_scored(labels[row, HEAD:first])} scored"
            blocks.append(
                Block(
                    f"… {prefix}positions {HEAD} to {first - 1} are folded: "
                    f"{first - HEAD} positions{folded} …"
                )
            )
        start = first
        while start < last:
            stop = _end_of_block(lines, start, last)
            columns = tuple((name, tuple(cells[start:stop])) for name, cells in lines)
            blocks.append(Block(f"{prefix}positions {start} to {stop - 1}", columns))
            start = stop
    if not length:
        blocks.append(Block(f"{prefix}empty", tuple((name, ()) for name, _ in lines)))
    return blocks


def _end_of_block(lines: list[tuple[str, list[Cell]]], start: int, last: int) -> int:
    """Return where the block that begins at ``start`` ends: at 12 positions, or when it is wide."""
    width = 0
    for position in range(start, min(start + BLOCK, last)):
        width += 2 + max(len(cells[position].text) for _, cells in lines)
        if width > WIDEST and position > start:
            return position
    return min(start + BLOCK, last)


def _summary(
    labels: torch.Tensor | None, nll: torch.Tensor | None, vocabulary: int, batch: bool
) -> tuple[str, float | None]:
    """Return the sentence under the table, and the loss where there is one."""
    if labels is None:
        return "No labels: nothing is scored, and the model returns no loss.", None
    scored = (labels != IGNORE_INDEX).nonzero().tolist()
    of_all = f"{len(scored)} of {labels.numel()} positions"
    wrong = labels[(labels != IGNORE_INDEX) & ((labels < 0) | (labels >= vocabulary))]
    if len(wrong):
        return (
            f"{of_all} {'has' if len(scored) == 1 else 'have'} a label, and there is no loss: "
            f"label {int(wrong[0])} is neither -100 nor an id from 0 to {vocabulary - 1}. The "
            "model raises an IndexError.",
            None,
        )
    text = f"{of_all} {'is' if len(scored) == 1 else 'are'} scored (✓)"
    where = ""
    if 0 < len(scored) <= 6:
        places = [f"row {r} position {p}" if batch else str(p) for r, p in scored]
        where = ", ".join(places)
        if not batch:
            where = ("position " if len(places) == 1 else "positions ") + where
    if nll is None:
        return f"{text}: {where}." if where else f"{text}.", None
    loss = float(nll[labels != IGNORE_INDEX].mean())
    values = "1 value" if len(scored) == 1 else f"{len(scored)} values"
    of = f" ({where})" if where else ""
    return f"{text}. loss = mean of {values}{of} = {loss:.2f}", loss


def _scrolling(content: str) -> str:
    return f'<div style="overflow-x:auto;">{content}</div>'


def _table(block: Block, caption: str, side: str) -> str:
    """Return one block as an HTML table; ``caption`` is escaped already."""
    rows = []
    for name, cells in block.lines:
        header = f'<th scope="row" style="{HEADER}opacity:.72;">{name}</th>'
        tag, scope = ("th", ' scope="col"') if name == "position" else ("td", "")
        rows.append(
            '<tr style="background:transparent;">'
            + header
            + "".join(
                f'<{tag}{scope} style="{CELL}{STYLES[cell.style]}">{html.escape(cell.text)}</{tag}>'
                for cell in cells
            )
            + "</tr>"
        )
    return (
        '<table style="border-collapse:separate;border-spacing:3px 2px;border:0;margin:4px 0;'
        'table-layout:auto;width:auto;">'
        f'<caption style="caption-side:{side};text-align:left;padding:4px 0;'
        f'color:inherit;">{caption}</caption><tbody>{"".join(rows)}</tbody></table>'
    )
