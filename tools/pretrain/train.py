"""Train the embedded model: ``python -m tools.pretrain.train DATA RUN --minutes 90``.

Starts from the body of all-MiniLM-L6-v2 with a fresh masked-language-model head that is tied to
the embeddings. The recipe: AdamW (betas 0.9 and 0.98), a warm-up, then a linear decay to zero;
batches of 4,096 positions; no dropout; the head sees labelled positions only; bf16 autocast where
that is faster than fp32 here; eager attention.

The decay follows the *time spent training* as a share of ``--minutes`` (or, with ``--steps``, the
share of the steps), so that the rate reaches zero at the end on a slow or busy machine too. The
time spent is part of the checkpoint: a resumed run goes on with the rate it had.

Run the same command again after a kill and it resumes from the last checkpoint, which is one file,
``RUN/checkpoint.safetensors``: weights, optimizer moments, and a JSON header with the step, the
time spent and the tokens seen. SIGTERM and Ctrl-C write a checkpoint first. With ``--steps`` and
fp32 a run that was killed and resumed ends with the same weights, bit for bit, as one that was not.
"""

import argparse
import json
import math
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

# oneDNN keeps a compiled product for each shape that it meets, and each batch has another number
# of labels: with its usual 1,024 places the process grew to 20 GB. Read when torch is imported.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "16")

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch.nn import functional as F
from tqdm import tqdm
from transformers import BertConfig, BertForMaskedLM

from tools import atomic
from tools.pretrain import rows
from tools.pretrain.rows import IGNORE_INDEX, PAD, Batches, Part, held_out_rows

CHECKPOINT = "checkpoint.safetensors"
TRAINING = "training.json"  # the state of an exported model
BETAS, WEIGHT_DECAY = (0.9, 0.98), 0.01


def build_model(base: Path, counts: np.ndarray, seed: int) -> BertForMaskedLM:
    """Return the base body with a fresh tied head; its bias starts at the log unigram frequency."""
    torch.manual_seed(seed)
    config = BertConfig.from_pretrained(base)
    config.architectures = ["BertForMaskedLM"]
    config.tie_word_embeddings = True
    config._attn_implementation = "eager"
    model = BertForMaskedLM(config)
    body = load_file(base / "model.safetensors")
    unused = ("pooler.", "embeddings.position_ids")
    body = {name: tensor for name, tensor in body.items() if not name.startswith(unused)}
    missing, unexpected = model.bert.load_state_dict(body, strict=False)
    missing = [name for name in missing if "position_ids" not in name]
    if missing or unexpected:
        raise ValueError(f"{base} is not a BERT body: missing {missing}, unexpected {unexpected}")
    model.tie_weights()
    with torch.no_grad():
        model.cls.predictions.bias.copy_(torch.from_numpy(np.log(counts / counts.sum())))
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return model


def load_exported(folder: Path, model: BertForMaskedLM) -> dict[str, Any]:
    """Read the weights that ``export.py`` wrote to `folder` into `model`; return their state."""
    weights = load_file(folder / "model.safetensors")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(weights[name])
    state: dict[str, Any] = json.loads((folder / TRAINING).read_text(encoding="utf-8"))
    return state


def build_optimizer(model: BertForMaskedLM) -> torch.optim.AdamW:
    """Return AdamW with decay on matrices only; the rate is set at each step."""
    named = list(model.named_parameters())
    groups = [
        {"params": [p for _, p in named if p.ndim > 1], "weight_decay": WEIGHT_DECAY},
        {"params": [p for _, p in named if p.ndim == 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=0.0, betas=BETAS, fused=True)


def masked_lm_logits(
    model: BertForMaskedLM, inputs: np.ndarray, labels: np.ndarray, bf16: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the logits (labelled, vocab) float32 and labels (labelled,) of labelled positions."""
    ids, wanted = torch.from_numpy(inputs), torch.from_numpy(labels).view(-1)
    at = (wanted != IGNORE_INDEX).nonzero().squeeze(1)
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        attention = (ids != PAD).long()
        hidden = model.bert(input_ids=ids, attention_mask=attention).last_hidden_state
        logits = model.cls(hidden.view(-1, hidden.shape[-1])[at])
    return logits.float(), wanted[at]


@torch.no_grad()
def evaluate(
    model: BertForMaskedLM, held_out: dict[str, tuple[np.ndarray, np.ndarray]], bf16: bool
) -> dict[str, dict[str, float]]:
    """Return loss (nats per labelled token), top-1, top-5 and label count, by source and overall.

    `held_out` maps a source to its masked rows (inputs, labels).
    """
    sums: dict[str, np.ndarray] = {}
    for name, (inputs, labels) in held_out.items():
        total = np.zeros(4)
        for at in range(0, len(inputs), 64):
            if not (labels[at : at + 64] != IGNORE_INDEX).any():
                continue
            logits, wanted = masked_lm_logits(
                model, inputs[at : at + 64], labels[at : at + 64], bf16
            )
            best = logits.topk(5).indices == wanted[:, None]
            loss = F.cross_entropy(logits, wanted, reduction="sum")
            total += [loss.item(), best[:, 0].sum().item(), best.sum().item(), len(wanted)]
        sums[name] = total
    sums["overall"] = np.sum(list(sums.values()), axis=0)
    return {
        name: {"loss": s[0] / s[3], "top1": s[1] / s[3], "top5": s[2] / s[3], "labels": int(s[3])}
        for name, s in sums.items()
        if s[3]
    }


def bf16_is_faster(hidden: int) -> bool:
    """Time a feed-forward sized product both ways."""
    times: dict[torch.dtype, float] = {}
    for dtype in (torch.float32, torch.bfloat16):
        a, b = torch.randn(4096, hidden).to(dtype), torch.randn(hidden, 4 * hidden).to(dtype)
        for _ in range(6):
            start = time.perf_counter()
            a @ b
            times[dtype] = min(times.get(dtype, 9e9), time.perf_counter() - start)
    return times[torch.bfloat16] < times[torch.float32]


def rate(step: int, progress: float, peak: float, warmup: int) -> float:
    """Return the learning rate: up over `warmup` steps, then down to 0 as `progress` reaches 1.

    >>> rate(150, 0.0, 4e-4, 300), rate(1000, 0.75, 4e-4, 300), rate(2000, 1.0, 4e-4, 300)
    (0.0002, 0.0001, 0.0)
    """
    return peak * min(1.0, step / max(1, warmup)) * max(0.0, 1.0 - progress)


def save_checkpoint(
    path: Path, model: BertForMaskedLM, optimizer: torch.optim.AdamW, state: dict[str, Any]
) -> None:
    """Write weights, moments and `state`."""
    tensors: dict[str, torch.Tensor] = {}
    for name, parameter in model.named_parameters():
        tensors[f"model.{name}"] = parameter.detach()
        for key, value in optimizer.state.get(parameter, {}).items():
            tensors[f"optimizer.{key}.{name}"] = value
    with atomic.replacement(path) as new:
        save_file(tensors, new, metadata={"json": json.dumps(state)})


def load_checkpoint(
    path: Path, model: BertForMaskedLM, optimizer: torch.optim.AdamW | None = None
) -> dict[str, Any]:
    """Read `path` into `model` (and `optimizer`); return its state."""
    with safe_open(path, "pt") as file, torch.no_grad():
        keys = set(file.keys())
        for name, parameter in model.named_parameters():
            parameter.copy_(file.get_tensor(f"model.{name}"))
            if optimizer is not None:
                optimizer.state[parameter] = {
                    key: file.get_tensor(f"optimizer.{key}.{name}")
                    for key in ("step", "exp_avg", "exp_avg_sq")
                    if f"optimizer.{key}.{name}" in keys
                }
        state: dict[str, Any] = json.loads(file.metadata()["json"])
    return state


def record(
    model: BertForMaskedLM,
    held_out: dict[str, tuple[np.ndarray, np.ndarray]],
    state: dict[str, Any],
    train_loss: float | None,
) -> str:
    """Evaluate, append the result to the history in `state`, and return it as a line of JSON."""
    scores = evaluate(model, held_out, state["bf16"])
    entry = {
        "step": state["step"],
        "minutes": round(state["seconds"] / 60, 2),
        "tokens": state["tokens"],
        "train_loss": train_loss and round(train_loss, 4),
        "held_out": {name: round(score["loss"], 4) for name, score in scores.items()},
    }
    state["history"].append(entry)
    return json.dumps(entry)


def train(args: argparse.Namespace) -> None:
    """Run or resume the training."""
    args.run.mkdir(parents=True, exist_ok=True)
    corpus = rows.load_corpus(args.data, args.run / "tokens.safetensors")
    parts: dict[str, Part] = {name: split["train"] for name, split in corpus.items()}
    vocab_size = BertConfig.from_pretrained(args.data / "base").vocab_size
    model = build_model(args.data / "base", rows.token_counts(parts, vocab_size), args.seed)
    held_out = {n: held_out_rows(s["held_out"], vocab_size) for n, s in corpus.items()}
    batches = Batches(parts, vocab_size, positions=args.positions, seed=args.seed)
    optimizer = build_optimizer(model)

    path = args.run / CHECKPOINT
    state: dict[str, Any] = {"step": 0, "seconds": 0.0, "tokens": 0}
    state |= {"runs": [], "history": []}
    if path.exists():
        state = load_checkpoint(path, model, optimizer)
        print(f"resumed at step {state['step']}, {state['seconds'] / 60:.1f} minutes", flush=True)
    else:
        if args.start:
            state = load_exported(args.start, model)
        state["runs"].append({"first_step": state["step"], "first_second": state["seconds"]})
        faster = args.precision == "auto" and bf16_is_faster(model.config.hidden_size)
        state["bf16"] = args.precision == "bf16" or faster
        print(f"precision: {'bf16 autocast' if state['bf16'] else 'fp32'}", flush=True)

    state |= {name: getattr(args, name) for name in ("positions", "seed")}
    run = state["runs"][-1]
    run |= {"peak": args.peak, "warmup": args.warmup, "sentences": rows.SENTENCE_SHARE}

    stop: list[int] = []
    handlers = {
        number: signal.signal(number, lambda received, _frame: stop.append(received))
        for number in (signal.SIGTERM, signal.SIGINT)
    }
    budget = args.minutes * 60
    mark = saved = time.monotonic()
    evaluated = mark if state["step"] else -math.inf
    bar = tqdm(
        total=args.steps or round(budget / 60, 1),
        unit="step" if args.steps else "min",
        mininterval=10,
        disable=None,  # in a log
    )
    while not stop:
        step = state["step"]
        done, spent = step - run["first_step"], state["seconds"] - run["first_second"]
        progress = done / args.steps if args.steps else spent / budget
        if progress >= 1.0:
            break
        inputs, labels = batches[step]
        logits, wanted = masked_lm_logits(model, inputs, labels, state["bf16"])
        loss = F.cross_entropy(logits, wanted)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = rate(done + 1, progress, args.peak, args.warmup)
        optimizer.step()
        optimizer.zero_grad()

        now = time.monotonic()
        bar.n = done + 1 if args.steps else round((spent + now - mark) / 60, 1)
        state["seconds"] += now - mark
        mark = now
        state["step"] = step + 1
        state["tokens"] += int((inputs != PAD).sum())
        bar.set_postfix_str(
            f"step {state['step']}, {state['tokens'] / 1e6:.2f} M tokens, "
            f"rate {optimizer.param_groups[0]['lr']:.1e}, loss {loss.item():.2f}",
            refresh=False,
        )
        bar.update(0)
        if now - evaluated >= args.evaluate_minutes * 60:
            evaluated = now
            bar.write(record(model, held_out, state, loss.item()), file=sys.stdout)
            sys.stdout.flush()
        if now - saved >= args.checkpoint_minutes * 60:
            saved = now
            save_checkpoint(path, model, optimizer, state)
    bar.close()
    if not stop:
        print(record(model, held_out, state, None))
    save_checkpoint(path, model, optimizer, state)
    for number, handler in handlers.items():
        signal.signal(number, handler)
    told = "stopped; run the same command to resume" if stop else "finished"
    print(
        f"{told}: step {state['step']}, {state['seconds'] / 60:.1f} minutes, "
        f"{state['tokens'] / 1e6:.2f} M tokens",
        flush=True,
    )


def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="Train the embedded model; resumes by itself.")
    parser.add_argument("data", type=Path, help="folder that gather.py wrote")
    parser.add_argument("run", type=Path, help="folder for the checkpoint")
    parser.add_argument("--start", type=Path, help="model folder of export.py, to train further")
    parser.add_argument("--minutes", type=float, default=90.0, help="time budget (default: 90)")
    parser.add_argument("--steps", type=int, default=0, help="step budget, instead of --minutes")
    parser.add_argument("--positions", type=int, default=4096, help="positions a batch")
    parser.add_argument("--peak", type=float, default=4e-4, help="peak learning rate")
    parser.add_argument("--warmup", type=int, default=200, help="warm-up steps")
    parser.add_argument("--precision", choices=("auto", "bf16", "fp32"), default="auto")
    parser.add_argument("--checkpoint-minutes", type=float, default=4.0)
    parser.add_argument("--evaluate-minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0)
    train(parser.parse_args(argv))


if __name__ == "__main__":
    main()
