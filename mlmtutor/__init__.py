"""mlmtutor: how the labels of ``BertForMaskedLM`` work, shown by code that runs.

The lessons are in ``notebooks/``. This package holds what two lessons or more use and what
engineers use in their own projects; what one lesson needs stands in ``mlmtutor.lessons``. Each name
is imported when it is first asked for, so that ``mlmtutor doctor FILE`` starts without torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlmtutor.alignment_table import alignment as alignment
    from mlmtutor.doctor import CheckedCollator as CheckedCollator
    from mlmtutor.doctor import diagnose as diagnose
    from mlmtutor.doctor import diagnose_trainer as diagnose_trainer
    from mlmtutor.labelled_only import labelled_only_loss as labelled_only_loss
    from mlmtutor.labels import IGNORE_INDEX as IGNORE_INDEX
    from mlmtutor.labels import convert_labels as convert_labels
    from mlmtutor.loss import masked_lm_loss as masked_lm_loss
    from mlmtutor.loss import trainer_loss as trainer_loss
    from mlmtutor.masking import MaskingPolicy as MaskingPolicy
    from mlmtutor.masking import mask_tokens as mask_tokens
    from mlmtutor.model import is_trained as is_trained
    from mlmtutor.model import load_tutor as load_tutor
    from mlmtutor.releases import explain_error as explain_error
    from mlmtutor.scoring import pseudo_log_likelihood as pseudo_log_likelihood
    from mlmtutor.scoring import top_predictions as top_predictions

__version__ = "0.1.0"

_NAMES = {
    "alignment_table": ["alignment"],
    "doctor": ["CheckedCollator", "diagnose", "diagnose_trainer"],
    "labelled_only": ["labelled_only_loss"],
    "labels": ["IGNORE_INDEX", "convert_labels"],
    "loss": ["masked_lm_loss", "trainer_loss"],
    "masking": ["MaskingPolicy", "mask_tokens"],
    "model": ["is_trained", "load_tutor"],
    "releases": ["explain_error"],
    "scoring": ["pseudo_log_likelihood", "top_predictions"],
}
_MODULE_OF = {name: module for module, names in _NAMES.items() for name in names}
__all__ = ["__version__", *_MODULE_OF]


def __getattr__(name: str) -> Any:
    """Import the module of a public name when it is first used."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'mlmtutor' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"mlmtutor.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names, imported or not."""
    return sorted({*globals(), *__all__})
