import math
import re
from xml.etree import ElementTree

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mlmtutor import alignment
from mlmtutor.alignment_table import BLOCK, LONGEST, MOST_ROWS, WIDEST

IDS = [101, 1045, 2215, 2000, 103, 1996, 2088, 1012, 102]
LABELS = [-100, -100, -100, -100, 2689, -100, -100, -100, -100]


def table_of(tokenizer, ids, labels=None, logits=None):
    return alignment({"input_ids": ids, "labels": labels}, tokenizer, logits)


def parsed(table):
    """Return the HTML of the table as a tree; one that isn't well-formed raises."""
    return ElementTree.fromstring(f"<body>{table._repr_html_()}</body>")


def test_alignment_has_the_same_cells_in_html_and_text(tutor):
    model, tokenizer = tutor
    with torch.no_grad():
        out = model(torch.tensor([IDS]), labels=torch.tensor([LABELS]))
    table = table_of(tokenizer, IDS, LABELS, out.logits[0])
    rows = [["".join(cell.itertext()) for cell in row] for row in parsed(table).iter("tr")]
    assert [row[0] for row in rows] == [
        "position", "token", "input_ids", "labels", "scored", "−log p(label)",
    ]  # fmt: skip
    assert {len(row) for row in rows} == {1 + len(IDS)}
    lines = str(table).splitlines()
    for row, line in zip(rows, lines, strict=False):
        assert line.split() == " ".join(row).split()
    assert rows[4][1:] == ["·"] * 4 + ["✓ change"] + ["·"] * 4
    assert rows[5][5] == f"{out.loss:.2f}"
    assert table.loss == pytest.approx(out.loss.item(), abs=1e-6)
    assert (
        lines[-1]
        == f"1 of 9 positions is scored (✓). loss = mean of 1 value (position 4) = {out.loss:.2f}"
    )


def test_alignment_has_the_loss_of_the_model_for_a_batch(tutor):
    model, tokenizer = tutor
    batch = tokenizer(["A [MASK] sat.", "It was a [MASK] day."], padding=True, return_tensors="pt")
    ids = batch["input_ids"]
    labels = torch.where(ids == 103, 4937, -100)
    labels[1, 1] = ids[1, 1]
    with torch.no_grad():
        out = model(**batch, labels=labels)
    table = alignment({**batch, "labels": labels}, tokenizer, out.logits)
    assert table.loss == pytest.approx(out.loss.item(), abs=1e-6)
    assert table.scored == 3
    assert "row 0 position 2, row 1 position 1, row 1 position 4" in table.summary
    assert table.blocks[1].title == f"row 1, positions 0 to {ids.shape[1] - 1}"
    assert "attention_mask" in str(table)


def test_alignment_html_survives_an_untrusted_notebook(tokenizer):
    long = [[101, *[2000 + i for i in range(60)], 102]] * 2
    for table in (table_of(tokenizer, IDS, LABELS), table_of(tokenizer, long, long)):
        elements = [*parsed(table).iter()][1:]
        allowed = {"div", "table", "caption", "tbody", "tr", "th", "td", "p"}
        assert {element.tag for element in elements} <= allowed
        assert {name for element in elements for name in element.attrib} <= {"style", "scope"}


@pytest.mark.parametrize("length", [0, 1, BLOCK, BLOCK + 1, LONGEST, LONGEST + 1, 512])
def test_alignment_shows_or_counts_every_position(tokenizer, length):
    ids = [2000 + i for i in range(length)]
    labels = [i if n % 5 == 0 else -100 for n, i in enumerate(ids)]
    table = table_of(tokenizer, ids, labels)
    shown = [int(c.text) for block in table.blocks if block.lines for c in block.lines[0][1]]
    folds = [re.search(r"positions (\d+) to (\d+) are folded: (\d+) positions, (\d+) scored", b.title)
             for b in table.blocks if not b.lines]  # fmt: skip
    assert len(folds) == (length > LONGEST)
    for fold in folds:
        first, last, count, scored = map(int, fold.groups())
        assert count == last - first + 1
        assert scored == sum(label != -100 for label in labels[first : last + 1])
        shown += range(first, last + 1)
        assert fold.group() in table._repr_html_()
        assert fold.group() in str(table)
    assert table.scored == sum(label != -100 for label in labels)
    assert sorted(shown) == list(range(length))
    assert all(len(b.lines[0][1]) <= BLOCK for b in table.blocks if b.lines)
    assert table.summary.startswith(f"{table.scored} of {length} positions")


def test_alignment_wraps_wide_tokens_earlier(tokenizer):
    word = tokenizer.convert_tokens_to_ids("characteristics")
    table = table_of(tokenizer, [word] * 12, [word] * 12)
    shown = [int(c.text) for block in table.blocks for c in block.lines[0][1]]
    assert shown == list(range(12))
    assert len(table.blocks) == 2
    for line in str(table).splitlines():
        assert len(line) <= WIDEST + 15


def test_alignment_folds_rows_with_a_count(tokenizer):
    table = table_of(tokenizer, [IDS] * 11, [LABELS] * 11)
    assert table.blocks[-1].title == "… 3 more rows are folded: 27 positions, 3 scored …"
    assert len(table.blocks) == MOST_ROWS + 1
    assert table.scored == 11


def test_alignment_tells_replaced_from_kept_and_special(tokenizer):
    ids = [101, 103, 4937, 2938, 102]
    labels = [-100, 2000, 9999, 2938, -100]
    [block] = table_of(tokenizer, ids, labels).blocks
    assert [cell.style for cell in dict(block.lines)["token"]] == [
        "special", "replaced", "replaced", "plain", "special",
    ]  # fmt: skip


def test_alignment_shows_wrong_labels(tutor):
    model, tokenizer = tutor
    logits = model(torch.tensor([IDS])).logits[0]
    for label in (-1, len(tokenizer), 2**40):
        labels = [*LABELS[:-1], label]
        table = table_of(tokenizer, IDS, labels, logits)
        assert "✗ not an id" in str(table)
        assert f"label {label} is neither -100 nor an id from 0 to 30521" in table.summary
        assert table.loss is None
        with pytest.raises(IndexError):
            model(torch.tensor([IDS]), labels=torch.tensor([labels]))


def test_alignment_of_nothing_labelled_is_nan(tokenizer):
    table = table_of(tokenizer, IDS, [-100] * 9, torch.zeros(9, 30522))
    assert math.isnan(table.loss)
    assert table.summary == "0 of 9 positions are scored (✓). loss = mean of 0 values = nan"


def test_alignment_without_labels(tokenizer):
    table = table_of(tokenizer, IDS)
    assert table.summary == "No labels: nothing is scored, and the model returns no loss."
    assert "labels" not in dict(table.blocks[0].lines)


def test_alignment_escapes_tokens(tokenizer, monkeypatch):
    monkeypatch.setattr(
        tokenizer, "convert_ids_to_tokens", lambda i: "<b>\n\x00" if i == 5 else None
    )
    table = table_of(tokenizer, [5, 6], [5, -100])
    assert "&lt;b&gt;\\n\\x00" in table._repr_html_()
    assert "\n\x00" not in str(table)
    assert "(no token)" in str(table)


def test_alignment_leaves_its_input_alone(tokenizer):
    ids, labels = torch.tensor(IDS), torch.tensor(LABELS)
    table_of(tokenizer, ids, labels, torch.zeros(9, 30522))
    assert ids.tolist() == IDS
    assert labels.tolist() == LABELS


@settings(deadline=None, derandomize=True, max_examples=25)
@given(
    rows=st.integers(0, 10),
    length=st.integers(0, 50),
    special=st.sampled_from([-1, 30522, 2**40]),
    seed=st.integers(0, 2**32 - 1),
)
def test_alignment_shows_any_batch(tokenizer, rows, length, special, seed):
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(30522, (rows, length), generator=generator)
    labels = ids.masked_fill(torch.rand(ids.shape, generator=generator) < 0.8, -100)
    for values in (labels, labels.masked_fill(ids % 7 == 0, special)):
        table = table_of(tokenizer, ids, values)
        assert table.scored == (values != -100).sum()
        assert "".join(parsed(table).itertext()).endswith(table.summary)
        assert str(table).endswith(table.summary)


def test_alignment_wants_one_mapping_and_the_tokenizer_behind_it(tokenizer):
    for wrong in (torch.tensor(IDS), [IDS], {"labels": LABELS}):
        with pytest.raises(TypeError, match="batch must be a mapping with input_ids"):
            alignment(wrong, tokenizer)
    with pytest.raises(TypeError, match="tokenizer must be that of the model, but is a dict"):
        alignment({"input_ids": IDS}, {})


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((IDS, LABELS[:-1]), ValueError, r"labels must have the shape of input_ids, \(9,\), but has \(8,\)"),
        ((5,), ValueError, r"input_ids must have shape \(n,\) or \(batch, n\), but has \(\)"),
        (([1.0, 2.0],), TypeError, "input_ids must hold integers"),
        ((IDS, [0.5] * 9), TypeError, "labels must hold integers"),
        ((IDS, None, torch.zeros(9, 5)), ValueError, "logits were given without labels"),
        ((IDS, LABELS, torch.zeros(1, 9, 5)), ValueError, "did you pass logits of one sentence"),
    ],
)  # fmt: skip
def test_alignment_names_the_cause_of_an_error(tokenizer, arguments, error, message):
    with pytest.raises(error, match=message):
        table_of(tokenizer, *arguments)
