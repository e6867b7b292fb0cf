"""What the installed library does today, as the lessons tell it.

A canary that fails is no defect here: the library has changed, and its message says which lesson
to correct.
"""

import inspect
import re
import tempfile

import pytest
import torch
import transformers
from toys import release_5
from transformers import BertConfig, BertForMaskedLM, Trainer, TrainingArguments

from mlmtutor.model import TUTOR_FOLDER, load_tutor

IDS = torch.tensor([[2, 5, 4, 7, 3]])
LABELS = torch.tensor([[-100, -100, 6, -100, -100]])

VERSION = transformers.__version__
release_4 = pytest.mark.skipif(VERSION >= "5", reason="told of transformers 4")


def correct(lesson, section):
    return f"transformers {VERSION} has changed: correct lesson {lesson}, {section!r}"


@pytest.fixture
def tiny():
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=10, hidden_size=8, num_hidden_layers=1, num_attention_heads=1,
        intermediate_size=8, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    return BertForMaskedLM(config)


@release_5
@pytest.mark.parametrize("name", ["masked_lm_labels", "lm_labels", "label", "lables"])
def test_unknown_keyword_is_swallowed(tiny, recwarn, name):
    loss = tiny(input_ids=IDS, **{name: LABELS}).loss
    assert loss is None, correct("01 and 10", "What happened to masked_lm_labels?")
    assert not recwarn.list, correct("01 and 10", "What happened to masked_lm_labels?")


@release_4
def test_unknown_keyword_is_a_type_error(tiny):
    with pytest.raises(TypeError, match="unexpected keyword argument 'masked_lm_labels'"):
        tiny(input_ids=IDS, masked_lm_labels=LABELS)


@release_5
def test_number_of_items_is_swallowed(tiny):
    losses = [tiny(IDS, labels=LABELS, **given).loss for given in ({}, {"num_items_in_batch": 9})]
    assert torch.equal(*losses), correct("08", "Why does the loss grow with gradient accumulation?")


@release_5
def test_accumulation_inflates_the_loss(tiny):
    rows = [{"input_ids": IDS[0], "labels": LABELS[0]}] * 8
    losses = {}
    for size, steps in ((8, 1), (2, 4)):
        with tempfile.TemporaryDirectory() as folder:
            options = TrainingArguments(
                folder, per_device_train_batch_size=size, gradient_accumulation_steps=steps,
                learning_rate=0.0, max_steps=1, report_to="none", disable_tqdm=True,
                use_cpu=True, save_strategy="no", logging_strategy="no",
            )  # fmt: skip
            losses[steps] = Trainer(tiny, options, train_dataset=rows).train().training_loss
    assert losses[4] == pytest.approx(4 * losses[1], rel=1e-3), correct(
        "07 and 08",
        "the finding accumulation-inflated, and Why does the loss grow with gradient accumulation?; "
        "transformers#47688 may be repaired",
    )


def test_documented_example_writes_mask_for_another_family():
    text = inspect.getdoc(BertForMaskedLM.forward)
    assert "<mask>" in text, correct("02", "How do you hide a word?")
    assert "ignored (masked)" in text, correct("04", "Is an ignored token a masked token?")


@release_5
def test_vocabulary_by_the_old_keyword_is_five_tokens():
    vocabulary = str(TUTOR_FOLDER / "vocab.txt")
    old = transformers.BertTokenizer(vocab_file=vocabulary)
    assert len(old) == 5, correct("02", "the loader: mlmtutor/model.py refuses such a tokenizer")
    assert len(transformers.BertTokenizer(vocabulary)) == 30522


def test_loss_is_the_default_cross_entropy(tiny):
    source = inspect.getsource(BertForMaskedLM.forward)
    assert re.search(r"CrossEntropyLoss\(\)", source), correct("04", "Where does -100 come from?")
    logits = tiny(input_ids=IDS).logits
    expected = torch.nn.functional.cross_entropy(logits.view(-1, 10), LABELS.view(-1))
    assert torch.equal(tiny(input_ids=IDS, labels=LABELS).loss, expected)


def test_masking_collator_does_not_pad_labels():
    collator = transformers.DataCollatorForLanguageModeling(load_tutor()[1])
    rows = [{"input_ids": [101, *[2003] * n, 102], "labels": [-100] * (n + 2)} for n in (1, 2)]
    with pytest.raises(ValueError, match="Unable to create tensor"):
        collator(rows)
    assert collator([rows[0]])["labels"].shape == (1, 3)


def test_trainer_pads_labels_with_minus_100(tiny, tmp_path):
    rows = [{"input_ids": IDS[0, :n], "labels": LABELS[0, :n]} for n in (5, 4)]
    args = TrainingArguments(
        tmp_path, per_device_eval_batch_size=1, report_to="none", disable_tqdm=True, use_cpu=True
    )
    found = Trainer(tiny, args).predict(rows).label_ids.tolist()
    right = [LABELS[0].tolist(), [*LABELS[0, :4].tolist(), -100]]
    assert found == right, correct("04", "Where does -100 come from?")


@release_5
@pytest.mark.filterwarnings("ignore:Random token replacement")
def test_whole_words_are_what_touches_in_the_text():
    tokenizer = load_tutor()[1]
    collator = transformers.DataCollatorForLanguageModeling(tokenizer, whole_word_mask=True, seed=1)
    row = tokenizer("Is it open?", return_offsets_mapping=True)
    is_, _, word, mark = torch.stack(
        [collator([row])["labels"][0, 1:5] != -100 for _ in range(100)]
    ).T
    assert torch.equal(mark, word), correct("03", "How do I mask whole words?")
    assert not torch.equal(is_, word)
