"""Lesson 00: compare what is installed with what the lessons need."""

import importlib.metadata
import re
from platform import python_version
from typing import Any

from mlmtutor.model import TUTOR_FOLDER, verify_files


def check_environment() -> bool:
    """Print one line when all is well, otherwise a line for each thing that is missing.

    The packages and their ranges are read from the installed metadata of mlmtutor, those that a
    lesson needs for ``Trainer`` included, and the files of the embedded model are compared with
    their SHA-256.

    Returns:
        Whether everything that a lesson needs is there.

    Example:
        >>> check_environment()  # doctest: +ELLIPSIS
        OK: Python ..., torch ..., transformers ..., and the embedded model as it was shipped.
        True
    """
    from packaging.requirements import Requirement  # here: only this call needs it

    wrong = []
    for line in importlib.metadata.requires("mlmtutor") or []:
        requirement = Requirement(line)
        extra = re.search(r"extra == ['\"](\w+)['\"]", line)
        problem = _problem(requirement)
        if problem and not extra:
            wrong.append(f"FAIL: {problem}")
        elif problem and extra and extra.group(1) == "lab" and requirement.name != "jupyterlab":
            print(f"missing: {problem}")
    try:
        verify_files(TUTOR_FOLDER)
    except (OSError, ValueError) as error:
        wrong.append(f"FAIL: the embedded model: {error}")
    if wrong:
        print("\n".join(wrong))
    else:
        here = ", ".join(f"{n} {importlib.metadata.version(n)}" for n in ("torch", "transformers"))
        print(f"OK: Python {python_version()}, {here}, and the embedded model as it was shipped.")
    return not wrong


def _problem(requirement: Any) -> str | None:
    """Return what is wrong with one requirement here, or ``None``."""
    install = f"pip install '{requirement.name}{requirement.specifier}'"
    try:
        version = importlib.metadata.version(requirement.name)
    except importlib.metadata.PackageNotFoundError:
        return f"{requirement.name}: {install}"
    if requirement.specifier.contains(version, prereleases=True):
        return None
    return f"{requirement.name} {version} is here, {requirement.specifier} is needed: {install}"
