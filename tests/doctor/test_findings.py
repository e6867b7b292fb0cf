"""One broken batch for each code: the finding, and whether the fix that is printed cures it."""

import copy
import inspect
import math
import re

import hypothesis
import numpy as np
import pytest
import torch
import transformers
from batches import (
    CLS,
    MASK,
    MODEL,
    PAD,
    SEP,
    SPECIAL,
    TOKENIZER,
    UNK,
    WORDS,
    V,
    bert,
    bert_tokenizer,
    healthy,
    mlm,
    row_of,
    run_fix,
    small,
)
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

from mlmtutor import MaskingPolicy
from mlmtutor.doctor import (
    ALPHA,
    RULES,
    Problem,
    diagnose,
    likely,
    placed,
    possible,
    readable,
    rule,
    trainer,
)
from mlmtutor.doctor.rules import at_least, at_most, own_rules

# Each function breaks a healthy batch; it returns the batch and what diagnose gets besides.


def rename(batch, name):
    batch = dict(batch)
    batch[name] = batch.pop("labels")
    return batch


def labelled(batch, labels, **more):
    return {**batch, "labels": labels, **more}


def chosen_of(batch):
    return batch["labels"] != -100


def with_tokenizer(names, **changes):
    names["tokenizer"] = copy.deepcopy(TOKENIZER)
    for name, value in changes.items():
        setattr(names["tokenizer"], name, value)
    return names["tokenizer"]


def device(batch, names):
    batch = {key: value.to("meta") for key, value in batch.items()}
    return labelled(batch, batch["labels"].new_zeros(batch["labels"].shape, device="cpu")), {}


def ragged(batch, names):
    rows = batch["labels"].tolist()
    rows[1].pop()
    return labelled(batch, rows), {}


def foreign_mask(batch, names):
    names["texts"] = [f"{word} <mask> {word} ." for word in WORDS[:6]]
    ids = TOKENIZER(names["texts"], return_tensors="pt")["input_ids"]
    labels = torch.full((6, 6), -100)
    labels[:, 2] = torch.arange(20, 26)  # where <mask> would be, were it one token
    return {"input_ids": ids, "labels": labels}, {}


def vocab_mismatch(batch, names):
    with_tokenizer(names).add_tokens(["newword"])
    return batch, {"tokenizer": names["tokenizer"], "model": bert()}


def half_resized(batch, names):
    model = bert(tie_word_embeddings=False)
    model.bert.resize_token_embeddings(V + 2, mean_resizing=False)
    return batch, {"model": model}


def unknown_everywhere(batch, names):
    lost = torch.rand(names["original"].shape, generator=torch.Generator().manual_seed(4)) < 0.8
    lost &= names["original"] > MASK
    labels = batch["labels"].masked_fill(lost & chosen_of(batch), UNK)
    ids = batch["input_ids"].masked_fill(lost & (batch["input_ids"] > MASK), UNK)
    return labelled(batch, labels, input_ids=ids), {}


def one_random_token(batch, names):
    odd = chosen_of(batch) & (batch["input_ids"] != batch["labels"])
    odd &= batch["input_ids"] != MASK
    return labelled(batch, batch["labels"], input_ids=batch["input_ids"].masked_fill(odd, 30)), {}


def random_special(batch, names):
    odd = chosen_of(batch) & (batch["input_ids"] != batch["labels"])
    odd &= batch["input_ids"] != MASK
    ids = batch["input_ids"].masked_fill(odd, PAD)
    return {**batch, "input_ids": ids}, {}


def same_mask_rows(batch, names):
    chosen = torch.rand(names["original"].shape[1], generator=torch.Generator().manual_seed(1))
    chosen = (chosen < 0.2) & (names["original"] > MASK)
    ids = names["original"].masked_fill(chosen, MASK)
    return labelled(batch, names["original"].where(chosen, -100), input_ids=ids), {}


def spaced_tokenizer():
    """A tokenizer that keeps the space before a word in the token, as RoBERTa does."""
    words = [*WORDS, *("Ġ" + word for word in WORDS)]
    vocab = {word: number for number, word in enumerate([*SPECIAL, *words])}
    core = Tokenizer(models.WordLevel(vocab, unk_token="[UNK]"))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    names = {name: f"[{name[:3].upper()}]" for name in ("cls_token", "sep_token", "pad_token")}
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=core, unk_token="[UNK]", mask_token="[MASK]", **names
    )


def blanks(words, text):
    """A row for each word: the text, with the id of that token as the answer at [MASK]."""
    tokenizer = spaced_tokenizer()
    ids = tokenizer([text] * len(words), return_tensors="pt", padding=True)["input_ids"]
    answers = torch.tensor(tokenizer.convert_tokens_to_ids(words)).unsqueeze(1)
    return {"input_ids": ids, "labels": answers.where(ids == MASK, -100)}, {"tokenizer": tokenizer}


def whole_rows(batch, names):
    chosen = (torch.arange(len(batch["labels"])) % 6 == 1).unsqueeze(1) & (names["original"] > MASK)
    ids = names["original"].masked_fill(chosen, MASK)
    return labelled(batch, names["original"].where(chosen, -100), input_ids=ids), {}


def masked_by(**rates):
    def broken(batch, names):
        batch, more = healthy(seed=1, policy=MaskingPolicy(**rates), count=32)
        names.update(more)
        return batch, {"policy": MaskingPolicy()}

    return broken


def token_types(batch, names):
    return {**batch, "token_type_ids": torch.full_like(batch["input_ids"], 2)}, {"model": MODEL}


def positions(batch, names):
    numbers = torch.arange(batch["input_ids"].shape[1]).expand_as(batch["input_ids"]) + 40
    return {**batch, "position_ids": numbers}, {"model": MODEL}


def no_more(batch, names):
    return {key: value for key, value in batch.items() if key == "input_ids"}, {}


ORIGINAL = object()  # the ids before masking
BROKEN = {
    "not-a-tokenizer": lambda b, n: (b, {"tokenizer": "bert-base-uncased"}),
    "not-a-model": lambda b, n: (b, {"model": transformers.BertForMaskedLM}),
    "model-class": lambda b, n: (b, {"model": small("BertModel")}),
    "not-a-batch": lambda b, n: ("input_ids", {}),
    "no-input-ids": lambda b, n: ({"ids": b["input_ids"], "labels": b["labels"]}, {}),
    "labels-missing": lambda b, n: (
        {**no_more(b, n)[0], "attention_mask": b["attention_mask"]},
        {},
    ),
    "labels-misnamed": lambda b, n: (rename(b, "masked_lm_labels"), {}),
    "dtype": lambda b, n: (labelled(b, b["labels"].int()), {}),
    "device": device,
    "unreadable": ragged,
    "empty": lambda b, n: ({key: value[:0] for key, value in b.items()}, {}),
    "mask-is-unk": lambda b, n: (b, {"tokenizer": with_tokenizer(n, mask_token="nowhere")}),
    "foreign-mask": foreign_mask,
    "shape": lambda b, n: (labelled(b, b["labels"][:, 1:-1].contiguous()), {}),
    "labels-strided": lambda b, n: (
        labelled(b, b["labels"].repeat(1, 2)[:, : b["labels"].shape[1]]),
        {"model": MODEL},
    ),
    "vocab-mismatch": vocab_mismatch,
    "half-resized": half_resized,
    "ignore-in-input": lambda b, n: (
        {**b, "input_ids": torch.where(chosen_of(b), -100, b["input_ids"])},
        {},
    ),
    "input-out-of-range": lambda b, n: (
        {
            **b,
            "input_ids": b["input_ids"].index_put(
                (torch.tensor(3), torch.tensor(4)), torch.tensor(V + 5)
            ),
        },
        {"model": MODEL},
    ),
    "token-type-out-of-range": token_types,
    "position-out-of-range": positions,
    "too-long": lambda b, n: ({k: v.repeat(1, 4) for k, v in b.items()}, {"model": MODEL}),
    "ignore-minus-one": lambda b, n: (labelled(b, b["labels"].where(chosen_of(b), -1)), {}),
    "labels-binary": lambda b, n: (labelled(b, chosen_of(b).long()), {}),
    "ignore-pad": lambda b, n: (labelled(b, b["labels"].where(chosen_of(b), PAD)), {}),
    "label-out-of-range": lambda b, n: (labelled(b, b["labels"].where(chosen_of(b), -99)), {}),
    "nothing-labelled": lambda b, n: (
        labelled(b, b["labels"] * 0 - 100, input_ids=n["original"]),
        {},
    ),
    "shifted": lambda b, n: (labelled(b, b["labels"].roll(-1, dims=1)), {}),
    "inverted": lambda b, n: (labelled(b, torch.where(chosen_of(b), -100, n["original"])), {}),
    "everything-labelled": lambda b, n: (labelled(b, n["original"].clone()), {}),
    "label-is-mask": lambda b, n: (labelled(b, b["input_ids"].where(chosen_of(b), -100)), {}),
    "padding-labelled": lambda b, n: (
        labelled(b, b["labels"].where(n["original"] != PAD, PAD)),
        {},
    ),
    "label-hidden": lambda b, n: ({**b, "attention_mask": (b["input_ids"] != MASK).long()}, {}),
    "special-labelled": lambda b, n: (
        labelled(b, b["labels"].where(n["original"] != CLS, CLS)),
        {},
    ),
    "mask-without-label": lambda b, n: (
        labelled(
            b, b["labels"].masked_fill((b["input_ids"] == MASK) & (n["original"] % 2 == 0), -100)
        ),
        {},
    ),
    "mostly-unknown": unknown_everywhere,
    "one-answer": lambda b, n: (
        labelled(b, b["labels"].clamp(max=33).clamp(min=-100).where(~chosen_of(b), 33)),
        {},
    ),
    "word-without-space": lambda b, n: blanks(WORDS[:12], "bad" + " bog" * 9 + "[MASK] bell"),
    "whole-rows": whole_rows,
    "partial-word": lambda b, n: (b, {"whole_word": True}),
    "constant-replacement": lambda b, n: (
        {**b, "input_ids": torch.where(b["input_ids"] == MASK, 40, b["input_ids"])},
        {},
    ),
    "never-replaced": lambda b, n: ({**b, "input_ids": n["original"]}, {}),
    "replacement-shares": masked_by(mask=0.3, random=0.6),
    "selection-low": masked_by(select=0.03),
    "selection-high": masked_by(select=0.25),
    "random-special": random_special,
    "same-mask-rows": same_mask_rows,
    "same-mask-epochs": lambda b, n: ([b, {key: value.flip(0) for key, value in b.items()}], {}),
    "padding-attended": lambda b, n: ({**b, "attention_mask": torch.ones_like(b["labels"])}, {}),
}
IN_WORDS = {  # no line of code can cure these
    "not-a-tokenizer", "not-a-model", "model-class", "not-a-batch", "no-input-ids", "unreadable",
    "empty", "mask-is-unk", "input-out-of-range", "position-out-of-range", "mostly-unknown",
    "word-without-space", "same-mask-epochs",
}  # fmt: skip
NO_PLACES = {  # findings about the batch as a whole
    "not-a-tokenizer", "not-a-model", "model-class", "not-a-batch", "no-input-ids",
    "labels-missing", "labels-misnamed", "dtype", "device", "unreadable", "empty", "foreign-mask",
    "shape", "labels-strided", "mask-is-unk", "vocab-mismatch", "half-resized", "too-long",
    "labels-binary", "nothing-labelled", "selection-low", "selection-high",
}  # fmt: skip
OTHER_COUNT = {"replacement-shares", "same-mask-rows", "same-mask-epochs", "whole-rows"}
KEYS = ("input_ids", "attention_mask", "labels")


@pytest.fixture
def registry():
    """Whatever a test registers is gone after it."""
    before = dict(RULES)
    yield RULES
    RULES.clear()
    RULES.update(before)


def test_broken_batches_stand_in_the_order_of_the_rules():
    assert list(RULES) == list(BROKEN)


@pytest.mark.parametrize("code", BROKEN)
def test_finding_and_fix(code):
    """The one finding is at the cause, the batch is unchanged, and the fix makes it disappear."""
    batch, names = healthy(count=24)
    batch, given = BROKEN[code](batch, names)
    before = copy.deepcopy(batch)
    given = {"tokenizer": TOKENIZER, **given}
    diagnosis = diagnose(batch, **given)
    assert diagnosis.codes == (code,)
    (finding,) = diagnosis.findings
    assert finding.severity == RULES[code].severity
    assert not diagnosis.failed
    assert not diagnosis.ok
    assert (code in NO_PLACES) == (not finding.positions)
    assert len(set(finding.positions)) == len(finding.positions)
    if code not in (*NO_PLACES, *OTHER_COUNT):
        assert re.search(rf"\b{len(finding.positions)} ", finding.message)
    if code != "device":  # a tensor on the meta device never has values
        assert repr(batch) == repr(before)

    assert (code in IN_WORDS) == ("`" not in finding.fix)
    names = run_fix(finding.fix, {**names, "batch": batch, "model": given.get("model", MODEL)})
    if code in IN_WORDS or code == "device":
        return
    after = diagnose(names["batch"], **given)
    assert code not in after.codes
    assert after.ok, str(after)
    if given.get("model") is None:
        inputs = {key: names["batch"][key] for key in KEYS if key in names["batch"]}
        assert math.isfinite(MODEL(**inputs).loss.item())


def test_diagnose_of_a_healthy_batch_is_quiet():
    batch, _ = healthy(count=24)
    whole, _ = healthy(policy=MaskingPolicy(whole_word=True), count=24)
    assert diagnose(batch, TOKENIZER, MODEL, policy=MaskingPolicy()).codes == ()
    assert diagnose(whole, TOKENIZER, policy=MaskingPolicy(whole_word=True)).codes == ()
    assert diagnose(batch, TOKENIZER, torch.compile(torch.nn.DataParallel(MODEL))).codes == ()
    assert str(diagnose(batch, TOKENIZER, MODEL)) == "No error and no warning."


# Other forms of the same mistake -------------------------------------------------------------------

CHANGES = {  # name: (what is done to the batch, the codes of errors and warnings)
    "causal collator": (lambda b, n: labelled(b, b["input_ids"].where(b["input_ids"] != PAD, -100), input_ids=n["original"]), None),
    "labels = inputs before masking": (lambda b, n: labelled(b, n["original"], input_ids=n["original"]), "everything-labelled"),
    "labels = inputs after masking": (lambda b, n: labelled(b, b["input_ids"]), "everything-labelled"),
    "0 on text, -100 on padding": (lambda b, n: labelled(b, b["labels"].where(chosen_of(b) | (n["original"] == PAD), 0)), "ignore-pad"),
    "the mask id for 'not scored'": (lambda b, n: labelled(b, b["labels"].where(chosen_of(b), MASK)), "ignore-pad"),
    "labels padded with another id": (lambda b, n: labelled(b, b["labels"].where(n["original"] != PAD, UNK)), "ignore-pad"),
    "0 and 1 beside -100": (lambda b, n: labelled(b, chosen_of(b).long().where(n["original"] > MASK, -100)), "labels-binary"),
    "1 beside -100": (lambda b, n: labelled(b, chosen_of(b).long().where(chosen_of(b), -100)), "labels-binary"),
    "labels beyond the vocabulary": (lambda b, n: labelled(b, b["labels"].where(chosen_of(b), V)), "label-out-of-range"),
    "answers beyond the vocabulary": (lambda b, n: labelled(b, b["labels"].where(~chosen_of(b), b["labels"] + V)), "label-out-of-range"),
    "exchanged": (lambda b, n: labelled(b, b["input_ids"], input_ids=b["labels"]), "ignore-in-input"),
    "shifted to the right": (lambda b, n: labelled(b, b["labels"].roll(1, dims=1)), "shifted"),
    "answers of the next token": (lambda b, n: labelled(b, n["original"].roll(-1, dims=1).where(b["input_ids"] == MASK, -100), input_ids=n["original"].where(b["input_ids"] != MASK, MASK)), "shifted"),
    "attention upside down": (lambda b, n: {**b, "attention_mask": 1 - b["attention_mask"]}, "label-hidden"),
    "a dimension too many": (lambda b, n: {k: v[:, None] for k, v in b.items()}, "shape"),
    "no batch dimension": (lambda b, n: {k: v[0] for k, v in b.items()}, "shape"),
    "one label for each row": (lambda b, n: labelled(b, torch.zeros(24).long()), "shape"),
    "attention of another width": (lambda b, n: {**b, "attention_mask": b["attention_mask"][:, :-1]}, "shape"),
    "attention of five dimensions": (lambda b, n: {**b, "attention_mask": torch.ones(1, 1, 1, 1, 9)}, "shape"),
    "quantised ids": (lambda b, n: {**b, "input_ids": torch.quantize_per_tensor(b["input_ids"].float(), 1.0, 0, torch.qint32)}, "unreadable"),
    "bool labels": (lambda b, n: labelled(b, chosen_of(b)), "dtype"),
    "small labels": (lambda b, n: labelled(b, b["labels"].to(torch.int8)), "dtype"),
    "transposed labels": (lambda b, n: labelled(b, b["labels"].T.contiguous().T), "labels-strided"),
    "one random token": (lambda b, n: one_random_token(b, n)[0], "constant-replacement"),
    "a misspelt name": (lambda b, n: rename(b, "lables"), "labels-misnamed"),
    "masks of another draw": (lambda b, n: {**healthy(count=24, policy=MaskingPolicy(mask=1.0, random=0.0))[0], "labels": n["original"].where(torch.rand(b["labels"].shape, generator=torch.Generator().manual_seed(9)) + (n["original"] <= MASK) < 0.15, -100)}, "mask-without-label"),
    "labels of other rows": (lambda b, n: labelled(b, b["labels"].roll(5, dims=0)), "mask-without-label"),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_diagnose_names_the_cause_in_other_clothes(name):
    batch, names = healthy(count=24)
    change, code = CHANGES[name]
    broken = change(dict(batch), names)
    found = [f for f in diagnose(broken, TOKENIZER).findings if f.severity != "info"]
    assert [f.code for f in found] == [code or "everything-labelled"]
    if "`" in found[0].fix:
        after = run_fix(found[0].fix, {**names, "batch": broken})["batch"]
        assert found[0].code not in diagnose(after, TOKENIZER).codes


def at_one_place(words, rows=16, seed=0, answer=None):
    """Prompts: fixed words with one or two blanks before texts of other words."""
    generator = torch.Generator().manual_seed(seed)
    text = torch.randint(14, V, (rows, 30), generator=generator)
    ids = torch.cat([torch.full((rows, 1), CLS), torch.tensor([words] * rows), text], dim=1)
    blank = ids == MASK
    answers = torch.randint(14, V, ids.shape, generator=generator)
    answers = answers if answer is None else torch.full_like(ids, answer)
    return {"input_ids": ids, "labels": answers.where(blank, -100)}


def rates(*rates, seed=0, mask=1.0):
    """Each row masked at a rate of its own."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(14, V, (len(rates), 60), generator=generator)
    chosen = torch.rand(ids.shape, generator=generator) < torch.tensor(rates).unsqueeze(1)
    return {"input_ids": ids.masked_fill(chosen, MASK), "labels": ids.where(chosen, -100)}


def test_diagnose_has_no_opinion_on_recipes_that_it_does_not_know():
    for batch in (
        rates(*torch.linspace(0.02, 0.98, 16).tolist()),  # masked diffusion
        rates(*[0.7] * 16),  # the decoder of RetroMAE
        at_one_place([MASK, 20, 21]),
        at_one_place([MASK, MASK, 21]),
        [at_one_place([MASK, 20, 21]), at_one_place([MASK, 20, 21], seed=1)],
        at_one_place([MASK, 20, 21], answer=20),  # which is the next word, in each row
        mlm(mask_replace_prob=0.0, random_replace_prob=1.0)(
            [{"input_ids": list(range(14, 60))}] * 9
        ),
    ):
        assert diagnose(batch, TOKENIZER).ok, diagnose(batch, TOKENIZER)
    high = diagnose(rates(*[0.7] * 16), TOKENIZER)
    assert [(f.code, f.severity) for f in high.findings] == [("selection-high", "info")]
    assert not diagnose(rates(*[0.7] * 16), TOKENIZER, policy=MaskingPolicy()).ok
    same, _ = same_mask_rows(*healthy(count=24))
    assert "same-mask-rows" in diagnose(same, TOKENIZER).codes


def test_special_labelled_is_usual_in_masked_diffusion_and_a_warning_elsewhere():
    batch, _ = healthy(count=24)
    draw = torch.rand(batch["labels"].shape, generator=torch.Generator().manual_seed(0))
    _, names = healthy(count=24)
    for rate, severity in ((torch.linspace(0.03, 0.9, 24).unsqueeze(1), "info"), (0.15, "warning")):
        chosen = (draw < rate) & (names["original"] != PAD)
        mine = labelled(
            batch,
            names["original"].where(chosen, -100),
            input_ids=names["original"].masked_fill(chosen, MASK),
        )
        (finding,) = [f for f in diagnose(mine, TOKENIZER).findings if f.code == "special-labelled"]
        assert finding.severity == severity


def test_special_labelled_sees_tokens_that_were_added():
    tokenizer = bert_tokenizer([*TOKENIZER.get_vocab()])
    tokenizer.add_special_tokens({"additional_special_tokens": ["<drug>"]})
    ids = tokenizer("bad <drug> bell bog <drug> bink")["input_ids"]
    batch = row_of(
        ids, [tokenizer.vocab["<drug>"] if i in (2, 5) else -100 for i in range(len(ids))]
    )
    assert "special-labelled" in diagnose(batch, tokenizer).codes


CLASSES = {  # class: (what is added to the batch, what the message says; None where it is right)
    "BertForMaskedLM": ({}, None),
    "BertModel": ({}, "has no masked-LM head"),
    "BertForTokenClassification": ({}, "has another head"),
    "BertLMHeadModel": ({}, "shifts the labels"),
    "BertForPreTraining": ({}, "wants next_sentence_label too"),
    "BertForPreTraining ": ({"next_sentence_label": torch.zeros(24).long()}, None),
    "BigBirdForPreTraining": ({}, None),
    "ElectraForMaskedLM": ({}, None),
    "ViltForMaskedLM": ({}, None),  # which reads images too, and isn't in the table
    "ElectraForPreTraining": ({}, "is a discriminator"),
}


@pytest.mark.parametrize("name", CLASSES)
def test_model_class_reads_the_table_of_transformers(name):
    more, said = CLASSES[name]
    batch, _ = healthy(count=24)
    diagnosis = diagnose({**batch, **more}, TOKENIZER, small(name.strip()))
    assert diagnosis.codes == (() if said is None else ("model-class",))
    assert said is None or said in diagnosis.findings[0].message
    if "Electra" in name:
        replaced = labelled(batch, (batch["input_ids"] % 7 == 0).long())
        right = name == "ElectraForPreTraining"
        assert diagnose(replaced, TOKENIZER, small(name)).ok == right
        hidden = batch["attention_mask"] == 0  # which the discriminator's loss leaves out
        for where, fine in ((hidden, right), (batch["labels"] == -100, False)):
            given = labelled(replaced, replaced["labels"].masked_fill(where, -100))
            assert diagnose(given, TOKENIZER, small(name)).ok == fine


def test_labels_of_a_decoder_are_the_whole_text():
    sizes = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "vocab_size": V}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "pad_token_id": PAD}
    bart = transformers.BartForConditionalGeneration(transformers.BartConfig(**sizes, **heads))
    batch, names = healthy(count=24)
    text = names["original"].masked_fill(batch["attention_mask"] == 0, -100)
    for labels in (text, text[:, :9].contiguous()):
        assert bart(**labelled(batch, labels)).loss.isfinite()
        assert diagnose(labelled(batch, labels), TOKENIZER, bart).ok
    assert not diagnose(labelled(batch, text), TOKENIZER, MODEL).ok


def test_labels_are_read_with_the_ids_of_their_own_name():
    batch, names = healthy(count=24)
    both = {**rename(batch, "mlm_labels"), "mlm_input_ids": batch["input_ids"]}
    both["input_ids"] = names["original"]  # for a second loss, as SimCSE has one
    assert diagnose(both, TOKENIZER).ok
    both["mlm_labels"] = both["mlm_input_ids"]
    assert diagnose(both, TOKENIZER).codes == ("everything-labelled",)


def test_same_mask_epochs_is_silent_where_a_cloze_comes_again():
    ids = torch.tensor([[CLS, *range(10 + n, 20 + n), MASK, SEP] for n in range(16)])
    labels = torch.where(ids == MASK, torch.arange(30, 46).unsqueeze(1), -100)
    cloze = {"input_ids": ids, "labels": labels}
    assert diagnose([cloze, {key: value.flip(0) for key, value in cloze.items()}], TOKENIZER).ok


def test_half_resized_reads_the_bias_beside_the_head():
    model = small("EsmForMaskedLM", pad_token_id=1, mask_token_id=MASK, token_dropout=False)
    batch, _ = healthy()
    assert diagnose(batch, TOKENIZER, model).ok
    model.esm.resize_token_embeddings(V + 2, mean_resizing=False)  # its head is tied, its bias not
    assert diagnose(batch, TOKENIZER, model).codes == ("half-resized",)


def test_labels_misnamed_knows_models_with_two_tasks():
    batch, _ = healthy(count=24)
    sentence = labelled(rename(batch, "mlm_labels"), torch.zeros(24).long())
    token = {**rename(batch, "mlm_labels"), "ner_labels": torch.zeros_like(batch["labels"])}
    assert diagnose(sentence, TOKENIZER).ok
    assert diagnose(token, TOKENIZER).ok
    copied = {**sentence, "mlm_labels": batch["input_ids"]}
    assert diagnose(copied, TOKENIZER).codes == ("everything-labelled",)

    class Old(torch.nn.Module):
        def forward(self, input_ids, masked_lm_labels=None):
            return None

    assert diagnose(rename(batch, "masked_lm_labels"), TOKENIZER, Old()).ok


def test_mask_without_label_is_an_info_where_a_text_mentions_the_mask_token():
    batch, names = healthy(count=24)
    free = (names["original"] > MASK) & ~chosen_of(batch)
    row, column = free.nonzero()[5].tolist()
    batch["input_ids"][row, column] = MASK
    (finding,) = diagnose(batch, TOKENIZER).findings
    assert (finding.code, finding.severity) == ("mask-without-label", "info")
    batch["labels"][row, column] = MASK
    (finding,) = diagnose(batch, TOKENIZER).findings
    assert (finding.code, finding.severity) == ("label-is-mask", "warning")


@pytest.mark.parametrize("word", ["[MASK]", "<mask>", "[Mask]"])
def test_foreign_mask_names_the_spelling(word):
    own = {"[MASK]": "<mask>", "<mask>": "[MASK]", "[Mask]": "[MASK]"}[word]
    tokenizer = bert_tokenizer(
        ["[PAD]", "[UNK]", "[CLS]", "[SEP]", own, *"[]<>", "mask", *WORDS], own
    )
    texts = [f"bad {word} bell"]
    ids = tokenizer(texts, return_tensors="pt")["input_ids"]
    batch = {"input_ids": ids, "labels": torch.where(ids == tokenizer.mask_token_id, ids, -100)}
    (finding,) = diagnose(batch, tokenizer).findings
    assert finding.code == "foreign-mask"
    assert ("lower case" in finding.message) == (word == "[Mask]")
    after = run_fix(finding.fix, {"batch": batch, "texts": texts, "tokenizer": tokenizer})["batch"]
    assert (after["input_ids"] == tokenizer.mask_token_id).any()


def test_nothing_labelled_is_bad_luck_in_a_short_text_and_names_unknown_words():
    short = row_of([CLS, 20, 21, SEP], [-100] * 4)
    (finding,) = diagnose(short, TOKENIZER, MODEL).findings
    assert (finding.code, finding.severity) == ("nothing-labelled", "warning")
    assert math.isnan(MODEL(**short).loss.item())
    assert not diagnose(short, with_tokenizer({}, unk_token=None)).failed
    lost = row_of([CLS, *[UNK] * 6, SEP], [-100] * 8)
    assert "6 of 6 tokens of text are [UNK]" in diagnose(lost, TOKENIZER).findings[0].message


def test_mostly_unknown_sees_the_word_of_a_cloze_that_is_no_token():
    (finding,) = diagnose(row_of([CLS, 20, MASK, SEP], [-100, -100, UNK, -100]), TOKENIZER).findings
    assert finding.code == "mostly-unknown"


def test_word_without_space_asks_for_a_word_between_two_others():
    for words, text, severity in (
        (WORDS[:2], "bad[MASK] bell", "info"),  # they may be the ends of two words
        (["Ġbell", "Ġbog"], "bad[MASK] bell", None),
        (["bell", "Ġbog"], "bad[MASK] bell", None),
        (WORDS[:12], "[MASK] bell bog bink", None),  # the first word of a text has no space
        (WORDS[:12], "bad[MASK]bell bog bink", None),
        (["[UNK]"] * 12, "bad[MASK] bell", None),
    ):
        batch, given = blanks(words, text)
        found = [f.severity for f in diagnose(batch, **given).findings if "space" in f.code]
        assert found == [severity] * (severity is not None), text


def test_label_hidden_says_where_the_attention_mask_hides_the_mask_tokens():
    batch, _ = healthy(count=24)
    batch["attention_mask"] *= batch["input_ids"] != MASK
    (finding,) = diagnose(batch, TOKENIZER).findings
    assert "it is 0 exactly at the mask tokens" in finding.message


def test_fixes_come_to_an_end_where_all_special_tokens_were_selected():
    batch, names = healthy(count=24)
    special = names["original"] <= MASK
    batch = labelled(
        batch,
        names["original"].where(special, -100),
        input_ids=names["original"].masked_fill(special, MASK),
    )
    codes = []
    while (found := diagnose(batch, TOKENIZER).findings) and len(codes) < 6:
        codes.append(found[0].code)
        batch = run_fix(found[0].fix, {**names, "batch": batch})["batch"]
    assert codes == ["padding-labelled", "special-labelled", "nothing-labelled"]


def test_fixes_run_on_arrays_on_lists_and_on_a_list_of_batches():
    batch, _ = healthy(count=24)
    batch["labels"] = batch["labels"].where(chosen_of(batch), -1)
    arrays = {key: value.numpy() for key, value in batch.items()}
    lists = {key: value.tolist() for key, value in batch.items()}
    rows = {key: list(value) for key, value in batch.items()}
    for broken in (arrays, lists, rows, [batch, healthy(seed=1)[0]]):
        (finding,) = diagnose(broken, TOKENIZER).findings
        assert diagnose(run_fix(finding.fix, {"batch": broken})["batch"], TOKENIZER).ok
    assert finding.batches == (0,)
    assert "In 1 of 2 batches; these positions are of batch 0" in finding.message


def test_three_mistakes_give_findings_whose_fixes_follow_each_other():
    batch, names = healthy(count=24)
    labels = batch["labels"].where(names["original"] != PAD, PAD).where(chosen_of(batch), -1)
    broken = rename(labelled(batch, labels.int()), "lm_labels")
    diagnosis = diagnose(broken, TOKENIZER)
    assert diagnosis.codes == ("labels-misnamed", "dtype", "ignore-minus-one")
    for finding in diagnosis.findings:
        broken = run_fix(finding.fix, {**names, "batch": broken})["batch"]
    assert diagnose(broken, TOKENIZER).ok


# Never ok where not everything was checked -----------------------------------------------------------


def test_diagnosis_is_not_ok_where_what_was_asked_for_could_not_be_checked(registry):
    batch, _ = healthy(count=24)
    assert diagnose(batch).ok  # no tokenizer was given, so nothing that needs one was asked for
    assert "not checked, no tokenizer given: mask-is-unk" in str(diagnose(batch))
    causal = with_tokenizer({}, mask_token=None)
    embedded = {"inputs_embeds": torch.ones(2, 3, 4), "labels": torch.ones(2, 3).long()}
    cases = {
        "no tokenizer": diagnose(batch, MODEL),
        "exchanged": diagnose(batch, MODEL, TOKENIZER),
        "a config": diagnose(batch, TOKENIZER, MODEL.config),
        "no mask token": diagnose(batch, causal),
        "no ids": diagnose(embedded),
    }
    rule("mine", "info")(lambda case: 1 / 0)
    cases["a rule that raises"] = diagnose(batch)
    for name, diagnosis in cases.items():
        assert not diagnosis.ok, name
        assert "No error and no warning" not in str(diagnosis)
        assert "no error and no warning" not in diagnosis._repr_html_()
    assert "ZeroDivisionError: division by zero" in str(cases["a rule that raises"])
    assert "exchanged" in cases["exchanged"].findings[0].message


GARBAGE = [
    None, 3, "a text", b"bytes", [], {}, object(), [None, 3], dict, torch.ones(2, 3), np.ones((2, 3)),
    {"input_ids": None},
    {"input_ids": "a text", "labels": "a text"},
    {"input_ids": [], "labels": []},
    {"input_ids": [[[1]]], "labels": [[[1]]]},
    {"input_ids": torch.zeros(2, 0, dtype=torch.long), "labels": torch.zeros(2, 0)},
    {"input_ids": torch.tensor(5), "labels": torch.tensor(5)},
    {"input_ids": torch.full((2, 3), math.nan), "labels": torch.full((2, 3), math.inf)},
    {"input_ids": torch.ones(2, 3, dtype=torch.cfloat), "labels": torch.ones(2, 3)},
    {"input_ids": torch.eye(3).to_sparse().long(), "labels": torch.eye(3).long()},
    {"input_ids": torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]), "labels": None},
    {"input_ids": np.array([["a", None]], dtype=object), "labels": np.array([1.5])},
    {"input_ids": [[10**30, 1]], "labels": [[1, 10**30]]},
    {"input_ids": [torch.ones(2), torch.ones(3)], "labels": [torch.ones(2), 1]},
    {"input_ids": [[1, 2]], "labels": {"a": 1}, "attention_mask": "yes", 7: object()},
    {"input_ids": {1, 2}, "labels": iter([1, 2])},
    {'"); 1 / 0 #`': [[-100, 3]], "input_ids": [[4, 5]]},
]  # fmt: skip


class Hostile(dict):
    """A mapping that raises whenever it is read."""

    def __getitem__(self, key):
        raise RuntimeError("no")

    __contains__ = __getitem__


@pytest.mark.parametrize("batch", [*GARBAGE, Hostile(input_ids=1)], ids=range(len(GARBAGE) + 1))
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_diagnose_never_raises_and_finds_garbage(batch):
    for tokenizer, model in ((None, None), (TOKENIZER, MODEL), ("bert", "bert")):
        diagnosis = diagnose(batch, tokenizer, model, whole_word=True)
        assert any(finding.severity == "error" for finding in diagnosis.findings), str(diagnosis)
        assert not any("failed with" in reason for _, reason in diagnosis.unchecked), diagnosis
        assert diagnosis._repr_html_()


values = st.one_of(
    st.none(),
    st.integers(-(2**64), 2**64),
    st.floats(),
    st.text(max_size=3),
    st.lists(st.lists(st.integers(-200, 200), max_size=4), max_size=3),
    st.lists(st.one_of(st.integers(-101, 99), st.floats(), st.none()), max_size=4),
    st.builds(
        lambda shape, dtype, low: torch.full(shape, low).to(dtype),
        st.lists(st.integers(0, 3), max_size=5),
        st.sampled_from([torch.int64, torch.int8, torch.bool, torch.float32, torch.float16]),
        st.integers(-100, 100),
    ),
)
KINDS = [*KEYS, "lm_labels", "position_ids", "token_type_ids"]


SLOW = [hypothesis.HealthCheck.too_slow]  # a busy machine is no finding


@hypothesis.settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=SLOW)
@hypothesis.given(st.dictionaries(st.sampled_from(KINDS), values))
def test_diagnose_never_raises_on_any_value(batch):
    diagnosis = diagnose([batch, batch], TOKENIZER, MODEL, whole_word=True)
    assert not [reason for _, reason in diagnosis.unchecked if "failed with" in reason]


@hypothesis.settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=SLOW)
@hypothesis.given(seed=st.integers(0, 10**6), count=st.integers(1, 3), length=st.integers(9, 12))
def test_diagnose_raises_no_statistical_alarm_on_small_batches(seed, count, length):
    batch, _ = healthy(seed=seed, count=count, length=length)
    assert set(diagnose(batch, TOKENIZER, policy=MaskingPolicy()).codes) <= {"nothing-labelled"}


# Text and HTML --------------------------------------------------------------------------------------


def test_html_has_a_caption_scopes_words_and_folds_what_was_not_checked():
    batch, names = healthy()
    page = diagnose(labelled(batch, names["original"]))._repr_html_()
    for part in ("<caption", 'scope="col"', 'scope="row"', "✗ error", "<details ", "<code "):
        assert part in page
    assert not re.search(r"<script|<style|\bid=|\bclass=", page)
    assert "✓ no error and no warning" in diagnose(batch, TOKENIZER)._repr_html_()
    assert "<b>" not in diagnose({"<b>": 1})._repr_html_()


def test_findings_say_how_many_and_where():
    diagnosis = diagnose(
        row_of([CLS, *[MASK] * 4, 20, SEP], [-100, *[MASK] * 4, -100, -100]), TOKENIZER
    )
    assert diagnosis.findings[0].message.startswith("4 labels are 4, the id of [MASK] itself")
    assert diagnosis.findings[0].message.endswith(
        "; at (row, column) (0, 1), (0, 2), (0, 3) and 1 more."
    )
    one = diagnose(row_of([CLS, MASK, 20, SEP], [-100, MASK, -100, -100]), TOKENIZER)
    assert one.findings[0].message.startswith("1 label is 4")
    with pytest.raises(ValueError, match=r"error label-is-mask: .*\n    fix: "):
        one.raise_for_errors()
    special, _ = BROKEN["special-labelled"](*healthy(count=24))
    diagnose(special, TOKENIZER).raise_for_errors()  # a warning does not stop a training


# Rules of your own ----------------------------------------------------------------------------------


def test_rule_registers_a_function_whose_mask_becomes_positions(registry):
    @rule("odd-label", "info", needs=("labels",), unless=("ignore-minus-one",))
    def odd_label(case):
        where = case.scored & (case.labels % 2 == 1)
        return Problem("odd", "use even ids: `1 / 0`", where) if where.any() else None

    (finding,) = diagnose(row_of([20, 21], [-100, 21])).findings
    assert (finding.code, finding.positions) == ("odd-label", ((0, 1),))
    assert (
        str(finding)
        == "info odd-label: odd; at (row, column) (0, 1).\n    fix: use even ids: `1 / 0`."
    )
    assert diagnose(row_of([20, 21], [-1, 21])).codes == ("ignore-minus-one",)


def test_rule_refuses_what_it_cannot_use(registry):
    for text in ("first", "second"):
        rule("mine", "info")(lambda case, text=text: Problem(text, text))
    assert diagnose({"input_ids": [[1]], "labels": [[1]]}).findings[-1].message == "second."
    with pytest.raises(ValueError, match="'shape' is mlmtutor's own: choose another"):
        rule("shape", "info")(lambda case: None)
    with pytest.raises(ValueError, match="severity must be error, warning or info, but is 'bad'"):
        rule("other", "bad")
    with pytest.raises(TypeError, match=r"^needs must be a list or tuple of str"):
        rule("other", "info", needs="labels")
    with pytest.raises(TypeError, match="policy must be a MaskingPolicy, but is a float"):
        diagnose({}, policy=0.15)


MODULES = {  # where the functions of a part of rules.toml stand
    "batches": (readable, possible, placed, likely),
    "trainers": (trainer,),
}


@pytest.mark.parametrize("part", MODULES)
def test_own_rules_has_a_row_for_each_function_and_a_function_for_each_row(part):
    rules = own_rules(part, *MODULES[part])
    functions = [
        function
        for module in MODULES[part]
        for name, function in inspect.getmembers(module, inspect.isfunction)
        if function.__module__ == module.__name__
        and list(inspect.signature(function).parameters) == ["case"]
        and not name.startswith("_")
    ]
    assert {rule.function for rule in rules.values()} == set(functions)
    for code, item in rules.items():
        assert item.function.__name__ == code.replace("-", "_")
        assert item.severity in ("error", "warning", "info")
        assert all((item.what, item.symptom, item.source))
        assert set(item.unless) <= set(rules) - {code}


@pytest.mark.parametrize(("n", "p"), [(1, 0.5), (10, 0.15), (40, 0.4)])
def test_at_least_and_at_most_are_the_sums_of_their_terms(n, p):
    terms = [math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(n + 1)]
    for k in range(n + 1):
        assert at_least(k, n, p) == pytest.approx(sum(terms[k:]), rel=1e-9)
        assert at_most(k, n, p) == pytest.approx(sum(terms[: k + 1]), rel=1e-9)
    assert (at_least(1, 3, 0.0), at_least(1, 3, 1.0), ALPHA) == (0.0, 1.0, 1e-4)
