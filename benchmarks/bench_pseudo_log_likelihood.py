"""What batching saves: pseudo_log_likelihood against one forward for each token.

    pytest benchmarks/bench_pseudo_log_likelihood.py -o addopts= -s

Both score the same text with the embedded model in one run, on one thread, so that the ratio does
not depend on the machine. The goal is a ratio of at least 3. The peer is the loop that people
write: hide a token, run the model, read the logits, which it makes for every position.
"""

import time

import pytest
import torch

from mlmtutor.scoring import pseudo_log_likelihood

ROUNDS = 3
TEXT = (
    "The old man walked down to the river in the morning, because he wanted to see the ships "
    "before they sailed."
)


def one_forward_per_token(model, tokenizer, text):
    """Return the sum of log p of each token while it alone is hidden."""
    ids = tokenizer(text, return_tensors="pt")["input_ids"]
    total = 0.0
    with torch.no_grad():
        for position in range(1, ids.shape[1] - 1):
            masked = ids.clone()
            masked[0, position] = tokenizer.mask_token_id
            logits = model(input_ids=masked).logits[0, position]
            total += float(logits.log_softmax(dim=-1)[ids[0, position]])
    return total


def test_batched(benchmark, tutor):
    score = benchmark.pedantic(pseudo_log_likelihood, (TEXT, *reversed(tutor)), rounds=ROUNDS)
    assert len(score.tokens) == 23


def test_ratio_to_one_forward_per_token(benchmark, tutor):
    expected = benchmark.pedantic(one_forward_per_token, (*tutor, TEXT), rounds=ROUNDS)
    times = []
    for _ in range(ROUNDS):
        begin = time.perf_counter()
        score = pseudo_log_likelihood(TEXT, *reversed(tutor))
        times.append(time.perf_counter() - begin)
    assert score.total == pytest.approx(expected, abs=1e-2)
    slow, fast = benchmark.stats.stats.min, min(times)  # the runs that others disturbed least
    ratio = slow / fast
    benchmark.extra_info["ratio"] = ratio
    print(f"\none by one {slow:.2f} s, batched {fast:.2f} s: {ratio:.1f} times as fast")
