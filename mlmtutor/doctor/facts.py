"""One batch, read once: what every rule asks for, or ``None`` where it could not be read."""

import difflib
import inspect
import itertools
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any

import torch

from mlmtutor.labels import IGNORE_INDEX

OLD_NAMES = ("masked_lm_labels", "lm_labels", "mlm_labels", "label", "label_ids", "targets")
# The loss takes no labels of these, and -100 or large ids do not fit into them, or not exactly.
TOO_SMALL = (torch.bool, torch.uint8, torch.int8, torch.float16, torch.bfloat16)


def get(owner: Any, name: str, default: Any = None) -> Any:
    """Read an attribute of whatever was given; an attribute that raises is not there."""
    try:
        return getattr(owner, name, default)
    except Exception:
        return default


def unwrapped(model: Any) -> Any:
    """The model inside DataParallel, DDP, ``torch.compile`` and PEFT."""
    for _ in range(4):
        inner = get(model, "_orig_mod")
        if inner is None and get(model, "get_input_embeddings") is None:
            inner = get(model, "module")
        if inner is None and "peft" in type(model).__module__:
            inner = model.get_base_model()
        if not isinstance(inner, torch.nn.Module):
            break
        model = inner
    return model


def starts(where: torch.Tensor) -> torch.Tensor:
    """The first position of each run of True in a row."""
    return where & ~torch.nn.functional.pad(where, (1, 0))[:, :-1]


def most_common(values: torch.Tensor) -> tuple[int, int]:
    """The most common value of a tensor that isn't empty, and how often it occurs."""
    found, counts = values.unique(return_counts=True)
    return int(found[counts.argmax()]), int(counts.max())


class Memory:
    """What the earlier batches of a list looked like, for the rules that compare batches."""

    def __init__(self) -> None:
        self.masks: dict[bytes, list[bytes]] = {}  # by text: where its tokens were scored
        self.pattern: Any = None  # by place: 1 scored, 0 not, -1 never text; None after a conflict
        self.batches = 0
        self.is_prompt = True

    def add(self, case: "Case") -> None:
        """Remember a batch."""
        if case.labels is None:
            return
        for text, mask in case.rows():
            self.masks.setdefault(text, []).append(mask)
        now = torch.where(case.maskable, case.scored.to(torch.int8), -1)
        if self.batches == 0:
            self.pattern = now
        elif self.pattern is not None:
            self.pattern = None if self.agreeing(now) is None else torch.maximum(self.pattern, now)
        self.batches += 1
        self.is_prompt = self.is_prompt and case.is_prompt

    def agreeing(self, now: torch.Tensor) -> int | None:
        """How many positions are masked as in every earlier batch; ``None`` if one isn't."""
        if self.pattern is None or self.pattern.shape != now.shape:
            return None
        both = (self.pattern >= 0) & (now >= 0)
        return None if (self.pattern != now)[both].any() else int(both.sum())


class Case:
    """One batch as the rules see it. Shapes are (rows, columns); ``None`` is what isn't known.

    Everything is read when it is first asked for, so that what can't be read stops one rule only.

    Attributes:
        given: what was given.
        batch: the same, or an empty mapping if it was not one.
        is_mapping: whether it was one.
        keys: its keys.
        tokenizer: what was given; ``None`` if it isn't a tokenizer.
        model: what was given, unwrapped; ``None`` if it isn't a model.
        whole_word: ``True`` if whole words were asked for, else ``None``.
        policy: the recipe that the batch was made by, or ``None``.
        earlier: what is remembered of the batches before this one, or ``None``.
        label_key: the key under which the labels were found.
        unread: why a value could not be read, by key.
        input_ids: int64.
        labels: int64, of the shape of ``input_ids``.
        visible: bool, where ``attention_mask`` lets some query of the text look.
        mask_id: the id of the tokenizer's mask token.
        pad_id: the id of its padding token.
        unk_id: the id of its unknown token.
        rows_in: the number of ids that the model can read.
        rows_out: the number of ids that the model can score, or else that the tokenizer has.
    """

    def __init__(
        self,
        batch: Any,
        tokenizer: Any = None,
        model: Any = None,
        whole_word: bool = False,
        policy: Any = None,
        earlier: Memory | None = None,
    ) -> None:
        self.given: Any = batch
        self.batch: Any = {}
        self.unread: dict[str, str] = {}
        self.keys: list[Any] = []
        self.is_mapping = False
        try:
            self.keys = list(batch.keys())
            self.batch, self.is_mapping = batch, True
        except Exception:  # not a mapping, a class of one, or one that cannot be read
            self.keys = []
        for key in map(str, self.keys):  # such as mlm_input_ids, which mlm_labels belong to
            name = key.removesuffix("input_ids") + "labels"
            if key.endswith("_input_ids") and name in self.keys:
                given = {other: self.raw(other) for other in self.keys}
                self.batch = {**given, "input_ids": given[key], "labels": given[name]}
        self.given_tokenizer, self.given_model = tokenizer, model
        if get(tokenizer, "all_special_ids") is None and get(tokenizer, "tokenizer") is not None:
            tokenizer = tokenizer.tokenizer  # a processor
        is_text = isinstance(tokenizer, str | type | torch.nn.Module)
        is_tokenizer = not is_text and get(tokenizer, "all_special_ids") is not None
        self.tokenizer: Any = tokenizer if is_tokenizer else None
        is_model = not isinstance(model, type) and callable(get(model, "forward"))
        self.model: Any = unwrapped(model) if is_model else None
        self.whole_word = True if whole_word else None
        self.policy, self.earlier = policy, earlier
        self.mask_id: Any = get(self.tokenizer, "mask_token_id")
        self.pad_id: Any = get(self.tokenizer, "pad_token_id")
        self.unk_id: Any = get(self.tokenizer, "unk_token_id")

    def why_not(self, need: str) -> str | None:
        """Say why an attribute is ``None``; ``None`` where nobody asked for it."""
        if need in ("mask_id", "pad_id", "tokenizer"):
            if self.tokenizer is None:
                return "no tokenizer given"
            return f"the tokenizer has no {need.replace('_id', '_token_id')}"
        return {
            "input_ids": "the input_ids could not be read",
            "labels": "there are no readable labels of masked tokens, of the shape of input_ids",
            "model": "no model given",
            "rows_in": "no model given" if self.model is None else "the model has no embeddings",
            "rows_out": "neither a tokenizer nor a model given",
        }.get(need)

    def raw(self, key: str) -> Any:
        """Return what the batch holds under ``key``, or ``None``."""
        try:
            return self.batch[key] if key in self.batch else None  # noqa: SIM401  no get() everywhere
        except Exception as error:
            self.unread[key] = f"reading it raised {type(error).__name__}"
            return None

    def tensor(self, key: str) -> torch.Tensor | None:
        """Return a value as a tensor on the CPU, of whatever dtype, or ``None``."""
        value = self.raw(key)
        if value is None:
            return None
        try:
            if isinstance(value, str | bytes):
                raise TypeError(f"it is a {type(value).__name__}")
            if isinstance(value, list | tuple) and value and isinstance(value[0], torch.Tensor):
                value = torch.stack(list(value))
            result = torch.as_tensor(value).detach()
            dense = result.layout is torch.strided and not (result.is_meta or result.is_nested)
            if not dense or result.is_quantized or "float8" in str(result.dtype):
                raise TypeError("it is not a dense tensor of plain numbers")
            return result.cpu()
        except Exception as error:
            self.unread[key] = str(error).split("\n")[0] or type(error).__name__
            return None

    def ids(self, key: str) -> torch.Tensor | None:
        """Return a value as int64 on the CPU, or ``None``."""
        values = self.tensor(key)
        if values is None or values.numel() == 0:
            return None if values is None else values.long()
        reason = ""
        if values.is_complex() or values.dtype in TOO_SMALL:
            reason = f"{values.dtype} cannot hold ids"
        elif values.is_floating_point() and not values.isfinite().all():
            reason = f"{int((~values.isfinite()).sum())} values are nan or infinite"
        elif values.is_floating_point() and (values != values.round()).any():
            reason = "it holds fractions"
        if reason:
            self.unread[key] = reason
            return None
        return values.long()

    @cached_property
    def input_ids(self) -> Any:  # noqa: D102  see Attributes
        ids = self.ids("input_ids")
        if ids is not None and ids.dim() == 1:
            ids = ids.unsqueeze(0)
        return ids if ids is None or ids.dim() == 2 else None

    @cached_property
    def label_key(self) -> str | None:  # noqa: D102
        size = None if self.input_ids is None else self.input_ids.shape
        keys = [key for key in self.keys if isinstance(key, str)]
        close = difflib.get_close_matches("labels", [key.lower() for key in keys], cutoff=0.75)
        raw = self.raw("labels")
        if raw is not None and (size is None or tuple(get(raw, "shape", size)) != (size[0],)):
            return "labels"  # and not classes of sentences beside labels of another name
        for key in [*OLD_NAMES, *keys]:
            if key not in keys or key in ("input_ids", "labels") or key.lower().endswith("mask"):
                continue
            unread = dict(self.unread)
            value = self.tensor(key)
            self.unread = unread
            if value is None:
                continue
            old = key in OLD_NAMES[:3]  # no other task has had these names
            named = key in OLD_NAMES or key.lower() in close or "label" in key.lower()
            fits = size is not None and value.numel() == size.numel()
            if (old and raw is None) or (fits and (named or bool((value == IGNORE_INDEX).any()))):
                return key
        return None if raw is None else "labels"

    @cached_property
    def discriminates(self) -> bool:
        """Whether the model tells replaced tokens from others, as the second half of ELECTRA."""
        kind = type(self.model)
        own = kind.__module__.startswith("transformers.models.")
        of_two = own and kind.__name__.endswith("ForPreTraining")
        return of_two and "BCEWithLogitsLoss" in inspect.getsource(kind.forward)

    @cached_property
    def decodes(self) -> bool:
        """Whether the labels are the text that a decoder writes, as in BART, and not answers."""
        return get(get(self.model, "config"), "is_encoder_decoder") is True

    @cached_property
    def labels(self) -> Any:  # noqa: D102
        if self.discriminates or self.decodes:
            return None
        labels = None if self.label_key is None else self.ids(self.label_key)
        if labels is not None and labels.dim() == 1:
            labels = labels.unsqueeze(0)
        if labels is None or self.input_ids is None or self.input_ids.numel() == 0:
            return None
        return labels if labels.shape == self.input_ids.shape else None

    @cached_property
    def visible(self) -> Any:  # noqa: D102
        ids, given = self.input_ids, self.raw("attention_mask")
        if given is None or ids is None or ids.numel() == 0:
            return None
        if isinstance(given, Mapping):  # ModernBERT takes one mask for each kind of attention
            parts = [
                Case({**self.batch, "attention_mask": part}).visible for part in given.values()
            ]
            return None if not parts or None in parts else torch.stack(parts).any(dim=0)
        if get(given, "mask_mod") is not None:
            return self._visible_in_block_mask(given.mask_mod)
        mask = self.tensor("attention_mask")
        if mask is None or mask.numel() == 0 or not 1 <= mask.dim() <= 4:
            return None
        added = mask.is_floating_point() and bool((mask < 0).any() or not (mask > 0).any())
        mask = mask > -1 if added else mask != 0
        if mask.dim() > 2:  # which query sees which key: the queries of padding don't count
            mask = mask.any(dim=1) if mask.dim() == 4 else mask
            if mask.shape[-2] == ids.shape[-1] and self.pad_id is not None:
                mask = mask & (ids != self.pad_id).unsqueeze(-1)
            mask = mask.any(dim=-2)
        if mask.dim() == 1:
            mask = mask.unsqueeze(0)
        if mask.shape[-1] != ids.shape[-1] or mask.shape[0] not in (1, ids.shape[0]):
            return None
        return mask.expand_as(ids)

    def _visible_in_block_mask(self, sees: Any) -> Any:
        """What the text may see by a ``BlockMask``: mostly each token itself, so few are asked."""
        rows, length = self.input_ids.shape
        row, key = (torch.arange(n) for n in (rows, length))
        pads = self.input_ids == (-1 if self.pad_id is None else self.pad_id)
        try:
            visible = sees(row[:, None], 0, key, key).expand(rows, length).clone()
            for at, column in (~visible | pads).nonzero().tolist():
                visible[at, column] = bool(sees(row[at], 0, key[~pads[at]], key[column]).any())
        except Exception as error:
            self.unread["attention_mask"] = f"its mask_mod raised {type(error).__name__}"
            return None
        return visible

    def _rows_of(self, table: str) -> int | None:
        try:
            return int(getattr(self.model, table)().weight.shape[0])
        except Exception:
            return None

    @cached_property
    def rows_in(self) -> int | None:  # noqa: D102
        return self._rows_of("get_input_embeddings")

    @cached_property
    def rows_out(self) -> int | None:  # noqa: D102
        rows = self._rows_of("get_output_embeddings")
        if rows is None:
            rows = get(get(self.model, "config"), "vocab_size")
        if rows is not None:
            return rows if isinstance(rows, int) else None
        try:  # one more than the largest id: the ids of some tokenizers have gaps
            size = len(self.tokenizer)
            if any(int(x.max()) >= size for x in (self.input_ids, self.labels) if x is not None):
                size = max(size, 1 + max(self.tokenizer.get_vocab().values()))
            return size
        except Exception:
            return None

    # What follows is only asked for where input_ids, and mostly labels, could be read.

    @cached_property
    def padded(self) -> Any:
        """Where the input is padding: hidden by ``attention_mask``, or the padding token."""
        return self._padding_in(self.input_ids)

    @cached_property
    def padding(self) -> Any:
        """Where the original is padding: under the masks too."""
        return self._padding_in(self.original)

    def _padding_in(self, ids: torch.Tensor) -> torch.Tensor:
        pads = torch.zeros_like(ids, dtype=torch.bool) if self.visible is None else ~self.visible
        return pads if self.pad_id is None else pads | (ids == self.pad_id)

    @cached_property
    def ignored(self) -> tuple[int, int]:
        """The values that stand for "not scored", on text and on padding: -100 where healthy."""
        hidden = self.padded if self.visible is None else ~self.visible
        return self._ignored_on(~self.padded), self._ignored_on(hidden, least=3)

    def _ignored_on(self, where: torch.Tensor, least: int = 0) -> int:
        """What most labels are where the input shows another token than the label.

        Healthy labels differ from a visible token only where it was drawn at random.
        """
        labels, ids = self.labels[where], self.input_ids[where]
        if (labels == -1).any():
            return -1
        odd = (labels >= 0) & (labels != ids)
        if self.rows_out is not None:
            odd = odd & (labels < self.rows_out)
        if odd.any():
            mask = most_common(ids[odd])[0] if self.mask_id is None else self.mask_id
            odd = odd & (ids != mask)
        if not odd.any():
            return IGNORE_INDEX
        value, count = most_common(labels[odd])
        never = value == 0 or value in self.special_ids.tolist()  # as an answer
        enough = count >= least and count > (0.3 if never else 0.5) * len(labels)
        return value if enough else IGNORE_INDEX

    @cached_property
    def scored(self) -> Any:
        """Where the label was meant as an answer: an id, and not the value for "ignore"."""
        on_text, on_padding = self.ignored
        ignored = torch.where(self.padded, on_padding, on_text)
        answers = (self.labels >= 0) & (self.labels != ignored) & (self.labels != on_text)
        return answers if self.rows_out is None else answers & (self.labels < self.rows_out)

    @cached_property
    def original(self) -> Any:
        """The ids before masking, as far as the labels tell."""
        if self.labels is None:
            return self.input_ids
        return torch.where(self.scored, self.labels, self.input_ids)

    @cached_property
    def special_ids(self) -> torch.Tensor:
        """The ids of all special tokens of the tokenizer."""
        return torch.tensor(get(self.tokenizer, "all_special_ids") or [], dtype=torch.int64)

    @cached_property
    def pad_means_more(self) -> bool:
        """Whether the padding token also ends sentences, as with ``pad_token = eos_token``."""
        names = ("eos_token_id", "sep_token_id", "cls_token_id", "bos_token_id", "unk_token_id")
        return any(get(self.tokenizer, name) == self.pad_id for name in names)

    @cached_property
    def special(self) -> Any:
        """Where the original is a special token."""
        return torch.isin(self.original, self.special_ids)

    @cached_property
    def maskable(self) -> Any:
        """Where a masker may select: text, neither padding nor a special token."""
        return ~(self.special | self.padding)

    @cached_property
    def masked(self) -> Any:
        """Where the model reads the mask token."""
        if self.mask_id is None:
            return torch.zeros_like(self.input_ids, dtype=torch.bool)
        return self.input_ids == self.mask_id

    @cached_property
    def kept(self) -> Any:
        """Where the model reads the very token that it has to answer."""
        return self.scored & (self.input_ids == self.labels)

    @cached_property
    def chosen(self) -> Any:
        """The text that is scored: what rates and shares are about."""
        return self.scored & self.maskable

    @cached_property
    def is_cloze(self) -> bool:
        """Whether blanks were set, not drawn: one place in each row, or equally many [MASK]."""
        if self.mask_id is None or (self.scored & ~self.masked).any():
            return bool((self.scored.sum(dim=1) == 1).all())
        blanks, tokens = starts(self.scored).sum(dim=1), self.scored.sum(dim=1)
        alike = len(tokens) > 1 and bool((tokens == tokens[0]).all())
        return bool((blanks > 0).all()) and (alike or bool((blanks == 1).all()))

    @cached_property
    def is_prompt(self) -> bool:
        """Whether each row has one or two blanks: then they stand at one place on purpose."""
        return self.is_cloze and bool((starts(self.scored).sum(dim=1) <= 2).all())

    @cached_property
    def is_diffusion(self) -> bool:
        """Whether rows are masked at rates of their own, all by [MASK], as in masked diffusion."""
        real = ~self.padding
        text, chosen = real.sum(dim=1).double(), (self.scored & real).sum(dim=1).double()
        if self.mask_id is None or (self.scored & ~self.masked).any() or not chosen.any():
            return False
        rate = float(chosen.sum() / text.sum())
        spread = ((chosen - rate * text) ** 2 / (text * rate * (1 - rate) + 1e-9)).sum()
        rows = len(text) - 1  # degrees of freedom of a chi-square, if all rows had one rate
        nearly_all = ((chosen >= 0.8 * text) & (text > 3)).any()
        return rate > 0.45 or bool(nearly_all or spread > rows + 4 * (2 * rows) ** 0.5 > 0)

    @cached_property
    def words(self) -> Any:
        """The number of the word that each position belongs to, counted in its row; -1 for none."""
        words = torch.full_like(self.original, -1)
        for row, ids in enumerate(self.original.tolist()):
            text = self.maskable[row]
            for start in starts(text.unsqueeze(0))[0].nonzero().flatten().tolist():
                stop = start + int(text[start:].int().cumprod(dim=0).sum())
                numbers = self._word_ids(ids[start:stop])
                if numbers is not None:
                    words[row, start:stop] = torch.tensor(numbers) + start
        return words

    def _word_ids(self, ids: list[int]) -> list[int] | None:
        """The tokenizer's own words: what it makes of the text of the ids, if that's the same."""
        tokens = self.tokenizer.convert_ids_to_tokens(ids)
        if any(str(token).startswith("##") for token in tokens):
            begins = (not token.startswith("##") for token in tokens)
            return list(itertools.accumulate(begins, initial=0))[1:]
        try:
            text = self.tokenizer.decode(ids, clean_up_tokenization_spaces=False)
            for spaced in (text, " " + text, "".join(tokens)):
                again = self.tokenizer(spaced, add_special_tokens=False)
                if again["input_ids"] == ids:
                    return [-1 if word is None else word for word in again.word_ids()]
        except Exception:  # a tokenizer in Python has no words
            return None
        return None

    def rows(self) -> Iterable[tuple[bytes, bytes]]:
        """The text of each row, and where it is scored, without padding."""
        parts = (self.original.numpy(), self.scored.numpy(), (~self.padding).numpy())
        for text, scored, real in zip(*parts, strict=True):
            yield text[real].tobytes(), scored[real].tobytes()
