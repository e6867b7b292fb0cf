"""One batch, read once: what every check asks for, or ``None`` where it could not be read."""

import difflib
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import torch

from mlmtutor.labels import IGNORE_INDEX

OLD_NAMES = ("masked_lm_labels", "lm_labels", "mlm_labels", "label", "label_ids", "targets")
# The loss takes no labels of these, and -100 or large ids do not fit into them, or not exactly.
TOO_SMALL = (torch.bool, torch.uint8, torch.int8, torch.float16, torch.bfloat16)


def _get(owner: Any, name: str, default: Any = None) -> Any:
    """Read an attribute of whatever was given; an attribute that raises is not there."""
    try:
        return getattr(owner, name, default)
    except Exception:
        return default


class Case:
    """One batch as the checks see it. Shapes are (rows, columns); ``None`` is what is not known.

    Attributes:
        given: what was given.
        batch: the same, or an empty mapping if it was not one.
        is_mapping: whether it was one.
        keys: its keys.
        tokenizer: what was given.
        model: what was given.
        whole_word: ``True`` if whole words were asked for, else ``None``.
        earlier: the cases of the batches before this one, or ``None``.
        label_key: the key under which the labels were found.
        unread: why a value could not be read, by key.
        input_ids: int64.
        labels: int64, of the shape of ``input_ids``.
        visible: bool, where ``attention_mask`` is not 0 for some query.
        mask_id: the id of the tokenizer's mask token.
        pad_id: the id of its padding token.
        rows_in: the number of ids that the model can read.
        rows_out: the number of ids that the model can score, or else that the tokenizer has.
    """

    def __init__(
        self,
        batch: Any,
        tokenizer: Any = None,
        model: Any = None,
        whole_word: bool = False,
        earlier: "list[Case] | None" = None,
    ) -> None:
        self.given = batch
        self.batch: Mapping[Any, Any] = {}
        self.keys: list[Any] = []
        self.is_mapping = False
        if isinstance(batch, Mapping) or _get(batch, "keys") is not None:
            try:
                self.keys = list(batch.keys())
                self.batch, self.is_mapping = batch, True
            except Exception:  # a class, or a mapping that cannot be read
                self.keys = []
        self.tokenizer = tokenizer
        self.model = _get(model, "module", model)  # what DataParallel and DDP wrap
        self.whole_word = True if whole_word else None
        self.earlier = earlier or None
        self.mask_id: Any = _get(tokenizer, "mask_token_id")
        self.pad_id: Any = _get(tokenizer, "pad_token_id")
        self.unread: dict[str, str] = {}

        self.input_ids: Any = self.ids("input_ids")
        if self.input_ids is not None and self.input_ids.dim() == 1:
            self.input_ids = self.input_ids.unsqueeze(0)
        if self.input_ids is not None and self.input_ids.dim() != 2:
            self.unread["input_ids"] = f"it has {self.input_ids.dim()} dimensions, not 2"
            self.input_ids = None
        self.label_key = self._find_labels()
        self.labels: Any = None if self.label_key is None else self.ids(self.label_key)
        if self.labels is not None and self.labels.dim() == 1:
            self.labels = self.labels.unsqueeze(0)
        if (
            self.input_ids is None
            or self.input_ids.numel() == 0
            or (self.labels is not None and self.labels.shape != self.input_ids.shape)
        ):
            self.labels = None
        self.visible: Any = self._visibility()
        self.rows_in, self.rows_out = self._vocabulary()

    def why_not(self, need: str) -> str | None:
        """Say why an attribute is ``None``; ``None`` where nobody asked for it."""
        if need in ("mask_id", "pad_id", "tokenizer"):
            if self.tokenizer is None:
                return "no tokenizer given"
            return f"the tokenizer has no {need.replace('_id', '_token_id')}"
        return {
            "input_ids": "the input_ids could not be read",
            "labels": "there are no readable labels of the shape of input_ids",
            "visible": "the batch has no readable attention_mask",
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
        if value is None or (key == "attention_mask" and isinstance(value, Mapping)):
            return None  # ModernBERT takes one mask for each kind of attention, ready made
        try:
            if isinstance(value, str | bytes):
                raise TypeError(f"it is a {type(value).__name__}")
            if isinstance(value, list | tuple) and value and isinstance(value[0], torch.Tensor):
                value = torch.stack(list(value))
            result = torch.as_tensor(value).detach()
            if result.is_meta:
                raise TypeError("it is on the meta device, which holds no values")
            if result.is_nested:
                raise TypeError("it is a nested tensor, whose rows have different lengths")
            if result.layout is not torch.strided:
                raise TypeError("it is a sparse tensor, which no embedding takes: use .to_dense()")
            if result.is_floating_point() and result.element_size() == 1:
                raise TypeError(
                    f"{result.dtype} is a dtype for storage, with which torch cannot count"
                )
            return result.cpu()
        except Exception as error:
            self.unread[key] = str(error).split("\n")[0] or type(error).__name__
            return None

    def ids(self, key: str) -> torch.Tensor | None:
        """Return a value as int64 on the CPU, or ``None``."""
        values = self.tensor(key)
        if values is None or values.numel() == 0:
            return None if values is None else values.long()
        if values.is_complex() or values.dtype in TOO_SMALL:
            self.unread[key] = f"{values.dtype} cannot hold ids"
            return None
        if values.is_floating_point() and not values.isfinite().all():
            self.unread[key] = f"{int((~values.isfinite()).sum())} values are nan or infinite"
            return None
        if values.is_floating_point() and (values != values.round()).any():
            self.unread[key] = "it holds fractions"
            return None
        return values.long()

    def _find_labels(self) -> str | None:
        if self.raw("labels") is not None:
            return "labels"
        keys = [key for key in self.keys if isinstance(key, str)]
        shape = None if self.input_ids is None else self.input_ids.numel()
        close = difflib.get_close_matches("labels", [key.lower() for key in keys], cutoff=0.75)
        for key in [*OLD_NAMES, *keys]:
            if key not in keys or key == "input_ids" or key.lower().endswith("mask"):
                continue
            unread = dict(self.unread)
            value = self.tensor(key)
            self.unread = unread
            if value is None:
                continue
            old = key in OLD_NAMES[:3]  # no other task has had these names
            named = key in OLD_NAMES or key.lower() in close or "label" in key.lower()
            if old or (value.numel() == shape and (named or bool((value == IGNORE_INDEX).any()))):
                return key
        return None

    def _visibility(self) -> torch.Tensor | None:
        mask = self.tensor("attention_mask")
        if mask is None or self.input_ids is None or mask.dim() == 0 or mask.numel() == 0:
            return None
        mask = mask > -1 if mask.is_floating_point() and (mask < 0).any() else mask != 0
        if mask.dim() in (3, 4):  # packed sequences: which query sees which key
            mask = mask.flatten(1, -2).any(dim=1)
        if mask.dim() == 1:
            mask = mask.unsqueeze(0)
        columns_fit = mask.shape[-1] == self.input_ids.shape[-1]
        if not columns_fit or mask.shape[0] not in (1, self.input_ids.shape[0]):
            return None
        return mask.expand_as(self.input_ids)

    def _vocabulary(self) -> tuple[int | None, int | None]:
        rows_in: int | None
        rows_out: int | None
        try:
            rows_in = int(self.model.get_input_embeddings().weight.shape[0])
        except Exception:
            rows_in = None
        try:
            rows_out = int(self.model.get_output_embeddings().weight.shape[0])
        except Exception:
            rows_out = _get(_get(self.model, "config"), "vocab_size")
        if rows_out is None and self.tokenizer is not None:
            rows_out = self._tokenizer_size()
        return rows_in, rows_out

    def _tokenizer_size(self) -> int | None:
        """One more than the largest id: the ids of some tokenizers have gaps."""
        try:
            size = len(self.tokenizer)
            largest = max(
                int(ids.max()) for ids in (self.input_ids, self.labels) if ids is not None
            )
            if largest >= size:
                size = max(size, 1 + max(self.tokenizer.get_vocab().values()))
            return size
        except Exception:
            return None

    # What follows is only asked for where input_ids, and mostly labels, could be read.

    @cached_property
    def ignored_value(self) -> int:
        """What the labels use for "not scored": -100, or -1, or the id of [PAD] (or 0)."""
        labels, ids = self.labels, self.input_ids
        if (labels == -1).any():
            return -1
        if not (labels == IGNORE_INDEX).any():
            for value in (int(self.pad_id or 0), 0):
                if ((labels == value) & (ids != value)).sum() > 0.5 * (ids != value).sum():
                    return value
        return IGNORE_INDEX

    @cached_property
    def scored(self) -> Any:
        """Where the label was meant as an answer: an id, and not the value for "ignore"."""
        labels = self.labels
        answers = (labels >= 0) & (labels != self.ignored_value)
        return answers if self.rows_out is None else answers & (labels < self.rows_out)

    @cached_property
    def original(self) -> Any:
        """The ids before masking, as far as the labels tell."""
        return (
            self.input_ids
            if self.labels is None
            else torch.where(self.scored, self.labels, self.input_ids)
        )

    @cached_property
    def special_ids(self) -> torch.Tensor:
        """The ids of all special tokens of the tokenizer."""
        return torch.tensor(list(getattr(self.tokenizer, "all_special_ids", [])), dtype=torch.int64)

    @cached_property
    def pad_means_more(self) -> bool:
        """Whether the padding token also ends sentences, as with ``pad_token = eos_token``."""
        names = ("eos_token_id", "sep_token_id", "cls_token_id", "bos_token_id", "unk_token_id")
        return any(getattr(self.tokenizer, name, None) == self.pad_id for name in names)

    @cached_property
    def padding(self) -> Any:
        """Where the batch is padded: hidden by ``attention_mask``, or the padding token."""
        hidden = torch.zeros_like(self.original, dtype=torch.bool)
        if self.visible is not None:
            hidden = ~self.visible
        return hidden if self.pad_id is None else hidden | (self.original == self.pad_id)

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
    def is_cloze(self) -> bool:
        """Whether blanks were set, not drawn: one place in each row, or equally many [MASK]."""
        if self.mask_id is None or (self.scored & ~self.masked).any():
            return bool((self.scored.sum(dim=1) == 1).all())
        before = torch.nn.functional.pad(self.scored, (1, 0))[:, :-1]
        blanks, tokens = (self.scored & ~before).sum(dim=1), self.scored.sum(dim=1)
        alike = len(tokens) > 1 and bool((tokens == tokens[0]).all())
        return bool((blanks > 0).all()) and (alike or bool((blanks == 1).all()))

    @cached_property
    def kept(self) -> Any:
        """Where the model reads the very token that it has to answer."""
        return self.scored & (self.input_ids == self.labels)
