"""What an error or a warning about labels means: the reader of ``errors.toml``."""

import functools
import importlib.resources
import re
import textwrap
import tomllib
from dataclasses import dataclass
from typing import Any

from mlmtutor._messages import translated
from mlmtutor.releases.history import Release, label_history

TROUBLE = re.compile(
    r"cannot import name '(?P<names>\w{1,80})' from '(?:transformers\b)"
    r"|module '?transformers'? has no attribute '?(?P<attribute>\w{1,80})"
    r"|No module named 'transformers\.(?P<modules>[\w.]{1,80})'"
    r"|\b(?P<owner>TrainingArguments|Trainer|DataCollatorForLanguageModeling)\.__init__\(\) got an "
    r"unexpected keyword argument '(?P<keyword>\w{1,80})'"
    r"|\w{0,60}Tokenizer\w{0,20}'?(?: object)? has no attribute '?(?P<methods>\w{1,80})"
)


@dataclass(frozen=True)
class Explanation:
    """What an error or a warning about labels means.

    Attributes:
        text: the text that was explained.
        known: whether the text is one of those that :func:`explain_error` knows.
        means: what happened; where several causes end in one text, the likeliest first.
        said_by: the releases in which it happens.
        fix: what to do.
        threads: where people met it.
        look: what to look at to tell several causes apart.
    """

    text: str
    known: bool
    means: str
    said_by: str = ""
    fix: str = ""
    threads: tuple[str, ...] = ()
    look: str = ""

    def __str__(self) -> str:
        """Return the explanation as a few lines."""
        parts = {
            "means": self.means,
            "look": self.look,
            "said by": self.said_by,
            "do": self.fix,
            "see": ", ".join(self.threads),
        }
        wrap = functools.partial(textwrap.fill, width=88, subsequent_indent=" " * 9)
        given = (f"{translated(name):8} {part}" for name, part in parts.items() if part)
        return "\n".join(
            wrap(line, break_long_words=False, break_on_hyphens=False) for line in given
        )


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

    Source: the texts are those that the released code raises, and those of the threads named in
    ``errors.toml``; ``tests/unit/test_releases.py`` raises them again.
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
    if removed := _removed(text):
        return removed
    for pattern, entry in _table():
        if match := pattern.search(text):
            return _explained(text, entry, match)
    return Explanation(
        text,
        known=False,
        means=translated("This text is not one of those that are known here, so no guess is made."),
        fix=translated(
            "If you suspect the labels, run one batch on the CPU and pass it to "
            "mlmtutor.doctor.diagnose."
        ),
    )


@functools.cache
def _table() -> list[tuple[re.Pattern[str], dict[str, Any]]]:
    text = importlib.resources.files("mlmtutor.releases").joinpath("errors.toml").read_text("utf-8")
    return [(re.compile(e["pattern"], re.I | re.S), e) for e in tomllib.loads(text)["error"]]


def _explained(text: str, entry: dict[str, Any], match: re.Match[str]) -> Explanation:
    def filled(part: str) -> str:
        part = translated(part)
        for name, value in match.groupdict().items():
            part = part.replace(f"<{name}>", value or "")
        return part.format(span=_Span(), places=_places())

    means = entry["means"]
    listed = (f"({number}) {filled(cause)}" for number, cause in enumerate(means, 1))
    return Explanation(
        text,
        known=True,
        means=" ".join(listed) if len(means) > 1 else filled(means[0]),
        said_by=filled(entry["said_by"]),
        fix=filled(entry["fix"]),
        threads=tuple(entry.get("threads", ())),
        look=filled(entry.get("look", "")),
    )


def _removed(text: str) -> Explanation | None:
    """Explain a name or an argument that transformers no longer has, from the doctor's table."""
    from mlmtutor.doctor.source import gone_since, instead

    match = TROUBLE.search(text)
    if match is None:
        return None
    found = {key: value for key, value in match.groupdict().items() if value}
    table = found.pop("owner", None) or next(iter(found))
    table, name = {"attribute": "names"}.get(table, table), next(iter(found.values()))
    since, advice = gone_since(table, name), instead(table, name) or "leave it out"
    advice = advice.replace("``", "`")
    if since is None:
        return None
    what = {"names": "cannot be imported", "modules": "is gone", "methods": "is gone"}
    return Explanation(
        text,
        known=True,
        means=f"The program was written for an older release: `{name}` "
        f"{what.get(table, f'is no longer an argument of {table}')}.",
        said_by=f"transformers {since} and later",
        fix=f"Write {advice}." if advice.startswith("`") else f"{advice[:1].upper()}{advice[1:]}.",
        threads=("huggingface/course#987",) if table in ("Trainer", "TrainingArguments") else (),
    )


class _Span:
    """``span["ignore_index=-1"]``: the releases in which it holds, from the first to the last."""

    def __getitem__(self, condition: str) -> str:
        name, _, wanted = condition.partition("=")

        def holds(release: Release) -> bool:
            taken = name.removeprefix("takes ")
            value = release.takes(taken) if taken != name else getattr(release, name)
            ends = str(value).endswith("Warning") if wanted == "Warning" else str(value) == wanted
            return ends if wanted else value is not None

        stretches: list[list[Release]] = []
        before = False
        for release in label_history():
            if holds(release):
                if not before:
                    stretches.append([])
                stretches[-1].append(release)
            before = holds(release)
        names = []
        for first, *_, last in ([*stretch, stretch[-1]] for stretch in stretches):
            end = last.version if first.package == last.package else str(last)
            names.append(str(first) if first is last else f"{first} to {end}")
        return ", ".join(names)


def _places() -> str:
    """Say since when the labels have which place among the arguments."""
    places: dict[int, Release] = {}
    for release in label_history():
        places.setdefault(release.position, release)
    return ", ".join(f"{place} since {release}" for place, release in places.items())
