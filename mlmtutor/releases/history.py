"""How ``BertForMaskedLM`` took its labels, release by release.

The records are read from the released wheels by ``tools/history.py``, with the SHA-256 of each
wheel, and stand in ``label_history.json``. What a few of the releases do when they are called
stands in ``label_history_run.json``.
"""

import dataclasses
import importlib.resources
import json
from typing import Any


@dataclasses.dataclass(frozen=True)
class Notice:
    """What ``forward`` says when it is given a keyword that it used to know."""

    keyword: str  # the old name, such as masked_lm_labels
    kind: str  # the class of the warning, or AssertionError
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

        ``accepted`` for an argument of ``forward``; the class of the warning with which an old
        name is still taken; ``TypeError`` or ``AssertionError`` where it is refused; ``dropped``
        where it is taken and never used.
        """
        if keyword in self.arguments:
            return "accepted"
        kinds = {notice.keyword: notice.kind for notice in self.notices}
        return kinds.get(keyword, self.unknown_keyword)


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
        collator = record.pop("collator") or {}
        key, ignored = collator.get("key"), collator.get("ignored")
        releases.append(Release(**record, collator_key=key, collator_ignored=ignored))
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

    Source: calls of the released code, once, by ``tools/history.py --run`` of commit 402ac21f.
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
