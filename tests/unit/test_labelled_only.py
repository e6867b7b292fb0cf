"""labelled_only_loss: the dense loss and its gradients, for every head that allows it."""

import copy
import gc
import weakref

import pytest
import torch
import transformers
from toys import HEADS, release_5, small_model

from mlmtutor import labelled_only, labelled_only_loss, mask_tokens

V = 60
VARIANTS = [(name, {}) for name in HEADS] + [
    ("DebertaV2", {"legacy": False}),
    ("Bert", {"tie_word_embeddings": False}),
    ("ModernBert", {"sparse_prediction": True}),
]


def batch(rows=4, length=11, share=0.3):
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(5, V, (rows, length), generator=generator)
    scored = torch.rand(rows, length, generator=generator) < share
    mask = torch.ones_like(ids)
    mask[1, 7:] = 0
    return ids, torch.where(scored, ids, -100), mask


def gradients(model, loss):
    model.zero_grad()
    loss.backward()
    return {
        name: torch.zeros_like(p) if p.grad is None else p.grad.clone()
        for name, p in model.named_parameters()
    }


def compare(model, ids, labels, **inputs):
    torch.manual_seed(1)
    dense_loss = model(input_ids=ids, labels=labels, **inputs).loss
    dense = gradients(model, dense_loss)
    torch.manual_seed(1)
    sparse_loss = labelled_only_loss(model, ids, labels, **inputs)
    sparse = gradients(model, sparse_loss)
    assert sparse_loss.dtype == dense_loss.dtype
    torch.testing.assert_close(sparse_loss, dense_loss, rtol=1e-5, atol=1e-6, equal_nan=True)
    for name in dense:
        torch.testing.assert_close(sparse[name], dense[name], rtol=1e-4, atol=1e-6, msg=name)
    return dense


@pytest.mark.parametrize(("name", "changes"), VARIANTS)
@pytest.mark.parametrize("training", [False, True])
def test_labelled_only_loss_is_the_dense_loss_with_its_gradients(name, changes, training):
    if changes.get("legacy") is False and int(transformers.__version__.split(".")[0]) < 5:
        pytest.skip("transformers 4 ties the new head of DeBERTa-v2 to a matrix that doesn't fit")
    model = small_model(name, **changes).train(training)
    ids, labels, mask = batch()
    dense = compare(model, ids, labels, attention_mask=mask)
    assert any(g.abs().max() > 1e-3 for g in dense.values())
    ids, labels, mask = batch(share=2.0)  # every position labelled
    compare(model, ids, labels, attention_mask=mask)


def test_labelled_only_loss_of_nothing_is_nan_with_a_gradient_of_zero():
    ids, labels, mask = batch(share=0.0)
    model = small_model("Bert")
    dense = compare(model, ids, labels, attention_mask=mask)
    assert labelled_only_loss(model, ids, labels, attention_mask=mask).isnan()
    assert all((g == 0).all() for g in dense.values())


def test_labelled_only_loss_shows_the_head_labelled_positions_alone():
    model = small_model("Bert")
    seen = []
    model.cls.register_forward_hook(lambda module, given, made: seen.append(made.shape[:-1]))
    ids, labels, _ = batch()
    labelled_only_loss(model, ids, labels)
    assert seen[-1] == (1, (labels != -100).sum())
    assert not model.bert._forward_hooks


@release_5  # release 4 refuses a mask of four dimensions
def test_labelled_only_loss_passes_the_other_inputs_on():
    model = small_model("Bert", max_position_embeddings=20)
    ids, labels, mask = batch()
    types = (torch.arange(11) > 5).long()
    compare(model, ids, labels, attention_mask=mask, token_type_ids=types.expand(4, 11))
    compare(model, ids, labels, position_ids=torch.arange(11).flip(0).unsqueeze(0))
    compare(model, ids, labels, attention_mask=mask[:, None, None].bool())
    assert not torch.isclose(
        labelled_only_loss(model, ids, labels, token_type_ids=types.expand(4, 11)),
        labelled_only_loss(model, ids, labels),
    )


@pytest.mark.parametrize("name", ["Bert", "ModernBert"])
def test_labelled_only_loss_in_half_precision_and_under_autocast(name):
    ids, labels, _ = batch()
    model = small_model(name).bfloat16()
    dense = model(ids, labels=labels).loss
    sparse = labelled_only_loss(model, ids, labels)
    assert sparse.dtype == dense.dtype
    torch.testing.assert_close(sparse, dense, rtol=1e-2, atol=0)
    with torch.autocast("cpu", torch.bfloat16):
        model = small_model(name)
        dense = model(ids, labels=labels).loss
        torch.testing.assert_close(labelled_only_loss(model, ids, labels), dense)


def test_labelled_only_loss_on_the_embedded_model(tutor):
    model, tokenizer = tutor
    sentences = ["She opened the door and walked into the room.", "He drank a cup of tea."]
    encoded = tokenizer(sentences, padding=True, return_tensors="pt")
    ids, labels = mask_tokens(
        encoded["input_ids"], tokenizer, generator=torch.Generator().manual_seed(3)
    )
    assert 0 < (labels != -100).sum() < labels.numel() / 2
    with torch.inference_mode():
        dense = model(ids, attention_mask=encoded["attention_mask"], labels=labels).loss
        sparse = labelled_only_loss(model, ids, labels, attention_mask=encoded["attention_mask"])
    assert torch.isclose(sparse, dense, rtol=1e-5)


def test_labelled_only_loss_with_a_compiled_body():
    ids, labels, _ = batch()
    model = small_model("Bert")
    model.base_model.compile(backend="eager", fullgraph=True)
    compare(model, ids, labels)
    with pytest.raises(TypeError, match=r"is a OptimizedModule: it wraps one"):
        labelled_only_loss(torch.compile(small_model("Bert"), backend="eager"), ids, labels)


# --- The trial -------------------------------------------------------------------------------


def test_labelled_only_loss_tries_a_model_once_in_each_mode(monkeypatch):
    tried = []
    trial = labelled_only._try_once
    monkeypatch.setattr(
        labelled_only, "_try_once", lambda m, *given: tried.append(m.training) or trial(m, *given)
    )
    model = small_model("Bert")
    ids, labels, _ = batch()
    for training in (False, False, True, True, False):
        labelled_only_loss(model.train(training), ids, labels)
    assert tried == [False, True]
    tried_model = weakref.ref(model)
    assert model in labelled_only._TRIED
    del model
    gc.collect()
    assert tried_model() is None  # the record of trials keeps no model alive


def test_labelled_only_loss_draws_as_the_model_does_and_leaves_no_gradient():
    model = small_model("Bert").train()
    torch.manual_seed(5)
    expected = model(input_ids=batch()[0], labels=batch()[1]).loss
    drawn = torch.rand(1)
    torch.manual_seed(5)
    loss = labelled_only_loss(model, *batch()[:2])
    assert torch.isclose(loss, expected)
    assert torch.equal(torch.rand(1), drawn)
    assert all(weight.grad is None for weight in model.parameters())


class MixesPositions(transformers.BertForMaskedLM):
    """A head of its own: each position sees the one before it."""

    def forward(self, input_ids, labels=None, **inputs):
        hidden = self.bert(input_ids, **inputs)[0]
        logits = self.cls(hidden + hidden.roll(1, dims=1))
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())
        return transformers.modeling_outputs.MaskedLMOutput(loss=loss, logits=logits)


class DividesByAll(transformers.BertForMaskedLM):
    """The value is right, the gradient isn't."""

    def forward(self, input_ids, labels=None, **inputs):
        output = super().forward(input_ids, labels=labels, **inputs)
        penalty = output.logits.square().mean()
        return output.__class__(loss=output.loss + penalty - penalty.detach())


class Shaped(transformers.BertForMaskedLM):
    """It needs the shape of the input behind the body."""

    def forward(self, input_ids, labels=None, **inputs):
        logits = self.cls(self.bert(input_ids, **inputs)[0]).view(*input_ids.shape, -1)
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())
        return transformers.modeling_outputs.MaskedLMOutput(loss=loss)


def refused(model, message, **inputs):
    ids, labels, _ = batch()
    with pytest.raises(TypeError, match=message):
        labelled_only_loss(model, ids, labels, **inputs)
    assert not any(module._forward_hooks for module in getattr(model, "modules", list)())


def test_labelled_only_loss_refuses_what_fails_the_trial():
    config = small_model("Bert").config
    refused(MixesPositions(config), "MixesPositions: .* the loss of two rows is off by [0-9.]+%")
    refused(DividesByAll(config), "DividesByAll: .* the gradient of two rows is off by")
    refused(Shaped(config), "can't run Shaped with the labelled positions alone .*ValueError")
    refused(
        transformers.BertForPreTraining(config),
        "with every position .* BertForPreTraining returns no loss",
    )
    refused(transformers.BertModel(config), "can't run BertModel with every position")

    class Mine(transformers.BertForMaskedLM):
        """Nothing is changed, so it is taken."""

    compare(Mine(config), *batch()[:2])


def test_labelled_only_loss_refuses_wrappers_and_a_loss_function_that_was_set():
    model = small_model("ModernBert")
    refused("bert-base-uncased", "transformers, but is a str: load one")
    refused(torch.nn.DataParallel(model), "it wraps one, .* that holds the ModernBertForMaskedLM")
    model = copy.deepcopy(model)
    model.loss_function = lambda logits, labels, **kwargs: logits.square().mean()
    refused(model, "was given a loss_function of its own")


@pytest.mark.parametrize("name", ["masked_lm_labels", "label"])
def test_labelled_only_loss_swallows_no_keyword(name):
    refused(small_model("Bert"), f"doesn't take '{name}'.* It takes .*attention_mask", **{name: 1})


IDS, LABELS, _ = batch()


@pytest.mark.parametrize(
    ("ids", "labels", "error", "message"),
    [
        (IDS, LABELS[:, 1:], ValueError, "labels must have the shape of input_ids"),
        (IDS[0], LABELS[0], ValueError, r"\(batch, length\), .* but have \(11,\)"),
        (IDS[:0], LABELS[:0], ValueError, r"with ids in it, but have \(0, 11\)"),
        (IDS, LABELS.float(), ValueError, r"^labels must have dtype torch\.int64"),
        (IDS.int(), LABELS, ValueError, r"^input_ids must have dtype torch\.int64"),
        (IDS, LABELS.tolist(), TypeError, r"labels must be a torch\.Tensor"),
        (
            LABELS,
            IDS,
            ValueError,
            "^input_ids must be between .* but -100 is .* Are the two exchanged",
        ),
        (IDS, LABELS.where(LABELS != -100, -1), ValueError, "but -1 is among them"),
        (IDS, LABELS.where(LABELS == -100, V), ValueError, f"labels .* but {V} is among them"),
        (IDS + V, LABELS, ValueError, f"input_ids must be between 0 and {V - 1}, .* tokenizer"),
        (IDS.repeat(1, 2), LABELS.repeat(1, 2), ValueError, "at most 20 positions .* have 22: tr"),
    ],
)
def test_labelled_only_loss_names_the_cause_before_it_computes(ids, labels, error, message):
    model = small_model("Bert", max_position_embeddings=20)
    model.bert.register_forward_hook(lambda *given: pytest.fail("something was computed"))
    with pytest.raises(error, match=message):
        labelled_only_loss(model, ids, labels)
