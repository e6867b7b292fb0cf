"""CheckedCollator: what it raises, logs, passes on and counts."""

import logging

import numpy as np
import pytest
import torch
from batches import TOKENIZER, healthy, make_rows, mlm, pad

from mlmtutor import MaskingPolicy
from mlmtutor.doctor import CheckedCollator


def logged(caplog):
    return [record.getMessage().split(":")[0] for record in caplog.records]


def test_checked_collator_raises_errors_and_passes_the_rest_through():
    checked, plain = CheckedCollator(mlm(seed=1), TOKENIZER), mlm(seed=1)
    rows = make_rows()
    for _ in range(3):
        one, two = checked(rows), plain(rows)
        assert all(torch.equal(one[key], two[key]) for key in two)
    wrong = CheckedCollator(lambda rows: {**pad(rows), "labels": pad(rows)["input_ids"]}, TOKENIZER)
    with pytest.raises(ValueError, match="error everything-labelled"):
        wrong(rows)


def test_checked_collator_looks_at_the_first_batches_and_warns_once(caplog):
    batches = [healthy(seed=seed, count=24)[0] for seed in range(2)]
    for batch in batches:
        batch["labels"][:, 0] = batch["input_ids"][:, 0]  # [CLS]
    results = iter([*batches, "not a batch at all"])
    checked = CheckedCollator(lambda rows: next(results), TOKENIZER, batches=np.int64(2))
    with caplog.at_level(logging.WARNING, logger="mlmtutor.doctor"):
        given = [checked([]) for _ in range(3)]
    assert logged(caplog) == ["warning special-labelled"]
    assert given[2] == "not a batch at all"


def test_checked_collator_sees_a_mask_that_comes_again(caplog):
    def collator(rows):
        torch.manual_seed(0)
        return mlm(random_replace_prob=0.0)(rows)

    checked = CheckedCollator(collator, TOKENIZER)
    for _ in range(2):
        checked(make_rows(24)).pop("labels")  # as a training loop may do
    assert logged(caplog) == ["warning same-mask-epochs"]


def test_checked_collator_tests_the_rates_of_the_recipe_it_knows(caplog):
    rows = make_rows(64, 30)
    collator = mlm()
    checked = CheckedCollator(collator, TOKENIZER)
    collator.mlm_probability = 0.4  # another one than it had when it was wrapped
    checked(rows)
    assert "warning selection-high" in logged(caplog)
    caplog.clear()
    high = mlm(mlm_probability=0.7)
    for policy in (None, MaskingPolicy(select=0.7)):
        CheckedCollator(high, TOKENIZER, policy=policy)(rows)
    assert logged(caplog) == []


def test_checked_collator_lets_a_short_text_without_a_label_pass(caplog):
    checked = CheckedCollator(mlm(mlm_probability=0.01), TOKENIZER)
    assert (checked([{"input_ids": [2, 20, 3]}])["labels"] == -100).all()
    assert logged(caplog) == ["warning nothing-labelled"]


def test_checked_collator_passes_all_arguments_on():
    batch, _ = healthy()
    given = []

    def collator(*args, **kwargs):
        given.append((args, kwargs))
        return batch

    assert CheckedCollator(collator, TOKENIZER)([1], 2, return_tensors="pt") is batch
    assert given == [(([1], 2), {"return_tensors": "pt"})]


def test_checked_collator_refuses_what_it_cannot_use():
    with pytest.raises(TypeError, match="collator must be callable, but is a dict"):
        CheckedCollator({}, TOKENIZER)
    for batches in (0, -1, 1.5, True):
        with pytest.raises(ValueError, match="batches must be a whole number of at least 1"):
            CheckedCollator(pad, TOKENIZER, batches=batches)
