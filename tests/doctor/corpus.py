"""Healthy and broken batches that the doctor was not written against.

Five tokenizer families are trained here on a text of made-up words; the batches differ in family,
length, rate, recipe, collator, packing and seed. ``test_corpus.py`` asks for recall and
false alarms, ``tools/doctor_table.py`` prints the figures into the docs.
"""

import functools
import itertools
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import DataCollatorForLanguageModeling, PreTrainedTokenizerFast

from mlmtutor import MaskingPolicy, mask_tokens

FAMILIES = ("wordpiece", "byte-bpe", "unigram", "letters", "pad-is-eos")
RECIPES = {
    "80/10/10": (0.8, 0.1),
    "100/0/0": (1.0, 0.0),
    "85/0/15": (0.85, 0.0),
    "80/20/0": (0.8, 0.2),
}


@functools.cache
def vocabulary() -> tuple[list[str], list[float]]:
    """Made-up words with cumulative weights that follow something like Zipf's law."""
    heads = ["b", "br", "d", "f", "gl", "h", "k", "l", "m", "n", "p", "r", "s", "st", "t", "v", "w"]
    tails = ["a", "e", "i", "o", "u", "ai", "ea", "oo"]
    ends = ["n", "r", "l", "st", "t", "mp", "nd", "sh", "ck", "m"]
    words = [head + tail + end for head in heads for tail in tails for end in ends]
    random.Random(0).shuffle(words)
    return words, list(itertools.accumulate(1 / (rank + 8) for rank in range(len(words))))


def sentences(count: int, least: int, most: int, rng: random.Random) -> list[str]:
    """Made-up sentences."""
    words, weights = vocabulary()
    return [
        " ".join(rng.choices(words, cum_weights=weights, k=rng.randint(least, most)))
        + rng.choice([".", "?", ""])
        for _ in range(count)
    ]


@functools.cache
def tokenizer(family: str) -> Any:
    """A tokenizer of a family, with its kind of pieces, special tokens and order of ids."""
    text = [*sentences(600, 5, 20, random.Random(1)), *["a < b > [ c ] mask MASK"] * 9]
    if family == "wordpiece":  # BERT: [PAD] is 0, pieces begin with ##
        special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        core = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        core.normalizer = normalizers.BertNormalizer()
        core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        trainer = trainers.WordPieceTrainer(vocab_size=420, special_tokens=special)
        names = ("[CLS]", "[SEP]", "[PAD]", "[UNK]", "[MASK]")
    elif family == "byte-bpe":  # RoBERTa: <mask> is the last id, words begin with Ġ
        special = ["<s>", "<pad>", "</s>", "<unk>"]
        core = Tokenizer(models.BPE())
        core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        core.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=500,
            special_tokens=special,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        )
        names = ("<s>", "</s>", "<pad>", "<unk>", "<mask>")
    elif family == "unigram":  # ALBERT, DeBERTa: words begin with ▁
        special = ["[CLS]", "[SEP]", "<pad>", "<unk>", "[MASK]"]
        core = Tokenizer(models.Unigram())
        core.pre_tokenizer = pre_tokenizers.Metaspace()
        core.decoder = decoders.Metaspace()
        trainer = trainers.UnigramTrainer(
            vocab_size=380, special_tokens=special, unk_token="<unk>", show_progress=False
        )
        names = ("[CLS]", "[SEP]", "<pad>", "<unk>", "[MASK]")
    elif family == "letters":  # ESM: a vocabulary of some thirty letters
        special = ["<cls>", "<pad>", "<eos>", "<unk>"]
        letters = [*special, *"abcdefghijklmnoprstuvw.? ", "<mask>"]
        core = Tokenizer(models.WordLevel({c: i for i, c in enumerate(letters)}, unk_token="<unk>"))
        core.pre_tokenizer = pre_tokenizers.Split("", "isolated")
        trainer = None
        names = ("<cls>", "<eos>", "<pad>", "<unk>", "<mask>")
    else:  # a causal tokenizer with one token for every end, and a mask token added
        special = ["<|end|>"]
        core = Tokenizer(models.BPE())
        core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        core.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=450,
            special_tokens=special,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        )
        names = ("<|end|>", "<|end|>", "<|end|>", "<|end|>", "<|mask|>")
    if trainer is not None:
        core.train_from_iterator(text, trainer)
    first, last, pad, unknown, mask = names
    if core.token_to_id(mask) is None:
        core.add_special_tokens([mask])
    if family != "pad-is-eos":
        core.post_processor = processors.TemplateProcessing(
            single=f"{first} $A {last}",
            special_tokens=[(first, core.token_to_id(first)), (last, core.token_to_id(last))],
        )
    given = {"pad_token": pad, "unk_token": unknown, "mask_token": mask}
    if family == "pad-is-eos":
        given |= {"bos_token": first, "eos_token": last}
    else:
        given |= {"cls_token": first, "sep_token": last}
    if family == "byte-bpe":
        given |= {"bos_token": first, "eos_token": last}
    return PreTrainedTokenizerFast(tokenizer_object=core, **given)


@dataclass(frozen=True)
class Example:
    """A batch and what is known about it."""

    name: str
    batch: Any
    tokenizer: Any
    code: str | None = None  # None: healthy
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Base:
    """A healthy batch with what it was made of."""

    name: str
    batch: dict[str, torch.Tensor]
    original: torch.Tensor
    tokenizer: Any
    rng: random.Random
    generator: torch.Generator
    words: list[list[int | None]] | None


def texts_to_ids(kit: Any, rows: int, length: int, packed: bool, rng: random.Random) -> Any:
    """Ids, attention mask and word ids of a batch: padded texts, or one stream cut into rows."""
    if not packed:
        short = max(2, length // 2)
        encoded = kit(
            sentences(rows, short, length, rng),
            padding=True,
            return_tensors="pt",
            return_token_type_ids=False,
        )
        words = [encoded.word_ids(row) for row in range(rows)]
        return encoded["input_ids"], encoded["attention_mask"], words
    stream: list[int] = []
    while len(stream) < rows * length:
        stream += kit(sentences(1, 6, 20, rng)[0])["input_ids"]
    ids = torch.tensor(stream[: rows * length]).view(rows, length)
    return ids, torch.ones_like(ids), None


def count_based(ids: torch.Tensor, kit: Any, rate: float, base: Any) -> Any:
    """Google's way: max(1, round(rate * n)) positions in each row, 80/10/10."""
    special = torch.isin(ids, torch.tensor(kit.all_special_ids))
    chosen = torch.zeros_like(special)
    for row in range(len(ids)):
        free = (~special[row]).nonzero().flatten()
        if len(free):
            take = torch.randperm(len(free), generator=base)[: max(1, round(rate * len(free)))]
            chosen[row, free[take]] = True
    draw = torch.rand(ids.shape, generator=base)
    words = torch.randint(5, len(kit) - 1, ids.shape, generator=base)
    out = ids.masked_fill(chosen & (draw < 0.8), kit.mask_token_id)
    return torch.where(chosen & (draw > 0.9), words, out), ids.masked_fill(~chosen, -100)


def make_base(
    seed: int,
    *,
    rows: int | None = None,
    length: int | None = None,
    family: str | None = None,
    recipe: str | None = None,
    rate: float | None = None,
    packed: bool | None = None,
    collator: str | None = None,
) -> Base:
    """A healthy batch; what is not given is drawn from the seed."""
    rng = random.Random(seed)
    generator = torch.Generator().manual_seed(seed)
    family = family or rng.choice(FAMILIES)
    rate = rate or rng.choice([0.15, 0.15, 0.2, 0.3, 0.4])
    packed = rng.random() < 0.3 if packed is None else packed
    rows = rows or rng.choice([1, 2, 4, 8, 16, 32])
    length = length or rng.choice([6, 12, 24, 48, 96])
    recipe = recipe or rng.choice(list(RECIPES))
    ways = ["mask_tokens", "transformers", "counts"]
    if family in ("wordpiece", "byte-bpe") and not packed:
        ways += ["whole words"] * 2
    collator = collator or rng.choice(ways)
    kit = tokenizer(family)
    ids, attention, words = texts_to_ids(kit, rows, length, packed, rng)
    mask, random_share = RECIPES[recipe]
    if collator == "transformers":
        hf = DataCollatorForLanguageModeling(
            kit, mlm_probability=rate, mask_replace_prob=mask, random_replace_prob=random_share
        )
        hf.generator = generator
        given = [{"input_ids": r, "attention_mask": a} for r, a in zip(ids, attention, strict=True)]
        batch = dict(hf(given))
    else:
        policy = MaskingPolicy(rate, mask, random_share, whole_word=collator == "whole words")
        if collator == "counts":
            masked, labels = count_based(ids, kit, rate, generator)
        else:
            masked, labels = mask_tokens(
                ids,
                kit,
                policy=policy,
                generator=generator,
                word_ids=words if policy.whole_word else None,
            )
        batch = {"input_ids": masked, "attention_mask": attention, "labels": labels}
    name = f"{family} {rows}x{ids.shape[1]} {rate} {recipe} {collator} {'packed' * packed} #{seed}"
    return Base(name, batch, ids, kit, rng, generator, words)


def healthy_examples(count: int, first_seed: int = 10_000) -> Iterator[Example]:
    """Healthy batches: at least one label, which a training loop that guards against nan keeps."""
    seed, made = first_seed, 0
    while made < count:
        seed += 1
        base = make_base(seed)
        if not (base.batch["labels"] != -100).any():
            continue
        made += 1
        batch: Any = dict(base.batch)
        form = base.rng.choice(["tensors", "numpy", "lists"])
        if form == "numpy":
            batch = {key: value.numpy() for key, value in batch.items()}
        elif form == "lists":
            batch = {key: value.tolist() for key, value in batch.items()}
        whole = {"whole_word": True} if "whole words" in base.name else {}
        kit = base.tokenizer if base.rng.random() < 0.8 else None
        yield Example(f"{base.name} {form}", batch, kit, options=whole if kit else {})


def with_labels(base: Base, labels: torch.Tensor, **more: Any) -> dict[str, Any]:
    return {**base.batch, **more, "labels": labels}


def swap_ignore(value: int | str) -> Callable[[Base], Any]:
    def broken(base: Base) -> Any:
        other = base.tokenizer.pad_token_id if value == "pad" else value
        return with_labels(base, base.batch["labels"].where(base.batch["labels"] != -100, other))

    return broken


def renamed(name: str) -> Callable[[Base], Any]:
    return lambda base: {
        (name if key == "labels" else key): value for key, value in base.batch.items()
    }


def again(base: Base, **rates: Any) -> dict[str, Any]:
    """Mask the same text by another policy."""
    ids, labels = mask_tokens(
        base.original, base.tokenizer, policy=MaskingPolicy(**rates), generator=base.generator
    )
    return {**base.batch, "input_ids": ids, "labels": labels}


def aliased(base: Base) -> Any:
    """labels = input_ids without clone(); then masking in place, then -100."""
    ids = base.original.clone()
    labels = ids
    chosen = base.batch["labels"] != -100
    ids[chosen] = base.batch["input_ids"][chosen]
    return with_labels(base, labels.masked_fill(~chosen, -100), input_ids=ids)


def aliased_whole(base: Base) -> Any:
    return with_labels(base, base.batch["input_ids"])


def causal(base: Base) -> Any:
    labels = base.original.roll(-1, dims=1)
    labels[:, -1] = -100
    return with_labels(base, labels, input_ids=base.original)


def one_to_the_right(base: Base) -> Any:
    return with_labels(base, base.batch["labels"].roll(1, dims=1))


def upside_down(base: Base) -> Any:
    chosen = base.batch["labels"] != -100
    return with_labels(base, base.original.masked_fill(chosen, -100))


def never_masks(base: Base) -> Any:
    """``if prob < prob * 0.8`` is never true: selected, labelled, not replaced."""
    return with_labels(base, base.batch["labels"], input_ids=base.original)


def pads_scored(base: Base) -> Any:
    return with_labels(
        base,
        base.batch["labels"].where(base.batch["attention_mask"] == 1, base.tokenizer.pad_token_id),
    )


def pads_scored_without_attention_mask(base: Base) -> Any:
    batch = pads_scored(base)
    del batch["attention_mask"]
    return batch


def specials_scored(base: Base) -> Any:
    """The masker forgot special_tokens_mask: [CLS] and [SEP] are selected at the same rate."""
    kit = base.tokenizer
    ends = torch.isin(base.original, torch.tensor([kit.cls_token_id, kit.sep_token_id]))
    chosen = ends & (torch.rand(ends.shape, generator=base.generator) < 0.3)
    chosen[0, 0] = True
    ids = base.batch["input_ids"].masked_fill(chosen, kit.mask_token_id)
    return with_labels(base, base.batch["labels"].where(~chosen, base.original), input_ids=ids)


def half_the_masks(base: Base) -> Any:
    drop = torch.rand(base.original.shape, generator=base.generator) < 0.5
    return with_labels(base, base.batch["labels"].masked_fill(drop, -100))


def one_mask_for_all_rows(base: Base) -> Any:
    chosen = torch.rand(base.original.shape[1], generator=base.generator) < 0.25
    special = torch.isin(base.original, torch.tensor(base.tokenizer.all_special_ids))
    chosen = chosen & ~special
    ids = base.original.masked_fill(chosen, base.tokenizer.mask_token_id)
    return with_labels(base, base.original.masked_fill(~chosen, -100), input_ids=ids)


def static(base: Base) -> Any:
    order = torch.randperm(len(base.original), generator=base.generator)
    return [base.batch, {key: value[order] for key, value in base.batch.items()}]


def one_mask_for_all_batches(base: Base) -> Any:
    chosen = base.batch["labels"] != -100
    other = base.original.flip(0)
    special = torch.isin(other, torch.tensor(base.tokenizer.all_special_ids))
    chosen = chosen & ~special
    ids = other.masked_fill(chosen, base.tokenizer.mask_token_id)
    first = with_labels(
        base,
        base.original.masked_fill(~chosen, -100),
        input_ids=base.original.masked_fill(chosen, base.tokenizer.mask_token_id),
    )
    return [first, with_labels(base, other.masked_fill(~chosen, -100), input_ids=ids)]


def random_from_specials(base: Base) -> Any:
    kit, labels = base.tokenizer, base.batch["labels"]
    odd = (labels != -100) & (base.batch["input_ids"] != labels)
    odd &= base.batch["input_ids"] != kit.mask_token_id
    return with_labels(
        base, labels, input_ids=base.batch["input_ids"].masked_fill(odd, kit.pad_token_id)
    )


def hidden_targets(base: Base) -> Any:
    seen = (base.batch["input_ids"] != base.tokenizer.mask_token_id).long()
    return with_labels(base, base.batch["labels"], attention_mask=seen)


def flipped_attention(base: Base) -> Any:
    return with_labels(base, base.batch["labels"], attention_mask=1 - base.batch["attention_mask"])


def half_words(base: Base) -> Any:
    return again(base, select=0.3, mask=1.0, random=0.0)


def drop_ends(base: Base) -> Any:
    return with_labels(base, base.batch["labels"][:, 1:-1].contiguous())


def transposed(base: Base) -> Any:
    return with_labels(base, base.batch["labels"].T.contiguous())


def strided(base: Base) -> Any:
    wide = torch.cat([base.batch["labels"]] * 2, dim=1)
    return with_labels(base, wide[:, : base.original.shape[1]])


def large_ids(base: Base) -> Any:
    ids = base.batch["input_ids"].clone()
    ids[-1, 1] = len(base.tokenizer) + 11
    return with_labels(base, base.batch["labels"], input_ids=ids)


def ragged(base: Base) -> Any:
    rows = base.batch["input_ids"].tolist()
    rows[0] = rows[0][:-2]
    return {**base.batch, "input_ids": rows}


def spelled(base: Base) -> Any:
    kit = base.tokenizer
    word = "[MASK]" if kit.mask_token != "[MASK]" else "<mask>"
    ids = kit([f"brean {word} drain." for _ in range(4)], return_tensors="pt")["input_ids"]
    return {"input_ids": ids, "labels": torch.where(ids == kit.mask_token_id, ids, -100)}


@dataclass(frozen=True)
class Defect:
    """How to break a batch, which finding must follow, and on which batches it shows."""

    code: str
    breaks: Callable[[Base], Any]
    sizes: dict[str, Any] = field(default_factory=dict)
    families: tuple[str, ...] = FAMILIES
    options: dict[str, Any] = field(default_factory=dict)


LARGE = {"rows": 16, "length": 48}
PADDED = {"rows": 8, "length": 24, "packed": False}
ENDS = ("wordpiece", "byte-bpe", "unigram", "letters")
DEFECTS = [
    Defect("labels-misnamed", renamed("masked_lm_labels")),
    Defect("labels-misnamed", renamed("lm_labels")),
    Defect("labels-misnamed", renamed("lables")),
    Defect("labels-missing", lambda base: {"input_ids": base.original}),
    Defect("dtype", lambda base: with_labels(base, base.batch["labels"].float())),
    Defect("dtype", lambda base: with_labels(base, base.batch["labels"] != -100)),
    Defect("unreadable", ragged, {"rows": 4}),
    Defect("shape", drop_ends),
    Defect("shape", transposed, {"rows": 4, "length": 24}),
    Defect("labels-strided", strided, {"rows": 4}),
    Defect("ignore-minus-one", swap_ignore(-1)),
    Defect("ignore-pad", swap_ignore("pad")),
    Defect("labels-binary", lambda base: with_labels(base, (base.batch["labels"] != -100).long())),
    Defect("label-out-of-range", swap_ignore(-99)),
    Defect("label-out-of-range", swap_ignore(100_000)),
    Defect("input-out-of-range", large_ids),
    Defect(
        "ignore-in-input",
        lambda base: with_labels(
            base, base.original, input_ids=base.original.where(base.batch["labels"] == -100, -100)
        ),
    ),
    Defect(
        "nothing-labelled",
        lambda base: with_labels(base, base.batch["labels"] * 0 - 100, input_ids=base.original),
    ),
    Defect("foreign-mask", spelled, families=("wordpiece", "byte-bpe", "unigram", "pad-is-eos")),
    Defect("shifted", causal, {"length": 24}),
    Defect("shifted", one_to_the_right, {"rows": 8, "length": 24}),
    Defect("inverted", upside_down, {"rows": 8, "length": 24}),
    Defect(
        "everything-labelled",
        lambda base: with_labels(base, base.original.clone(), input_ids=base.original),
        {"length": 12},
    ),
    Defect(
        "everything-labelled",
        lambda base: with_labels(base, base.original.clone()),
        {"rows": 8, "length": 24},
    ),
    Defect("everything-labelled", aliased_whole, {"rows": 8, "length": 24}),
    Defect("label-is-mask", aliased, {"rows": 8}),
    Defect("padding-labelled", pads_scored, PADDED, ENDS),
    Defect("padding-labelled", pads_scored_without_attention_mask, PADDED, ENDS),
    Defect("label-hidden", hidden_targets, {"rows": 8, "packed": False}),
    Defect("label-hidden", flipped_attention, PADDED, ENDS),
    Defect("special-labelled", specials_scored, families=ENDS),
    Defect("mask-without-label", half_the_masks, {"rows": 8, "length": 48}),
    Defect(
        "partial-word",
        half_words,
        LARGE | {"packed": False},
        ("wordpiece", "byte-bpe", "unigram"),
        {"whole_word": True},
    ),
    Defect("never-replaced", never_masks, LARGE),
    Defect("replacement-shares", lambda base: again(base, select=0.2, mask=0.1, random=0.8), LARGE),
    Defect(
        "replacement-shares", lambda base: again(base, select=0.2, mask=0.45, random=0.1), LARGE
    ),
    Defect("selection-low", lambda base: again(base, select=0.03), LARGE | {"rows": 32}),
    Defect("selection-high", lambda base: again(base, select=0.8), LARGE),
    Defect(
        "random-special",
        random_from_specials,
        {
            "rows": 32,
            "length": 48,
            "recipe": "80/20/0",
            "rate": 0.3,
            "collator": "mask_tokens",
            "packed": False,
        },
        ("wordpiece", "byte-bpe", "unigram"),
    ),
    Defect("same-mask-rows", one_mask_for_all_rows, LARGE | {"packed": True}),
    Defect("same-mask-epochs", static, LARGE),
    Defect("same-mask-epochs", one_mask_for_all_batches, LARGE | {"packed": True}),
]


def broken_examples(rounds: int = 3, first_seed: int = 50_000) -> Iterator[Example]:
    """Each defect on ``rounds`` batches of different family, size, rate and recipe."""
    for number, defect in enumerate(DEFECTS):
        for turn in range(rounds):
            family = defect.families[(number + turn) % len(defect.families)]
            seed = first_seed + 100 * number + turn
            base = make_base(seed, family=family, **defect.sizes)
            while not (base.batch["labels"] != -100).any():  # a short text may get no label
                seed += 31
                base = make_base(seed, family=family, **defect.sizes)
            yield Example(
                f"{defect.code} {getattr(defect.breaks, '__name__', '')} {base.name}",
                defect.breaks(base),
                base.tokenizer,
                defect.code,
                defect.options,
            )
