"""What the doctor costs: a diagnosis of 32 x 512 against one training step on the same batch.

    pytest benchmarks/bench_doctor.py -o addopts= -s

Both are timed in one run, so that the ratio depends little on the machine. The goals are a ratio
below 2 %, and a list of 80 batches of 32 x 128 in less than a second. A step is forward, backward
and AdamW of the embedded model in float32. It is timed on 4 of the 32 rows and taken 8 times: the
logits of all rows at once would need 2 GB, and again as much for their gradient.
"""

import time

import pytest
import torch

from mlmtutor import mask_tokens
from mlmtutor.doctor import diagnose

ROWS, LENGTH, PART = 32, 512, 4


def masked(tokenizer, length=LENGTH, seed=0):
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(1000, len(tokenizer), (ROWS, length), generator=generator)
    ids[:, 0], ids[:, -1] = tokenizer.cls_token_id, tokenizer.sep_token_id
    inputs, labels = mask_tokens(ids, tokenizer, generator=generator)
    return {"input_ids": inputs, "attention_mask": torch.ones_like(ids), "labels": labels}


@pytest.fixture(scope="module")
def batch(tutor):
    return masked(tutor[1])


def training_step(model, batch, optimizer):
    """One optimizer step over the first rows of the batch."""
    optimizer.zero_grad()
    model(**{key: value[:PART] for key, value in batch.items()}).loss.backward()
    optimizer.step()


def test_diagnosis(benchmark, tutor, batch):
    model, tokenizer = tutor
    assert benchmark(diagnose, batch, tokenizer, model).codes == ()


def test_diagnosis_of_whole_words(benchmark, tutor, batch):
    _, tokenizer = tutor
    assert benchmark(diagnose, batch, tokenizer, whole_word=True).codes == ("partial-word",)


def test_diagnosis_of_80_batches(benchmark, tutor):
    _, tokenizer = tutor
    batches = [masked(tokenizer, 128, seed) for seed in range(80)]
    assert benchmark.pedantic(diagnose, (batches, tokenizer), rounds=3).codes == ()


def test_ratio_to_a_training_step(benchmark, tutor, batch):
    model, tokenizer = tutor
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0)
    benchmark.pedantic(training_step, (model, batch, optimizer), rounds=1)
    model.eval()
    times = []
    for _ in range(5):
        begin = time.perf_counter()
        diagnose(batch, tokenizer, model)
        times.append(time.perf_counter() - begin)
    step = benchmark.stats.stats.mean * ROWS / PART
    ratio = sorted(times)[2] / step  # the median diagnosis
    benchmark.extra_info["ratio"] = ratio
    print(f"\ndiagnosis {sorted(times)[2] * 1000:.1f} ms, step {step:.2f} s: {ratio:.3%}")
