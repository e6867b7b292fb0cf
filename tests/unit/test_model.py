"""load_tutor, with files that are whole, missing, cut, replaced or another's; and what it loads."""

import contextlib
import json
import math
import pathlib
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file
from toys import HEADS, small_model, wordpiece
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    BertModel,
    GPT2Config,
    GPT2LMHeadModel,
    TapasConfig,
    TapasForMaskedLM,
)

import mlmtutor.model
from mlmtutor import is_trained, load_tutor
from mlmtutor.model import TUTOR_FOLDER, longest_input

TINY = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}


def test_load_tutor_returns_what_the_lessons_expect(tutor):
    model, tokenizer = tutor
    assert type(model).__name__ == "BertForMaskedLM"
    assert not model.training
    assert {(p.dtype, p.device.type) for p in model.parameters()} == {(torch.float32, "cpu")}
    assert model.config.vocab_size == len(tokenizer) == 30522


def test_load_tutor_takes_a_path_by_argument_and_by_environment(tiny_folder, monkeypatch):
    assert load_tutor(tiny_folder)[0].config.vocab_size == 10
    monkeypatch.setenv("MLMTUTOR_MODEL", str(tiny_folder))
    model, tokenizer = load_tutor()
    assert model.config.vocab_size == 10
    assert tokenizer.tokenize("the cats") == ["the", "cat", "##s"]
    assert load_tutor(TUTOR_FOLDER)[0].config.vocab_size == 30522
    with pytest.raises(TypeError, match="name of a checkpoint or a path, but is a int"):
        load_tutor(3)


@pytest.mark.slow
def test_load_tutor_prints_nothing():
    code = "from mlmtutor import load_tutor; load_tutor()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")


def test_load_tutor_leaves_the_logging_of_transformers_as_it_was(tiny_folder):
    from transformers.utils import logging

    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    load_tutor(tiny_folder)
    with contextlib.suppress(OSError):
        load_tutor("no-such-model")
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before


def test_load_tutor_says_what_works_offline():
    with pytest.raises(OSError, match=r"offline.*HF_HUB_OFFLINE.*load_tutor\(\) for the embedded"):
        load_tutor("bert-base-nowhere")


def test_load_tutor_names_what_a_folder_lacks(tmp_path):
    with pytest.raises(OSError, match=r"holds no checkpoint.*config\.json"):
        load_tutor(tmp_path)
    BertForMaskedLM(BertConfig(vocab_size=10, **TINY)).save_pretrained(tmp_path / "no_tokenizer")
    with pytest.raises(OSError, match="the tokenizer's files"):
        load_tutor(tmp_path / "no_tokenizer")
    tokenizer = AutoTokenizer.from_pretrained(TUTOR_FOLDER)
    BertModel(BertConfig(vocab_size=30522, **TINY)).save_pretrained(tmp_path / "no_head")
    tokenizer.save_pretrained(tmp_path / "no_head")
    with pytest.raises(ValueError, match=r"does not hold all weights of BertForMaskedLM.*cls\."):
        load_tutor(tmp_path / "no_head")
    causal = GPT2LMHeadModel(GPT2Config(vocab_size=10, n_embd=8, n_layer=1, n_head=1))
    causal.save_pretrained(tmp_path / "causal")
    tokenizer.save_pretrained(tmp_path / "causal")
    with pytest.raises(ValueError, match="is not a masked language model"):
        load_tutor(tmp_path / "causal")


# --- Damaged and replaced files --------------------------------------------------------------


@pytest.fixture
def copied_tutor(tmp_path, monkeypatch):
    folder = shutil.copytree(TUTOR_FOLDER, tmp_path / "tutor_bert")
    monkeypatch.setattr(mlmtutor.model, "TUTOR_FOLDER", folder)
    return folder


def sums():
    return json.loads((TUTOR_FOLDER / "checksums.json").read_text("utf-8"))


def test_load_tutor_compares_each_file_that_it_reads(copied_tutor):
    read = {p.name for p in TUTOR_FOLDER.iterdir() if p.suffix in (".json", ".safetensors", ".txt")}
    assert read - {"checksums.json", "training.json"} == set(sums())
    for name in [*sums(), "checksums.json"]:
        path = copied_tutor / name
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(ValueError, match=f"{name} is not the file that was shipped") as caught:
            load_tutor()
        assert name == "checksums.json" or sums()[name] in str(caught.value)
        path.unlink()
        with pytest.raises(FileNotFoundError, match=f"{name} is missing.*git checkout"):
            load_tutor()
        path.write_bytes(whole)
    weights = bytearray((copied_tutor / "model.safetensors").read_bytes())
    weights[len(weights) // 2] ^= 1
    (copied_tutor / "model.safetensors").write_bytes(weights)
    with pytest.raises(ValueError, match="is not the file that was shipped"):
        load_tutor()


def weights_of(model, path):
    save_file({name: tensor.clone() for name, tensor in model.state_dict().items()},
              path, metadata={"format": "pt"})  # fmt: skip


REPLACED = {
    "cut short": lambda path: path.write_bytes(path.read_bytes()[:500]),
    "nothing": lambda path: path.write_bytes(b""),
    "no weights": lambda path: path.write_bytes(b"\x80\x04K\x01." * 100),
    "another architecture": lambda path: weights_of(
        GPT2LMHeadModel(GPT2Config(vocab_size=10, n_embd=8, n_layer=1, n_head=1)), path
    ),
    "another size": lambda path: weights_of(
        BertForMaskedLM(BertConfig(vocab_size=7, **TINY)), path
    ),
}


@pytest.mark.parametrize("replace", REPLACED)
def test_load_tutor_names_the_checkpoint_whose_weights_were_replaced(
    tiny_folder, tmp_path, replace
):
    folder = pathlib.Path(shutil.copytree(tiny_folder, tmp_path / "copy"))
    REPLACED[replace](folder / "model.safetensors")
    with pytest.raises((OSError, ValueError), match="copy"):
        load_tutor(folder)


# --- What is asked of a model ----------------------------------------------------------------


def test_is_trained_is_better_than_half_of_a_guess(tutor):
    model, tokenizer = tutor
    assert is_trained(tokenizer, model)
    fresh = BertForMaskedLM(BertConfig(vocab_size=len(wordpiece()), **TINY)).eval()
    assert not is_trained(wordpiece(), fresh)
    half = math.log(fresh.config.vocab_size) / 2
    for loss, trained in ((half - 0.01, True), (half + 0.01, False)):
        seen = []

        class Stub:
            device, config = "cpu", fresh.config

            def __call__(self, loss=loss, seen=seen, **batch):
                seen.append(batch)
                return type("Output", (), {"loss": torch.tensor(loss)})

        assert is_trained(wordpiece(), Stub()) == trained
        [batch] = seen
        hidden = batch["input_ids"] == wordpiece().mask_token_id
        assert (hidden.sum(dim=1) == 1).all()
        assert torch.equal(hidden, batch["labels"] != -100)


def test_longest_input_is_what_the_model_reads():
    unlimited = {"EuroBert", "ModernBert", "Esm"}
    offset = {"Roberta": 1, "XLMRoberta": 1, "Camembert": 1, "Longformer": 1, "MPNet": 1}
    for name in HEADS:
        # padding_idx is 0 in these toys, so RoBERTa's relatives lose one position of 32.
        model = small_model(name, max_position_embeddings=32)
        expected = math.inf if name in unlimited else 32 - offset.get(name, 0)
        if name == "MPNet":
            expected = 30  # whose padding_idx is always 1
        assert longest_input(model) == expected, name
        ids = torch.full((1, 40 if name in unlimited else expected), 7)
        with torch.no_grad():
            assert model(input_ids=ids).logits.shape[1] == ids.shape[1]
            if name not in unlimited and name != "DebertaV2":
                with pytest.raises((IndexError, RuntimeError)):
                    model(input_ids=torch.full((1, expected + 1), 7))
    config = TapasConfig(vocab_size=60, max_position_embeddings=32, **TINY)
    assert longest_input(TapasForMaskedLM(config)) == math.inf
