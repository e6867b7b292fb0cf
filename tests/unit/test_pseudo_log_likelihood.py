"""pseudo_log_likelihood: against one forward per token, and against the loss of the labels."""

import collections
import dataclasses
import importlib.resources
import json
import math

import pytest
import torch
import transformers
from toys import HEADS, byte_level_bpe, small_model, without_mask_token, wordpiece
from transformers import BertConfig, BertForMaskedLM, BertModel, RobertaConfig, RobertaForMaskedLM

from mlmtutor.scoring import PseudoLogLikelihood, pseudo_log_likelihood

SMALL = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 20,
    "initializer_range": 0.5,
}
TEXT = "the tokenization walked on , the doors opened ."


def bert():
    tokenizer = wordpiece()
    torch.manual_seed(0)
    return BertForMaskedLM(
        BertConfig(vocab_size=len(tokenizer), pad_token_id=0, **SMALL)
    ), tokenizer


def roberta():
    tokenizer = byte_level_bpe()
    torch.manual_seed(0)
    config = SMALL | {"max_position_embeddings": 60}
    return RobertaForMaskedLM(
        RobertaConfig(vocab_size=len(tokenizer), pad_token_id=1, **config)
    ), tokenizer


@pytest.fixture(params=[bert, roberta])
def pair(request):
    return request.param()


def one_by_one(model, tokenizer, text, within_word=False):
    """Score the text with one forward per token, and logits for every position of it."""
    encoded = tokenizer(text, return_tensors="pt", return_token_type_ids=False)
    words = encoded.word_ids(0)
    model.eval()
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
            logits = model(**masked).logits[0, position]
        values.append(float(logits.log_softmax(-1)[answer]))
    return values


def diagonal(tokenizer, text):
    """Return the rows, each with one token hidden, and the labels, a diagonal."""
    ids = tokenizer(text, return_tensors="pt")["input_ids"]
    batch = ids.repeat(ids.shape[1] - 2, 1)
    labels = torch.full_like(batch, -100)
    for row in range(len(batch)):
        batch[row, row + 1] = tokenizer.mask_token_id
        labels[row, row + 1] = ids[0, row + 1]
    return batch, labels


# --- Parity ----------------------------------------------------------------------------------


@pytest.mark.parametrize("within_word", [False, True])
def test_equal_to_one_forward_per_token(pair, within_word):
    score = pseudo_log_likelihood(*pair, TEXT, within_word=within_word)
    expected = one_by_one(*pair, TEXT, within_word)
    assert score.log_probabilities == pytest.approx(expected, abs=1e-4)
    assert score.total == pytest.approx(sum(expected), abs=1e-3)
    assert len(set(score.log_probabilities)) > 5, "the tokens must differ"


def test_equal_to_the_loss_of_diagonal_labels(pair):
    model, tokenizer = pair
    batch, labels = diagonal(tokenizer, TEXT)
    with torch.no_grad():
        loss = model.eval()(input_ids=batch, labels=labels).loss
    score = pseudo_log_likelihood(model, tokenizer, TEXT)
    assert score.total == pytest.approx(-len(batch) * float(loss), rel=1e-5)
    assert score.pseudo_perplexity == pytest.approx(math.exp(loss), rel=1e-4)


@pytest.mark.parametrize("name", HEADS)
def test_every_mlm_head_is_scored(name):
    tokenizer = wordpiece()
    model = small_model(name, vocab_size=len(tokenizer))
    score = pseudo_log_likelihood(model, tokenizer, TEXT, batch_size=5)
    assert score.log_probabilities == pytest.approx(one_by_one(model, tokenizer, TEXT), abs=1e-4)


def test_the_embedded_model(tutor):
    model, tokenizer = tutor
    text = "She drank cold water."
    score = pseudo_log_likelihood(model, tokenizer, text)
    assert score.tokens == ("she", "drank", "cold", "water", ".")
    assert score.log_probabilities == pytest.approx(one_by_one(model, tokenizer, text), abs=1e-3)
    batch, labels = diagonal(tokenizer, text)
    with torch.no_grad():
        loss = model(input_ids=batch, labels=labels).loss
    assert score.total == pytest.approx(-5 * float(loss), abs=1e-3)


# --- What is computed ------------------------------------------------------------------------


@pytest.mark.parametrize("within_word", [False, True])
def test_the_batch_size_changes_nothing(pair, within_word):
    options = {"within_word": within_word}
    whole = pseudo_log_likelihood(*pair, TEXT, batch_size=1000, **options)
    for batch_size in (1, 3):
        parts = pseudo_log_likelihood(*pair, TEXT, batch_size=batch_size, **options)
        assert parts.tokens == whole.tokens
        assert parts.log_probabilities == pytest.approx(whole.log_probabilities, abs=1e-5)


def watch(model):
    """Record what the model reads and the largest output that a linear layer of it makes."""
    seen = {"input_ids": [], "largest": 0, "rows": 0}

    def before(module, arguments, keywords):
        seen["input_ids"].append(keywords["input_ids"])

    def after(module, arguments, output):
        seen["largest"] = max(seen["largest"], output.numel())

    model.register_forward_pre_hook(before, with_kwargs=True)
    model.get_output_embeddings().register_forward_hook(after)
    return seen


def test_no_batch_is_larger_and_no_logit_is_made_that_is_not_wanted():
    model, tokenizer = bert()
    seen = watch(model)
    pseudo_log_likelihood(model, tokenizer, TEXT, batch_size=4)
    assert [len(batch) for batch in seen["input_ids"]] == [4, 4, 3]
    assert seen["largest"] == 4 * len(tokenizer)


def test_a_model_whose_head_takes_all_positions_gives_the_same():
    # A head that mixes the shape before its last layer is left alone.
    model, tokenizer = bert()
    expected = pseudo_log_likelihood(model, tokenizer, TEXT).log_probabilities
    decoder = model.cls.predictions.decoder

    class Flat(torch.nn.Module):
        def forward(self, states):
            return decoder(states.flatten(0, 1)).unflatten(0, states.shape[:2])

    model.cls.predictions.decoder = Flat()
    model.get_output_embeddings = lambda: decoder
    assert pseudo_log_likelihood(model, tokenizer, TEXT).log_probabilities == expected


def test_without_the_option_one_token_is_hidden_in_each_row():
    model, tokenizer = bert()
    seen = watch(model)
    score = pseudo_log_likelihood(model, tokenizer, TEXT)
    [batch] = seen["input_ids"]
    assert torch.equal(batch, diagonal(tokenizer, TEXT)[0])
    assert score.tokens == tuple(tokenizer.tokenize(TEXT))


def test_with_the_option_the_rest_of_the_word_is_hidden_too():
    model, tokenizer = bert()
    seen = watch(model)
    score = pseudo_log_likelihood(model, tokenizer, "the tokenization doors", within_word=True)
    assert score.tokens == ("the", "token", "##ization", "door", "##s")
    [batch] = seen["input_ids"]
    hidden = (batch == tokenizer.mask_token_id).int().tolist()
    assert hidden == [
        [0, 1, 0, 0, 0, 0, 0],
        [0, 0, 1, 1, 0, 0, 0],  # token, and ##ization of the same word
        [0, 0, 0, 1, 0, 0, 0],
        [0, 0, 0, 0, 1, 1, 0],
        [0, 0, 0, 0, 0, 1, 0],
    ]


def test_the_option_moves_only_words_of_several_pieces(pair):
    words = [word for word in pair[1](TEXT).word_ids() if word is not None]
    plain = pseudo_log_likelihood(*pair, TEXT).log_probabilities
    within = pseudo_log_likelihood(*pair, TEXT, within_word=True).log_probabilities
    moved = [not math.isclose(a, b, abs_tol=1e-6) for a, b in zip(plain, within, strict=True)]
    assert moved == [word in words[i + 1 :] for i, word in enumerate(words)]
    assert any(moved)


def test_a_token_that_the_vocabulary_lacks_is_scored_as_unk():
    model, tokenizer = bert()
    assert pseudo_log_likelihood(model, tokenizer, "the zebra").tokens == ("the", "[UNK]")


def test_half_precision_is_scored_in_float32():
    model, tokenizer = bert()
    exact = pseudo_log_likelihood(model, tokenizer, TEXT)
    rounded = pseudo_log_likelihood(model.bfloat16(), tokenizer, TEXT)
    assert rounded.log_probabilities == pytest.approx(exact.log_probabilities, abs=0.3)


# --- The result ------------------------------------------------------------------------------


def test_total_and_pseudo_perplexity():
    score = PseudoLogLikelihood(("a", "b"), (math.log(0.5), math.log(0.125)))
    assert score.total == pytest.approx(math.log(1 / 16))
    assert score.pseudo_perplexity == pytest.approx(4)
    with pytest.raises(dataclasses.FrozenInstanceError):
        score.tokens = ()


# --- The model is left as it was -------------------------------------------------------------


def test_every_module_keeps_its_mode_and_nothing_learns():
    model, tokenizer = bert()
    model.train()
    model.bert.embeddings.eval()  # frozen by the reader
    modes = [module.training for module in model.modules()]
    first, second = (pseudo_log_likelihood(model, tokenizer, TEXT) for _ in range(2))
    assert [module.training for module in model.modules()] == modes
    assert first == second, "dropout must be off"
    assert all(parameter.grad is None for parameter in model.parameters())


def test_an_error_of_the_model_leaves_neither_hook_nor_mode():
    model, tokenizer = bert()
    model.train()

    def fail(*args, **kwargs):
        raise RuntimeError("from the model")

    model.forward = fail
    with pytest.raises(RuntimeError, match="from the model"):
        pseudo_log_likelihood(model, tokenizer, TEXT)
    assert all(module.training for module in model.modules())
    assert not model.get_output_embeddings()._forward_pre_hooks


# --- Errors ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "options", "error", "message"),
    [
        (["the cat"], {}, TypeError, "text must be a str, but is a list: .* once for each"),
        ("", {}, ValueError, "at least one token to score, but has none: it is empty"),
        ("  ", {}, ValueError, "at least one token to score, but has none"),
        ("the [MASK]", {}, ValueError, r"must not contain \[MASK\], but does: .* top_predictions"),
        ("the cat", {"batch_size": 0}, ValueError, "at least 1, but is 0: it is how many rows"),
        ("the cat", {"batch_size": 2.0}, TypeError, "batch_size must be an int, but is a float"),
        ("the cat", {"batch_size": True}, TypeError, "batch_size must be an int, but is a bool"),
    ],
)
def test_errors_name_the_cause(text, options, error, message):
    model, tokenizer = bert()
    with pytest.raises(error, match=message):
        pseudo_log_likelihood(model, tokenizer, text, **options)


def test_as_long_as_the_model_can_read():
    model, tokenizer = bert()
    assert len(pseudo_log_likelihood(model, tokenizer, "the " * 18).tokens) == 18
    with pytest.raises(ValueError, match=r"at most 20 tokens .* has 21: score its sentences one"):
        pseudo_log_likelihood(model, tokenizer, "the " * 19)


def test_a_model_without_head_is_an_error():
    model, tokenizer = bert()
    with pytest.raises(TypeError, match="an MLM head, but BertModel has none"):
        pseudo_log_likelihood(BertModel(model.config), tokenizer, "the cat")


def test_a_tokenizer_without_mask_token_is_an_error():
    with pytest.raises(ValueError, match="must have a mask token"):
        pseudo_log_likelihood(bert()[0], without_mask_token(), "cat")


def test_an_id_that_the_model_does_not_know_is_an_error():
    with pytest.raises(ValueError, match=r"between 0 and 28, .* gives '.*' the id .* together"):
        pseudo_log_likelihood(bert()[0], byte_level_bpe(), "the cat")


def test_words_need_a_fast_tokenizer(tmp_path):
    canine = transformers.CanineTokenizer()  # it splits into characters, and is slow everywhere
    model = small_model("Bert", vocab_size=max(canine.mask_token_id, 200) + 1)
    with pytest.raises(ValueError, match=r"but CanineTokenizer is a slow one: load the fast one"):
        pseudo_log_likelihood(model, canine, "a cat", within_word=True)


# --- The minimal pairs -----------------------------------------------------------------------

PAIRS = json.loads(
    importlib.resources.files("mlmtutor")
    .joinpath("data", "minimal_pairs.json")
    .read_text(encoding="utf-8")
)


def test_forty_pairs_or_more_of_three_kinds():
    kinds = collections.Counter(pair["kind"] for pair in PAIRS)
    assert set(kinds) == {"agreement", "word order", "semantics"}
    assert min(kinds.values()) >= 13
    assert len(PAIRS) >= 40
    sentences = [pair[name] for pair in PAIRS for name in ("good", "bad")]
    assert len(set(sentences)) == 2 * len(PAIRS)


@pytest.mark.parametrize("pair", PAIRS, ids=[pair["bad"] for pair in PAIRS])
def test_a_pair_differs_in_one_place(pair, tokenizer):
    good, bad = (tokenizer.tokenize(pair[name]) for name in ("good", "bad"))
    assert len(good) == len(bad), "a longer sentence has more to lose"
    assert not any(token.startswith("##") for token in good + bad)
    if pair["kind"] == "word order":
        assert collections.Counter(good) == collections.Counter(bad)
    else:
        assert sum(a != b for a, b in zip(good, bad, strict=True)) == 1
