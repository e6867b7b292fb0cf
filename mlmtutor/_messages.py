"""What a learner reads while working, in their language: English, or that of a catalog."""

import functools
import gettext
import os
import pathlib
import re

LOCALE = pathlib.Path(__file__).parent / "locale"
# What differs from one answer to the next: code, what is quoted, pieces, shapes, and numbers.
VALUE = re.compile(
    r"`[^`]*`|(?<!\w)'[^']*'(?!\w)|##\w+|\((?:\d+, ?)*\d*\)|(?<=positions )\d+(?:, \d+)+"
    r"|(?<![\w.])[-−]?\d+(?:[.,]\d+)*\b|\bnan\b"
)


@functools.cache
def _catalog(language: str | None) -> gettext.NullTranslations:
    languages = [language] if language else None  # None: what LANGUAGE, LC_ALL or LANG says
    return gettext.translation("mlmtutor", LOCALE, languages, fallback=True)


def template(text: str) -> tuple[str, list[str]]:
    """Return a message with ``{0}``, ``{1}`` in place of its values, and these."""
    values = VALUE.findall(text)
    numbers = iter(range(len(values)))
    return VALUE.sub(lambda _: f"{{{next(numbers)}}}", text), values


def translated(text: str) -> str:
    """Return a message in the language of ``MLMTUTOR_LANG``, or without it of the locale.

    A catalog has the message as it is, or its template. What it doesn't have stays English.
    """
    if not text:
        return text  # to gettext it is the head of the catalog
    catalog = _catalog(os.environ.get("MLMTUTOR_LANG"))
    if (found := catalog.gettext(text)) != text:
        return found
    key, values = template(text)
    found = catalog.gettext(key)
    return text if found == key else found.format(*values)
