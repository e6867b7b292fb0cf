"""A Trainer: what is found in it, what the fixes cure, and that nothing of it is changed."""

import copy
import random

import numpy as np
import pytest
import torch
import transformers
from batches import (
    MASK,
    MODEL,
    TOKENIZER,
    WORDS,
    V,
    bert,
    config,
    healthy,
    make_rows,
    mlm,
    pad,
    run_fix,
    small,
)
from transformers import Trainer, TrainingArguments

from mlmtutor.doctor import TRAINER_RULES, CheckedCollator, diagnose_trainer


class Columns(list):
    """A list of examples that knows its columns, as a dataset does."""

    @property
    def column_names(self):
        return list(self[0])


def trainer_for(tmp_path, model=None, steps=1, train=None, collator=None, evaluation=None, **more):
    arguments = TrainingArguments(
        output_dir=str(tmp_path),
        gradient_accumulation_steps=steps,
        per_device_eval_batch_size=24,
        report_to=[],
        use_cpu=True,
        **more,
    )
    return Trainer(
        model=model or bert(),
        args=arguments,
        train_dataset=Columns(make_rows()) if train is None else train,
        eval_dataset=evaluation,
        data_collator=collator or mlm(),
        processing_class=TOKENIZER,
    )


def unmasked(rows):
    batch = pad(rows)
    return {**batch, "labels": batch["input_ids"].clone()}


def never_replaced(rows):
    batch = pad(rows)
    labels = torch.where(batch["input_ids"] % 7 == 3, batch["input_ids"], -100)
    return {**batch, "labels": labels.where(batch["input_ids"] > MASK, -100)}


def plain(rows):
    return transformers.default_data_collator(
        [{k: torch.as_tensor(v)[:9] for k, v in r.items()} for r in rows]
    )


def rows_with(**columns):
    return Columns(
        {**row, **{name: row[key] for name, key in columns.items()}} for row in make_rows()
    )


def luke():
    sizes = config(max_position_embeddings=64, pad_token_id=0)
    sizes |= {"entity_vocab_size": 10, "entity_emb_size": 16}
    torch.manual_seed(0)
    return transformers.LukeForMaskedLM(transformers.LukeConfig(**sizes))


OFFSETS = Columns(
    {**row, "offset_mapping": [(0, 0)] * len(row["input_ids"])} for row in make_rows()
)
SICK = {  # code: what makes such a trainer
    "model-class": {"model": "BertForPreTraining"},
    "accumulation-inflated": {"steps": 4},
    "column-dropped": {"train": rows_with(mlm_labels="input_ids"), "collator": plain},
    "labels-overwritten": {"train": rows_with(labels="input_ids")},
    "eval-unmasked": {"collator": unmasked, "evaluation": make_rows(seed=1)},
    "train-batch": {"collator": pad},
    "no-eval-loss": {"model": "Luke", "collator": mlm(seed=1), "evaluation": make_rows(seed=1)},
    "eval-mask-changes": {"evaluation": make_rows(seed=1)},
}


def make(tmp_path, sick):
    sick = dict(sick)
    name = sick.pop("model", None)
    model = None if name is None else luke() if name == "Luke" else small(name)
    return trainer_for(tmp_path, model=model, **sick)


def test_sick_trainers_stand_in_the_order_of_the_rules():
    assert list(TRAINER_RULES) == list(SICK)


@pytest.mark.parametrize("code", SICK)
def test_trainer_finding_and_fix(tmp_path, code):
    trainer = make(tmp_path, SICK[code])
    diagnosis = diagnose_trainer(trainer)
    if code == "accumulation-inflated" and not trainer.model_accepts_loss_kwargs:
        assert diagnosis.ok  # 4.57: no **kwargs in forward
        return
    allowed = {code, "eval-mask-changes"}
    assert code in diagnosis.codes
    assert set(diagnosis.codes) <= allowed
    assert not diagnosis.ok
    (finding,) = [finding for finding in diagnosis.findings if finding.code == code]
    assert finding.severity == TRAINER_RULES[code].severity
    assert ("`" in finding.fix) == (code != "model-class")
    run_fix(finding.fix, {"trainer": trainer})
    if code != "model-class":
        assert code not in diagnose_trainer(trainer).codes


OTHERS = {
    "whole words": ({"train": OFFSETS, "collator": mlm(whole_word_mask=True, mask_replace_prob=1.0, random_replace_prob=0.0)}, "column-dropped"),
    "second evaluation set": ({"collator": lambda r: (unmasked if r[0]["input_ids"][1] == 20 else mlm())(r), "evaluation": {"a": make_rows(seed=1), "b": [dict(TOKENIZER("bad bell"), input_ids=[2, 20, 21, 3])]}}, "eval-unmasked"),
    "an evaluation set without labels": ({"collator": pad, "evaluation": make_rows(24)}, "eval-unmasked"),
    "never replaced": ({"collator": never_replaced, "evaluation": make_rows(24)}, "eval-unmasked"),
    "one short text": ({"collator": unmasked, "evaluation": [dict(TOKENIZER(WORDS[0]))]}, "eval-unmasked"),
    "a dict of sets": ({"evaluation": {"a": make_rows(seed=1), "b": make_rows(seed=2)}}, "eval-mask-changes"),
    "a column of texts": ({"evaluation": [{**row, "text": "a"} for row in make_rows(seed=1)]}, "eval-mask-changes"),
}  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("wrapped", [False, True], ids=["plain", "CheckedCollator"])
def test_diagnose_trainer_looks_at_all_sets_and_behind_checked_collator(tmp_path, name, wrapped):
    sick, code = OTHERS[name]
    if wrapped:
        sick = {**sick, "collator": CheckedCollator(sick.get("collator") or mlm(), TOKENIZER)}
    trainer = make(tmp_path, sick)
    (finding,) = diagnose_trainer(trainer).findings
    assert finding.code == code
    if wrapped:
        assert sick["collator"]._left == 2
    run_fix(finding.fix, {"trainer": trainer})
    assert code not in diagnose_trainer(trainer).codes


def test_eval_mask_changes_is_cured_so_that_evaluations_agree(tmp_path):
    trainer = make(tmp_path, SICK["eval-mask-changes"])
    (finding,) = diagnose_trainer(trainer).findings
    run_fix(finding.fix, {"trainer": trainer})
    losses = [trainer.evaluate()["eval_loss"] for _ in range(2)]
    assert losses[0] == losses[1]


class Drawing:
    """A collator that draws from every generator there is."""

    def __init__(self):
        self.mlm_part = mlm(seed=1)
        self.mlm_part.generator = torch.Generator().manual_seed(5)
        self.parts = {"numbers": [np.random.default_rng(3)], "python": [random.Random(4)]}

    def __call__(self, rows):
        (numbers,), (python,) = self.parts.values()
        numbers.random(), python.random(), random.random(), torch.rand(1)
        np.random.rand()  # noqa: NPY002
        return self.mlm_part(rows)

    def state(self):
        (numbers,), (python,) = self.parts.values()
        return repr((
            self.mlm_part.generator.get_state().tolist(), numbers.bit_generator.state,
            python.getstate(), random.getstate(), torch.get_rng_state().tolist(),
            np.random.get_state()[1].tolist(), np.random.get_state()[2],  # noqa: NPY002
        ))  # fmt: skip


def test_diagnose_trainer_leaves_every_generator_as_it_was(tmp_path):
    collator = Drawing()
    for given in (collator, CheckedCollator(collator, TOKENIZER)):
        trainer = trainer_for(tmp_path, steps=2, collator=given, evaluation=make_rows(seed=1))
        before = collator.state()
        diagnose_trainer(trainer)
        assert collator.state() == before


@pytest.mark.parametrize("name", ["BertForMaskedLM", "BigBirdForMaskedLM"])
def test_diagnose_trainer_leaves_the_model_as_it_was(tmp_path, name):
    sparse = {"attention_type": "block_sparse", "block_size": 4} if "Bird" in name else {}
    model = small(name, **sparse).train()
    layer = model.bert.encoder.layer[0].eval()  # frozen
    trainer = trainer_for(tmp_path, model=model, steps=2, evaluation=make_rows(seed=1))
    layer.eval()
    modes = [module.training for module in model.modules()]
    kept = [id(module) for module in model.modules()]
    weights, attributes = copy.deepcopy(model.state_dict()), dict(vars(trainer))
    diagnose_trainer(trainer)
    assert [module.training for module in model.modules()] == modes
    assert [id(module) for module in model.modules()] == kept
    assert getattr(model.bert, "attention_type", None) == sparse.get("attention_type")
    assert all(torch.equal(weights[key], value) for key, value in model.state_dict().items())
    assert vars(trainer) == attributes


class Once(torch.utils.data.IterableDataset):
    """Rows that can be read once."""

    def __init__(self, rows):
        self.rows = iter(rows)

    def __iter__(self):
        return self.rows


def test_diagnose_trainer_takes_no_row_from_a_stream(tmp_path):
    train, evaluation = Once(make_rows()), Once(make_rows(seed=1))
    trainer = trainer_for(tmp_path, train=train, evaluation=evaluation, max_steps=1)
    diagnosis = diagnose_trainer(trainer)
    assert len(list(train)) == len(list(evaluation)) == 12
    assert not diagnosis.ok
    assert "is a stream" in str(diagnosis)
    assert "No error and no warning" not in str(diagnosis)


def test_diagnose_trainer_draws_from_a_stream_that_begins_again(tmp_path):
    again = type("Again", (Once,), {"__iter__": lambda self: iter(make_rows(seed=1))})
    again.__module__ = "datasets.iterable_dataset"
    (finding,) = diagnose_trainer(trainer_for(tmp_path, evaluation=again([]))).findings
    assert finding.code == "eval-mask-changes"
    assert "`" not in finding.fix  # not run, as it may be long


def test_diagnose_trainer_is_not_ok_where_drawing_raised(tmp_path):
    def broken(rows):
        raise KeyError("text")

    diagnosis = diagnose_trainer(trainer_for(tmp_path, collator=broken, evaluation=make_rows()))
    assert not diagnosis.ok
    assert "drawing a batch of the evaluation set raised KeyError" in str(diagnosis)
    without = diagnose_trainer(trainer_for(tmp_path))
    assert without.ok
    assert "the trainer has no eval_dataset" in str(without)


def gradients(tmp_path, steps, **more):
    """The gradient norm of one optimizer step over the same 4 rows, given ``steps`` times."""
    batch, _ = healthy(count=4)
    trainer = trainer_for(tmp_path, model=bert(hidden_dropout_prob=0.0), steps=steps, **more)
    trainer.create_optimizer()
    items = trainer._get_num_items_in_batch([batch] * steps, torch.device("cpu"))
    trainer.current_gradient_accumulation_steps = steps
    for _ in range(steps):
        trainer.training_step(trainer.model, dict(batch), num_items_in_batch=items)
    norms = [p.grad.norm() for p in trainer.model.parameters() if p.grad is not None]
    return float(torch.stack(norms).norm()), trainer


def test_accumulation_inflated_is_what_the_gradient_says(tmp_path):
    (one, _), (four, trainer) = gradients(tmp_path, 1), gradients(tmp_path, 4)
    inflated = trainer.model_accepts_loss_kwargs
    assert four / one == pytest.approx(4 if inflated else 1, rel=0.05)
    assert ("accumulation-inflated" in diagnose_trainer(trainer).codes) == inflated
    sizes = config(max_position_embeddings=64, pad_token_id=0, global_attn_every_n_layers=1)
    modern = transformers.ModernBertForMaskedLM(transformers.ModernBertConfig(**sizes))
    assert diagnose_trainer(trainer_for(tmp_path, model=modern, steps=4)).ok  # divides itself


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"collator": mlm(mlm=False)}, "everything-labelled"),
        ({"model": bert(vocab_size=30)}, "vocab-mismatch"),
        ({"train": Columns(make_rows(length=70))}, "too-long"),
    ],
)
def test_train_batch_names_the_error_of_the_first_rows(tmp_path, given, told):
    (finding,) = diagnose_trainer(trainer_for(tmp_path, **given)).findings
    assert (finding.code, finding.severity) == ("train-batch", "error")
    assert f"has {told}: " in finding.message


def test_train_batch_leaves_a_loss_of_your_own_alone(tmp_path):
    class Own(Trainer):
        def compute_loss(self, model, inputs, **more):
            return model(**inputs).logits.mean()

    trainer = trainer_for(tmp_path, collator=pad)
    for given in (Own, type("Same", (Trainer,), {})):
        trainer.__class__ = given
        assert diagnose_trainer(trainer).ok == (given is Own)


def test_column_dropped_knows_the_names_that_trainer_keeps(tmp_path):
    rows = Columns({**row, "label": 1, "label_ids": 1, "my_labels": 1} for row in make_rows())
    kept = trainer_for(tmp_path, train=rows, collator=plain, label_names=["my_labels"])
    assert diagnose_trainer(kept).codes == ()
    assert diagnose_trainer(trainer_for(tmp_path, train=rows)).ok  # the collator makes the labels
    (finding,) = diagnose_trainer(trainer_for(tmp_path, train=rows, collator=plain)).findings
    assert "drops the columns ['my_labels']: BertForMaskedLM.forward" in finding.message


def test_diagnose_trainer_refuses_what_is_not_a_trainer():
    with pytest.raises(TypeError, match=r"must be a transformers\.Trainer, but is a dict"):
        diagnose_trainer({})
    assert MODEL.config.vocab_size == V
