"""label_positions: the answer where chosen, -100 elsewhere."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mlmtutor.labels import (
    IGNORE_INDEX,
    MaskedPositions,
    SelectedTargets,
    convert_labels,
    label_positions,
)


def test_ignore_index_is_the_default_of_torch():
    assert torch.nn.CrossEntropyLoss().ignore_index == IGNORE_INDEX


@settings(deadline=None, derandomize=True, max_examples=50)
@given(data=st.data())
def test_answer_where_chosen_and_ignore_index_elsewhere(data):
    shape = data.draw(st.lists(st.integers(0, 4), min_size=1, max_size=3))
    seed = data.draw(st.integers(0, 2**32 - 1))
    ignore_index = data.draw(st.sampled_from([-100, -1, 5000]))
    generator = torch.Generator().manual_seed(seed)
    input_ids, targets = torch.randint(1000, (2, *shape), generator=generator)
    positions = torch.rand(shape, generator=generator) < 0.5
    for answers in (None, targets):
        labels = label_positions(input_ids, positions, answers, ignore_index)
        expected = input_ids if answers is None else answers
        assert labels.shape == input_ids.shape
        assert labels.dtype == torch.int64
        assert torch.equal(labels[positions], expected[positions])
        assert (labels[~positions] == ignore_index).all()


@pytest.mark.parametrize("chosen", [False, True])
def test_labels_share_no_memory_with_the_input(chosen):
    input_ids = torch.tensor([[101, 7, 8, 102]])
    targets = input_ids + 1
    positions = torch.full_like(input_ids, chosen, dtype=torch.bool)
    for answers in (None, targets):
        labels = label_positions(input_ids, positions, answers)
        before = labels.clone()
        input_ids[:] = 103
        targets[:] = 104
        positions[:] = not chosen
        assert torch.equal(labels, before)
        input_ids[:], targets[:], positions[:] = 7, 8, chosen


def test_inputs_are_left_alone():
    input_ids, targets = torch.tensor([5, 6, 7]), torch.tensor([8, 9, 10])
    positions = torch.tensor([True, False, True])
    label_positions(input_ids, positions, targets)
    assert input_ids.tolist() == [5, 6, 7]
    assert targets.tolist() == [8, 9, 10]
    assert positions.tolist() == [True, False, True]


def test_ids_that_are_masked_already_need_targets():
    masked = torch.tensor([[101, 103, 102]])
    at_mask = masked == 103
    assert label_positions(masked, at_mask).tolist() == [[-100, 103, -100]]
    original = torch.tensor([[101, 4937, 102]])
    assert label_positions(masked, at_mask, original).tolist() == [[-100, 4937, -100]]


def test_targets_that_are_labels_already_are_accepted():
    ids = torch.tensor([1, 2, 3])
    labels = torch.tensor([-100, 9, -100])
    assert torch.equal(label_positions(ids, labels != -100, labels), labels)


IDS = torch.tensor([[5, 6, 7]])
CHOSEN = torch.tensor([[False, True, False]])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (([5, 6], CHOSEN), TypeError, "input_ids must be a torch.Tensor, but is a list"),
        (({"input_ids": IDS}, CHOSEN), TypeError, r"is a dict: pass .* batch\['input_ids'\]"),
        ((IDS.float(), CHOSEN), ValueError, r"input_ids must have dtype .*float32.*\.long\(\)"),
        ((-IDS, CHOSEN), ValueError, "^input_ids must hold .* holds -7: labels have"),
        ((IDS, CHOSEN.to_sparse()), ValueError, "^positions must be a dense tensor"),
        ((IDS, [1]), TypeError, "positions must be a bool torch.Tensor, but is a list"),
        ((IDS, torch.tensor([1])), ValueError, r"torch.bool, but has torch.int64: .* indices"),
        (
            (IDS, CHOSEN[0]),
            ValueError,
            r"^positions .* input_ids, \(1, 3\), but has \(3,\): .* dim",
        ),
        ((IDS, CHOSEN, [6]), TypeError, "targets must be a torch.Tensor, but is a list"),
        ((IDS, CHOSEN, IDS.int()), ValueError, "targets must have dtype torch.int64"),
        (
            (IDS, CHOSEN, IDS[:, 1:]),
            ValueError,
            r"^targets .* of input_ids, \(1, 3\), but has \(1, 2\)",
        ),
        ((IDS, CHOSEN, IDS[CHOSEN]), ValueError, "one id for every position"),
        ((IDS, CHOSEN, IDS - 200), ValueError, "targets at the chosen positions .* -194"),
        ((IDS, CHOSEN, None, 6), ValueError, "6 is the answer at a chosen position"),
        ((IDS, CHOSEN, None, -100.0), TypeError, "ignore_index must be an int, but is a float"),
    ],
)
def test_errors_name_the_cause(arguments, error, message):
    with pytest.raises(error, match=message):
        label_positions(*arguments)


@pytest.mark.parametrize(
    ("labels", "source", "message"),
    [
        (MaskedPositions(IDS.float(), IDS, CHOSEN), "positions", "positions must have dtype"),
        (MaskedPositions(IDS, IDS.float(), CHOSEN), "positions", "ids must have dtype"),
        (MaskedPositions(IDS[0], IDS[0], CHOSEN[0]), "positions", "positions must have two dim"),
        (SelectedTargets(CHOSEN, IDS.float()), "selected", "targets must have dtype"),
        (SelectedTargets(CHOSEN[0], IDS[0]), "selected", "targets must have two dimensions"),
        (MaskedPositions(IDS, IDS[:, 1:], CHOSEN), "positions", "ids must .* of positions, "),
        (MaskedPositions(IDS, IDS, CHOSEN[:, 1:]), "positions", "weights must .* of positions, "),
        (
            MaskedPositions(IDS, IDS, CHOSEN.float().to_sparse()),
            "positions",
            "weights must .* dense",
        ),
        (
            SelectedTargets(CHOSEN[:, 1:], IDS),
            "selected",
            "selected must have the shape of targets,",
        ),
        (IDS[0], "-100", "labels must have two dimensions"),
        (IDS.float(), "-1", "labels in the convention '-1' must have dtype"),
    ],
)
def test_errors_of_a_conversion_name_the_part(labels, source, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        convert_labels(labels, source, "-1", length=9 if source == "positions" else None)


@pytest.mark.parametrize(
    ("name", "value", "error", "message"),
    [
        ("length", -1, ValueError, "length must not be negative, but is -1"),
        ("length", "4", TypeError, "length must be an int, but is a str"),
        ("pad_token_id", -3, ValueError, "pad_token_id must not be negative, but is -3"),
        ("pad_token_id", None, TypeError, "pad_token_id must be an int, but is a NoneType"),
    ],
)
def test_a_number_that_is_no_count_is_named(name, value, error, message):
    labels = MaskedPositions(*torch.zeros(3, 1, 1, dtype=torch.int64))
    with pytest.raises(error, match=f"^{message}"):
        convert_labels(labels, "positions", "pad", **{"length": 4, name: value})


def test_the_padding_id_is_needed_for_padding_alone():
    labels = torch.tensor([[-100, 7]])
    assert convert_labels(labels, "-100", "-1", pad_token_id=None).tolist() == [[-1, 7]]


def test_conversions_of_nothing_have_no_columns():
    nothing = MaskedPositions(*torch.zeros(3, 2, 0, dtype=torch.int64))
    assert convert_labels(nothing, "positions", "-100", length=0).shape == (2, 0)
    no_rows = torch.zeros(0, 4, dtype=torch.int64)
    assert convert_labels(no_rows, "-100", "positions").ids.shape == (0, 0)


def test_selected_targets_are_0_where_nothing_is_scored():
    labels = torch.tensor([[-100, 7, -100]])
    assert convert_labels(labels, "-100", "selected").targets.tolist() == [[0, 7, 0]]
