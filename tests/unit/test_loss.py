"""masked_lm_loss and trainer_loss against torch, against models, and against a real Trainer.

Tolerances are multiples of the machine epsilon of the dtype: losses are sums of positive terms,
so a relative bound is meaningful. 4 eps covers the two orders in which the terms are added.
"""

import math
import types

import pytest
import torch
import torch.nn.functional as F
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from toys import HEADS, small_model, wordpiece
from transformers import Trainer, TrainerCallback, TrainingArguments

from mlmtutor import masked_lm_loss, trainer_loss

REDUCTIONS = ["none", "sum", "mean"]
DTYPES = [torch.float32, torch.bfloat16, torch.float64]
V = 60


def assert_equal_to(ours, torchs, dtype=torch.float32):
    assert ours.dtype == torchs.dtype == dtype
    eps = torch.finfo(dtype).eps
    torch.testing.assert_close(ours, torchs, rtol=4 * eps, atol=0.0, equal_nan=True)


def torch_loss(logits, labels, ignore_index=-100, reduction="mean"):
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


# --- masked_lm_loss --------------------------------------------------------------------------


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
def test_masked_lm_loss_equals_cross_entropy(
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
def test_masked_lm_loss_has_the_gradient_of_cross_entropy(dtype, reduction, labelled):
    logits, labels = random_batch((8, 32), 50, seed=1, labelled=labelled)
    gradients = []
    for function in (masked_lm_loss, torch_loss):
        leaf = logits.to(dtype).requires_grad_()
        loss = function(leaf, labels, reduction=reduction)
        gradients += torch.autograd.grad(loss.sum(), leaf)
    eps = torch.finfo(dtype).eps
    torch.testing.assert_close(gradients[0], gradients[1], rtol=4 * eps, atol=eps * eps)
    assert not gradients[0][labels == -100].any(), "an ignored position has a gradient"
    assert bool(gradients[0].any()) == (labelled > 0)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_masked_lm_loss_of_infinite_logits(reduction):
    inf = math.inf
    logits = torch.tensor([[0.0, -inf, 1.0], [-inf, 2.0, 0.0], [inf, 0.0, 0.0]])
    labels = torch.tensor([1, 1, -100])
    ours = masked_lm_loss(logits, labels, reduction=reduction)
    assert_equal_to(ours, torch_loss(logits, labels, reduction=reduction))


@pytest.mark.parametrize("name", HEADS)
def test_masked_lm_loss_is_that_of_the_model(name):
    model = small_model(name)
    generator = torch.Generator().manual_seed(5)
    ids = torch.randint(5, V, (3, 12), generator=generator)
    labels = ids.masked_fill(torch.rand(3, 12, generator=generator) > 0.3, -100)
    with torch.no_grad():
        output = model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=labels)
    assert_equal_to(masked_lm_loss(output.logits, labels), output.loss)
    assert 0 < (labels != -100).sum() < labels.numel()


LOGITS = torch.zeros(2, 3, 5)
LABELS = torch.zeros(2, 3, dtype=torch.int64)


def label(value):
    labels = LABELS.clone()
    labels[1, 2] = value
    return labels


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((object(), LABELS), {}, TypeError, "logits must be a torch.Tensor, .* pass output.logits"),
        ((LABELS, LABELS), {}, ValueError, "logits must be floating point, .* exchanged"),
        ((torch.tensor(0.0), LABELS), {}, ValueError, r"\(..., V\).*, but have \(\)"),
        ((LOGITS[..., :0], LABELS), {}, ValueError, r"V > 0 tokens, but have \(2, 3, 0\)"),
        ((LOGITS, [[0] * 3] * 2), {}, TypeError, "labels must be a torch.Tensor, but is a list"),
        ((LOGITS, LABELS.int()), {}, ValueError, "labels must have dtype torch.int64, .*int32"),
        ((LOGITS, LABELS[:, 1:]), {}, ValueError, r"\(2, 3\), but have \(2, 2\): were special"),
        ((LOGITS, LABELS.view(-1)), {}, ValueError, r"but have \(6,\): flatten both, or neither"),
        ((LOGITS.mT, LABELS), {}, ValueError, r"\(2, 5\), .* \(2, 3\): .*transpose\(1, -1\)"),
        ((LOGITS, label(-1)), {}, ValueError, "but -1 is among them: .* 2.3.0; use -100"),
        ((LOGITS, label(-99)), {}, ValueError, "but -99 is among them: .* not scored .* -100"),
        ((LOGITS, label(5)), {}, ValueError, "between 0 and 4, .* but 5 is among .* start at 0"),
        ((LOGITS, label(6)), {}, ValueError, "but 6 is among them: .*resize_token_embeddings"),
        ((LOGITS, label(-100)), {"ignore_index": -1}, ValueError, "or -1 .*-100 is ignored only"),
        ((LOGITS, LABELS), {"reduction": "batchmean"}, ValueError, "'mean', but is 'batchmean'"),
    ],
)
def test_masked_lm_loss_names_the_cause_of_an_error(arguments, options, error, message):
    with pytest.raises(error, match=message):
        masked_lm_loss(*arguments, **options)


# --- trainer_loss ----------------------------------------------------------------------------


def test_trainer_loss_takes_whatever_holds_the_logits():
    logits, labels = random_batch((2, 5), V, seed=1)
    kinds = [{"logits": logits}, (logits, None), types.SimpleNamespace(logits=logits)]
    for outputs in kinds:
        assert_equal_to(trainer_loss(outputs, labels), masked_lm_loss(logits, labels))
    for number in (50, torch.tensor(50), torch.tensor([50.0])):
        assert_equal_to(
            trainer_loss(kinds[0], labels, number),
            masked_lm_loss(logits, labels, reduction="sum") / 50,
        )


def test_trainer_loss_without_a_label_is_0_in_training_and_nan_in_evaluation():
    logits = torch.randn(1, 3, V, requires_grad=True)
    nothing = torch.full((1, 3), -100)
    for number in (None, 0, torch.tensor(0)):
        loss = trainer_loss({"logits": logits}, nothing, number)
        [gradient] = torch.autograd.grad(loss, logits)
        assert loss == 0
        assert (gradient == 0).all()
        assert trainer_loss({"logits": logits.detach()}, nothing, number).isnan()
    # Another part of the batch has labels: this one adds nothing, in evaluation too.
    assert trainer_loss({"logits": logits.detach()}, nothing, 5) == 0


@pytest.mark.parametrize(
    ("outputs", "labels", "number", "error", "message"),
    [
        ({"logits": LOGITS}, None, 4, TypeError, "but are None: .* need the key 'labels'"),
        ({"loss": LOGITS}, LABELS, None, TypeError, "this dict has none"),
        ((), LABELS, None, TypeError, "this tuple has none"),
        ({"logits": LOGITS}, LABELS, 5, ValueError, "is 5 where this part alone has 6"),
        ({"logits": LOGITS}, LABELS, math.nan, ValueError, "but is nan"),
        ({"logits": LOGITS}, LABELS, torch.tensor([[9], [9]]), ValueError, "several GPUs"),
        ({"logits": LOGITS}, LABELS[:, 1:], 4, ValueError, "labels must have the shape"),
    ],
)
def test_trainer_loss_names_the_cause_of_an_error(outputs, labels, number, error, message):
    with pytest.raises(error, match=message):
        trainer_loss(outputs, labels, number)


NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


class Keep(TrainerCallback):
    def on_pre_optimizer_step(self, args, state, control, model, **kwargs):
        self.gradient = torch.cat([p.grad.flatten() for p in model.parameters()])


def make_trainer(folder, model, rows, size, steps=1, smoothing=0.0, **options):
    arguments = TrainingArguments(
        folder, per_device_train_batch_size=size, per_device_eval_batch_size=size,
        gradient_accumulation_steps=steps, learning_rate=0.0, max_grad_norm=1e9, max_steps=1,
        logging_steps=1, report_to="none", disable_tqdm=True, use_cpu=True, save_strategy="no",
        label_smoothing_factor=smoothing,
    )  # fmt: skip
    trainer = Trainer(model, arguments, train_dataset=rows, eval_dataset=rows, **options)
    trainer.remove_callback(transformers.PrinterCallback)
    return trainer


def labelled_rows(counts, length=11):
    """Rows of one length; row i has counts[i] labels."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(5, V, (len(counts), length), generator=generator)
    labels = ids.masked_fill(torch.arange(length) >= torch.tensor(counts).unsqueeze(1), -100)
    return ids, labels, [{"input_ids": i, "labels": y} for i, y in zip(ids, labels, strict=True)]


@pytest.mark.parametrize(("size", "steps"), [(8, 1), (4, 2), (2, 4), (1, 8)])
@pytest.mark.parametrize("name", ["Bert", "ModernBert"])
def test_trainer_loss_gives_the_gradient_of_the_one_batch(tmp_path, name, size, steps):
    model = small_model(name, **(NO_DROPOUT if name == "Bert" else {}))
    ids, labels, rows = labelled_rows([3, 1, 8, 0, 2, 5, 0, 1])
    dense = model(ids, labels=labels).loss
    dense.backward()
    expected = torch.cat([p.grad.flatten() for p in model.parameters()])
    model.zero_grad()
    keep = Keep()
    trainer = make_trainer(
        tmp_path, model, rows, size, steps, compute_loss_func=trainer_loss, callbacks=[keep]
    )
    trainer.train()
    logged = trainer.state.log_history[0]["loss"]
    assert logged == pytest.approx(dense.item(), rel=1e-4)  # Trainer rounds what it logs
    assert (keep.gradient - expected).abs().max() < 1e-5


@pytest.mark.parametrize("size", [1, 2, 5, 10])
def test_trainer_loss_docstring_has_the_mean_over_all_labels_at_any_batch_size(tmp_path, size):
    model = small_model("Bert")
    _, _, rows = labelled_rows([0, 1, 4, 0, 11, 3, 0, 7, 2, 1])
    for at, row in enumerate(rows):  # batches of several lengths, which Trainer pads
        row["input_ids"], row["labels"] = (row[key][: 11 - at % 3] for key in row)
    collate = transformers.DataCollatorForTokenClassification(wordpiece())
    with torch.no_grad():
        expected = model(**collate(rows)).loss.item()
    trainer = make_trainer(
        tmp_path, model, rows, size, data_collator=collate, compute_loss_func=trainer_loss,
        preprocess_logits_for_metrics=lambda logits, labels: masked_lm_loss(
            logits, labels, reduction="none"
        ),
        compute_metrics=lambda seen: {
            "loss": seen.predictions[seen.label_ids != -100].mean().item()
        },
    )  # fmt: skip
    assert trainer.evaluate()["eval_loss"] == pytest.approx(expected, rel=1e-5)


def test_trainer_loss_honours_label_smoothing_in_training_and_evaluation(tmp_path):
    model = small_model("Bert", initializer_range=0.5, **NO_DROPOUT)
    ids, labels, rows = labelled_rows([3, 1, 8, 2])
    logits = model(ids).logits.flatten(0, 1)
    plain, smooth = (
        F.cross_entropy(logits, labels.flatten(), label_smoothing=rate).item() for rate in (0, 0.3)
    )
    assert abs(plain - smooth) > 0.001
    for size, steps in ((1, 4), (4, 1)):
        trainer = make_trainer(
            tmp_path, model, rows, size, steps, smoothing=0.3,
            compute_loss_func=lambda *given, **named: trainer_loss(*given, **named),
        )  # fmt: skip
        trainer.train()
        assert trainer.state.log_history[0]["loss"] == pytest.approx(smooth, rel=1e-4)
    assert trainer.evaluate()["eval_loss"] == pytest.approx(smooth, rel=1e-5)
    assert trainer_loss(model(ids), labels).item() == pytest.approx(plain, rel=1e-5)
