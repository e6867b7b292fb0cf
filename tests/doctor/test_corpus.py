"""Recall and false alarms of the doctor on batches that its unit tests do not know."""

import collections
from pathlib import Path

import pytest
from corpus import DEFECTS, FAMILIES, broken_examples, healthy_examples

from mlmtutor.doctor import RULES, diagnose
from tools import doctor_table

BROKEN = list(broken_examples(rounds=2, first_seed=70_000))
HEALTHY = list(healthy_examples(120, first_seed=30_000))


def findings(example):
    diagnosis = diagnose(example.batch, example.tokenizer, **example.options)
    assert not [reason for _, reason in diagnosis.unchecked if "failed with" in reason]
    return diagnosis


def test_the_corpus_is_as_large_and_as_mixed_as_the_figures_say():
    assert len(BROKEN) >= 60
    assert len(HEALTHY) >= 40
    assert all(example.code is None for example in HEALTHY)
    for examples in (BROKEN, HEALTHY):
        for family in FAMILIES:
            assert any(family in example.name for example in examples)
    missing = set(RULES) - {defect.code for defect in DEFECTS}
    # Form, model and padding: no family, rate or seed changes what these see.
    assert missing == {
        "not-a-batch",
        "no-input-ids",
        "device",
        "empty",
        "vocab-mismatch",
        "too-long",
        "padding-attended",
    }


@pytest.mark.parametrize("example", BROKEN, ids=lambda example: example.name)
def test_every_broken_batch_is_found_at_its_cause(example):
    diagnosis = findings(example)
    assert [f.code for f in diagnosis.findings if f.severity != "info"] == [example.code]
    with_errors = RULES[example.code].severity == "error"
    if with_errors:
        with pytest.raises(ValueError, match=f"error {example.code}"):
            diagnosis.raise_for_errors()


def test_healthy_batches_raise_no_alarm():
    alarms = [(e.name, findings(e).codes) for e in HEALTHY if not findings(e).ok]
    assert not alarms
    collators = collections.Counter(
        way
        for e in HEALTHY
        for way in ("transformers", "counts", "mask_tokens", "whole words")
        if way in e.name
    )
    assert min(collators.values()) >= 5


def test_the_page_in_the_docs_follows_from_the_code(monkeypatch):
    monkeypatch.setattr("sys.argv", ["doctor_table.py", "--check"])
    assert doctor_table.main() == 0, "run python -m tools.doctor_table"
    trainer = (Path(__file__).parent / "test_doctor.py").read_text()
    assert all(f"def {name}(" in trainer for name in doctor_table.TRAINER_TESTS.values())
    assert set(doctor_table.TRAINER_TESTS) == set(doctor_table.TRAINER_RULES)
