"""The recipe of the embedded model: one small run from text to export, and its sources."""

import json
import pathlib
import re

import pytest
import torch
from tiny_corpus import write_tiny_corpus
from transformers import BertForMaskedLM

from tools.pretrain import export, gather, rows, train


def test_gather_notice_names_every_source_and_is_the_committed_one():
    committed = pathlib.Path(gather.__file__).with_name("NOTICE").read_text(encoding="utf-8")
    versions = dict(re.findall(r"^(\w+)\n  package  \S+ (\S+) ", committed, re.M))
    wordnet = committed.split("\nLicence of WordNet\n\n")[1].removesuffix("\n")
    assert gather.notice(versions, "0.1.0", wordnet) == committed
    assert set(gather.READERS) == set(gather.SOURCES)
    assert "Princeton University" in wordnet


@pytest.mark.slow
def test_recipe_trains_a_model_that_loads(tmp_path, monkeypatch):
    monkeypatch.setattr(rows, "HELD_OUT", 8)  # one line in eight is kept aside
    data, run, out = tmp_path / "data", tmp_path / "run", tmp_path / "out"
    data.mkdir()
    write_tiny_corpus(data)
    options = "--precision fp32 --positions 256 --warmup 2 --checkpoint-minutes 0 --peak 0.01"
    train.main([str(data), str(run), *options.split(), "--steps", "30"])
    with train.safe_open(run / train.CHECKPOINT, "pt") as file:
        history = json.loads(file.metadata()["json"])["history"]
    assert history[-1]["held_out"]["overall"] < history[0]["held_out"]["overall"] - 0.2

    cloze = tmp_path / "cloze.jsonl"
    cloze.write_text('{"text": "The [MASK] sees.", "answers": ["cat"], "theme": "animals"}\n')
    export.main([str(data), str(run), str(out), "--cloze", str(cloze)])
    expected = {*export.LOADED, train.TRAINING, "README.md", "NOTICE", "checksums.json"}
    assert {path.name for path in out.iterdir()} == expected
    card = (out / "README.md").read_text(encoding="utf-8")
    assert "$" not in card
    assert "| **overall** |" in card

    model, loaded = BertForMaskedLM.from_pretrained(out, output_loading_info=True)
    assert not loaded["missing_keys"]
    assert not loaded["unexpected_keys"]
    corpus = rows.load_corpus(data, tmp_path / "tokens.safetensors")
    trained = {source: split["train"] for source, split in corpus.items()}
    reference = train.build_model(data / "base", rows.token_counts(trained, 30522), seed=0)
    train.load_checkpoint(run / train.CHECKPOINT, reference)
    ids = torch.tensor([[101, 1996, 103, 5927, 1012, 102]])
    with torch.no_grad():
        difference = model.eval()(ids).logits - reference.eval()(ids).logits
    assert difference.abs().max() < 0.01
