"""mask_tokens: what is selected, what the model sees there, and how often."""

import dataclasses
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from toys import byte_level_bpe, without_mask_token, wordpiece

from mlmtutor.labels import IGNORE_INDEX
from mlmtutor.masking import MaskingPolicy, mask_tokens

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


def agrees(count, n, rate):
    """Is the count within 5 standard deviations of the mean? With right code 1 in a million isn't."""
    return abs(count - n * rate) < 5 * math.sqrt(n * rate * (1 - rate))


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
@pytest.mark.parametrize(("select", "mask"), [(0, 1), (1, 1), (1, 0)])
def test_mask_tokens_at_rates_of_0_and_1_is_exact(tokenizer, select, mask, whole_word):
    ids = random_ids(tokenizer, (16, 64))
    words = torch.arange(64).expand(16, 64) if whole_word else None
    policy = MaskingPolicy(select, mask, 0, whole_word)
    corrupted, labels = mask_tokens(ids, tokenizer, policy=policy, word_ids=words)
    assert torch.equal(labels, ids if select else torch.full_like(ids, IGNORE_INDEX))
    all_masks = torch.full_like(ids, tokenizer.mask_token_id)
    assert torch.equal(corrupted, all_masks if select and mask else ids)


def test_mask_tokens_returns_new_tensors(tokenizer):
    ids = random_ids(tokenizer, (50,))
    for policy in (MaskingPolicy(select=0), MaskingPolicy(select=1, mask=0, random=0)):
        results = mask_tokens(ids, tokenizer, policy=policy)
        assert len({tensor.data_ptr() for tensor in (ids, *results)}) == 3


def test_mask_tokens_draws_from_the_generator_it_is_given_or_else_from_the_global_one(tokenizer):
    ids = random_ids(tokenizer, (4, 64))
    torch.manual_seed(3)
    first = mask_tokens(ids, tokenizer)[1]
    state = torch.get_rng_state()
    mask_tokens(ids, tokenizer, generator=seeded())
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(mask_tokens(ids, tokenizer)[1], first), "masking must be dynamic"
    torch.manual_seed(3)
    assert torch.equal(mask_tokens(ids, tokenizer)[1], first)


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
    options = {"policy": WHOLE_WORDS, "generator": seeded(seed), "word_ids": word_ids}
    return mask_tokens(ids, tokenizer, **options)[1] != IGNORE_INDEX


def test_whole_words_are_selected_whole_by_lists_or_by_tensors(tokenizer):
    batch = tokenizer(["walking dogs", "the cat"], padding=True, return_tensors="pt")
    ids, lists = batch["input_ids"], [batch.word_ids(0), batch.word_ids(1)]
    tensor = torch.tensor([[-1 if word is None else word for word in row] for row in lists])
    assert lists[0].count(0) > 1
    whole = {(False,) * lists[0].count(0), (True,) * lists[0].count(0)}
    draws = [selected_words(ids, tokenizer, lists, seed) for seed in range(30)]
    assert {tuple(draw[0, tensor[0] == 0].tolist()) for draw in draws} == whole
    assert not any(draw[tensor == -1].any() for draw in draws)
    for at in (slice(None), 0):
        by_lists = selected_words(ids[at], tokenizer, lists[at], seed=0)
        assert torch.equal(by_lists, selected_words(ids[at], tokenizer, tensor[at], seed=0))


def test_whole_words_of_a_pair_and_of_two_rows_are_different():
    batch = WORDPIECE(["cat", "cat"], ["dog", "dog"], return_tensors="pt")
    word_ids = [batch.word_ids(i) for i in range(2)]
    assert word_ids == [[None, 0, None, 0, None]] * 2, "the numbers start again"
    side_by_side = random_ids(WORDPIECE, (2, 1)), [[0], [0]]  # no special token between the rows
    for ids, words, count in ((batch["input_ids"], word_ids, 4), (*side_by_side, 2)):
        draws = [selected_words(ids, WORDPIECE, words, seed) for seed in range(200)]
        assert len({tuple(draw.flatten().tolist()) for draw in draws}) == 2**count


def test_whole_words_with_a_protected_piece_are_not_selected():
    ids = random_ids(WORDPIECE, (6,))
    ids[1] = WORDPIECE.unk_token_id
    policy = dataclasses.replace(EVERYTHING, whole_word=True)
    _, labels = mask_tokens(ids, WORDPIECE, policy=policy, word_ids=[0, 0, 1, 1, 2, None])
    assert (labels != IGNORE_INDEX).tolist() == [False, False, True, True, True, False]


# --- Frequencies -----------------------------------------------------------------------------


@pytest.mark.parametrize("whole_word", [False, True])
@pytest.mark.parametrize("rates", [(0.15, 0.8, 0.1), (0.4, 0.5, 0.3)])
def test_mask_tokens_selects_and_replaces_at_the_rates(tokenizer, rates, whole_word):
    select, mask, random = rates
    ids = random_ids(tokenizer, (400, 250))
    words = (torch.arange(250) // 2).expand(400, 250) if whole_word else None
    corrupted, labels = mask_tokens(
        ids,
        tokenizer,
        policy=MaskingPolicy(*rates, whole_word),
        generator=seeded(1),
        word_ids=words,
    )
    selected = labels != IGNORE_INDEX
    masked, same = (selected & (corrupted == other) for other in (tokenizer.mask_token_id, ids))
    lucky = random / len(ordinary_ids(tokenizer))  # random, and by chance its own token
    assert agrees(masked.sum(), selected.sum(), mask)
    assert agrees(same.sum(), selected.sum(), 1 - mask - random + lucky)
    pairs = selected.view(-1, 2)
    assert agrees(pairs[:, 0].sum(), len(pairs), select)
    # Neighbours are selected independently, or as the two pieces of a word together ...
    assert agrees(pairs.all(1).sum(), len(pairs), select if whole_word else select**2)
    # ... and are replaced independently.
    both_masks = masked.view(-1, 2).all(1).sum()
    assert agrees(both_masks, pairs.all(1).sum(), mask**2)


def test_mask_tokens_draws_random_tokens_evenly_from_all_but_special_ones(tokenizer):
    ids = random_ids(tokenizer, (400, 250))
    policy = MaskingPolicy(select=1.0, mask=0.0, random=1.0)
    corrupted, _ = mask_tokens(ids, tokenizer, policy=policy, generator=seeded(4))
    found = torch.bincount(corrupted.flatten(), minlength=len(tokenizer)).tolist()
    assert sum(found[i] for i in tokenizer.all_special_ids) == 0
    ordinary = ordinary_ids(tokenizer)
    assert all(agrees(found[token_id], ids.numel(), 1 / len(ordinary)) for token_id in ordinary)


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
