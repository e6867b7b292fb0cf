"""BERT's masking rule: select positions, keep their ids as labels, replace what the model sees."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from mlmtutor._validate import (
    require_ids,
    require_known_ids,
    require_mask_token,
    require_same_shape,
    require_type,
)
from mlmtutor.labels import IGNORE_INDEX

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

WordIds = torch.Tensor | Sequence[int | None] | Sequence[Sequence[int | None]]


@dataclass(frozen=True)
class MaskingPolicy:
    """How many positions are scored, and what the model sees there.

    Selection and replacement are two decisions. Every selected position is scored, whatever
    the model sees there: ``[MASK]``, a random token, or the token itself.

    Attributes:
        select: the rate at which positions are selected, between 0 and 1.
        mask: the share of the selected positions that become the mask token.
        random: the share of the selected positions that become a random token. The remaining
            ``1 - mask - random`` keep their token.
        whole_word: select words instead of single tokens.

    Raises:
        ValueError: a rate is not between 0 and 1, or ``mask + random`` is more than 1.

    Example:
        >>> MaskingPolicy()
        MaskingPolicy(select=0.15, mask=0.8, random=0.1, whole_word=False)

    Source: BERT, arXiv:1810.04805, section 3.1 and appendix A.1.
    """

    select: float = 0.15
    mask: float = 0.8
    random: float = 0.1
    whole_word: bool = False

    def __post_init__(self) -> None:
        for name in ("select", "mask", "random"):
            rate = getattr(self, name)
            if not 0 <= rate <= 1:
                raise ValueError(
                    f"{name} must be between 0 and 1, but is {rate}: "
                    "it is a rate, so 15 percent is 0.15."
                )
        if self.mask + self.random > 1:
            raise ValueError(
                f"mask + random must be at most 1, but is {self.mask} + {self.random}: both are "
                "shares of the selected positions, and what is left over keeps its token."
            )


def mask_tokens(
    input_ids: torch.Tensor,
    tokenizer: "PreTrainedTokenizerBase",
    *,
    policy: MaskingPolicy = MaskingPolicy(),
    generator: torch.Generator | None = None,
    special_tokens_mask: torch.Tensor | None = None,
    word_ids: WordIds | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Apply ``policy`` to a batch of token ids.

    Every position is selected on its own with probability ``policy.select``, so a short text
    often has no label at all: n tokens have none with probability ``(1 - select) ** n``. Call
    this again for each epoch to get new masks (dynamic masking), or once, with a seeded
    generator, for an evaluation that can be repeated.

    Special tokens of the tokenizer, padding among them, are never selected, nor is a ``[UNK]`` or
    ``[MASK]`` that stood in the text. A random token is drawn evenly from all that are not
    special; by chance it can be the one that it replaces.

    With ``policy.whole_word``, words are selected at the rate ``select`` and every piece of a
    selected word is scored. What replaces a piece is still drawn for each piece on its own, as
    in BERT's own code. A word with a protected piece is not selected.

    Args:
        input_ids: token ids, int64, (length,) or (batch, length).
        tokenizer: any tokenizer with a mask token.
        policy: the rates.
        generator: the source of all random numbers; ``None`` takes torch's global one.
        special_tokens_mask: further positions to protect, bool or 0 and 1, same shape as
            ``input_ids``. It adds to the special tokens and never takes any away.
        word_ids: needed for whole words, and only then: which word each position belongs to. A
            list like ``batch.word_ids(0)`` for one text, a list of such lists for a batch, or an
            int64 tensor of the shape of ``input_ids`` with -1 for ``None``. Positions in a row
            with the same number form a word.

    Returns:
        ``(corrupted_ids, labels)``, both int64, new, and of the shape of ``input_ids``. Labels
        hold the original id at every selected position and -100 elsewhere.

    Raises:
        TypeError: an argument has the wrong type, such as a seed in place of a generator.
        ValueError: the tokenizer has no mask token, a shape or dtype is wrong, an id is outside
            the vocabulary, or ``word_ids`` and ``policy.whole_word`` do not go together.

    Example:
        >>> from mlmtutor.model import load_tutor
        >>> _, tokenizer = load_tutor()
        >>> ids = tokenizer("The cat sat.", return_tensors="pt")["input_ids"]
        >>> everything = MaskingPolicy(select=1.0, mask=1.0, random=0.0)
        >>> corrupted, labels = mask_tokens(ids, tokenizer, policy=everything)
        >>> tokenizer.convert_ids_to_tokens(corrupted[0].tolist())
        ['[CLS]', '[MASK]', '[MASK]', '[MASK]', '[MASK]', '[SEP]']
        >>> labels.tolist()
        [[-100, 1996, 4937, 2938, 1012, -100]]

    Source: arXiv:1810.04805, appendix A.1; ``create_masked_lm_predictions`` in
    ``create_pretraining_data.py`` of google-research/bert for whole words; the peer is
    ``DataCollatorForLanguageModeling`` of transformers, which replaces by any token of the
    vocabulary, special ones included, and has no 80/10/10 for whole words.
    """
    mask_token_id = require_mask_token(tokenizer)
    cause = "from a rate, use MaskingPolicy(select=0.15)."
    require_type("policy", policy, MaskingPolicy, cause)
    require_ids("input_ids", input_ids)
    if generator is not None:
        cause = "from a seed, use torch.Generator().manual_seed(seed)."
        require_type("generator", generator, torch.Generator, cause)
    if input_ids.dim() not in (1, 2):
        raise ValueError(
            "input_ids must have the shape (length,) or (batch, length), "
            f"but has {tuple(input_ids.shape)}."
        )
    # NumPy from here on: on a batch of ids its calls take a fraction of the time of torch's.
    ids = _flat(input_ids)
    last = "the last id of the tokenizer"
    require_known_ids(ids.min(initial=0), ids.max(initial=0), len(tokenizer), last)
    words = _words(word_ids, input_ids, policy.whole_word)
    is_special = _which_are_special(tokenizer)
    protected = is_special[ids]
    if special_tokens_mask is not None:
        _check_special_tokens_mask(special_tokens_mask, input_ids)
        protected |= _flat(special_tokens_mask.bool())

    source: dict[str, Any] = {"generator": generator, "device": input_ids.device}
    if words is None:
        # One uniform draw decides about each position: whether it is selected, and what it becomes.
        draw, scored = _flat(torch.rand(len(ids), **source)), policy.select
        at = ((draw < scored) & ~protected).nonzero()[0]
        draw = draw[at]
    else:
        # One draw selects each word as a whole, another replaces each of its pieces. A word is a
        # run of equal numbers: they start again in each row, and in the second text of a pair.
        first = np.ones(words.shape, dtype=bool)
        first[..., 1:] = words[..., 1:] != words[..., :-1]
        word = first.cumsum() - 1
        chosen = _flat(torch.rand(word.max(initial=-1) + 1, **source)) < policy.select
        chosen[word[protected | (words.ravel() < 0)]] = False
        at = chosen[word].nonzero()[0]
        draw, scored = _flat(torch.rand(len(at), **source)), 1.0

    # Every draw left is below `scored`. The share `mask` of that range becomes the mask token,
    # the next share `random` a random token.
    becomes_mask = draw < scored * policy.mask
    becomes_random = (draw < scored * (policy.mask + policy.random)) & ~becomes_mask
    labels, corrupted_ids = np.full_like(ids, IGNORE_INDEX), ids.copy()
    labels[at] = ids[at]
    corrupted_ids[at[becomes_mask]] = mask_token_id
    corrupted_ids[at[becomes_random]] = _random_tokens(becomes_random.sum(), is_special, source)
    return _like(input_ids, corrupted_ids), _like(input_ids, labels)


def _flat(tensor: torch.Tensor) -> np.ndarray:
    """Return the numbers of a tensor in one row."""
    return tensor.flatten().numpy(force=True)


def _like(tensor: torch.Tensor, row: np.ndarray) -> torch.Tensor:
    """Return the numbers of a row in the shape and on the device of ``tensor``."""
    return torch.from_numpy(row).view(tensor.shape).to(tensor.device)


def _which_are_special(tokenizer: "PreTrainedTokenizerBase") -> np.ndarray:
    """Return a bool for each id of the tokenizer."""
    special_ids, size = tokenizer.all_special_ids, len(tokenizer)
    if max(special_ids) >= size:
        raise ValueError(
            f"tokenizer must have the ids 0 to {size - 1}, as it has {size} tokens, but the id "
            f"{max(special_ids)} is among its special ones: with gaps between the ids no random "
            "token can be drawn."
        )
    is_special = np.zeros(size, dtype=bool)
    is_special[special_ids] = True
    return is_special


def _random_tokens(count: int, is_special: np.ndarray, source: dict[str, Any]) -> np.ndarray:
    """Draw ``count`` tokens that are not special, all equally likely."""
    tokens = _flat(torch.randint(len(is_special), (count,), **source))
    while (special := is_special[tokens]).any():
        tokens[special] = _flat(torch.randint(len(is_special), (special.sum(),), **source))
    return tokens


def _check_special_tokens_mask(mask: torch.Tensor, input_ids: torch.Tensor) -> None:
    cause = "call the tokenizer with return_special_tokens_mask=True and return_tensors='pt'."
    require_type("special_tokens_mask", mask, torch.Tensor, cause)
    cause = "was one of them padded or truncated without the other?"
    require_same_shape("special_tokens_mask", mask, "input_ids", input_ids.shape, cause)
    if ((mask != 0) & (mask != 1)).any():
        raise ValueError(
            "special_tokens_mask must hold only 0 and 1, but holds values from "
            f"{mask.min().item()} to {mask.max().item()}: it says whether a position is protected, "
            "not which token stands there."
        )


def _words(
    word_ids: WordIds | None, input_ids: torch.Tensor, whole_word: bool
) -> np.ndarray | None:
    """Return the word ids in the shape of ``input_ids``, with -1 for ``None``."""
    if word_ids is not None and not whole_word:
        raise ValueError(
            "word_ids must be None when policy.whole_word is False, but was given: "
            "pass policy=MaskingPolicy(whole_word=True) to select whole words."
        )
    if not whole_word:
        return None
    if word_ids is None:
        raise ValueError(
            "word_ids must be given when policy.whole_word is True, but is None: ids alone do "
            "not say where a word ends. Pass batch.word_ids(0) for one text, and "
            "[batch.word_ids(i) for i in range(len(input_ids))] for a batch."
        )
    if isinstance(word_ids, torch.Tensor):
        words = word_ids.numpy(force=True)
    else:
        lengths = {len(row) for row in word_ids if isinstance(row, Sequence)}
        if len(lengths) > 1:
            raise ValueError(
                f"word_ids must have rows of equal length, but they have {sorted(lengths)}: "
                "take them from the padded batch."
            )
        # NumPy reads None as nan in one pass; a comprehension takes five times as long.
        words = np.nan_to_num(np.array(word_ids, dtype=np.float64), nan=-1)
    cause = "give a list for each row of a batch, made by the same call of the tokenizer."
    require_same_shape("word_ids", words, "input_ids", input_ids.shape, cause)
    return words
