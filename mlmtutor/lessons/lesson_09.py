"""Lesson 09, score sentences: its exercises and figures."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from mlmtutor.figure import COLOURS, PALE, Figure, box, drawing, figure, finish, plain
from mlmtutor.labels import IGNORE_INDEX
from mlmtutor.lessons.exercise import CHANGED, exercise


def diagonal(
    ids: torch.Tensor, positions: torch.Tensor, mask_id: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return one row for each position, hidden there, and the labels of the rows."""
    rows = torch.arange(len(positions))
    batch = ids.repeat(len(positions), 1)
    labels = torch.full_like(batch, IGNORE_INDEX)
    labels[rows, positions] = batch[rows, positions]
    batch[rows, positions] = mask_id
    return batch, labels


def small_berts(language: torch.Tensor) -> tuple[Any, Any]:
    """Return a causal and a masked BERT that have learned a language of a few short sentences."""
    from transformers import BertConfig, BertForMaskedLM, BertLMHeadModel

    small: dict[str, Any] = {"num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 6}
    small |= {"hidden_size": 16, "intermediate_size": 32, "initializer_range": 0.2}
    torch.manual_seed(0)
    causal = BertLMHeadModel(BertConfig(**small, pad_token_id=None, is_decoder=True)).eval()
    masked = BertForMaskedLM(BertConfig(**small, pad_token_id=None)).eval()
    places = torch.arange(1, language.shape[1])
    rows, answers = zip(*(diagonal(ids, places, mask_id=1) for ids in language), strict=True)
    for model, ids, labels in (
        (causal, language[:, :-1], language[:, 1:]),  # the next token
        (masked, torch.cat(rows), torch.cat(answers)),  # the diagonal of each sentence
    ):
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        for _ in range(60):
            optimizer.zero_grad()
            cross_entropy(model(ids).logits.transpose(1, 2), labels).backward()
            optimizer.step()
    return causal, masked


def _exp(scores):
    """Return exp of minus the mean over what is given: log-probabilities."""
    return math.exp(-sum(scores) / len(scores))


def _flat(scores):
    return [value for sentence in scores for value in sentence]


@exercise(
    lambda: [
        ([[-1.0, -2.0, -3.0, -1.5], [-5.0]],),
        ([[-0.5, -2.25], [-1.0, -0.25, -3.5, -2.0, -0.75], [-4.0]],),
    ],
    says="exp(12.5 / 5) = 12.18: five tokens, and each counts once.",
    of=lambda scores: (scores, _flat(scores)),
)
def check_corpus_perplexity(scores):
    """corpus_perplexity(scores): exp of the mean of -log p over the tokens of all sentences."""
    return _exp(_flat(scores))


check_corpus_perplexity.wrong |= {
    "That is the mean of the perplexities of the sentences. A token of a short sentence counts "
    "more there than a token of a long one.":
        lambda scores, flat: sum(map(_exp, scores)) / len(scores),
    "That is exp of the mean of the means of the sentences. Take one mean over all tokens.":
        lambda scores, flat: _exp([sum(row) / len(row) for row in scores]),
    "You divide by the number of sentences. Divide by the number of tokens.":
        lambda scores, flat: _exp([sum(row) for row in scores]),
    "The sign is missing: that is exp(total / n), which is below 1.":
        lambda scores, flat: 1 / _exp(flat),
    "That is the mean of -log p, the loss. The pseudo-perplexity is exp of it.":
        lambda scores, flat: math.log(_exp(flat)),
    "You raise 2 to the loss. The log-probabilities are natural logarithms, so it is e.":
        lambda scores, flat: 2 ** math.log(_exp(flat)),
    "You take exp of the total. Divide the total by the number of tokens first.":
        lambda scores, flat: math.exp(-sum(flat)),
    CHANGED: lambda scores, flat: _exp(flat) + 0 * len(scores.pop()),
    "That is one number for each sentence. Return one for all of them together.":
        lambda scores, flat: torch.tensor([_exp(row) for row in scores]),
}  # fmt: skip


@exercise(
    lambda: [([None, 0, 1, 1, 1, 2, None],), ([None, 0, 0, 1, 2, 2, 3, None, None],)],
    says="Each row hides its token and the later pieces of the word, and nothing else.",
    returns=("matrix",),
    hint="It has a row for each token that is scored, and a column for each position.",
)
def check_hidden_with_word(word_ids, hide=lambda i, j, same: same and j >= i, rows=None):
    """hidden_with_word(word_ids): True at a token and the later pieces of its word."""
    rows = [i for i, word in enumerate(word_ids) if word is not None] if rows is None else rows
    columns = range(len(word_ids))
    return torch.tensor([[hide(i, j, word_ids[i] == word_ids[j]) for j in columns] for i in rows])


_matrix = check_hidden_with_word.right
check_hidden_with_word.wrong |= {
    "One token is hidden in each row, and the later pieces of its word give it away. Hide them "
    "too.": lambda ids: _matrix(ids, lambda i, j, same: i == j),
    "The whole word is hidden in each row. The pieces before the one that is scored stay visible.":
        lambda ids: _matrix(ids, lambda i, j, same: same),
    "You hide the earlier pieces of the word. Hide the later ones.":
        lambda ids: _matrix(ids, lambda i, j, same: same and j <= i),
    "The later pieces are hidden, and the scored one is visible: the model reads the answer.":
        lambda ids: _matrix(ids, lambda i, j, same: same and j > i),
    "Everything from the scored token on is hidden. Only its own word is.":
        lambda ids: _matrix(ids, lambda i, j, same: j >= i),
    "You hide one later piece. A word can have more; hide all of them.":
        lambda ids: _matrix(ids, lambda i, j, same: same and i <= j <= i + 1),
    "Your matrix is the wrong way round: True is for what is hidden.":
        lambda ids: _matrix(ids, lambda i, j, same: not (same and j >= i)),
    "Your matrix has a row for each position. A special token is not scored, so it has no row.":
        lambda ids: _matrix(ids, rows=range(len(ids))),
    "Your matrix leaves out special tokens among the columns too. It needs a column for each "
    "position, because the model reads special tokens as well.":
        lambda ids: _matrix(ids)[:, [i for i, word in enumerate(ids) if word is not None]],
    "Your matrix has dtype torch.int64, and should have torch.bool: `torch.where` and indexing "
    "take 0 and 1 for numbers.": lambda ids: _matrix(ids, lambda i, j, same: int(same and j >= i)),
}  # fmt: skip


def hidden_diagonal(tokens: Sequence[str], log_p: Sequence[float]) -> Figure:
    """F12: the batch that scores a sentence, one row for each token, hidden there, and its -log p.

    ``tokens`` begin with [CLS] and end with [SEP]; ``log_p`` are those of the tokens between.
    """
    n, wide, edge, total = len(log_p), 7.4, 0.76, -sum(log_p)
    canvas, axes = drawing(wide, 0.5 * (n + 2), size=(7.4, 0.46 * (n + 2)))
    left, scale = edge * len(tokens) + 0.12, 0.55 / max(-min(log_p), 1e-6)
    bold: dict[str, Any] = {"va": "center", "fontsize": 13, "weight": "bold"}
    axes.text(left, 0.25, "label, −log p", color=COLOURS["scored"], **bold)
    axes.text(wide, 0.5 * (n + 1.6), f"sum {total:.2f}", ha="right", **bold)
    told = []
    for row, (label, value) in enumerate(zip(tokens[1:-1], log_p, strict=True)):
        y = 0.5 * (row + 1)
        for column, token in enumerate(tokens):
            hidden = column == row + 1
            box(axes, column * edge, y, "[MASK]" if hidden else token, width=edge, height=0.5,
                fill=COLOURS["replaced"] if hidden else PALE, fontsize=12)  # fmt: skip
        axes.barh(y + 0.25, -value * scale, 0.3, left=left, color=COLOURS["scored"])
        told.append(f"{label} {-value + 0.0:.2f}")
        axes.text(left + 0.06 - value * scale, y + 0.25, plain(told[-1]), va="center", fontsize=12)
    return finish(canvas, alt=f"A table of {n} rows of the same {len(tokens)} tokens, with [MASK] "
        f"moving down the diagonal. −log p at the end of the rows: {', '.join(told)}. They add up "
        f"to {total:.2f}.",
        caption="Each row hides one token, and that token is its only label.")  # fmt: skip


def pair_gaps(pairs: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw by how much (``gap``, in nats) the right sentence of each pair is preferred."""
    kinds = list(dict.fromkeys(pair["kind"] for pair in pairs))
    misses = sorted((pair for pair in pairs if pair["gap"] <= 0), key=lambda pair: pair["gap"])
    canvas, axes = figure(size=(7.2, 2.6 + 0.3 * len(misses)))
    axes.axvline(0, color=COLOURS["ignored"], linewidth=1)
    words = []
    for row, kind in enumerate(kinds):
        gaps = sorted(pair["gap"] for pair in pairs if pair["kind"] == kind)
        for number, gap in enumerate(gaps):  # dots of about the same gap stand side by side
            mark, colour = ("o", "right") if gap > 0 else ("s", "wrong")
            y = row + 0.12 * (number % 5 - 2)
            axes.plot(gap, y, mark, color=COLOURS[colour], alpha=0.8, markersize=5)
        words.append(f"{kind}: {sum(gap > 0 for gap in gaps)} of {len(gaps)}")
    for row, pair in enumerate(misses):
        y = len(kinds) + 0.1 + 0.42 * row
        axes.plot(pair["gap"], y, "s", color=COLOURS["wrong"], markersize=5)
        axes.text(0.7, y, pair["bad"], va="center", fontsize=13, color=COLOURS["wrong"])
    axes.set_yticks(range(len(kinds)), [word.replace(": ", "\n") for word in words], fontsize=13)
    axes.set_ylim(len(kinds) + 0.42 * len(misses), -1.0)
    axes.text(0.4, -0.75, "right sentence preferred", color=COLOURS["right"], fontsize=13)
    axes.text(-0.4, -0.75, "wrong one", ha="right", color=COLOURS["wrong"], fontsize=13)
    axes.set_xlabel("score of the right sentence less that of the wrong one (nats)", fontsize=12)
    return finish(canvas, alt="One dot for each pair. The right sentence has the higher score in "
f"{', '.join(words)}. Preferred though wrong: {' '.join(pair['bad'] for pair in misses) or 'none'}",
        caption="How much the model prefers the right sentence of each pair. Squares: it prefers "
        "the wrong one, which is written out below.")  # fmt: skip
