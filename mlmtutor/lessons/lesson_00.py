"""Compare what is installed with what the lessons need."""

import importlib.metadata
import platform
import re
from typing import TYPE_CHECKING

from mlmtutor.model import TUTOR_FOLDER, verify_files

if TYPE_CHECKING:
    from packaging.requirements import Requirement


def check_environment() -> bool:
    """Print one line for each thing that the lessons need: ``OK``, or what to do.

    The packages and their ranges are read from the installed metadata of mlmtutor, those of the
    extras ``lab`` and ``test`` included, and the files of the embedded model are compared with
    their SHA-256.

    Returns:
        Whether everything that a lesson needs is there. What only JupyterLab or the tests need
        may be missing.

    Example:
        >>> check_environment()  # doctest: +ELLIPSIS
        OK       Python ...
        OK       torch ...
        True
    """
    from packaging.requirements import Requirement  # here: only this call needs it

    print(f"OK       Python {platform.python_version()}")
    complete = True
    for line in importlib.metadata.requires("mlmtutor") or []:
        requirement = Requirement(line)
        extra = re.search(r"extra == ['\"](\w+)['\"]", line)
        if extra and extra.group(1) not in ("lab", "test"):
            continue
        problem = _problem(requirement)
        if problem and not extra:
            complete = False
        needed = f" (for {extra.group(1)})" if extra else ""
        if problem:
            print(f"{'missing' if extra else 'FAIL':8} {problem}{needed}")
        else:
            version = importlib.metadata.version(requirement.name)
            print(f"OK       {requirement.name} {version}{needed}")
    try:
        verify_files(TUTOR_FOLDER)
        print("OK       embedded model: every file is the one that was shipped")
    except (OSError, ValueError) as error:
        complete = False
        print(f"FAIL     embedded model: {error}")
    return complete


def _problem(requirement: "Requirement") -> str | None:
    """Return what is wrong with one requirement here, or ``None``."""
    try:
        version = importlib.metadata.version(requirement.name)
    except importlib.metadata.PackageNotFoundError:
        return f"{requirement.name}: pip install '{requirement.name}{requirement.specifier}'"
    if requirement.specifier.contains(version, prereleases=True):
        return None
    return (
        f"{requirement.name} {version} is here, {requirement.specifier} is needed: "
        f"pip install '{requirement.name}{requirement.specifier}'"
    )
