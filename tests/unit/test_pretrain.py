"""The pretraining recipe, on a corpus of a few lines: cleaning, rows, masking, resume, export."""

import doctest
import json
import os
import pathlib
import signal
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny_corpus import SENTENCES, VOCAB, write_tiny_corpus
from transformers import BertForMaskedLM

ROOT = pathlib.Path(__file__).parents[1]
RECIPE = ROOT / "tools" / "pretrain"
sys.path.insert(0, str(RECIPE))

import export  # noqa: E402
import gather  # noqa: E402
import rows  # noqa: E402
import train  # noqa: E402


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


# -- gathering --------------------------------------------------------------------------------


@pytest.mark.parametrize("module", [gather, rows, train, export], ids=lambda m: m.__name__)
def test_doctests(module):
    assert doctest.testmod(module).failed == 0


def test_clean_leaves_no_markup_and_keeps_identifiers():
    assert gather.clean("<p>“Don’t”<br/> call _me_ &lt;x&gt;</p>\n") == '"Don\'t" call me <x>'
    assert gather.clean("the name sqlite3_step_v2 stays") == "the name sqlite3_step_v2 stays"


def test_split_long_keeps_every_word():
    text = " ".join(SENTENCES)
    parts = list(gather.split_long(text))
    assert " ".join(parts) == text
    assert all(600 <= len(part) < 800 for part in parts[:-1])


def test_wordnet_reader(tmp_path):
    folder = tmp_path / "usr" / "share" / "wordnet"
    folder.mkdir(parents=True)
    for part in ("verb", "adj", "adv"):
        (folder / f"data.{part}").write_text("  1 licence\n")
    (folder / "data.noun").write_text(
        "  1 licence\n"
        "00000001 05 n 02 house_cat 0 cat 1 001 @ 00000002 n 0000 | a small animal; it purrs; "
        '"the cat sat on the mat"; "a cat!"  \n'
    )
    (folder / "sents.vrb").write_text("1 The children %s to the playground\n")
    (folder / "sentidx.vrb").write_text("run%2:38:00:: 1\n")
    assert list(gather.wordnet_glosses(tmp_path)) == [
        "house cat, cat: a small animal; it purrs. The cat sat on the mat. A cat!"
    ]
    assert list(gather.wordnet_examples(tmp_path)) == [
        "The cat sat on the mat.",
        "The children run to the playground.",
    ]


def test_missing_client_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gather.main([str(tmp_path / "out")]) == 1
    message = capsys.readouterr().err
    assert message == "gather: apt-get is needed to fetch a package and is not on the path\n"


def test_unavailable_package_is_one_line(tmp_path):
    client = tmp_path / "client"
    client.write_text("#!/bin/sh\necho 'E: Unable to locate package' >&2\nexit 100\n")
    client.chmod(0o755)
    with pytest.raises(gather.GatherError, match=r"failed: E: Unable to locate package$"):
        gather._run(str(client), "download", cwd=tmp_path)


def test_notice_names_every_source_and_is_the_committed_one():
    committed = (RECIPE / "NOTICE").read_text(encoding="utf-8")
    for source in gather.SOURCES:
        assert f"\n{source.name}\n" in committed
        assert source.licence in committed
    assert set(rows.SHARES) == {source.name for source in gather.SOURCES}
    assert "Princeton University" in committed


# -- rows and masking -------------------------------------------------------------------------


def parts(data, tmp_path, name="train"):
    corpus = rows.load_corpus(data, tmp_path / "tokens.safetensors")
    return {source: split[name] for source, split in corpus.items()}


def test_held_out_lines_are_apart_and_cached(data, tmp_path):
    lines = (data / "text" / "sotu_modern.txt").read_text().splitlines()
    aside = [line for line in lines if rows.is_held_out(line)]
    assert 0 < len(aside) < len(lines)
    first = parts(data, tmp_path, "held_out")["sotu_modern"]
    assert len(first.stream) == len(rows.tokenize(aside, VOCAB).stream)
    again = parts(data, tmp_path, "held_out")["sotu_modern"]
    assert np.array_equal(first.stream, again.stream)


def test_no_text_says_what_to_run(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"run gather\.py first"):
        rows.load_corpus(tmp_path, tmp_path / "tokens.safetensors")


def test_rows_are_packed_or_one_sentence(data, tmp_path):
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


def test_a_batch_depends_on_seed_and_step_only(data, tmp_path):
    one = rows.Batches(parts(data, tmp_path), 30522, positions=512, seed=1)
    two = rows.Batches(parts(data, tmp_path), 30522, positions=512, seed=1)
    for step in range(5):
        one[step]
    assert all(np.array_equal(a, b) for a, b in zip(one[7], two[7], strict=True))
    other = rows.Batches(parts(data, tmp_path), 30522, positions=512, seed=2)
    assert not all(np.array_equal(a, b) for a, b in zip(one[7], other[7], strict=True))


def test_masking_shares():
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


def test_held_out_masks_are_frozen(data, tmp_path):
    part = parts(data, tmp_path, "held_out")["sotu_modern"]
    one, two = rows.held_out_rows(part, 30522), rows.held_out_rows(part, 30522)
    assert all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))
    assert (one[0] != rows.PAD).sum() == len(part.stream) + 2 * len(one[0])


# -- training ---------------------------------------------------------------------------------


def test_loss_is_the_labels_loss_of_the_model(data, tmp_path):
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


def test_fresh_head_starts_near_the_token_frequencies(data, tmp_path):
    trained = parts(data, tmp_path)
    counts = rows.token_counts(trained, 30522)
    model = train.build_model(data / "base", counts, seed=0)
    assert model.cls.predictions.decoder.weight is model.bert.embeddings.word_embeddings.weight
    held = {n: rows.held_out_rows(p, 30522) for n, p in trained.items()}
    labels = np.concatenate([y[y != rows.IGNORE_INDEX] for _, y in held.values()])
    unigram = -np.log(counts / counts.sum())[labels].mean()
    scores = train.evaluate(model, held, bf16=False)
    assert scores["overall"]["loss"] == pytest.approx(unigram, abs=0.3)
    assert scores["overall"]["labels"] == len(labels)


def test_training_lowers_the_held_out_loss(run_train, tmp_path):
    run_train(tmp_path, "--steps", "30", "--peak", "0.01")
    history = header(tmp_path)["history"]
    assert [entry["step"] for entry in history] == [1, 30]
    assert history[-1]["held_out"]["overall"] < history[0]["held_out"]["overall"] - 0.2


def test_killed_and_resumed_equals_uninterrupted(run_train, tmp_path, monkeypatch):
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


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_write_a_checkpoint(run_train, tmp_path, monkeypatch, capsys, number):
    usual = rows.Batches.__getitem__

    def signalled(self, step):
        if step == 3:
            os.kill(os.getpid(), number)
        return usual(self, step)

    handler = signal.getsignal(number)
    with monkeypatch.context() as patch:
        patch.setattr(rows.Batches, "__getitem__", signalled)
        run_train(tmp_path, "--steps", "10", "--checkpoint-minutes", "9")
    assert "stopped; run the same command to resume" in capsys.readouterr().out
    assert header(tmp_path)["step"] == 4
    assert signal.getsignal(number) == handler
    run_train(tmp_path)
    assert header(tmp_path)["step"] == 10


def test_time_budget_decays_to_zero_and_survives_resume(run_train, tmp_path, monkeypatch):
    rates = []

    def noted(*given):
        rates.append((given[1], usual(*given)))
        return rates[-1][1]

    usual = train.rate
    monkeypatch.setattr(train, "rate", noted)
    run_train(tmp_path, "--minutes", "0.01")
    progress = [share for share, _ in rates]
    assert progress == sorted(progress)
    assert progress[-1] < 1.0
    assert header(tmp_path)["seconds"] >= 0.6
    run_train(tmp_path, "--minutes", "0.02")
    assert rates[len(progress)][0] == pytest.approx(0.5, abs=0.3)


# -- export -----------------------------------------------------------------------------------


def test_export_loads_back(run_train, data, tmp_path):
    tensors = run_train(tmp_path / "run")
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
    assert any(key.startswith("model.") for key in tensors)
    text = (out / "README.md").read_text(encoding="utf-8")
    assert "$" not in text
    assert "| **overall** |" in text
    told = (
        f"2 steps of warm-up to a rate of 0.0004, {rows.SENTENCE_SHARE:.0%} of the batches single"
    )
    assert told in " ".join(text.split())


def test_an_exported_model_is_trained_further(run_train, data, tmp_path, monkeypatch):
    first = run_train(tmp_path / "first")
    export.main([str(data), str(tmp_path / "first"), str(tmp_path / "out")])
    rates, drawn = [], []
    usual, batch = train.rate, rows.Batches.__getitem__
    monkeypatch.setattr(train, "rate", lambda *given: rates.append(given[:2]) or usual(*given))
    monkeypatch.setattr(
        rows.Batches, "__getitem__", lambda self, step: drawn.append(step) or batch(self, step)
    )
    options = ["--start", str(tmp_path / "out"), "--steps", "4", "--peak", "0.0002"]
    second = run_train(tmp_path / "second", *options)
    assert drawn == [10, 11, 12, 13]  # the next batches, not the first ones again
    assert sorted(set(rates)) == [(1, 0.0), (2, 0.25), (3, 0.5), (4, 0.75)]
    before, after = header(tmp_path / "first"), header(tmp_path / "second")
    assert (before["step"], after["step"]) == (10, 14)
    assert after["tokens"] > before["tokens"]
    assert after["history"][: len(before["history"])] == before["history"]
    assert [run["peak"] for run in after["runs"]] == [0.0004, 0.0002]
    weights = [key for key in first if key.startswith("model.")]
    assert not all(torch.equal(first[key], second[key]) for key in weights)
    assert max((first[key] - second[key]).abs().max() for key in weights) < 0.01


def test_weights_before_and_after_a_run_are_averaged(run_train, data, tmp_path):
    run_train(tmp_path / "first", "--steps", "2")
    before, after, out = tmp_path / "before", tmp_path / "after", tmp_path / "out"
    export.main([str(data), str(tmp_path / "first"), str(before)])
    run_train(tmp_path / "second", "--steps", "2", "--start", str(before))
    arguments = [str(data), str(tmp_path / "second")]
    export.main([*arguments, str(after)])
    export.main([*arguments, str(out), "--before", str(before), "--share", "0.25"])
    old, new, mixed = (load_file(folder / "model.safetensors") for folder in (before, after, out))
    assert mixed.keys() == new.keys() == old.keys()
    assert not all(torch.equal(old[name], new[name]) for name in new)
    for name, weight in mixed.items():
        wanted = 0.25 * new[name].float() + 0.75 * old[name].float()
        assert torch.allclose(weight.float(), wanted, rtol=2e-3, atol=1e-6)
    state = json.loads((out / train.TRAINING).read_text(encoding="utf-8"))
    assert [run.get("share") for run in state["runs"]] == [None, 0.25]
    told = " ".join((out / "README.md").read_text(encoding="utf-8").split())
    assert "averages: 0.25 of those after the last run and 0.75 of those before it" in told
    with pytest.raises(SystemExit):
        export.main([*arguments, str(out), "--before", str(before), "--share", "1.5"])


def test_starting_from_a_folder_that_is_no_export_says_so(run_train, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"training\.json does not exist: export\.py"):
        run_train(tmp_path / "run", "--start", str(tmp_path))


def test_export_without_a_checkpoint_says_what_to_run(data, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"run train\.py first"):
        export.export(data, tmp_path, tmp_path / "out")


def test_top_words_wants_one_mask():
    with pytest.raises(ValueError, match=r"expected one \[MASK\] in the text, got 0"):
        export.top_words(None, export.AutoTokenizer.from_pretrained(VOCAB.parent), "No mask.")


def test_recipe_writes_no_pickle():
    for path in RECIPE.glob("*.py"):
        source = path.read_text(encoding="utf-8")
        for word in ("torch.save", "torch.load", "import pickle", "allow_pickle"):
            assert word not in source, (path.name, word)
