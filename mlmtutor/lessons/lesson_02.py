"""What lesson 02 needs: its two exercises and its two figures."""

import html
from typing import Any

import torch

from mlmtutor.figure import COLOURS, PALE, TEXT, Figure, cells, drawing, finish
from mlmtutor.lessons.exercise import CHANGED, Function, exercise
from mlmtutor.model import load_tutor

# The figures: how a word is cut, and what the four masks move

STEPS = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 720 {height}" width="720"
 height="{height}" font-family="DejaVu Sans, Arial, sans-serif" font-size="19">
<rect width="100%" height="100%" fill="white"/>{rows}</svg>"""


def shrinking_window(word, pieces) -> Figure:
    """Draw what WordPiece looks up on its way to the pieces of a word, a row for each try."""
    tries, start, rows = [], 0, ""
    for piece in pieces:
        prefix = "##" if start else ""
        end = start + len(piece.removeprefix(prefix))
        for stop in range(len(word), end - 1, -1):
            tries.append((start, stop, prefix + word[start:stop], stop == end))
        start = end
    for row, (first, stop, text, found) in enumerate(tries):
        colour, y = COLOURS["right" if found else "wrong"], 46 * row
        for i, letter in enumerate(word):
            fill, ink = (colour, "white") if first <= i < stop else (PALE, TEXT)
            rows += f'<rect x="{40 * i}" y="{y}" width="39" height="40" fill="{fill}"/>'
            rows += f'<text x="{40 * i + 20}" y="{y + 27}" text-anchor="middle" fill="{ink}">'
            rows += f"{html.escape(letter)}</text>"
        said = f"✓ {text}: in the vocabulary" if found else f"✗ {text}: no"
        rows += f'<text x="{40 * len(word) + 20}" y="{y + 27}" fill="{colour}">'
        rows += f"{html.escape(said)}</text>"
    looked_up = ", ".join(f"{text} ({'found' if found else 'no'})" for *_, text, found in tries)
    return Figure(
        STEPS.format(height=46 * len(tries) + 4, rows=rows),
        alt=f"WordPiece looks up, in this order: {looked_up}. So {word} becomes "
        f"{' and '.join(pieces)}.",
        caption="The window shrinks from the right until the vocabulary has what it shows; then "
        "it opens again over the rest of the word.",
    )


def four_masks(batch, tokenizer, moved) -> Figure:
    """Draw four masks of one row, and whether each moves the logits, the loss, the choice."""
    row = {name: tensor[0] for name, tensor in batch.items()}
    tokens, says = tokenizer.convert_ids_to_tokens(row["input_ids"].tolist()), []
    results = {"logits": 55, "loss": 62, "choice": 68.5}
    canvas, axes = drawing(72, 43)
    for i, token in enumerate(tokens):
        axes.text(2 + 4.1 * i, 8, token, rotation=40, rotation_mode="anchor", color=TEXT)
    for x, y, name in ((62, 2.5, "a change moves the"), *((x, 6.5, n) for n, x in results.items())):
        axes.text(x, y, name, ha="center", color=TEXT, weight="bold", size=12)
    for y, name, what, look, on in (
        (9, "input_ids", " == [MASK]", "replaced", row["input_ids"] == tokenizer.mask_token_id),
        (17.6, "attention_mask", "", "right", row["attention_mask"] == 1),
        (26.2, "special_tokens_mask", "", "special", row["special_tokens_mask"] == 1),
        (34.8, "labels", " != -100", "scored", row["labels"] != -100),
    ):
        axes.text(0, y + 1.5, name + what, va="center", color=TEXT, size=12)
        looks = [look if here else "pale" for here in on]
        cells(axes, 0, y + 3.2, [""] * len(tokens), looks, width=4.1, height=3.6)
        for x, moves in zip(results.values(), moved[name], strict=True):
            axes.plot(x, y + 5, "o", ms=14, mec=TEXT, mfc=TEXT if moves else "white")
        where = ", ".join(map(str, on.nonzero().flatten().tolist()))
        moves = " and ".join(f"the {r}" for r, m in zip(results, moved[name], strict=True) if m)
        says.append(f"{name}{what} is on at {where} and moves {moves}")
    return finish(canvas, alt=f"Four strips over {len(tokens)} positions. {'; '.join(says)}.",
        caption="Coloured: where each mask is on. ● a change of the mask moves this, ○ it doesn't. "
        "The choice: which positions a masker may pick.")  # fmt: skip


# The exercise


def _sentences():
    _, tokenizer = load_tutor()
    return [
        (tokenizer, "She poured him a cup of tea.", "tea"),
        (tokenizer, "Snow fell on our snowman.", "snowman"),
        (tokenizer, "Bookshops open late.", "Bookshops"),
    ]


class _Case:
    """A sentence whose word is to be hidden, and what an answer made of it."""

    def __init__(self, tokenizer, sentence, word, found=None):
        encoded = tokenizer(sentence, return_offsets_mapping=True, return_tensors="pt")
        first, last = encoded["offset_mapping"].unbind(-1)
        start = sentence.index(word)
        self.tokenizer, self.sentence, self.word, self.found = tokenizer, sentence, word, found
        self.ids, self.mask = encoded["input_ids"], tokenizer.mask_token_id
        self.inside = (first >= start) & (last <= start + len(word)) & (first < last)
        self.input_ids, self.labels = self.hide(self.inside)
        self.one_id = tokenizer.convert_tokens_to_ids(word)  # [UNK] where the word has pieces
        count = int(self.inside.sum())
        self.where = f"In {sentence!r}, {word!r} has {count} piece{'' if count == 1 else 's'}"

    def hide(self, inside):
        """Return input and labels that hide and score the same positions."""
        return self.ids.masked_fill(inside, self.mask), self.ids.masked_fill(~inside, -100)

    def among(self, text):
        """Return where an id of the sentence is one of those of a text."""
        ids = self.tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
        return torch.isin(self.ids, ids)

    def one_mask(self):
        """Return input and labels with one [MASK] for the word."""
        masked = self.sentence.replace(self.word, self.tokenizer.mask_token)
        ids = self.tokenizer(masked, return_tensors="pt")["input_ids"]
        return ids, torch.where(ids == self.mask, self.one_id, -100)

    def tokens(self, where):
        """Return the tokens at some positions."""
        return self.tokenizer.convert_ids_to_tokens(self.ids[where].tolist())

    @property
    def besides(self):
        """The first position that the answer hides and that isn't part of the word."""
        where = (self.found[0] == self.mask) & ~self.inside
        position = int(where[0].int().argmax())
        return (
            f"{self.tokens(where)[0]!r} at position {position} of {self.sentence!r} is hidden too"
        )

    @property
    def read(self):
        """The pieces of the word that the answer doesn't hide."""
        return " ".join(self.tokens(self.inside & (self.found[0] != self.mask)))


@exercise(
    cases=_sentences,
    says="Every piece of the word is hidden and labelled, and nothing else is.",
    returns=("input_ids", "labels"),
    hint="Each id of the sentence keeps its position in one row, and each piece of the word "
    "becomes one [MASK].",
    of=lambda *case: (_Case(*case),),
)
def check_mask_word(tokenizer, sentence, word):
    """mask_word(tokenizer, sentence, word): (input_ids, labels) that hide and score the word."""
    case = _Case(tokenizer, sentence, word)
    return case.input_ids, case.labels


def _told(template):
    """Return a message that fills in what a case says."""
    return lambda *case: template.format(c=_Case(*case), shape=tuple(case[-1][0].shape))


said_of_words: dict[str, Any] = {
    "{c.where}, and you put one [MASK] for all of them: the input has {shape[1]} positions, and "
    "the sentence has {c.ids.shape[1]}.": lambda c: c.one_mask(),
    "A label is {c.tokenizer.unk_token_id}, the id of [UNK]: convert_tokens_to_ids returns it for "
    "a word that isn't in the vocabulary. {c.where}, and each has its own id.":
        lambda c: (c.input_ids, torch.where(c.inside, c.one_id, -100)),
    "The labels of the word are {c.mask}, the id of [MASK]. The label is the piece that stood "
    "there before.": lambda c: (c.input_ids, c.input_ids.masked_fill(~c.inside, -100)),
    "Every position has its id as label, so every position is scored. Where nothing was hidden the "
    "label is -100.": lambda c: (c.input_ids, c.ids),
    "Your labels are the wrong way round: -100 stands at the pieces of the word, which are the "
    "ones to score.": lambda c: (c.input_ids, c.ids.masked_fill(c.inside, -100)),
    "{c.besides}, and doesn't belong to {c.word!r}. An id doesn't tell you which word it comes "
    "from; offsets do.": lambda c: c.hide(c.among(c.word)),
    "{c.where}. You hide the first one, and the model can still read {c.read}.":
        lambda c: c.hide(c.inside & (c.inside.cumsum(-1) == 1)),
    "{c.where}. You hide the last one, and the model can still read {c.read}.":
        lambda c: c.hide(c.inside & (c.inside.cumsum(-1) == c.inside.sum())),
    "Nothing is hidden: input_ids holds no [MASK]. The labels do not hide a word, the input does.":
        lambda c: (c.ids, c.labels),
    "{c.besides}. Leave the special tokens as they are: their offsets end where they start.":
        lambda c: c.hide(c.inside | c.among("[CLS] [SEP]")),
    "input_ids has shape {shape}: [CLS] and [SEP] are missing. BERT reads them around each "
    "sentence.": lambda c: (c.input_ids[:, 1:-1], c.labels[:, 1:-1]),
    "input_ids has shape {shape}. The model takes a batch: one row more, (1, {shape[0]}).":
        lambda c: (c.input_ids[0], c.labels[0]),
    "The other labels are 0, and the loss leaves out -100 alone: any other value is taken for the "
    "id of a token.": lambda c: (c.input_ids, c.ids.masked_fill(~c.inside, 0)),
    "The other labels are -1, and the loss leaves out -100 alone: any other value is taken for the "
    "id of a token.": lambda c: (c.input_ids, c.ids.masked_fill(~c.inside, -1)),
}  # fmt: skip
check_mask_word.wrong |= {_told(said): wrong for said, wrong in said_of_words.items()}


# The exercise of the deeper notebook


def _rows():
    roberta = [[0, 100, 3627, 4, 2], [0, 4758, 2]]  # pad_token_id isn't the 0 of BERT there
    bert = [[101, 2009, 102], [101, 1996, 4937, 2938, 2006, 1996, 102], [101, 2009, 7771, 102]]
    return [(roberta, 1), (bert, 0)]


@exercise(
    cases=_rows,
    says="Each row keeps its ids, and attention_mask is 1 at them and nowhere else.",
    returns=("input_ids", "attention_mask"),
    hint="There are as many columns as the longest row has ids: no id is lost, and no column is "
    "padding alone.",
    of=lambda rows, pad: (*_padded(rows, pad), rows, pad),
)
def check_pad_rows(rows, pad_token_id, columns=None):
    """pad_rows(rows, pad_token_id): (input_ids, attention_mask), padded on the right."""
    columns = columns or max(len(row) for row in rows)
    ids = [(list(row) + [pad_token_id] * columns)[:columns] for row in rows]
    mask = [([1] * len(row) + [0] * columns)[:columns] for row in rows]
    return torch.tensor(ids), torch.tensor(mask)


_padded: Function = check_pad_rows.right
check_pad_rows.wrong |= {
    "Your attention_mask is the wrong way round: 1 says that there is text to read, and 0 stands "
    "at the padding.": lambda ids, mask, *_: (ids, 1 - mask),
    "Your attention_mask is 1 everywhere: the model would read the padding as if it were text.":
        lambda ids, mask, *_: (ids, torch.ones_like(mask)),
    "Your short row stands at the right edge. The positions of BERT are counted from the left, and "
    "[CLS] has always been at position 0: pad on the right.":
        lambda ids, mask, *_: (ids.gather(1, mask.argsort(stable=True)), mask.sort().values),
    "input_ids is a list, and should be a tensor: the model takes no lists. `torch.tensor(...)` "
    "makes one.": lambda ids, mask, *_: (ids.tolist(), mask.tolist()),
    "Your function returns one tensor. It should return two: `return input_ids, attention_mask`.":
        lambda ids, mask, *_: ids,
    "attention_mask has dtype torch.float32, and should have torch.int64 (torch.long), as the "
    "tensors of the tokenizer do.": lambda ids, mask, *_: (ids, mask.float()),
    "The two tensors are exchanged: input_ids comes first.": lambda ids, mask, *_: (mask, ids),
    CHANGED: lambda ids, mask, rows, pad: rows[0].append(pad) or (ids, mask),
    "Your attention_mask is 0 at the first and the last id of each row, the special tokens. The "
    "model reads them as it reads words; only the padding gets a 0.":
        lambda ids, mask, *_: (ids, mask * ~torch.isin(ids, torch.tensor([0, 2, 101, 102]))),
    "You read off the padding as the ids that aren't 0. Padding is where a row has ended, and its "
    "id is pad_token_id.": lambda ids, mask, *_: (ids, (ids != 0).long()),
    lambda rows, pad, found: f"The padding holds 0. It should hold pad_token_id, which is {pad} "
    "here: not every vocabulary has [PAD] at the same place.":
        lambda ids, mask, rows, pad: _padded(rows, 0),
    lambda rows, pad, found: f"The padding holds -100. It should hold pad_token_id, which is {pad} "
    "here: not every vocabulary has [PAD] at the same place.":
        lambda ids, mask, rows, pad: _padded(rows, -100),
    lambda rows, pad, found: f"Your batch has {found[0].shape[1]} columns, as many as the shortest "
    f"row has ids, and cuts the others off. The longest row has {max(map(len, rows))}.":
        lambda ids, mask, rows, pad: _padded(rows, pad, min(map(len, rows))),
    lambda rows, pad, found: f"Your batch has {found[0].shape[1]} columns, as many as BERT has "
    f"positions. The longest row has {max(map(len, rows))} ids, and a column of padding alone "
    "costs time for nothing.": lambda ids, mask, rows, pad: _padded(rows, pad, 512),
}  # fmt: skip
