"""mask_tokens: what is selected, what the model sees there, and how often.

The frequency tests use exact binomial tail probabilities and fail below FALSE_ALARM. Their seeds
are fixed, so they pass or fail for good; the rate says how often a new seed would fail although
the code is right.
"""

import dataclasses
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from toys import byte_level_bpe, without_mask_token, wordpiece

from mlmtutor.labels import IGNORE_INDEX
from mlmtutor.masking import MaskingPolicy, mask_tokens

FALSE_ALARM = 1e-6
TOKENIZERS = {"wordpiece": wordpiece(), "byte-level BPE": byte_level_bpe()}
WORDPIECE = TOKENIZERS["wordpiece"]


@pytest.fixture(params=TOKENIZERS)
def tokenizer(request):
    return TOKENIZERS[request.param]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def ordinary_ids(tokenizer):
    return sorted(set(range(len(tokenizer))) - set(tokenizer.all_special_ids))


def random_ids(tokenizer, shape, seed=0):
    """Ids that are not special."""
    ordinary = torch.tensor(ordinary_ids(tokenizer))
    return ordinary[torch.randint(len(ordinary), shape, generator=seeded(seed))]


def p_value(count, n, rate):
    """Two-sided exact binomial p-value: twice the tail from `count` away from the mean."""

    def pmf(k):
        ways = math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
        return math.exp(ways + k * math.log(rate) + (n - k) * math.log1p(-rate))

    tail = 0.0
    for k in range(count, n + 1) if count > n * rate else range(count, -1, -1):
        term = pmf(k)
        tail += term
        if term < 1e-30:  # from here on the terms only fall
            break
    return min(1.0, 2 * tail)


# --- The policy ------------------------------------------------------------------------------


def test_policy_takes_shares_that_add_up_to_one():
    for percent in range(101):
        MaskingPolicy(mask=percent / 100, random=(100 - percent) / 100)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"select": 15}, "select must be between 0 and 1, but is 15: .* 0.15"),
        ({"select": 1.01}, "select must be between 0 and 1, but is 1.01"),
        ({"mask": -0.1}, "mask must be between 0 and 1, but is -0.1"),
        ({"random": math.nan}, "random must be between 0 and 1, but is nan"),
        ({"mask": 0.8, "random": 0.5}, r"at most 1, but is 0.8 \+ 0.5: both are sha"),
    ],
)
def test_policy_errors_name_the_cause(arguments, message):
    with pytest.raises(ValueError, match=message):
        MaskingPolicy(**arguments)


# --- Properties of every result --------------------------------------------------------------

rates = st.floats(0, 1)


@st.composite
def policies(draw):
    mask = draw(rates)
    random = min(draw(rates), 1 - mask)
    return MaskingPolicy(draw(rates), mask, random, whole_word=draw(st.booleans()))


@settings(deadline=None, derandomize=True, max_examples=150)
@given(
    name=st.sampled_from(list(TOKENIZERS)),
    shape=st.one_of(
        st.tuples(st.integers(0, 12)), st.tuples(st.integers(0, 3), st.integers(0, 12))
    ),
    policy=policies(),
    seed=st.integers(0, 2**32 - 1),
    extra=st.sampled_from([None, torch.int64, torch.bool]),
)
def test_mask_tokens_keeps_its_promises(name, shape, policy, seed, extra):
    tokenizer = TOKENIZERS[name]
    ids = torch.randint(len(tokenizer), shape, generator=seeded(seed))
    protected = torch.isin(ids, torch.tensor(tokenizer.all_special_ids))
    options = {"policy": policy}
    if extra is not None:
        more = torch.randint(2, shape, generator=seeded(seed)).to(extra)
        options["special_tokens_mask"] = more
        protected |= more == 1
    if policy.whole_word:
        options["word_ids"] = torch.randint(-1, 3, shape, generator=seeded(seed)).sort().values
        protected |= options["word_ids"] == -1
    before = ids.clone()

    corrupted, labels = mask_tokens(ids, tokenizer, generator=seeded(seed), **options)

    assert torch.equal(ids, before), "the input was changed"
    for result in (corrupted, labels):
        assert result.shape == ids.shape
        assert result.dtype == torch.int64
    selected = labels != IGNORE_INDEX
    assert torch.equal(labels[selected], ids[selected]), "a label is not the original id"
    assert torch.equal(corrupted[~selected], ids[~selected]), "an unselected id was replaced"
    assert not (selected & protected).any(), "a protected position was selected"
    seen = set(corrupted[selected].tolist())
    assert seen <= {tokenizer.mask_token_id, *ordinary_ids(tokenizer)}, "became a special token"
    again = mask_tokens(ids, tokenizer, generator=seeded(seed), **options)
    assert torch.equal(corrupted, again[0])
    assert torch.equal(labels, again[1])


@pytest.mark.parametrize("whole_word", [False, True])
def test_mask_tokens_at_rates_of_0_and_1_is_exact(tokenizer, whole_word):
    ids = random_ids(tokenizer, (16, 64))
    words = torch.arange(64).expand(16, 64) if whole_word else None

    def apply(select, mask, random):
        policy = MaskingPolicy(select, mask, random, whole_word)
        return mask_tokens(ids, tokenizer, policy=policy, generator=seeded(), word_ids=words)

    corrupted, labels = apply(0, 1, 0)
    assert torch.equal(corrupted, ids)
    assert (labels == IGNORE_INDEX).all()
    corrupted, labels = apply(1, 1, 0)
    assert (corrupted == tokenizer.mask_token_id).all()
    assert torch.equal(labels, ids)
    corrupted, labels = apply(1, 0, 0)
    assert torch.equal(corrupted, ids)
    assert torch.equal(labels, ids)
    corrupted, labels = apply(0.5, 0.5, 0.5)
    kept = (labels != IGNORE_INDEX) & (corrupted == ids)
    assert kept.sum() <= (corrupted != ids).sum() / 4, "only a lucky random token equals its own"


def test_mask_tokens_returns_new_tensors(tokenizer):
    ids = random_ids(tokenizer, (50,))
    for policy in (MaskingPolicy(select=0), MaskingPolicy(select=1, mask=0, random=0)):
        corrupted, labels = mask_tokens(ids, tokenizer, policy=policy)
        copies = corrupted.clone(), labels.clone()
        ids += 1
        assert torch.equal(corrupted, copies[0])
        assert torch.equal(labels, copies[1])
        corrupted += 1
        assert torch.equal(labels, copies[1])
        ids -= 1


def test_mask_tokens_draws_from_the_global_generator(tokenizer):
    ids = random_ids(tokenizer, (4, 64))
    torch.manual_seed(3)
    first, second = (mask_tokens(ids, tokenizer)[1] for _ in range(2))
    torch.manual_seed(3)
    assert torch.equal(mask_tokens(ids, tokenizer)[1], first)
    assert not torch.equal(first, second), "masking must be dynamic"


def test_mask_tokens_with_a_generator_leaves_the_global_one_alone(tokenizer):
    state = torch.get_rng_state()
    mask_tokens(random_ids(tokenizer, (4, 64)), tokenizer, generator=seeded())
    assert torch.equal(torch.get_rng_state(), state)


# --- What is protected -----------------------------------------------------------------------

EVERYTHING = MaskingPolicy(select=1.0, mask=1.0, random=0.0)


def test_mask_tokens_protects_special_tokens_typed_in_the_text():
    batch = WORDPIECE("the [MASK] zzz cat", return_tensors="pt", return_special_tokens_mask=True)
    ids, special_tokens_mask = batch["input_ids"], batch["special_tokens_mask"]
    tokens = WORDPIECE.convert_ids_to_tokens(ids[0].tolist())
    assert tokens == ["[CLS]", "the", "[MASK]", "[UNK]", "cat", "[SEP]"]
    assert special_tokens_mask.tolist() == [[1, 0, 0, 0, 0, 1]], "the tokenizer does not mark them"
    for mask in (None, special_tokens_mask):
        _, labels = mask_tokens(ids, WORDPIECE, policy=EVERYTHING, special_tokens_mask=mask)
        assert (labels[0] != IGNORE_INDEX).tolist() == [False, True, False, False, True, False]


# --- Whole words -----------------------------------------------------------------------------

WHOLE_WORDS = MaskingPolicy(select=0.5, whole_word=True)


def selected_words(ids, tokenizer, word_ids, seed):
    """Mask whole words; return which positions are selected."""
    _, labels = mask_tokens(
        ids, tokenizer, policy=WHOLE_WORDS, generator=seeded(seed), word_ids=word_ids
    )
    return labels != IGNORE_INDEX


def test_whole_words_are_selected_with_every_piece_or_none(tokenizer):
    text = "tokenization , walking the doors , cats and dogs ."
    batch = tokenizer([text, "the cat sat"], padding=True, return_tensors="pt")
    word_ids = [batch.word_ids(i) for i in range(2)]
    assert any(a == b is not None for a, b in zip(word_ids[0], word_ids[0][1:], strict=False))
    words_seen = set()
    for seed in range(30):
        selected = selected_words(batch["input_ids"], tokenizer, word_ids, seed)
        for row, flags in zip(word_ids, selected.tolist(), strict=True):
            for word in set(row):
                of_word = {f for w, f in zip(row, flags, strict=True) if w == word}
                assert len(of_word) == 1
                assert word is not None or of_word == {False}
                words_seen |= {(word, f) for f in of_word}
    assert {(0, True), (0, False)} <= words_seen, "selection must vary"


def test_whole_words_by_lists_or_by_tensors(tokenizer):
    batch = tokenizer(["walking dogs", "the cat"], padding=True, return_tensors="pt")
    ids, lists = batch["input_ids"], [batch.word_ids(0), batch.word_ids(1)]
    tensor = torch.tensor([[-1 if word is None else word for word in row] for row in lists])
    for at in (slice(None), 0):
        by_lists = selected_words(ids[at], tokenizer, lists[at], seed=0)
        assert torch.equal(by_lists, selected_words(ids[at], tokenizer, tensor[at], seed=0))


def test_whole_words_of_a_pair_and_of_two_rows_are_different():
    batch = WORDPIECE(["cat", "cat"], ["dog", "dog"], return_tensors="pt")
    word_ids = [batch.word_ids(i) for i in range(2)]
    assert word_ids == [[None, 0, None, 0, None]] * 2, "the numbers start again"
    draws = [selected_words(batch["input_ids"], WORDPIECE, word_ids, seed) for seed in range(200)]
    patterns = {tuple(draw[:, [1, 3]].flatten().tolist()) for draw in draws}
    assert len(patterns) == 16, "four words give 2^4 patterns"


def test_whole_words_are_not_joined_across_rows():
    ids, words = random_ids(WORDPIECE, (2, 1)), torch.zeros(2, 1, dtype=torch.int64)
    draws = [selected_words(ids, WORDPIECE, words, seed) for seed in range(50)]
    assert len({tuple(draw.flatten().tolist()) for draw in draws}) == 4


def test_whole_words_with_a_protected_piece_are_not_selected():
    ids = random_ids(WORDPIECE, (6,))
    ids[1] = WORDPIECE.unk_token_id
    policy = dataclasses.replace(EVERYTHING, whole_word=True)
    _, labels = mask_tokens(ids, WORDPIECE, policy=policy, word_ids=[0, 0, 1, 1, 2, None])
    assert (labels != IGNORE_INDEX).tolist() == [False, False, True, True, True, False]


# --- Frequencies -----------------------------------------------------------------------------


def counts(ids, corrupted, labels, tokenizer):
    """How many are selected, and of these how many are the mask token, and still themselves."""
    selected = labels != IGNORE_INDEX
    is_mask = selected & (corrupted == tokenizer.mask_token_id)
    is_same = selected & (corrupted == ids)
    return int(selected.sum()), int(is_mask.sum()), int(is_same.sum())


@pytest.mark.parametrize("policy", [MaskingPolicy(), MaskingPolicy(0.4, 0.5, 0.3)])
def test_mask_tokens_selects_and_replaces_at_the_rates(tokenizer, policy):
    ids = random_ids(tokenizer, (400, 250))
    corrupted, labels = mask_tokens(ids, tokenizer, policy=policy, generator=seeded(1))
    selected, masked, same = counts(ids, corrupted, labels, tokenizer)
    lucky = policy.random / len(ordinary_ids(tokenizer))  # random, and by chance its own token
    assert p_value(selected, ids.numel(), policy.select) > FALSE_ALARM
    assert p_value(masked, selected, policy.mask) > FALSE_ALARM
    assert p_value(same, selected, 1 - policy.mask - policy.random + lucky) > FALSE_ALARM


def test_whole_words_are_selected_and_replaced_at_the_rates(tokenizer):
    ids = random_ids(tokenizer, (400, 250))
    words = (torch.arange(250) // 2).expand(400, 250)  # 50,000 words of two pieces
    policy = MaskingPolicy(whole_word=True)
    corrupted, labels = mask_tokens(
        ids, tokenizer, policy=policy, generator=seeded(2), word_ids=words
    )
    selected, masked, same = counts(ids, corrupted, labels, tokenizer)
    assert selected % 2 == 0
    assert p_value(selected // 2, 50_000, policy.select) > FALSE_ALARM
    assert p_value(masked, selected, policy.mask) > FALSE_ALARM
    lucky = policy.random / len(ordinary_ids(tokenizer))
    assert p_value(same, selected, 0.1 + lucky) > FALSE_ALARM
    # The pieces of a word are replaced independently: 0.8 x 0.8 of the words are all masks.
    is_mask = ((labels != IGNORE_INDEX) & (corrupted == tokenizer.mask_token_id)).view(-1, 2)
    assert p_value(int(is_mask.all(1).sum()), selected // 2, 0.8**2) > FALSE_ALARM


def test_mask_tokens_selects_neighbours_independently():
    ids = random_ids(WORDPIECE, (400, 250))
    policy = MaskingPolicy(select=0.3)
    _, labels = mask_tokens(ids, WORDPIECE, policy=policy, generator=seeded(3))
    both = (labels != IGNORE_INDEX).view(-1, 2).all(1)
    assert p_value(int(both.sum()), len(both), 0.3**2) > FALSE_ALARM


def test_mask_tokens_draws_random_tokens_evenly_from_all_but_special_ones(tokenizer):
    ids = random_ids(tokenizer, (400, 250))
    policy = MaskingPolicy(select=1.0, mask=0.0, random=1.0)
    corrupted, _ = mask_tokens(ids, tokenizer, policy=policy, generator=seeded(4))
    found = torch.bincount(corrupted.flatten(), minlength=len(tokenizer)).tolist()
    assert sum(found[i] for i in tokenizer.all_special_ids) == 0
    ordinary = ordinary_ids(tokenizer)
    for token_id in ordinary:
        rate = 1 / len(ordinary)
        assert p_value(found[token_id], ids.numel(), rate) > FALSE_ALARM / len(ordinary)


def test_mask_tokens_selects_the_same_whatever_replaces(tokenizer):
    ids = random_ids(tokenizer, (8, 64))
    labels = [
        mask_tokens(ids, tokenizer, policy=MaskingPolicy(0.3, mask, 0.1), generator=seeded(5))[1]
        for mask in (0.0, 0.5, 0.9)
    ]
    assert torch.equal(labels[0], labels[1])
    assert torch.equal(labels[0], labels[2])


def test_p_value_is_exact():
    assert p_value(0, 10, 0.5) == pytest.approx(2 / 2**10)
    assert p_value(5, 10, 0.5) == 1.0
    assert p_value(14_000, 100_000, 0.15) < FALSE_ALARM, "1 % off must be noticed"


# --- Errors ----------------------------------------------------------------------------------

IDS = torch.tensor([[2, 6, 7, 8, 3]])
WORDS = [[None, 0, 1, 1, None]]


@pytest.mark.parametrize(
    ("ids", "options", "message"),
    [
        ([[2, 6]], {}, "input_ids must be a torch.Tensor, but is a list"),
        (IDS.int(), {}, "input_ids must have dtype torch.int64, but has torch.int32"),
        (IDS[None], {}, r"\(length,\) or \(batch, length\), but has \(1, 1, 5\)"),
        (IDS - 102, {}, "but -100 is among them: labels have negative entries"),
        (IDS + 9999, {}, "but 10007 is among them: .* another tokenizer"),
        (torch.tensor([0, len(WORDPIECE)]), {}, f"but {len(WORDPIECE)} is among them"),
        (IDS, {"policy": 0.15}, r"policy must be a MaskingPolicy, but is a float: from"),
        (IDS, {"generator": 42}, r"is a int: .*Generator\(\).manual_seed\(seed\)"),
        (IDS, {"special_tokens_mask": [0]}, "special_tokens_mask .* is a list"),
        (IDS, {"special_tokens_mask": IDS[0]}, r"of input_ids, \(1, 5\), but .* \(5,\): .* padded"),
        (IDS, {"special_tokens_mask": IDS}, "only 0 and 1, but .* from 2 to 8"),
        (IDS, {"word_ids": WORDS}, "word_ids must be None when .* is False"),
        (IDS, {"policy": WHOLE_WORDS}, r"word_ids must be given .*batch.word_ids\(0\)"),
        (
            IDS,
            {"policy": WHOLE_WORDS, "word_ids": WORDS[0]},
            r"word_ids .* has \(5,\): give a list",
        ),
        (IDS, {"policy": WHOLE_WORDS, "word_ids": [[0], [0, 1]]}, r"equal length, .* \[1, 2\]"),
    ],
)
def test_mask_tokens_names_the_cause_of_an_error(ids, options, message):
    with pytest.raises((TypeError, ValueError), match=message):
        mask_tokens(ids, WORDPIECE, **options)


def test_mask_tokens_needs_a_mask_token():
    with pytest.raises(ValueError, match=r"must have a mask token, but this .* has none: .*GPT-2"):
        mask_tokens(IDS, without_mask_token())
