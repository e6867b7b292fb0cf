"""masked_lm_loss and loss_breakdown against torch and against the models of transformers.

Tolerances are multiples of the machine epsilon of the dtype: losses are sums of positive terms,
so a relative bound is meaningful. 4 eps covers the two orders in which the terms are added.
"""

import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from toys import HEADS, small_model

from mlmtutor.loss import loss_breakdown, masked_lm_loss

REDUCTIONS = ["none", "sum", "mean"]
DTYPES = [torch.float32, torch.bfloat16, torch.float64]


def assert_equal_to(ours, torchs, dtype):
    assert ours.dtype == torchs.dtype == dtype
    eps = torch.finfo(dtype).eps
    torch.testing.assert_close(ours, torchs, rtol=4 * eps, atol=0.0, equal_nan=True)


def torch_loss(logits, labels, ignore_index, reduction):
    flat = F.cross_entropy(
        logits.reshape(-1, logits.shape[-1]),
        labels.reshape(-1),
        ignore_index=ignore_index,
        reduction=reduction,
    )
    return flat.view(labels.shape) if reduction == "none" else flat


def random_batch(shape, vocab_size, seed, labelled=0.5, ignore_index=-100, scale=4.0):
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(*shape, vocab_size, generator=generator)
    labels = torch.randint(vocab_size, shape, generator=generator)
    ignored = torch.rand(shape, generator=generator) >= labelled
    return logits, labels.masked_fill(ignored, ignore_index)


# --- Parity with torch -----------------------------------------------------------------------


@settings(deadline=None, derandomize=True, max_examples=200)
@given(
    shape=st.lists(st.integers(0, 5), min_size=0, max_size=3).map(tuple),
    vocab_size=st.integers(1, 40),
    seed=st.integers(0, 2**32 - 1),
    labelled=st.sampled_from([0.0, 0.15, 1.0]),
    ignore_index=st.sampled_from([-100, -1, 0]),
    scale=st.sampled_from([0.0, 1.0, 1000.0]),
    reduction=st.sampled_from(REDUCTIONS),
    dtype=st.sampled_from(DTYPES),
)
def test_equal_to_cross_entropy(
    shape, vocab_size, seed, labelled, ignore_index, scale, reduction, dtype
):
    logits, labels = random_batch(shape, vocab_size, seed, labelled, ignore_index, scale)
    logits = logits.to(dtype)
    before = logits.clone(), labels.clone()
    ours = masked_lm_loss(logits, labels, ignore_index=ignore_index, reduction=reduction)
    assert ours.shape == (labels.shape if reduction == "none" else ())
    assert_equal_to(ours, torch_loss(logits, labels, ignore_index, reduction), dtype)
    assert torch.equal(logits, before[0])
    assert torch.equal(labels, before[1])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("labelled", [0.0, 0.15, 1.0])
def test_gradient_equal_to_cross_entropy(dtype, reduction, labelled):
    logits, labels = random_batch((8, 32), 50, seed=1, labelled=labelled)
    gradients = []
    for function in (masked_lm_loss, F.cross_entropy):
        leaf = logits.to(dtype).requires_grad_()
        if function is masked_lm_loss:
            loss = masked_lm_loss(leaf, labels, reduction=reduction)
        else:
            loss = torch_loss(leaf, labels, -100, reduction)
        (gradient,) = torch.autograd.grad(loss.sum(), leaf)
        gradients.append(gradient)
    eps = torch.finfo(dtype).eps
    torch.testing.assert_close(gradients[0], gradients[1], rtol=4 * eps, atol=eps * eps)
    assert not gradients[0][labels == -100].any(), "an ignored position has a gradient"
    assert bool(gradients[0].any()) == (labelled > 0)


def test_nothing_labelled():
    logits = torch.randn(2, 3, 7, generator=torch.Generator().manual_seed(0), requires_grad=True)
    labels = torch.full((2, 3), -100)
    assert masked_lm_loss(logits, labels).isnan()
    assert masked_lm_loss(logits, labels, reduction="sum") == 0
    assert masked_lm_loss(logits, labels, reduction="none").tolist() == [[0.0] * 3] * 2
    masked_lm_loss(logits, labels).backward()
    assert not logits.grad.any(), "the gradient of the nan is zero, as in torch"


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_infinite_logits(reduction):
    inf = math.inf
    logits = torch.tensor([[0.0, -inf, 1.0], [-inf, 2.0, 0.0], [inf, 0.0, 0.0]])
    labels = torch.tensor([1, 1, -100])
    ours = masked_lm_loss(logits, labels, reduction=reduction)
    assert_equal_to(ours, torch_loss(logits, labels, -100, reduction), torch.float32)


def test_a_non_contiguous_slice():
    logits, labels = random_batch((4, 9), 11, seed=2)
    ours = masked_lm_loss(logits.transpose(0, 1)[2:], labels.T[2:])
    assert_equal_to(ours, torch_loss(logits[:, 2:], labels[:, 2:], -100, "mean"), torch.float32)


def test_an_ignored_row_changes_nothing():
    logits, labels = random_batch((6,), 30, seed=3, labelled=1.0)
    with_ignored = labels.clone()
    with_ignored[4:] = -100
    assert masked_lm_loss(logits, with_ignored) == masked_lm_loss(logits[:4], labels[:4])


def test_it_is_a_mean_over_positions_and_not_over_rows():
    logits, labels = random_batch((2, 4), 30, seed=4, labelled=1.0)
    labels[0, 1:] = -100
    rows = [masked_lm_loss(logits[i], labels[i]) for i in range(2)]
    assert masked_lm_loss(logits, labels).item() == pytest.approx(
        (rows[0].item() + 4 * rows[1].item()) / 5
    )
    assert abs(masked_lm_loss(logits, labels) - sum(rows) / 2) > 0.01


# --- Parity with the models of transformers --------------------------------------------------


@pytest.mark.parametrize("name", HEADS)
def test_equal_to_the_loss_of_the_model(name):
    model = small_model(name)
    generator = torch.Generator().manual_seed(5)
    input_ids = torch.randint(5, 60, (3, 12), generator=generator)
    labels = input_ids.masked_fill(torch.rand(3, 12, generator=generator) > 0.3, -100)
    with torch.no_grad():
        output = model(
            input_ids=input_ids, attention_mask=torch.ones_like(input_ids), labels=labels
        )
    assert_equal_to(masked_lm_loss(output.logits, labels), output.loss, torch.float32)
    assert 0 < (labels != -100).sum() < labels.numel()


# --- The breakdown ---------------------------------------------------------------------------


def test_breakdown_agrees_with_the_loss():
    logits, labels = random_batch((4, 16), 50, seed=6, labelled=0.3)
    parts = loss_breakdown(logits.requires_grad_(), labels)
    assert torch.equal(parts.token_loss, masked_lm_loss(logits, labels, reduction="none"))
    assert not parts.token_loss.requires_grad
    assert parts.count == int((labels != -100).sum())
    assert parts.mean == masked_lm_loss(logits, labels).item()
    assert parts.mean == pytest.approx(parts.token_loss.sum().item() / parts.count)
    assert parts.perplexity == pytest.approx(math.exp(parts.mean))
    assert parts.uniform == math.log(50)
    assert parts.unigram is None


def test_uniform_line_is_the_loss_of_equal_logits():
    _, labels = random_batch((4, 16), 50, seed=7)
    parts = loss_breakdown(torch.zeros(4, 16, 50), labels)
    assert parts.mean == pytest.approx(parts.uniform)
    assert parts.perplexity == pytest.approx(50)


def test_unigram_line_is_the_loss_of_the_log_frequencies():
    counts = torch.randint(1, 100, (50,), generator=torch.Generator().manual_seed(8))
    _, labels = random_batch((4, 16), 50, seed=8, ignore_index=-1)
    logits = counts.double().log().expand(4, 16, 50)
    from_counts = loss_breakdown(logits, labels, ignore_index=-1, unigram=counts)
    assert from_counts.unigram == pytest.approx(from_counts.mean)
    probabilities = counts / counts.sum()
    from_probabilities = loss_breakdown(logits, labels, ignore_index=-1, unigram=probabilities)
    assert from_probabilities.unigram == pytest.approx(from_counts.unigram, rel=1e-6)


def test_counts_of_any_size_are_proportions():
    for count in (1e-300, 1.0, 1e308):
        unigram = torch.full((5,), count, dtype=torch.float64)
        parts = loss_breakdown(torch.zeros(1, 5), torch.tensor([3]), unigram=unigram)
        assert parts.unigram == pytest.approx(math.log(5))


def test_unigram_line_is_infinite_for_a_token_never_seen():
    parts = loss_breakdown(torch.zeros(2, 3), torch.tensor([0, 2]), unigram=torch.tensor([5, 5, 0]))
    assert parts.unigram == math.inf


def test_breakdown_of_nothing_labelled_is_nan():
    parts = loss_breakdown(torch.zeros(2, 3), torch.tensor([-100, -100]), unigram=torch.ones(3))
    assert parts.count == 0
    assert all(map(math.isnan, (parts.mean, parts.perplexity, parts.unigram)))


def test_perplexity_overflows_to_infinity():
    parts = loss_breakdown(torch.tensor([[0.0, 1e4]]), torch.tensor([0]))
    assert (parts.mean, parts.perplexity) == (1e4, math.inf)


def test_breakdown_is_frozen_and_prints_a_table():
    parts = loss_breakdown(torch.zeros(1, 2, 4), torch.tensor([[3, -100]]), unigram=torch.ones(4))
    with pytest.raises(dataclasses.FrozenInstanceError):
        parts.mean = 0.0
    assert repr(parts).splitlines() == [
        "scored      1 of 2 positions",
        "mean        1.3863 nats per scored position",
        "perplexity  4.00",
        "uniform     1.3863 (ln V: every token equally likely)",
        "unigram     1.3863 (token frequencies only)",
    ]
    assert "unigram" not in repr(dataclasses.replace(parts, unigram=None))


# --- Errors ----------------------------------------------------------------------------------

LOGITS = torch.zeros(2, 3, 5)
LABELS = torch.zeros(2, 3, dtype=torch.int64)


def label(value):
    labels = LABELS.clone()
    labels[1, 2] = value
    return labels


ERRORS = [
    ((object(), LABELS), {}, TypeError, "logits must be a torch.Tensor, .* pass output.logits"),
    ((LABELS, LABELS), {}, ValueError, "logits must be floating point, but have dtype torch.int64"),
    ((LOGITS.to_sparse(), LABELS), {}, ValueError, "^logits must be a dense tensor"),
    ((torch.tensor(0.0), LABELS), {}, ValueError, r"\(..., V\).*, but have \(\)"),
    ((LOGITS[..., :0], LABELS), {}, ValueError, r"V > 0 tokens, but have \(2, 3, 0\)"),
    ((LOGITS, [[0] * 3] * 2), {}, TypeError, "labels must be a torch.Tensor, but is a list"),
    ((LOGITS, LABELS.int()), {}, ValueError, "labels must have dtype torch.int64, .*int32"),
    ((LOGITS, LABELS.float()), {}, ValueError, "labels must have dtype torch.int64, .*float32"),
    ((LOGITS, LABELS[:, 1:]), {}, ValueError, r"\(2, 3\), but have \(2, 2\): were special tokens"),
    ((LOGITS, LABELS.view(-1)), {}, ValueError, r"but have \(6,\): flatten both, or neither"),
    ((LOGITS, torch.cat([LABELS, LABELS])), {}, ValueError, r"but have \(4, 3\): flatten both"),
    ((LOGITS[:, None], LABELS[:, None, 1:]), {}, ValueError, r"have \(2, 1, 2\): were special"),
    ((LOGITS.mT, LABELS), {}, ValueError, r"\(2, 5\), but have \(2, 3\): .*transpose\(1, -1\)"),
    ((LOGITS, label(-1)), {}, ValueError, "but -1 is among them: .* transformers 2.3.0; use -100"),
    ((LOGITS, label(-99)), {}, ValueError, "but -99 is among them: .* not scored .* -100"),
    ((LOGITS, label(5)), {}, ValueError, "between 0 and 4, .* but 5 is among them: ids start at 0"),
    ((LOGITS, label(6)), {}, ValueError, "but 6 is among them: .*resize_token_embeddings"),
    (
        (LOGITS, label(-100)),
        {"ignore_index": -1},
        ValueError,
        r"or ignore_index \(-1\), but -100 is among them: -100 is ignored only while",
    ),
    ((LOGITS, LABELS), {"ignore_index": None}, TypeError, "ignore_index must be an int, .*None"),
]


@pytest.mark.parametrize("function", [masked_lm_loss, loss_breakdown])
@pytest.mark.parametrize(("arguments", "options", "error", "message"), ERRORS)
def test_errors_name_the_cause(function, arguments, options, error, message):
    with pytest.raises(error, match=message):
        function(*arguments, **options)


def test_an_unknown_reduction_is_an_error():
    with pytest.raises(ValueError, match="'none', 'sum' or 'mean', but is 'batchmean'"):
        masked_lm_loss(LOGITS, LABELS, reduction="batchmean")


@pytest.mark.parametrize(
    ("unigram", "error", "message"),
    [
        ([1] * 5, TypeError, "unigram must be a torch.Tensor, .* torch.bincount"),
        (torch.ones(4), ValueError, r"unigram .* \(5,\), but has \(4,\): .*minlength"),
        (torch.ones(5).to_sparse(), ValueError, "^unigram must be a dense tensor"),
        (torch.zeros(5), ValueError, "not all 0, but holds values from 0.0 to 0.0"),
        (-torch.arange(5.0), ValueError, r"from -4.0 to -?0.0: log-probabilities .*\.exp\(\)"),
        (torch.full((5,), math.inf), ValueError, "unigram must hold finite"),
    ],
)
def test_errors_of_unigram_name_the_cause(unigram, error, message):
    with pytest.raises(error, match=message):
        loss_breakdown(LOGITS, LABELS, unigram=unigram)
