"""Healthy and broken batches that the doctor was not written against.

Five tokenizer families are trained here on a text of made-up words. ``RECIPES`` makes healthy batches
in all the ways that are in use, ``DEFECTS`` breaks them. ``test_corpus.py`` runs a few of each, and
``tools/doctor_table.py`` many, for the figures in the docs.
"""

import copy
import functools
import itertools
import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from batches import run_fix
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
from mlmtutor.doctor import diagnose
from mlmtutor.doctor.facts import Case

FAMILIES = ("wordpiece", "byte-bpe", "unigram", "letters", "pad-is-eos")
ENDS = FAMILIES[:4]  # those with tokens of their own for the ends of a text
SHARES = {
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


BERT = ("[CLS]", "[SEP]", "[PAD]", "[UNK]", "[MASK]")
NAMES = {  # first, last, padding, unknown and mask token
    "wordpiece": BERT,
    "byte-bpe": ("<s>", "</s>", "<pad>", "<unk>", "<mask>"),
    "unigram": ("[CLS]", "[SEP]", "<pad>", "<unk>", "[MASK]"),
    "letters": ("<cls>", "<eos>", "<pad>", "<unk>", "<mask>"),
    "nucleotides": BERT,
    "pad-is-eos": ("<|end|>",) * 4 + ("<|mask|>",),
}


@functools.cache
def tokenizer(family: str) -> Any:
    """A tokenizer of a family, with its kind of pieces, special tokens and order of ids."""
    first, last, pad, unknown, mask = NAMES[family]
    special = list(dict.fromkeys((first, pad, last, unknown)))
    letters = "ACGTN" if family == "nucleotides" else "abcdefghijklmnoprstuvw.? "
    bpe = (models.BPE(), pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel())
    entries = [*special, *letters, mask]
    alone = models.WordLevel({c: i for i, c in enumerate(entries)}, unk_token=unknown)
    model, split, decoder = {
        "wordpiece": (models.WordPiece(unk_token=unknown), pre_tokenizers.BertPreTokenizer(), None),
        "unigram": (models.Unigram(), pre_tokenizers.Metaspace(), decoders.Metaspace()),
        "letters": (alone, pre_tokenizers.Split("", "isolated"), None),
        "nucleotides": (alone, pre_tokenizers.Split("", "isolated"), None),
    }.get(family, bpe)
    core = Tokenizer(model)
    core.pre_tokenizer = split
    if decoder is not None:
        core.decoder = decoder
    quiet = {"show_progress": False}
    if family == "wordpiece":  # BERT: [PAD] is 0, pieces begin with ##
        core.normalizer = normalizers.BertNormalizer()
        special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        trainer: Any = trainers.WordPieceTrainer(vocab_size=420, special_tokens=special, **quiet)
    elif family == "unigram":  # ALBERT, DeBERTa: words begin with ▁
        special.append(mask)
        trainer = trainers.UnigramTrainer(
            vocab_size=380, special_tokens=special, unk_token=unknown, **quiet
        )
    else:  # RoBERTa: <mask> is the last id, words begin with Ġ; or one token for every end
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(
            vocab_size=500, special_tokens=special, initial_alphabet=alphabet, **quiet
        )
    if family not in ("letters", "nucleotides"):
        text = [*sentences(600, 5, 20, random.Random(1)), *["a < b > [ c ] mask MASK"] * 9]
        core.train_from_iterator(text, trainer)
    if core.token_to_id(mask) is None:
        core.add_special_tokens([mask])
    given = {"pad_token": pad, "unk_token": unknown, "mask_token": mask}
    if family != "pad-is-eos":
        ids = [(first, core.token_to_id(first)), (last, core.token_to_id(last))]
        core.post_processor = processors.TemplateProcessing(
            f"{first} $A {last}", special_tokens=ids
        )
        given |= {"cls_token": first, "sep_token": last}
    if family in ("pad-is-eos", "byte-bpe"):
        given |= {"bos_token": first, "eos_token": last}
    return PreTrainedTokenizerFast(tokenizer_object=core, **given)


@dataclass(frozen=True)
class Base:
    """A healthy batch with what it was made of."""

    name: str
    batch: dict[str, Any]
    original: torch.Tensor
    tokenizer: Any
    rng: random.Random
    generator: torch.Generator
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def chosen(self) -> torch.Tensor:
        return self.batch["labels"] != -100

    @property
    def special(self) -> torch.Tensor:
        return torch.isin(self.original, torch.tensor(self.tokenizer.all_special_ids))

    def draw(self) -> torch.Tensor:
        return torch.rand(self.original.shape, generator=self.generator)

    def masked(
        self, chosen: torch.Tensor, mask: float = 1.0, rand: float = 0.0, **more: Any
    ) -> Any:
        """The batch with these positions selected, each replaced by itself."""
        kind, free = self.draw(), ~torch.isin(torch.arange(len(self.tokenizer)),
                                              torch.tensor(self.tokenizer.all_special_ids))  # fmt: skip
        pool = free.nonzero().flatten()
        drawn = pool[torch.randint(len(pool), chosen.shape, generator=self.generator)]
        ids = self.original.masked_fill(chosen & (kind < mask), self.tokenizer.mask_token_id)
        ids = torch.where(chosen & (kind >= mask) & (kind < mask + rand), drawn, ids)
        return {**self.batch, "input_ids": ids, "labels": self.original.where(chosen, -100), **more}


def make_base(
    seed: int,
    *,
    rows: int | None = None,
    length: int | None = None,
    family: str | None = None,
    shares: str | None = None,
    rate: float | None = None,
    packed: bool | None = None,
    way: str | None = None,
) -> Base:
    """A healthy batch; what is not given is drawn from the seed."""
    rng, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    family = family or rng.choice(FAMILIES)
    rate = rate or rng.choice([0.15, 0.15, 0.2, 0.3, 0.4])
    packed = rng.random() < 0.3 if packed is None else packed
    rows = rows or rng.choice([1, 2, 4, 8, 16, 32])
    length = length or rng.choice([6, 12, 24, 48, 96])
    shares = shares or rng.choice(list(SHARES))
    way = way or rng.choice(["mask_tokens", "transformers", "whole words"])
    kit = tokenizer(family)
    words = None
    if packed:
        stream: list[int] = []
        while len(stream) < rows * length:
            stream += kit(sentences(1, 6, 20, rng)[0])["input_ids"]
        ids = torch.tensor(stream[: rows * length]).view(rows, length)
        attention = torch.ones_like(ids)
    else:
        texts = sentences(rows, max(2, length // 2), length, rng)
        if family == "nucleotides":
            texts = [
                "".join(rng.choices("ACGT", k=rng.randint(length // 2, length))) for _ in texts
            ]
        encoded = kit(texts, padding=True, return_tensors="pt")
        ids, attention = encoded["input_ids"], encoded["attention_mask"]
        words = [encoded.word_ids(row) for row in range(rows)]
    policy = MaskingPolicy(
        rate, *SHARES[shares], whole_word=way == "whole words" and words is not None
    )
    if way == "transformers":
        names = ("mlm_probability", "mask_replace_prob", "random_replace_prob")
        hf = DataCollatorForLanguageModeling(
            kit, **dict(zip(names, (rate, *SHARES[shares]), strict=True))
        )
        hf.generator = generator
        given = [{"input_ids": r, "attention_mask": a} for r, a in zip(ids, attention, strict=True)]
        batch = dict(hf(given))
    else:
        masked, labels = mask_tokens(
            ids,
            kit,
            policy=policy,
            generator=generator,
            word_ids=words if policy.whole_word else None,
        )
        batch = {"input_ids": masked, "attention_mask": attention, "labels": labels}
    name = f"{family} {rows}x{ids.shape[1]} {rate} {shares} {way} {'packed' * packed} #{seed}"
    options = {"policy": policy} if rng.random() < 0.5 else {"whole_word": policy.whole_word}
    return Base(name, batch, ids, kit, rng, generator, options)


# Healthy: name -> (how a batch is made from a base, what is fixed in the base). -----------------------


def plain(base: Base) -> Any:
    return {
        "tensors": dict,
        "arrays": lambda b: {key: value.numpy() for key, value in b.items()},
        "lists": lambda b: {key: value.tolist() for key, value in b.items()},
    }[base.rng.choice(["tensors", "arrays", "lists"])](base.batch)


def own_rates(base: Base, everything: bool = False) -> Any:
    """Masked diffusion: each row at its own rate t ~ U(0, 1), all [MASK]."""
    rows = len(base.original)
    start = torch.rand(1, generator=base.generator)
    rate = ((torch.arange(rows) + start) / rows).unsqueeze(1)
    return base.masked((base.draw() < rate) & (everything | ~base.special))


def spans(base: Base) -> Any:
    """SpanBERT: spans of some four tokens up to 15 %, each replaced as one."""
    chosen, kind = torch.zeros_like(base.special), base.draw()
    for row, free in enumerate(~base.special):
        places = free.nonzero().flatten()
        budget = max(1, round(0.15 * len(places)))
        while len(places) and chosen[row].sum() < budget:
            at = base.rng.randrange(len(places))
            size = min(1 + int(math.log(base.rng.random()) / math.log(0.8)), 10, budget)
            chosen[row, places[at : at + size]] = True
            kind[row, places[at : at + size]] = base.rng.random()
    batch = base.masked(chosen, 0.0, 1.0)
    drawn = torch.where(kind < 0.8, base.tokenizer.mask_token_id, batch["input_ids"])
    return {**batch, "input_ids": torch.where(chosen & (kind < 0.9), drawn, base.original)}


def blanks(*columns: int) -> Callable[[Base], Any]:
    """A prompt before each text, with blanks at the same places and answers of two kinds."""

    def made(base: Base) -> Any:
        ids = base.original.clone()
        words = base.tokenizer(sentences(1, 9, 9, base.rng))["input_ids"][0]
        ids[:, 1:5] = torch.tensor(words[1:5])
        answers = torch.randint(30, 34, ids.shape, generator=base.generator)
        chosen = torch.zeros_like(base.special)
        chosen[:, list(columns)] = True
        ids = ids.masked_fill(chosen, base.tokenizer.mask_token_id)
        return {**base.batch, "input_ids": ids, "labels": answers.where(chosen, -100)}

    return made


def similar(base: Base) -> Any:
    """MacBERT: a similar word in place of [MASK]."""
    chosen, kind = (base.draw() < 0.15) & ~base.special, base.draw()
    near = base.original + torch.where(base.original > len(base.tokenizer) // 2, -3, 3)
    batch = base.masked(chosen, 0.0, 1.0)
    ids = torch.where(kind < 0.8, near, torch.where(kind < 0.9, batch["input_ids"], base.original))
    return {**batch, "input_ids": torch.where(chosen, ids, base.original)}


def attention(kind: str) -> Callable[[Base], Any]:
    def made(base: Base) -> Any:
        row = base.batch["attention_mask"].bool()
        square = row[:, None, :] & row[:, :, None]
        mask: Any = torch.zeros(square.shape).masked_fill(~square, -1e9)[:, None]
        if kind == "BlockMask":
            from torch.nn.attention.flex_attention import create_block_mask

            numbers = row.long()
            mask = create_block_mask(
                lambda b, h, q, k: numbers[b, q] == numbers[b, k],
                len(row),
                None,
                *[row.shape[1]] * 2,
                "cpu",
            )
        return {
            **base.batch,
            "attention_mask": mask if kind != "two kinds" else {"full": mask, "window": square},
        }

    return made


def mentions(word: str) -> Callable[[Base], Any]:
    """A text about masks: some rows hold the word, the collator protects special tokens."""

    def made(base: Base) -> Any:
        texts = sentences(16, 15, 20, base.rng)
        texts = [text + base.rng.choice(["", "", "", f" {word} last"]) for text in texts]
        encoded = base.tokenizer(texts, padding=True, return_tensors="pt")
        ids, labels = mask_tokens(encoded["input_ids"], base.tokenizer, generator=base.generator)
        return {"input_ids": ids, "attention_mask": encoded["attention_mask"], "labels": labels}

    return made


def two_epochs(base: Base) -> Any:
    return [base.batch, base.masked((base.draw() < 0.15) & ~base.special)]


def flattened(base: Base) -> Any:
    real = base.batch["attention_mask"].bool()
    places = torch.arange(real.shape[1]).expand_as(real)
    flat = {key: value[real].unsqueeze(0) for key, value in base.batch.items()}
    return {
        "input_ids": flat["input_ids"],
        "labels": flat["labels"],
        "position_ids": places[real][None],
    }


def chosen_at(
    low: float, high: float, mask: float = 1.0, rand: float = 0.0
) -> Callable[[Base], Any]:
    def made(base: Base) -> Any:
        rate = base.rng.uniform(low, high)
        return base.masked((base.draw() < rate) & ~base.special, mask, rand)

    return made


RECIPES: dict[str, tuple[Callable[[Base], Any], dict[str, Any]]] = {
    "plain draws, known recipe or not": (plain, {}),
    "whole words": (plain, {"way": "whole words", "packed": False}),
    "12 ids, collator of transformers": (
        plain,
        {"family": "nucleotides", "way": "transformers", "packed": False},
    ),
    "short texts": (plain, {"length": 6}),
    "masked diffusion": (own_rates, {"rows": 16}),
    "masked diffusion, ends too": (lambda b: own_rates(b, True), {"rows": 16, "packed": True}),
    "MaskGIT, cosine schedule": (chosen_at(0.05, 0.99), {}),
    "RetroMAE, encoder": (chosen_at(0.15, 0.3, 0.8, 0.1), {}),
    "RetroMAE, decoder": (chosen_at(0.5, 0.7), {}),
    "docstring 0/100/0": (chosen_at(0.15, 0.15, 0.0, 1.0), {}),
    "docstring 50/40/10": (chosen_at(0.15, 0.15, 0.5, 0.4), {}),
    "MacBERT": (similar, {"family": "wordpiece"}),
    "spans": (spans, {}),
    "one blank": (blanks(2), {"rows": 16, "length": 24, "family": "wordpiece"}),
    "two blanks": (blanks(1, 3), {"rows": 16, "length": 24, "family": "unigram"}),
    "added float mask": (attention("added"), {"packed": False, "family": "wordpiece"}),
    "BlockMask": (
        attention("BlockMask"),
        {"packed": False, "rows": 4, "length": 24, "family": "wordpiece"},
    ),
    "two kinds of attention": (attention("two kinds"), {"packed": False, "family": "unigram"}),
    "packed rows with position_ids": (flattened, {"packed": False}),
    "text about [MASK]": (mentions("[MASK]"), {"family": "wordpiece"}),
    "text about <mask>": (mentions("<mask>"), {"family": "wordpiece"}),
    "two epochs, masked anew": (two_epochs, {"way": "mask_tokens"}),
}
KNOWN = (
    "plain draws, known recipe or not",
    "whole words",
    "12 ids, collator of transformers",
    "short texts",
)


@dataclass(frozen=True)
class Example:
    """A batch and what is known about it."""

    name: str
    batch: Any
    base: Base
    code: str | None = None  # None: healthy
    options: dict[str, Any] = field(default_factory=dict)

    def diagnosis(self, batch: Any = None) -> Any:
        return diagnose(self.batch if batch is None else batch, self.base.tokenizer, **self.options)


def has_label(batch: Any) -> bool:
    batches = batch if isinstance(batch, list) else [batch]
    return all((torch.as_tensor(one["labels"]) != -100).any() for one in batches)


def healthy_examples(recipe: str, count: int, first_seed: int = 10_000) -> Iterator[Example]:
    """Healthy batches: at least one label, which a training loop that guards against nan keeps."""
    make, fixed = RECIPES[recipe]
    seed, made = first_seed, 0
    while made < count:
        seed += 1
        base = make_base(seed, **fixed)
        batch = make(base)
        if has_label(batch):
            made += 1
            yield Example(
                f"{recipe} {base.name}", batch, base, None, base.options if recipe in KNOWN else {}
            )


# Broken: the code that must come first, how a batch is broken, and on which batches that shows. ------


def labelled(base: Base, labels: Any, **more: Any) -> Any:
    return {**base.batch, "labels": labels, **more}


def ignored_by(value: Callable[[Base], int] | int) -> Callable[[Base], Any]:
    return lambda b: labelled(
        b, b.batch["labels"].where(b.chosen, value(b) if callable(value) else value)
    )


def renamed(name: str) -> Callable[[Base], Any]:
    return lambda b: {(name if key == "labels" else key): value for key, value in b.batch.items()}


def by(rate: float, mask: float = 0.8, rand: float = 0.1) -> Callable[[Base], Any]:
    return lambda b: b.masked((b.draw() < rate) & ~b.special, mask, rand)


def one_answer(base: Base) -> Any:
    word = base.original[~base.special][3]
    return labelled(base, base.batch["labels"].where(~base.chosen, word))


def odd(base: Base) -> torch.Tensor:
    ids = base.batch["input_ids"]
    return base.chosen & (ids != base.batch["labels"]) & (ids != base.tokenizer.mask_token_id)


def put(
    value: Callable[[Base], int], where: Callable[[Base], torch.Tensor]
) -> Callable[[Base], Any]:
    return lambda b: {**b.batch, "input_ids": b.batch["input_ids"].masked_fill(where(b), value(b))}


def specials_too(base: Base) -> Any:
    pads = base.original == base.tokenizer.pad_token_id
    chosen = (base.draw() < 0.3) & ~pads
    chosen[:, 0] = True
    return base.masked(chosen, 0.8, 0.1)


def one_mask_for_all(base: Base) -> Any:
    chosen = torch.rand(base.original.shape[1], generator=base.generator) < 0.25
    chosen[3:5] = True
    return base.masked(chosen & ~base.special)


def all_or_nothing(base: Base) -> Any:
    rows = (torch.arange(len(base.original)) % 5 == 2).unsqueeze(1)
    return base.masked(rows & ~base.special)


def other_side(base: Base) -> Any:
    pads = (base.batch["attention_mask"] == 0).sum(dim=1)
    left = {
        key: torch.stack([row.roll(int(n)) for row, n in zip(base.batch[key], pads, strict=True)])
        for key in ("input_ids", "attention_mask")
    }
    return labelled(base, base.batch["labels"], **left)


def spelled(base: Base) -> Any:
    kit = base.tokenizer
    word = "[MASK]" if kit.mask_token != "[MASK]" else "<mask>"
    ids = kit([f"brean {word} drain." for _ in range(4)], return_tensors="pt")["input_ids"]
    return {"input_ids": ids, "labels": torch.where(ids == kit.mask_token_id, ids, -100)}


def without_space(base: Base) -> Any:
    """A cloze, with convert_tokens_to_ids(word) as the answer at each blank."""
    kit, vocab = base.tokenizer, base.tokenizer.get_vocab()
    bare = [number for token, number in vocab.items() if vocab.keys() & {"Ġ" + token, "▁" + token}]
    one = functools.partial(sentences, 32, 3, 8, base.rng)
    texts = [f"{a.strip('.?')} {kit.mask_token} {b}" for a, b in zip(one(), one(), strict=True)]
    batch = dict(kit(texts, padding=True, return_tensors="pt"))
    answers = torch.tensor(base.rng.choices(bare, k=32)).unsqueeze(1)
    return {**batch, "labels": answers.where(batch["input_ids"] == kit.mask_token_id, -100)}


def shuffled(base: Base) -> Any:
    order = torch.randperm(len(base.original), generator=base.generator)
    return [base.batch, {key: value[order] for key, value in base.batch.items()}]


def aliased(base: Base) -> Any:
    """labels = input_ids without clone(); then masking in place, then -100."""
    return labelled(base, base.batch["input_ids"].masked_fill(~base.chosen, -100))


def unknown_text(base: Base) -> Any:
    lost = (base.draw() < 0.8) & ~base.special
    known = base.original.masked_fill(lost, base.tokenizer.unk_token_id)
    return labelled(
        base,
        known.where(base.chosen, -100),
        input_ids=known.masked_fill(base.chosen, base.tokenizer.mask_token_id),
    )


def pad_of(base: Base) -> int:
    return int(base.tokenizer.pad_token_id)


@dataclass(frozen=True)
class Defect:
    """How to break a batch, which finding must come first, and on which batches it shows."""

    code: str
    breaks: Callable[[Base], Any]
    sizes: dict[str, Any] = field(default_factory=dict)
    families: tuple[str, ...] = FAMILIES
    options: dict[str, Any] = field(default_factory=dict)
    name: str = ""


LARGE = {"rows": 16, "length": 48}
MIDDLE = {"rows": 8, "length": 24}
PADDED = MIDDLE | {"packed": False}
RANDOM = {
    "rows": 32,
    "length": 48,
    "shares": "80/20/0",
    "rate": 0.3,
    "way": "mask_tokens",
    "packed": False,
}
KNOWS = {"policy": MaskingPolicy()}
DEFECTS = [
    *(Defect("labels-misnamed", renamed(name), name=name) for name in ("masked_lm_labels", "lm_labels", "lables")),
    Defect("labels-missing", lambda b: {"input_ids": b.original}),
    Defect("dtype", lambda b: labelled(b, b.batch["labels"].float()), name="float labels"),
    Defect("dtype", lambda b: labelled(b, b.chosen), name="bool labels"),
    Defect("unreadable", lambda b: {**b.batch, "input_ids": [row[: 5 + i] for i, row in enumerate(b.original.tolist())]}, {"rows": 4, "length": 24}),
    Defect("shape", lambda b: labelled(b, b.batch["labels"][:, 1:-1].contiguous()), name="ends left out"),
    Defect("shape", lambda b: labelled(b, b.batch["labels"].T.contiguous()), {"rows": 4, "length": 24}, name="transposed"),
    Defect("shape", lambda b: {key: value[:, None] for key, value in b.batch.items()}, MIDDLE, name="a dimension too many"),
    Defect("shape", lambda b: {key: value[0] for key, value in b.batch.items()}, MIDDLE, name="no batch dimension"),
    Defect("shape", lambda b: labelled(b, torch.zeros(8).long()), MIDDLE, name="one label for each row"),
    Defect("labels-strided", lambda b: labelled(b, b.batch["labels"].T.contiguous().T), {"rows": 4}),
    Defect("ignore-minus-one", ignored_by(-1)),
    Defect("ignore-pad", ignored_by(pad_of), name="the padding id"),
    Defect("ignore-pad", ignored_by(0), MIDDLE, name="0"),
    Defect("ignore-pad", ignored_by(lambda b: b.tokenizer.mask_token_id), MIDDLE, name="the mask id"),
    Defect("ignore-pad", lambda b: labelled(b, b.batch["labels"].where(b.chosen | (b.batch["attention_mask"] == 0), 0)), PADDED, ENDS, name="0 on text, -100 on padding"),
    Defect("ignore-pad", lambda b: labelled(b, b.batch["labels"].where(b.batch["attention_mask"] == 1, 0)), PADDED, ("byte-bpe", "unigram"), name="-100 on text, 0 on padding"),
    Defect("labels-binary", lambda b: labelled(b, b.chosen.long()), name="0 and 1"),
    Defect("labels-binary", lambda b: labelled(b, b.chosen.long().where(~b.special, -100)), MIDDLE, name="0 and 1 beside -100"),
    Defect("label-out-of-range", ignored_by(-99), name="-99"),
    Defect("label-out-of-range", ignored_by(100_000), name="100,000"),
    Defect("input-out-of-range", put(lambda b: len(b.tokenizer) + 11, lambda b: b.chosen)),
    Defect("ignore-in-input", lambda b: labelled(b, b.original, input_ids=b.original.where(~b.chosen, -100))),
    Defect("nothing-labelled", lambda b: labelled(b, b.batch["labels"] * 0 - 100, input_ids=b.original), MIDDLE),
    Defect("foreign-mask", spelled, families=("wordpiece", "byte-bpe", "unigram", "pad-is-eos")),
    Defect("shifted", lambda b: labelled(b, b.original.roll(-1, dims=1).where(torch.arange(b.original.shape[1]) < b.original.shape[1] - 1, -100), input_ids=b.original), {"length": 24}, name="a causal model's"),
    Defect("shifted", lambda b: labelled(b, b.batch["labels"].roll(1, dims=1)), PADDED, name="one to the right"),
    Defect("shifted", lambda b: b.masked(b.chosen) | {"labels": b.original.roll(-1, dims=1).where(b.chosen, -100)}, MIDDLE, name="answers of the next token"),
    Defect("shifted", other_side, PADDED, ENDS, name="padded on the other side"),
    Defect("inverted", lambda b: labelled(b, b.original.where(~b.chosen, -100)), MIDDLE),
    Defect("everything-labelled", lambda b: labelled(b, b.original.clone(), input_ids=b.original), {"length": 12}, name="labels = inputs, nothing masked"),
    Defect("everything-labelled", lambda b: labelled(b, b.original.clone()), MIDDLE, name="labels = inputs before masking"),
    Defect("everything-labelled", lambda b: labelled(b, b.batch["input_ids"]), MIDDLE, name="labels = inputs after masking"),
    Defect("label-is-mask", aliased, {"rows": 8}),
    Defect("padding-labelled", lambda b: labelled(b, b.batch["labels"].where(b.batch["attention_mask"] == 1, pad_of(b))), PADDED, ENDS),
    Defect("label-hidden", lambda b: {**b.batch, "attention_mask": (b.batch["input_ids"] != b.tokenizer.mask_token_id).long()}, {"rows": 8, "packed": False}, name="0 at the masks"),
    Defect("label-hidden", lambda b: {**b.batch, "attention_mask": 1 - b.batch["attention_mask"]}, PADDED, ENDS, name="upside down"),
    Defect("special-labelled", specials_too, MIDDLE, ENDS),
    Defect("mask-without-label", lambda b: labelled(b, b.batch["labels"].where(b.draw() < 0.5, -100)), LARGE, name="half dropped"),
    Defect("mask-without-label", lambda b: labelled(b, b.batch["labels"].roll(3, dims=0)), LARGE | {"shares": "100/0/0"}, name="labels of other rows"),
    Defect("mostly-unknown", unknown_text, LARGE | {"way": "mask_tokens"}, ("wordpiece", "byte-bpe", "unigram")),
    Defect("one-answer", one_answer, LARGE, FAMILIES[:3]),
    Defect("word-without-space", without_space, families=("byte-bpe", "unigram")),
    Defect("whole-rows", all_or_nothing, LARGE),
    Defect("partial-word", by(0.3, 1.0, 0.0), LARGE | {"packed": False}, FAMILIES[:3], {"whole_word": True}),
    Defect("constant-replacement", put(lambda b: 103, lambda b: b.batch["input_ids"] == b.tokenizer.mask_token_id), LARGE, FAMILIES[:3], name="the mask id of another tokenizer"),
    Defect("constant-replacement", put(lambda b: 99, odd), RANDOM, FAMILIES[:3], name="one random token"),
    Defect("never-replaced", lambda b: {**b.batch, "input_ids": b.original}, LARGE),
    Defect("replacement-shares", by(0.15, 0.1, 0.8), LARGE, options=KNOWS, name="10/80/10"),
    Defect("replacement-shares", by(0.15, 0.45, 0.1), LARGE, options=KNOWS, name="45/10/45"),
    Defect("selection-low", by(0.03), LARGE | {"rows": 32}, options=KNOWS),
    Defect("selection-high", by(0.4), LARGE, options=KNOWS),
    Defect("random-special", put(pad_of, odd), RANDOM, FAMILIES[:3]),
    Defect("same-mask-rows", one_mask_for_all, LARGE),
    Defect("same-mask-epochs", shuffled, LARGE),
    Defect("padding-attended", lambda b: {**b.batch, "attention_mask": torch.ones_like(b.original)}, PADDED, ENDS),
]  # fmt: skip


def broken_examples(rounds: int = 3, first_seed: int = 50_000) -> Iterator[Example]:
    """Each defect on ``rounds`` batches of different family, size, rate and recipe."""
    for number, defect in enumerate(DEFECTS):
        for turn in range(rounds):
            family = defect.families[(number + turn) % len(defect.families)]
            seed = first_seed + 1000 * number + turn
            base = make_base(seed, family=family, **defect.sizes)
            while not base.chosen.any():  # a short text may get no label
                seed += 31
                base = make_base(seed, family=family, **defect.sizes)
            name = f"{defect.code} {defect.name} {base.name}"
            yield Example(name, defect.breaks(base), base, defect.code, defect.options)


def cured(example: Example) -> bool | None:
    """Whether the fixes, one after the other, lead to sound labels; ``None`` if there is no code."""
    base, batch, original = example.base, copy.deepcopy(example.batch), example.base.original
    names = {"original": original, "tokenizer": base.tokenizer}
    names["word_ids"] = Case({"input_ids": original}, base.tokenizer).words
    names["texts"] = ["brean [MASK] drain.", "brean <mask> drain."] * 2
    found: list[Any] = []
    for _ in range(6):
        found = [f for f in example.diagnosis(batch).findings if f.severity != "info"]
        if not found:
            break
        if "`" not in found[0].fix:
            return None
        batch = run_fix(found[0].fix, {**names, "batch": batch})["batch"]
        if example.code == "foreign-mask":
            return bool((batch["input_ids"] == base.tokenizer.mask_token_id).any())
    if found:
        return False
    if isinstance(batch, list) or torch.as_tensor(batch["input_ids"]).shape != original.shape:
        return True  # the fix is about the form of the batch
    labels = torch.as_tensor(batch["labels"])
    scored = labels != -100
    return bool(scored.any()) and bool((labels == original)[scored].all())
