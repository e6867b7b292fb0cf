"""Turn the gathered text into rows of token ids, and mask them.

Two kinds of rows, because readers type short sentences but long text teaches more:

- *packed*: ``[CLS]`` + 62 ids that start at a sentence and run on + ``[SEP]``, width 64;
- *sentence*: ``[CLS]`` + one sentence + ``[SEP]`` + ``[PAD]``..., width 12 to 32.

A batch has nearly the same number of positions in each width (64 x 64, 128 x 32, ... by default).
Batch number `step` depends on the seed and on `step` only, so that the step count is all that a
resumed run needs to know about its place in the data.

Masking is the one of BERT (Devlin et al. 2019, section 3.1): 15 % of the positions are selected;
of these 80 % become ``[MASK]``, 10 % a random token and 10 % stay.
"""

import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from tokenizers import BertWordPieceTokenizer

from tools.pretrain.gather import SENTENCE_END, SOURCES, atomic

PAD, CLS, SEP, MASK = 0, 101, 102, 103
FIRST_WORD = 999  # below: special and unused entries of the vocabulary
SENTENCE_ENDS = (999, 1012, 1029)  # ! . ?
IGNORE_INDEX = -100
PACKED_WIDTH, SENTENCE_WIDTHS = 64, (12, 16, 24, 32)
HELD_OUT = 100  # one line in so many is kept aside

SENTENCE_SHARE = 0.5  # of the batches

Ids = NDArray[np.int64]


@dataclass
class Part:
    """One source, train or held-out: `stream` (tokens,) uint16, `starts` (sentences + 1,) int64."""

    stream: NDArray[np.uint16]
    starts: NDArray[np.int64]

    def sentences(self, width: int) -> NDArray[np.int64]:
        """Return the numbers of the whole sentences that fit `width` but no smaller width."""
        lengths = np.diff(self.starts)
        smaller = max([w for w in SENTENCE_WIDTHS if w < width], default=0)
        fits = (lengths <= width - 2) & (lengths > max(smaller - 2, 3))
        ends = np.isin(self.stream[np.maximum(self.starts[1:] - 1, 0)], SENTENCE_ENDS)
        return np.flatnonzero(fits & ends)


def is_held_out(line: str) -> bool:
    """Say whether `line` is kept aside; depends on the line only, so that a copy is too."""
    return zlib.crc32(line.encode()) % HELD_OUT == 0


def tokenize(lines: list[str], vocab: Path) -> Part:
    """Tokenize `lines` sentence by sentence into one stream."""
    tokenizer = BertWordPieceTokenizer(str(vocab), lowercase=True)
    sentences = [s for line in lines for s in SENTENCE_END.split(line)]
    encoded = tokenizer.encode_batch(sentences, add_special_tokens=False)
    ids = [e.ids for e in encoded if e.ids]
    starts = np.cumsum([0] + [len(i) for i in ids]).astype(np.int64)
    stream = np.array([t for i in ids for t in i], dtype=np.uint16)
    return Part(stream, starts)


def load_corpus(data: Path, cache: Path) -> dict[str, dict[str, Part]]:
    """Return {source: {"train": Part, "held_out": Part}}; tokenized once, kept in `cache`."""
    texts = sorted((data / "text").glob("*.txt"))
    if not texts:
        raise FileNotFoundError(f"no text in {data / 'text'}: run gather.py first")
    newest = max(path.stat().st_mtime for path in texts)
    if not cache.exists() or cache.stat().st_mtime < newest:
        arrays: dict[str, NDArray[Any]] = {}
        for path in texts:
            lines = path.read_text(encoding="utf-8").splitlines()
            for name, wanted in (("train", False), ("held_out", True)):
                chosen = [line for line in lines if is_held_out(line) == wanted]
                part = tokenize(chosen, data / "base" / "vocab.txt")
                arrays[f"{path.stem}.{name}.stream"] = part.stream
                arrays[f"{path.stem}.{name}.starts"] = part.starts
        with atomic.replacement(cache) as new:
            save_file(arrays, new)
    arrays = load_file(cache)
    return {
        path.stem: {
            name: Part(arrays[f"{path.stem}.{name}.stream"], arrays[f"{path.stem}.{name}.starts"])
            for name in ("train", "held_out")
        }
        for path in texts
    }


def mask(ids: Ids, rng: np.random.Generator, vocab_size: int) -> tuple[Ids, Ids]:
    """Select and replace positions of `ids`; return (inputs, labels), both shaped like `ids`.

    ``[PAD]``, ``[CLS]`` and ``[SEP]`` are never selected, and a random token is never special.
    Labels are the original ids where selected, -100 elsewhere.
    """
    selected = (rng.random(ids.shape) < 0.15) & ~np.isin(ids, (PAD, CLS, SEP))
    labels = np.where(selected, ids, IGNORE_INDEX)
    fate = rng.random(ids.shape)
    random_ids = rng.integers(FIRST_WORD, vocab_size, ids.shape)
    inputs = np.where(selected & (fate < 0.8), MASK, ids)
    inputs = np.where(selected & (fate >= 0.8) & (fate < 0.9), random_ids, inputs)
    return inputs, labels


class Batches:
    """The training batches: ``batches[step]`` -> (inputs, labels), each (rows, width) int64."""

    def __init__(self, parts: dict[str, Part], vocab_size: int, positions: int, seed: int) -> None:
        self.vocab_size, self.positions, self.seed = vocab_size, positions, seed
        self.parts = list(parts.values())
        shares = np.array([SOURCES[name]["share"] for name in parts], dtype=float)
        long_enough = np.array([len(p.stream) >= PACKED_WIDTH - 2 for p in self.parts])
        self.packed = shares[:, 0] * long_enough
        self.fitting = {w: [p.sentences(w) for p in self.parts] for w in SENTENCE_WIDTHS}
        self.short = {
            w: shares[:, 1] * [len(numbers) > 0 for numbers in self.fitting[w]]
            for w in SENTENCE_WIDTHS
        }
        self.widths = [w for w in SENTENCE_WIDTHS if self.short[w].any()]

    def rows(self, step: int) -> tuple[Ids, np.random.Generator]:
        """Return the unmasked rows of batch `step`, and the generator that drew them."""
        rng = np.random.default_rng([self.seed, step])
        width = PACKED_WIDTH
        if rng.random() < SENTENCE_SHARE and self.widths:
            width = int(rng.choice(self.widths))
        weights = self.packed if width == PACKED_WIDTH else self.short[width]
        count = self.positions // width
        ids = np.zeros((count, width), dtype=np.int64)
        sources = rng.choice(len(weights), count, p=weights / weights.sum())
        for row, source in zip(ids, sources, strict=True):
            part = self.parts[source]
            if width == PACKED_WIDTH:
                drawn = rng.integers(len(part.stream))
                start = part.starts[np.searchsorted(part.starts, drawn, "right") - 1]
                at = min(int(start), len(part.stream) - (width - 2))
                piece = part.stream[at : at + width - 2]
            else:
                number = rng.choice(self.fitting[width][source])
                piece = part.stream[part.starts[number] : part.starts[number + 1]]
            row[0], row[1 : len(piece) + 1], row[len(piece) + 1] = CLS, piece, SEP
        return ids, rng

    def __getitem__(self, step: int) -> tuple[Ids, Ids]:
        """Return batch number `step`, masked."""
        ids, rng = self.rows(step)
        return mask(ids, rng, self.vocab_size)


def held_out_rows(part: Part, vocab_size: int) -> tuple[Ids, Ids]:
    """Return all of `part` as packed rows with masks that are the same at each call."""
    body = PACKED_WIDTH - 2
    count = -(-len(part.stream) // body)
    ids = np.zeros((count, PACKED_WIDTH), dtype=np.int64)
    for row, at in zip(ids, range(0, len(part.stream), body), strict=True):
        piece = part.stream[at : at + body]
        row[0], row[1 : len(piece) + 1], row[len(piece) + 1] = CLS, piece, SEP
    return mask(ids, np.random.default_rng([0, 1, 2, 3]), vocab_size)


def token_counts(parts: dict[str, Part], vocab_size: int) -> NDArray[np.float64]:
    """Return how often each token occurs, plus one; shape (vocab_size,)."""
    counts = np.ones(vocab_size)
    for part in parts.values():
        counts += np.bincount(part.stream, minlength=vocab_size)
    return counts
