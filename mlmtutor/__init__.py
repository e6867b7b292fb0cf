"""mlmtutor: how the labels of ``BertForMaskedLM`` work, shown by code that runs.

The lessons are in ``notebooks/``; this package holds the few helpers that they use.
"""

from mlmtutor.doctor import CheckedCollator, diagnose, diagnose_trainer
from mlmtutor.environment import check_environment
from mlmtutor.history import explain_error, label_history
from mlmtutor.labels import IGNORE_INDEX, convert_labels, label_positions
from mlmtutor.loss import loss_breakdown, masked_lm_loss
from mlmtutor.masking import MaskingPolicy, mask_tokens
from mlmtutor.model import load_tutor
from mlmtutor.predict import pseudo_log_likelihood, top_predictions
from mlmtutor.scale import labelled_only_loss, trainer_loss
from mlmtutor.show import alignment

__version__ = "0.1.0"

__all__ = [
    "IGNORE_INDEX",
    "CheckedCollator",
    "MaskingPolicy",
    "__version__",
    "alignment",
    "check_environment",
    "convert_labels",
    "diagnose",
    "diagnose_trainer",
    "explain_error",
    "label_history",
    "label_positions",
    "labelled_only_loss",
    "load_tutor",
    "loss_breakdown",
    "mask_tokens",
    "masked_lm_loss",
    "pseudo_log_likelihood",
    "top_predictions",
    "trainer_loss",
]
