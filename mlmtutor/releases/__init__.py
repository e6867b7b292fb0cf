"""How ``BertForMaskedLM`` took its labels, release by release, and what its errors mean.

The records are read from the released wheels by ``tools/label_history.py``, with the SHA-256 of
each wheel, and are stored in ``mlmtutor/releases/label_history.json``. What a few of the releases do
when they are called is stored beside it, in ``label_history_run.json``.
"""

import dataclasses
import importlib.resources
import json
import re
from collections.abc import Callable
from typing import Any


@dataclasses.dataclass(frozen=True)
class Notice:
    """What ``forward`` says when it is given a keyword that it used to know.

    Attributes:
        keyword: the old name, such as ``masked_lm_labels``.
        kind: the class of the warning, or ``AssertionError``.
        text: what it says.
    """

    keyword: str
    kind: str
    text: str


@dataclasses.dataclass(frozen=True)
class Release:
    """``BertForMaskedLM.forward`` in one released wheel.

    Attributes:
        package: ``pytorch-pretrained-bert``, ``pytorch-transformers`` or ``transformers``.
        version: the release.
        date: the day on which the newest file in the wheel was made, as ``2020-01-31``; ``None``
            where the wheel does not tell.
        sha256: the hash of the wheel that was read.
        file: the file in the wheel.
        arguments: the arguments of ``forward`` in order, without ``self``.
        keywords: ``**kwargs`` as written in the signature, or ``None``.
        labels: the argument that holds the labels.
        criterion: the loss as written, such as ``CrossEntropyLoss(ignore_index=-1)``.
        ignore_index: the label that is not scored.
        notices: what is said of old names.
        unknown_keyword: what becomes of a keyword that ``forward`` does not know: ``TypeError``,
            ``AssertionError``, or ``dropped`` without a word.
        output: what a call with labels returns by default: ``Tensor`` (the loss alone),
            ``tuple`` or ``MaskedLMOutput``.
        collator_key: the key under which ``DataCollatorForLanguageModeling`` of this release
            returns the labels; ``None`` where the release has no collator.
        collator_ignored: the label that the collator writes where nothing is scored.
        tensorflow_notice: the function with which a TensorFlow loss of this release warns of the
            label -1, or ``None``.
    """

    package: str
    version: str
    date: str | None
    sha256: str
    file: str
    arguments: tuple[str, ...]
    keywords: str | None
    labels: str
    criterion: str
    ignore_index: int
    notices: tuple[Notice, ...]
    unknown_keyword: str
    output: str
    collator_key: str | None
    collator_ignored: int | None
    tensorflow_notice: str | None

    def __str__(self) -> str:
        """Return the package and the version."""
        return f"{self.package} {self.version}"

    @property
    def position(self) -> int:
        """The place of the labels among the arguments; the first is 1."""
        return self.arguments.index(self.labels) + 1

    def takes(self, keyword: str) -> str:
        """Return what a call with this keyword does.

        Args:
            keyword: a name, such as ``masked_lm_labels``.

        Returns:
            ``accepted`` for an argument of ``forward``; the class of the warning with which an
            old name is still taken; ``TypeError`` or ``AssertionError`` where it is refused;
            ``dropped`` where it is taken and never used.
        """
        if keyword in self.arguments:
            return "accepted"
        for notice in self.notices:
            if notice.keyword == keyword:
                return notice.kind
        return self.unknown_keyword


def label_history() -> list[Release]:
    """Return the releases, oldest first.

    Example:
        >>> for release in label_history():
        ...     if release.version in ("2.3.0", "2.4.0", "4.0.0", "5.0.0"):
        ...         print(release, release.ignore_index, release.takes("masked_lm_labels"))
        transformers 2.3.0 -1 accepted
        transformers 2.4.0 -100 accepted
        transformers 4.0.0 -100 TypeError
        transformers 5.0.0 -100 dropped

    Source: the wheels of pytorch-pretrained-bert, pytorch-transformers and transformers; the
    change from -1 to -100 is transformers#2759, the new name transformers#4722.
    """
    releases = []
    for record in _read("label_history.json"):
        record["arguments"] = tuple(record["arguments"])
        record["notices"] = tuple(Notice(**notice) for notice in record["notices"])
        collator = record.pop("collator") or {"key": None, "ignored": None}
        record["collator_key"] = collator["key"]
        record["collator_ignored"] = collator["ignored"]
        releases.append(Release(**record))
    return releases


@dataclasses.dataclass(frozen=True)
class ObservedCall:
    """What one call of a small model did when a release was run.

    The labels held one id, and ``ignored`` elsewhere.

    Attributes:
        release: package and version.
        as_installed: True where the release ran with the packages that it asks for, False where
            what its tokenizers, downloads and trainer need was replaced by empty modules.
        keyword: the name under which the labels were passed.
        ignored: the label at the positions that were not to be scored.
        call: ``runs``, or the class and the text of the error.
        warnings: class and text of each warning about labels.
        output: the class of what came back, ``None`` after an error.
        loss: ``-log p(label)`` where the loss is right, ``None`` as a text where there is none,
            ``another number``; ``None`` after an error.
        logits: what ``outputs.logits`` did: ``runs``, or the class and the text of the error.
    """

    release: str
    as_installed: bool
    keyword: str
    ignored: int
    call: str
    warnings: tuple[str, ...]
    output: str | None = None
    loss: str | None = None
    logits: str | None = None


def observed_calls() -> list[ObservedCall]:
    """Return what some of the releases did when they were run, oldest release first.

    Example:
        >>> for call in observed_calls():
        ...     if call.release == "transformers 4.57.6" and call.ignored == -1:
        ...         print(f"{call.keyword}: {call.call[:38]}")
        masked_lm_labels: TypeError: BertForMaskedLM.forward() g
        labels: IndexError: Target -1 is out of bounds

    Source: ``python tools/label_history.py --run``.
    """
    calls = []
    for record in _read("label_history_run.json"):
        release = f"{record['package']} {record['version']}"
        for call in record["calls"]:
            call["warnings"] = tuple(call["warnings"])
            calls.append(ObservedCall(release, not record["stand_ins"], **call))
    return calls


def _read(name: str) -> list[dict[str, Any]]:
    """Return the records of one data file."""
    text = importlib.resources.files("mlmtutor.releases").joinpath(name).read_text("utf-8")
    records: list[dict[str, Any]] = json.loads(text)
    return records


@dataclasses.dataclass(frozen=True)
class Explanation:
    """What an error or a warning about labels means.

    Attributes:
        text: the text that was explained.
        known: whether the text is one of those that :func:`explain_error` knows.
        means: what happened.
        said_by: the releases in which it happens.
        fix: what to do.
        threads: where people met it.
    """

    text: str
    known: bool
    means: str
    said_by: str = ""
    fix: str = ""
    threads: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Return the explanation as a few lines."""
        parts = {"means": self.means, "said by": self.said_by, "do": self.fix}
        lines = [f"{name:8} {part}" for name, part in parts.items() if part]
        return "\n".join(lines + [f"see      {', '.join(self.threads)}"] * bool(self.threads))


def explain_error(error: BaseException | str) -> Explanation:
    """Say what an error or a warning about labels means, which releases say it, and what to do.

    Args:
        error: the exception or the warning, or its text: the last line of the traceback is
            enough. For a loss that is nan, the line of the log: ``"loss: nan"``.

    Returns:
        An :class:`Explanation`; ``print`` it. ``known`` is False for a text that is not about
        labels, or that this function has not met: it does not guess.

    Raises:
        TypeError: ``error`` is neither an exception nor a text.
        ValueError: the text is empty, or that of the exception cannot be read.

    Example:
        >>> print(explain_error("IndexError: Target -1 is out of bounds."))
        means    A label is -1. It is taken for the id of a token, and no token has it.
        said by  transformers 2.4.0 to 5.24.0; before, -1 was the label that is not scored
        do       Set the label to -100 where nothing is to be scored.
        see      transformers#2718, transformers#2737, happy-transformer#128

    Source: the texts are those that the released code raises; ``tests/test_history.py`` raises
    them again.
    """
    if isinstance(error, BaseException):
        try:
            text = f"{type(error).__name__}: {error}"
        except Exception as problem:
            raise ValueError(
                f"error must be an exception with a text, but reading it raised "
                f"{type(problem).__name__}: pass the last line of the traceback."
            ) from problem
    elif isinstance(error, str):
        text = error.strip()
    else:
        raise TypeError(
            f"error must be an exception or its text, but is a {type(error).__name__}: pass what "
            "`except ... as error` gives you, or the last line of the traceback."
        )
    if not text:
        raise ValueError("error is empty: pass the last line of the traceback.")
    for pattern, explain in _TEXTS:
        if match := re.search(pattern, text, re.I):
            return dataclasses.replace(explain(match), text=text, known=True)
    return Explanation(
        text,
        known=False,
        means="This text is not one of those that are known here, so no guess is made.",
        fix="If you suspect the labels, run one batch on the CPU and pass it to "
        "mlmtutor.doctor.diagnose.",
    )


def _span(where: Callable[[Release], bool]) -> str:
    """Name the releases for which ``where`` holds, as stretches from the first to the last."""
    stretches: list[list[Release]] = []
    before = False
    for release in label_history():
        if where(release):
            if not before:
                stretches.append([])
            stretches[-1].append(release)
        before = where(release)
    names = []
    for stretch in stretches:
        first, last = stretch[0], stretch[-1]
        end = last.version if first.package == last.package else str(last)
        names.append(str(first) if first is last else f"{first} to {end}")
    return ", ".join(names)


def _told(means: str, said_by: str, fix: str, *threads: str) -> Explanation:
    return Explanation("", True, means, said_by, fix, threads)


def _old_keyword(match: re.Match[str]) -> Explanation:
    keyword = match.group(1)
    means = f"This release has no argument `{keyword}`."
    if keyword == "masked_lm_labels":
        return _told(
            means + " It is the old name of `labels`.",
            _span(lambda r: r.takes("masked_lm_labels") == "TypeError")
            + "; in release 5 the name is dropped without a word, and the loss is None",
            "Write `labels=` and keep the values.",
            "1024er/cbert_aug#11",
            "princeton-nlp/OptiPrompt#3",
        )
    if keyword == "labels":
        return _told(
            means + " It was called `masked_lm_labels` there. Or the model has no head for this "
            "task, as BertModel has none.",
            _span(lambda r: r.takes("labels") == "TypeError"),
            "Upgrade transformers. Where you cannot, write `masked_lm_labels=`.",
            "transformers#5156",
            "transformers#4956",
        )
    if keyword == "lm_labels":
        return _told(
            means + " It held the labels of a causal model, which are shifted by one.",
            _span(lambda r: r.takes("lm_labels") == "TypeError"),
            "For a masked model use `labels=`; for a causal one use BertLMHeadModel.",
            "transformers#3066",
            "transformers#4874",
        )
    return _told(
        means + " Is it a misspelt `labels`?",
        _span(lambda r: r.takes(keyword) == "TypeError")
        + "; release 5 drops an unknown name without a word",
        "Write `labels=`. Remove what else the model does not know from the batch.",
        "transformers#5156",
    )


def _out_of_bounds(match: re.Match[str]) -> Explanation:
    target = int(match.group(1))
    minus_1 = _span(lambda r: r.ignore_index == -1)
    minus_100 = _span(lambda r: r.ignore_index == -100)
    if target == -1:
        return _told(
            "A label is -1. It is taken for the id of a token, and no token has it.",
            f"{minus_100}; before, -1 was the label that is not scored",
            "Set the label to -100 where nothing is to be scored.",
            "transformers#2718",
            "transformers#2737",
            "happy-transformer#128",
        )
    if target == -100:
        return _told(
            "A label is -100, and this loss was told to ignore another value.",
            f"{minus_1}, where that value is -1; later, a loss of your own with `ignore_index=`",
            "Upgrade transformers, or set the label to -1 there.",
            "transformers#2442",
            "transformers#2759",
        )
    if target < 0:
        return _told(
            f"A label is {target}. Only one negative label is allowed: the one that is ignored.",
            "every release; the text is PyTorch's",
            "Set the label to -100 where nothing is to be scored.",
            "transformers#2442",
        )
    return _told(
        f"A label is {target}, and the ids of the model end before it: the largest is "
        "config.vocab_size - 1.",
        "every release; the text is PyTorch's",
        "Compare len(tokenizer) with model.config.vocab_size. After adding tokens, call "
        "model.resize_token_embeddings(len(tokenizer)).",
        "transformers#5611",
        "transformers#2468",
    )


def _device_assert(match: re.Match[str]) -> Explanation:
    return _told(
        "A label is outside 0 ... vocab_size - 1 and is not the ignored value, or an input id is "
        "outside. A GPU reports it late and without the number.",
        "every release; -1 does it in " + _span(lambda r: r.ignore_index == -100),
        "Run the same batch on the CPU: it raises an IndexError that names the label. Then start "
        "a new process, since this one cannot use the GPU any more.",
        "transformers#2442",
        "1024er/cbert_aug#4",
        "transformers#10449",
    )


def _old_assert(match: re.Match[str]) -> Explanation:
    return _told(
        "A label is outside 0 ... vocab_size - 1 and is not the ignored value. Old releases of "
        "PyTorch do not name it.",
        "PyTorch of 2018 to 2020, on the CPU; -1 does it in transformers 2.4.0 and later, -100 "
        "before",
        "Print labels.unique() and look for a negative value that is not the ignored one.",
        "transformers#2719",
    )


def _no_attribute(match: re.Match[str]) -> Explanation:
    kind, name = match.group(1).title(), match.group(2)
    kind = {"Tuple": "tuple"}.get(kind, kind)
    output = {"tuple": "tuple", "Tensor": "Tensor"}[kind]
    means = {
        "tuple": "The output is a tuple: the loss first, if there were labels, then the logits.",
        "Tensor": "The output is the loss itself, or the logits if there were no labels.",
    }
    fix = {
        "tuple": "Upgrade, or pass return_dict=True from 3.1.0 on. With labels, outputs[0] is the "
        "loss and outputs[1] holds the logits.",
        "Tensor": "Call the model without labels to get the logits.",
    }
    return _told(
        f"{means[kind]} It has no name `{name}`.",
        _span(lambda r: r.output == output)
        + ("; later with return_dict=False" if kind == "tuple" else ""),
        fix[kind],
        "transformers#7638",
    )


def _deprecated(match: re.Match[str]) -> Explanation:
    return _told(
        "The labels were taken and the loss is right. The name is the old one.",
        _span(lambda r: r.takes("masked_lm_labels").endswith("Warning"))
        + "; hidden by default in 3.0.0, where it is a DeprecationWarning",
        "Write `labels=`: from 4.0.0 on the old name is an error, and from 5.0.0 on it is "
        "dropped without a word.",
        "transformers#4722",
    )


def _asserted(match: re.Match[str]) -> Explanation:
    return _told(
        "`forward` was given a keyword that it does not know: `lm_labels` of a causal model, or a "
        "misspelt name.",
        _span(lambda r: r.unknown_keyword == "AssertionError"),
        "Write `labels=` for a masked model. For a causal one use BertLMHeadModel.",
        "transformers#4874",
    )


def _tensorflow(match: re.Match[str]) -> Explanation:
    return _told(
        "A TensorFlow loss looks for the label -1, which it used to ignore. Where it warns with "
        "warnings.warn it also does so when no label is -1, because TensorFlow traces both "
        "branches.",
        _span(lambda r: r.tensorflow_notice is not None)
        + "; without any -1: "
        + _span(lambda r: r.tensorflow_notice == "warnings.warn"),
        "If no label is -1 there is nothing to repair. Otherwise write -100.",
        "transformers#7592",
        "transformers#15435",
    )


def _no_loss(match: re.Match[str]) -> Explanation:
    return _told(
        "The model returned no loss, because no labels reached it.",
        _span(lambda r: r.unknown_keyword == "dropped")
        + " for any misspelt name; "
        + _span(lambda r: r.output == "MaskedLMOutput")
        + " when there are no labels",
        "Look at the name: `labels`, not `masked_lm_labels`, `label` or `lm_labels`. Look into "
        "the batch: does the collator return labels?",
        "transformers#3315",
    )


def _nan(match: re.Match[str]) -> Explanation:
    return _told(
        "Every label of a batch is -100, so the loss is a mean over nothing: 0/0.",
        "every release that averages with CrossEntropyLoss",
        "Make sure that each batch has a label, or skip the batches without one: "
        "(labels != -100).any(). If there are labels, look for inf in the logits.",
        "transformers#16711",
        "pytorch#70348",
    )


def _decoding(match: re.Match[str]) -> Explanation:
    return _told(
        "-100 was passed to the tokenizer, and it is no id.",
        "every release with a fast tokenizer; the words differ",
        "Replace it first: labels.masked_fill(labels == -100, tokenizer.pad_token_id).",
        "transformers#22634",
        "transformers#24433",
    )


def _batch_size(match: re.Match[str]) -> Explanation:
    scored, given = match.groups()
    return _told(
        f"The model has logits at {scored} positions, and there are {given} labels. There must be "
        "one for each.",
        "every release; the text is PyTorch's",
        "Give labels the shape of input_ids. Were [CLS] and [SEP] left out, or padding, or did "
        "one [MASK] stand for a word of several pieces?",
        "transformers#3499",
    )


def _view(match: re.Match[str]) -> Explanation:
    return _told(
        "The labels are a slice of a larger tensor, and often of the wrong width too.",
        "every release that flattens the labels with view",
        "Compare labels.shape with input_ids.shape; then pass labels.contiguous().",
    )


def _dtype(match: re.Match[str]) -> Explanation:
    return _told(
        "The labels are not of dtype torch.int64.",
        "every release; the text is PyTorch's, and its words differ",
        "Pass labels.long(), and make -100 an int too.",
    )


def _input_index(match: re.Match[str]) -> Explanation:
    return _told(
        "An id in input_ids is outside the vocabulary, or the text is longer than the model "
        "allows. A label cannot cause this: are labels and input_ids exchanged?",
        "every release; the text is PyTorch's",
        "Look at input_ids.min(), input_ids.max() and the length; -100 belongs into labels alone.",
        "transformers#5611",
    )


def _place(match: re.Match[str]) -> Explanation:
    places: dict[int, Release] = {}
    for release in label_history():
        places.setdefault(release.position, release)
    since = ", ".join(f"{place} since {release}" for place, release in places.items())
    return _told(
        "A number that should pick a row of a table of positions or of words has no row there. "
        "Labels that are passed by place, without a name, land in another argument.",
        f"every release in which the labels have another place; it is {since}",
        "Pass everything after input_ids by name: labels=labels.",
    )


# In this order: a text is explained by the first pattern that is found in it.
_TEXTS: list[tuple[str, Callable[[re.Match[str]], Explanation]]] = [
    (r"unexpected keyword argument '(\w{0,99}?label\w{0,99})'", _old_keyword),
    (r"`masked_lm_labels` argument is deprecated", _deprecated),
    (r"Use `BertWithLMHead`|Unexpected keyword arguments: \[.{0,999}?label", _asserted),
    (r"Target (-?\d{1,20}) is out of bounds", _out_of_bounds),
    (r"cur_target >= 0 && cur_target < n_classes", _old_assert),
    (r"device-side assert|Assertion `t >= 0 && t < n_classes", _device_assert),
    (r"'(tuple|Tensor)' object has no attribute '(logits|loss)'", _no_attribute),
    (r"using `-1` to mask the loss", _tensorflow),
    (r"'NoneType' object has no attribute '(backward|item|detach|mean)'", _no_loss),
    (r"did not return a loss from the inputs", _no_loss),
    (
        r"Expected input batch_size \((\d{1,20})\) to match target batch_size \((\d{1,20})\)",
        _batch_size,
    ),
    (r"view size is not compatible", _view),
    (r"expected (target dtype to be|scalar type) Long|nll_loss\w*\" not implemented for", _dtype),
    (r"out of range integral type|number too small to fit|can't convert negative int", _decoding),
    (r"index out of range in self", _input_index),
    (r"index -?\d{1,20} is out of bounds for dimension", _place),
    (r"\bloss\b.{0,200}?\bnan\b|^tensor\(nan", _nan),
]
