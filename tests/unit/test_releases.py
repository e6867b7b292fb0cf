"""What the wheels say, what the releases do, and what the errors mean."""

import importlib.resources
import itertools
import re
import tomllib

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy, one_hot
from toys import release_5, small_model
from transformers import (
    DataCollatorForLanguageModeling,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
    default_data_collator,
)

from mlmtutor.releases import explain_error, label_history, observed_calls

HISTORY = {str(release): release for release in label_history()}
CALLS = observed_calls()


# The history


def test_label_history_is_in_order_and_dates_ascend_within_a_package():
    for before, after in itertools.pairwise(HISTORY.values()):
        if before.package == after.package:
            old, new = (tuple(map(int, r.version.split("."))) for r in (before, after))
            assert old < new
    # 4.57.6 was a late patch: order by number and by day agree for all the others
    dates = [r.date for r in HISTORY.values() if r.version != "4.57.6"]
    assert dates == sorted(dates)
    assert all(re.fullmatch(r"20\d\d-\d\d-\d\d", date) for date in dates)
    assert len({r.sha256 for r in HISTORY.values()}) == len(HISTORY)


@pytest.mark.parametrize(
    ("read", "changes"),
    [
        (lambda r: r.ignore_index, {"0.1.1": -1, "2.4.0": -100}),
        (lambda r: r.labels, {"0.1.1": "masked_lm_labels", "3.0.0": "labels"}),
        (lambda r: r.output, {"0.1.1": "Tensor", "0.7.0": "tuple", "4.0.0": "MaskedLMOutput"}),
        (lambda r: r.takes("masked_lm_labels"), {
            "0.1.1": "accepted", "3.0.0": "DeprecationWarning", "3.1.0": "FutureWarning",
            "4.0.0": "TypeError", "5.0.0": "dropped",
        }),
        (lambda r: r.takes("lm_labels"), {
            "0.1.1": "TypeError", "2.2.0": "accepted", "3.0.0": "AssertionError",
            "4.0.0": "TypeError", "5.0.0": "dropped",
        }),
        (lambda r: r.position, {"0.1.1": 4, "2.0.0": 6, "2.2.0": 7, "3.1.0": 9, "5.0.0": 8}),
        (lambda r: (r.collator_key, r.collator_ignored), {
            "0.1.1": (None, None), "2.9.0": ("masked_lm_labels", -100), "3.0.0": ("labels", -100),
        }),
    ],
    ids=["ignore_index", "labels", "output", "masked_lm_labels", "lm_labels", "position", "collator"],
)  # fmt: skip
def test_label_history_changes_when_it_changed(read, changes):
    groups = itertools.groupby(HISTORY.values(), key=read)
    assert {next(releases).version: value for value, releases in groups} == changes


# What the releases do


@pytest.mark.parametrize("call", CALLS, ids=lambda c: f"{c.release} {c.keyword} {c.ignored}")
def test_observed_calls_do_what_was_read(call):
    release = HISTORY[call.release]
    taken = release.takes(call.keyword)
    if taken in ("TypeError", "AssertionError"):
        assert call.call.startswith(f"{taken}: ")
        return
    if taken == "dropped":
        assert (call.call, call.loss) == ("runs", "None")
    elif call.ignored != release.ignore_index:
        assert call.call == f"IndexError: Target {call.ignored} is out of bounds."
        return
    elif call.keyword == "lm_labels":
        assert call.loss == "another number"  # shifted by one
    else:
        assert (call.call, call.loss) == ("runs", "-log p(label)")
    assert call.output == release.output
    assert (call.logits == "runs") == (release.output == "MaskedLMOutput")
    assert [text.split(": ")[0] for text in call.warnings] == [taken] * taken.endswith("Warning")


def test_observed_calls_hold_each_way_of_taking_the_old_name():
    ran = {HISTORY[call.release].takes("masked_lm_labels") for call in CALLS}
    assert ran == {r.takes("masked_lm_labels") for r in HISTORY.values()}
    assert {call.release for call in CALLS if call.as_installed} >= {
        "transformers 4.57.6", "transformers 5.0.0", "transformers 5.23.0", "transformers 5.24.0",
    }  # fmt: skip


SEEN = {
    text for c in CALLS for text in (c.call, c.logits, *c.warnings) if text not in ("runs", None)
}


@pytest.mark.parametrize("text", sorted(SEEN))
def test_explain_error_knows_each_error_and_warning_that_was_seen(text):
    explained = explain_error(text)
    assert explained.known
    # and every release that said it lies in one of the stretches that are named
    for call in (c for c in CALLS if text in (c.call, c.logits, *c.warnings)):
        assert named(call.release, explained.said_by), (call.release, explained.said_by)


def named(release, said_by):
    """Is the release in one of the stretches "a 1.0 to 2.0" of the text?"""
    order = list(HISTORY)
    pattern = r"((?:pytorch-)?[a-z]+(?:-bert)?-?[a-z]*) ([\d.]+\d)(?: to ((?:[a-z-]+ )?[\d.]+\d))?"
    for package, first, last in re.findall(pattern, said_by):
        start = f"{package} {first}"
        end = last if " " in last else f"{package} {last or first}"
        if start in order and order.index(start) <= order.index(release) <= order.index(end):
            return True
    return False


# Errors, raised here


@pytest.fixture(scope="module")
def model():
    return small_model("Bert", vocab_size=30)


IDS = torch.tensor([[1, 5, 4, 6], [1, 7, 4, 8]])


def labels(ignored=-100, answer=9):
    return torch.where(IDS == 4, answer, ignored)


def trainer_without_labels(model, folder):
    options = TrainingArguments(str(folder), report_to=[], use_cpu=True, disable_tqdm=True)
    data = [{"input_ids": ids, "label_ids_": ids} for ids in IDS.tolist()]
    return Trainer(model, options, train_dataset=data, data_collator=default_data_collator)


def unpacked(model, **words):
    loss, _ = model(IDS, **words)
    return loss


def half_resized():
    model = small_model("Bert", vocab_size=30_000)
    model.bert.resize_token_embeddings(30_002, mean_resizing=False)
    return model


RAISED = {
    "-1": (lambda m, t, f: m(IDS, labels=labels(-1)), "A label is -1"),
    "-99": (lambda m, t, f: m(IDS, labels=labels(-99)), "A label is -99. Only one negative"),
    "the size of the vocabulary": (
        lambda m, t, f: m(IDS, labels=labels(answer=30)),
        "A label is 30, and the model has no more than 30 classes",
    ),
    "-100 where -1 is ignored": (
        lambda m, t, f: torch.nn.CrossEntropyLoss(ignore_index=-1)(
            m(IDS).logits.flatten(0, 1), labels().flatten()
        ),
        "A label is -100, and this loss was told to ignore another value",
    ),
    "too few labels": (
        lambda m, t, f: m(IDS, labels=labels()[:, 1:].contiguous()),
        "logits at 8 positions, and there are 6 labels",
    ),
    "a slice": (lambda m, t, f: m(IDS, labels=labels()[:, 1:]), "a slice of a larger tensor"),
    "floats": (lambda m, t, f: m(IDS, labels=labels().float()), "not of dtype torch.int64"),
    "int32": (lambda m, t, f: m(IDS, labels=labels().int()), "not of dtype torch.int64"),
    "labels as input": (lambda m, t, f: m(labels(), labels=IDS), "An id in input_ids is outside"),
    "labels by place": (
        lambda m, t, f: m(IDS, None, None, labels()), "passed by place",
    ),
    "backward without a loss": (
        lambda m, t, f: m(IDS).loss.backward(), "no labels reached it",
    ),
    "Trainer without labels": (
        lambda m, t, f: trainer_without_labels(m, f).train(), "no labels reached it",
    ),
    "-100 as an index": (
        lambda m, t, f: m(IDS).logits.gather(-1, labels().unsqueeze(-1)), "used as an index",
    ),
    "three dimensions": (
        lambda m, t, f: cross_entropy(m(IDS).logits, labels()), "three-dimensional logits",
    ),
    "one-hot": (
        lambda m, t, f: cross_entropy(m(IDS).logits[0], one_hot(IDS[0], 30)), "one-hot",
    ),
    "two dimensions": (
        lambda m, t, f: cross_entropy(m(IDS).logits.flatten(0, 1), labels().repeat(4, 1)), "flattened",
    ),
    "floats as a selection": (lambda m, t, f: ~(IDS == 4).float(), "True and False"),
    "unpacked": (lambda m, t, f: unpacked(m, labels=labels()).backward(), "unpacked as a tuple"),
    "too long": (lambda m, t, f: m(torch.ones(1, 600, dtype=torch.long)), "longer than the model"),
    "half resized": (lambda m, t, f: half_resized()(IDS, labels=labels()), "only the body was resized"),
    "words without offsets": (
        lambda m, t, f: DataCollatorForLanguageModeling(t, whole_word_mask=True)([t("one two")]),
        "finds no offset_mapping",
    ),
    "rows of two lengths": (
        lambda m, t, f: DataCollatorWithPadding(t)([{**t(x), "labels": t(x)["input_ids"]} for x in ("a", "b c")]),
        "something in them was not padded",
    ),
    "removed": (lambda m, t, f: TrainingArguments(str(f), no_cuda=True), "`no_cuda` is no longer"),
    "a rate of 15": (
        lambda m, t, f: DataCollatorForLanguageModeling(t, mlm_probability=15), "15 percent is 0.15",
    ),
    "an output as a loss": (
        lambda m, t, f: m(IDS, labels=labels()).backward(), "taken for a tensor",
    ),
    "labels that are None": (
        lambda m, t, f: cross_entropy(m(IDS).logits.flatten(0, 1), None), "None in place of labels",
    ),
    "-100 without a sign": (
        lambda m, t, f: np.array([1, 2], np.uint16).__setitem__(0, -100), "cannot hold -100",
    ),
    "labels alone": (lambda m, t, f: m(labels=labels()), "The model got no input_ids"),
    "decoding": (
        lambda m, t, f: t.decode(labels()[0].tolist()), "-100 was passed to the tokenizer",
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=release_5 if name in ("removed", "words without offsets") else ())
        for name in RAISED
    ],
)
def test_explain_error_knows_what_the_installed_release_raises(name, model, tokenizer, tmp_path):
    call, means = RAISED[name]
    with pytest.raises(Exception) as caught:
        call(model, tokenizer, tmp_path)
    explained = explain_error(caught.value)
    assert explained.known, caught.value
    assert re.search(means, explained.means)
    assert explained.fix
    assert explain_error(str(caught.value)).means == explained.means


TABLE = importlib.resources.files("mlmtutor.releases").joinpath("errors.toml").read_text("utf-8")
ENTRIES = tomllib.loads(TABLE)["error"]


@pytest.mark.parametrize("entry", ENTRIES, ids=[e["example"][:60] for e in ENTRIES])
def test_explain_error_gives_each_example_its_own_entry(entry):
    explained = explain_error(entry["example"])
    assert explained.threads == tuple(entry.get("threads", ()))
    first = re.split("<|`...`", entry["means"][0])[0]
    assert first in explained.means
    assert (len(entry["means"]) > 1) <= bool(explained.look)
    assert not re.search(r"<\w+>|{|}|span", str(explained).replace("{tokenizer.mask_token}", ""))


@pytest.mark.parametrize(
    ("text", "fix"),
    [
        ("ImportError: cannot import name 'AdamW' from 'transformers' (/x.py)", "torch.optim"),
        ("module transformers has no attribute LineByLineTextDataset", "read the lines"),
        ("cannot import name 'TFBertModel' from 'transformers'", "The class of the same name"),
        ("No module named 'transformers.modeling_bert'", "`transformers` itself"),
        ("Trainer.__init__() got an unexpected keyword argument 'tokenizer'", "processing_class"),
        ("AttributeError: BertTokenizer has no attribute encode_plus", "Call the tokenizer"),
    ],
)
def test_explain_error_knows_what_the_library_dropped(text, fix):
    explained = explain_error(text)
    assert fix.lower() in explained.fix.lower()
    assert re.search(r"transformers \d\.\d+\.\d+ and later", explained.said_by)


@pytest.mark.parametrize(
    ("text", "means"),
    [
        ("loss: nan", "mean over nothing"),
        ("{'loss': nan, 'epoch': 1.0}", "mean over nothing"),
        ("{'loss': nan, 'grad_norm': nan}", r"^\(1\) The gradient is nan"),
        ("{'loss': '0', 'grad_norm': '0', 'epoch': '1'}", r"^\(1\) No position is labelled"),
        ("{'loss': nan, 'grad_norm': 0.0}", r"^\(1\) No position is labelled"),
        ("{'train_loss': nan}", "may have diverged"),
        ("Perplexity = nan", "a batch of the evaluation"),
        ("predictions.bias | MISSING |\nthose were newly initialized", "head that predicts"),
        ("seq_relationship.bias | UNEXPECTED |\npooler.bias | UNEXPECTED |", "Nothing is missing"),
        ("index out of range: Tried to access index 7 out of table with 6 rows", "An id in"),
        ("predictions.bias | UNEXPECTED |\nclassifier.bias | MISSING | ", "a new classifier"),
    ],
)
def test_explain_error_tells_texts_that_look_alike_apart(text, means):
    assert re.search(means, explain_error(text).means, re.I)


@pytest.mark.parametrize(
    "text",
    [
        "KeyError: 'labels'",
        "Input contains NaN, infinity or a value too large",
        "TypeError: forward() got an unexpected keyword argument 'calm'",
        "TypeError: Axes.bar() got an unexpected keyword argument 'labels'",
        "index 7 is out of bounds for dimension 0 with size 3",
        "ImportError: cannot import name 'Nothing' from 'transformers'",
        "RuntimeError: The size of tensor a (600) must match the size of tensor b (512)",
    ],
)
def test_explain_error_does_not_guess(text):
    explained = explain_error(text)
    assert not explained.known
    assert "no guess is made" in str(explained)
    assert explained.threads == ()


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (3, TypeError, "must be an exception or its text, but is a int"),
        ("  ", ValueError, "error is empty: pass the last line"),
    ],
)
def test_explain_error_refuses_what_is_no_text(error, kind, message):
    with pytest.raises(kind, match=message):
        explain_error(error)
