"""Causes, cures and false alarms of the doctor on batches that its unit tests do not know."""

import pytest
import transformers
from corpus import DEFECTS, RECIPES, broken_examples, cured, healthy_examples
from toys import release_5

from mlmtutor.doctor import ALPHA, RULES, diagnose
from tools import doctor_table

BROKEN = list(broken_examples(rounds=2, first_seed=270_000))
FORM = {  # form and model: no family, rate or seed changes what these see
    "not-a-tokenizer", "not-a-model", "model-class", "not-a-batch", "no-input-ids", "device", "empty",
    "mask-is-unk", "vocab-mismatch", "half-resized", "token-type-out-of-range",
    "position-out-of-range", "too-long",
}  # fmt: skip


def test_defects_cover_every_rule():
    assert set(RULES) - {defect.code for defect in DEFECTS} == FORM


@pytest.mark.parametrize("example", BROKEN, ids=lambda example: example.name)
def test_diagnose_names_the_cause_of_every_broken_batch_and_cures_it(example):
    found = [f.code for f in example.diagnosis().findings if f.severity != "info"]
    assert found[:1] == [example.code]
    assert cured(example) is not False


@pytest.mark.parametrize("recipe", RECIPES)
def test_diagnose_raises_no_alarm_on_healthy_recipes(recipe):
    for example in healthy_examples(recipe, 12, first_seed=430_000):
        diagnosis = example.diagnosis()
        assert diagnosis.ok, f"{example.name}\n{diagnosis}"


@release_5
def test_whole_rows_are_what_transformers_makes_of_deberta():
    """Canary: its offsets hold the space before a word, so that a row is one word."""
    words = [("[PAD]", 0.0), ("[CLS]", 0.0), ("[SEP]", 0.0), ("[UNK]", 0.0)]
    words += [(f"▁{a}{b}", -1.0) for a in "bdfgklmn" for b in ("ad", "ell", "og")]
    kit = transformers.DebertaV2Tokenizer(vocab=words, unk_id=3)
    text = " ".join(word[1:] for word, _ in words[4:])
    encoded = kit([text] * 40, return_offsets_mapping=True)
    rows = [{key: encoded[key][row] for key in encoded} for row in range(40)]
    transformers.set_seed(1)
    collator = transformers.DataCollatorForLanguageModeling(
        kit, whole_word_mask=True, mask_replace_prob=1.0, random_replace_prob=0.0
    )
    assert "whole-rows" in diagnose(collator(rows), kit).codes


def test_docs_follow_from_the_code(monkeypatch):
    monkeypatch.setattr("sys.argv", ["doctor_table.py", "--check"])
    assert doctor_table.main() == 0, "run python -m tools.doctor_table --table"
    assert f"speaks below\n{ALPHA:g};" in doctor_table.PAGE.read_text()
