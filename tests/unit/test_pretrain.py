"""The recipe of the embedded model, on a corpus of a few lines: rows, masks, a run, its export."""

import json
import pathlib

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny_corpus import write_tiny_corpus
from transformers import BertForMaskedLM

from tools.pretrain import export, gather, rows, train

RECIPE = pathlib.Path(gather.__file__).parent


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder as gather.py writes it, with a tiny base body; one line in eight is kept aside."""
    patch = pytest.MonkeyPatch()
    patch.setattr(rows, "HELD_OUT", 8)
    folder = tmp_path_factory.mktemp("data")
    write_tiny_corpus(folder)
    yield folder
    patch.undo()


@pytest.fixture
def run_train(data):
    """Train in fp32 for ten small steps; returns the checkpoint's tensors."""

    def run(folder, *options):
        options = options or ("--steps", "10")
        fixed = "--precision fp32 --positions 256 --warmup 2 --checkpoint-minutes 0"
        train.main([str(data), str(folder), *fixed.split(), *options])
        return load_file(folder / train.CHECKPOINT)

    return run


def header(folder):
    with train.safe_open(folder / train.CHECKPOINT, "pt") as file:
        return json.loads(file.metadata()["json"])


def parts(data, tmp_path, name="train"):
    corpus = rows.load_corpus(data, tmp_path / "tokens.safetensors")
    return {source: split[name] for source, split in corpus.items()}


def test_gather_notice_names_every_source_and_is_the_committed_one():
    committed = (RECIPE / "NOTICE").read_text(encoding="utf-8")
    for source in gather.SOURCES:
        assert f"\n{source.name}\n" in committed
        assert source.licence in committed
    assert set(rows.SHARES) == {source.name for source in gather.SOURCES}
    assert "Princeton University" in committed


def test_batches_are_packed_or_one_sentence(data, tmp_path):
    batches = rows.Batches(parts(data, tmp_path), 30522, positions=1024, seed=3)
    seen = {}
    for step in range(60):
        ids, _ = batches.rows(step)
        width = ids.shape[1]
        assert len(ids) == 1024 // width
        seen[width] = seen.get(width, 0) + 1
        length = (ids != rows.PAD).sum(axis=1)
        assert (ids[:, 0] == rows.CLS).all()
        assert (ids[np.arange(len(ids)), length - 1] == rows.SEP).all()
        assert (ids[:, 1:] != rows.CLS).all()
        assert ((ids == rows.SEP).sum(axis=1) == 1).all()
        if width == rows.PACKED_WIDTH:
            assert (length == width).all()
        else:
            assert np.isin(ids[np.arange(len(ids)), length - 2], rows.SENTENCE_ENDS).all()
    assert set(seen) <= {*rows.SENTENCE_WIDTHS, rows.PACKED_WIDTH}
    assert len(seen) >= 3
    assert 0.45 < seen[64] / 60 < 0.85


def test_batches_depend_on_seed_and_step_only(data, tmp_path):
    one = rows.Batches(parts(data, tmp_path), 30522, positions=512, seed=1)
    two = rows.Batches(parts(data, tmp_path), 30522, positions=512, seed=1)
    for step in range(5):
        one[step]
    assert all(np.array_equal(a, b) for a, b in zip(one[7], two[7], strict=True))
    other = rows.Batches(parts(data, tmp_path), 30522, positions=512, seed=2)
    assert not all(np.array_equal(a, b) for a, b in zip(one[7], other[7], strict=True))


def test_mask_shares():
    ids = np.full((500, 64), 2088)
    ids[:, 0], ids[:, -2], ids[:, -1] = rows.CLS, rows.SEP, rows.PAD
    inputs, labels = rows.mask(ids, np.random.default_rng(0), 30522)
    chosen = labels != rows.IGNORE_INDEX
    assert np.array_equal(labels[chosen], ids[chosen])
    assert np.array_equal(inputs[~chosen], ids[~chosen])
    assert not chosen[:, [0, -2, -1]].any()
    count = chosen.sum()
    assert count / (500 * 61) == pytest.approx(0.15, abs=0.01)
    masked = (inputs[chosen] == rows.MASK).sum()
    kept = (inputs[chosen] == 2088).sum()
    assert masked / count == pytest.approx(0.8, abs=0.02)
    assert kept / count == pytest.approx(0.1, abs=0.015)
    random = inputs[chosen & (inputs != rows.MASK) & (inputs != 2088)]
    assert len(random) / count == pytest.approx(0.1, abs=0.015)
    assert random.min() >= rows.FIRST_WORD


def test_masked_lm_logits_give_the_labels_loss_of_the_model(data, tmp_path):
    trained = parts(data, tmp_path)
    model = train.build_model(data / "base", rows.token_counts(trained, 30522), seed=0).eval()
    inputs, labels = rows.Batches(trained, 30522, positions=512)[0]
    logits, wanted = train.masked_lm_logits(model, inputs, labels, bf16=False)
    expected = model(
        input_ids=torch.from_numpy(inputs),
        attention_mask=torch.from_numpy(inputs != rows.PAD).long(),
        labels=torch.from_numpy(labels),
    ).loss
    torch.testing.assert_close(train.F.cross_entropy(logits, wanted), expected)


@pytest.mark.slow
def test_train_killed_and_resumed_equals_uninterrupted(run_train, tmp_path, monkeypatch):
    whole = run_train(tmp_path / "whole")
    usual = rows.Batches.__getitem__

    def killed(self, step):
        if step == 6:
            raise SystemError("killed")
        return usual(self, step)

    with monkeypatch.context() as patch:
        patch.setattr(rows.Batches, "__getitem__", killed)
        with pytest.raises(SystemError):
            run_train(tmp_path / "parts")
    assert header(tmp_path / "parts")["step"] == 6
    (tmp_path / "parts" / (train.CHECKPOINT + ".tmp")).write_bytes(b"half written")
    resumed = run_train(tmp_path / "parts")
    assert resumed.keys() == whole.keys()
    assert sum(key.startswith("optimizer.exp_avg_sq.") for key in whole) > 10
    for key, tensor in whole.items():
        assert torch.equal(tensor, resumed[key]), key
    before, after = header(tmp_path / "whole"), header(tmp_path / "parts")
    assert (before["step"], before["tokens"]) == (after["step"], after["tokens"])


@pytest.mark.slow
def test_export_loads_back(run_train, data, tmp_path):
    run_train(tmp_path / "run", "--steps", "30", "--peak", "0.01")
    history = header(tmp_path / "run")["history"]
    assert history[-1]["held_out"]["overall"] < history[0]["held_out"]["overall"] - 0.2
    cloze = tmp_path / "cloze.jsonl"
    cloze.write_text('{"text": "The [MASK] sees.", "answers": ["cat"], "theme": "animals"}\n')
    out = tmp_path / "out"
    export.main([str(data), str(tmp_path / "run"), str(out), "--cloze", str(cloze)])
    expected = {*export.LOADED, train.TRAINING, "README.md", "NOTICE", "checksums.json"}
    assert {path.name for path in out.iterdir()} == expected

    model, loaded = BertForMaskedLM.from_pretrained(out, output_loading_info=True)
    assert not loaded["missing_keys"]
    assert not loaded["unexpected_keys"]
    assert model.dtype == torch.float32
    trained = parts(data, tmp_path)
    reference = train.build_model(data / "base", rows.token_counts(trained, 30522), seed=0)
    train.load_checkpoint(tmp_path / "run" / train.CHECKPOINT, reference)
    ids = torch.tensor([[101, 1996, 103, 5927, 1012, 102]])
    with torch.no_grad():
        difference = model.eval()(ids).logits - reference.eval()(ids).logits
    assert difference.abs().max() < 0.01
    text = (out / "README.md").read_text(encoding="utf-8")
    assert "$" not in text
    assert "| **overall** |" in text
