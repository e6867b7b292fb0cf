"""What scoring only the labelled positions saves, next to ``model(..., labels=...)``.

Time: forward and backward of the embedded model, rows of 128 tokens, 15 % labelled; then the head
and the loss alone, as a part of such a step: the body runs before and after them, untimed, so they
find the memory in the state in which training leaves it. Both on all cores, as torch does it where
nobody sets a number of threads. Memory: the same step in a process of its own, the highest resident
size minus the one before the step.
"""

import os
import subprocess
import sys

import pytest
import torch
from torch.nn import functional as F

from mlmtutor import IGNORE_INDEX, labelled_only_loss, load_tutor, mask_tokens

LENGTH = 128
ROWS = [16, 64, 256]
WHO = ["mlmtutor", "transformers"]


@pytest.fixture(autouse=True)
def all_cores():
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    yield
    torch.set_num_threads(1)


def measure(benchmark, function, largest=False, **options):
    """Time one step where it takes a minute; elsewhere the median of seven, after two.

    The first steps of a process are slower, until the system has handed over their memory.
    """
    rounds, warmup = (1, 0) if largest else (7, 2)
    benchmark.pedantic(function, rounds=rounds, warmup_rounds=warmup, **options)


def make_batch(rows, length, share, tokenizer):
    """Return input_ids, attention_mask and labels, (rows, length) each; `share` is labelled."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(1000, len(tokenizer), (rows, length), generator=generator)
    ids[:, 0], ids[:, -1] = tokenizer.cls_token_id, tokenizer.sep_token_id
    corrupted, _ = mask_tokens(ids, tokenizer, generator=generator)
    chosen = torch.rand(ids.shape, generator=generator) < share
    labels = ids.where(chosen, IGNORE_INDEX)
    return {"input_ids": corrupted, "attention_mask": torch.ones_like(ids), "labels": labels}


def step(who, model, batch):
    """Forward and backward; return the loss."""
    model.zero_grad()
    loss = labelled_only_loss(model, **batch) if who == "mlmtutor" else model(**batch).loss
    loss.backward()
    return loss.item()


def peak_memory(who, rows, length, share):
    """Return by how many bytes one step raises the resident size of a fresh process."""
    arguments = [who, str(rows), str(length), str(share)]
    command = [sys.executable, __file__, *arguments]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@pytest.mark.parametrize("who", WHO)
@pytest.mark.parametrize("rows", ROWS)
def test_training_step(benchmark, tutor, who, rows):
    model, tokenizer = tutor
    batch = make_batch(rows, LENGTH, 0.15, tokenizer)
    measure(benchmark, step, largest=rows == max(ROWS), args=(who, model, batch))
    benchmark.extra_info["bytes"] = peak_memory(who, rows, LENGTH, 0.15)


@pytest.mark.parametrize("who", WHO)
@pytest.mark.parametrize("share", [0.05, 0.15, 0.4])
def test_training_step_by_share(benchmark, tutor, who, share):
    model, tokenizer = tutor
    batch = make_batch(16, LENGTH, share, tokenizer)
    measure(benchmark, step, args=(who, model, batch))
    benchmark.extra_info["bytes"] = peak_memory(who, 16, LENGTH, share)


@pytest.mark.parametrize("who", WHO)
@pytest.mark.parametrize("length", [32, 128, 512])
def test_training_step_by_length(benchmark, tutor, who, length):
    model, tokenizer = tutor
    batch = make_batch(8, length, 0.15, tokenizer)
    measure(benchmark, step, args=(who, model, batch))
    benchmark.extra_info["bytes"] = peak_memory(who, 8, length, 0.15)


@pytest.mark.parametrize("who", WHO)
@pytest.mark.parametrize("rows", ROWS)
def test_head_and_loss(benchmark, tutor, who, rows):
    model, tokenizer = tutor
    batch = make_batch(rows, LENGTH, 0.15, tokenizer)
    labels = batch.pop("labels").flatten()

    def body_forward():
        model.zero_grad()
        hidden = model.bert(**batch)[0].flatten(0, 1)
        return (hidden, hidden.detach().requires_grad_()), {}

    def head_and_loss(_, hidden):
        scored = labels != IGNORE_INDEX if who == "mlmtutor" else slice(None)
        loss = F.cross_entropy(model.cls(hidden[scored]), labels[scored])
        loss.backward()
        return loss.item()

    def body_backward(output, hidden):
        output.backward(hidden.grad)

    around = {"setup": body_forward, "teardown": body_backward}
    measure(benchmark, head_and_loss, largest=rows == max(ROWS), **around)


def resident(field):
    """Return VmRSS (now) or VmHWM (highest so far) of this process in bytes."""
    with open("/proc/self/status") as file:
        return next(1024 * int(line.split()[1]) for line in file if line.startswith(field))


if __name__ == "__main__":
    torch.set_num_threads(1)
    model, tokenizer = load_tutor()
    who, rows, length, share = sys.argv[1:]
    batch = make_batch(int(rows), int(length), float(share), tokenizer)
    before = resident("VmRSS")
    step(who, model, batch)
    # Not ru_maxrss: a process inherits that from the one that started it.
    print(resident("VmHWM") - before)
