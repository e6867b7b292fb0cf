"""Checkers of the exercises: each accepts a right answer and names the mistake in a wrong one.

A checker calls your function on small inputs, compares what comes back with the right answer and,
where they differ, with what the usual mistakes give. ``tests/mistakes.py`` holds the mistakes
that each checker must tell apart.
"""

import functools
import math
import types
from collections.abc import Callable
from typing import Any

import torch


class WrongAnswer(AssertionError):
    """The answer to an exercise is wrong; the message says how."""

    def _render_traceback_(self) -> list[str]:
        """Tell IPython to show the message alone: the frames of the checker teach nothing."""
        return [f"✗ {self}"]


def _checker(check: Callable[[Callable[..., Any]], str]) -> Callable[[Callable[..., Any]], None]:
    """Turn ``check``, which returns what a right answer proves, into what a lesson calls."""

    @functools.wraps(check)
    def run(answer: Callable[..., Any]) -> None:
        if not callable(answer):
            raise TypeError(
                f"answer must be your function, but is a {type(answer).__name__}: pass its name, "
                "without calling it."
            )
        raised: list[BaseException] = []  # by the function of the reader, not by the checker
        returned: list[object] = []

        @functools.wraps(answer)
        def watched(*arguments: Any, **options: Any) -> Any:
            try:
                returned.append(answer(*arguments, **options))
            except BaseException as error:
                raised.append(error)
                raise
            return returned[-1]

        try:
            proven = check(watched)
        except NotImplementedError:
            print("Not written yet: put your answer in place of `raise NotImplementedError`.")
        except Exception as error:
            if isinstance(error, WrongAnswer) or error in raised or not returned:
                raise
            raise WrongAnswer(
                f"Your function returns a {type(returned[-1]).__name__} that cannot be checked "
                f"({type(error).__name__}: {error}). What it must return stands in its docstring."
            ) from error
        else:
            print(f"✓ {proven}")

    return run


def _tensor_like(answer: object, expected: torch.Tensor, name: str) -> torch.Tensor:
    """Return ``answer`` if it is an int64 tensor of the shape of ``expected``."""
    if not isinstance(answer, torch.Tensor):
        raise WrongAnswer(
            f"Your function returns {type(answer).__name__}, not a tensor. Return {name} as a "
            f"tensor of shape {tuple(expected.shape)}."
        )
    if answer.shape != expected.shape:
        raise WrongAnswer(
            f"Your {name} have shape {tuple(answer.shape)}, and the input has shape "
            f"{tuple(expected.shape)}. There is one label for each position, ignored ones too."
        )
    if answer.dtype != torch.int64:
        raise WrongAnswer(
            f"Your {name} have dtype {answer.dtype}. The loss takes token ids, which are "
            "torch.int64 (torch.long)."
        )
    return answer


# Lesson 01


@_checker
def check_labels_for_masked(labels_for_masked: Callable[..., torch.Tensor]) -> str:
    """Check ``labels_for_masked(input_ids, original_ids, mask_token_id)`` of lesson 01."""
    mask = 103
    original = torch.tensor(
        [
            [101, 1045, 2215, 2000, 2689, 1996, 2088, 102],
            [101, 2016, 4149, 1996, 2482, 1012, 102, 0],
        ]
    )
    masked = torch.zeros_like(original, dtype=torch.bool)
    masked[0, 4] = masked[1, 1] = masked[1, 4] = True
    input_ids = original.masked_fill(masked, mask)
    expected = original.masked_fill(~masked, -100)

    given = input_ids.clone(), original.clone()
    labels = labels_for_masked(*given, mask)
    if not (torch.equal(given[0], input_ids) and torch.equal(given[1], original)):
        raise WrongAnswer(
            "Your function changes a tensor that it was given: the caller's ids are lost. Work on "
            "a copy (`original_ids.clone()`, `torch.where`, `masked_fill`)."
        )
    labels = _tensor_like(labels, expected, "labels")
    if torch.equal(labels, expected):
        return "Labelled positions hold the original id, all others -100, and no input changed."
    if (labels[masked] == mask).all():
        raise WrongAnswer(
            "The label at a masked position is 103, the id of [MASK]: the model would learn to "
            "answer [MASK]. The label is the token that stood there before."
        )
    if torch.equal(labels, original):
        raise WrongAnswer(
            "Every position has its id as label, so every position is scored. Where nothing was "
            "masked the label is -100."
        )
    if torch.equal(labels.roll(1, -1)[masked], expected[masked]):
        raise WrongAnswer(
            "Your labels are shifted by one position. In a masked language model the label "
            "stands at the position that it scores."
        )
    if (labels[masked] == -100).all():
        raise WrongAnswer(
            "Your labels are the wrong way round: -100 stands at the masked positions, which are "
            "the ones to score, and ids stand at the others."
        )
    others = labels[~masked].unique()
    if torch.equal(labels[masked], expected[masked]) and len(others) == 1:
        raise WrongAnswer(
            f"The other positions hold {int(others[0])}, and the loss leaves out -100 alone: "
            "any other value is taken for the id of a token."
        )
    row, column = (labels != expected).nonzero()[0].tolist()
    raise WrongAnswer(
        f"The label at row {row}, position {column} is {int(labels[row, column])}, and it should "
        f"be {int(expected[row, column])}."
    )


@_checker
def check_surprise(surprise: Callable[..., float]) -> str:
    """Check ``surprise(model, tokenizer, sentence, word)`` of lesson 01."""
    from mlmtutor.model import load_tutor

    model, tokenizer = load_tutor()
    sentence, word = "She poured a cup of [MASK].", "tea"
    inputs = tokenizer(sentence, return_tensors="pt")
    label = tokenizer.convert_tokens_to_ids(word)
    with torch.no_grad():
        logits = model(**inputs).logits[0]
    log_p = logits.log_softmax(-1)
    position = inputs["input_ids"][0].tolist().index(tokenizer.mask_token_id)
    right = -float(log_p[position, label])
    everywhere = inputs["input_ids"][0].clone()
    everywhere[position] = label
    of_all = -float(log_p.gather(1, everywhere.unsqueeze(1)).mean())
    mistakes = {
        float(log_p[position, label]): "That is log p(word). The loss is minus that: a small "
        "probability gives a large loss.",
        math.exp(-right): "That is the probability of the word. The loss is minus its logarithm.",
        right / math.log(2): "That is -log p(word) in base 2. The loss uses the natural logarithm.",
        -float(log_p[position, tokenizer.mask_token_id]): "That is the loss of the label 103: the "
        "id of [MASK] itself. The label is the id of the word.",
        of_all: "That is the mean over every position of the sentence. Set the label of all "
        "positions but the masked one to -100.",
        -float(logits[position, label]): "That is minus the logit. A logit is no log probability "
        "before the softmax.",
    }
    answer = surprise(model, tokenizer, sentence, word)
    if answer is None:
        raise WrongAnswer(
            "Your function returns None. Either it has no `return`, or the loss is None: "
            "transformers 5 swallows an argument that it does not know, such as "
            "`masked_lm_labels`. The argument is `labels`."
        )
    if math.isclose(float(answer), right, abs_tol=1e-4):
        return f"-log p({word}) = {right:.2f} at the masked position, and nothing else is scored."
    for value, message in mistakes.items():
        if math.isclose(float(answer), value, abs_tol=1e-4):
            raise WrongAnswer(message)
    raise WrongAnswer(f"Your function returns {float(answer):.4f}; -log p({word}) is {right:.4f}.")


# Lesson 02


def _two_tensors(
    answer: object, first: str, second: str, shape: tuple[int, ...], why: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the two int64 tensors of one shape that ``answer`` must be."""
    if not isinstance(answer, tuple) or len(answer) != 2:
        raise WrongAnswer(
            f"Your function returns {type(answer).__name__}. It should return two tensors: "
            f"`return {first}, {second}`."
        )
    for name, tensor in zip((first, second), answer, strict=True):
        if not isinstance(tensor, torch.Tensor):
            raise WrongAnswer(f"{name} is a {type(tensor).__name__}, and should be a tensor.")
        if tuple(tensor.shape) != shape:
            raise WrongAnswer(f"{name} has shape {tuple(tensor.shape)}, not {shape}. {why}")
        if tensor.dtype != torch.int64:
            raise WrongAnswer(
                f"{name} has dtype {tensor.dtype}, and should have torch.int64 (torch.long), as "
                "the tensors of the tokenizer do."
            )
    return answer


@_checker
def check_pad_rows(pad_rows: Callable[..., tuple[torch.Tensor, torch.Tensor]]) -> str:
    """Check ``pad_rows(rows, pad_token_id)`` of lesson 02."""
    pad = 1  # not the 0 of BERT: in RoBERTa's vocabulary, <pad> has the id 1
    rows = [[101, 2009, 7771, 1012, 102], [101, 4937, 102]]
    ids = torch.tensor([rows[0], [*rows[1], pad, pad]])
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])

    given = [list(row) for row in rows]
    answer = pad_rows(given, pad)
    if given != rows:
        raise WrongAnswer(
            "Your function changes the lists that it was given: the caller's rows have grown. "
            "Make new lists (`row + [...]`), or fill a new tensor."
        )
    input_ids, attention_mask = _two_tensors(
        answer,
        "input_ids",
        "attention_mask",
        tuple(ids.shape),
        "There are as many columns as the longest row has ids: no id is lost, and no column is "
        "padding alone.",
    )
    if torch.equal(input_ids, ids) and torch.equal(attention_mask, mask):
        return "Each row keeps its ids, and attention_mask is 1 at them and nowhere else."
    if torch.equal(input_ids, mask) and torch.equal(attention_mask, ids):
        raise WrongAnswer("The two tensors are exchanged: input_ids comes first.")
    if input_ids[1].tolist() == [pad, pad, *rows[1]]:
        raise WrongAnswer(
            "Your short row stands at the right edge. The positions of BERT are counted from the "
            "left, and [CLS] has always been at position 0: pad on the right."
        )
    padding = input_ids[mask == 0].unique()
    if torch.equal(input_ids[mask == 1], ids[mask == 1]) and padding.tolist() != [pad]:
        raise WrongAnswer(
            f"The padding holds {int(padding[0])}. It should hold pad_token_id, which is {pad} "
            "here: not every vocabulary has [PAD] at the same place."
        )
    if torch.equal(input_ids, ids) and torch.equal(attention_mask, 1 - mask):
        raise WrongAnswer(
            "Your attention_mask is the wrong way round: 1 says that there is text to read, and "
            "0 stands at the padding."
        )
    if torch.equal(input_ids, ids) and (attention_mask == 1).all():
        raise WrongAnswer(
            "Your attention_mask is 1 everywhere: the model would read the padding as if it were "
            "text."
        )
    name, found, right = "input_ids", input_ids, ids
    if torch.equal(input_ids, ids):
        name, found, right = "attention_mask", attention_mask, mask
    row, column = (found != right).nonzero()[0].tolist()
    raise WrongAnswer(
        f"{name} at row {row}, position {column} is {int(found[row, column])}, and it should be "
        f"{int(right[row, column])}."
    )


@_checker
def check_mask_word(mask_word: Callable[..., tuple[torch.Tensor, torch.Tensor]]) -> str:
    """Check ``mask_word(tokenizer, sentence, word)`` of lesson 02."""
    from mlmtutor.model import load_tutor

    _, tokenizer = load_tutor()
    _check_masked_word(mask_word, tokenizer, "She poured a cup of tea.", "tea")
    _check_masked_word(mask_word, tokenizer, "Snow fell on our snowman.", "snowman")
    _check_masked_word(mask_word, tokenizer, "Bookshops open late.", "Bookshops")
    return "Every piece of the word is hidden and labelled, and nothing else is."


def _check_masked_word(
    mask_word: Callable[..., tuple[torch.Tensor, torch.Tensor]],
    tokenizer: Any,
    sentence: str,
    word: str,
) -> None:
    encoded = tokenizer(sentence, return_offsets_mapping=True, return_tensors="pt")
    ids = encoded["input_ids"]
    first, last = encoded["offset_mapping"].unbind(-1)
    start = sentence.index(word)
    inside = (first >= start) & (last <= start + len(word)) & (first < last)
    mask, pieces = tokenizer.mask_token_id, int(inside.sum())
    where = f"In {sentence!r}, {word!r} has {pieces} piece{'' if pieces == 1 else 's'}"

    answer = mask_word(tokenizer, sentence, word)
    input_ids, labels = _two_tensors(
        answer,
        "input_ids",
        "labels",
        tuple(ids.shape),
        f"{where}, and the sentence has {ids.shape[1]} ids, [CLS] and [SEP] among them: each "
        "keeps its position in one row, and each piece of the word becomes one [MASK].",
    )
    if torch.equal(input_ids, ids):
        raise WrongAnswer(
            "Nothing is hidden: input_ids holds no [MASK]. The labels do not hide a word, the "
            "input does."
        )
    hidden = input_ids == mask
    if (inside & ~hidden).any():
        missed = tokenizer.convert_ids_to_tokens(input_ids[inside & ~hidden].tolist())
        raise WrongAnswer(f"{where}, and the model can still read {' '.join(missed)}.")
    if (hidden & ~inside).any():
        position = int((hidden & ~inside)[0].nonzero()[0])
        lost = tokenizer.convert_ids_to_tokens(int(ids[0, position]))
        raise WrongAnswer(
            f"{lost!r} at position {position} of {sentence!r} is hidden too, and does not belong "
            f"to {word!r}. Ids do not say which word they come from; offsets do."
        )
    if not torch.equal(input_ids, ids.masked_fill(inside, mask)):
        raise WrongAnswer("input_ids has changed at a position that does not belong to the word.")
    if torch.equal(labels, ids.masked_fill(~inside, -100)):
        return
    if torch.equal(labels, ids.masked_fill(inside, -100)):
        raise WrongAnswer(
            "Your labels are the wrong way round: -100 stands at the pieces of the word, which "
            "are the ones to score."
        )
    if (labels[inside] == mask).all():
        raise WrongAnswer(
            f"The labels of the word are {mask}, the id of [MASK]. The label is the piece that "
            "stood there before."
        )
    if torch.equal(labels, ids):
        raise WrongAnswer(
            "Every position has its id as label, so every position is scored. Where nothing was "
            "hidden the label is -100."
        )
    if (labels[inside] == tokenizer.unk_token_id).any():
        raise WrongAnswer(
            f"A label is {tokenizer.unk_token_id}, the id of [UNK]: convert_tokens_to_ids gives "
            f"it for what is no piece. {where}, and each has its own id."
        )
    position = int((labels != ids.masked_fill(~inside, -100))[0].nonzero()[0])
    raise WrongAnswer(
        f"{where}, and the label at position {position} is {int(labels[0, position])}. It should "
        f"be {int(ids[0, position]) if inside[0, position] else -100}."
    )


# Lesson 03


def _shares_of_replacement(
    corrupted: torch.Tensor, original: torch.Tensor, selected: torch.Tensor, mask_id: int
) -> tuple[float, float]:
    """Return the shares of the selected positions that hold the mask token, and another one."""
    masked = selected & (corrupted == mask_id)
    changed = selected & (corrupted != mask_id) & (corrupted != original)
    return float(masked.sum() / selected.sum()), float(changed.sum() / selected.sum())


@_checker
def check_corrupt(corrupt: Callable[..., tuple[torch.Tensor, torch.Tensor]]) -> str:
    """Check ``corrupt(input_ids, selected, mask_id, vocab_size, mask, random)`` of lesson 03."""
    mask_id, vocab_size = 103, 30522
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        original = torch.randint(1000, vocab_size, (200, 400))
        selected = torch.rand(original.shape) < 0.5
        _check_corrupt_labels(corrupt, original, selected, mask_id, vocab_size)
        for mask, random in ((0.8, 0.1), (0.5, 0.4), (1.0, 0.0)):
            shares = mask, random
            try:
                corrupted, _ = corrupt(original.clone(), selected, mask_id, vocab_size, *shares)
            except ZeroDivisionError as error:
                raise WrongAnswer(
                    f"With mask={mask} your function divides by 0: no selected token is left for a "
                    "second toss. Toss it only where `mask` is below 1, or draw one number for "
                    "each position."
                ) from error
            _check_corrupt_shares(corrupted, original, selected, mask_id, mask, random)
        corrupted, _ = corrupt(original.clone(), selected, mask_id, vocab_size, 0.0, 1.0)
    if len(corrupted[selected].unique()) < 1000:
        raise WrongAnswer(
            "Your random tokens are all the same, or one of a few. Draw a random id for each "
            "position: `torch.randint(vocab_size, input_ids.shape)`."
        )
    return "80/10/10, 50/40/10 and 100/0/0 are kept to, and every selected token has its label."


def _check_corrupt_labels(
    corrupt: Callable[..., tuple[torch.Tensor, torch.Tensor]],
    original: torch.Tensor,
    selected: torch.Tensor,
    mask_id: int,
    vocab_size: int,
) -> None:
    given, chosen = original.clone(), selected.clone()
    answer = corrupt(given, chosen, mask_id, vocab_size)
    if not (isinstance(answer, tuple) and len(answer) == 2):
        raise WrongAnswer(
            f"Your function returns {type(answer).__name__}. Return two tensors: "
            "`return corrupted, labels`."
        )
    if not (torch.equal(given, original) and torch.equal(chosen, selected)):
        raise WrongAnswer(
            "Your function changes a tensor that it was given, so the caller's ids are lost. "
            "Work on a copy (`input_ids.clone()`), or use `torch.where`."
        )
    corrupted = _tensor_like(answer[0], original, "corrupted ids")
    labels = _tensor_like(answer[1], original, "labels")
    expected = original.masked_fill(~selected, -100)
    if not torch.equal(labels, expected):
        seen = corrupted == mask_id
        if torch.equal(labels, torch.where(seen, original, -100)):
            raise WrongAnswer(
                "Only positions that hold [MASK] have a label. Random and kept tokens are scored "
                "too: make the labels from `selected`."
            )
        if torch.equal(labels[selected], corrupted[selected]):
            raise WrongAnswer(
                "Your labels hold what the model sees. A label is the original id: take it from "
                "`input_ids`, before anything is replaced."
            )
        if (labels[selected] == -100).all():
            raise WrongAnswer(
                "Your labels are the wrong way round: -100 stands where a token is selected."
            )
        if torch.equal(labels, original):
            raise WrongAnswer(
                "Every position has a label. The label is -100 where nothing was selected."
            )
        row, column = (labels != expected).nonzero()[0].tolist()
        raise WrongAnswer(
            f"The label at row {row}, position {column} is {int(labels[row, column])}, and it "
            f"should be {int(expected[row, column])}."
        )
    if not torch.equal(corrupted[~selected], original[~selected]):
        raise WrongAnswer(
            "Your function replaces tokens that were not selected. Combine each condition with "
            "`selected`: `selected & (draw < mask)`."
        )


def _check_corrupt_shares(
    corrupted: torch.Tensor,
    original: torch.Tensor,
    selected: torch.Tensor,
    mask_id: int,
    mask: float,
    random: float,
) -> None:
    def close(found: float, expected: float) -> bool:
        return abs(found - expected) < 0.015  # 6 standard errors at 40,000 selected tokens

    masked, changed = _shares_of_replacement(corrupted, original, selected, mask_id)
    by_row = (corrupted == mask_id).sum(1) / selected.sum(1)
    measured = f"With mask={mask} and random={random}"
    if close(masked, mask) and close(changed, random):
        return
    if (by_row == masked).all() and masked in (0.0, 1.0) and mask not in (0.0, 1.0):
        what = "is masked" if masked == 0 else "is left unmasked"
        raise WrongAnswer(
            f"{measured}, no selected token {what}. Is the condition ever "
            f"{'true' if masked == 0 else 'false'}, and is there a draw for each position?"
        )
    if ((by_row == 0) | (by_row == 1)).all():
        raise WrongAnswer(
            "All tokens of a row get the same replacement. Draw one number for each position: "
            "`torch.rand(input_ids.shape)`."
        )
    if not close(masked, mask):
        raise WrongAnswer(
            f"{measured}, {masked:.1%} of the selected tokens became [MASK], and it should be "
            f"{mask:.0%} of them."
        )
    if close(changed, (1 - mask) * random):
        raise WrongAnswer(
            f"{measured}, {changed:.1%} of the selected tokens became random ones: that is "
            "`random` of the rest. A coin that is tossed for the rest is random / (1 - mask)."
        )
    if close(changed, (1 - mask) / 2):
        raise WrongAnswer(
            f"{measured}, {changed:.1%} of the selected tokens became random ones: half of the "
            "rest, whatever `random` is. The coin of 0.5 belongs to 80/10/10 alone."
        )
    if close(changed, 1 - mask):
        raise WrongAnswer(
            f"{measured}, every selected token that is not [MASK] became a random one. The share "
            "1 - mask - random keeps its token."
        )
    raise WrongAnswer(
        f"{measured}, {changed:.1%} of the selected tokens became random ones, and it should be "
        f"{random:.0%} of them."
    )


@_checker
def check_chance_of_no_label(chance_of_no_label: Callable[..., torch.Tensor]) -> str:
    """Check ``chance_of_no_label(input_ids, special_ids, select)`` of lesson 03."""
    special_ids = [100, 102, 0, 101, 103]
    input_ids = torch.tensor(
        [
            [101, 2009, 15538, 1012, 102, 0, 0, 0],
            [101, 1996, 4758, 3892, 5095, 2035, 2305, 102],
            [101, 102, 0, 0, 0, 0, 0, 0],
        ]
    )
    counts = torch.tensor([3.0, 6.0, 0.0])
    answer = chance_of_no_label(input_ids.clone(), special_ids, 0.3)
    if not isinstance(answer, torch.Tensor) or answer.shape != counts.shape:
        found = tuple(answer.shape) if isinstance(answer, torch.Tensor) else type(answer).__name__
        raise WrongAnswer(
            f"Your function returns {found}. Return a tensor of shape (3,) for a batch of three "
            "rows: one probability for each row, so sum over dim=1."
        )
    right = 0.7**counts
    mistakes = [
        (0.7 ** torch.full((3,), 8.0), "You count all positions of a row. Special tokens and "
         "padding are never selected: count the others alone."),
        (0.7 ** (counts + 2), "You count [CLS] and [SEP]. They are never selected either: "
         "`torch.isin(input_ids, torch.tensor(special_ids))` finds all special tokens."),
        (0.7 ** (8 - counts), "You count the special tokens. The others are those that can be "
         "selected: negate the mask."),
        (0.3**counts, "That is the probability that every token is selected. One token is left "
         "alone with the probability 1 - select."),
        (1 - right, "That is the probability of at least one label. Its opposite is asked for."),
        (0.85**counts, "Your answer does not change with `select`: you use the rate 0.15."),
        (counts * 0.7, "You multiply by the number of tokens. Independent draws multiply with "
         "each other: raise 1 - select to a power."),
        (counts * 0.3, "That is the expected number of labels of each row, not a probability."),
        (counts, "That is the number of tokens that can be selected, and one step is missing."),
    ]  # fmt: skip
    answer = answer.float()
    if torch.allclose(answer, right, atol=1e-6):
        return "(1 - select)^n for each row, and a row of special tokens alone never has a label."
    for value, message in mistakes:
        if torch.allclose(answer, value, atol=1e-6):
            raise WrongAnswer(message)
    row = int((answer - right).abs().argmax())
    raise WrongAnswer(
        f"Row {row} has {int(counts[row])} tokens that can be selected at the rate 0.3. Your "
        f"answer is {float(answer[row]):.4f}, and it should be {float(right[row]):.4f}."
    )


# Lesson 04


@_checker
def check_loss_without_ignore_index(loss_without_ignore_index: Callable[..., Any]) -> str:
    """Check ``loss_without_ignore_index(logits, labels, ignored)`` of lesson 04."""
    logits = torch.tensor(
        [[2.0, 1.0, 0.0], [0.5, -0.5, 1.5], [9.0, -9.0, 0.0], [0.0, 3.0, 1.0], [1.0, 0.0, 2.5]]
    )
    cases = [(torch.tensor([0, 2, -100, 2, -100]), -100), (torch.tensor([0, 2, 1, 0, 1]), 0)]
    for labels, ignored in cases:
        given = logits.clone(), labels.clone()
        answer = loss_without_ignore_index(*given, ignored)
        if not (torch.equal(given[0], logits) and torch.equal(given[1], labels)):
            raise WrongAnswer(
                "Your function changes a tensor that it was given: the caller's labels or logits "
                "are lost. `labels[kept]` makes a new tensor."
            )
        if answer is None:
            raise WrongAnswer("Your function returns None. Is there a `return`?")
        value = torch.as_tensor(answer)
        if value.numel() != 1:
            raise WrongAnswer(
                f"Your function returns {value.numel()} values, and a loss is one number: the mean "
                "over the rows that are left."
            )
        right = torch.nn.functional.cross_entropy(logits, labels, ignore_index=ignored)
        if not math.isclose(float(value), float(right), abs_tol=1e-5):
            raise WrongAnswer(_loss_mistake(float(value), logits, labels, ignored, float(right)))
    return "Equal to cross_entropy with ignore_index, for -100 and for the id of a token."


def _loss_mistake(
    answer: float, logits: torch.Tensor, labels: torch.Tensor, ignored: int, right: float
) -> str:
    """Return the message for a wrong loss: what the usual mistakes give."""
    kept = labels != ignored
    token_loss = -logits.log_softmax(-1).gather(1, labels.clamp(min=0).unsqueeze(1)).squeeze(1)
    without = logits.index_fill(1, torch.tensor([max(ignored, 0)]), -math.inf)
    raw = -logits[kept].gather(1, labels[kept].unsqueeze(1)).mean()
    mistakes = {
        -right: "The sign is wrong: the loss is minus the mean log-probability.",
        float(token_loss[kept].sum()): "That is the sum over the rows that are left. The loss is "
        "their mean.",
        float(token_loss[kept].sum()) / len(labels): "The ignored rows are missing from the sum "
        f"but not from the count: you divide by {len(labels)}, and {int(kept.sum())} rows are "
        "left.",
        float(raw): "You take the logits as they are. They are log-probabilities only after "
        "log_softmax.",
    }
    if ignored < 0:
        mistakes[float(token_loss.mean())] = (
            "The ignored rows are scored, as if their label were 0. Drop these rows before the "
            "loss."
        )
        mistakes[float(token_loss[labels > 0].mean())] = (
            "A row with the label 0 is left out. 0 is the id of a token; compare with `ignored`."
        )
    else:
        mistakes[float(token_loss.mean())] = (
            f"With ignored = {ignored} every row is scored: your function ignores a fixed number "
            "in place of the one that it is given."
        )
        mistakes[float(torch.nn.functional.cross_entropy(without[kept], labels[kept]))] = (
            "The ignored class is removed from the softmax too. ignore_index drops rows; the "
            "class stays a candidate in the others."
        )
    for value, message in mistakes.items():
        if math.isclose(answer, value, abs_tol=1e-5):
            return message
    return (
        f"Your function returns {answer:.4f} for labels {labels.tolist()} with ignored = "
        f"{ignored}, and it should return {right:.4f}."
    )


@_checker
def check_labels_from_positions(labels_from_positions: Callable[..., torch.Tensor]) -> str:
    """Check ``labels_from_positions(length, positions, ids, weights)`` of lesson 04."""
    bert = torch.tensor([2, 5, 0, 0]), torch.tensor([3899, 4937, 0, 0]), [1.0, 1.0, 0.0, 0.0]
    other = torch.tensor([0, 3, 6, 0]), torch.tensor([41, 0, 7, 0]), [1.0, 1.0, 1.0, 0.0]
    for length, (positions, ids, used) in ((9, bert), (8, other)):
        expected = torch.full((length,), -100)
        for position, token, weight in zip(positions.tolist(), ids.tolist(), used, strict=True):
            if weight:
                expected[position] = token
        given = positions.clone(), ids.clone(), torch.tensor(used)
        labels = labels_from_positions(length, *given)
        if not (torch.equal(given[0], positions) and torch.equal(given[1], ids)):
            raise WrongAnswer("Your function changes the positions or the ids that it was given.")
        labels = _tensor_like(labels, expected, "labels")
        if not torch.equal(labels, expected):
            raise WrongAnswer(_positions_mistake(labels, expected, positions))
    return "Used places became labels, unused places nothing, and the rest is -100."


def _positions_mistake(
    labels: torch.Tensor, expected: torch.Tensor, positions: torch.Tensor
) -> str:
    """Return the message for wrong labels from positions, ids and weights."""
    scored = expected != -100
    if torch.equal(labels[scored], expected[scored]) and (labels[~scored] == 0).all():
        return (
            "The other positions hold 0, which is the id of a token. What is not scored has the "
            "label -100."
        )
    if labels[0] == 0 and torch.equal(labels[1:], expected[1:]):
        return (
            "Position 0 has the label 0. An unused place points there; its weight is 0.0, so it "
            "must not be written."
        )
    if torch.equal(labels.roll(1), expected) or torch.equal(labels.roll(-1), expected):
        return "Your labels are shifted by one. A position counts from 0, with [CLS] at 0."
    if torch.equal(labels[scored], scored.nonzero().squeeze(1)):
        return "Your labels hold positions. A label is the id of the token that belongs there."
    missing = (labels != expected).nonzero().squeeze(1)
    if (labels[missing] == -100).all():
        if 0 in expected[missing]:
            return (
                f"The answer with id 0 at position {int(missing[0])} is lost. In some "
                "vocabularies 0 is a word; only the weight says whether a place is used."
            )
        if 0 in missing:
            return (
                "The answer at position 0 is lost. Unused places have position 0 too; only the "
                "weight tells them apart."
            )
        return f"Not all used places are written: position {int(missing[0])} has no label."
    first = int(missing[0])
    return (
        f"The label at position {first} is {int(labels[first])}, and it should be "
        f"{int(expected[first])}."
    )


# Lesson 05


@_checker
def check_loss_by_hand(loss_by_hand: Callable[..., torch.Tensor]) -> str:
    """Check ``loss_by_hand(logits, labels)`` of lesson 05."""
    logits = torch.randn(2, 4, 5, generator=torch.Generator().manual_seed(5))
    labels = torch.tensor([[-100, 3, 0, 1], [-100, -100, 2, -100]])
    scored = labels != -100
    log_p = logits.log_softmax(-1)
    nll = -log_p.gather(-1, labels.clamp(min=0).unsqueeze(-1)).squeeze(-1)
    each = nll[scored]
    right = float(each.mean())

    given = logits.clone(), labels.clone()
    answer = _number(loss_by_hand(*given), "the loss", "one number for the batch")
    if not (torch.equal(given[0], logits) and torch.equal(given[1], labels)):
        raise WrongAnswer(
            "Your function changes a tensor that it was given. Make a new one: `labels[scored]` "
            "and `masked_fill` do."
        )
    rows = torch.stack([nll[row][scored[row]].mean() for row in range(2)])
    shifted = nll.new_tensor(
        [-float(log_p[r, p - 1, labels[r, p]]) for r, p in scored.nonzero().tolist()]
    )
    across = -logits.log_softmax(1).gather(-1, labels.clamp(min=0).unsqueeze(-1)).squeeze(-1)
    mistakes = {
        float(each.sum()): "That is the sum over the labelled positions. Divide it by how many "
        "there are.",
        float(each.sum() / labels.numel()): "That is divided by the number of all positions: the "
        "ignored ones have left the sum, and they leave the count too.",
        float(nll.mean()): "That scores the ignored positions as well, as if their label were id "
        "0. Keep only the positions whose label is not -100.",
        -right: "That is the mean of log p. The loss is minus that.",
        float(rows.mean()): "That is the mean of the means of the rows. Every labelled position of "
        "the batch counts the same, whichever row it is in.",
        float(nll[labels > 0].mean()): "That drops a label of 0, which is the id of a token. Only "
        "-100 is ignored.",
        float(shifted.mean()): "That scores each label with the logits of the position before. A "
        "masked language model does not shift.",
        -float((-each).exp().mean()): "That is minus the mean of the probabilities: the logarithm "
        "is missing.",
        -float(logits.gather(-1, labels.clamp(min=0).unsqueeze(-1)).squeeze(-1)[scored].mean()): (
            "That is minus the mean of the logits: the softmax is missing."
        ),
        float(across[scored].mean()): "The softmax goes over the wrong dimension. Probabilities "
        "add up to 1 over the vocabulary, the last dimension.",
    }
    _named_or_wrong(answer, right, mistakes)
    far = torch.tensor([[[300.0, 0.0]]])
    answer = _number(loss_by_hand(far, torch.tensor([[1]])), "the loss", "one number")
    if not math.isclose(answer, 300.0, abs_tol=1e-3):
        raise WrongAnswer(
            f"Right for small logits. For the logits [300, 0] and the label 1 it gives {answer}, "
            "and the loss is 300: a probability became 0 before its logarithm was taken. Use "
            "log_softmax."
        )
    return f"{right:.4f}, the mean of {len(each)} values; and logits of 300 do no harm."


@_checker
def check_loss_gradient(loss_gradient: Callable[..., torch.Tensor]) -> str:
    """Check ``loss_gradient(logits, labels)`` of lesson 05."""
    logits = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(9))
    labels = torch.tensor([[-100, 2, 0], [-100, 1, -100]])
    scored = labels != -100
    keep = scored.unsqueeze(-1)
    p = logits.softmax(-1)
    one_hot = torch.nn.functional.one_hot(labels.clamp(min=0), 4)
    right = (p - one_hot) * keep / 3

    given = logits.clone(), labels.clone()
    answer = loss_gradient(*given)
    if not (torch.equal(given[0], logits) and torch.equal(given[1], labels)):
        raise WrongAnswer("Your function changes a tensor that it was given. Make a new one.")
    if not isinstance(answer, torch.Tensor):
        raise WrongAnswer(
            f"Your function returns {type(answer).__name__}, not a tensor. The gradient has one "
            "number for each logit."
        )
    if answer.shape != logits.shape:
        raise WrongAnswer(
            f"Your gradient has shape {tuple(answer.shape)}. A gradient has the shape of what it "
            f"belongs to, the logits: {tuple(logits.shape)}."
        )
    if torch.allclose(answer.detach().float(), right, atol=1e-6):
        return "(p - 1 at the label) / number of labels where scored, and exactly 0 elsewhere."
    mistakes = [
        (right * 3, "That is the gradient of the sum. The loss is a mean: divide by the labels."),
        (
            right * 3 / labels.numel(),
            "That is divided by the number of all positions. The loss is a mean over the labelled "
            "ones.",
        ),
        (
            -right,
            "The sign is turned round: a step against the gradient must make the label likelier.",
        ),
        (
            p * keep / 3,
            "The probabilities are there, but nothing is taken from the one at the label.",
        ),
        (
            (p - one_hot * keep) / 3,
            "The ignored positions have a gradient: the probabilities. They are not in the loss, "
            "so theirs is 0.",
        ),
        (
            (p - one_hot) / 3,
            "The ignored positions are treated as if their label were id 0. Their gradient is 0.",
        ),
        (
            (logits - one_hot) * keep / 3,
            "That starts from the logits. The gradient starts from the probabilities: softmax "
            "first.",
        ),
        (
            (logits.softmax(1) - one_hot) * keep / 3,
            "The softmax goes over the wrong dimension. Probabilities add up to 1 over the "
            "vocabulary, the last dimension.",
        ),
    ]
    for value, message in mistakes:
        if torch.allclose(answer.detach().float(), value, atol=1e-6):
            raise WrongAnswer(message)
    row, column, entry = ((answer.detach() - right).abs() > 1e-6).nonzero()[0].tolist()
    raise WrongAnswer(
        f"At row {row}, position {column}, token {entry} your gradient is "
        f"{float(answer[row, column, entry]):.4f}, and it should be "
        f"{float(right[row, column, entry]):.4f}."
    )


def _number(answer: object, name: str, shape: str) -> float:
    """Return ``answer`` as a float if it is one number."""
    if answer is None:
        raise WrongAnswer("Your function returns None: has it a `return`?")
    if isinstance(answer, torch.Tensor) and answer.numel() != 1:
        raise WrongAnswer(
            f"Your function returns a tensor of shape {tuple(answer.shape)}. Return {name}: "
            f"{shape}."
        )
    return float(answer)  # type: ignore[arg-type]


def _named_or_wrong(answer: float, right: float, mistakes: dict[float, str]) -> None:
    """Raise unless ``answer`` is right, and name the mistake if it is one of ``mistakes``."""
    if math.isclose(answer, right, abs_tol=1e-4):
        return
    for value, message in mistakes.items():
        if math.isclose(answer, value, abs_tol=1e-4):
            raise WrongAnswer(message)
    raise WrongAnswer(f"Your function returns {answer:.4f}, and the loss is {right:.4f}.")


# Lesson 06


@_checker
def check_masked_accuracy(masked_accuracy: Callable[..., float]) -> str:
    """Check ``masked_accuracy(logits, labels)`` of lesson 06."""
    top = torch.tensor([[0, 2, 4, 1, 3], [2, 3, 4, 0, 1], [1, 0, 0, 2, 2]])
    labels = torch.tensor([[0, -100, 4, 1, 3], [1, -100, 4, 0, 1], [5, *[-100] * 4]])
    logits = torch.nn.functional.one_hot(top, 6).float() * 3
    logits += 0.1 * torch.rand(logits.shape, generator=torch.Generator().manual_seed(6))
    scored = labels != -100
    hits = top == labels
    right = float(hits[scored].float().mean())

    given = logits.clone(), labels.clone()
    answer = _number(masked_accuracy(*given), "the accuracy", "one number for the batch")
    if not (torch.equal(given[0], logits) and torch.equal(given[1], labels)):
        raise WrongAnswer("Your function changes a tensor that it was given. Make a new one.")
    rows = torch.stack([hits[row][scored[row]].float().mean() for row in range(3)])
    visible = labels > 0
    shifted = top[:, :-1] == labels[:, 1:]
    mistakes = {
        float(hits.float().mean()): "That is divided by the number of all positions. No guess is "
        "ever -100, so the ignored positions count as wrong: leave them out.",
        float((hits | ~scored).float().mean()): "That counts the ignored positions as right. "
        "Leave them out of the hits and out of the count.",
        float(hits.sum()): "That is how many are right. The accuracy is their share.",
        100 * right: "That is a percentage. The share is between 0 and 1.",
        1 - right: "That is the share of wrong guesses.",
        float(rows.mean()): "That is the mean over the rows of their accuracies. Every labelled "
        "position of the batch counts the same, whichever row it is in.",
        float(hits[visible].float().mean()): "That drops a label of 0, which is the id of a "
        "token. Only -100 is ignored.",
        float(shifted[scored[:, 1:]].float().mean()): "That compares each label with the guess "
        "at the position before. A masked language model does not shift.",
        float((logits.argmin(dim=-1) == labels)[scored].float().mean()): "That takes the lowest "
        "logit. The guess is the highest one.",
    }
    if not math.isclose(answer, right, abs_tol=1e-4):
        for value, message in mistakes.items():
            if math.isclose(answer, value, abs_tol=1e-4):
                raise WrongAnswer(message)
        raise WrongAnswer(
            f"Your function returns {answer:.4f}, and {int(hits[scored].sum())} of "
            f"{int(scored.sum())} labelled positions are right: {right:.4f}."
        )
    return f"{int(hits[scored].sum())} of {int(scored.sum())} labelled positions: {right:.0%}."


class _FakeModel(torch.nn.Module):
    """Return fixed logits, other ones in training mode or where the ids were replaced."""

    def __init__(self, logits: dict[int, torch.Tensor]) -> None:
        super().__init__()
        self.logits = logits
        self.weight = torch.nn.Parameter(torch.ones(()))
        self.kept_graph = False

    def forward(self, input_ids: torch.Tensor, **_: Any) -> Any:
        logits = self.logits[int(input_ids[0, 0])]
        self.kept_graph |= torch.is_grad_enabled()
        noise = torch.arange(logits.shape[-1]) % 3 if self.training else 0
        return types.SimpleNamespace(logits=(logits + noise) * self.weight)


@_checker
def check_evaluate_batches(evaluate_batches: Callable[..., tuple[float, float, float]]) -> str:
    """Check ``evaluate_batches(model, batches)`` of lesson 06."""
    random = torch.Generator().manual_seed(12)
    labels = [torch.full((2, 6), -100), torch.full((3, 4), -100), torch.full((1, 5), -100)]
    labels[0][0, 1:5] = torch.tensor([3, 0, 7, 11])
    labels[0][1, :4] = torch.tensor([9, 2, 5, 1])
    labels[1][2, 1] = 4
    labels[2][0, 1:4] = torch.tensor([8, 6, 10])
    logits = {i: 2 * torch.randn(*y.shape, 12, generator=random) for i, y in enumerate(labels)}
    batches = [(torch.full_like(y, i), y) for i, y in enumerate(labels)]
    model = _FakeModel(logits)

    def measure(training: bool) -> tuple[torch.Tensor, torch.Tensor]:
        noise = torch.arange(12) % 3 if training else 0
        flat = torch.cat([(logits[i] + noise)[y != -100] for i, y in enumerate(labels)])
        answers = torch.cat([y[y != -100] for y in labels])
        each = torch.nn.functional.cross_entropy(flat, answers, reduction="none")
        ranks = (flat > flat.gather(1, answers.unsqueeze(1))).sum(dim=1)
        return each, ranks

    each, ranks = measure(training=False)
    per_batch = each.split([8, 1, 3])
    right = float(each.mean()), float(each.mean().exp()), float((ranks < 5).float().mean())
    modes = []
    for mode in (True, False):
        model.train(mode)
        answer = evaluate_batches(model, [(ids.clone(), y.clone()) for ids, y in batches])
        modes.append(model.training is mode)
    if not isinstance(answer, tuple | list) or len(answer) != 3:
        raise WrongAnswer(
            f"Your function returns {type(answer).__name__}. Return three numbers: "
            "`return loss, perplexity, top5`."
        )
    model.train()
    noisy = evaluate_batches(model, batches)
    loss, perplexity, top5 = (_number(value, "each of the three", "one") for value in answer)
    _named_or_wrong(
        loss,
        right[0],
        {
            float(torch.stack([part.mean() for part in per_batch]).mean()): "That is the mean of "
            "the losses of the batches. One batch has 8 labels and another has 1: add up the "
            "losses of all labels, and divide by their number.",
            float(each.sum()): "That is the sum over all labels. Divide it by how many there are.",
            float(per_batch[-1].mean()): "That is the loss of the last batch alone.",
            float(each.sum()) / sum(y.numel() for y in labels): "That is divided by the number of "
            "all positions. Only the labelled ones are in the sum.",
        },
    )
    if not math.isclose(_number(noisy[0], "the loss", "one"), right[0], abs_tol=1e-4):
        raise WrongAnswer(
            "A model in training mode gives you another loss: its dropout is on. Call "
            "`model.eval()` first."
        )
    if not math.isclose(perplexity, right[1], rel_tol=1e-4):
        if math.isclose(perplexity, float(each.exp().mean()), rel_tol=1e-4):
            raise WrongAnswer(
                "Your perplexity is the mean of exp(loss) over the labels. It is exp of the mean."
            )
        batch_means = torch.stack([part.mean().exp() for part in per_batch]).mean()
        if math.isclose(perplexity, float(batch_means), rel_tol=1e-4):
            raise WrongAnswer(
                "Your perplexity is the mean of the perplexities of the batches. Take exp once, "
                "of the loss that you return."
            )
        raise WrongAnswer(f"Your perplexity is {perplexity:.4f}. It is exp(loss): {right[1]:.4f}.")
    if not math.isclose(top5, right[2], abs_tol=1e-4):
        top5_mistakes = {
            float((ranks < 1).float().mean()): "Your third number counts first places. A label "
            "counts when it is among the five highest logits.",
            float((ranks < 5).sum()) / sum(y.numel() for y in labels): "Your third number is "
            "divided by the number of all positions. Only labelled ones can be right.",
            float((ranks < 5).sum()): "Your third number is a count. Return a share.",
            100 * right[2]: "Your third number is a percentage. Return a share.",
        }
        for value, message in top5_mistakes.items():
            if math.isclose(top5, value, abs_tol=1e-4):
                raise WrongAnswer(message)
        raise WrongAnswer(f"Your top-5 share is {top5:.4f}, and it should be {right[2]:.4f}.")
    if not all(modes):
        raise WrongAnswer(
            "The numbers are right, and the model comes back in another mode: an evaluation in "
            "the middle of a training would switch dropout off for the rest of it. Note "
            "`model.training` first and set it again."
        )
    if model.kept_graph:
        raise WrongAnswer(
            "The numbers are right, and gradients are tracked: the graph of every batch takes "
            "memory. Put `@torch.no_grad()` above the function."
        )
    return f"loss {loss:.2f}, perplexity {perplexity:.2f}, top 5 {top5:.0%}; the mode is kept."


# Lesson 07


@_checker
def check_repair_batch(repair_batch: Callable[..., Any]) -> str:
    """Check ``repair_batch(batch, original)`` of lesson 07."""
    mask = 103
    original = torch.tensor(
        [
            [101, 1045, 2215, 2000, 2689, 1996, 2088, 102],
            [101, 2016, 4149, 1996, 2482, 1012, 102, 0],
        ]
    )
    input_ids = original.clone()
    input_ids[0, 4] = input_ids[1, 1] = mask
    input_ids[0, 2] = 7592  # a random token; (1, 4) keeps its own
    chosen = input_ids != original
    chosen[1, 4] = True
    batch = {
        "input_ids": input_ids,
        "attention_mask": (original != 0).long(),
        "masked_lm_labels": input_ids.masked_fill(~chosen, -1),
    }
    expected = original.masked_fill(~chosen, -100)

    given, ids = {name: value.clone() for name, value in batch.items()}, original.clone()
    repaired = repair_batch(given, ids)
    if list(given) != list(batch) or any(
        not torch.equal(was, now)
        for was, now in zip((*batch.values(), original), (*given.values(), ids), strict=True)
    ):
        raise WrongAnswer(
            "Your function changes the batch or the ids that it was given. Start with "
            "`dict(batch)`, and make new tensors (`torch.where`, `masked_fill`)."
        )
    if not isinstance(repaired, dict):
        raise WrongAnswer(
            f"Your function returns {type(repaired).__name__}. Return the repaired batch, a dict."
        )
    if "labels" not in repaired:
        raise WrongAnswer(
            f"One defect is left: the batch has the keys {sorted(repaired)} and no `labels`. "
            "transformers 5 ignores the old name, and the loss is None."
        )
    if "masked_lm_labels" in repaired:
        raise WrongAnswer(
            "The old key `masked_lm_labels` is still there beside `labels`. transformers 4 raises "
            "a TypeError for it: `pop` it."
        )
    for name in ("input_ids", "attention_mask"):
        if name not in repaired or not torch.equal(repaired[name], batch[name]):
            raise WrongAnswer(
                f"Your batch has another {name}, or none. All three defects are in the labels."
            )
    labels = _tensor_like(repaired["labels"], expected, "labels")
    if not torch.equal(labels, expected):
        raise WrongAnswer(_repair_mistake(labels, expected, input_ids, mask))
    return "All three defects are gone: the name, the ignore value, and the copied answers."


def _repair_mistake(
    labels: torch.Tensor, expected: torch.Tensor, input_ids: torch.Tensor, mask: int
) -> str:
    """Return the message for labels that are not repaired."""
    chosen = expected != -100
    if (labels == -1).any():
        return "One defect is left: -1 marks what is not scored, and the loss takes it for an id."
    if torch.equal(labels[chosen], input_ids[chosen]):
        return (
            f"One defect is left: the answers were copied after masking. The label at (0, 4) is "
            f"{int(labels[0, 4])}, the id of [MASK]; `original` holds the answer."
        )
    if int(labels[0, 2]) == int(input_ids[0, 2]):
        return (
            f"One defect is half repaired: the label at (0, 2) is {int(labels[0, 2])}, the random "
            "token that was put there. Where [MASK] stands your answers are right."
        )
    if torch.equal(labels == -100, input_ids != mask):
        return (
            "Only the [MASK] positions are labelled now. The random token at (0, 2) and the kept "
            "one at (1, 4) were chosen too: all that were not -1."
        )
    if (labels[~chosen] != -100).all():
        return "Every position has a label now, padding too. What was -1 becomes -100."
    row, column = (labels != expected).nonzero()[0].tolist()
    return (
        f"The label at row {row}, position {column} is {int(labels[row, column])}, and it should "
        f"be {int(expected[row, column])}."
    )


@_checker
def check_diagnose_unknown(diagnose_unknown: Callable[..., Any]) -> str:
    """Check ``diagnose_unknown(batch, tokenizer)`` of lesson 07."""
    from mlmtutor.doctor import RULES, Diagnosis
    from mlmtutor.model import load_tutor

    _, tokenizer = load_tutor()
    unk, mask = tokenizer.unk_token_id, tokenizer.mask_token_id
    original = torch.tensor(
        [[101, 2002, 8823, unk, 1998, unk, 1012, 102], [101, 1996, unk, 2001, 3835, 1012, 102, 0]]
    )
    wanted = ((0, 3), (1, 2))  # the first is hidden by [MASK], the second kept; (0, 5) is no label
    labels = torch.full_like(original, -100)
    input_ids = original.clone()
    for row, column in wanted:
        labels[row, column] = unk
    labels[0, 2] = original[0, 2]
    input_ids[0, 2] = input_ids[0, 3] = mask
    sick = {"input_ids": input_ids, "attention_mask": original.ne(0).long(), "labels": labels}
    healthy = {**sick, "labels": labels.masked_fill(labels == unk, -100)}
    healthy["input_ids"] = input_ids.masked_fill(labels == unk, unk)
    unlabelled = {name: value for name, value in sick.items() if name != "labels"}

    before = dict(RULES)
    try:
        answers = [diagnose_unknown(batch, tokenizer) for batch in (sick, healthy, unlabelled)]
        after = set(RULES)
    finally:
        RULES.clear()
        RULES.update(before)
    if after - set(before):
        raise WrongAnswer(
            f"The check {min(after - set(before))!r} stays registered after the call, so every "
            "later diagnose runs it. Take it out in a `finally`: `del RULES[code]`."
        )
    if set(before) - after:
        raise WrongAnswer(
            "Checks of mlmtutor are missing from RULES after the call. Take out your own alone."
        )
    for answer in answers:
        if not isinstance(answer, Diagnosis):
            raise WrongAnswer(
                f"Your function returns {type(answer).__name__}. Return what `diagnose` returns."
            )
    first, second, third = answers
    if "labels-missing" not in third.codes:
        raise WrongAnswer(
            "The other checks do not run: a batch without labels has no finding. Call "
            "`diagnose(batch, tokenizer)` while your check is registered."
        )
    failed = next((why for _, why in third.unchecked if why.startswith("the check failed")), None)
    if failed:
        raise WrongAnswer(
            f"On a batch without labels {failed}. `needs=('labels', 'tokenizer')` tells the doctor "
            "not to ask then."
        )
    found = {finding.code: finding for finding in first.findings}
    if "unk-labelled" not in found:
        why = dict(first.unchecked).get("unk-labelled")
        raise WrongAnswer(
            "A batch in which two labels are [UNK] has "
            + (f"the findings {sorted(found)}" if found else "no finding")
            + (f", because {why}." if why else ", and none is `unk-labelled`.")
        )
    finding = found["unk-labelled"]
    if "unk-labelled" in second.codes:
        raise WrongAnswer(
            "A batch in which no label is [UNK] has the finding too. An [UNK] that is not scored "
            "does no harm."
        )
    if finding.positions != wanted:
        raise WrongAnswer(_unknown_mistake(finding.positions, wanted))
    if finding.severity != "warning":
        raise WrongAnswer(
            f"The finding is of severity {finding.severity!r}. The batch trains, and probably not "
            "what was meant: that is a warning."
        )
    return "Found where [UNK] is a label, silent elsewhere, and no longer registered."


def _unknown_mistake(found: tuple[Any, ...], wanted: tuple[Any, ...]) -> str:
    """Return the message for wrong positions of the labels that are [UNK]."""
    if not found:
        return (
            "Your finding has no positions. The third part of a Problem is `where`, a boolean "
            "tensor of the shape of the labels."
        )
    if set(found) < set(wanted):
        return (
            "The label at (0, 3) is [UNK], and the input shows [MASK] there: your check misses it. "
            "Look at the labels, not at the input."
        )
    return f"Your finding has the positions {found}, and the labels are [UNK] at {wanted}."


# Lesson 08


@_checker
def check_part_loss(part_loss: Callable[..., torch.Tensor]) -> str:
    """Check ``part_loss(logits, labels, num_items_in_batch)`` of lesson 08."""
    logits = 3 * torch.randn(3, 4, 6, generator=torch.Generator().manual_seed(8))
    labels = torch.tensor([[5, 2, 0, -100], [-100, -100, 3, -100], [-100, -100, -100, -100]])
    logits.requires_grad_()
    flat, flat_labels = logits.flatten(0, 1), labels.flatten()
    each = torch.nn.functional.cross_entropy(flat, flat_labels, reduction="none").detach()
    clamped = flat_labels.clamp(min=0)
    every = torch.nn.functional.cross_entropy(flat, clamped, reduction="none").detach()
    total, right = float(each.sum()), float(each.sum()) / 4
    row_means = float(each[:3].sum()) / 3 + float(each[6])
    mistakes = {
        row_means: "Each part is divided by its own number of labels, so the label of the second "
        "part weighs as much as the three of the first. Divide the sum by num_items_in_batch.",
        total: "That is the sum of the losses. Nothing divides it, so the gradient grows with the "
        "batch: divide by num_items_in_batch.",
        row_means / 4: "That is divided twice: the mean of the part has been divided by the "
        "labels of the part. Start from the sum.",
        total / 12: "That is divided by the number of all positions. Ignored ones do not count.",
        total / 3: "That is divided by the number of parts, which num_items_in_batch is not.",
        float(every[:8].sum()) / 4: "That scores the ignored positions as well. Leave -100 out.",
    }
    # The last part has no label. It adds nothing, but a mean of it would be nan.
    parts = [part_loss(logits[row], labels[row], 4) for row in range(2)]
    if any(isinstance(part, torch.Tensor) and part.numel() != 1 for part in parts):
        raise WrongAnswer(
            "Your function returns a loss for each position. backward() needs one number: add "
            "them up."
        )
    values = [part.detach() if isinstance(part, torch.Tensor) else part for part in parts]
    answer = sum(_number(value, "the loss", "one number for each part") for value in values)
    _named_or_wrong(answer, right, mistakes)
    with torch.no_grad():
        empty = part_loss(logits[2], labels[2], 4)
    if math.isnan(float(empty)):
        raise WrongAnswer(
            "A part without a label gives nan, and so does the whole step. Its sum is 0: do not "
            "take the mean and multiply it again."
        )
    if not all(isinstance(part, torch.Tensor) and part.requires_grad for part in parts):
        raise WrongAnswer(
            "Your function returns a number without a gradient. Return the tensor, without "
            "`.item()` or `float`: backward() starts from it."
        )
    return f"Parts of 3, 1 and 0 labels add up to {answer:.4f}, the loss of all four."


@_checker
def check_process_share(process_share: Callable[..., Any]) -> str:
    """Check ``process_share(total, counts, rank)`` of lesson 08."""
    totals, counts = [6.0, 8.0, 4.0], [5, 1, 2]
    right, processes = sum(totals) / sum(counts), len(counts)
    answers = [
        _number(process_share(torch.tensor(totals[rank]), counts, rank), "the loss", "a number")
        for rank in range(processes)
    ]
    own = [total / count for total, count in zip(totals, counts, strict=True)]
    weighted = [total * count for total, count in zip(totals, counts, strict=True)]
    mistakes = {
        sum(own) / processes: "Each process divides by its own count, and the average is a mean "
        "of means: divide by the labels of all processes.",
        right / processes: "The gradients are averaged afterwards, so your result is divided by "
        "the number of processes once more. Multiply by it first.",
        sum(totals) / processes: "That is the sum of the losses of each process. It must be "
        "divided by a number of labels.",
        sum(own): "You multiply by the number of processes, and divide by the own count. Divide "
        "by the count of all.",
        sum(totals) / processes**2: "That is divided by the number of processes, twice in the "
        "end. Divide by labels, and multiply by the number of processes.",
        sum(weighted) / sum(counts) / processes: "That weighs each sum by its count. A sum has "
        "grown with its count already; only a mean needs the weight.",
        right * sum(counts) / max(counts): "That divides by the largest count, not by all.",
    }
    _named_or_wrong(sum(answers) / processes, right, mistakes)
    if not math.isclose(answers[1], totals[1] * processes / sum(counts), abs_tol=1e-4):
        raise WrongAnswer("The average is right, but each process must scale its own sum.")
    return f"Averaged over three processes: 18 / 8 = {right:.2f}, the mean of eight labels."


# Lesson 09


@_checker
def check_corpus_perplexity(corpus_perplexity: Callable[..., Any]) -> str:
    """Check ``corpus_perplexity(scores)`` of lesson 09."""
    scores = [[-1.0, -2.0, -3.0], [-5.0]]
    given = [list(row) for row in scores]
    answer = _number(corpus_perplexity(given), "one number", "the pseudo-perplexity of all")
    if given != scores:
        raise WrongAnswer("Your function changes the list that it was given. Build a new one.")
    if math.isclose(answer, math.exp(11 / 4), abs_tol=1e-3):
        return f"exp(11 / 4) = {answer:.2f}: four tokens, and each counts once."
    mistakes = {
        (math.exp(2) + math.exp(5)) / 2: "That is the mean of the perplexities of the sentences. "
        "The token of the short sentence counts as much as the three of the long one.",
        math.exp(3.5): "That is exp of the mean of the means of the sentences. Take one mean over "
        "all tokens.",
        math.exp(11 / 2): "You divide by the number of sentences. Divide by the number of tokens.",
        math.exp(-11 / 4): "The sign is missing: that is exp(total / n), which is below 1.",
        11 / 4: "That is the mean of -log p, the loss. The pseudo-perplexity is exp of it.",
        2 ** (11 / 4): "You raise 2 to the loss. The log-probabilities are natural logarithms, so "
        "it is e.",
        math.exp(11): "You take exp of the total. Divide the total by the number of tokens first.",
    }
    for value, message in mistakes.items():
        if math.isclose(answer, value, rel_tol=1e-4):
            raise WrongAnswer(message)
    raise WrongAnswer(
        f"For {scores} your function returns {answer:.4f}, and it should return "
        f"{math.exp(11 / 4):.4f}."
    )


@_checker
def check_hidden_with_word(hidden_with_word: Callable[..., torch.Tensor]) -> str:
    """Check ``hidden_with_word(word_ids)`` of lesson 09."""
    for word_ids in ([None, 0, 1, 1, 1, 2, None], [None, 0, 0, 1, 2, 2, None, None]):
        words = torch.tensor([-1 if word is None else word for word in word_ids])
        scored = (words >= 0).nonzero()[:, 0]
        column, row = torch.arange(len(words)), scored.unsqueeze(1)
        same = words == words[scored].unsqueeze(1)
        expected = same & (column >= row)
        given = list(word_ids)
        hidden = hidden_with_word(given)
        if given != word_ids:
            raise WrongAnswer("Your function changes the list that it was given. Work on a copy.")
        if not isinstance(hidden, torch.Tensor):
            raise WrongAnswer(f"Your function returns {type(hidden).__name__}, not a tensor.")
        if hidden.shape == (len(words), len(words)):
            raise WrongAnswer(
                "Your matrix has a row for each position. A special token is not scored, so it "
                "has no row."
            )
        if hidden.shape != expected.shape:
            raise WrongAnswer(
                f"Your matrix has shape {tuple(hidden.shape)}, and it should have "
                f"{tuple(expected.shape)}: a row for each token that is scored, a column for each "
                "position."
            )
        if hidden.dtype != torch.bool:
            raise WrongAnswer(f"Your matrix has dtype {hidden.dtype}, and should have torch.bool.")
        if torch.equal(hidden, expected):
            continue
        mistakes = [
            (column == row, "One token is hidden in each row, and the later pieces of its word "
             "give it away. Hide them too."),
            (same, "The whole word is hidden in each row. The pieces before the one that is "
             "scored stay visible."),
            (same & (column <= row), "You hide the earlier pieces of the word. Hide the later "
             "ones."),
            (same & (column > row), "The later pieces are hidden, and the scored one is visible: "
             "the model reads the answer."),
            (column >= row, "Everything from the scored token on is hidden. Only its own word is."),
            (same & (column >= row) & (column <= row + 1), "You hide one later piece. A word can "
             "have more; hide all of them."),
            (~expected, "Your matrix is the wrong way round: True is for what is hidden."),
        ]  # fmt: skip
        for mistake, message in mistakes:
            if torch.equal(hidden, mistake):
                raise WrongAnswer(message)
        at_row, at_column = (hidden != expected).nonzero()[0].tolist()
        raise WrongAnswer(
            f"For {word_ids} the entry at row {at_row}, column {at_column} is "
            f"{bool(hidden[at_row, at_column])}, and it should be "
            f"{bool(expected[at_row, at_column])}."
        )
    return "Each row hides its token and the later pieces of the word, and nothing else."


# Lesson 10


@_checker
def check_runs_on(runs_on: Callable[..., Any]) -> str:
    """Check ``runs_on(releases, keyword, ignored)`` of lesson 10."""
    from mlmtutor.releases import Release, label_history

    releases = label_history()

    def right(keyword: str, ignored: int) -> list[Release]:
        return [
            r
            for r in releases
            if r.ignore_index == ignored
            and (r.labels == keyword or r.takes(keyword).endswith("Warning"))
        ]

    for keyword in ("masked_lm_labels", "labels", "lm_labels", "label"):
        for ignored in (-100, -1):
            answer, expected = runs_on(list(releases), keyword, ignored), right(keyword, ignored)
            call = f"`{keyword}=` with {ignored}"
            if not isinstance(answer, list) or not all(isinstance(r, Release) for r in answer):
                raise WrongAnswer(
                    "Your function does not return a list of releases. Return those of the list "
                    "`releases` that fit, as they are."
                )
            if answer == expected:
                continue
            extra = [r for r in answer if r not in expected]
            missing = [r for r in expected if r not in answer]
            if any(r.ignore_index != ignored for r in extra):
                raise WrongAnswer(
                    f"For {call} your list has {extra[0]}, whose loss does not ignore {ignored}: "
                    "the labels would be out of bounds."
                )
            if any(r.takes(keyword) == "dropped" for r in extra):
                raise WrongAnswer(
                    f"For {call} your list has {extra[-1]}, which drops the keyword: the call "
                    "runs, and there is no loss."
                )
            if any(r.takes(keyword) == "accepted" for r in extra):
                raise WrongAnswer(
                    f"For {call} your list has {extra[0]}. It accepts the keyword, and computes "
                    "another loss with it: compare with the name in `release.labels`."
                )
            if extra:
                raise WrongAnswer(f"For {call} your list has {extra[0]}, which refuses the name.")
            if missing and all(r.takes(keyword).endswith("Warning") for r in missing):
                raise WrongAnswer(
                    f"For {call} your list lacks {missing[0]}. It warns, and the loss is right: "
                    "a warning is no error."
                )
            if missing:
                raise WrongAnswer(f"For {call} your list lacks {missing[0]}.")
            raise WrongAnswer("Your list has a release twice, or another order than `releases`.")
    return "Each release that gives the right loss is there, and none that fails or says nothing."


@_checker
def check_migrate(migrate: Callable[..., Any]) -> str:
    """Check ``migrate(arguments)`` of lesson 10."""
    input_ids = torch.tensor([[101, 2016, 103, 1012, 102], [101, 103, 103, 102, 0]])
    old = torch.tensor([[-1, -1, 2441, -1, -1], [-1, 0, 5, -1, -1]])
    mask = (input_ids != 0).long()
    new = torch.where(old == -1, -100, old)
    given = {"input_ids": input_ids.clone(), "attention_mask": mask.clone()}
    given["masked_lm_labels"] = old.clone()
    answer = migrate(given)
    if list(given) != ["input_ids", "attention_mask", "masked_lm_labels"]:
        raise WrongAnswer(
            "Your function changes the dictionary that it was given. Make a new one: "
            "`dict(arguments)`."
        )
    if not torch.equal(given["masked_lm_labels"], old):
        raise WrongAnswer(
            "Your function changes the labels that it was given: the caller's old call fails "
            "now. `torch.where` and `masked_fill` make a new tensor."
        )
    if not isinstance(answer, dict):
        raise WrongAnswer(
            f"Your function returns {type(answer).__name__}. Return the arguments as a dictionary."
        )
    if "masked_lm_labels" in answer:
        raise WrongAnswer(
            "The old name `masked_lm_labels` is still in the call: release 4 refuses it, and "
            "release 5 drops it."
        )
    if "labels" not in answer:
        raise WrongAnswer("The call has no `labels`, so there is no loss.")
    for name in ("input_ids", "attention_mask"):
        if name not in answer or not torch.equal(answer[name], given[name]):
            raise WrongAnswer(f"`{name}` is lost or changed. Only the labels have a new form.")
    labels = _tensor_like(answer["labels"], new, "labels")
    if torch.equal(labels, new):
        return "The call has today's name and today's ignored label, and the old call is intact."
    if (labels == -1).any():
        raise WrongAnswer("The labels still hold -1. The loss of today leaves out -100 alone.")
    if int(labels[1, 1]) == -100:
        raise WrongAnswer(
            "A label of 0 became -100. 0 is the id of a token and can be an answer; only -1 meant "
            "that a position is not scored."
        )
    if (labels == input_ids).all() or (labels == 103).any():
        raise WrongAnswer("The labels are the input ids. The answers were in the old labels.")
    row, column = (labels != new).nonzero()[0].tolist()
    raise WrongAnswer(
        f"The label at row {row}, position {column} is {int(labels[row, column])}, and it should "
        f"be {int(new[row, column])}."
    )


@_checker
def check_positions_loss(positions_loss: Callable[..., Any]) -> str:
    """Check ``positions_loss(log_p, positions, ids, weights)`` of lesson 10."""
    generator = torch.Generator().manual_seed(0)
    log_p = torch.randn(2, 5, 7, generator=generator).log_softmax(-1)
    positions = torch.tensor([[1, 2, 4], [3, 0, 0]])
    ids = torch.tensor([[6, 2, 5], [3, 0, 0]])
    weights = torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, 0.0]])
    rows = torch.arange(2).unsqueeze(1)
    nll = -log_p[rows, positions, ids]
    right = float((weights * nll).sum() / weights.sum())
    unmoved = -log_p[rows, torch.arange(3), ids]
    given = [log_p.clone(), positions.clone(), ids.clone(), weights.clone()]
    answer = _number(positions_loss(*given), "one number", "the loss of the batch")
    if not all(map(torch.equal, given, (log_p, positions, ids, weights))):
        raise WrongAnswer("Your function changes a tensor that it was given. Work on a copy.")
    _named_or_wrong(
        answer,
        right,
        {
            float(nll.mean()): "That is the mean over every entry, those of weight 0 included: "
            "they only fill up the rows.",
            float((weights * nll).mean()): "The entries of weight 0 add nothing, and they are "
            "still counted: divide by the sum of the weights.",
            float((weights * nll).sum()): "That is the sum. Divide by the sum of the weights.",
            -right: "That is the mean of log p. The loss is minus that.",
            float(((weights * nll).sum(1) / weights.sum(1)).mean()): "That is the mean of the "
            "means of the rows. Each scored position counts the same: take one sum over the batch.",
            float((weights * unmoved).sum() / weights.sum()): "You scored the first positions of "
            "each row. `positions` says which ones the ids belong to.",
        },
    )
    return "The loss is the mean of -log p over the entries of weight 1, and no label was -100."
