"""What lesson 02 needs: its two exercises and its two figures."""

import torch

from mlmtutor.figure import COLOURS, PALE, TEXT, Figure, box, drawing, finish, plain
from mlmtutor.lessons.exercise import CHANGED, exercise
from mlmtutor.model import load_tutor

# The figures: how a word is cut, and what the four masks move

LAMPS = (55, 62, 68.5)  # where the dots for logits, loss and choice stand


def shrinking_window(word, pieces) -> Figure:
    """Draw how WordPiece comes to the pieces of a word: what it looks up, in which order."""
    tries, start = [], 0
    for piece in pieces:
        prefix, end = "##" if start else "", start + len(piece.removeprefix("##" if start else ""))
        for stop in range(len(word), end - 1, -1):
            tries.append((start, stop, prefix + word[start:stop], stop == end))
        start = end
    canvas, axes = drawing(72, 4.6 * len(tries))
    for row, (first, stop, text, found) in enumerate(tries):
        colour, y = COLOURS["right" if found else "wrong"], 4.6 * row
        for i, letter in enumerate(word):
            fill = colour if first <= i < stop else PALE
            ink = TEXT if fill == PALE else "white"
            box(axes, 4 * i, y, letter, width=4, height=4, fill=fill, colour=ink, size=14)
        said = f"✓ {text}: in the vocabulary" if found else f"✗ {text}: no"
        axes.text(4 * len(word) + 2, y + 2, plain(said), va="center", color=colour, size=13)
    looked_up = ", ".join(f"{text} ({'found' if found else 'no'})" for *_, text, found in tries)
    return finish(
        canvas,
        alt=f"WordPiece looks up, in this order: {looked_up}. So {word} becomes "
        f"{' and '.join(pieces)}.",
        caption="The window shrinks from the right until the vocabulary has what it shows; then "
        "it opens again over the rest of the word.",
    )


def four_masks(batch, tokenizer, moved) -> Figure:
    """Draw the four masks of one sentence as strips, and what a change of each moves.

    Args:
        batch: one row, with input_ids, attention_mask, special_tokens_mask and labels.
        tokenizer: names the ids.
        moved: for each of these names, whether it moves the logits, the loss, the choice.
    """
    ids = batch["input_ids"][0]
    strips = {
        "input_ids": ("input_ids == [MASK]", "replaced", ids == tokenizer.mask_token_id),
        "attention_mask": ("attention_mask", "right", batch["attention_mask"][0] == 1),
        "special_tokens_mask": ("special_tokens_mask", "special", batch["special_tokens_mask"][0]),
        "labels": ("labels != -100", "scored", batch["labels"][0] != -100),
    }
    canvas, axes = drawing(72, 43)
    for i, token in enumerate(tokenizer.convert_ids_to_tokens(ids.tolist())):
        axes.text(2 + 4.1 * i, 8, token, rotation=40, rotation_mode="anchor", color=TEXT)
    axes.text(62, 2.5, "a change moves the", ha="center", color=TEXT, size=12)
    for x, name in zip(LAMPS, ("logits", "loss", "choice"), strict=True):
        axes.text(x, 6.5, name, ha="center", color=TEXT, weight="bold", size=12)
    for row, (key, strip) in enumerate(strips.items()):
        _strip(axes, 9 + 8.6 * row, *strip, moved[key])
    says = [
        f"{name} is on at {', '.join(str(i) for i, here in enumerate(on.tolist()) if here)} and "
        f"moves {_listed(moved[key])}"
        for key, (name, _, on) in strips.items()
    ]
    return finish(
        canvas,
        alt=f"Four strips over {len(ids)} positions. {'; '.join(says)}.",
        caption="Coloured: where each mask is on. A full dot: a change of this mask at one "
        "position moves the logits, the loss, or what a masker may choose.",
    )


def _strip(axes, y, name, colour, on, moved):
    """Draw one mask as a strip, and a full dot for each result that a change of it moves."""
    axes.text(0, y + 1.5, name, va="center", color=TEXT, size=12)
    for i, here in enumerate(on.tolist()):
        fill = COLOURS[colour] if here else PALE
        box(axes, 4.1 * i, y + 3.2, "", width=4.1, height=3.6, fill=fill)
    for x, moves in zip(LAMPS, moved, strict=True):
        fill = TEXT if moves else "white"
        axes.plot(x, y + 5, "o", markersize=14, markeredgecolor=TEXT, markerfacecolor=fill)


def _listed(moved):
    """Name what a change moves."""
    names = [n for n, m in zip(("the logits", "the loss", "the choice"), moved, strict=True) if m]
    return " and ".join(names)


# Exercise `mask_word`


def _sentences():
    _, tokenizer = load_tutor()
    return [
        (tokenizer, "She poured him a cup of tea.", "tea"),
        (tokenizer, "Snow fell on our snowman.", "snowman"),
        (tokenizer, "Bookshops open late.", "Bookshops"),
    ]


def _encode(tokenizer, sentence, word):
    """Return the ids of a sentence, and which of them are pieces of the word."""
    encoded = tokenizer(sentence, return_offsets_mapping=True, return_tensors="pt")
    first, last = encoded["offset_mapping"].unbind(-1)
    start = sentence.index(word)
    return encoded["input_ids"], (first >= start) & (last <= start + len(word)) & (first < last)


def _hide(tokenizer, ids, inside):
    """Return input and labels that hide and score the same positions."""
    return ids.masked_fill(inside, tokenizer.mask_token_id), ids.masked_fill(~inside, -100)


def _where(tokenizer, sentence, word):
    pieces = int(_encode(tokenizer, sentence, word)[1].sum())
    return f"In {sentence!r}, {word!r} has {pieces} piece{'' if pieces == 1 else 's'}"


def _hidden_besides(tokenizer, sentence, word, found):
    """Name the first position that is hidden and isn't part of the word."""
    ids, inside = _encode(tokenizer, sentence, word)
    position = int(((found[0] == tokenizer.mask_token_id) & ~inside)[0].nonzero()[0])
    return f"{tokenizer.convert_ids_to_tokens(int(ids[0, position]))!r} at position {position}"


def _still_read(tokenizer, sentence, word, found):
    """Name the pieces of the word that are still to be read."""
    ids, inside = _encode(tokenizer, sentence, word)
    read = ids[inside & (found[0] != tokenizer.mask_token_id)]
    return " ".join(tokenizer.convert_ids_to_tokens(read.tolist()))


@exercise(
    cases=_sentences,
    says="Every piece of the word is hidden and labelled, and nothing else is.",
    returns=("input_ids", "labels"),
    hint="Each id of the sentence keeps its position in one row, and each piece of the word "
    "becomes one [MASK].",
)
def check_mask_word(tokenizer, sentence, word):
    """mask_word(tokenizer, sentence, word): (input_ids, labels) that hide and score the word."""
    return _hide(tokenizer, *_encode(tokenizer, sentence, word))


@check_mask_word.mistake(
    lambda tokenizer, sentence, word, found: (
        f"{_where(tokenizer, sentence, word)}, and you put one [MASK] for all of them: the input "
        f"has {found[0].shape[1]} positions, and the sentence has "
        f"{_encode(tokenizer, sentence, word)[0].shape[1]}."
    )
)
def _(tokenizer, sentence, word):
    masked = sentence.replace(word, tokenizer.mask_token)
    ids = tokenizer(masked, return_tensors="pt")["input_ids"]
    label = tokenizer.convert_tokens_to_ids(word)
    return ids, torch.where(ids == tokenizer.mask_token_id, label, -100)


@check_mask_word.mistake(
    lambda tokenizer, sentence, word, found: (
        f"A label is {tokenizer.unk_token_id}, the id of [UNK]: convert_tokens_to_ids returns it "
        f"for a word that isn't in the vocabulary. {_where(tokenizer, sentence, word)}, and each "
        "has its own id."
    )
)
def _(tokenizer, sentence, word):
    ids, inside = _encode(tokenizer, sentence, word)
    label = tokenizer.convert_tokens_to_ids(word)
    return _hide(tokenizer, ids, inside)[0], torch.where(inside, label, -100)


@check_mask_word.mistake(
    lambda tokenizer, sentence, word, found: (
        f"The labels of the word are {tokenizer.mask_token_id}, the id of [MASK]. The label is "
        "the piece that stood there before."
    )
)
def _(tokenizer, sentence, word):
    ids, inside = _encode(tokenizer, sentence, word)
    masked, _ = _hide(tokenizer, ids, inside)
    return masked, masked.masked_fill(~inside, -100)


@check_mask_word.mistake(
    "Every position has its id as label, so every position is scored. Where nothing was hidden "
    "the label is -100."
)
def _(tokenizer, sentence, word):
    ids, inside = _encode(tokenizer, sentence, word)
    return _hide(tokenizer, ids, inside)[0], ids


@check_mask_word.mistake(
    "Your labels are the wrong way round: -100 stands at the pieces of the word, which are the "
    "ones to score."
)
def _(tokenizer, sentence, word):
    ids, inside = _encode(tokenizer, sentence, word)
    return _hide(tokenizer, ids, inside)[0], ids.masked_fill(inside, -100)


@check_mask_word.mistake(
    lambda tokenizer, sentence, word, found: (
        f"{_hidden_besides(tokenizer, sentence, word, found)} of {sentence!r} is hidden too, and "
        f"doesn't belong to {word!r}. An id doesn't tell you which word it comes from; offsets do."
    )
)
def _(tokenizer, sentence, word):
    ids, _ = _encode(tokenizer, sentence, word)
    pieces = tokenizer(word, add_special_tokens=False, return_tensors="pt")["input_ids"]
    return _hide(tokenizer, ids, torch.isin(ids, pieces))


for _first, _which in ((True, "first"), (False, "last")):

    @check_mask_word.mistake(
        lambda tokenizer, sentence, word, found, which=_which: (
            f"{_where(tokenizer, sentence, word)}. You hide the {which} one, and the model can "
            f"still read {_still_read(tokenizer, sentence, word, found)}."
        )
    )
    def _(tokenizer, sentence, word, first=_first):
        ids, inside = _encode(tokenizer, sentence, word)
        count = inside.cumsum(-1)
        return _hide(tokenizer, ids, inside & (count == (1 if first else count.max())))


@check_mask_word.mistake(
    "Nothing is hidden: input_ids holds no [MASK]. The labels do not hide a word, the input does."
)
def _(tokenizer, sentence, word):
    ids, inside = _encode(tokenizer, sentence, word)
    return ids, _hide(tokenizer, ids, inside)[1]


@check_mask_word.mistake(
    lambda tokenizer, sentence, word, found: (
        f"{_hidden_besides(tokenizer, sentence, word, found)} of {sentence!r} is hidden too. Leave "
        "the special tokens as they are: their offsets end where they start."
    )
)
def _(tokenizer, sentence, word):
    ids, inside = _encode(tokenizer, sentence, word)
    special = (ids == tokenizer.cls_token_id) | (ids == tokenizer.sep_token_id)
    return _hide(tokenizer, ids, inside | special)


@check_mask_word.mistake(
    lambda tokenizer, sentence, word, found: (
        f"input_ids has shape {tuple(found[0].shape)}: [CLS] and [SEP] are missing. BERT reads "
        "them around each sentence."
    )
)
def _(tokenizer, sentence, word):
    ids, inside = _encode(tokenizer, sentence, word)
    return _hide(tokenizer, ids[:, 1:-1], inside[:, 1:-1])


@check_mask_word.mistake(
    lambda tokenizer, sentence, word, found: (
        f"input_ids has shape {tuple(found[0].shape)}. The model takes a batch: one row more, "
        f"(1, {len(found[0])})."
    )
)
def _(tokenizer, sentence, word):
    ids, inside = _encode(tokenizer, sentence, word)
    return _hide(tokenizer, ids[0], inside[0])


for _value in (0, -1):

    @check_mask_word.mistake(
        f"The other labels are {_value}, and the loss leaves out -100 alone: any other value is "
        "taken for the id of a token."
    )
    def _(tokenizer, sentence, word, value=_value):
        ids, inside = _encode(tokenizer, sentence, word)
        return _hide(tokenizer, ids, inside)[0], ids.masked_fill(~inside, value)


# Exercise `pad_rows`


def _rows():
    roberta = [[0, 100, 3627, 4, 2], [0, 4758, 2]]  # pad_token_id isn't the 0 of BERT there
    bert = [[101, 2009, 102], [101, 1996, 4937, 2938, 2006, 1996, 102], [101, 2009, 7771, 102]]
    return [(roberta, 1), (bert, 0)]


def _padded(rows, pad_token_id, columns=None):
    columns = columns or max(len(row) for row in rows)
    ids = [(list(row) + [pad_token_id] * columns)[:columns] for row in rows]
    mask = [([1] * len(row) + [0] * columns)[:columns] for row in rows]
    return torch.tensor(ids), torch.tensor(mask)


@exercise(
    cases=_rows,
    says="Each row keeps its ids, and attention_mask is 1 at them and nowhere else.",
    returns=("input_ids", "attention_mask"),
    hint="There are as many columns as the longest row has ids: no id is lost, and no column is "
    "padding alone.",
)
def check_pad_rows(rows, pad_token_id):
    """pad_rows(rows, pad_token_id): (input_ids, attention_mask), padded on the right."""
    return _padded(rows, pad_token_id)


@check_pad_rows.mistake(
    "Your attention_mask is the wrong way round: 1 says that there is text to read, and 0 stands "
    "at the padding."
)
def _(rows, pad_token_id):
    ids, mask = _padded(rows, pad_token_id)
    return ids, 1 - mask


@check_pad_rows.mistake(
    "Your attention_mask is 1 everywhere: the model would read the padding as if it were text."
)
def _(rows, pad_token_id):
    ids, mask = _padded(rows, pad_token_id)
    return ids, torch.ones_like(mask)


for _value in (0, -100):

    @check_pad_rows.mistake(
        lambda rows, pad_token_id, found, value=_value: (
            f"The padding holds {value}. It should hold pad_token_id, which is {pad_token_id} "
            "here: not every vocabulary has [PAD] at the same place."
        )
    )
    def _(rows, pad_token_id, value=_value):
        return _padded(rows, value)


@check_pad_rows.mistake(
    "Your short row stands at the right edge. The positions of BERT are counted from the left, "
    "and [CLS] has always been at position 0: pad on the right."
)
def _(rows, pad_token_id):
    ids, mask = _padded([row[::-1] for row in rows], pad_token_id)
    return ids.flip(-1), mask.flip(-1)


@check_pad_rows.mistake(
    lambda rows, pad_token_id, found: (
        f"Your batch has {found[0].shape[1]} columns, as many as the shortest row has ids, and "
        f"cuts the others off. The longest row has {max(map(len, rows))}."
    )
)
def _(rows, pad_token_id):
    return _padded(rows, pad_token_id, min(len(row) for row in rows))


@check_pad_rows.mistake(
    lambda rows, pad_token_id, found: (
        f"Your batch has {found[0].shape[1]} columns, as many as BERT has positions. The longest "
        f"row has {max(map(len, rows))} ids, and a column of padding alone costs time for nothing."
    )
)
def _(rows, pad_token_id):
    return _padded(rows, pad_token_id, 512)


@check_pad_rows.mistake(
    "input_ids is a list, and should be a tensor: the model takes no lists. `torch.tensor(...)` "
    "makes one."
)
def _(rows, pad_token_id):
    ids, mask = _padded(rows, pad_token_id)
    return ids.tolist(), mask.tolist()


@check_pad_rows.mistake(
    "Your function returns one tensor. It should return two: `return input_ids, attention_mask`."
)
def _(rows, pad_token_id):
    return _padded(rows, pad_token_id)[0]


@check_pad_rows.mistake(
    "attention_mask has dtype torch.float32, and should have torch.int64 (torch.long), as the "
    "tensors of the tokenizer do."
)
def _(rows, pad_token_id):
    ids, mask = _padded(rows, pad_token_id)
    return ids, mask.float()


@check_pad_rows.mistake("The two tensors are exchanged: input_ids comes first.")
def _(rows, pad_token_id):
    return _padded(rows, pad_token_id)[::-1]


@check_pad_rows.mistake(CHANGED)
def _(rows, pad_token_id):
    padded = _padded(rows, pad_token_id)
    for row in rows:
        row += [pad_token_id] * (padded[0].shape[1] - len(row))
    return padded


@check_pad_rows.mistake(
    "Your attention_mask is 0 at the first and the last id of each row, the special tokens. The "
    "model reads them as it reads words; only the padding gets a 0."
)
def _(rows, pad_token_id):
    ids, mask = _padded(rows, pad_token_id)
    for row, given in enumerate(rows):
        mask[row, 0] = mask[row, len(given) - 1] = 0
    return ids, mask


@check_pad_rows.mistake(
    "You read off the padding as the ids that aren't 0. Padding is where a row has ended, and its "
    "id is pad_token_id."
)
def _(rows, pad_token_id):
    ids, _ = _padded(rows, pad_token_id)
    return ids, (ids != 0).long()
