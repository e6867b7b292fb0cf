"""The doctor: what is wrong with the labels of a batch, of a ``Trainer`` or of a program.

``diagnose``, ``CheckedCollator`` and ``diagnose_trainer`` stand in ``diagnosis`` and are imported
when first asked for, so that reading programs (``source``) starts without torch. A rule is a row of
``rules.toml`` and the function of its name in ``readable`` (can the batch be read), ``possible``
(can each value be right), ``placed`` (do the labels stand where they should), ``likely`` (is it
likely) or ``trainer``. What all of them ask is in ``facts``, and ``fixes`` runs each fix on a copy
before it is printed.
"""

from typing import Any

__all__ = [
    "ALPHA",
    "RULES",
    "TRAINER_RULES",
    "CheckedCollator",
    "Diagnosis",
    "Finding",
    "Problem",
    "Rule",
    "diagnose",
    "diagnose_trainer",
    "rule",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name not in __all__:
        raise AttributeError(f"module 'mlmtutor.doctor' has no attribute {name!r}")
    from mlmtutor.doctor import diagnosis

    return getattr(diagnosis, name)
