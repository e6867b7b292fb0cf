"""The model that ships: its files, its ids, and that it is as good as its card says."""

import json
import pathlib
import re

import pytest
import torch
from safetensors import safe_open
from transformers import AutoTokenizer, BertForMaskedLM

ROOT = pathlib.Path(__file__).parents[2]
FOLDER = ROOT / "mlmtutor" / "tutor_bert"
CLOZE = ROOT / "tests" / "data" / "cloze.jsonl"


@pytest.fixture(scope="module")
def model():
    return BertForMaskedLM.from_pretrained(FOLDER).eval()


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(FOLDER)


@pytest.fixture(scope="module")
def cloze():
    return [json.loads(line) for line in CLOZE.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def card():
    return (FOLDER / "README.md").read_text(encoding="utf-8")


def test_tutor_bert_is_small_and_plain():
    files = [path for path in FOLDER.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 50e6
    assert {path.suffix for path in files} <= {"", ".json", ".md", ".safetensors", ".txt"}
    assert {"README.md", "NOTICE", "LICENSE"} <= {path.name for path in files}


def test_tutor_bert_config_is_plain():
    config = json.loads((FOLDER / "config.json").read_text(encoding="utf-8"))
    assert config["architectures"] == ["BertForMaskedLM"]
    assert config["model_type"] == "bert"
    assert (config["max_position_embeddings"], config["type_vocab_size"]) == (512, 2)
    assert "_name_or_path" not in config
    assert "auto_map" not in config


def test_tutor_bert_weights_are_float16_on_disk_and_float32_in_memory(model):
    with safe_open(FOLDER / "model.safetensors", "pt") as file:
        names = set(file.keys())
        assert {file.get_tensor(name).dtype for name in names} == {torch.float16}
    assert "cls.predictions.decoder.weight" not in names
    assert model.dtype == torch.float32


def test_tutor_bert_loads_with_no_missing_or_unexpected_keys():
    _, loaded = BertForMaskedLM.from_pretrained(FOLDER, output_loading_info=True)
    assert not loaded["missing_keys"]
    assert not loaded["unexpected_keys"]
    assert not loaded["mismatched_keys"]


def test_tutor_bert_head_is_tied(model):
    embeddings = model.bert.embeddings.word_embeddings.weight
    assert model.cls.predictions.decoder.weight is embeddings
    assert model.cls.predictions.decoder.bias is model.cls.predictions.bias
    assert embeddings.shape == (30522, 384)
    assert all(torch.isfinite(weights).all() for weights in model.parameters())


def test_tutor_bert_tokenizer_is_that_of_bert_base_uncased(tokenizer):
    ids = tokenizer("I want to [MASK] the World.")["input_ids"]
    assert ids == [101, 1045, 2215, 2000, 103, 1996, 2088, 1012, 102]
    pair = tokenizer("One.", "Two.")
    assert pair["token_type_ids"] == [0, 0, 0, 0, 1, 1, 1]
    assert tokenizer.tokenize("Tokenization naïve") == ["token", "##ization", "naive"]
    assert tokenizer.decode(ids, skip_special_tokens=True) == "i want to the world."
    assert tokenizer.model_max_length == 512
    assert len(tokenizer) == 30522
    specials = (tokenizer.pad_token_id, tokenizer.cls_token_id, tokenizer.sep_token_id)
    assert specials == (0, 101, 102)
    assert (tokenizer.mask_token_id, tokenizer.unk_token_id) == (103, 100)


def test_cloze_sentences_are_fair(cloze, tokenizer):
    assert len(cloze) >= 60
    assert len({sentence["text"] for sentence in cloze}) == len(cloze)
    for sentence in cloze:
        assert sentence["text"].count("[MASK]") == 1, sentence
        assert len(sentence["answers"]) == 1, sentence
        for answer in sentence["answers"]:
            assert tokenizer.tokenize(answer) == [answer]


def test_cloze_is_as_good_as_the_card_says(model, tokenizer, cloze, card):
    stated = float(re.search(r"among the first five in\s+\*\*(\d+) %\*\*", card).group(1))
    batch = tokenizer([s["text"] for s in cloze], padding=True, return_tensors="pt")
    at = batch["input_ids"] == 103
    with torch.no_grad():
        hidden = model.bert(**batch).last_hidden_state[at]
        best = model.cls(hidden).topk(5).indices.tolist()
    hits = sum(
        tokenizer.convert_tokens_to_ids(sentence["answers"][0]) in five
        for sentence, five in zip(cloze, best, strict=True)
    )
    # One sentence of slack: two near words may change places on another processor.
    assert 100 * (hits + 1) / len(cloze) >= stated


def test_tutor_bert_card_states_what_a_reader_needs(card):
    for needed in ("license: apache-2.0", "all-MiniLM-L6-v2", "million tokens", "unigram"):
        assert needed in card
    assert "$" not in card
