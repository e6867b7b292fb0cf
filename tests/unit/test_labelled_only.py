"""The loss of parts adds up to the loss of the whole, and the sparse loss equals the dense one."""

import copy
import math
import tempfile
import types

import pytest
import torch
import transformers
from toys import HEADS, small_model
from transformers import Trainer, TrainerCallback, TrainingArguments

from mlmtutor import labelled_only_loss, mask_tokens, masked_lm_loss, trainer_loss

V = 60
VARIANTS = [(name, {}) for name in HEADS] + [
    ("DebertaV2", {"legacy": False}),
    ("Bert", {"tie_word_embeddings": False}),
    ("ModernBert", {"sparse_prediction": True}),
]


def batch(rows=4, length=11, share=0.3, seed=0):
    generator = torch.Generator().manual_seed(seed)
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


def needs_a_working_head(changes):
    if changes.get("legacy") is False and int(transformers.__version__.split(".")[0]) < 5:
        pytest.skip("transformers 4 ties the new head of DeBERTa-v2 to a matrix that does not fit")


def compare(model, ids, labels, **inputs):
    torch.manual_seed(1)
    dense_loss = model(input_ids=ids, labels=labels, **inputs).loss
    dense = gradients(model, dense_loss)
    torch.manual_seed(1)
    sparse_loss = labelled_only_loss(model, ids, labels, **inputs)
    sparse = gradients(model, sparse_loss)
    torch.testing.assert_close(sparse_loss, dense_loss, rtol=1e-5, atol=1e-6, equal_nan=True)
    assert set(dense) == set(sparse)
    for name in dense:
        torch.testing.assert_close(sparse[name], dense[name], rtol=1e-4, atol=1e-6, msg=name)
    return dense


@pytest.mark.parametrize(("name", "changes"), VARIANTS)
@pytest.mark.parametrize("training", [False, True])
def test_loss_and_gradients_are_those_of_the_dense_computation(name, changes, training):
    needs_a_working_head(changes)
    model = small_model(name, **changes).train(training)
    ids, labels, mask = batch()
    dense = compare(model, ids, labels, attention_mask=mask)
    assert any(g.abs().max() > 1e-3 for g in dense.values())


@pytest.mark.parametrize(("name", "changes"), VARIANTS)
def test_every_position_labelled(name, changes):
    needs_a_working_head(changes)
    ids, labels, mask = batch(share=2.0)
    assert (labels != -100).all()
    compare(small_model(name, **changes), ids, labels, attention_mask=mask)


@pytest.mark.parametrize("name", [name for name in HEADS if name != "ModernBert"])
def test_no_label_is_nan_with_a_zero_gradient(name):
    ids, labels, mask = batch(share=0.0)
    model = small_model(name)
    dense = compare(model, ids, labels, attention_mask=mask)
    loss = labelled_only_loss(model, ids, labels, attention_mask=mask)
    assert loss.isnan()
    assert all((g == 0).all() for g in dense.values())


def test_the_head_sees_labelled_positions_alone():
    model = small_model("Bert")
    seen = []
    model.cls.register_forward_hook(lambda module, given, made: seen.append(made.shape))
    ids, labels, _ = batch()
    labelled_only_loss(model, ids, labels)
    assert seen == [((labels != -100).sum(), V)]


def test_other_inputs_reach_the_body():
    model = small_model("Bert")
    ids, labels, mask = batch()
    types = (torch.arange(11) > 5).long().expand(4, 11)
    compare(model, ids, labels, attention_mask=mask, token_type_ids=types)
    with_types = labelled_only_loss(model, ids, labels, token_type_ids=types)
    assert not torch.isclose(with_types, labelled_only_loss(model, ids, labels))


def test_half_precision():
    model = small_model("Bert").bfloat16()
    ids, labels, _ = batch()
    dense = model(ids, labels=labels).loss
    assert torch.allclose(labelled_only_loss(model, ids, labels), dense, rtol=1e-2)
    with torch.autocast("cpu", torch.bfloat16):
        assert labelled_only_loss(small_model("Bert"), ids, labels).isfinite()


def test_a_subclass_that_keeps_forward_is_known():
    class Mine(transformers.BertForMaskedLM):
        pass

    model = Mine(small_model("Bert").config)
    ids, labels, _ = batch()
    compare(model, ids, labels)


def refused(model, message, **inputs):
    ids, labels, _ = batch()
    with pytest.raises(TypeError, match=message):
        labelled_only_loss(model, ids, labels, **inputs)


def test_an_unknown_head_is_not_guessed():
    config = small_model("Bert").config
    refused(transformers.BertLMHeadModel(config), "must be one of AlbertForMaskedLM.*BertLMHead")
    refused(transformers.BertForPreTraining(config), "its head is.*not known")
    refused(transformers.BertModel(config), "but is a BertModel")
    refused("bert-base-uncased", "must be a torch.nn.Module, but is a str")


def test_a_wrapped_or_changed_model_is_refused():
    model = small_model("Bert")
    refused(torch.nn.DataParallel(model), "wraps a model.*BertForMaskedLM inside it")
    refused(torch.nn.Sequential(model), "wraps a model")
    refused(torch.compile(model, backend="eager"), "wraps a model")

    class Changed(transformers.BertForMaskedLM):
        def forward(self, *arguments, **options):
            return super().forward(*arguments, **options)

    refused(Changed(model.config), "a forward of its own")
    patched = copy.deepcopy(model)
    patched.forward = patched.forward
    refused(patched, "a forward of its own")
    model.register_forward_pre_hook(lambda module, given: None)
    refused(model, "forward hooks")


NO_INPUTS = ["inputs_embeds", "kwargs", "output_attentions", "output_hidden_states", "return_dict"]


@pytest.mark.parametrize("name", ["masked_lm_labels", "label", *NO_INPUTS])
def test_an_unknown_keyword_is_not_swallowed(name):
    refused(small_model("Bert"), f"'{name}' is none that makes a loss", **{name: None})


def test_what_is_taken_is_listed():
    with pytest.raises(TypeError) as caught:
        labelled_only_loss(small_model("Bert"), *batch()[:2], label=None)
    taken = str(caught.value).partition("it takes ")[2].rstrip(".").split(", ")
    assert {"attention_mask", "position_ids", "token_type_ids"} <= set(taken)
    assert not {"self", "input_ids", "labels", *NO_INPUTS} & set(taken)


def test_a_wrong_batch_is_refused_before_anything_is_computed():
    model = small_model("Bert")
    model.bert.register_forward_hook(lambda *given: pytest.fail("something was computed"))
    ids, labels, _ = batch()
    with pytest.raises(ValueError, match="labels must have the shape of input_ids"):
        labelled_only_loss(model, ids, labels[:, 1:])
    with pytest.raises(ValueError, match=r"\(batch, length\), but have \(11,\)"):
        labelled_only_loss(model, ids[0], labels[0])
    for name, arguments in {
        "labels": (ids, labels.float()),
        "input_ids": (ids.int(), labels),
    }.items():
        with pytest.raises(ValueError, match=rf"^{name} must have dtype torch\.int64"):
            labelled_only_loss(model, *arguments)
    with pytest.raises(TypeError, match=r"labels must be a torch\.Tensor"):
        labelled_only_loss(model, ids, labels.tolist())
    with pytest.raises(ValueError, match=r"^input_ids must hold .* Are the two exchanged"):
        labelled_only_loss(model, labels, ids)
    for value in (-1, V):
        with pytest.raises(ValueError, match=f"but {value} is among them"):
            labelled_only_loss(model, ids, labels.masked_fill(labels == -100, value))
    one = torch.full_like(labels, -100)
    one[2, 3] = V
    with pytest.raises(ValueError, match=f"but {V} is among them"):
        labelled_only_loss(model, ids, one)


def test_as_many_positions_as_the_model_has():
    # BERT has 20; of the 20 rows of RoBERTa two are for padding and what is before it.
    for name, padding, limit in (("Bert", 0, 20), ("Roberta", 1, 18)):
        model = small_model(name, max_position_embeddings=20, pad_token_id=padding)
        ids = torch.randint(5, V, (2, limit + 1), generator=torch.Generator().manual_seed(0))
        assert labelled_only_loss(model, ids[:, 1:], ids[:, 1:]).isfinite()
        with pytest.raises(ValueError, match=f"at most {limit} positions .* have {limit + 1}: "):
            labelled_only_loss(model, ids, ids)


MASKS = torch.ones(4, 11, dtype=torch.int64)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("token_type_ids", MASKS),
        ("token_type_ids", MASKS[:1]),
        ("position_ids", MASKS),
        ("position_ids", MASKS[:1]),
    ],
)
def test_other_tensors_may_stand_for_all_rows(name, value):
    ids, labels, _ = batch()
    compare(small_model("Bert"), ids, labels, **{name: value})


def test_a_mask_of_four_dimensions_and_of_floats_is_one():
    ids, labels, mask = batch()
    model = small_model("Bert")
    plain = labelled_only_loss(model, ids, labels, attention_mask=mask)
    masks = [mask.float(), mask.bool()]
    if int(transformers.__version__.split(".")[0]) >= 5:  # release 4 refuses four dimensions
        masks.append(mask[:, None, None].bool())
    for given in masks:
        other = labelled_only_loss(model, ids, labels, attention_mask=given)
        torch.testing.assert_close(other, plain)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("attention_mask", [[1]], "must be a torch.Tensor, but is a list"),
        ("attention_mask", MASKS.to_sparse(), "must be a dense tensor"),
        ("attention_mask", torch.tensor(1), r".* of input_ids, \(4, 11\), but has \(\): was"),
        ("attention_mask", MASKS[:, 1:], r"must have the shape .* but has \(4, 10\)"),
        ("attention_mask", MASKS[:3], r"must have the shape .* but has \(3, 11\)"),
        ("attention_mask", MASKS[:2], r"must have the shape .* but has \(2, 11\)"),
        ("attention_mask", MASKS[0, 1:], r"must have the shape .* but has \(10,\)"),
        ("token_type_ids", MASKS.float(), "must have dtype torch.int64, but has torch.float32"),
        ("token_type_ids", MASKS * 2, "must be between 0 and 1, but reach from 2 to 2"),
        ("token_type_ids", -MASKS, "must be between 0 and 1, but reach from -1 to -1"),
        ("position_ids", MASKS * 512, "must be between 0 and 511, but reach from 512 to 512"),
        ("position_ids", -MASKS, "must be between 0 and 511, but reach from -1 to -1"),
    ],
)
def test_other_tensors_that_cannot_be_are_named(name, value, message):
    ids, labels, _ = batch()
    with pytest.raises((TypeError, ValueError), match=f"^{name} {message}"):
        labelled_only_loss(small_model("Bert"), ids, labels, **{name: value})


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_the_last_type_and_the_last_position_are_allowed(dtype):
    ids, labels, _ = batch()
    for given in ({"token_type_ids": MASKS}, {"position_ids": MASKS * 511}):
        given = {name: value.to(dtype) for name, value in given.items()}
        compare(small_model("Bert"), ids, labels, **given)


def test_no_id_one_id_and_the_first_id_behind_the_last():
    model, one = small_model("Bert"), torch.tensor([[7]])
    assert torch.isclose(labelled_only_loss(model, one, one), model(one, labels=one).loss)
    for empty in (one[:0], one[:, :0]):
        with pytest.raises(ValueError, match="input_ids must hold an id, but have the shape"):
            labelled_only_loss(model, empty, empty)
    with pytest.raises(ValueError, match=f"between 0 and {V - 1}, .* but {V} is among them"):
        labelled_only_loss(model, torch.tensor([[7, V]]), torch.tensor([[7, -100]]))


@pytest.mark.parametrize("label", [0, V - 1])
def test_the_first_and_the_last_id_are_labels(label):
    ids, labels, _ = batch()
    compare(small_model("Bert"), ids, labels.masked_fill(labels != -100, label))


@pytest.mark.parametrize("name", HEADS)
def test_half_precision_is_that_of_the_dense_computation(name):
    model = small_model(name).to(torch.bfloat16).eval()
    ids, labels, mask = batch()
    dense = model(input_ids=ids, labels=labels, attention_mask=mask).loss
    sparse = labelled_only_loss(model, ids, labels, attention_mask=mask)
    assert sparse.dtype == dense.dtype
    torch.testing.assert_close(sparse, dense, rtol=1e-2, atol=0)


# labelled_only_loss in chunks: BERT, as many labels as hidden units, torch 2.13 or later

needs_chunks = pytest.mark.skipif(
    not hasattr(torch.nn.functional, "linear_cross_entropy"),
    reason="this release of torch takes the last layer and the loss one after the other",
)


@pytest.fixture
def chunked(monkeypatch):
    """The sizes of the chunks of each loss that is computed in chunks."""
    seen = []
    of_torch = torch.nn.functional.linear_cross_entropy

    def spy(hidden, weight, labels, *, options, **others):
        seen.append([len(part) for part in labels.split(options.batch_chunk_size)])
        return of_torch(hidden, weight, labels, options=options, **others)

    monkeypatch.setattr(torch.nn.functional, "linear_cross_entropy", spy)
    return seen


@needs_chunks
@pytest.mark.parametrize("changes", [{}, {"tie_word_embeddings": False}])
@pytest.mark.parametrize("training", [False, True])
def test_chunks_give_the_loss_and_the_gradients_of_the_dense_computation(
    chunked, changes, training
):
    model = small_model("Bert", **changes).train(training)
    ids, labels, mask = batch(rows=60, share=2.0)
    dense = compare(model, ids, labels, attention_mask=mask)
    assert chunked == [[512, 148]]
    assert any(g.abs().max() > 1e-3 for g in dense.values())


@needs_chunks
@pytest.mark.parametrize("missing", [0, 1])
def test_chunks_from_as_many_labels_as_hidden_units_on(chunked, missing):
    model = small_model("Bert")
    ids, labels, _ = batch(rows=10, share=2.0)
    wanted = model.config.hidden_size - missing
    labels.view(-1)[wanted:] = -100
    compare(model, ids, labels)
    assert chunked == [[wanted]] * (1 - missing)


@needs_chunks
def test_a_loss_from_chunks_can_be_used_twice(chunked):
    model = small_model("Bert")
    ids, labels, _ = batch(rows=10, share=2.0)
    once = gradients(model, labelled_only_loss(model, ids, labels))
    loss = labelled_only_loss(model, ids, labels)
    model.zero_grad()
    loss.backward(retain_graph=True)
    loss.backward()
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(parameter.grad, 2 * once[name], msg=name)
    with torch.no_grad():
        assert torch.isclose(labelled_only_loss(model, ids, labels), loss)
    assert len(chunked) == 3


class _Half(torch.nn.Linear):
    """As an adapter does it: the result is not that of ``weight`` alone."""

    def forward(self, hidden):
        return super().forward(hidden) / 2


def _half_decoder(model):
    decoder = model.cls.predictions.decoder
    decoder.__class__ = _Half


def _half_forward(model):
    decoder = model.cls.predictions.decoder
    decoder.forward = lambda hidden: torch.nn.functional.linear(hidden, decoder.weight) / 2


def _half(module, *inputs_and_outputs):
    return inputs_and_outputs[-1] / 2


def _half_before(module, inputs):
    return (inputs[0] / 2,)


@needs_chunks
@pytest.mark.parametrize(
    "change",
    [
        _half_decoder,
        _half_forward,
        lambda m: m.cls.register_forward_hook(_half),
        lambda m: m.cls.predictions.register_forward_hook(_half),
        lambda m: m.cls.predictions.decoder.register_forward_hook(_half),
        lambda m: m.cls.predictions.decoder.register_forward_pre_hook(_half_before),
        lambda m: m.cls.register_full_backward_hook(lambda module, given, made: (given[0] / 2,)),
        lambda m: m.cls.register_full_backward_pre_hook(lambda module, given: (given[0] / 2,)),
        lambda m: m.double(),
    ],
)
def test_a_head_with_a_change_is_called_as_it_is(chunked, change):
    model = small_model("Bert")
    ids, labels, _ = batch(rows=10, share=2.0)
    untouched = gradients(model, labelled_only_loss(model, ids, labels))
    assert len(chunked) == 1
    change(model)
    dense = compare(model, ids, labels)
    assert len(chunked) == 1
    assert any(not torch.equal(untouched[name], dense[name]) for name in dense)


@needs_chunks
def test_autocast_is_not_computed_in_chunks(chunked):
    model = small_model("Bert")
    ids, labels, _ = batch(rows=10, share=2.0)
    with torch.autocast("cpu", torch.bfloat16):
        dense = model(ids, labels=labels).loss
        sparse = labelled_only_loss(model, ids, labels)
    torch.testing.assert_close(sparse, dense, rtol=1e-4, atol=0)
    assert chunked == []


def test_no_chunks_in_an_older_torch(monkeypatch):
    monkeypatch.delattr(torch.nn.functional, "linear_cross_entropy", raising=False)
    ids, labels, _ = batch(rows=10, share=2.0)
    compare(small_model("Bert"), ids, labels)


# trainer_loss


@pytest.mark.parametrize("cut", [1, 2, 3, 4])
def test_the_parts_add_up_to_the_whole(cut):
    ids, labels, _ = batch()
    torch.manual_seed(0)
    logits = torch.randn(*ids.shape, V, requires_grad=True)
    number = (labels != -100).sum()
    parts = zip(logits.split(cut), labels.split(cut), strict=True)
    total = sum(trainer_loss({"logits": one}, lab, number) for one, lab in parts)
    dense = masked_lm_loss(logits, labels)
    torch.testing.assert_close(total, dense)
    [mine] = torch.autograd.grad(total, logits)
    [right] = torch.autograd.grad(dense, logits)
    torch.testing.assert_close(mine, right, rtol=1e-5, atol=1e-8)


def test_what_holds_the_logits():
    ids, labels, _ = batch()
    model = small_model("Bert")
    outputs = model(ids)
    plain = types.SimpleNamespace(logits=outputs.logits)
    for given in (outputs, dict(outputs), outputs.to_tuple(), plain):
        assert torch.allclose(trainer_loss(given, labels), model(ids, labels=labels).loss)
    assert torch.equal(
        trainer_loss(outputs, labels, 50), trainer_loss(outputs, labels, torch.tensor(50.0))
    )


def test_one_label_is_divided_by_one_and_a_tensor_of_one_element_is_a_number():
    logits = torch.randn(1, 3, V, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([[-100, 7, -100]])
    loss = masked_lm_loss(logits, labels)
    for number in (None, 1, torch.tensor(1), torch.tensor([1])):
        assert torch.equal(trainer_loss({"logits": logits}, labels, number), loss)
    for number in (4, torch.tensor(4), torch.tensor([4]), 2**62):
        assert torch.equal(trainer_loss({"logits": logits}, labels, number), loss / int(number))


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (torch.tensor([4]).to_sparse(), "^num_items_in_batch must be a dense tensor"),
        (math.inf, "num_items_in_batch must"),
        (2**63, "num_items_in_batch must be a number that fits into 64 bits"),
        (2**2000, "num_items_in_batch must be a number that fits into 64 bits"),
        (torch.tensor(math.nan), "num_items_in_batch must"),
        (torch.tensor(4 + 1j), "num_items_in_batch must"),
    ],
)
def test_a_number_of_items_that_is_none_is_named(number, message):
    with pytest.raises(ValueError, match=message):
        trainer_loss({"logits": torch.zeros(1, 2, V)}, torch.tensor([[7, -100]]), number)


def test_a_model_that_returned_nothing_has_no_logits():
    for outputs in ((), {}, None):
        with pytest.raises(TypeError, match="outputs must hold logits"):
            trainer_loss(outputs, torch.tensor([[7]]))


def test_no_label_anywhere_is_zero_with_a_zero_gradient():
    logits = torch.randn(1, 3, V, requires_grad=True)
    nothing = torch.full((1, 3), -100)
    for number in (None, 0, torch.tensor(0), 5):
        loss = trainer_loss({"logits": logits}, nothing, number)
        [gradient] = torch.autograd.grad(loss, logits)
        assert loss == 0
        assert (gradient == 0).all()


def test_wrong_input_is_named():
    logits, labels = torch.zeros(1, 3, V), torch.tensor([[1, 2, -100]])
    with pytest.raises(TypeError, match="but are None"):
        trainer_loss({"logits": logits}, None)
    with pytest.raises(TypeError, match="this dict has none"):
        trainer_loss({"loss": logits}, labels)
    with pytest.raises(TypeError, match="this float has none"):
        trainer_loss(0.5, labels)
    with pytest.raises(ValueError, match="is 1 where this part alone has 2"):
        trainer_loss({"logits": logits}, labels, 1)
    with pytest.raises(ValueError, match="several GPUs"):
        trainer_loss({"logits": logits}, labels, torch.tensor([[4], [4]]))
    with pytest.raises(TypeError, match="but is a str"):
        trainer_loss({"logits": logits}, labels, "4")
    with pytest.raises(ValueError, match="labels must have the shape"):
        trainer_loss({"logits": logits}, labels[:, 1:], 4)


class Keep(TrainerCallback):
    def on_pre_optimizer_step(self, args, state, control, model, **kwargs):
        self.gradient = torch.cat([p.grad.flatten() for p in model.parameters()])


def train_one_step(model, rows, size, steps, **options):
    keep = Keep()
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder, per_device_train_batch_size=size, per_device_eval_batch_size=size,
            gradient_accumulation_steps=steps, learning_rate=0.0, max_grad_norm=1e9, max_steps=1,
            logging_steps=1, report_to="none", disable_tqdm=True, use_cpu=True, save_strategy="no",
        )  # fmt: skip
        trainer = Trainer(
            model, arguments, train_dataset=rows, eval_dataset=rows, callbacks=[keep], **options
        )
        trainer.remove_callback(transformers.PrinterCallback)
        trainer.train()
        return trainer.state.log_history[0]["loss"], keep.gradient, trainer


@pytest.mark.parametrize(("size", "steps"), [(8, 1), (4, 2), (2, 4), (1, 8)])
@pytest.mark.parametrize("name", ["Bert", "ModernBert"])
def test_trainer_gives_the_gradient_of_the_one_batch(name, size, steps):
    zero = {"Bert": {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}}
    model = small_model(name, **zero.get(name, {}))
    ids, labels, _ = batch(rows=8)
    rows = [{"input_ids": i, "labels": y} for i, y in zip(ids, labels, strict=True)]
    dense = model(ids, labels=labels).loss
    expected = torch.cat([g.flatten() for g in gradients(model, dense).values()])
    model.zero_grad()
    loss, gradient, trainer = train_one_step(
        model, rows, size, steps, compute_loss_func=trainer_loss
    )
    assert loss == pytest.approx(dense.item(), rel=1e-4)  # Trainer rounds what it logs
    assert (gradient - expected).abs().max() < 1e-5
    # In evaluation each batch has its own mean, and Trainer weighs it by rows: exact for one batch.
    evaluated = trainer.evaluate()["eval_loss"]
    if size == 8:
        assert math.isclose(evaluated, dense.item(), rel_tol=1e-4)


def test_realistic_masks(tutor):
    model, tokenizer = tutor
    sentences = ["She opened the door and walked into the room.", "He drank a cup of tea."]
    encoded = tokenizer(sentences, padding=True, return_tensors="pt")
    ids, labels = mask_tokens(
        encoded["input_ids"], tokenizer, generator=torch.Generator().manual_seed(3)
    )
    assert 0 < (labels != -100).sum() < labels.numel() / 2
    with torch.no_grad():
        dense = model(ids, attention_mask=encoded["attention_mask"], labels=labels).loss
        sparse = labelled_only_loss(model, ids, labels, attention_mask=encoded["attention_mask"])
    assert torch.isclose(sparse, dense, rtol=1e-5)
