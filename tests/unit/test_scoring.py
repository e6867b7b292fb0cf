"""top_predictions against the pipeline, pseudo_log_likelihood against one forward per token."""

import importlib.resources
import json
import math

import pytest
import torch
import transformers
from toys import HEADS, byte_level_bpe, small_model, without_mask_token, wordpiece

from mlmtutor.scoring import (
    Prediction,
    PseudoLogLikelihood,
    pseudo_log_likelihood,
    top_predictions,
)

TEXT = "the tokenization walked on , the doors opened ."


SETTINGS = {"initializer_range": 0.5, "max_position_embeddings": 60}


def bert(extra_ids=0, **changes):
    tokenizer = wordpiece()
    size = len(tokenizer) + extra_ids
    return tokenizer, small_model("Bert", vocab_size=size, **SETTINGS | changes)


def roberta(**changes):
    tokenizer = byte_level_bpe()
    sizes = {"vocab_size": len(tokenizer), "pad_token_id": 1}
    return tokenizer, small_model("Roberta", **sizes, **SETTINGS | changes)


@pytest.fixture(params=[bert, roberta])
def pair(request):
    return request.param()


def text_for(function):
    return "the [MASK]" if function is top_predictions else "the cat"


both = pytest.mark.parametrize("function", [top_predictions, pseudo_log_likelihood])


def one_by_one(text, tokenizer, model, within_word=False):
    """Score the text with one forward per token, and logits for every position of it."""
    encoded = tokenizer(text, return_tensors="pt", return_token_type_ids=False)
    words = encoded.word_ids(0)
    values = []
    for position, word in enumerate(words):
        if word is None:
            continue
        masked = {name: tensor.clone() for name, tensor in encoded.items()}
        answer = int(masked["input_ids"][0, position])
        masked["input_ids"][0, position] = tokenizer.mask_token_id
        for later in range(position + 1, len(words)):
            if within_word and words[later] == word:
                masked["input_ids"][0, later] = tokenizer.mask_token_id
        with torch.no_grad():
            logits = model.eval()(**masked).logits[0, position]
        values.append(float(logits.log_softmax(-1)[answer]))
    return values


# --- top_predictions -------------------------------------------------------------------------


@pytest.mark.parametrize("masks", [1, 2])
def test_top_predictions_are_those_of_the_pipeline(pair, masks):
    tokenizer, model = pair
    text = " ".join(["the cat", *[tokenizer.mask_token] * masks, "on"])
    ours = top_predictions(text, tokenizer, model, k=3)
    pipeline = transformers.FillMaskPipeline(model=model.eval(), tokenizer=tokenizer)
    theirs = pipeline(text, top_k=3)
    theirs = [theirs] if masks == 1 else theirs
    assert len(ours) == len(theirs) == masks
    for our_row, their_row in zip(ours, theirs, strict=True):
        assert [p.token_id for p in our_row] == [p["token"] for p in their_row]
        assert [p.probability for p in our_row] == pytest.approx(
            [p["score"] for p in their_row], rel=1e-5
        )
    assert len(top_predictions(text, tokenizer, model)[0]) == 5


def test_top_predictions_show_an_id_without_a_token_as_a_question_mark():
    tokenizer, model = bert(extra_ids=3)
    [row] = top_predictions("[MASK]", tokenizer, model, k=model.config.vocab_size)
    assert [p.token for p in row if p.token_id >= len(tokenizer)] == ["?"] * 3
    assert repr(Prediction("door", 2341, 0.123456)) == "Prediction('door', 2341, 0.1235)"


@pytest.mark.parametrize(
    ("make", "mask", "message"),
    [
        (bert, "<mask>", r"(?s)contain \[MASK\].*\[CLS\] the .* \[SEP\]\nWrite"),
        (roberta, "[MASK]", r"(?s)contain <mask>.*<s> the Ġ .*\[ .*\] </s>"),
    ],
)
def test_top_predictions_show_how_a_foreign_mask_token_was_split(make, mask, message):
    with pytest.raises(ValueError, match=message) as caught:
        top_predictions(f"the {mask}", *make())
    assert f"{mask}, the mask token of other tokenizers, is ordinary text" in str(caught.value)


@pytest.mark.parametrize("k", [0, 30])
def test_top_predictions_are_at_most_as_many_as_the_vocabulary(k):
    with pytest.raises(ValueError, match=f"k must be between 1 and 29, .* but is {k}"):
        top_predictions("the [MASK]", *bert(), k)


# --- pseudo_log_likelihood -------------------------------------------------------------------


@pytest.mark.parametrize("within_word", [False, True])
def test_pseudo_log_likelihood_equals_one_forward_per_token(pair, within_word):
    score = pseudo_log_likelihood(TEXT, *pair, within_word=within_word)
    expected = one_by_one(TEXT, *pair, within_word)
    assert score.log_probabilities == pytest.approx(expected, abs=1e-4)
    assert score.total == pytest.approx(sum(expected), abs=1e-3)
    assert len(set(score.log_probabilities)) > 5, "the tokens must differ"
    for batch_size in (1, 3):
        parts = pseudo_log_likelihood(TEXT, *pair, within_word=within_word, batch_size=batch_size)
        assert parts.tokens == score.tokens
        assert parts.log_probabilities == pytest.approx(score.log_probabilities, abs=1e-5)


@pytest.mark.parametrize("name", HEADS)
def test_scoring_takes_every_head(name):
    tokenizer = wordpiece()
    model = small_model(name, vocab_size=len(tokenizer))
    score = pseudo_log_likelihood(TEXT, tokenizer, model, batch_size=5)
    assert score.log_probabilities == pytest.approx(one_by_one(TEXT, tokenizer, model), abs=1e-4)
    [[best]] = top_predictions("the [MASK] sat", tokenizer, model, k=1)
    encoded = tokenizer("the [MASK] sat", return_tensors="pt", return_token_type_ids=False)
    with torch.no_grad():
        assert best.token_id == model(**encoded).logits[0, 2].argmax()


def test_scoring_takes_a_head_without_output_embeddings():
    config = transformers.PerceiverConfig(
        vocab_size=60, d_model=16, d_latents=16, num_latents=4, num_self_attends_per_block=1,
        num_self_attention_heads=2, num_cross_attention_heads=2, qk_channels=16, v_channels=16,
        max_position_embeddings=12,
    )  # fmt: skip
    model = transformers.PerceiverForMaskedLM(config)
    assert model.get_output_embeddings() is None
    score = pseudo_log_likelihood("the cat sat", wordpiece(), model)
    expected = one_by_one("the cat sat", wordpiece(), model)
    assert score.log_probabilities == pytest.approx(expected, abs=1e-5)
    assert len(top_predictions("the [MASK] sat", wordpiece(), model)) == 1


def test_pseudo_log_likelihood_makes_no_larger_batch_and_no_logits_it_does_not_need():
    tokenizer, model = bert()
    rows = []
    model.get_output_embeddings().register_forward_hook(
        lambda module, given, output: rows.append(output.numel() / len(tokenizer))
    )
    pseudo_log_likelihood(TEXT, tokenizer, model, batch_size=4)
    assert rows == [4, 4, 3]
    pseudo_log_likelihood("the " * 40, tokenizer, model)
    assert rows[3:] == [32, 8]


def test_pseudo_log_likelihood_in_half_precision_is_scored_in_float32():
    tokenizer, model = bert()
    exact = pseudo_log_likelihood(TEXT, tokenizer, model)
    rounded = pseudo_log_likelihood(TEXT, tokenizer, model.bfloat16())
    assert rounded.log_probabilities == pytest.approx(exact.log_probabilities, abs=0.3)


def test_pseudo_perplexity_of_a_sentence_that_cannot_be_is_infinite():
    assert PseudoLogLikelihood(("a",), (-1000.0,)).pseudo_perplexity == math.inf


def test_pseudo_log_likelihood_within_word_needs_a_fast_tokenizer(monkeypatch):
    tokenizer, model = bert()
    monkeypatch.setattr(type(tokenizer), "is_fast", False)
    with pytest.raises(ValueError, match=r"is a slow one: load the fast one"):
        pseudo_log_likelihood("a cat", tokenizer, model, within_word=True)


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("", {}, "at least one token to score, but has none: it is empty"),
        ("the [MASK]", {}, r"must not contain \[MASK\], but does: .* top_predictions"),
        ("the cat", {"batch_size": 0}, "at least 1, but is 0: it is how many rows"),
    ],
)
def test_pseudo_log_likelihood_names_the_cause_of_an_error(text, options, message):
    with pytest.raises(ValueError, match=message):
        pseudo_log_likelihood(text, *bert(), **options)


# --- Both ------------------------------------------------------------------------------------


@both
def test_scoring_leaves_the_model_as_it_was(function):
    tokenizer, model = bert()
    model.train()
    model.bert.embeddings.eval()  # frozen by the reader
    modes = [module.training for module in model.modules()]
    first, second = (function(text_for(function), tokenizer, model) for _ in range(2))
    assert first == second, "dropout must be off"

    def fail(*args, **kwargs):
        raise RuntimeError("from the model")

    model.forward = fail
    with pytest.raises(RuntimeError, match="from the model"):
        function(text_for(function), tokenizer, model)
    assert [module.training for module in model.modules()] == modes
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not model.get_output_embeddings()._forward_pre_hooks


@both
@pytest.mark.parametrize(("make", "limit"), [(bert, 20), (roberta, 18)])
def test_scoring_reads_as_much_as_the_model_can(function, make, limit):
    # Both have 20 rows of positions. RoBERTa numbers them from 2, after the id of padding.
    tokenizer, model = make(max_position_embeddings=20)
    mask = tokenizer.mask_token if function is top_predictions else ","
    function(mask * (limit - 2), tokenizer, model)
    with pytest.raises(ValueError, match=f"at most {limit} tokens .* has {limit + 1}: give it"):
        function(mask * (limit - 1), tokenizer, model)
    tokenizer.model_max_length = 6
    with pytest.raises(ValueError, match=r"at most 6 tokens .* has 7"):
        function(mask * 5, tokenizer, model)
    tokenizer.model_max_length = 20
    tokenizer.backend_tokenizer.enable_truncation(max_length=4)
    text = "the the the the the " + (mask if function is top_predictions else "")
    function(text, tokenizer, model)  # a tokenizer that truncates by itself drops nothing


@both
def test_scoring_names_the_cause_of_an_error(function):
    tokenizer, model = bert()
    text = text_for(function)
    with pytest.raises(TypeError, match=r"text must be a str, but is a list: .* once for each"):
        function([text], tokenizer, model)
    with pytest.raises(ValueError, match="must have a mask token"):
        function("cat", without_mask_token(), model)
    with pytest.raises(ValueError, match=r"between 0 and 28, .* gives '.*' the id .* together"):
        function(text.replace("[MASK]", "<mask>"), byte_level_bpe(), model)
    for kind in (transformers.BertModel, transformers.BertForSequenceClassification,
                 transformers.BertForPreTraining):  # fmt: skip
        with pytest.raises(TypeError, match=f"{kind.__name__} gives none: .*AutoModelForMaskedLM"):
            function(text, tokenizer, kind(model.config))


@both
def test_scoring_allows_a_token_that_is_ruled_out_and_refuses_nan(function):
    tokenizer, model = bert()
    with torch.no_grad():
        model.cls.predictions.bias[7] = -math.inf
        function(text_for(function), tokenizer, model)
        model.cls.predictions.bias[8] = math.nan
    with pytest.raises(ValueError, match="logits with a finite largest value"):
        function(text_for(function), tokenizer, model)


# --- The minimal pairs of lesson 09 ----------------------------------------------------------


def test_minimal_pairs_differ_in_one_place_or_in_the_order(tokenizer):
    text = importlib.resources.files("mlmtutor").joinpath("data", "minimal_pairs.json")
    pairs = json.loads(text.read_text("utf-8"))
    assert len({pair[name] for pair in pairs for name in ("good", "bad")}) == 2 * len(pairs)
    for pair in pairs:
        good, bad = (tokenizer.tokenize(pair[name]) for name in ("good", "bad"))
        assert not any(token.startswith("##") for token in good + bad)
        if pair["kind"] == "word order":
            assert sorted(good) == sorted(bad)
        else:
            assert sum(a != b for a, b in zip(good, bad, strict=True)) == 1
