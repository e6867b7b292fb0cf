"""Plausible wrong answers to the exercises, each with what its checker must say.

``MISTAKES[checker]`` maps the name of a mistake to ``(function, part of the message)``. The right
answers are the solution cells of the lessons.
"""

import math

import torch

MISTAKES = {}


def mistake(checker, name, message):
    """Register the decorated function as a mistake that ``checker`` must name."""

    def register(function):
        MISTAKES.setdefault(checker, {})[name] = (function, message)
        return function

    return register


# Lesson 01, exercise 1: labels_for_masked(input_ids, original_ids, mask_token_id)

LABELS = "check_labels_for_masked"


@mistake(LABELS, "the id of [MASK]", "103, the id of [MASK]")
def _(input_ids, original_ids, mask_token_id):
    return torch.where(input_ids == mask_token_id, input_ids, -100)


@mistake(LABELS, "everything labelled", "every position is scored")
def _(input_ids, original_ids, mask_token_id):
    return original_ids.clone()


@mistake(LABELS, "inverted", "wrong way round")
def _(input_ids, original_ids, mask_token_id):
    return torch.where(input_ids == mask_token_id, -100, original_ids)


@mistake(LABELS, "zero for ignored", "The other positions hold 0")
def _(input_ids, original_ids, mask_token_id):
    return torch.where(input_ids == mask_token_id, original_ids, 0)


@mistake(LABELS, "minus one for ignored", "The other positions hold -1")
def _(input_ids, original_ids, mask_token_id):
    return torch.where(input_ids == mask_token_id, original_ids, -1)


@mistake(LABELS, "shifted as in a causal model", "shifted by one position")
def _(input_ids, original_ids, mask_token_id):
    return torch.where(input_ids == mask_token_id, original_ids, -100).roll(-1, dims=-1)


@mistake(LABELS, "in place", "changes a tensor that it was given")
def _(input_ids, original_ids, mask_token_id):
    original_ids[input_ids != mask_token_id] = -100
    return original_ids


@mistake(LABELS, "a list", "returns list, not a tensor")
def _(input_ids, original_ids, mask_token_id):
    return torch.where(input_ids == mask_token_id, original_ids, -100).tolist()


@mistake(LABELS, "only the labelled ones", "one label for each position")
def _(input_ids, original_ids, mask_token_id):
    return original_ids[input_ids == mask_token_id]


@mistake(LABELS, "floats", "dtype torch.float32")
def _(input_ids, original_ids, mask_token_id):
    return torch.where(input_ids == mask_token_id, original_ids, -100).float()


@mistake(LABELS, "one masked position forgotten", "The label at row 1, position 4 is -100")
def _(input_ids, original_ids, mask_token_id):
    labels = torch.full_like(input_ids, -100)
    for row, ids in enumerate(input_ids.tolist()):
        first = ids.index(mask_token_id)
        labels[row, first] = original_ids[row, first]
    return labels


# Lesson 01, exercise 2: surprise(model, tokenizer, sentence, word)

SURPRISE = "check_surprise"


def _surprise(model, tokenizer, sentence, word, label=None, everywhere=False):
    inputs = tokenizer(sentence, return_tensors="pt")
    masked = inputs["input_ids"] == tokenizer.mask_token_id
    label = tokenizer.convert_tokens_to_ids(word) if label is None else label
    rest = inputs["input_ids"] if everywhere else torch.full_like(inputs["input_ids"], -100)
    with torch.no_grad():
        out = model(**inputs, labels=torch.where(masked, label, rest))
    return out.loss.item(), out.logits[masked][0, label].item()


@mistake(SURPRISE, "log p", "That is log p(word)")
def _(model, tokenizer, sentence, word):
    return -_surprise(model, tokenizer, sentence, word)[0]


@mistake(SURPRISE, "probability", "That is the probability")
def _(model, tokenizer, sentence, word):
    return math.exp(-_surprise(model, tokenizer, sentence, word)[0])


@mistake(SURPRISE, "bits", "in base 2")
def _(model, tokenizer, sentence, word):
    return _surprise(model, tokenizer, sentence, word)[0] / math.log(2)


@mistake(SURPRISE, "the id of [MASK]", "That is the loss of the label 103")
def _(model, tokenizer, sentence, word):
    return _surprise(model, tokenizer, sentence, word, label=tokenizer.mask_token_id)[0]


@mistake(SURPRISE, "every position", "the mean over every position")
def _(model, tokenizer, sentence, word):
    return _surprise(model, tokenizer, sentence, word, everywhere=True)[0]


@mistake(SURPRISE, "the logit", "minus the logit")
def _(model, tokenizer, sentence, word):
    return -_surprise(model, tokenizer, sentence, word)[1]


@mistake(SURPRISE, "no return", "Your function returns None")
def _(model, tokenizer, sentence, word):
    _surprise(model, tokenizer, sentence, word)


@mistake(SURPRISE, "another word", "Your function returns")
def _(model, tokenizer, sentence, word):
    return _surprise(model, tokenizer, sentence, "the")[0]


# Lesson 04, exercise 1: loss_without_ignore_index(logits, labels, ignored)

WITHOUT_IGNORE_INDEX = "check_loss_without_ignore_index"


def _token_loss(logits, labels):
    return -logits.log_softmax(-1).gather(1, labels.clamp(min=0).unsqueeze(1)).squeeze(1)


@mistake(WITHOUT_IGNORE_INDEX, "ignored rows scored as token 0", "as if their label were 0")
def _(logits, labels, ignored):
    return _token_loss(logits, labels).mean()


@mistake(WITHOUT_IGNORE_INDEX, "a fixed -100", "ignores a fixed number")
def _(logits, labels, ignored):
    return _token_loss(logits, labels)[labels != -100].mean()


@mistake(WITHOUT_IGNORE_INDEX, "labels above 0", "A row with the label 0 is left out")
def _(logits, labels, ignored):
    return _token_loss(logits, labels)[labels > 0].mean()


@mistake(WITHOUT_IGNORE_INDEX, "divided by all rows", "you divide by 5, and 3 rows are left")
def _(logits, labels, ignored):
    return (_token_loss(logits, labels) * (labels != ignored)).mean()


@mistake(WITHOUT_IGNORE_INDEX, "sum", "That is the sum")
def _(logits, labels, ignored):
    return _token_loss(logits, labels)[labels != ignored].sum()


@mistake(WITHOUT_IGNORE_INDEX, "sign", "The sign is wrong")
def _(logits, labels, ignored):
    return -_token_loss(logits, labels)[labels != ignored].mean()


@mistake(WITHOUT_IGNORE_INDEX, "no log-softmax", "take the logits as they are")
def _(logits, labels, ignored):
    kept = labels != ignored
    return -logits[kept].gather(1, labels[kept].unsqueeze(1)).mean()


@mistake(WITHOUT_IGNORE_INDEX, "class removed", "removed from the softmax too")
def _(logits, labels, ignored):
    if ignored >= 0:
        logits = logits.index_fill(1, torch.tensor([ignored]), -math.inf)
    kept = labels != ignored
    return torch.nn.functional.cross_entropy(logits[kept], labels[kept])


@mistake(WITHOUT_IGNORE_INDEX, "not reduced", "returns 3 values")
def _(logits, labels, ignored):
    return _token_loss(logits, labels)[labels != ignored]


@mistake(WITHOUT_IGNORE_INDEX, "in place", "changes a tensor that it was given")
def _(logits, labels, ignored):
    kept = labels != ignored
    labels[~kept] = 0
    return _token_loss(logits, labels)[kept].mean()


@mistake(WITHOUT_IGNORE_INDEX, "no return", "returns None")
def _(logits, labels, ignored):
    _token_loss(logits, labels)[labels != ignored].mean()


@mistake(WITHOUT_IGNORE_INDEX, "the rows that are ignored", "with ignored = -100, and it should")
def _(logits, labels, ignored):
    return _token_loss(logits, labels)[labels == ignored].mean()


# Lesson 04, exercise 2: labels_from_positions(length, positions, ids, weights)

FROM_POSITIONS = "check_labels_from_positions"


def _write(length, positions, ids, used, ignored=-100):
    labels = torch.full((length,), ignored)
    labels[positions[used]] = ids[used]
    return labels


@mistake(FROM_POSITIONS, "unused places written", "Position 0 has the label 0")
def _(length, positions, ids, weights):
    labels = torch.full((length,), -100)
    for position, token in zip(positions.tolist(), ids.tolist(), strict=True):
        labels[position] = token
    return labels


@mistake(FROM_POSITIONS, "zero for ignored", "The other positions hold 0")
def _(length, positions, ids, weights):
    return _write(length, positions, ids, weights > 0, ignored=0)


@mistake(FROM_POSITIONS, "minus one for ignored", "is -1, and it should be -100")
def _(length, positions, ids, weights):
    return _write(length, positions, ids, weights > 0, ignored=-1)


@mistake(FROM_POSITIONS, "shifted", "shifted by one")
def _(length, positions, ids, weights):
    return _write(length, positions - 1, ids, weights > 0)


@mistake(FROM_POSITIONS, "positions as labels", "Your labels hold positions")
def _(length, positions, ids, weights):
    return _write(length, positions, positions, weights > 0)


@mistake(FROM_POSITIONS, "ids above 0", "The answer with id 0 at position 3 is lost")
def _(length, positions, ids, weights):
    return _write(length, positions, ids, ids > 0)


@mistake(FROM_POSITIONS, "positions above 0", "The answer at position 0 is lost")
def _(length, positions, ids, weights):
    return _write(length, positions, ids, positions > 0)


@mistake(FROM_POSITIONS, "the first place alone", "Not all used places are written: position 5")
def _(length, positions, ids, weights):
    return _write(length, positions[:1], ids[:1], weights[:1] > 0)


@mistake(FROM_POSITIONS, "times the weights", "dtype torch.float32")
def _(length, positions, ids, weights):
    labels = torch.full((length,), -100.0)
    labels[positions] = ids * weights
    return labels


@mistake(FROM_POSITIONS, "a label for each place", "one label for each position")
def _(length, positions, ids, weights):
    return ids.masked_fill(weights == 0, -100)


@mistake(FROM_POSITIONS, "in place", "changes the positions or the ids")
def _(length, positions, ids, weights):
    ids[weights == 0] = -100
    return _write(length, positions, ids, weights > 0)


# Lesson 02, exercise 1: pad_rows(rows, pad_token_id)

PAD_ROWS = "check_pad_rows"


def _pad_rows(rows, pad_token_id, columns=None):
    columns = columns or max(len(row) for row in rows)
    ids = [(list(row) + [pad_token_id] * columns)[:columns] for row in rows]
    mask = [([1] * len(row) + [0] * columns)[:columns] for row in rows]
    return torch.tensor(ids), torch.tensor(mask)


@mistake(PAD_ROWS, "mask inverted", "attention_mask is the wrong way round")
def _(rows, pad_token_id):
    ids, mask = _pad_rows(rows, pad_token_id)
    return ids, 1 - mask


@mistake(PAD_ROWS, "mask of ones", "attention_mask is 1 everywhere")
def _(rows, pad_token_id):
    ids, mask = _pad_rows(rows, pad_token_id)
    return ids, torch.ones_like(mask)


@mistake(PAD_ROWS, "zero for padding", "The padding holds 0")
def _(rows, pad_token_id):
    return _pad_rows(rows, 0)


@mistake(PAD_ROWS, "-100 for padding", "The padding holds -100")
def _(rows, pad_token_id):
    return _pad_rows(rows, -100)


@mistake(PAD_ROWS, "padded on the left", "at the right edge")
def _(rows, pad_token_id):
    ids, mask = _pad_rows([row[::-1] for row in rows], pad_token_id)
    return ids.flip(-1), mask.flip(-1)


@mistake(PAD_ROWS, "cut to the shortest row", "input_ids has shape (2, 3), not (2, 5)")
def _(rows, pad_token_id):
    return _pad_rows(rows, pad_token_id, min(len(row) for row in rows))


@mistake(PAD_ROWS, "as long as the model allows", "input_ids has shape (2, 512), not (2, 5)")
def _(rows, pad_token_id):
    return _pad_rows(rows, pad_token_id, 512)


@mistake(PAD_ROWS, "lists", "input_ids is a list")
def _(rows, pad_token_id):
    ids, mask = _pad_rows(rows, pad_token_id)
    return ids.tolist(), mask.tolist()


@mistake(PAD_ROWS, "ids alone", "Your function returns Tensor")
def _(rows, pad_token_id):
    return _pad_rows(rows, pad_token_id)[0]


@mistake(PAD_ROWS, "mask of floats", "attention_mask has dtype torch.float32")
def _(rows, pad_token_id):
    ids, mask = _pad_rows(rows, pad_token_id)
    return ids, mask.float()


@mistake(PAD_ROWS, "exchanged", "The two tensors are exchanged")
def _(rows, pad_token_id):
    ids, mask = _pad_rows(rows, pad_token_id)
    return mask, ids


@mistake(PAD_ROWS, "rows grow in place", "changes the lists")
def _(rows, pad_token_id):
    padded = _pad_rows(rows, pad_token_id)
    for row in rows:
        row += [pad_token_id] * (padded[0].shape[1] - len(row))
    return padded


@mistake(PAD_ROWS, "special tokens not read", "attention_mask at row 0, position 0 is 0")
def _(rows, pad_token_id):
    ids, mask = _pad_rows(rows, pad_token_id)
    return ids, mask * (ids != 101) * (ids != 102)


# Lesson 02, exercise 2: mask_word(tokenizer, sentence, word)

MASK_WORD = "check_mask_word"


def _mask_word(tokenizer, sentence, word):
    encoded = tokenizer(sentence, return_offsets_mapping=True, return_tensors="pt")
    first, last = encoded["offset_mapping"].unbind(-1)
    start = sentence.index(word)
    return encoded["input_ids"], (first >= start) & (last <= start + len(word)) & (first < last)


def _masked(tokenizer, ids, inside):
    return ids.masked_fill(inside, tokenizer.mask_token_id)


@mistake(MASK_WORD, "one mask for a word", "input_ids has shape (1, 8), not (1, 9)")
def _(tokenizer, sentence, word):
    masked = sentence.replace(word, tokenizer.mask_token)
    ids = tokenizer(masked, return_tensors="pt")["input_ids"]
    label = tokenizer.convert_tokens_to_ids(word)
    return ids, torch.where(ids == tokenizer.mask_token_id, label, -100)


@mistake(MASK_WORD, "the id of [UNK]", "the id of [UNK]")
def _(tokenizer, sentence, word):
    ids, inside = _mask_word(tokenizer, sentence, word)
    label = tokenizer.convert_tokens_to_ids(word)
    return _masked(tokenizer, ids, inside), torch.where(inside, label, -100)


@mistake(MASK_WORD, "the id of [MASK]", "103, the id of [MASK]")
def _(tokenizer, sentence, word):
    ids, inside = _mask_word(tokenizer, sentence, word)
    masked = _masked(tokenizer, ids, inside)
    return masked, masked.masked_fill(~inside, -100)


@mistake(MASK_WORD, "everything labelled", "every position is scored")
def _(tokenizer, sentence, word):
    ids, inside = _mask_word(tokenizer, sentence, word)
    return _masked(tokenizer, ids, inside), ids


@mistake(MASK_WORD, "inverted", "wrong way round")
def _(tokenizer, sentence, word):
    ids, inside = _mask_word(tokenizer, sentence, word)
    return _masked(tokenizer, ids, inside), ids.masked_fill(inside, -100)


@mistake(MASK_WORD, "wherever the ids occur", "'snow' at position 1")
def _(tokenizer, sentence, word):
    ids, _ = _mask_word(tokenizer, sentence, word)
    pieces = tokenizer(word, add_special_tokens=False, return_tensors="pt")["input_ids"]
    inside = torch.isin(ids, pieces)
    return _masked(tokenizer, ids, inside), ids.masked_fill(~inside, -100)


@mistake(MASK_WORD, "the first piece alone", "can still read ##man")
def _(tokenizer, sentence, word):
    ids, inside = _mask_word(tokenizer, sentence, word)
    inside &= inside.cumsum(-1) == 1
    return _masked(tokenizer, ids, inside), ids.masked_fill(~inside, -100)


@mistake(MASK_WORD, "nothing hidden", "Nothing is hidden")
def _(tokenizer, sentence, word):
    ids, inside = _mask_word(tokenizer, sentence, word)
    return ids, ids.masked_fill(~inside, -100)


@mistake(MASK_WORD, "special tokens hidden", "'[CLS]' at position 0")
def _(tokenizer, sentence, word):
    ids, inside = _mask_word(tokenizer, sentence, word)
    inside = inside | (ids == 101) | (ids == 102)
    return _masked(tokenizer, ids, inside), ids.masked_fill(~inside, -100)


@mistake(MASK_WORD, "no special tokens", "input_ids has shape (1, 7), not (1, 9)")
def _(tokenizer, sentence, word):
    ids, inside = _mask_word(tokenizer, sentence, word)
    return _masked(tokenizer, ids, inside)[:, 1:-1], ids.masked_fill(~inside, -100)[:, 1:-1]


@mistake(MASK_WORD, "no batch dimension", "input_ids has shape (9,), not (1, 9)")
def _(tokenizer, sentence, word):
    ids, inside = _mask_word(tokenizer, sentence, word)
    return _masked(tokenizer, ids, inside)[0], ids.masked_fill(~inside, -100)[0]


@mistake(MASK_WORD, "zero for ignored", "the label at position 0 is 0")
def _(tokenizer, sentence, word):
    ids, inside = _mask_word(tokenizer, sentence, word)
    return _masked(tokenizer, ids, inside), ids.masked_fill(~inside, 0)


# Lesson 03, exercise 1: corrupt(input_ids, selected, mask_id, vocab_size, mask, random)

CORRUPT = "check_corrupt"


def _corrupt(ids, selected, mask_id, vocab_size, mask, random, draw=None, random_ids=None):
    draw = torch.rand(ids.shape) if draw is None else draw
    random_ids = torch.randint(vocab_size, ids.shape) if random_ids is None else random_ids
    changed = torch.where(selected & (draw < mask + random), random_ids, ids)
    corrupted = torch.where(selected & (draw < mask), mask_id, changed)
    return corrupted, torch.where(selected, ids, -100)


@mistake(CORRUPT, "in place", "changes a tensor that it was given")
def _(input_ids, selected, mask_id, vocab_size, mask=0.8, random=0.1):
    labels = torch.where(selected, input_ids, -100)
    input_ids[selected & (torch.rand(input_ids.shape) < mask)] = mask_id
    return input_ids, labels


@mistake(CORRUPT, "labels from the finished ids", "Your labels hold what the model sees")
def _(input_ids, selected, mask_id, vocab_size, mask=0.8, random=0.1):
    corrupted, _ = _corrupt(input_ids, selected, mask_id, vocab_size, mask, random)
    return corrupted, torch.where(selected, corrupted, -100)


@mistake(CORRUPT, "labels at [MASK] alone", "Only positions that hold [MASK] have a label")
def _(input_ids, selected, mask_id, vocab_size, mask=0.8, random=0.1):
    corrupted, _ = _corrupt(input_ids, selected, mask_id, vocab_size, mask, random)
    return corrupted, torch.where(corrupted == mask_id, input_ids, -100)


@mistake(CORRUPT, "inverted labels", "the wrong way round")
def _(input_ids, selected, mask_id, vocab_size, mask=0.8, random=0.1):
    corrupted, _ = _corrupt(input_ids, selected, mask_id, vocab_size, mask, random)
    return corrupted, torch.where(selected, -100, input_ids)


@mistake(CORRUPT, "everything labelled", "Every position has a label")
def _(input_ids, selected, mask_id, vocab_size, mask=0.8, random=0.1):
    corrupted, _ = _corrupt(input_ids, selected, mask_id, vocab_size, mask, random)
    return corrupted, input_ids.clone()


@mistake(CORRUPT, "minus one for ignored", "and it should be -100")
def _(input_ids, selected, mask_id, vocab_size, mask=0.8, random=0.1):
    corrupted, _ = _corrupt(input_ids, selected, mask_id, vocab_size, mask, random)
    return corrupted, torch.where(selected, input_ids, -1)


@mistake(CORRUPT, "ids alone", "Return two tensors")
def _(input_ids, selected, mask_id, vocab_size, mask=0.8, random=0.1):
    return _corrupt(input_ids, selected, mask_id, vocab_size, mask, random)[0]


@mistake(CORRUPT, "unselected tokens too", "replaces tokens that were not selected")
def _(input_ids, selected, mask_id, vocab_size, mask=0.8, random=0.1):
    everywhere = torch.ones_like(selected)
    corrupted, _ = _corrupt(input_ids, everywhere, mask_id, vocab_size, mask, random)
    return corrupted, torch.where(selected, input_ids, -100)


@mistake(CORRUPT, "never true", "no selected token is masked")
def _(input_ids, selected, mask_id, vocab_size, mask=0.8, random=0.1):
    draw = torch.rand(input_ids.shape)
    corrupted = torch.where(selected & (draw < draw * mask), mask_id, input_ids)
    return corrupted, torch.where(selected, input_ids, -100)


@mistake(CORRUPT, "always masked", "no selected token is left unmasked")
def _(input_ids, selected, mask_id, vocab_size, mask=0.8, random=0.1):
    return _corrupt(input_ids, selected, mask_id, vocab_size, 1.0, 0.0)


@mistake(CORRUPT, "one draw for each row", "All tokens of a row get the same replacement")
def _(input_ids, selected, mask_id, vocab_size, mask=0.8, random=0.1):
    draw = torch.rand(len(input_ids), 1)
    return _corrupt(input_ids, selected, mask_id, vocab_size, mask, random, draw)


@mistake(CORRUPT, "share of all tokens", "of the selected tokens became [MASK], and it should be")
def _(input_ids, selected, mask_id, vocab_size, mask=0.8, random=0.1):
    return _corrupt(input_ids, selected, mask_id, vocab_size, mask * 0.15, random * 0.15)


@mistake(CORRUPT, "a coin of 0.1", "`random` of the rest")
def _(input_ids, selected, mask_id, vocab_size, mask=0.8, random=0.1):
    return _corrupt(input_ids, selected, mask_id, vocab_size, mask, random * (1 - mask))


@mistake(CORRUPT, "a coin of 0.5", "half of the rest, whatever `random` is")
def _(input_ids, selected, mask_id, vocab_size, mask=0.8, random=0.1):
    return _corrupt(input_ids, selected, mask_id, vocab_size, mask, (1 - mask) / 2)


@mistake(CORRUPT, "a second toss for nothing", "divides by 0: no selected token is left")
def _(input_ids, selected, mask_id, vocab_size, mask=0.8, random=0.1):
    coin = random / (1 - mask)
    return _corrupt(input_ids, selected, mask_id, vocab_size, mask, coin * (1 - mask))


@mistake(CORRUPT, "nothing kept", "every selected token that is not [MASK]")
def _(input_ids, selected, mask_id, vocab_size, mask=0.8, random=0.1):
    return _corrupt(input_ids, selected, mask_id, vocab_size, mask, 1 - mask)


@mistake(CORRUPT, "nothing random", "0.0% of the selected tokens became random ones")
def _(input_ids, selected, mask_id, vocab_size, mask=0.8, random=0.1):
    return _corrupt(input_ids, selected, mask_id, vocab_size, mask, 0.0)


@mistake(CORRUPT, "one random token for all", "Draw a random id for each position")
def _(input_ids, selected, mask_id, vocab_size, mask=0.8, random=0.1):
    one = torch.randint(vocab_size, ())
    return _corrupt(input_ids, selected, mask_id, vocab_size, mask, random, random_ids=one)


# Lesson 03, exercise 2: chance_of_no_label(input_ids, special_ids, select)

CHANCE = "check_chance_of_no_label"


def _free(input_ids, special_ids):
    return (~torch.isin(input_ids, torch.tensor(special_ids))).sum(dim=1)


@mistake(CHANCE, "every position", "You count all positions")
def _(input_ids, special_ids, select=0.15):
    return torch.full((len(input_ids),), (1 - select) ** input_ids.shape[1])


@mistake(CHANCE, "only padding left out", "You count [CLS] and [SEP]")
def _(input_ids, special_ids, select=0.15):
    return (1 - select) ** (input_ids != 0).sum(dim=1)


@mistake(CHANCE, "special tokens counted", "You count the special tokens")
def _(input_ids, special_ids, select=0.15):
    return (1 - select) ** torch.isin(input_ids, torch.tensor(special_ids)).sum(dim=1)


@mistake(CHANCE, "all selected", "that every token is selected")
def _(input_ids, special_ids, select=0.15):
    return select ** _free(input_ids, special_ids)


@mistake(CHANCE, "at least one", "at least one label")
def _(input_ids, special_ids, select=0.15):
    return 1 - (1 - select) ** _free(input_ids, special_ids)


@mistake(CHANCE, "0.85 always", "does not change with `select`")
def _(input_ids, special_ids, select=0.15):
    return 0.85 ** _free(input_ids, special_ids)


@mistake(CHANCE, "multiplied", "raise 1 - select to a power")
def _(input_ids, special_ids, select=0.15):
    return (1 - select) * _free(input_ids, special_ids)


@mistake(CHANCE, "expected number", "the expected number of labels")
def _(input_ids, special_ids, select=0.15):
    return select * _free(input_ids, special_ids)


@mistake(CHANCE, "a count", "one step is missing")
def _(input_ids, special_ids, select=0.15):
    return _free(input_ids, special_ids)


@mistake(CHANCE, "over the batch", "one probability for each row")
def _(input_ids, special_ids, select=0.15):
    return (1 - select) ** _free(input_ids, special_ids).sum()


@mistake(CHANCE, "a number", "Your function returns float")
def _(input_ids, special_ids, select=0.15):
    return (1 - select) ** 5


@mistake(CHANCE, "one token too few", "tokens that can be selected at the rate 0.3")
def _(input_ids, special_ids, select=0.15):
    return (1 - select) ** (_free(input_ids, special_ids) - 1)


# Lesson 05, exercise 1: loss_by_hand(logits, labels)

BY_HAND = "check_loss_by_hand"


def _each_nll(logits, labels):
    log_p = logits.log_softmax(-1)
    return -log_p.gather(-1, labels.clamp(min=0).unsqueeze(-1)).squeeze(-1)


@mistake(BY_HAND, "sum", "That is the sum over the labelled positions")
def _(logits, labels):
    return _each_nll(logits, labels)[labels != -100].sum()


@mistake(BY_HAND, "zeros in the mean", "divided by the number of all positions")
def _(logits, labels):
    return (_each_nll(logits, labels) * (labels != -100)).mean()


@mistake(BY_HAND, "ignored positions scored", "as if their label were id 0")
def _(logits, labels):
    return _each_nll(logits, labels).mean()


@mistake(BY_HAND, "no minus", "That is the mean of log p")
def _(logits, labels):
    return -_each_nll(logits, labels)[labels != -100].mean()


@mistake(BY_HAND, "mean of row means", "the mean of the means of the rows")
def _(logits, labels):
    scored = labels != -100
    return ((_each_nll(logits, labels) * scored).sum(1) / scored.sum(1)).mean()


@mistake(BY_HAND, "label 0 dropped", "drops a label of 0")
def _(logits, labels):
    return _each_nll(logits, labels)[labels > 0].mean()


@mistake(BY_HAND, "shifted as in a causal model", "the position before")
def _(logits, labels):
    labels = labels[:, 1:]
    return _each_nll(logits[:, :-1], labels)[labels != -100].mean()


@mistake(BY_HAND, "no logarithm", "the logarithm is missing")
def _(logits, labels):
    return -(-_each_nll(logits, labels)).exp()[labels != -100].mean()


@mistake(BY_HAND, "no softmax", "the softmax is missing")
def _(logits, labels):
    scored = labels != -100
    return -logits[scored].gather(1, labels[scored].unsqueeze(1)).mean()


@mistake(BY_HAND, "softmax over positions", "over the wrong dimension")
def _(logits, labels):
    log_p = logits.log_softmax(1)
    scored = labels != -100
    return -log_p[scored].gather(1, labels[scored].unsqueeze(1)).mean()


@mistake(BY_HAND, "log of softmax", "a probability became 0 before its logarithm")
def _(logits, labels):
    scored = labels != -100
    p = logits[scored].softmax(-1)
    return -p.gather(1, labels[scored].unsqueeze(1)).log().mean()


@mistake(BY_HAND, "one loss a position", "returns a tensor of shape (4,)")
def _(logits, labels):
    return _each_nll(logits, labels)[labels != -100]


@mistake(BY_HAND, "in place", "changes a tensor that it was given")
def _(logits, labels):
    scored = labels != -100
    labels[~scored] = 0
    return _each_nll(logits, labels)[scored].mean()


@mistake(BY_HAND, "no return", "returns None")
def _(logits, labels):
    _each_nll(logits, labels)[labels != -100].mean()


@mistake(BY_HAND, "bits", "Your function returns")
def _(logits, labels):
    return _each_nll(logits, labels)[labels != -100].mean() / math.log(2)


# Lesson 05, exercise 2: loss_gradient(logits, labels)

GRADIENT = "check_loss_gradient"


def _gradient(logits, labels, dim=-1, answers=1, ignored=False):
    scored = (labels != -100).unsqueeze(-1)
    one_hot = torch.nn.functional.one_hot(labels.clamp(min=0), logits.shape[-1])
    gradient = logits.softmax(dim) - answers * one_hot
    return (gradient if ignored else gradient * scored) / scored.sum()


@mistake(GRADIENT, "of the sum", "the gradient of the sum")
def _(logits, labels):
    return _gradient(logits, labels) * (labels != -100).sum()


@mistake(GRADIENT, "divided by all positions", "the number of all positions")
def _(logits, labels):
    return _gradient(logits, labels) * (labels != -100).sum() / labels.numel()


@mistake(GRADIENT, "sign", "The sign is turned round")
def _(logits, labels):
    return -_gradient(logits, labels)


@mistake(GRADIENT, "probabilities alone", "nothing is taken from the one at the label")
def _(logits, labels):
    return _gradient(logits, labels, answers=0)


@mistake(GRADIENT, "probabilities at ignored positions", "The ignored positions have a gradient")
def _(logits, labels):
    gradient = logits.softmax(-1)
    scored = labels != -100
    gradient[scored] -= torch.nn.functional.one_hot(labels[scored], logits.shape[-1])
    return gradient / scored.sum()


@mistake(GRADIENT, "ignored positions as id 0", "as if their label were id 0")
def _(logits, labels):
    return _gradient(logits, labels, ignored=True)


@mistake(GRADIENT, "no softmax", "That starts from the logits")
def _(logits, labels):
    scored = labels != -100
    missing = (logits - logits.softmax(-1)) * scored.unsqueeze(-1)
    return _gradient(logits, labels) + missing / scored.sum()


@mistake(GRADIENT, "softmax over positions", "over the wrong dimension")
def _(logits, labels):
    return _gradient(logits, labels, dim=1)


@mistake(GRADIENT, "scored rows alone", "A gradient has the shape of what it belongs to")
def _(logits, labels):
    return _gradient(logits, labels)[labels != -100]


@mistake(GRADIENT, "a list", "returns list, not a tensor")
def _(logits, labels):
    return _gradient(logits, labels).tolist()


@mistake(GRADIENT, "in place", "changes a tensor that it was given")
def _(logits, labels):
    logits -= logits.logsumexp(-1, keepdim=True)
    return _gradient(logits, labels)


@mistake(GRADIENT, "divided by the rows", "At row 0, position 1, token 0 your gradient is")
def _(logits, labels):
    return _gradient(logits, labels) * (labels != -100).sum() / len(labels)


# Lesson 10, exercise 1: runs_on(releases, keyword, ignored)

RUNS_ON = "check_runs_on"


def _fits(release, ignored):
    return release.ignore_index == ignored


@mistake(RUNS_ON, "the ignored label forgotten", "would be out of bounds")
def _(releases, keyword, ignored):
    return [r for r in releases if r.labels == keyword or r.takes(keyword).endswith("Warning")]


@mistake(RUNS_ON, "whatever is no error", "which drops the keyword")
def _(releases, keyword, ignored):
    return [r for r in releases if not r.takes(keyword).endswith("Error") and _fits(r, ignored)]


@mistake(RUNS_ON, "accepted or warned of", "computes another loss")
def _(releases, keyword, ignored):
    taken = ("accepted", "DeprecationWarning", "FutureWarning")
    return [r for r in releases if r.takes(keyword) in taken and _fits(r, ignored)]


@mistake(RUNS_ON, "warnings counted as errors", "a warning is no error")
def _(releases, keyword, ignored):
    return [r for r in releases if r.labels == keyword and _fits(r, ignored)]


@mistake(RUNS_ON, "one kind of warning", "lacks transformers 3.1.0")
def _(releases, keyword, ignored):
    taken = ("DeprecationWarning",)
    return [
        r
        for r in releases
        if _fits(r, ignored) and (r.labels == keyword or r.takes(keyword) in taken)
    ]


@mistake(RUNS_ON, "versions", "does not return a list of releases")
def _(releases, keyword, ignored):
    return [r.version for r in releases if r.labels == keyword and _fits(r, ignored)]


@mistake(RUNS_ON, "errors taken for right", "which refuses the name")
def _(releases, keyword, ignored):
    return [
        r for r in releases if _fits(r, ignored) and r.takes(keyword) not in ("dropped", "accepted")
    ]


@mistake(RUNS_ON, "newest first", "another order")
def _(releases, keyword, ignored):
    found = [r for r in releases if r.labels == keyword or r.takes(keyword).endswith("Warning")]
    return [r for r in found if _fits(r, ignored)][::-1]


# Lesson 10, exercise 2: migrate(arguments)

MIGRATE = "check_migrate"


def _migrated(arguments, labels):
    new = {name: value for name, value in arguments.items() if name != "masked_lm_labels"}
    return new | {"labels": labels}


@mistake(MIGRATE, "the values left", "still hold -1")
def _(arguments):
    return _migrated(arguments, arguments["masked_lm_labels"].clone())


@mistake(MIGRATE, "the name left", "old name `masked_lm_labels` is still in the call")
def _(arguments):
    old = arguments["masked_lm_labels"]
    return arguments | {"masked_lm_labels": old.masked_fill(old == -1, -100)}


@mistake(MIGRATE, "popped from the caller", "changes the dictionary")
def _(arguments):
    old = arguments.pop("masked_lm_labels")
    return arguments | {"labels": old.masked_fill(old == -1, -100)}


@mistake(MIGRATE, "in place", "changes the labels that it was given")
def _(arguments):
    labels = arguments["masked_lm_labels"]
    labels[labels == -1] = -100
    return _migrated(arguments, labels)


@mistake(MIGRATE, "whatever is not positive", "A label of 0 became -100")
def _(arguments):
    old = arguments["masked_lm_labels"]
    return _migrated(arguments, old.masked_fill(old <= 0, -100))


@mistake(MIGRATE, "the mask forgotten", "`attention_mask` is lost or changed")
def _(arguments):
    old = arguments["masked_lm_labels"]
    return {"input_ids": arguments["input_ids"], "labels": old.masked_fill(old == -1, -100)}


@mistake(MIGRATE, "the labels dropped", "The call has no `labels`")
def _(arguments):
    return {name: value for name, value in arguments.items() if name != "masked_lm_labels"}


@mistake(MIGRATE, "the input as labels", "The labels are the input ids")
def _(arguments):
    return _migrated(arguments, arguments["input_ids"].clone())


@mistake(MIGRATE, "only the labels", "Return the arguments as a dictionary")
def _(arguments):
    old = arguments["masked_lm_labels"]
    return old.masked_fill(old == -1, -100)


# Lesson 10, exercise 3: positions_loss(log_p, positions, ids, weights)

POSITIONS = "check_positions_loss"


def _nll(log_p, positions, ids):
    return -log_p[torch.arange(len(log_p)).unsqueeze(1), positions, ids]


@mistake(POSITIONS, "weights unused", "the mean over every entry")
def _(log_p, positions, ids, weights):
    return _nll(log_p, positions, ids).mean()


@mistake(POSITIONS, "mean of what is weighted", "they are still counted")
def _(log_p, positions, ids, weights):
    return (weights * _nll(log_p, positions, ids)).mean()


@mistake(POSITIONS, "sum", "That is the sum")
def _(log_p, positions, ids, weights):
    return (weights * _nll(log_p, positions, ids)).sum()


@mistake(POSITIONS, "sign", "That is the mean of log p")
def _(log_p, positions, ids, weights):
    return -(weights * _nll(log_p, positions, ids)).sum() / weights.sum()


@mistake(POSITIONS, "mean of row means", "mean of the means of the rows")
def _(log_p, positions, ids, weights):
    return ((weights * _nll(log_p, positions, ids)).sum(1) / weights.sum(1)).mean()


@mistake(POSITIONS, "positions unused", "You scored the first positions")
def _(log_p, positions, ids, weights):
    first = torch.arange(ids.shape[1]).expand_as(ids)
    return (weights * _nll(log_p, first, ids)).sum() / weights.sum()


@mistake(POSITIONS, "one number for each entry", "a tensor of shape (2, 3)")
def _(log_p, positions, ids, weights):
    return weights * _nll(log_p, positions, ids)


# Lesson 06, exercise 1: masked_accuracy(logits, labels)

ACCURACY = "check_masked_accuracy"


def _hits(logits, labels):
    return logits.argmax(dim=-1) == labels


@mistake(ACCURACY, "over all positions", "divided by the number of all positions")
def _(logits, labels):
    return _hits(logits, labels).float().mean().item()


@mistake(ACCURACY, "ignored counted as right", "counts the ignored positions as right")
def _(logits, labels):
    return (_hits(logits, labels) | (labels == -100)).float().mean().item()


@mistake(ACCURACY, "count", "how many are right")
def _(logits, labels):
    return _hits(logits, labels).sum().item()


@mistake(ACCURACY, "percentage", "is a percentage")
def _(logits, labels):
    return 100 * _hits(logits, labels)[labels != -100].float().mean().item()


@mistake(ACCURACY, "error rate", "share of wrong guesses")
def _(logits, labels):
    return 1 - _hits(logits, labels)[labels != -100].float().mean().item()


@mistake(ACCURACY, "mean over rows", "mean over the rows")
def _(logits, labels):
    scored = labels != -100
    return ((_hits(logits, labels) & scored).sum(1) / scored.sum(1)).mean().item()


@mistake(ACCURACY, "labels above 0", "drops a label of 0")
def _(logits, labels):
    return _hits(logits, labels)[labels > 0].float().mean().item()


@mistake(ACCURACY, "shifted as in a causal model", "does not shift")
def _(logits, labels):
    return _hits(logits[:, :-1], labels[:, 1:])[labels[:, 1:] != -100].float().mean().item()


@mistake(ACCURACY, "lowest logit", "lowest logit")
def _(logits, labels):
    return _hits(-logits, labels)[labels != -100].float().mean().item()


@mistake(ACCURACY, "labels changed", "changes a tensor")
def _(logits, labels):
    scored = labels != -100
    share = _hits(logits, labels)[scored].float().mean().item()
    labels[~scored] = 0
    return share


@mistake(ACCURACY, "one for each position", "returns a tensor of shape")
def _(logits, labels):
    return _hits(logits, labels)[labels != -100].float()


# Lesson 06, exercise 2: evaluate_batches(model, batches)

EVALUATE = "check_evaluate_batches"


def _evaluate(model, batches, finish=None, mode=False, keep_mode=True, gradients=False):
    """Evaluate as the reference does; ``finish(token losses by batch, hits by batch)`` returns."""
    was_training = model.training
    model.train(was_training if mode is None else mode)
    losses, ranks = [], []
    with torch.set_grad_enabled(gradients):
        for input_ids, labels in batches:
            scored = labels != -100
            logits = model(input_ids=input_ids).logits[scored]
            answers = labels[scored]
            losses.append(torch.nn.functional.cross_entropy(logits, answers, reduction="none"))
            ranks.append((logits > logits.gather(1, answers.unsqueeze(1))).sum(dim=1))
    if keep_mode:
        model.train(was_training)
    every, rank = torch.cat(losses).detach(), torch.cat(ranks)
    right = every.mean().item(), every.mean().exp().item(), (rank < 5).float().mean().item()
    return finish(right, losses, rank) if finish else right


@mistake(EVALUATE, "mean of batch means", "mean of the losses of the batches")
def _(model, batches):
    def finish(right, losses, rank):
        mean = torch.stack([part.mean() for part in losses]).mean()
        return mean.item(), mean.exp().item(), right[2]

    return _evaluate(model, batches, finish)


@mistake(EVALUATE, "sum", "sum over all labels")
def _(model, batches):
    return _evaluate(model, batches, lambda r, losses, _: (torch.cat(losses).sum(), *r[1:]))


@mistake(EVALUATE, "last batch", "last batch alone")
def _(model, batches):
    return _evaluate(model, batches[-1:])


@mistake(EVALUATE, "divided by all positions", "divided by the number of all positions. Only the")
def _(model, batches):
    def finish(right, losses, rank):
        loss = torch.cat(losses).sum() / sum(labels.numel() for _, labels in batches)
        return loss, loss.exp(), right[2]

    return _evaluate(model, batches, finish)


@mistake(EVALUATE, "dropout on", "its dropout is on")
def _(model, batches):
    return _evaluate(model, batches, mode=None)


@mistake(EVALUATE, "perplexity of each label", "mean of exp(loss) over the labels")
def _(model, batches):
    def finish(right, losses, rank):
        return right[0], torch.cat(losses).exp().mean(), right[2]

    return _evaluate(model, batches, finish)


@mistake(EVALUATE, "perplexity of each batch", "mean of the perplexities of the batches")
def _(model, batches):
    def finish(right, losses, rank):
        return right[0], torch.stack([part.mean().exp() for part in losses]).mean(), right[2]

    return _evaluate(model, batches, finish)


@mistake(EVALUATE, "two to the loss", "It is exp(loss)")
def _(model, batches):
    return _evaluate(model, batches, lambda r, *_: (r[0], 2 ** r[0], r[2]))


@mistake(EVALUATE, "first place", "counts first places")
def _(model, batches):
    return _evaluate(model, batches, lambda r, _, rank: (*r[:2], (rank < 1).float().mean()))


@mistake(EVALUATE, "hits over all positions", "Your third number is divided by")
def _(model, batches):
    positions = sum(labels.numel() for _, labels in batches)
    return _evaluate(model, batches, lambda r, _, rank: (*r[:2], (rank < 5).sum() / positions))


@mistake(EVALUATE, "count of hits", "third number is a count")
def _(model, batches):
    return _evaluate(model, batches, lambda r, _, rank: (*r[:2], (rank < 5).sum()))


@mistake(EVALUATE, "left in eval mode", "comes back in another mode")
def _(model, batches):
    return _evaluate(model, batches, keep_mode=False)


@mistake(EVALUATE, "gradients", "gradients are tracked")
def _(model, batches):
    return _evaluate(model, batches, gradients=True)


@mistake(EVALUATE, "the loss alone", "Return three numbers")
def _(model, batches):
    return _evaluate(model, batches)[0]


# Lesson 07, exercise 1: repair_batch(batch, original)

REPAIR = "check_repair_batch"


def _repaired(batch, labels):
    rest = {name: value for name, value in batch.items() if name != "masked_lm_labels"}
    return {**rest, "labels": labels}


@mistake(REPAIR, "the old name", "and no `labels`")
def _(batch, original):
    return {
        **batch,
        "masked_lm_labels": torch.where(batch["masked_lm_labels"] == -1, -100, original),
    }


@mistake(REPAIR, "both names", "still there beside `labels`")
def _(batch, original):
    return {**batch, "labels": torch.where(batch["masked_lm_labels"] == -1, -100, original)}


@mistake(REPAIR, "minus one", "-1 marks what is not scored")
def _(batch, original):
    old = batch["masked_lm_labels"]
    return _repaired(batch, torch.where(old == -1, -1, original))


@mistake(REPAIR, "copied answers", "copied after masking")
def _(batch, original):
    old = batch["masked_lm_labels"]
    return _repaired(batch, old.masked_fill(old == -1, -100))


@mistake(REPAIR, "only the label 103", "the random token that was put there")
def _(batch, original):
    old = batch["masked_lm_labels"]
    return _repaired(batch, torch.where(old == 103, original, old.masked_fill(old == -1, -100)))


@mistake(REPAIR, "only where [MASK] stands", "Only the [MASK] positions")
def _(batch, original):
    return _repaired(batch, torch.where(batch["input_ids"] == 103, original, -100))


@mistake(REPAIR, "everything", "Every position has a label now")
def _(batch, original):
    return _repaired(batch, original.clone())


@mistake(REPAIR, "only where the ids differ", "The label at row 1, position 4 is -100")
def _(batch, original):
    return _repaired(batch, torch.where(batch["input_ids"] == original, -100, original))


@mistake(REPAIR, "in place", "changes the batch or the ids")
def _(batch, original):
    old = batch.pop("masked_lm_labels")
    batch["labels"] = torch.where(old == -1, -100, original)
    return batch


@mistake(REPAIR, "the labels alone", "returns Tensor")
def _(batch, original):
    return torch.where(batch["masked_lm_labels"] == -1, -100, original)


@mistake(REPAIR, "the text unmasked", "another input_ids")
def _(batch, original):
    labels = torch.where(batch["masked_lm_labels"] == -1, -100, original)
    return {**_repaired(batch, labels), "input_ids": original.clone()}


# Lesson 07, exercise 2: diagnose_unknown(batch, tokenizer)

UNKNOWN = "check_diagnose_unknown"


def _diagnose_with(function, batch, tokenizer, code="unk-labelled", severity="warning", needs=None):
    """Diagnose with ``function(case)``, which says where, registered for this call."""
    from mlmtutor.doctor import RULES, Problem, rule, diagnose

    @rule(code, severity, needs=("labels", "tokenizer") if needs is None else needs)
    def unk_labelled(case):
        where = function(case)
        return Problem("labels are [UNK]", "set them to -100", where) if where.any() else None

    try:
        return diagnose(batch, tokenizer)
    finally:
        del RULES[code]


def _unk_labels(case):
    return case.labels == case.tokenizer.unk_token_id


@mistake(UNKNOWN, "stays registered", "stays registered")
def _(batch, tokenizer):
    from mlmtutor.doctor import Problem, rule, diagnose

    @rule("unk-labelled", "warning", needs=("labels", "tokenizer"))
    def unk_labelled(case):
        where = _unk_labels(case)
        return Problem("labels are [UNK]", "set them to -100", where) if where.any() else None

    return diagnose(batch, tokenizer)


@mistake(UNKNOWN, "clears the table", "Checks of mlmtutor are missing")
def _(batch, tokenizer):
    from mlmtutor.doctor import RULES

    try:
        return _diagnose_with(_unk_labels, batch, tokenizer)
    finally:
        RULES.clear()


@mistake(UNKNOWN, "nothing of its own", "has no finding, and none is `unk-labelled`")
def _(batch, tokenizer):
    from mlmtutor.doctor import diagnose

    return diagnose(batch, tokenizer)


@mistake(UNKNOWN, "another code", "has the findings ['unknown']")
def _(batch, tokenizer):
    return _diagnose_with(_unk_labels, batch, tokenizer, code="unknown")


@mistake(UNKNOWN, "an error", "of severity 'error'")
def _(batch, tokenizer):
    return _diagnose_with(_unk_labels, batch, tokenizer, severity="error")


@mistake(UNKNOWN, "the input", "An [UNK] that is not scored")
def _(batch, tokenizer):
    return _diagnose_with(
        lambda case: case.input_ids == case.tokenizer.unk_token_id, batch, tokenizer
    )


@mistake(UNKNOWN, "the input where it is scored", "misses it")
def _(batch, tokenizer):
    return _diagnose_with(
        lambda case: case.scored & (case.input_ids == case.tokenizer.unk_token_id),
        batch,
        tokenizer,
    )


@mistake(UNKNOWN, "the whole row", "has the positions ((0, 0), (0, 1)")
def _(batch, tokenizer):
    return _diagnose_with(
        lambda case: _unk_labels(case).any(dim=1, keepdim=True).expand_as(case.labels),
        batch,
        tokenizer,
    )


@mistake(UNKNOWN, "no needs", "On a batch without labels the check failed")
def _(batch, tokenizer):
    return _diagnose_with(_unk_labels, batch, tokenizer, needs=())


@mistake(UNKNOWN, "no positions", "has no positions")
def _(batch, tokenizer):
    from mlmtutor.doctor import RULES, Problem, rule, diagnose

    @rule("unk-labelled", "warning", needs=("labels", "tokenizer"))
    def unk_labelled(case):
        count = int(_unk_labels(case).sum())
        return Problem(f"{count} labels are [UNK]", "set them to -100") if count else None

    try:
        return diagnose(batch, tokenizer)
    finally:
        del RULES["unk-labelled"]


@mistake(UNKNOWN, "the findings alone", "returns tuple")
def _(batch, tokenizer):
    return _diagnose_with(_unk_labels, batch, tokenizer).findings


@mistake(UNKNOWN, "only its own check", "The other checks do not run")
def _(batch, tokenizer):
    from mlmtutor.doctor import Diagnosis

    own = _diagnose_with(_unk_labels, batch, tokenizer).findings
    return Diagnosis(tuple(finding for finding in own if finding.code == "unk-labelled"))


# Lesson 08, exercise 1: part_loss(logits, labels, num_items_in_batch)

PART = "check_part_loss"


def _sum(logits, labels):
    return torch.nn.functional.cross_entropy(
        logits.view(-1, logits.shape[-1]), labels.view(-1), reduction="sum"
    )


@mistake(PART, "mean of the part", "Each part is divided by its own number")
def _(logits, labels, num_items_in_batch):
    return _sum(logits, labels) / (labels != -100).sum()


@mistake(PART, "sum", "Nothing divides it")
def _(logits, labels, num_items_in_batch):
    return _sum(logits, labels)


@mistake(PART, "divided twice", "divided twice")
def _(logits, labels, num_items_in_batch):
    return _sum(logits, labels) / (labels != -100).sum() / num_items_in_batch


@mistake(PART, "all positions", "the number of all positions")
def _(logits, labels, num_items_in_batch):
    return _sum(logits, labels) / (3 * labels.numel())


@mistake(PART, "number of parts", "the number of parts")
def _(logits, labels, num_items_in_batch):
    return _sum(logits, labels) / 3


@mistake(PART, "ignored positions scored", "scores the ignored positions")
def _(logits, labels, num_items_in_batch):
    return _sum(logits, labels.clamp(min=0)) / num_items_in_batch


@mistake(PART, "one loss for each position", "a loss for each position")
def _(logits, labels, num_items_in_batch):
    return torch.nn.functional.cross_entropy(logits, labels, reduction="none") / num_items_in_batch


@mistake(PART, "no gradient", "without a gradient")
def _(logits, labels, num_items_in_batch):
    return (_sum(logits, labels) / num_items_in_batch).item()


@mistake(PART, "nan without labels", "gives nan")
def _(logits, labels, num_items_in_batch):
    count = (labels != -100).sum()
    return _sum(logits, labels) / count * count / num_items_in_batch


@mistake(PART, "nothing returned", "returns None")
def _(logits, labels, num_items_in_batch):
    _sum(logits, labels)


# Lesson 08, exercise 2: process_share(total, counts, rank)

SHARE = "check_process_share"


@mistake(SHARE, "own count", "a mean of means")
def _(total, counts, rank):
    return total / counts[rank]


@mistake(SHARE, "number of processes forgotten", "Multiply by it first")
def _(total, counts, rank):
    return total / sum(counts)


@mistake(SHARE, "sum", "divided by a number of labels")
def _(total, counts, rank):
    return total


@mistake(SHARE, "own count, and the number of processes", "Divide by the count of all")
def _(total, counts, rank):
    return total * len(counts) / counts[rank]


@mistake(SHARE, "processes alone", "twice in the end")
def _(total, counts, rank):
    return total / len(counts)


@mistake(SHARE, "weighted sum", "weighs each sum by its count")
def _(total, counts, rank):
    return total * counts[rank] / sum(counts)


@mistake(SHARE, "largest count", "the largest count")
def _(total, counts, rank):
    return total * len(counts) / max(counts)


@mistake(SHARE, "the same in each process", "scale its own sum")
def _(total, counts, rank):
    return 2.25


# Lesson 09, exercise 1: corpus_perplexity(scores)

CORPUS = "check_corpus_perplexity"


def _flat(scores):
    return [value for sentence in scores for value in sentence]


@mistake(CORPUS, "mean of perplexities", "mean of the perplexities of the sentences")
def _(scores):
    return sum(math.exp(-sum(row) / len(row)) for row in scores) / len(scores)


@mistake(CORPUS, "mean of means", "mean of the means of the sentences")
def _(scores):
    return math.exp(-sum(sum(row) / len(row) for row in scores) / len(scores))


@mistake(CORPUS, "divided by the sentences", "You divide by the number of sentences")
def _(scores):
    return math.exp(-sum(_flat(scores)) / len(scores))


@mistake(CORPUS, "sign", "The sign is missing")
def _(scores):
    return math.exp(sum(_flat(scores)) / len(_flat(scores)))


@mistake(CORPUS, "loss", "the mean of -log p, the loss")
def _(scores):
    return -sum(_flat(scores)) / len(_flat(scores))


@mistake(CORPUS, "base 2", "You raise 2 to the loss")
def _(scores):
    return 2 ** (-sum(_flat(scores)) / len(_flat(scores)))


@mistake(CORPUS, "total", "You take exp of the total")
def _(scores):
    return math.exp(-sum(_flat(scores)))


@mistake(CORPUS, "in place", "changes the list")
def _(scores):
    first = scores.pop()
    for row in scores:
        first = first + row
    return math.exp(-sum(first) / len(first))


@mistake(CORPUS, "one number for each sentence", "a tensor of shape (2,)")
def _(scores):
    return torch.tensor([math.exp(-sum(row) / len(row)) for row in scores])


# Lesson 09, exercise 2: hidden_with_word(word_ids)

HIDDEN = "check_hidden_with_word"


def _matrix(word_ids, hide, rows=None):
    """Return the matrix whose entry at token i, position j is hide(i, j, same word)."""
    rows = [i for i, word in enumerate(word_ids) if word is not None] if rows is None else rows
    columns = range(len(word_ids))
    return torch.tensor([[hide(i, j, word_ids[i] == word_ids[j]) for j in columns] for i in rows])


@mistake(HIDDEN, "one token", "One token is hidden in each row")
def _(word_ids):
    return _matrix(word_ids, lambda i, j, same: i == j)


@mistake(HIDDEN, "whole word", "The whole word is hidden")
def _(word_ids):
    return _matrix(word_ids, lambda i, j, same: same)


@mistake(HIDDEN, "earlier pieces", "You hide the earlier pieces")
def _(word_ids):
    return _matrix(word_ids, lambda i, j, same: same and j <= i)


@mistake(HIDDEN, "the token itself visible", "the model reads the answer")
def _(word_ids):
    return _matrix(word_ids, lambda i, j, same: same and j > i)


@mistake(HIDDEN, "all that follows", "Everything from the scored token on")
def _(word_ids):
    return _matrix(word_ids, lambda i, j, same: j >= i)


@mistake(HIDDEN, "the next piece alone", "You hide one later piece")
def _(word_ids):
    return _matrix(word_ids, lambda i, j, same: same and i <= j <= i + 1)


@mistake(HIDDEN, "visible", "the wrong way round")
def _(word_ids):
    return _matrix(word_ids, lambda i, j, same: not (same and j >= i))


@mistake(HIDDEN, "rows for special tokens", "Your matrix has a row for each position")
def _(word_ids):
    rows = range(len(word_ids))
    return _matrix(word_ids, lambda i, j, same: same and j >= i, rows)


@mistake(HIDDEN, "no columns for special tokens", "a column for each position")
def _(word_ids):
    columns = [i for i, word in enumerate(word_ids) if word is not None]
    return _matrix(word_ids, lambda i, j, same: same and j >= i)[:, columns]


@mistake(HIDDEN, "numbers", "has dtype torch.int64")
def _(word_ids):
    return _matrix(word_ids, lambda i, j, same: int(same and j >= i))
