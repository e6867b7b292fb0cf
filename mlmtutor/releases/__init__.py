"""How the labels were taken in each release (``history``), and what errors mean (``explain``)."""

from mlmtutor.releases.explain import Explanation, explain_error
from mlmtutor.releases.history import Notice, ObservedCall, Release, label_history, observed_calls

__all__ = [
    "Explanation",
    "Notice",
    "ObservedCall",
    "Release",
    "explain_error",
    "label_history",
    "observed_calls",
]
