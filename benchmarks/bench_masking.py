"""What masking costs, next to ``DataCollatorForLanguageModeling.torch_mask_tokens``.

Both mask the same ids on one thread; the library gets its ``special_tokens_mask`` ready made.
Whole words: `mask_tokens` gets the word ids as a tensor, the library the offsets from which it
makes them, and it replaces by ``[MASK]`` only, since 80/10/10 is not open to it there.
"""

import pytest
import torch
from transformers import DataCollatorForLanguageModeling

from mlmtutor import MaskingPolicy, mask_tokens

LENGTH = 128


@pytest.fixture(scope="module")
def tokenizer(tutor):
    return tutor[1]


def batch(rows, tokenizer):
    """Return ids of `rows` texts of 126 random tokens, and the special tokens mask."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(1000, len(tokenizer), (rows, LENGTH), generator=generator)
    ids[:, 0], ids[:, -1] = tokenizer.cls_token_id, tokenizer.sep_token_id
    special = torch.zeros_like(ids)
    special[:, [0, -1]] = 1
    return ids, special, generator


@pytest.mark.parametrize("who", ["mlmtutor", "transformers"])
@pytest.mark.parametrize("rows", [16, 64, 256])
def test_mask_tokens(benchmark, tokenizer, who, rows):
    ids, special, generator = batch(rows, tokenizer)
    if who == "mlmtutor":
        _, labels = benchmark(mask_tokens, ids, tokenizer, generator=generator)
    else:
        collator = DataCollatorForLanguageModeling(tokenizer, seed=1)
        _, labels = benchmark(lambda: collator.torch_mask_tokens(ids.clone(), special))
    share = (labels != -100).sum() / (special == 0).sum()
    assert abs(share - 0.15) < 0.03


@pytest.mark.parametrize("who", ["mlmtutor", "transformers"])
@pytest.mark.parametrize("rows", [16, 64, 256])
def test_mask_whole_words(benchmark, tokenizer, who, rows):
    ids, special, generator = batch(rows, tokenizer)
    # Words of two tokens: the second begins where the first ends, a space goes before the first.
    at = torch.arange(LENGTH)
    words = ((at - 1) // 2).where((at > 0) & (at < LENGTH - 1), -1).repeat(rows, 1)
    offsets = torch.stack([3 * at + at % 2, 3 * at + 3], dim=-1).repeat(rows, 1, 1)
    if who == "mlmtutor":
        policy = MaskingPolicy(whole_word=True)
        _, labels = benchmark(
            mask_tokens, ids, tokenizer, policy=policy, word_ids=words, generator=generator
        )
    else:
        collator = DataCollatorForLanguageModeling(
            tokenizer, whole_word_mask=True, mask_replace_prob=1, random_replace_prob=0, seed=1
        )
        _, labels = benchmark(lambda: collator.torch_mask_tokens(ids.clone(), special, offsets))
    pairs = (labels != -100)[:, 1:-1].view(rows, -1, 2)
    assert pairs[..., 0].equal(pairs[..., 1])  # all pieces of a word or none
