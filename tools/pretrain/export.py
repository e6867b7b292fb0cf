"""Write the embedded model from a checkpoint: ``python -m tools.pretrain.export DATA RUN OUT``.

Writes into ``OUT`` the files that ``from_pretrained`` of transformers 4.57 and 5 reads, the model
card (``README.md``, made from ``card.md`` and from what is measured here), ``NOTICE`` and
``checksums.json`` (SHA-256 of each file that is loaded). Each file is written whole, then renamed.
Works while the training goes on: it reads the last checkpoint.
"""

import argparse
import contextlib
import hashlib
import json
import math
import shutil
import string
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tokenizers import BertWordPieceTokenizer
from transformers import AutoTokenizer, BertForMaskedLM

from tools import atomic
from tools.pretrain.gather import SOURCES
from tools.pretrain.rows import IGNORE_INDEX, held_out_rows, load_corpus, token_counts
from tools.pretrain.train import CHECKPOINT, TRAINING, evaluate

HERE = Path(__file__).parent
CLOZE = HERE.parents[1] / "tests" / "data" / "cloze.jsonl"
SPECIAL = {f"{name}_token": f"[{name.upper()}]" for name in ("unk", "sep", "pad", "cls", "mask")}
LOADED = ["config.json", "model.safetensors", "special_tokens_map.json", "tokenizer.json"]
LOADED += ["tokenizer_config.json", "vocab.txt"]
PROBES = (
    "The capital of England is [MASK].",
    "Water freezes at zero [MASK].",
    "A spider has eight [MASK].",
    "The opposite of hot is [MASK].",
    "I did not [MASK] the movie because it was too long.",
    "She sent me an [MASK] from her phone.",
    "The doctor said that [MASK] would call me tomorrow.",
    "He is not tall, he is [MASK].",
)


def write_json(path: Path, value: Any) -> None:
    """Write `value` with an indent of two and a final newline."""
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def write_model(
    base: Path, checkpoint: Path, out: Path, before: Path | None, share: float
) -> dict[str, Any]:
    """Write config, weights (float16) and tokenizer to `out`; return the checkpoint's state.

    With `before`, a model folder, each weight is `share` of the checkpoint's and the rest of that.
    """
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    for name in ("_name_or_path", "transformers_version", "gradient_checkpointing"):
        config.pop(name, None)
    # transformers 5 loads in this dtype unless told otherwise; without it, in that of the file.
    config |= {"architectures": ["BertForMaskedLM"], "dtype": "float32"}
    config |= {"tie_word_embeddings": True}
    write_json(out / "config.json", config)
    with safe_open(checkpoint, "pt") as file:
        weights = {
            name.removeprefix("model."): file.get_tensor(name)
            for name in file.keys()  # noqa: SIM118 (not a dict)
            if name.startswith("model.")
        }
        state: dict[str, Any] = json.loads(file.metadata()["json"])
    if before is not None:
        for name, old in load_file(before / "model.safetensors").items():
            weights[name] = share * weights[name] + (1 - share) * old.float()
        state["runs"][-1]["share"] = share
    weights = {name: weight.half().contiguous() for name, weight in weights.items()}
    save_file(weights, out / "model.safetensors", metadata={"format": "pt"})
    write_json(out / TRAINING, state)
    shutil.copyfile(base / "vocab.txt", out / "vocab.txt")
    wordpiece = BertWordPieceTokenizer(str(base / "vocab.txt"), lowercase=True)
    wordpiece.save(str(out / "tokenizer.json"))
    write_json(out / "special_tokens_map.json", SPECIAL)
    longest = config["max_position_embeddings"]
    options = {"do_lower_case": True, "model_max_length": longest, "strip_accents": None}
    options |= {"tokenize_chinese_chars": True, "tokenizer_class": "BertTokenizer"}
    write_json(out / "tokenizer_config.json", SPECIAL | options)
    return state


@torch.no_grad()
def top_words(model: BertForMaskedLM, tokenizer: Any, text: str, k: int = 5) -> list[str]:
    """Return the `k` most probable tokens at the one [MASK] of `text`, best first."""
    batch = tokenizer(text, return_tensors="pt")
    at = (batch["input_ids"][0] == tokenizer.mask_token_id).nonzero()
    if len(at) != 1:
        raise ValueError(f"expected one [MASK] in the text, got {len(at)}: {text!r}")
    best = model(**batch).logits[0, at.item()].topk(k).indices
    return [str(token) for token in tokenizer.convert_ids_to_tokens(best.tolist())]


def measure(out: Path, data: Path, run: Path, cloze: Path) -> dict[str, Any]:
    """Return the figures of the model in `out`: held-out text, baselines, cloze and probes."""
    model = BertForMaskedLM.from_pretrained(out, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(out)
    vocab_size = model.config.vocab_size
    corpus = load_corpus(data, run / "tokens.safetensors")
    parts = {name: split["train"] for name, split in corpus.items()}
    held_out = {n: held_out_rows(s["held_out"], vocab_size) for n, s in corpus.items()}
    scores = evaluate(model, held_out, bf16=False)
    counts = token_counts(parts, vocab_size)
    surprise = -np.log(counts / counts.sum())
    labels = {n: y[y != IGNORE_INDEX] for n, (_, y) in held_out.items()}
    labels["overall"] = np.concatenate(list(labels.values()))
    for name, score in scores.items():
        score["unigram"] = float(surprise[labels[name]].mean())
    sentences = [json.loads(line) for line in cloze.read_text(encoding="utf-8").splitlines()]
    for sentence in sentences:
        sentence["top5"] = top_words(model, tokenizer, sentence["text"])
    return {
        "held_out": scores,
        "train_tokens": sum(len(p.stream) for p in parts.values()),
        "cloze": sentences,
        "probes": {text: top_words(model, tokenizer, text) for text in PROBES},
        "parameters": sum(p.numel() for p in model.parameters()),
    }


def hits(sentences: list[dict[str, Any]], k: int) -> int:
    """Return how many `sentences` have an accepted answer among their first `k` words."""
    return sum(any(a in s["top5"][:k] for a in s["answers"]) for s in sentences)


def table(head: str, rows: list[list[Any]]) -> str:
    """Return a Markdown table; its head is given with the bars between the columns."""
    lines = [head.split(" | "), ["---"] * (head.count("|") + 1), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def card(state: dict[str, Any], figures: dict[str, Any], config: dict[str, Any], size: int) -> str:
    """Return the model card: ``card.md`` with the figures filled in."""
    cloze, scores = figures["cloze"], figures["held_out"]
    names = [n for n in SOURCES if n in scores] + ["overall"]
    held_out = [
        [f"**{n}**" if n == "overall" else n, f"{scores[n]['labels']:,}"]
        + [f"{scores[n][key]:.2f}" for key in ("loss", "unigram")]
        + [f"{100 * scores[n][key]:.1f} %" for key in ("top1", "top5")]
        for n in names
    ]
    themes: dict[str, list[dict[str, Any]]] = {}
    for sentence in cloze:
        themes.setdefault(sentence.get("theme", "all"), []).append(sentence)
    share = state["runs"][-1].get("share")
    learned = [
        [f"{at['minutes']:.0f}", f"{at['tokens'] / 1e6:.1f}", f"{at['held_out']['overall']:.2f}"]
        for at in state["history"]
    ]
    words = " ".join
    right = [[s["text"], words(s["top5"])] for s in cloze if hits([s], 5)]
    missed = [[s["text"], words(s["answers"]), words(s["top5"])] for s in cloze if not hits([s], 5)]
    return string.Template((HERE / "card.md").read_text(encoding="utf-8")).substitute(
        layers=config["num_hidden_layers"],
        hidden=config["hidden_size"],
        heads=config["num_attention_heads"],
        parameters=f"{figures['parameters'] / 1e6:.1f}",
        vocab=f"{config['vocab_size']:,}",
        positions=config["max_position_embeddings"],
        megabytes=f"{size / 1e6:.1f}",
        train_tokens=f"{figures['train_tokens'] / 1e6:.1f}",
        sources=len(names) - 1,
        runs="; then ".join(
            f"{run['warmup']} steps of warm-up to a rate of {run['peak']}, "
            f"{run['sentences']:.0%} of the batches single sentences"
            for run in state["runs"]
        ),
        average=""
        if share is None
        else f"  The weights are averages: {share:g} of those after the last run and "
        f"{1 - share:g} of those\n  before it (model soups, arXiv:2203.05482). The share was "
        "chosen with the figures below in\n  sight.\n",
        steps=f"{state['step']:,}",
        batch=f"{state['positions']:,}",
        seen=f"{state['tokens'] / 1e6:.1f}",
        minutes=f"{state['seconds'] / 60:.0f}",
        precision="bf16 autocast" if state["bf16"] else "fp32",
        uniform=f"{math.log(config['vocab_size']):.2f}",
        held_out_table=table("source | labelled tokens | loss | unigram | top-1 | top-5", held_out),
        cloze_count=len(cloze),
        cloze_top1=f"{100 * hits(cloze, 1) / len(cloze):.0f}",
        cloze_top5=f"{100 * hits(cloze, 5) / len(cloze):.0f}",
        theme_table=table(
            "theme | sentences | first | among five",
            [[name, len(s), hits(s, 1), hits(s, 5)] for name, s in themes.items()],
        ),
        history_table=table("minutes | million tokens | held-out loss", learned),
        right_table=table("sentence | first five", right[::4]),
        wrong_table=table("sentence | accepted | first five", missed),
        probe_table=table(
            "sentence | first five", [[t, words(w)] for t, w in figures["probes"].items()]
        ),
    )


def export(
    data: Path, run: Path, out: Path, cloze: Path, before: Path | None, share: float
) -> dict[str, Any]:
    """Write the model folder `out`; return the measured figures."""
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=run) as folder:
        new = Path(folder)
        state = write_model(data / "base", run / CHECKPOINT, new, before, share)
        figures = measure(new, data, run, cloze)
        config = json.loads((new / "config.json").read_text(encoding="utf-8"))
        size = (new / "model.safetensors").stat().st_size
        (new / "README.md").write_text(card(state, figures, config, size), encoding="utf-8")
        shutil.copyfile(data / "NOTICE", new / "NOTICE")
        sums = {n: hashlib.sha256((new / n).read_bytes()).hexdigest() for n in LOADED}
        write_json(new / "checksums.json", sums)
        with contextlib.ExitStack() as written:  # all are on the disk before the first is replaced
            for path in new.iterdir():
                shutil.copyfile(path, written.enter_context(atomic.replacement(out / path.name)))
    return figures


def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="Write the embedded model from a checkpoint.")
    parser.add_argument("data", type=Path, help="folder that gather.py wrote")
    parser.add_argument("run", type=Path, help="folder that train.py wrote")
    parser.add_argument("out", type=Path, help="folder of the model: mlmtutor/tutor_bert")
    parser.add_argument("--cloze", type=Path, default=CLOZE, help="cloze sentences (JSON lines)")
    parser.add_argument("--before", type=Path, help="model folder to average with: train's --start")
    parser.add_argument("--share", type=float, default=0.5, help="of the run, in that average")
    args = parser.parse_args(argv)
    if not 0 < args.share <= 1:
        parser.error(f"--share must be above 0 and at most 1, but is {args.share}")
    figures = export(args.data, args.run, args.out, args.cloze, args.before, args.share)
    overall, cloze = figures["held_out"]["overall"], figures["cloze"]
    print(
        f"held-out loss {overall['loss']:.3f} (unigram {overall['unigram']:.3f}), "
        f"top-1 {overall['top1']:.1%}, top-5 {overall['top5']:.1%}; "
        f"cloze top-1 {hits(cloze, 1)}/{len(cloze)}, top-5 {hits(cloze, 5)}/{len(cloze)}"
    )


if __name__ == "__main__":
    main()
