"""The label doctor: one broken batch for each code, what it finds, and whether the fix cures it."""

import copy
import itertools
import logging
import math
import random
import re
import types
import warnings

import hypothesis
import numpy as np
import pytest
import torch
import transformers
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertForMaskedLM,
    DataCollatorForLanguageModeling,
    ModernBertConfig,
    ModernBertForMaskedLM,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForMaskedLM,
    Trainer,
    TrainingArguments,
)

from mlmtutor import MaskingPolicy, mask_tokens
from mlmtutor.doctor import (
    ALPHA,
    RULES,
    TRAINER_RULES,
    CheckedCollator,
    Problem,
    diagnose,
    diagnose_trainer,
    rule,
)
from mlmtutor.doctor import diagnosis as doctor_diagnosis
from mlmtutor.doctor import trainer as doctor_trainer
from mlmtutor.doctor.facts import Case
from mlmtutor.doctor.rules import at_least, at_most, run_rules

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
PIECES = ["##s", "##ing", "##ed", "<", ">", "[", "]", "mask", "."]
WORDS = [a + b for a in "bcdfghjklmnprstvw" for b in ("ad", "ell", "ink", "og", "ump")]


CHECKS_FAIL = [  # the tests in which a check is meant to raise
    "test_a_check_that_raises_is_reported_not_raised",
    "test_a_need_that_does_not_exist_is_reported_not_raised",
    "test_garbage_is_a_finding_and_never_an_exception",
    "test_something_that_is_no_model_is_survived",
]


@pytest.fixture(autouse=True)
def no_check_fails(request, monkeypatch):
    """A check that raises is reported as not checked, and so could break unseen: none does here."""
    failed = []

    def watched(table, case):
        result = run_rules(table, case)
        failed.extend(row for row in result.unchecked if row[1].startswith("the check failed"))
        return result

    monkeypatch.setattr(doctor_diagnosis, "run_rules", watched)
    monkeypatch.setattr(doctor_trainer, "run_rules", watched)
    yield
    assert not failed or request.node.originalname in CHECKS_FAIL, failed


def bert_tokenizer(words, mask="[MASK]"):
    """A WordPiece tokenizer of these words, made alike by transformers 4 and 5."""
    vocab = {word: i for i, word in enumerate(words)}
    core = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    core.normalizer = normalizers.BertNormalizer()
    core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    core.decoder = decoders.WordPiece()
    ends = [(token, vocab[token]) for token in ("[CLS]", "[SEP]")]
    core.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", special_tokens=ends)
    names = {name: f"[{name[:3].upper()}]" for name in ("cls_token", "sep_token", "pad_token")}
    return PreTrainedTokenizerFast(
        tokenizer_object=core, unk_token="[UNK]", mask_token=mask, **names
    )


TOKENIZER = bert_tokenizer([*SPECIAL, *PIECES, *WORDS])
MASK, PAD, CLS, SEP = 4, 0, 2, 3
V = len(TOKENIZER)


def config(**changes):
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    return {"vocab_size": V, "intermediate_size": 16, **sizes, **changes}


def bert(**changes):
    torch.manual_seed(0)
    return BertForMaskedLM(BertConfig(**config(max_position_embeddings=64, **changes))).eval()


MODEL = bert()


def make_rows(count=12, length=22, seed=0):
    """Encoded texts of different lengths, with words of two pieces."""
    rng = random.Random(seed)
    rows = []
    for _ in range(count):
        words = [
            rng.choice(WORDS) + rng.choice(["", "", "s", "ing"])
            for _ in range(rng.randint(length - 8, length))
        ]
        rows.append(dict(TOKENIZER(" ".join(words) + ".")))
    return rows


def pad(rows):
    return dict(TOKENIZER.pad(rows, return_tensors="pt"))


BERT_POLICY = MaskingPolicy()


def healthy(seed=0, policy=BERT_POLICY, **sizes):
    """A healthy padded batch, and what a fix may refer to."""
    rows = make_rows(seed=seed, **sizes)
    batch = pad(rows)
    original = batch["input_ids"].clone()
    generator = torch.Generator().manual_seed(seed)
    batch["input_ids"], batch["labels"] = mask_tokens(
        original, TOKENIZER, policy=policy, generator=generator
    )
    return batch, {
        "original": original,
        "rows": rows,
        "word_ids": word_ids(original),
        "collator": DataCollatorForLanguageModeling(TOKENIZER),
        "tokenizer": TOKENIZER,
        "torch": torch,
        "transformers": transformers,
        "mask_tokens": mask_tokens,
        "MaskingPolicy": MaskingPolicy,
    }


def word_ids(ids):
    tokens = [TOKENIZER.convert_ids_to_tokens(row) for row in ids.tolist()]
    return [
        list(itertools.accumulate((not token.startswith("##") for token in row), initial=0))[1:]
        for row in tokens
    ]


def run_fix(fix, names):
    """Run the code of a fix, in the order in which it stands, and return the names."""
    names = dict(names)
    snippets = re.findall(r"`([^`]+)`", fix)
    assert snippets, f"no code in the fix: {fix}"
    torch.manual_seed(3)
    for snippet in snippets:
        exec(snippet, names)  # the code is the package's own
    return names


# Each function breaks a healthy batch; it returns the batch and what diagnose gets besides.


def not_a_batch(batch, names):
    return "input_ids", {}


def no_input_ids(batch, names):
    return {"ids": batch["input_ids"], "labels": batch["labels"]}, {}


def labels_missing(batch, names):
    return {"input_ids": names["original"], "attention_mask": batch["attention_mask"]}, {}


def labels_misnamed(batch, names):
    return rename(batch, "masked_lm_labels"), {}


def rename(batch, name):
    batch = dict(batch)
    batch[name] = batch.pop("labels")
    return batch


def dtype(batch, names):
    return {**batch, "labels": batch["labels"].int()}, {}


def device(batch, names):
    batch = {key: value.to("meta") for key, value in batch.items()}
    return {**batch, "labels": batch["labels"].new_zeros(batch["labels"].shape, device="cpu")}, {}


def unreadable(batch, names):
    ragged = batch["labels"].tolist()
    ragged[1].pop()
    return {**batch, "labels": ragged}, {}


def empty(batch, names):
    return {key: value[:0] for key, value in batch.items()}, {}


def foreign_mask(batch, names):
    names["texts"] = [f"{word} <mask> {word} ." for word in WORDS[:6]]
    ids = TOKENIZER(names["texts"], return_tensors="pt")["input_ids"]
    labels = torch.full((6, 6), -100)
    labels[:, 2] = torch.arange(20, 26)  # where <mask> would be, were it one token
    return {"input_ids": ids, "labels": labels}, {}


def shape(batch, names):
    names["original"] = batch["input_ids"].where(batch["labels"] == -100, batch["labels"])
    return {**batch, "labels": batch["labels"][:, 1:-1].contiguous()}, {}


def labels_strided(batch, names):
    wide = torch.cat([batch["labels"], batch["labels"]], dim=1)
    return {**batch, "labels": wide[:, : batch["labels"].shape[1]]}, {}


def vocab_mismatch(batch, names):
    tokenizer = copy.deepcopy(TOKENIZER)
    tokenizer.add_tokens(["newword"])
    names["tokenizer"] = tokenizer
    return batch, {"tokenizer": tokenizer, "model": bert()}


def ignore_in_input(batch, names):
    ids = torch.where(batch["labels"] == -100, batch["input_ids"], -100)
    return {**batch, "input_ids": ids}, {}


def input_out_of_range(batch, names):
    ids = batch["input_ids"].clone()
    ids[3, 4] = V + 5
    return {**batch, "input_ids": ids}, {"model": MODEL}


def too_long(batch, names):
    return {key: value.repeat(1, 4) for key, value in batch.items()}, {"model": MODEL}


def ignore_minus_one(batch, names):
    return {**batch, "labels": batch["labels"].where(batch["labels"] != -100, -1)}, {}


def labels_binary(batch, names):
    return {**batch, "labels": (batch["labels"] != -100).long()}, {}


def ignore_pad(batch, names):
    return {**batch, "labels": batch["labels"].where(batch["labels"] != -100, PAD)}, {}


def label_out_of_range(batch, names):
    return {**batch, "labels": batch["labels"].where(batch["labels"] != -100, -99)}, {}


def nothing_labelled(batch, names):
    return {**batch, "input_ids": names["original"], "labels": batch["labels"] * 0 - 100}, {}


def shifted(batch, names):
    return {**batch, "labels": batch["labels"].roll(-1, dims=1)}, {}


def inverted(batch, names):
    labels = torch.where(batch["labels"] == -100, names["original"], -100)
    return {**batch, "labels": labels}, {}


def everything_labelled(batch, names):
    return {**batch, "labels": names["original"].clone()}, {}


def label_is_mask(batch, names):
    return {
        **batch,
        "labels": batch["labels"].where(batch["labels"] == -100, batch["input_ids"]),
    }, {}


def padding_labelled(batch, names):
    return {**batch, "labels": batch["labels"].where(names["original"] != PAD, PAD)}, {}


def label_hidden(batch, names):
    return {**batch, "attention_mask": (batch["input_ids"] != MASK).long()}, {}


def special_labelled(batch, names):
    return {**batch, "labels": batch["labels"].where(names["original"] != CLS, CLS)}, {}


def mask_without_label(batch, names):
    labels = batch["labels"].clone()
    labels[:5][batch["input_ids"][:5] == MASK] = -100
    return {**batch, "labels": labels}, {}


def partial_word(batch, names):
    return batch, {"whole_word": True}


def never_replaced(batch, names):
    return {**batch, "input_ids": names["original"]}, {}


def other_policy(names, **rates):
    batch, more = healthy(seed=1, policy=MaskingPolicy(**rates), count=32)
    names.update(more)
    return batch, {}


def replacement_shares(batch, names):
    return other_policy(names, mask=0.3, random=0.7)


def selection_low(batch, names):
    return other_policy(names, select=0.03)


def selection_high(batch, names):
    return other_policy(names, select=0.85)


def random_special(batch, names):
    odd = (batch["labels"] != -100) & (batch["input_ids"] != batch["labels"])
    odd &= batch["input_ids"] != MASK
    assert odd.sum() >= 3
    return {**batch, "input_ids": batch["input_ids"].masked_fill(odd, PAD)}, {}


def same_mask_rows(batch, names):
    chosen = torch.rand(names["original"].shape[1], generator=torch.Generator().manual_seed(1))
    chosen = (chosen < 0.2) & (names["original"] > MASK)
    ids = names["original"].masked_fill(chosen, MASK)
    return {**batch, "input_ids": ids, "labels": names["original"].where(chosen, -100)}, {}


def same_mask_epochs(batch, names):
    return [batch, {key: value.flip(0) for key, value in batch.items()}], {}


def padding_attended(batch, names):
    return {key: value for key, value in batch.items() if key != "attention_mask"}, {}


BROKEN = [
    not_a_batch,
    no_input_ids,
    labels_missing,
    labels_misnamed,
    dtype,
    device,
    unreadable,
    empty,
    foreign_mask,
    shape,
    labels_strided,
    vocab_mismatch,
    ignore_in_input,
    input_out_of_range,
    too_long,
    ignore_minus_one,
    labels_binary,
    ignore_pad,
    label_out_of_range,
    nothing_labelled,
    shifted,
    inverted,
    everything_labelled,
    label_is_mask,
    padding_labelled,
    label_hidden,
    special_labelled,
    mask_without_label,
    partial_word,
    never_replaced,
    replacement_shares,
    selection_low,
    selection_high,
    random_special,
    same_mask_rows,
    same_mask_epochs,
    padding_attended,
]
CODES = [function.__name__.replace("_", "-") for function in BROKEN]


@pytest.fixture
def registry():
    """Whatever a test registers is gone after it."""
    before = dict(RULES)
    yield RULES
    RULES.clear()
    RULES.update(before)


def test_each_code_has_a_broken_batch_in_the_order_of_the_table():
    assert list(RULES) == CODES


NO_PLACES = {  # findings about the batch as a whole
    "not-a-batch", "no-input-ids", "labels-missing", "labels-misnamed", "dtype", "device",
    "unreadable", "empty", "foreign-mask", "shape", "labels-strided", "vocab-mismatch", "too-long",
    "labels-binary", "nothing-labelled", "selection-low", "selection-high",
}  # fmt: skip
OTHER_COUNT = {"replacement-shares", "same-mask-rows", "same-mask-epochs"}  # in their messages


@pytest.mark.parametrize("breaks", BROKEN, ids=CODES)
def test_finding_and_fix(breaks):
    """The one finding is at the cause, and its fix makes it disappear."""
    code = breaks.__name__.replace("_", "-")
    batch, names = healthy(count=24)
    assert diagnose(batch, TOKENIZER, MODEL).codes == ()
    batch, given = breaks(batch, names)
    given = {"tokenizer": TOKENIZER, **given}
    diagnosis = diagnose(batch, **given)
    assert diagnosis.codes == (code,)
    (finding,) = diagnosis.findings
    assert finding.severity == RULES[code].severity
    assert (code in NO_PLACES) == (not finding.positions)
    assert len(set(finding.positions)) == len(finding.positions)
    if code not in (*NO_PLACES, *OTHER_COUNT):
        assert re.search(rf"\b{len(finding.positions)} ", finding.message)
    assert not any("failed with" in reason for _, reason in diagnosis.unchecked)

    names = run_fix(finding.fix, {**names, "batch": batch, "model": given.get("model", MODEL)})
    after = diagnose(names["batch"], **given)
    assert code not in after.codes
    if code != "device":  # a tensor on the meta device never has values
        assert after.ok, str(after)
    if after.ok and given.get("model") is None and isinstance(names["batch"], dict):
        keys = ("input_ids", "attention_mask", "labels")
        loss = MODEL(**{key: names["batch"][key] for key in keys if key in names["batch"]}).loss
        assert math.isfinite(loss.item())


@pytest.mark.parametrize("make", BROKEN, ids=CODES)
def test_a_batch_is_never_changed(make):
    batch, _ = make(*healthy(count=24))
    before = copy.deepcopy(batch)
    diagnose(batch, TOKENIZER, MODEL, whole_word=True)
    for one, two in zip(*(x if isinstance(x, list) else [x] for x in (batch, before)), strict=True):
        if isinstance(one, dict):
            assert one.keys() == two.keys()
            for key in one:
                same = one[key] == two[key]
                assert same if isinstance(same, bool) else same.is_meta or bool(same.all())


# Where a check begins and ends --------------------------------------------------------------------


def row_of(ids, labels, **more):
    """One row as a batch."""
    return {"input_ids": torch.tensor([ids]), "labels": torch.tensor([labels]), **more}


def only(batch, code, *given):
    """Return the finding of this code; there must be one."""
    (finding,) = [one for one in diagnose(batch, *given).findings if one.code == code]
    return finding


def test_the_fix_for_a_label_out_of_range_has_an_upper_bound_where_one_is_known():
    batch, names = healthy()
    batch["labels"][batch["labels"] != -100] = V
    finding = only(batch, "label-out-of-range", TOKENIZER)
    assert f"outside 0 to {V - 1} ({V}): it looks like a value for 'not scored'" in finding.message
    fix = finding.fix
    after = run_fix(fix, {**names, "batch": dict(batch)})["batch"]
    assert (after["labels"] == -100).all()
    two = only(row_of([CLS, 20, 21, SEP], [-8, -7, 21, -100]), "label-out-of-range")
    assert "outside 0 to the vocabulary (-8, -7); at" in two.message
    fix = only(row_of([CLS, 20, 21, SEP], [-100, -7, 21, -100]), "label-out-of-range").fix
    assert run_fix(fix, {"batch": row_of([1], [-7]), "torch": torch})["batch"]["labels"] == -100


def test_packed_rows_are_as_long_as_their_longest_text():
    ids = torch.full((1, 100), 20)
    places = torch.cat([torch.arange(64), torch.arange(36)]).unsqueeze(0)
    batch = {"input_ids": ids, "labels": ids * 0 - 100, "position_ids": places}
    assert "too-long" not in diagnose(batch, TOKENIZER, MODEL).codes
    batch["position_ids"] = torch.cat([torch.arange(65), torch.arange(35)]).unsqueeze(0)
    assert "rows have 65 positions" in only(batch, "too-long", TOKENIZER, MODEL).message


@pytest.mark.parametrize(("offset", "numbers", "limit"), [(0, 9, 9), (2, 9, 8), (0, 6, 6)])
def test_a_model_has_as_many_positions_as_its_table_its_offset_and_its_numbers_allow(
    offset, numbers, limit
):
    inner = torch.nn.Module()
    inner.position_embeddings = torch.nn.Linear(1, 1)  # not the table, in spite of its name
    inner.embed_positions = torch.nn.Embedding(10 - (offset == 0), 1)
    inner.embed_positions.offset = offset
    inner.register_buffer("position_ids", torch.arange(numbers))
    model = torch.nn.Module()
    model.inner = inner
    for columns, found in ((limit, ()), (limit + 1, ("too-long",))):
        batch = row_of([20] * columns, [-100, 21] + [-100] * (columns - 2))
        codes = diagnose(batch, None, model).codes
        assert tuple(code for code in codes if code == "too-long") == found


def test_what_cannot_be_read_is_told_with_its_reason():
    message = only({"input_ids": "a text", "labels": [[7]]}, "unreadable").message
    assert message == "these could not be read as integers, input_ids: it is a str."


def test_whole_numbers_in_floats_are_ids_of_the_wrong_dtype():
    batch, _ = healthy()
    floats = {**batch, "labels": batch["labels"].double()}
    assert diagnose(floats, TOKENIZER).codes == ("dtype",)
    assert torch.equal(Case(floats).labels, batch["labels"])


@pytest.mark.parametrize("labels", [None, [-100, -100, 21, -100]])
def test_ids_of_minus_100_that_have_no_label_become_the_original(labels):
    batch = row_of([CLS, -100, MASK, SEP], labels or [0])
    if labels is None:
        del batch["labels"]
    assert "== -100, original, " in only(batch, "ignore-in-input", TOKENIZER).fix


@pytest.mark.parametrize(("given", "last"), [((), "the vocabulary"), ((TOKENIZER,), V - 1)])
def test_an_id_outside_is_told_with_the_last_one(given, last):
    message = only(row_of([-5, 20], [-100, 20]), "input-out-of-range", *given).message
    assert message.startswith(f"1 input id is outside 0 to {last}, such as -5: were they made")


def test_ids_of_minus_100_are_told_alone_where_nothing_is_exchanged():
    message = only(row_of([-100, 20, MASK], [-100, -100, 21]), "ignore-in-input", TOKENIZER).message
    assert message == "1 input id is -100, which is no token; at (row, column) (0, 0)."


def test_labels_of_0_and_1_are_ids_where_there_are_no_other_ids():
    assert "labels-binary" not in diagnose(row_of([0, 1, 1], [0, 1, 0])).codes
    assert "labels-binary" in diagnose(row_of([0, 2, 1], [0, 1, 0])).codes


def test_labels_that_are_used_for_not_scored_are_where_they_stand():
    batch, _ = ignore_pad(*healthy())
    where = (batch["labels"] == PAD).nonzero().tolist()
    assert [list(place) for place in only(batch, "ignore-pad", TOKENIZER).positions] == where


def test_a_wrapped_model_is_the_model_inside():
    batch, _ = healthy()
    wrapped = torch.nn.DataParallel(MODEL)
    assert Case(batch, TOKENIZER, wrapped).rows_in == V
    assert Case(batch, TOKENIZER, wrapped).model is MODEL


def test_a_config_says_how_many_ids_a_model_scores():
    model = torch.nn.Linear(1, 1)
    model.config = BertConfig(vocab_size=30)
    batch = row_of([CLS, 20, MASK, SEP], [-100, -100, 30, -100])
    assert only(batch, "label-out-of-range", None, model).positions == ((0, 2),)


def test_an_object_with_keys_is_a_batch_and_a_number_is_none():
    class Batch:
        def __init__(self, values):
            self.values = values

        def keys(self):
            return self.values.keys()

        def __getitem__(self, key):
            return self.values[key]

        def __contains__(self, key):
            return key in self.values

    batch, _ = healthy()
    assert diagnose(Batch(batch), TOKENIZER, MODEL).codes == ()
    assert Case(Batch(batch)).is_mapping is True
    assert Case(3).is_mapping is False


def test_rows_in_a_list_are_stacked():
    batch, _ = healthy()
    batch = {key: list(value) for key, value in batch.items()}
    assert diagnose(batch, TOKENIZER, MODEL).codes == ()


@pytest.mark.parametrize("name", ["lables", "TARGET_LABEL", "Labels"])
def test_labels_without_any_minus_100_are_known_by_their_name(name):
    batch, _ = everything_labelled(*healthy())
    assert only(rename(batch, name), "labels-misnamed", TOKENIZER)
    assert "labels-misnamed" not in diagnose(rename(batch, "positions"), TOKENIZER).codes


def test_old_names_mean_labels_whatever_their_shape_and_an_unreadable_one_is_passed_over():
    batch, _ = healthy()
    labels = batch.pop("labels")
    short = {**batch, "masked_lm_labels": labels[:, 1:]}
    assert Case(short).label_key == "masked_lm_labels"
    assert Case({**batch, "targets": labels[:, 1:]}).label_key is None
    assert Case({**batch, "lm_labels": "none", "targets": labels}).label_key == "targets"


def test_a_mask_of_floats_hides_what_it_is_0_at_and_an_additive_one_what_is_far_below():
    batch, _ = healthy()
    visible = batch["attention_mask"].bool()
    assert not visible.all()
    for mask in (visible.float(), (~visible).float() * -1e4, torch.where(visible, 0, -1.5)):
        read = Case({**batch, "attention_mask": mask}).visible
        assert torch.equal(read, visible)


def test_one_blank_in_one_row_is_no_cloze():
    batch, names = healthy()
    where = (batch["input_ids"] == MASK).nonzero()[0].tolist()
    ids, labels = names["original"].clone(), names["original"] * 0 - 100
    labels[tuple(where)], ids[tuple(where)] = names["original"][tuple(where)], MASK
    one = {**batch, "input_ids": ids, "labels": labels}
    assert not Case(one, TOKENIZER).is_cloze
    assert diagnose(one, TOKENIZER).codes == ("selection-low",)


def test_a_scored_pair_that_the_model_can_read_is_no_blank():
    ids = torch.full((16, 30), 20)
    labels = torch.full((16, 30), -100)
    ids[:, 4], labels[:, 4:6] = MASK, 20
    assert not Case({"input_ids": ids, "labels": labels}, TOKENIZER).is_cloze
    ids[:, 5] = MASK
    assert Case({"input_ids": ids, "labels": labels}, TOKENIZER).is_cloze


@pytest.mark.parametrize("role", ["eos", "sep", "cls", "bos", "unk"])
def test_a_padding_token_with_another_role_means_more(role):
    tokenizer = copy.deepcopy(TOKENIZER)
    assert not Case({}, tokenizer).pad_means_more
    setattr(tokenizer, f"{role}_token", "mask")
    tokenizer.pad_token = "mask"
    assert Case({}, tokenizer).pad_means_more


def test_checks_without_what_they_need_are_told_with_the_reason():
    batch, _ = healthy()
    told = dict(diagnose(batch).unchecked)
    for code, need in (("special-labelled", "tokenizer"), ("label-is-mask", "tokenizer"),
                       ("too-long", "model"), ("vocab-mismatch", "tokenizer")):  # fmt: skip
        assert told[code] == f"no {need} given"
    assert dict(diagnose(batch, TOKENIZER, torch.nn.Linear(1, 1)).unchecked)["vocab-mismatch"] == (
        "the model has no embeddings"
    )
    del batch["attention_mask"]
    assert "no readable attention_mask" in dict(diagnose(batch).unchecked)["label-hidden"]
    causal = copy.deepcopy(TOKENIZER)
    causal.mask_token = None
    assert dict(diagnose(batch, causal).unchecked)["inverted"] == (
        "the tokenizer has no mask_token_id"
    )


def test_codes_with_one_reason_share_a_line():
    lines = str(diagnose(healthy()[0], TOKENIZER)).splitlines()
    (line,) = [one for one in lines if one.startswith("not checked, no model given: ")]
    assert line == "not checked, no model given: vocab-mismatch, too-long"


@pytest.mark.parametrize(("count", "more"), [(3, ""), (4, " and 1 more")])
def test_three_places_are_told_and_then_their_number(count, more):
    ids = [CLS, *[MASK] * count, 20, SEP]
    labels = [-100, *[MASK] * count, -100, -100]
    message = only(row_of(ids, labels), "label-is-mask", TOKENIZER).message
    assert message.endswith(f"; at (row, column) (0, 1), (0, 2), (0, 3){more}.")


def test_message_and_fix_end_with_one_full_stop(registry):
    rule("new", "warning")(lambda case: Problem("one thing", "another"))
    finding = only(healthy()[0], "new", TOKENIZER)
    assert str(finding) == "warning new: one thing.\n    fix: another."


@pytest.mark.parametrize("words", ["labels", (1,), ["labels", None], {"labels"}])
@pytest.mark.parametrize("name", ["needs", "unless"])
def test_needs_and_unless_are_lists_of_text(name, words):
    with pytest.raises(TypeError, match=f"^{name} must be a list or tuple of str"):
        rule("new", "info", **{name: words})


def test_hidden_labels_at_all_mask_tokens_are_said_to_be_there():
    batch, _ = label_hidden(*healthy())
    assert "exactly at the mask tokens" in only(batch, "label-hidden", TOKENIZER).message
    batch["attention_mask"][batch["input_ids"] == PAD] = 0
    assert "exactly" not in only(batch, "label-hidden", TOKENIZER).message


def test_padding_among_all_that_is_scored_is_counted():
    batch, _ = everything_labelled(*healthy())
    pads = int((batch["labels"] == PAD).sum())
    message = only(batch, "everything-labelled", TOKENIZER).message
    assert message.startswith(
        f"all {batch['labels'].numel()} positions are scored, {pads} of them padding: most answers "
        "can be copied from the input; at (row"
    )


def test_all_text_scored_and_its_ends_not_is_chance_in_a_short_text():
    few = row_of([CLS, 20, SEP], [-100, 20, -100])
    assert diagnose(few, TOKENIZER).ok
    many = row_of([CLS, *range(20, 40), SEP], [-100, *range(20, 40), -100])
    assert only(many, "everything-labelled", TOKENIZER).positions == tuple(
        (0, column) for column in range(1, 21)
    )
    ends = row_of([CLS, 20, SEP, PAD], [CLS, 20, SEP, -100])
    ends["attention_mask"] = torch.tensor([[1, 1, 1, 0]])
    assert diagnose(ends, TOKENIZER).codes == ("everything-labelled",)


def test_half_of_the_shown_text_is_not_inverted_and_one_more_is():
    ids = [CLS, 20, 21, 22, 23, MASK, MASK, SEP]
    labels = [-100, 20, 21, -100, -100, -100, -100, -100]
    assert "inverted" not in diagnose(row_of(ids, labels), TOKENIZER).codes
    labels[3] = 22
    assert only(row_of(ids, labels), "inverted", TOKENIZER).positions == ((0, 5), (0, 6))


def test_an_unknown_word_is_no_end_of_a_sentence():
    tokenizer = copy.deepcopy(TOKENIZER)
    tokenizer.bos_token = tokenizer.eos_token = tokenizer.unk_token
    ids = [CLS, *[20, 21, 22] * 4, MASK, MASK, SEP]
    labels = [-100] * 13 + [1, 20, -100]
    assert tokenizer.unk_token_id == 1
    assert "special-labelled" not in diagnose(row_of(ids, labels), tokenizer).codes
    assert "special-labelled" in diagnose(row_of(ids, [CLS, *labels[1:]]), tokenizer).codes


def test_a_tokenizer_without_names_for_its_ends_is_read():
    class Plain:
        mask_token_id, pad_token_id, mask_token, all_special_ids = MASK, PAD, "[MASK]", [PAD, MASK]

        def __len__(self):
            return V

    batch, _ = healthy()
    assert dict(diagnose(batch, Plain()).unchecked).get("special-labelled") is None


def test_an_earlier_batch_without_labels_says_nothing_about_masks():
    batch, names = healthy()
    without = {"input_ids": names["original"], "attention_mask": batch["attention_mask"]}
    assert "same-mask-epochs" not in diagnose([without, batch], TOKENIZER).codes
    assert "same-mask-epochs" in diagnose([without, batch, batch], TOKENIZER).codes


def test_few_positions_that_agree_are_chance():
    ids = [CLS, 20, 21, MASK, 23, SEP]
    labels = [-100, -100, -100, 22, -100, -100]
    batch = row_of(ids, labels)
    assert "same-mask-epochs" not in diagnose([batch, batch], TOKENIZER).codes
    wide = {key: value.repeat(1, 12) for key, value in batch.items()}
    assert "same-mask-epochs" in diagnose([wide, wide], TOKENIZER).codes


def test_a_tokenizer_without_a_length_cannot_say_which_ids_there_are():
    class Plain:
        mask_token_id, mask_token, all_special_ids = MASK, "[MASK]", [MASK]

    told = dict(diagnose(row_of([CLS, MASK], [-100, 20]), Plain()).unchecked)
    assert told["random-special"] == "neither a tokenizer nor a model given"


def test_scored_ends_are_padding_only_where_the_mask_hides_them():
    tokenizer = copy.deepcopy(TOKENIZER)
    tokenizer.pad_token = "[SEP]"
    batch = row_of([CLS, *range(20, 30), MASK, SEP, SEP], [*[-100] * 11, 31, SEP, -100])
    batch["attention_mask"] = torch.tensor([[1] * 13 + [0]])
    assert "padding-labelled" not in diagnose(batch, tokenizer).codes
    batch["labels"][0, 13] = SEP
    assert only(batch, "padding-labelled", tokenizer).positions == ((0, 13),)


def test_two_kinds_of_ends_are_told_with_their_ids():
    batch, names = healthy()
    for end in (CLS, SEP):
        batch["labels"][names["original"] == end] = end
    assert "scored, of the ids 2, 3; at" in only(batch, "special-labelled", TOKENIZER).message


def test_too_few_mask_tokens_alone_are_shares_that_no_recipe_has():
    policy = MaskingPolicy(select=0.3, mask=0.5, random=0.25)
    batch, _ = healthy(policy=policy, count=64)
    where = (batch["labels"] != -100) & (batch["input_ids"] != MASK)
    finding = only(batch, "replacement-shares", TOKENIZER)
    assert [list(place) for place in finding.positions] == where.nonzero().tolist()


def test_one_mask_for_all_rows_is_told_with_its_number_of_positions():
    batch, _ = same_mask_rows(*healthy(count=24))
    number = int((batch["labels"] != -100).any(dim=0).sum())
    message = only(batch, "same-mask-rows", TOKENIZER).message
    assert f"are masked at the same {number} positions; at" in message


def test_a_shift_is_seen_by_the_mask_tokens_where_many_are_random():
    batch, _ = healthy(policy=MaskingPolicy(mask=0.65, random=0.35), count=24)
    moved = {**batch, "labels": batch["labels"].roll(-1, dims=1)}
    assert diagnose(moved, TOKENIZER).codes == ("shifted",)


def test_labels_that_partly_fit_their_neighbours_are_not_shifted():
    ids = [CLS, *range(20, 40), SEP]
    labels = [-100] * len(ids)
    for number, column in enumerate(range(1, 21, 2)):
        labels[column] = ids[column + 1] if number < 7 else 50 + number
    assert "shifted" not in diagnose(row_of(ids, labels), TOKENIZER).codes
    alike = row_of([CLS, *[20] * 20, SEP], [-100, *[20, -100] * 10, -100])
    assert "shifted" not in diagnose(alike, TOKENIZER).codes


def test_two_labels_are_too_few_for_a_shift_and_three_are_not():
    for count, shifted_codes in ((2, ()), (3, ("shifted",))):
        ids = [CLS, *range(20, 20 + 2 * count), SEP]
        labels = [-100] * len(ids)
        for column in range(1, 2 * count, 2):
            labels[column] = ids[column + 1]
        found = diagnose(row_of(ids, labels), TOKENIZER).codes
        assert tuple(code for code in found if code == "shifted") == shifted_codes


# What each finding says ---------------------------------------------------------------------------


def test_positions_count_and_places_agree():
    ids = torch.tensor([[CLS, 20, MASK, 22, MASK, SEP]])
    labels = torch.tensor([[-100, -100, MASK, -100, MASK, -100]])
    (finding,) = diagnose({"input_ids": ids, "labels": labels}, TOKENIZER).findings
    assert finding.code == "label-is-mask"
    assert finding.positions == ((0, 2), (0, 4))
    assert finding.message.startswith("2 labels are 4, the id of [MASK] itself")
    assert "at (row, column) (0, 2), (0, 4)" in finding.message


def test_one_of_a_thing_is_not_told_as_many():
    ids, labels = torch.tensor([[CLS, 20, MASK, 22, SEP]]), torch.full((1, 5), -100)
    for label, start in (
        (MASK, "1 label is 4, the id"),
        (-1, "1 label is -1:"),
        (V, "1 label is "),
    ):
        labels[0, 2] = label
        finding = diagnose({"input_ids": ids, "labels": labels}, TOKENIZER).findings[0]
        assert finding.message.startswith(start)


def test_long_lists_of_places_are_cut_in_the_message_only():
    batch, names = healthy()
    (finding,) = diagnose({**batch, "labels": names["original"]}, TOKENIZER).findings
    assert len(finding.positions) == batch["labels"].numel()
    assert f"and {len(finding.positions) - 3} more" in finding.message


@pytest.mark.parametrize("make", [torch.Tensor.numpy, torch.Tensor.tolist])
def test_a_fix_runs_on_arrays_and_lists_too(make):
    batch, names = healthy()
    batch["labels"] = batch["labels"].where(batch["labels"] != -100, -1)
    batch = {key: make(value) for key, value in batch.items()}
    (finding,) = diagnose(batch, TOKENIZER).findings
    assert diagnose(run_fix(finding.fix, {**names, "batch": batch})["batch"], TOKENIZER).ok


def test_what_could_not_be_checked_is_said():
    batch, _ = healthy()
    unchecked = dict(diagnose(batch).unchecked)
    assert unchecked["label-is-mask"] == "no tokenizer given"
    assert unchecked["too-long"] == "no model given"
    assert "label-is-mask" not in dict(diagnose(batch, TOKENIZER).unchecked)
    assert "partial-word" not in unchecked  # nobody asked for whole words
    no_mask = copy.deepcopy(TOKENIZER)
    no_mask.mask_token = None
    assert dict(diagnose(batch, no_mask).unchecked)["label-is-mask"] == (
        "the tokenizer has no mask_token_id"
    )
    text = str(diagnose(batch))
    assert text.startswith("No error and no warning.")
    assert "not checked, no model given: too-long" in text


def test_words_of_a_tokenizer_without_marks_are_not_checked():
    flat = bert_tokenizer([*SPECIAL, *"abcdefgh"])
    ids, labels = torch.tensor([[2, 6, 4, 8, 3]]), torch.tensor([[-100, -100, 7, -100, -100]])
    diagnosis = diagnose({"input_ids": ids, "labels": labels}, flat, whole_word=True)
    assert ("partial-word", "no token of this batch says where a word begins") in (
        diagnosis.unchecked
    )


def test_html_has_a_caption_scopes_words_and_only_inline_styles():
    batch, names = healthy()
    page = diagnose({**batch, "labels": names["original"]}, TOKENIZER)._repr_html_()
    assert "<caption" in page
    assert 'scope="col"' in page
    assert 'scope="row"' in page
    assert "✗ error" in page  # a sign and a word, not only a colour
    assert not re.search(r"<script|<style|\bid=|\bclass=", page)
    assert "✓ no error and no warning" in diagnose(batch, TOKENIZER)._repr_html_()


def test_html_escapes_what_the_batch_says():
    page = diagnose({"<b>": 1})._repr_html_()
    assert "<b>" not in page
    assert "&lt;b&gt;" in page


def test_raise_for_errors_holds_every_error_and_no_warning():
    batch, names = healthy(count=24)
    special, _ = special_labelled(batch, names)
    diagnose(special, TOKENIZER).raise_for_errors()  # a warning does not stop a training
    with pytest.raises(ValueError, match=r"error ignore-minus-one: .*\n    fix: "):
        diagnose(ignore_minus_one(special, names)[0], TOKENIZER).raise_for_errors()


def test_three_mistakes_give_three_findings():
    batch, names = healthy(count=24)
    labels = batch["labels"].where(names["original"] != PAD, PAD).where(batch["labels"] != -100, -1)
    labels = labels.where(names["original"] != PAD, PAD).int()
    diagnosis = diagnose(rename({**batch, "labels": labels}, "lm_labels"), TOKENIZER)
    assert diagnosis.codes == ("labels-misnamed", "dtype", "ignore-minus-one", "padding-labelled")


# Variants of one code -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "masked_lm_labels",
        "lm_labels",
        "label",
        "Labels",
        "lables",
        "label_ids",
        "label_",
        "masked_lm_label",
        "answers",
    ],
)
def test_old_and_misspelled_names_of_the_labels(name):
    batch, _ = healthy()
    diagnosis = diagnose(rename(batch, name), TOKENIZER)
    assert diagnosis.codes == ("labels-misnamed",)
    assert repr(name) in diagnosis.findings[0].message


def test_a_label_of_the_whole_row_is_no_misnamed_label():
    batch, _ = healthy()
    batch = {**rename(batch, "x"), "label": torch.zeros(len(batch["input_ids"]))}
    del batch["x"]
    assert diagnose(batch, TOKENIZER).codes == ("labels-missing",)


def test_a_mask_of_the_labels_is_no_misnamed_label():
    batch, _ = healthy()
    given = {"input_ids": batch["input_ids"], "labels_mask": (batch["labels"] != -100).long()}
    assert diagnose(given, TOKENIZER).codes == ("labels-missing", "padding-attended")


def test_a_model_that_names_the_argument_so_is_right():
    class Old(torch.nn.Module):
        def forward(self, input_ids, masked_lm_labels=None):
            return None

    batch, _ = healthy()
    assert diagnose(rename(batch, "masked_lm_labels"), TOKENIZER, Old()).ok


@pytest.mark.parametrize(
    "wrong", [torch.float32, torch.int32, torch.int16, torch.uint8, torch.bool]
)
def test_label_dtypes_that_the_loss_refuses_or_that_lose_ids(wrong):
    batch, _ = healthy()
    diagnosis = diagnose({**batch, "labels": batch["labels"].to(wrong)}, TOKENIZER)
    assert diagnosis.codes == ("dtype",)


def test_bool_labels_are_a_selection_not_answers():
    batch, names = healthy(count=24)
    wrong = {**batch, "labels": batch["labels"] != -100}
    (finding,) = diagnose(wrong, TOKENIZER).findings
    after = run_fix(finding.fix, {**names, "batch": wrong})["batch"]
    assert torch.equal(after["labels"], batch["labels"])


def test_nan_in_the_labels():
    batch, _ = healthy()
    labels = batch["labels"].float()
    labels[0, 0] = math.nan
    diagnosis = diagnose({**batch, "labels": labels}, TOKENIZER)
    assert diagnosis.codes == ("dtype",)
    assert "unreadable" in diagnose({**batch, "labels": labels.tolist()}, TOKENIZER).codes or (
        diagnose({**batch, "labels": labels.tolist()}, TOKENIZER).codes == ("dtype",)
    )


@pytest.mark.parametrize("kind", ["tensor", "numpy", "lists", "UserDict"])
def test_every_kind_of_batch_is_read(kind):
    batch, _ = healthy()
    if kind == "numpy":
        batch = {key: value.numpy() for key, value in batch.items()}
    elif kind == "lists":
        batch = {key: value.tolist() for key, value in batch.items()}
    elif kind == "UserDict":
        batch = transformers.BatchEncoding(batch)
    assert diagnose(batch, TOKENIZER, MODEL).codes == ()


def test_one_text_without_a_batch_dimension():
    batch, _ = healthy()
    (finding,) = diagnose({key: value[0] for key, value in batch.items()}, TOKENIZER).findings
    assert finding.code == "shape"
    with pytest.raises((ValueError, IndexError), match=r"not enough values|too many indices"):
        MODEL(input_ids=batch["input_ids"][0])
    wrong = {key: value[0] for key, value in batch.items()}
    after = run_fix(finding.fix, {"batch": wrong})["batch"]
    assert diagnose(after, TOKENIZER).ok
    packed = {**wrong, "cu_seqlens": torch.tensor([0, 9, 20])}  # without padding, this is right
    assert "shape" not in diagnose(packed, TOKENIZER).codes


def test_attention_mask_of_another_shape():
    batch, names = healthy()
    wrong = {**batch, "attention_mask": batch["attention_mask"][:, :-1]}
    finding = diagnose(wrong, TOKENIZER).findings[0]
    assert finding.code == "shape"
    assert diagnose(run_fix(finding.fix, {**names, "batch": wrong})["batch"], TOKENIZER).ok


def test_packed_attention_masks_of_three_and_four_dimensions_are_read():
    batch, _ = healthy(count=24)
    row = batch["attention_mask"].bool()
    square = row[:, None, :] & row[:, :, None]
    additive = torch.zeros(square.shape).masked_fill(~square, -1e9)[:, None]
    for mask in (square, square[:, None], additive, batch["attention_mask"] * 3, row):
        assert diagnose({**batch, "attention_mask": mask}, TOKENIZER).codes == ()
    by_layer = {"full_attention": square, "sliding_attention": square}  # ModernBERT takes these
    assert diagnose({**batch, "attention_mask": by_layer}, TOKENIZER).ok


def test_the_fix_for_labelled_padding_runs_with_a_mask_of_four_dimensions():
    batch, names = healthy(count=24)
    mask = batch["attention_mask"]
    labels = batch["labels"].where(mask == 1, PAD)
    batch = {**batch, "labels": labels, "attention_mask": mask[:, None, None, :]}
    (finding,) = diagnose(batch, TOKENIZER).findings
    assert finding.code == "padding-labelled"
    fixed = run_fix(finding.fix, {**names, "batch": batch})["batch"]
    assert diagnose(fixed, TOKENIZER).ok


def test_labels_on_another_device_and_labels_strided_really_fail_in_the_model():
    batch, names = healthy()
    with pytest.raises(RuntimeError, match="view size is not compatible"):
        MODEL(**labels_strided(batch, names)[0])


@pytest.mark.parametrize("value", [-99, -2, V, V + 7])
def test_labels_that_are_no_id(value):
    batch, _ = healthy()
    labels = batch["labels"].where(batch["labels"] != -100, value)
    diagnosis = diagnose({**batch, "labels": labels}, TOKENIZER, MODEL)
    assert diagnosis.codes == ("label-out-of-range",)
    assert "looks like a value for 'not scored'" in diagnosis.findings[0].message
    with pytest.raises(IndexError, match=f"Target {value} is out of bounds"):
        MODEL(**{**batch, "labels": labels})


def test_the_ignore_value_zero_is_named_without_a_tokenizer():
    batch, names = healthy()
    broken, _ = ignore_pad(batch, names)
    (finding,) = diagnose(broken).findings
    assert finding.code == "ignore-pad"
    assert "0 is used" in finding.message
    assert "[PAD] is used" in diagnose(broken, TOKENIZER).findings[0].message


def test_the_ignore_value_zero_is_found_where_padding_is_another_id():
    other = copy.deepcopy(TOKENIZER)
    other.pad_token = "[UNK]"
    batch, _ = healthy()
    batch["labels"] = batch["labels"].where(batch["labels"] != -100, 0)
    batch["input_ids"] = batch["input_ids"].where(batch["input_ids"] != PAD, other.pad_token_id)
    assert diagnose(batch, other).codes == ("ignore-pad",)


def test_exchanged_ids_and_labels():
    batch, names = healthy(count=24)
    wrong = {**batch, "input_ids": batch["labels"], "labels": batch["input_ids"]}
    (finding,) = diagnose(wrong, TOKENIZER, MODEL).findings
    assert "look exchanged" in finding.message
    after = run_fix(finding.fix, {**names, "batch": wrong})["batch"]
    assert diagnose(after, TOKENIZER).ok


def test_labels_are_inputs_on_one_short_sentence():
    """transformers#20797: even 9 tokens are proof, because [CLS] and [SEP] are scored too."""
    ids = TOKENIZER("bad bell bink", return_tensors="pt")["input_ids"]
    assert diagnose({"input_ids": ids, "labels": ids}, TOKENIZER).codes == ("everything-labelled",)
    assert diagnose({"input_ids": ids, "labels": ids}).codes == ("everything-labelled",)


def test_labels_are_inputs_after_masking_is_one_finding():
    batch, names = healthy()
    wrong = {**batch, "labels": batch["input_ids"]}
    (finding,) = diagnose(wrong, TOKENIZER).findings
    assert finding.code == "everything-labelled"
    assert "where [MASK] stands, the label is [MASK] too" in finding.message
    after = run_fix(finding.fix, {**names, "batch": wrong})["batch"]
    assert "everything-labelled" not in diagnose(after, TOKENIZER).codes


def test_labels_are_inputs_without_masking_advises_to_mask():
    batch, names = healthy(count=24)
    wrong = {**batch, "input_ids": names["original"], "labels": names["original"]}
    (finding,) = diagnose(wrong, TOKENIZER).findings
    assert "nothing is masked either" in finding.fix
    assert diagnose(run_fix(finding.fix, {**names, "batch": wrong})["batch"], TOKENIZER).ok


def test_a_causal_collator_is_recognised():
    rows = make_rows()
    batch = DataCollatorForLanguageModeling(TOKENIZER, mlm=False)(rows)
    assert diagnose(batch, TOKENIZER).codes == ("everything-labelled",)
    ids = batch["input_ids"]
    moved = torch.cat([ids[:, 1:], torch.full((len(ids), 1), -100)], dim=1)
    assert diagnose({"input_ids": ids, "labels": moved}, TOKENIZER).codes[0] == "shifted"


@pytest.mark.parametrize("step", [1, -1])
def test_shifts_in_both_directions_are_put_back(step):
    batch, names = healthy()
    wrong = {**batch, "labels": batch["labels"].roll(step, dims=1)}
    (finding,) = diagnose(wrong, TOKENIZER).findings
    assert finding.code == "shifted"
    word = "next" if step == -1 else "previous"
    assert f"labels belong to the {word} position: masked models" in finding.message
    after = run_fix(finding.fix, {**names, "batch": wrong})["batch"]
    assert torch.equal(after["labels"], batch["labels"])


def test_one_shifted_label_is_seen_where_its_mask_stands_alone():
    ids = torch.tensor([[CLS, 20, 21, MASK, 23, 24, SEP]])
    labels = torch.tensor([[-100, -100, 22, -100, -100, -100, -100]])
    assert diagnose({"input_ids": ids, "labels": labels}, TOKENIZER).codes == ("shifted",)


def test_a_token_that_is_its_own_answer_beside_a_bare_mask_is_not_shifted():
    ids = torch.tensor([[CLS, 20, 21, MASK, 23, 24, SEP]])
    labels = torch.tensor([[-100, -100, 21, -100, -100, -100, -100]])
    assert diagnose({"input_ids": ids, "labels": labels}, TOKENIZER).codes == (
        "mask-without-label",
    )


def test_padding_labelled_without_an_attention_mask_and_without_a_tokenizer():
    batch, names = healthy(count=24)
    wrong, _ = padding_labelled(batch, names)
    assert diagnose(wrong).codes == ("padding-labelled",)
    del wrong["attention_mask"]
    diagnosis = diagnose(wrong, TOKENIZER)
    assert diagnosis.codes == ("padding-labelled", "padding-attended")
    after = run_fix(diagnosis.findings[0].fix, {**names, "batch": wrong})["batch"]
    assert diagnose(after, TOKENIZER).ok


def test_attention_mask_upside_down():
    batch, names = healthy(count=24)
    wrong = {**batch, "attention_mask": 1 - batch["attention_mask"]}
    diagnosis = diagnose(wrong, TOKENIZER)
    assert diagnosis.codes == ("label-hidden",)
    after = run_fix(diagnosis.findings[0].fix, {**names, "batch": wrong})["batch"]
    assert diagnose(after, TOKENIZER).ok


def test_random_tokens_from_the_whole_vocabulary_are_an_info():
    """The collator of transformers draws special tokens too; that is no mistake of the reader."""
    collator = DataCollatorForLanguageModeling(TOKENIZER, seed=1)
    rows = make_rows(64, 30)
    found = [diagnose(collator(rows), TOKENIZER) for _ in range(5)]
    assert all(diagnosis.ok for diagnosis in found)
    assert {code for diagnosis in found for code in diagnosis.codes} == {"random-special"}


def test_a_mask_token_in_the_text_is_a_warning_not_a_copied_label():
    """A precomputed special_tokens_mask is 0 at a literal [MASK], so a collator may select it."""
    batch, names = healthy(count=24)
    names["original"][0, 3] = MASK
    for key in ("input_ids", "labels"):
        batch[key][0, 3] = MASK
    (finding,) = diagnose(batch, TOKENIZER).findings
    assert (finding.code, finding.severity) == ("label-is-mask", "warning")
    assert finding.positions == ((0, 3),)
    after = run_fix(finding.fix, {**names, "batch": batch})["batch"]
    assert "label-is-mask" not in diagnose(after, TOKENIZER).codes


def test_a_text_about_masks_is_a_warning_where_other_rows_are_masked():
    batch, names = healthy(count=24)
    batch["input_ids"][5], batch["labels"][5] = names["original"][5], -100
    batch["input_ids"][5, 3:6] = torch.tensor(TOKENIZER.convert_tokens_to_ids(["<", "mask", ">"]))
    (finding,) = diagnose(batch, TOKENIZER).findings
    assert (finding.code, finding.severity) == ("foreign-mask", "warning")


def test_embeddings_in_place_of_ids_are_not_an_error():
    diagnosis = diagnose({"inputs_embeds": torch.ones(2, 3, 4), "labels": torch.ones(2, 3).long()})
    assert diagnosis.ok
    assert ("no-input-ids", "the batch has inputs_embeds in place of input_ids") in (
        diagnosis.unchecked
    )


@pytest.mark.parametrize("word", ["[MASK]", "<mask>"])
def test_each_spelling_is_foreign_to_the_other_family(word):
    own = {"[MASK]": "<mask>", "<mask>": "[MASK]"}[word]
    tokenizer = bert_tokenizer([*SPECIAL[:4], own, "[", "]", "<", ">", "mask", *WORDS], own)
    ids = tokenizer([f"bad {word} bell"], return_tensors="pt")["input_ids"]
    labels = torch.where(ids == tokenizer.mask_token_id, ids, -100)
    diagnosis = diagnose({"input_ids": ids, "labels": labels}, tokenizer)
    assert diagnosis.codes == ("foreign-mask",)
    assert word in diagnosis.findings[0].fix


def test_a_foreign_mask_explains_a_low_rate():
    row = TOKENIZER(" ".join([*WORDS, "<mask>"]), return_tensors="pt")["input_ids"].repeat(4, 1)
    batch = {"input_ids": row, "labels": row.where(row == MASK, -100)}
    assert diagnose(batch, TOKENIZER).codes == ("foreign-mask",)


def test_an_empty_batch_of_short_texts_is_an_error_of_its_own():
    """tokenizers#1193: no selected position in 5 tokens is an accident, and still nan."""
    batch = {"input_ids": torch.tensor([[CLS, 20, 21, SEP]]), "labels": torch.full((1, 4), -100)}
    (finding,) = diagnose(batch, TOKENIZER, MODEL).findings
    assert finding.code == "nothing-labelled"
    assert math.isnan(MODEL(**batch).loss.item())
    names = {"batch": batch, "original": batch["input_ids"].clone(), "tokenizer": TOKENIZER}
    assert diagnose(run_fix(finding.fix, names)["batch"], TOKENIZER).ok


# Models -------------------------------------------------------------------------------------------


def test_the_positions_of_roberta_begin_after_the_padding_id():
    model = RobertaForMaskedLM(RobertaConfig(**config(max_position_embeddings=66, pad_token_id=1)))
    for length, codes in ((64, ()), (65, ("too-long",))):
        ids = torch.full((1, length), 20)
        labels = torch.full((1, length), -100)
        labels[0, 3] = 20
        batch = {"input_ids": ids, "labels": labels}
        assert diagnose(batch, model=model).codes == codes
        if codes:
            with pytest.raises((IndexError, RuntimeError)):
                model(**batch)
        else:
            assert math.isfinite(model(**batch).loss)


def test_a_model_without_a_table_of_positions_has_no_limit():
    sizes = config(max_position_embeddings=16, pad_token_id=0, global_attn_every_n_layers=1)
    model = ModernBertForMaskedLM(ModernBertConfig(**sizes)).eval()
    batch, _ = healthy(length=40)
    assert diagnose(batch, TOKENIZER, model).codes == ()


def test_more_rows_than_tokens_is_usual():
    batch, _ = healthy()
    assert diagnose(batch, TOKENIZER, bert(vocab_size=None or V + 27)).codes == ()


@pytest.mark.parametrize("model", [object(), torch.nn.Linear(2, 2), "bert-base-uncased", 3])
def test_something_that_is_no_model_is_survived(model):
    batch, _ = healthy()
    assert diagnose(batch, TOKENIZER, model).ok


# Statistics ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "p"), [(1, 0.5), (10, 0.15), (25, 0.7), (40, 0.4)])
def test_binomial_tails_are_the_sums_of_their_terms(n, p):
    terms = [math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(n + 1)]
    for k in range(n + 1):
        assert at_least(k, n, p) == pytest.approx(sum(terms[k:]), rel=1e-9)
        assert at_most(k, n, p) == pytest.approx(sum(terms[: k + 1]), rel=1e-9)


def test_binomial_tails_of_large_batches_stay_between_0_and_1():
    exact = sum(math.comb(2000, k) * 3**k * 17 ** (2000 - k) for k in range(350, 2001))
    assert at_least(350, 2000, 0.15) == pytest.approx(exact / 20**2000, rel=1e-9)
    assert 0 <= at_least(16384, 16384, 0.15) <= at_least(0, 16384, 0.15) == 1


@pytest.mark.parametrize("select", [0.15, 0.25, 0.4])
@pytest.mark.parametrize("shares", [(0.8, 0.1), (1.0, 0.0), (0.85, 0.0), (0.8, 0.2)])
def test_known_recipes_are_healthy(select, shares):
    policy = MaskingPolicy(select=select, mask=shares[0], random=shares[1])
    for seed in range(5):
        batch, _ = healthy(seed=seed, policy=policy, count=32)
        assert diagnose(batch, TOKENIZER, MODEL).ok


@hypothesis.settings(max_examples=60, deadline=None, derandomize=True)
@hypothesis.given(seed=st.integers(0, 10**6), count=st.integers(1, 3), length=st.integers(9, 12))
def test_small_batches_raise_no_statistical_alarm(seed, count, length):
    batch, _ = healthy(seed=seed, count=count, length=length)
    codes = set(diagnose(batch, TOKENIZER).codes)
    assert codes <= {"nothing-labelled"}


def test_one_mask_in_each_row_is_a_cloze_not_a_low_rate():
    ids = torch.randint(14, V, (40, 30), generator=torch.Generator().manual_seed(0))
    cells = torch.arange(40) % 29
    labels = torch.full_like(ids, -100)
    labels[torch.arange(40), cells] = ids[torch.arange(40), cells]
    masked = ids.clone()
    masked[torch.arange(40), cells] = MASK
    assert diagnose({"input_ids": masked, "labels": labels}, TOKENIZER).ok


def test_the_score_of_a_sentence_is_healthy():
    """Pseudo-log-likelihood: a copy of the sentence for each token, with that token masked."""
    ids = TOKENIZER(" ".join(WORDS[:24]), return_tensors="pt")["input_ids"].repeat(24, 1)
    eye = torch.eye(ids.shape[1], dtype=torch.bool)[1:-1]
    batch = {"input_ids": ids.masked_fill(eye, MASK), "labels": ids.where(eye, -100)}
    assert diagnose(batch, TOKENIZER).ok
    template = ids.clone()
    template[:, 5] = MASK
    labels = torch.full_like(ids, -100)
    labels[:, 5] = torch.arange(20, 44)
    assert diagnose({"input_ids": template, "labels": labels}, TOKENIZER).ok


def blanks(*columns, rows=16):
    """A batch with [MASK] at some columns of each row, and what the batch would be without."""
    ids = torch.randint(14, V, (rows, 40), generator=torch.Generator().manual_seed(0))
    chosen = torch.zeros_like(ids, dtype=torch.bool)
    for row in range(rows):
        chosen[row, [(column + 3 * row) % 40 for column in columns]] = True
    return {"input_ids": ids.masked_fill(chosen, MASK), "labels": ids.where(chosen, -100)}


def test_two_blanks_or_one_span_in_each_row_are_no_low_rate():
    assert diagnose(blanks(4, 20), TOKENIZER).ok
    spans = [blanks(*range(4, 4 + length), rows=1) for length in (1, 2, 3, 2)]
    batch = {key: torch.cat([span[key] for span in spans]) for key in spans[0]}
    assert diagnose(batch, TOKENIZER).ok
    uneven = blanks(4, 20)
    row, column = (uneven["labels"] != -100).nonzero()[0].tolist()
    uneven["input_ids"][row, column] = uneven["labels"][row, column]
    uneven["labels"][row, column] = -100
    assert diagnose(uneven, TOKENIZER).codes == ("selection-low",)


def test_a_prompt_with_the_blank_at_one_place_is_no_mask_for_all_rows():
    """Other texts after the same prompt, as pattern-exploiting training makes them."""
    ids = torch.randint(14, V, (16, 30), generator=torch.Generator().manual_seed(0))
    labels = torch.full_like(ids, -100)
    labels[:, 3] = ids[:, 3]
    ids[:, 3] = MASK
    assert diagnose({"input_ids": ids, "labels": labels}, TOKENIZER).ok


def test_texts_of_one_masked_word_are_not_copied():
    """Nothing can be copied where every token is hidden."""
    ids = torch.tensor([[CLS, MASK, SEP]] * 12)
    labels = torch.tensor([[-100, 20 + row, -100] for row in range(12)])
    assert diagnose({"input_ids": ids, "labels": labels}, TOKENIZER).ok


def test_one_mask_for_all_batches_and_new_masks_for_each_epoch():
    first, names = healthy(count=24)
    second, _ = healthy(count=24, seed=1)
    assert diagnose([first, second], TOKENIZER).ok
    again = dict(first)
    again["input_ids"], again["labels"] = mask_tokens(
        names["original"], TOKENIZER, generator=torch.Generator().manual_seed(9)
    )
    assert diagnose([first, again], TOKENIZER).ok
    chosen = first["labels"] != -100
    other = torch.randint(14, V, chosen.shape, generator=torch.Generator().manual_seed(2))
    reused = {"input_ids": other.masked_fill(chosen, MASK), "labels": other.where(chosen, -100)}
    assert "same-mask-epochs" in diagnose([first, reused], TOKENIZER).codes


def test_a_list_says_in_which_batches():
    batch, names = healthy(count=24)
    wrong, _ = ignore_minus_one(batch, names)
    other, _ = healthy(count=24, seed=5)
    (finding,) = diagnose([other, wrong], TOKENIZER).findings
    assert finding.batches == (1,)
    assert "In 1 of 2 batches; these positions are of batch 1" in finding.message


def test_whole_words_of_every_marking():
    batch, names = healthy(count=24)
    policy = MaskingPolicy(whole_word=True)
    ids, labels = mask_tokens(
        names["original"],
        TOKENIZER,
        policy=policy,
        word_ids=names["word_ids"],
        generator=torch.Generator().manual_seed(0),
    )
    batch |= {"input_ids": ids, "labels": labels}
    assert diagnose(batch, TOKENIZER, whole_word=True).codes == ()


# Garbage ------------------------------------------------------------------------------------------

GARBAGE = [
    None,
    3,
    "a text",
    b"bytes",
    [],
    {},
    object(),
    [None, 3],
    {"input_ids": None},
    {"input_ids": "a text", "labels": "a text"},
    {"input_ids": [[1, 2], [3]], "labels": [[1, 2], [3]]},
    {"input_ids": [], "labels": []},
    {"input_ids": [[]], "labels": [[]]},
    {"input_ids": [[[1]]], "labels": [[[1]]]},
    {"input_ids": torch.zeros(2, 0, dtype=torch.long), "labels": torch.zeros(2, 0)},
    {"input_ids": torch.zeros(0, 3), "labels": torch.zeros(0, 3)},
    {"input_ids": torch.tensor(5), "labels": torch.tensor(5)},
    {"input_ids": torch.ones(2, 3, 4), "labels": torch.ones(2, 3, 4)},
    {"input_ids": torch.full((2, 3), math.nan), "labels": torch.full((2, 3), math.inf)},
    {"input_ids": torch.ones(2, 3, dtype=torch.cfloat), "labels": torch.ones(2, 3)},
    {"input_ids": torch.ones(2, 3, device="meta"), "labels": torch.ones(2, 3, device="meta")},
    {"input_ids": torch.eye(3).to_sparse().long(), "labels": torch.eye(3).long()},
    {"input_ids": torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]), "labels": None},
    {"input_ids": np.array([["a", None]], dtype=object), "labels": np.array([1.5])},
    {"input_ids": np.array([[1, 2]], dtype=np.uint16), "labels": np.array([[1, -100]])},
    {"input_ids": [[10**30, 1]], "labels": [[1, 10**30]]},
    {"input_ids": [[-(2**63), 2**63 - 1]], "labels": [[2**63 - 1, -(2**63)]]},
    {"input_ids": [[True, False]], "labels": [[True, False]]},
    {"input_ids": [torch.ones(2), torch.ones(3)], "labels": [torch.ones(2), 1]},
    {"input_ids": [[1, 2]], "labels": {"a": 1}, "attention_mask": "yes", 7: object()},
    {"input_ids": [[1, 2]], "labels": [[1, 2]], "attention_mask": [[[[1, 0]]]], None: 1},
    {"input_ids": [[1, 2]], "labels": [[1, 2]], "attention_mask": 1, "position_ids": "x"},
    {"input_ids": {1, 2}, "labels": iter([1, 2])},
    dict,
    torch.ones(2, 3),
    np.ones((2, 3)),
]


class Hostile(dict):
    """A mapping that raises whenever it is read."""

    def __getitem__(self, key):
        raise RuntimeError("no")

    def __contains__(self, key):
        raise RuntimeError("no")


# Named by number: the repr of some holds an address, and so would be another name in each run.
@pytest.mark.parametrize("batch", [*GARBAGE, Hostile(input_ids=1)], ids=range(len(GARBAGE) + 1))
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_garbage_is_a_finding_and_never_an_exception(batch):
    for tokenizer, model in ((None, None), (TOKENIZER, MODEL), ("bert", "bert")):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            diagnosis = diagnose(batch, tokenizer, model, whole_word=True)
        assert any(finding.severity == "error" for finding in diagnosis.findings), str(diagnosis)
        if tokenizer != "bert":
            broken = [reason for _, reason in diagnosis.unchecked if "failed with" in reason]
            assert not broken
        assert diagnosis._repr_html_()
        assert str(diagnosis)


values = st.one_of(
    st.none(),
    st.integers(-(2**64), 2**64),
    st.floats(),
    st.text(max_size=3),
    st.lists(st.lists(st.integers(-200, 200), max_size=4), max_size=3),
    st.lists(st.one_of(st.integers(-101, 99), st.floats(), st.none()), max_size=4),
    st.builds(
        lambda shape, dtype, low: torch.full(shape, low).to(dtype),
        st.lists(st.integers(0, 3), max_size=4),
        st.sampled_from([torch.int64, torch.int8, torch.bool, torch.float32, torch.float16]),
        st.integers(-100, 100),
    ),
)


@hypothesis.settings(max_examples=100, deadline=None, derandomize=True)
@hypothesis.given(
    st.dictionaries(
        st.sampled_from(["input_ids", "labels", "attention_mask", "lm_labels", "position_ids"]),
        values,
    )
)
def test_no_value_makes_a_check_fail(batch):
    diagnosis = diagnose(batch, TOKENIZER, MODEL, whole_word=True)
    assert not [reason for _, reason in diagnosis.unchecked if "failed with" in reason]


# Checks of your own -------------------------------------------------------------------------------


def test_a_registered_check_runs_and_its_mask_becomes_positions(registry):
    @rule("odd-label", "info", needs=("labels",))
    def odd_label(case):
        where = case.scored & (case.labels % 2 == 1)
        return Problem("odd", "use even ids", where) if where.any() else None

    batch = {"input_ids": torch.tensor([[20, 21]]), "labels": torch.tensor([[-100, 21]])}
    (finding,) = diagnose(batch).findings
    assert (finding.code, finding.positions) == ("odd-label", ((0, 1),))
    del registry["odd-label"]
    assert diagnose(batch).codes == ()


def test_a_check_is_silent_after_a_finding_that_explains_it(registry):
    @rule("mine", "error", unless=("ignore-minus-one",))
    def mine(case):
        return Problem("always", "never")

    batch, names = healthy()
    assert diagnose(batch).codes == ("mine",)
    assert diagnose(ignore_minus_one(batch, names)[0]).codes == ("ignore-minus-one",)


def test_a_cell_can_be_run_twice_but_not_replace_a_code_of_the_package(registry):
    for text in ("first", "second"):
        rule("mine", "info")(lambda case, text=text: Problem(text, text))
    assert diagnose({"input_ids": [[1]], "labels": [[1]]}).findings[-1].message == "second."
    with pytest.raises(ValueError, match="'shape' is mlmtutor's own: choose another"):
        rule("shape", "info")(lambda case: None)
    with pytest.raises(ValueError, match="severity must be error, warning or info, but is 'bad'"):
        rule("other", "bad")


def test_a_check_that_raises_is_reported_not_raised(registry):
    rule("mine", "info")(lambda case: 1 / 0)
    batch, _ = healthy()
    assert ("mine", "the check failed with ZeroDivisionError: division by zero") in (
        diagnose(batch).unchecked
    )


def test_a_need_that_does_not_exist_is_reported_not_raised(registry):
    rule("mine", "info", needs=("lables",))(lambda case: None)
    (reason,) = [reason for code, reason in diagnose(healthy()[0]).unchecked if code == "mine"]
    assert "AttributeError" in reason


def test_every_check_says_its_symptom_and_its_source():
    for item in [*RULES.values(), *TRAINER_RULES.values()]:
        assert "Symptom: " in item.function.__doc__
        assert "Source: " in item.function.__doc__
        assert set(item.unless) <= {*RULES, *TRAINER_RULES}


def test_what_one_of_several_batches_leaves_unchecked_is_kept():
    batch, names = healthy()
    without, _ = padding_attended(batch, names)
    for batches in ([without, batch], [batch, without]):
        assert "label-hidden" in dict(diagnose(batches, TOKENIZER).unchecked)


def test_a_fix_for_lists_makes_tensors_of_all_that_it_may_read():
    batch, _ = healthy()
    lists = {key: value.tolist() for key, value in batch.items()}
    lists["labels"] = lists["input_ids"]
    [finding] = [f for f in diagnose(lists, TOKENIZER).findings if f.severity == "error"]
    assert "for key in ['input_ids', 'attention_mask', 'labels']}" in finding.fix


# CheckedCollator ----------------------------------------------------------------------------------


def test_checked_collator_raises_on_errors_and_passes_the_rest_through():
    collator = DataCollatorForLanguageModeling(TOKENIZER, seed=1)
    checked = CheckedCollator(collator, TOKENIZER)
    plain = DataCollatorForLanguageModeling(TOKENIZER, seed=1)
    rows = make_rows()
    for _ in range(3):
        one, two = checked(rows), plain(rows)
        assert all(torch.equal(one[key], two[key]) for key in two)
    wrong = CheckedCollator(lambda rows: {**pad(rows), "labels": pad(rows)["input_ids"]}, TOKENIZER)
    with pytest.raises(ValueError, match="error everything-labelled"):
        wrong(rows)


def test_checked_collator_logs_a_warning_once_and_looks_at_the_first_batches_only(caplog):
    calls = []

    def collator(rows):
        calls.append(rows)
        batch, names = healthy(seed=len(calls), count=24)
        return special_labelled(batch, names)[0] if len(calls) < 3 else "not a batch at all"

    checked = CheckedCollator(collator, TOKENIZER, batches=2)
    with caplog.at_level(logging.WARNING, logger="mlmtutor.doctor"):
        results = [checked([]) for _ in range(4)]
    assert [record.getMessage().split(":")[0] for record in caplog.records] == [
        "warning special-labelled"
    ]
    assert results[3] == "not a batch at all"


def test_checked_collator_sees_a_mask_that_comes_again(caplog):
    rows = make_rows(24)

    def collator(rows):
        torch.manual_seed(0)
        return DataCollatorForLanguageModeling(TOKENIZER, random_replace_prob=0.0)(rows)

    checked = CheckedCollator(collator, TOKENIZER)
    with caplog.at_level(logging.WARNING, logger="mlmtutor.doctor"):
        checked(rows)
        checked(rows)
    assert "same-mask-epochs" in caplog.text


def test_checked_collator_looks_at_two_batches_unless_told_otherwise():
    assert CheckedCollator(pad, TOKENIZER).batches == 2
    assert CheckedCollator(pad, TOKENIZER, batches=1).batches == 1


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


# Trainer ------------------------------------------------------------------------------------------


class Columns(list):
    """A list of examples that knows its columns, as a dataset does."""

    @property
    def column_names(self):
        return list(self[0])


def trainer_for(tmp_path, model=None, steps=4, train=None, collator=None, evaluation=None, **more):
    arguments = TrainingArguments(
        output_dir=str(tmp_path),
        gradient_accumulation_steps=steps,
        per_device_train_batch_size=4,
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
        data_collator=collator or DataCollatorForLanguageModeling(TOKENIZER),
        processing_class=TOKENIZER,
    )


def accumulated(trainer, rows):
    """The gradient norm of one optimizer step over the rows, as the trainer makes it."""
    steps = trainer.args.gradient_accumulation_steps
    size = len(rows) // steps
    batches = [
        {key: value[i : i + size] for key, value in rows.items()}
        for i in range(0, len(rows["labels"]), len(rows["labels"]) // steps)
    ]
    items = trainer._get_num_items_in_batch(batches, torch.device("cpu"))
    trainer.current_gradient_accumulation_steps = steps
    trainer.model.zero_grad()
    for batch in batches:
        trainer.training_step(trainer.model, batch, num_items_in_batch=items)
    return torch.cat([p.grad.flatten() for p in trainer.model.parameters() if p.grad is not None])


def test_bert_with_accumulation_is_inflated_and_the_fix_cures_it(tmp_path):
    trainer = trainer_for(tmp_path)
    diagnosis = diagnose_trainer(trainer)
    if not trainer.model_accepts_loss_kwargs:  # 4.57: no **kwargs in forward
        assert diagnosis.ok
        return
    assert diagnosis.codes == ("accumulation-inflated",)
    assert "4 times too large" in diagnosis.findings[0].message
    run_fix(diagnosis.findings[0].fix, {"trainer": trainer, "model": trainer.model})
    assert diagnose_trainer(trainer).ok
    again = trainer_for(tmp_path, model=trainer.model)  # accepts_loss_kwargs = False is on it
    assert diagnose_trainer(again).ok


def test_what_is_called_inflated_is_inflated(tmp_path):
    """The gradient of one batch of 4 rows, four times, against the same 16 rows at once."""
    batch, _ = healthy(count=4)
    norms = {}
    for steps in (1, 4):
        trainer = trainer_for(tmp_path, model=bert(hidden_dropout_prob=0.0), steps=steps)
        trainer.create_optimizer()
        items = trainer._get_num_items_in_batch([batch] * steps, torch.device("cpu"))
        trainer.current_gradient_accumulation_steps = steps
        for _ in range(steps):
            trainer.training_step(trainer.model, dict(batch), num_items_in_batch=items)
        norms[steps] = float(
            torch.stack(
                [p.grad.norm() for p in trainer.model.parameters() if p.grad is not None]
            ).norm()
        )
        found = "accumulation-inflated" in diagnose_trainer(trainer).codes
        assert found == (steps == 4 and trainer.model_accepts_loss_kwargs)
    inflated = trainer.model_accepts_loss_kwargs
    assert norms[4] / norms[1] == pytest.approx(4 if inflated else 1, rel=0.05)


def test_a_model_that_divides_by_the_number_is_right(tmp_path):
    sizes = config(max_position_embeddings=64, pad_token_id=0, global_attn_every_n_layers=1)
    model = ModernBertForMaskedLM(ModernBertConfig(**sizes))
    trainer = trainer_for(tmp_path, model=model)
    assert trainer.model_accepts_loss_kwargs
    assert diagnose_trainer(trainer).ok
    assert trainer.model.training == model.training


def test_one_step_or_a_loss_function_of_ones_own_is_right(tmp_path):
    assert diagnose_trainer(trainer_for(tmp_path, steps=1)).ok

    class Right(Trainer):
        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            logits = model(input_ids=inputs["input_ids"]).logits
            total = torch.nn.functional.cross_entropy(
                logits.flatten(0, 1), inputs["labels"].flatten(), reduction="sum"
            )
            return total / num_items_in_batch

    trainer = trainer_for(tmp_path)
    trainer.__class__ = Right
    assert diagnose_trainer(trainer).ok


def test_a_label_column_that_trainer_drops(tmp_path):
    rows = Columns({**row, "mlm_labels": row["input_ids"]} for row in make_rows())
    trainer = trainer_for(
        tmp_path, steps=1, train=rows, collator=transformers.default_data_collator
    )
    diagnosis = diagnose_trainer(trainer)
    assert diagnosis.codes == ("column-dropped",)
    run_fix(diagnosis.findings[0].fix, {"trainer": trainer})
    assert diagnose_trainer(trainer).ok
    kept = trainer_for(tmp_path, steps=1, train=rows, remove_unused_columns=False)
    assert diagnose_trainer(kept).ok


def test_labels_that_the_collator_overwrites(tmp_path):
    rows = Columns({**row, "labels": row["input_ids"]} for row in make_rows())
    trainer = trainer_for(tmp_path, steps=1, train=rows)
    diagnosis = diagnose_trainer(trainer)
    assert diagnosis.codes == ("labels-overwritten",)
    run_fix(diagnosis.findings[0].fix, {"trainer": trainer, "transformers": transformers})
    assert diagnose_trainer(trainer).ok


def test_an_evaluation_without_masking(tmp_path):
    def unmasked(rows):
        batch = pad(rows)
        return {**batch, "labels": batch["input_ids"].clone()}

    trainer = trainer_for(tmp_path, steps=1, collator=unmasked, evaluation=make_rows(seed=1))
    diagnosis = diagnose_trainer(trainer)
    assert diagnosis.codes == ("eval-unmasked",)
    names = {"trainer": trainer, "transformers": transformers, "tokenizer": TOKENIZER}
    run_fix(diagnosis.findings[0].fix, names)
    assert "eval-unmasked" not in diagnose_trainer(trainer).codes


def test_the_tokenizer_of_the_trainer_tells_the_ends_of_a_short_evaluation(tmp_path):
    def unmasked(rows):
        batch = pad(rows)
        return {**batch, "labels": batch["input_ids"].clone()}

    short = [dict(TOKENIZER(WORDS[0]))]
    trainer = trainer_for(tmp_path, steps=1, collator=unmasked, evaluation=short)
    assert diagnose_trainer(trainer).codes == ("eval-unmasked",)


@pytest.mark.parametrize("seed", [None, 1])
def test_an_evaluation_whose_masks_change(tmp_path, seed):
    """A seed in the collator does not help: its generator goes on between two evaluations."""
    collator = DataCollatorForLanguageModeling(TOKENIZER, seed=seed)
    trainer = trainer_for(tmp_path, steps=1, collator=collator, evaluation={"a": make_rows(seed=1)})
    diagnosis = diagnose_trainer(trainer)
    assert diagnosis.codes == ("eval-mask-changes",)
    trainer.eval_dataset = trainer.eval_dataset["a"]
    run_fix(diagnosis.findings[0].fix, {"trainer": trainer, "transformers": transformers})
    assert diagnose_trainer(trainer).ok
    losses = [trainer.evaluate()["eval_loss"] for _ in range(2)]
    assert losses[0] == losses[1]


def test_looking_at_a_trainer_changes_no_random_state(tmp_path):
    collator = DataCollatorForLanguageModeling(TOKENIZER, seed=1)
    trainer = trainer_for(tmp_path, collator=collator, evaluation=make_rows(seed=1))
    torch.manual_seed(0)
    untouched = torch.rand(3)
    torch.manual_seed(0)
    diagnose_trainer(trainer)
    assert torch.equal(torch.rand(3), untouched)
    fresh = DataCollatorForLanguageModeling(TOKENIZER, seed=1)
    rows = make_rows()
    assert torch.equal(collator(rows)["labels"], fresh(rows)["labels"])


def test_names_that_trainer_keeps_are_no_dropped_labels(tmp_path):
    rows = Columns({**row, "label": 1, "label_ids": 1, "my_labels": 1} for row in make_rows())
    names = {
        "steps": 1,
        "collator": transformers.default_data_collator,
        "label_names": ["my_labels"],
    }
    assert diagnose_trainer(trainer_for(tmp_path, train=rows, **names)).codes == ()
    del names["label_names"]
    [finding] = diagnose_trainer(trainer_for(tmp_path, train=rows, **names)).findings
    assert "drops the columns ['my_labels']: BertForMaskedLM.forward" in finding.message


class Stream:
    """Examples one after the other: there is no first one to look at."""

    column_names = ("input_ids", "labels")

    def __getitem__(self, number):
        raise TypeError("a stream")

    def __len__(self):
        return 8


@pytest.mark.parametrize("rows", [Stream(), [{**make_rows()[0], "labels": [1]}]])
def test_columns_of_a_stream_and_of_a_list_are_read(tmp_path, rows):
    diagnosis = diagnose_trainer(trainer_for(tmp_path, steps=1, train=rows))
    assert diagnosis.codes == ("labels-overwritten",)
    assert diagnosis.findings[0].message.startswith("DataCollatorForLanguageModeling overwrites")


def test_a_stream_without_names_has_no_columns(tmp_path):
    stream = Stream()
    stream.column_names = None
    assert diagnose_trainer(trainer_for(tmp_path, steps=1, train=stream)).ok


def never_replaced_rows(rows):
    batch = pad(rows)
    labels = torch.where(batch["input_ids"] % 7 == 3, batch["input_ids"], -100)
    return {**batch, "labels": labels.where(batch["input_ids"] > MASK, -100)}


@pytest.mark.parametrize("collator", [pad, never_replaced_rows])
def test_an_evaluation_without_masks_in_other_ways(tmp_path, collator):
    trainer = trainer_for(tmp_path, steps=1, collator=collator, evaluation=make_rows(24))
    diagnosis = diagnose_trainer(trainer)
    assert diagnosis.codes == ("eval-unmasked",)
    assert diagnosis.findings[0].message.startswith("the first evaluation batch: ")
    assert ".." not in diagnosis.findings[0].message


def test_without_an_evaluation_set_two_checks_are_left_out(tmp_path):
    trainer = trainer_for(tmp_path, steps=1)
    for nothing in (None, {}):
        trainer.eval_dataset = nothing
        assert diagnose_trainer(trainer).unchecked == tuple(
            (code, "the trainer has no eval_dataset")
            for code in ("eval-unmasked", "eval-mask-changes")
        )
    assert doctor_trainer.TrainerCase(trainer).why_not("tokenizer") is None


@pytest.mark.parametrize("scaled", [True, False])
def test_what_trainer_says_about_scaling_counts(tmp_path, scaled):
    """Where a release of Trainer has this attribute, it decides."""
    trainer = trainer_for(tmp_path)
    trainer.loss_is_scaled_for_ga = scaled
    assert ("accumulation-inflated" in diagnose_trainer(trainer).codes) == scaled


def test_a_generator_that_the_collator_has_already_goes_on_where_it_was(tmp_path):
    collator, fresh = (DataCollatorForLanguageModeling(TOKENIZER, seed=1) for _ in range(2))
    rows = make_rows()
    assert torch.equal(collator(rows)["labels"], fresh(rows)["labels"])
    diagnose_trainer(trainer_for(tmp_path, collator=collator, evaluation=make_rows(seed=1)))
    assert torch.equal(collator(rows)["labels"], fresh(rows)["labels"])


def test_a_generator_that_the_draw_replaces_is_put_back(tmp_path):
    """transformers 5.24 replaces one that was set by hand, or comes from another process."""

    class Replacing(DataCollatorForLanguageModeling):
        def torch_call(self, examples):
            self.generator = torch.Generator().manual_seed(1)
            return super().torch_call(examples)

    collator, mine = Replacing(TOKENIZER), torch.Generator().manual_seed(7)
    collator.generator, state = mine, mine.get_state()
    trainer = trainer_for(tmp_path, collator=collator, evaluation=make_rows(seed=1))
    assert "eval-mask-changes" not in diagnose_trainer(trainer).codes
    assert collator.generator is mine
    assert torch.equal(mine.get_state(), state)


def test_a_generator_that_cannot_be_set_is_rewound(tmp_path):
    mine = torch.Generator().manual_seed(7)

    class Fixed:
        generator = property(lambda self: mine)

        def __call__(self, rows):
            torch.rand(1, generator=mine)
            return DataCollatorForLanguageModeling(TOKENIZER)(rows)

    state = mine.get_state()
    trainer = trainer_for(tmp_path, collator=Fixed(), evaluation=make_rows(seed=1))
    assert "eval-mask-changes" in diagnose_trainer(trainer).codes
    assert torch.equal(mine.get_state(), state)


def test_what_looks_like_a_trainer_may_have_no_evaluation_set():
    assert doctor_trainer.TrainerCase(types.SimpleNamespace()).eval_data is None


def test_something_that_is_no_trainer():
    with pytest.raises(TypeError, match=r"must be a transformers\.Trainer, but is a dict"):
        diagnose_trainer({})


def test_alpha_is_the_level_that_the_docs_state():
    assert 10 * ALPHA <= 1e-3
