"""top_predictions: the answer at each mask, against the pipeline of transformers."""

import math

import pytest
import torch
import transformers
from toys import HEADS, byte_level_bpe, small_model, without_mask_token, wordpiece
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertModel,
    FillMaskPipeline,
    RobertaConfig,
    RobertaForMaskedLM,
)

from mlmtutor import predict
from mlmtutor.scoring import (
    Prediction,
    PseudoLogLikelihood,
    is_trained,
    pseudo_log_likelihood,
    top_predictions,
)

SMALL = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 20,
    "initializer_range": 0.5,
}


def bert(extra_ids=0):
    tokenizer = wordpiece()
    torch.manual_seed(0)
    config = BertConfig(vocab_size=len(tokenizer) + extra_ids, pad_token_id=0, **SMALL)
    return BertForMaskedLM(config), tokenizer


def roberta():
    tokenizer = byte_level_bpe()
    torch.manual_seed(0)
    config = RobertaConfig(vocab_size=len(tokenizer), pad_token_id=1, **SMALL)
    return RobertaForMaskedLM(config), tokenizer


@pytest.fixture(params=[bert, roberta])
def pair(request):
    return request.param()


@pytest.mark.parametrize("masks", [1, 2])
def test_same_answers_as_the_pipeline(pair, masks):
    model, tokenizer = pair
    text = " ".join(["the cat", *[tokenizer.mask_token] * masks, "on"])
    ours = top_predictions(model, tokenizer, text, k=3)
    theirs = FillMaskPipeline(model=model.eval(), tokenizer=tokenizer)(text, top_k=3)
    theirs = [theirs] if masks == 1 else theirs
    assert len(ours) == len(theirs) == masks
    for our_row, their_row in zip(ours, theirs, strict=True):
        assert [p.token_id for p in our_row] == [p["token"] for p in their_row]
        assert [p.probability for p in our_row] == pytest.approx(
            [p["score"] for p in their_row], rel=1e-5
        )


def test_all_probabilities_fall_and_sum_to_one(pair):
    model, tokenizer = pair
    [row] = top_predictions(model, tokenizer, tokenizer.mask_token, k=model.config.vocab_size)
    probabilities = [p.probability for p in row]
    assert probabilities == sorted(probabilities, reverse=True)
    assert sum(probabilities) == pytest.approx(1, abs=1e-5)
    assert sorted(p.token_id for p in row) == list(range(model.config.vocab_size))
    assert all(tokenizer.convert_tokens_to_ids(p.token) == p.token_id for p in row)


def test_five_by_default(pair):
    model, tokenizer = pair
    [row] = top_predictions(model, tokenizer, f"the {tokenizer.mask_token}")
    assert len(row) == 5


def test_the_mask_that_comes_first_is_answered_first():
    model, tokenizer = bert()
    [first, second] = top_predictions(model, tokenizer, "[MASK] cat [MASK]")
    ids = tokenizer("[MASK] cat [MASK]", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        probabilities = model.eval()(input_ids=ids).logits[0].softmax(-1)
    assert first[0].probability == pytest.approx(probabilities[1].max().item())
    assert second[0].probability == pytest.approx(probabilities[3].max().item())
    assert abs(first[0].probability - second[0].probability) > 0.001, "the masks must differ"


@pytest.mark.parametrize("name", HEADS)
def test_every_mlm_head_is_accepted(name):
    tokenizer = wordpiece()
    model = small_model(name, vocab_size=len(tokenizer))
    text = "the [MASK] sat"
    [row] = top_predictions(model, tokenizer, text, k=1)
    with torch.no_grad():
        logits = model(**tokenizer(text, return_tensors="pt", return_token_type_ids=False)).logits
    assert row[0].token_id == logits[0, 2].argmax()


def test_every_module_keeps_its_mode():
    model, tokenizer = bert()
    model.train()
    model.bert.embeddings.eval()  # frozen by the reader
    modes = [module.training for module in model.modules()]
    assert {True, False} == set(modes)
    answers = [top_predictions(model, tokenizer, "the [MASK]") for _ in range(2)]
    assert [module.training for module in model.modules()] == modes
    assert answers[0] == answers[1], "dropout must be off"


def test_the_mode_is_restored_after_an_error():
    model, tokenizer = bert()
    model.train()

    def fail(*args, **kwargs):
        raise RuntimeError("from the model")

    model.forward = fail
    with pytest.raises(RuntimeError, match="from the model"):
        top_predictions(model, tokenizer, "the [MASK]")
    assert all(module.training for module in model.modules())


def test_nothing_learns(pair):
    model, tokenizer = pair
    top_predictions(model, tokenizer, f"the {tokenizer.mask_token}")
    assert all(parameter.grad is None for parameter in model.parameters())


def test_an_id_without_a_token_is_shown_as_a_question_mark():
    model, tokenizer = bert(extra_ids=3)
    [row] = top_predictions(model, tokenizer, "[MASK]", k=model.config.vocab_size)
    assert [p.token for p in row if p.token_id >= len(tokenizer)] == ["?"] * 3


def test_a_prediction_is_a_tuple_that_prints_rounded():
    prediction = Prediction("door", 2341, 0.123456)
    token, token_id, probability = prediction
    assert (token, token_id, probability) == ("door", 2341, 0.123456)
    assert repr(prediction) == "Prediction('door', 2341, 0.1235)"
    with pytest.raises(AttributeError):
        prediction.token = "window"


def test_trained_is_better_than_half_of_a_guess(tutor, monkeypatch):
    assert is_trained(*tutor)
    model, tokenizer = bert()
    assert not is_trained(model, tokenizer)
    half = math.log(model.config.vocab_size) / 2
    for offset, trained in ((0.01, False), (0.0, False), (-0.01, True)):
        values = (-half - offset,) * 2
        score = PseudoLogLikelihood(("a", "b"), values)
        monkeypatch.setattr(predict, "pseudo_log_likelihood", lambda *given, score=score: score)
        assert is_trained(model, tokenizer) == trained


# --- Length ----------------------------------------------------------------------------------


def test_as_long_as_the_model_can_read(pair):
    model, tokenizer = pair
    # BERT has 20 positions. RoBERTa numbers them from 2, after the id of padding, and has 18.
    limit = 20 if isinstance(model, BertForMaskedLM) else 18
    mask = tokenizer.mask_token
    assert len(top_predictions(model, tokenizer, mask * (limit - 2))) == limit - 2
    with pytest.raises(ValueError, match=f"at most {limit} tokens .* has {limit + 1}: shorten"):
        top_predictions(model, tokenizer, mask * (limit - 1))


def test_the_limit_of_the_tokenizer_counts_too():
    model, tokenizer = bert()
    tokenizer.model_max_length = 6
    with pytest.raises(ValueError, match=r"at most 6 tokens .* has 7"):
        top_predictions(model, tokenizer, "the the the the [MASK]")


@pytest.mark.parametrize("function", [top_predictions, pseudo_log_likelihood])
def test_a_text_that_is_too_long_gets_the_error_and_no_warning(function, caplog):
    model, tokenizer = bert()
    tokenizer.model_max_length = 6
    transformers.logging.enable_propagation()
    try:
        with pytest.raises(ValueError, match="at most 6 tokens"):
            function(model, tokenizer, "the the the the the [MASK]")
    finally:
        transformers.logging.disable_propagation()
    assert not caplog.records


class WithoutPositions:
    """A configuration that does not say how many positions there are."""

    def __init__(self, config):
        self._config = config

    def __getattr__(self, name):
        if name == "max_position_embeddings":
            raise AttributeError(name)
        return getattr(self._config, name)


def test_a_model_that_names_no_limit_leaves_it_to_the_tokenizer():
    model, tokenizer = bert()
    model.config = WithoutPositions(model.config)
    tokenizer.model_max_length = 6
    assert len(top_predictions(model, tokenizer, "the the the [MASK]")) == 1
    with pytest.raises(ValueError, match=r"at most 6 tokens .* has 7"):
        top_predictions(model, tokenizer, "the the the the [MASK]")


def test_positions_that_are_no_table_of_their_own_count_as_they_are():
    model, tokenizer = bert()
    model.bert.relative_position_embeddings = torch.nn.Identity()
    assert len(top_predictions(model, tokenizer, "[MASK]" * 18)) == 18


def test_a_tokenizer_that_truncates_by_itself_drops_no_mask():
    model, tokenizer = bert()
    tokenizer.backend_tokenizer.enable_truncation(max_length=4)
    assert len(top_predictions(model, tokenizer, "the cat sat on the [MASK]")) == 1


def test_rows_are_read_32_at_a_time():
    tokenizer = wordpiece()
    sizes = SMALL | {"max_position_embeddings": 64}
    model = BertForMaskedLM(BertConfig(vocab_size=len(tokenizer), **sizes))
    rows = []
    model.bert.embeddings.register_forward_hook(lambda _, given, out: rows.append(len(out)))
    pseudo_log_likelihood(model, tokenizer, "the " * 40)
    assert rows == [32, 8]


# --- Errors ----------------------------------------------------------------------------------


def test_a_foreign_mask_token_is_shown_split():
    model, tokenizer = bert()
    with pytest.raises(
        ValueError, match=r"(?s)contain \[MASK\].*\[CLS\] the .* \[SEP\]\nWrite"
    ) as e:
        top_predictions(model, tokenizer, "the <mask>")
    assert "<mask>, the mask token of other tokenizers, is ordinary text" in str(e.value)
    model, tokenizer = roberta()
    with pytest.raises(ValueError, match=r"(?s)contain <mask>.*<s> the Ġ .*\[ .*\] </s>") as e:
        top_predictions(model, tokenizer, "the [MASK]")
    assert "[MASK], the mask token of other tokenizers, is ordinary text" in str(e.value)


@pytest.mark.parametrize(
    ("text", "k", "error", "message"),
    [
        (["the [MASK]"], 5, TypeError, "text must be a str, but is a list: .* once for each"),
        ("the [MASK]", 0, ValueError, "k must be between 1 and 29, .* but is 0"),
        ("the [MASK]", 30, ValueError, "k must be between 1 and 29, .* but is 30"),
        ("the [MASK]", 2.0, TypeError, "k must be an int, but is a float"),
        ("", 5, ValueError, r"split into: \[CLS\] \[SEP\]"),
    ],
)
def test_errors_name_the_cause(text, k, error, message):
    model, tokenizer = bert()
    with pytest.raises(error, match=message):
        top_predictions(model, tokenizer, text, k)


def test_a_pseudo_perplexity_above_all_floats_is_infinite():
    assert PseudoLogLikelihood(("a",), (-700.0,)).pseudo_perplexity == math.exp(700)
    assert PseudoLogLikelihood(("a",), (-1000.0,)).pseudo_perplexity == math.inf


@pytest.mark.parametrize("function", [top_predictions, pseudo_log_likelihood])
def test_a_token_that_is_ruled_out_is_no_error_and_a_position_without_any_is(function):
    model, tokenizer = bert()
    text = "[MASK] cat [MASK]" if function is top_predictions else "the cat"
    with torch.no_grad():
        model.cls.predictions.bias[7] = -math.inf
    function(model, tokenizer, text)

    def nothing_at_the_last(module, given, logits):
        logits = logits.clone()
        logits.view(-1, logits.shape[-1])[
            -1 if function is pseudo_log_likelihood else 3
        ] = -math.inf
        return logits

    model.cls.register_forward_hook(nothing_at_the_last)
    with pytest.raises(ValueError, match="logits with a finite largest value"):
        function(model, tokenizer, text)


def test_a_batch_size_that_is_no_number_of_rows_is_named():
    model, tokenizer = bert()
    with pytest.raises(ValueError, match=r"^batch_size must fit into 64 bits"):
        pseudo_log_likelihood(model, tokenizer, "the cat", batch_size=2**64)


@pytest.mark.parametrize("batch_size", [True, 2.0])
def test_a_batch_size_is_a_whole_number(batch_size):
    model, tokenizer = bert()
    with pytest.raises(TypeError, match=r"^batch_size must be an int, but is a "):
        pseudo_log_likelihood(model, tokenizer, "the cat", batch_size=batch_size)


def test_a_module_that_is_no_model_has_no_head():
    with pytest.raises(TypeError, match="an MLM head, but Linear has none"):
        top_predictions(torch.nn.Linear(2, 2), bert()[1], "the [MASK]")


def test_a_model_without_head_is_an_error():
    model, tokenizer = bert()
    with pytest.raises(TypeError, match=r"an MLM head, but BertModel has none: .*ForMaskedLM"):
        top_predictions(BertModel(model.config), tokenizer, "the [MASK]")


def test_a_tokenizer_without_mask_token_is_an_error():
    with pytest.raises(ValueError, match="must have a mask token"):
        top_predictions(bert()[0], without_mask_token(), "cat")


def test_an_id_that_the_model_does_not_know_is_an_error():
    model, _ = bert()
    tokenizer = byte_level_bpe()
    with pytest.raises(ValueError, match=r"between 0 and 28, .* gives '.*' the id .* together"):
        top_predictions(model, tokenizer, "the <mask>")


def test_the_first_id_behind_the_last_is_an_error():
    model, tokenizer = bert(extra_ids=-1)
    last = tokenizer.convert_ids_to_tokens(len(tokenizer) - 1).removeprefix("##")
    with pytest.raises(ValueError, match=rf"between 0 and {len(tokenizer) - 2}, .* together"):
        top_predictions(model, tokenizer, f"the{last} {last} [MASK]")
