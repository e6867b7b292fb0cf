"""One set of labels, five ways to write it down: nothing is lost, and nothing is guessed."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

from mlmtutor.labels import MaskedPositions, SelectedTargets, convert_labels

CONVENTIONS = ["-100", "-1", "pad", "positions", "selected"]
V = 11


def convert(labels, source, target, **options):
    length = 4 if source == "positions" else None
    return convert_labels(labels, source, target, length=length, **options)


def parts(labels):
    """Return the tensors of labels in any convention."""
    return [labels] if isinstance(labels, torch.Tensor) else list(vars(labels).values())


def loss(logits, labels, convention):
    """Compute the loss as the users of each convention do."""
    if convention == "positions":
        at = labels.positions.unsqueeze(-1).expand(-1, -1, logits.shape[-1])
        log_p = logits.gather(1, at).log_softmax(-1)
        nll = -log_p.gather(-1, labels.ids.unsqueeze(-1)).squeeze(-1)
        return (labels.weights * nll).sum() / labels.weights.sum()
    if convention == "selected":
        return cross_entropy(logits[labels.selected], labels.targets[labels.selected])
    ignored = {"-100": -100, "-1": -1, "pad": 0}[convention]
    return cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=ignored)


labels_100 = st.lists(
    st.lists(st.sampled_from([-100, *range(V)]), min_size=4, max_size=4), min_size=1, max_size=4
).map(torch.tensor)
without_pad = labels_100.map(lambda labels: labels.masked_fill(labels == 0, 1))
without_random = settings(deadline=None, derandomize=True, max_examples=40)


@without_random
@given(without_pad)
def test_convert_labels_agrees_for_every_pair_and_loses_nothing(labels):
    written = {name: convert(labels, "-100", name) for name in CONVENTIONS}
    for source, target in itertools.product(CONVENTIONS, repeat=2):
        result = convert(written[source], source, target)
        for part, expected in zip(parts(result), parts(written[target]), strict=True):
            assert torch.equal(part, expected)
            assert part.dtype == expected.dtype
        assert torch.equal(convert(result, target, "-100"), labels)


@without_random
@given(labels_100)
def test_convert_labels_keeps_id_0_where_the_convention_can_say_it(labels):
    for name in ("-1", "positions", "selected"):
        assert torch.equal(convert(convert(labels, "-100", name), name, "-100"), labels)


@without_random
@given(without_pad, st.integers(0, 3))
def test_convert_labels_keeps_the_loss(labels, column):
    labels[0, column] = 5  # at least one position is scored
    logits = torch.randn(*labels.shape, V, generator=torch.Generator().manual_seed(0))
    expected = loss(logits, labels, "-100")
    for name in CONVENTIONS:
        assert torch.isclose(loss(logits, convert(labels, "-100", name), name), expected, atol=1e-6)


@pytest.mark.parametrize("target", CONVENTIONS)
@pytest.mark.parametrize("source", CONVENTIONS)
def test_convert_labels_returns_new_tensors(source, target):
    labels = convert(torch.tensor([[-100, 7, -100, 9], [-100, -100, 8, -100]]), "-100", source)
    before = [part.clone() for part in parts(labels)]
    for part in parts(convert(labels, source, target)):
        part.fill_(1)
    assert all(map(torch.equal, parts(labels), before))


def test_convert_labels_takes_the_whole_text_as_targets():
    text = torch.tensor([[101, 7, 8, 102]])
    selected = torch.tensor([[False, True, False, False]])
    assert convert(SelectedTargets(selected, text), "selected", "-100").tolist() == [
        [-100, 7, -100, -100]
    ]
    labels = text.masked_fill(~selected, -100)  # or what was ignored already
    assert convert(SelectedTargets(selected, labels), "selected", "-1").tolist() == [
        [-1, 7, -1, -1]
    ]


def test_convert_labels_ignores_what_stands_at_weight_0():
    masked = MaskedPositions(
        torch.tensor([[2, 99]]), torch.tensor([[7, -5]]), torch.tensor([[1.0, 0.0]])
    )
    assert convert(masked, "positions", "-100").tolist() == [[-100, -100, 7, -100]]


def test_convert_labels_of_nothing():
    nothing = torch.full((2, 4), -100)
    assert convert(nothing, "-100", "positions").positions.shape == (2, 0)
    for name in CONVENTIONS:
        assert torch.equal(convert(convert(nothing, "-100", name), name, "-100"), nothing)
        assert convert(convert(nothing[:0], "-100", name), name, "-100").shape == (0, 4)


def test_convert_labels_with_another_pad_token():
    labels = torch.tensor([[-100, 0, 5, -100]])
    padded = convert(labels, "-100", "pad", pad_token_id=1)
    assert padded.tolist() == [[1, 0, 5, 1]]
    assert torch.equal(convert(padded, "pad", "-100", pad_token_id=1), labels)


def masked(positions, ids, weights):
    return MaskedPositions(torch.tensor(positions), torch.tensor(ids), torch.tensor(weights))


LABELS = torch.tensor([[-100, 7, 0, 9]])
REFUSED = {
    "an answer is [PAD]": ((LABELS, "-100", "pad"), "cannot score [PAD], but the answer"),
    "no such source": ((LABELS, "100", "-1"), "source must be one of '-100', '-1', 'pad'"),
    "no such target": ((LABELS, "-100", -1), "target must be one of"),
    "-100 read as -1": ((LABELS, "-1", "-100"), "must be ids or -1, but hold -100: which"),
    "-1 read as -100": ((LABELS + 99, "-100", "-1"), "must be ids or -100, but hold -1: which"),
    "-100 read as pad": ((LABELS, "pad", "-100"), "must be ids or 0, but hold -100"),
    "one row without batch": ((LABELS[0], "-100", "-1"), "two dimensions, (batch, length)"),
    "floats": ((LABELS.float(), "-100", "-1"), "must have dtype torch.int64"),
    "twice in a row": (
        (masked([[1, 1]], [[7, 8]], [[1.0, 1.0]]), "positions", "-100"),
        "given twice in one row",
    ),
    "position behind the end": (
        (masked([[4]], [[7]], [[1.0]]), "positions", "-100"),
        "between 0 and 3, but reach from 4 to 4",
    ),
    "negative position": ((masked([[-1]], [[7]], [[1.0]]), "positions", "-100"), "from -1 to -1"),
    "half a weight": ((masked([[1]], [[7]], [[0.5]]), "positions", "-100"), "must be 0 or 1"),
    "negative id": ((masked([[1]], [[-100]], [[1.0]]), "positions", "-100"), "ids of weight 1"),
    "ids of another shape": (
        (masked([[1]], [[7, 8]], [[1.0]]), "positions", "-100"),
        "one id and one weight for each position",
    ),
    "selected is not a mask": (
        (SelectedTargets(LABELS, LABELS), "selected", "-100"),
        "selected must be a bool torch.Tensor, but is torch.int64",
    ),
    "a selected answer is -100": (
        (SelectedTargets(LABELS != 7, LABELS), "selected", "-100"),
        "targets where selected",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_convert_labels_refuses_what_a_convention_cannot_say(name):
    arguments, message = REFUSED[name]
    with pytest.raises((TypeError, ValueError)) as caught:
        convert(*arguments)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("labels", "source", "message"),
    [
        ([[7]], "-100", "must be a torch.Tensor"),
        (LABELS, "positions", "must be MaskedPositions, but are a Tensor"),
        (LABELS, "selected", "must be SelectedTargets, but are a Tensor"),
    ],
)
def test_convert_labels_wants_the_type_of_the_convention(labels, source, message):
    with pytest.raises(TypeError, match=message):
        convert(labels, source, "-1")


@pytest.mark.parametrize(("source", "length"), [("positions", None), ("-100", 4)])
def test_convert_labels_wants_a_length_for_positions_alone(source, length):
    with pytest.raises(ValueError, match="length must be given if and only if"):
        convert_labels(LABELS, source, "-1", length=length)
