"""What is read from a batch, in all the forms that batches come in."""

import copy

import pytest
import torch
import transformers
from batches import CLS, MASK, MODEL, PAD, SEP, TOKENIZER, V, bert, healthy, row_of, small

from mlmtutor import MaskingPolicy
from mlmtutor.doctor import diagnose
from mlmtutor.doctor.facts import Case
from mlmtutor.doctor.likely import policy_of
from mlmtutor.model import longest_input


class Batch:
    """An object with keys that isn't a mapping."""

    def __init__(self, values):
        self.values = values

    def keys(self):
        return self.values.keys()

    def __getitem__(self, key):
        return self.values[key]

    def __contains__(self, key):
        return key in self.values


FORMS = {
    "tensors": dict,
    "arrays": lambda b: {key: value.numpy() for key, value in b.items()},
    "lists": lambda b: {key: value.tolist() for key, value in b.items()},
    "lists of rows": lambda b: {key: list(value) for key, value in b.items()},
    "BatchEncoding": transformers.BatchEncoding,
    "an object with keys": Batch,
}


@pytest.mark.parametrize("form", FORMS)
def test_diagnose_reads_every_form_of_a_batch(form):
    batch, _ = healthy()
    assert diagnose(FORMS[form](batch), TOKENIZER, MODEL).codes == ()


def test_case_finds_labels_under_other_names():
    batch, _ = healthy()
    labels = batch.pop("labels")
    for name in ("masked_lm_labels", "label", "Labels", "lables", "label_ids", "answers"):
        assert Case({**batch, name: labels}).label_key == name
    assert Case({**batch, "masked_lm_labels": labels[:, 1:]}).label_key == "masked_lm_labels"
    assert Case({**batch, "targets": labels[:, 1:]}).label_key is None
    assert Case({**batch, "labels_mask": labels}).label_key is None
    assert Case({**batch, "label": torch.zeros(len(labels))}).label_key is None


@pytest.mark.parametrize(
    "form", ["float", "far below", "one row", "square", "by head", "added", "two kinds", "flex"]
)
def test_case_reads_what_the_attention_mask_hides(form):
    batch, _ = healthy()
    row = batch["attention_mask"].bool()
    assert not row.all()
    square = row[:, None, :] & row[:, :, None]
    mask = {
        "float": row.float(),
        "far below": (~row).float() * -1e4,
        "one row": row[:1],
        "square": square,
        "by head": square[:, None].long(),
        "added": torch.zeros(square.shape).masked_fill(~square, -1e9)[:, None],
        "two kinds": {"full_attention": square, "sliding_attention": square},
        "flex": None,
    }[form]
    if form == "flex":
        flex = pytest.importorskip("torch.nn.attention.flex_attention")
        documents = row.long()
        mask = flex.create_block_mask(
            lambda b, h, q, k: documents[b, q] == documents[b, k],
            len(row),
            None,
            *[row.shape[1]] * 2,
            "cpu",
        )
    read = Case({**batch, "attention_mask": mask}, TOKENIZER).visible
    assert torch.equal(read, row[:1].expand_as(row) if form == "one row" else row)
    if form != "one row":
        assert diagnose({**batch, "attention_mask": mask}, TOKENIZER).ok


def test_case_reads_an_added_mask_of_zeros_as_one_that_hides_nothing():
    ids = torch.full((2, 5), 20)
    for mask in (torch.zeros(2, 1, 5, 5), torch.zeros(2, 5)):
        assert Case({"input_ids": ids, "attention_mask": mask}).visible.all()
    assert not Case({"input_ids": ids, "attention_mask": ids * 0}).visible.any()


def test_case_finds_the_value_for_not_scored_on_text_and_on_padding():
    batch, names = healthy()
    labels, pads = batch["labels"], names["original"] == PAD
    for changed, ignored in (
        (labels, (-100, -100)),
        (labels.where(labels != -100, 0), (0, -100)),
        (labels.where((labels != -100) | pads, 0), (0, -100)),
        (labels.where(~pads, 7), (-100, 7)),
        (labels.where(labels != -100, MASK), (MASK, MASK)),
    ):
        case = Case({**batch, "labels": changed}, TOKENIZER)
        assert case.ignored == ignored
        assert torch.equal(case.scored, labels != -100)


def test_case_knows_words_as_the_tokenizer_does():
    batch, names = healthy()
    mine = Case({**batch, "input_ids": names["original"]}, TOKENIZER).words
    theirs = torch.tensor(names["word_ids"])
    text = names["original"] > MASK
    assert torch.equal(
        (mine[:, 1:] == mine[:, :-1])[text[:, 1:]], (theirs[:, 1:] == theirs[:, :-1])[text[:, 1:]]
    )


@pytest.mark.parametrize("role", ["eos", "sep", "cls", "bos", "unk"])
def test_case_knows_a_padding_token_with_another_role(role):
    tokenizer = copy.deepcopy(TOKENIZER)
    assert not Case({}, tokenizer).pad_means_more
    setattr(tokenizer, f"{role}_token", "mask")
    tokenizer.pad_token = "mask"
    assert Case({}, tokenizer).pad_means_more


def test_case_takes_a_processor_and_unwraps_models():
    class Processor:
        tokenizer = TOKENIZER

    batch, _ = healthy()
    case = Case(batch, Processor(), torch.compile(torch.nn.DataParallel(MODEL)))
    assert case.tokenizer is TOKENIZER
    assert case.model is MODEL
    assert (case.rows_in, case.rows_out) == (V, V)


@pytest.mark.parametrize("name", ["BertForMaskedLM", "RobertaForMaskedLM"])
def test_too_long_begins_after_the_longest_input(name):
    model = small(name, **({"pad_token_id": 1} if "Roberta" in name else {}))
    limit = longest_input(model)
    for length in (limit, limit + 1):
        batch = row_of([20] * length, [-100, 21, *[-100] * (length - 2)])
        codes = diagnose(batch, None, model).codes
        assert ("too-long" in codes) == (length > limit)
        if length > limit:
            with pytest.raises((IndexError, RuntimeError)):
                model(**batch)
        else:
            model(**batch)
    padding = 2 if "Roberta" in name else 0
    started = row_of([20] * 9, [-100, 21, *[-100] * 7], position_ids=torch.arange(9).unsqueeze(0))
    assert ("position-out-of-range" in diagnose(started, None, model).codes) == bool(padding)
    packed = row_of([20] * 100, [-100, 21, *[-100] * 98])
    packed["position_ids"] = torch.cat([torch.arange(50)] * 2).unsqueeze(0) + padding
    assert diagnose(packed, None, model).ok


def test_too_long_is_not_asked_of_a_model_of_ones_own():
    batch, _ = healthy()
    diagnosis = diagnose(batch, TOKENIZER, torch.nn.Linear(1, 1))
    assert diagnosis.ok
    assert ("vocab-mismatch", "the model has no embeddings") in diagnosis.unchecked


def test_vocab_mismatch_allows_more_rows_than_tokens():
    assert diagnose(healthy()[0], TOKENIZER, bert(vocab_size=V + 27)).codes == ()


def test_shape_allows_rows_without_a_batch_dimension_where_they_are_packed():
    batch, _ = healthy(count=1)
    flat = {key: value[0] for key, value in batch.items()}
    for key in ("cu_seqlens", "seqlens", "position_ids"):
        assert "shape" not in diagnose({**flat, key: torch.tensor([0, 20])}, TOKENIZER).codes


def test_is_prompt_needs_one_or_two_blanks_in_each_row():
    for blanks, prompt in (
        ((3,), True),
        ((3, 4), True),
        ((3, 9), True),
        ((3, 9, 12), False),
        ((), False),
    ):
        ids, labels = torch.full((4, 20), 20), torch.full((4, 20), -100)
        for column in blanks:
            ids[:, column], labels[:, column] = MASK, 30
        assert Case({"input_ids": ids, "labels": labels}, TOKENIZER).is_prompt == prompt
    labels[0, 5] = 20  # scored, and not hidden
    assert not Case({"input_ids": ids, "labels": labels}, TOKENIZER).is_prompt


def test_policy_of_trusts_the_collator_of_transformers_alone():
    class Own(transformers.DataCollatorForLanguageModeling):
        def torch_mask_tokens(self, *args, **kwargs):
            return None

    collator = transformers.DataCollatorForLanguageModeling
    assert policy_of(collator(TOKENIZER, mlm_probability=0.3)) == MaskingPolicy(select=0.3)
    for other in (collator(TOKENIZER, mlm=False), Own(TOKENIZER), len):
        assert policy_of(other) is None


def test_ends_of_a_text_are_padding_only_where_the_mask_hides_them():
    tokenizer = copy.deepcopy(TOKENIZER)
    tokenizer.pad_token = "[SEP]"
    batch = row_of([CLS, *range(20, 30), MASK, SEP, SEP], [*[-100] * 11, 31, SEP, -100])
    batch["attention_mask"] = torch.tensor([[1] * 13 + [0]])
    assert "padding-labelled" not in diagnose(batch, tokenizer).codes
    batch["labels"][0, 13] = SEP
    (finding,) = [f for f in diagnose(batch, tokenizer).findings if f.code == "padding-labelled"]
    assert finding.positions == ((0, 13),)
