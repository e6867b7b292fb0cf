import contextlib
import json
import shutil
import subprocess
import sys

import pytest
import torch
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    BertModel,
    GPT2Config,
    GPT2LMHeadModel,
)

import mlmtutor.model
from mlmtutor import load_tutor
from mlmtutor.model import TUTOR_FOLDER


def test_the_tutor_is_ready_to_use(tutor):
    model, tokenizer = tutor
    assert type(model).__name__ == "BertForMaskedLM"
    assert not model.training
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert {p.device.type for p in model.parameters()} == {"cpu"}
    assert model.config.vocab_size == len(tokenizer) == 30522
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "change", "world"]
    assert tokenizer.convert_tokens_to_ids(words) == [0, 100, 101, 102, 103, 2689, 2088]


def test_two_loads_are_independent():
    one, other = load_tutor()[0], load_tutor()[0]
    with torch.no_grad():
        next(one.parameters()).zero_()
    assert next(other.parameters()).abs().sum() > 0


def test_a_path_is_loaded_by_argument_and_by_environment(tiny_folder, monkeypatch):
    assert load_tutor(tiny_folder)[0].config.vocab_size == 10
    monkeypatch.setenv("MLMTUTOR_MODEL", str(tiny_folder))
    model, tokenizer = load_tutor()
    assert model.config.vocab_size == 10
    assert tokenizer.tokenize("the cats") == ["the", "cat", "##s"]
    assert load_tutor(TUTOR_FOLDER)[0].config.vocab_size == 30522


def test_loading_prints_nothing():
    code = "from mlmtutor import load_tutor; load_tutor()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")


def test_loading_leaves_the_logging_of_transformers_as_it_was(tiny_folder):
    from transformers.utils import logging

    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    load_tutor(tiny_folder)
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before
    with contextlib.suppress(OSError):
        load_tutor("no-such-model")
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before


def test_an_unknown_name_offline_says_so_and_what_works():
    with pytest.raises(OSError, match=r"offline.*HF_HUB_OFFLINE.*load_tutor\(\) for the embedded"):
        load_tutor("bert-base-nowhere")


def test_a_folder_without_a_checkpoint_is_named(tmp_path):
    with pytest.raises(OSError, match=r"holds no checkpoint.*config\.json"):
        load_tutor(tmp_path)


def test_a_folder_without_a_tokenizer_is_named(tmp_path):
    config = BertConfig(
        vocab_size=10, hidden_size=8, num_hidden_layers=1, num_attention_heads=1,
        intermediate_size=8,
    )  # fmt: skip
    BertForMaskedLM(config).save_pretrained(tmp_path)
    with pytest.raises(OSError, match="the tokenizer's files"):
        load_tutor(tmp_path)


def test_unreadable_weights_of_another_checkpoint_are_named(tiny_folder, tmp_path):
    folder = shutil.copytree(tiny_folder, tmp_path / "cut")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:500])
    with pytest.raises(ValueError, match=r"the weights of .*cut' cannot be read"):
        load_tutor(folder)


@pytest.fixture
def copied_tutor(tmp_path, monkeypatch):
    folder = tmp_path / "tutor_bert"
    shutil.copytree(TUTOR_FOLDER, folder)
    monkeypatch.setattr(mlmtutor.model, "TUTOR_FOLDER", folder)
    return folder


def expected_sum(folder, name):
    return json.loads((folder / "checksums.json").read_text("utf-8"))[name]


def test_truncated_weights_are_named_with_their_sum(copied_tutor):
    weights = copied_tutor / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ValueError, match="is not the file that was shipped") as caught:
        load_tutor()
    assert str(weights) in str(caught.value)
    assert expected_sum(copied_tutor, "model.safetensors") in str(caught.value)
    assert "1,000 bytes" in str(caught.value)


def test_one_changed_bit_is_noticed(copied_tutor):
    weights = copied_tutor / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[len(data) // 2] ^= 1
    weights.write_bytes(data)
    with pytest.raises(ValueError, match="is not the file that was shipped"):
        load_tutor()


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "checksums.json"])
def test_a_missing_file_is_named(copied_tutor, name):
    (copied_tutor / name).unlink()
    with pytest.raises(FileNotFoundError, match=rf"{name} is missing.*git checkout"):
        load_tutor()


def test_every_file_that_is_read_has_a_sum():
    sums = json.loads((TUTOR_FOLDER / "checksums.json").read_text("utf-8"))
    read = {p.name for p in TUTOR_FOLDER.iterdir() if p.suffix in (".json", ".safetensors", ".txt")}
    assert read - {"checksums.json", "training.json"} == set(sums)


def test_a_checkpoint_without_an_mlm_head_is_refused(tmp_path):
    config = BertConfig(
        vocab_size=30522, hidden_size=8, num_hidden_layers=1, num_attention_heads=1,
        intermediate_size=8,
    )  # fmt: skip
    BertModel(config).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(TUTOR_FOLDER).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"does not hold all weights of BertForMaskedLM.*cls\."):
        load_tutor(tmp_path)


def test_a_causal_model_is_refused(tmp_path):
    GPT2LMHeadModel(GPT2Config(vocab_size=10, n_embd=8, n_layer=1, n_head=1)).save_pretrained(
        tmp_path
    )
    AutoTokenizer.from_pretrained(TUTOR_FOLDER).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="is not a masked language model"):
        load_tutor(tmp_path)
