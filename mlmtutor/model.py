"""Load the BERT that ships with the package, or any other checkpoint with an MLM head."""

import contextlib
import hashlib
import json
import math
import os
import pathlib
import warnings
from collections.abc import Iterator
from typing import Any

TUTOR_FOLDER = pathlib.Path(__file__).with_name("tutor_bert")
MEANINGS = {  # what an error of transformers says of a checkpoint
    "Unrecognized configuration class": "{} is not a masked language model: AutoModelForMaskedLM "
    "has no class for its configuration. Give a checkpoint such as 'bert-base-uncased'.",
    "ignore_mismatched_sizes": "the weights of {} have other shapes than its config.json says: the "
    "two files do not belong together. Save both again with save_pretrained.",
}


def load_tutor(name: str | os.PathLike[str] | None = None) -> tuple[Any, Any]:
    """Load a masked language model and its tokenizer.

    Without a name this is the embedded model, a BERT of 6 layers with the WordPiece vocabulary
    of ``bert-base-uncased`` (30,522 entries); ``tutor_bert/README.md`` says how good it is. It
    needs no network, and its files are compared with their SHA-256 first.

    Args:
        name: a checkpoint name such as ``"bert-base-uncased"``, or a folder. ``None`` takes the
            environment variable ``MLMTUTOR_MODEL``, and the embedded model where that is unset.

    Returns:
        ``(model, tokenizer)``. The model is in eval mode, in float32, on the CPU.

    Raises:
        TypeError: ``name`` is neither a string nor a path.
        FileNotFoundError: a file of the embedded model is missing.
        ValueError: a file of the embedded model is not the one that was shipped; or the
            checkpoint has no MLM head, or weights that cannot be read.
        OSError: the checkpoint cannot be found here, and transformers is offline; or the folder
            holds none.

    Example:
        >>> model, tokenizer = load_tutor()
        >>> tokenizer.convert_tokens_to_ids(["[MASK]", "change"])
        [103, 2689]
        >>> model.training, model.dtype
        (False, torch.float32)

    Source: ``AutoModelForMaskedLM.from_pretrained`` of transformers.
    """
    if not isinstance(name, str | os.PathLike | None):
        raise TypeError(
            f"name must be the name of a checkpoint or a path, but is a {type(name).__name__}: "
            "for the embedded model leave it out."
        )
    chosen = str(name or os.environ.get("MLMTUTOR_MODEL") or TUTOR_FOLDER)
    if pathlib.Path(chosen) == TUTOR_FOLDER:
        verify_files(TUTOR_FOLDER)
    with _quiet():
        import torch
        from safetensors import SafetensorError
        from transformers import AutoModelForMaskedLM, AutoTokenizer

        local = os.path.isdir(chosen)
        try:
            model, loaded = AutoModelForMaskedLM.from_pretrained(
                chosen,
                dtype=torch.float32,
                local_files_only=local,
                output_loading_info=True,
                use_safetensors=True,
            )
            tokenizer = AutoTokenizer.from_pretrained(chosen, local_files_only=local)
        except SafetensorError as error:
            raise ValueError(f"the weights of {chosen!r} cannot be read: {error}") from error
        except Exception as error:  # a damaged file makes any of them; tokenizers has but one
            for sign, meaning in MEANINGS.items():
                if sign in str(error):
                    raise ValueError(meaning.format(repr(chosen))) from error
            if local or isinstance(error, OSError):
                raise OSError(_why_not_found(chosen)) from error
            raise
    files = tokenizer.vocab_files_names.values()
    if local and not any(pathlib.Path(chosen, file).is_file() for file in files):
        # Without them transformers 5 returns a tokenizer of five special tokens, silently.
        raise OSError(_why_not_found(chosen))
    missing = sorted(loaded["missing_keys"])
    if missing:
        raise ValueError(
            f"{chosen!r} does not hold all weights of {type(model).__name__}: "
            f"{len(missing)} missing, among them {missing[0]!r}. Its MLM head would be random. "
            "Give a checkpoint that was saved with its MLM head, such as 'bert-base-uncased'."
        )
    return model.eval(), tokenizer


def is_trained(tokenizer: Any, model: Any) -> bool:
    """Return whether the model predicts words better than a guess does.

    Each token of one sentence is hidden in turn. A trained model gives it a mean -log p below
    half of ln V, where V is the size of the vocabulary: an even guess costs ln V. The lessons
    ask this before an assertion that random weights can't fulfil.

    Example:
        >>> model, tokenizer = load_tutor()
        >>> is_trained(tokenizer, model)
        True

    Source: pseudo-log-likelihood, arXiv:1910.14659; :func:`mlmtutor.pseudo_log_likelihood`.
    """
    import torch

    encoded = tokenizer(
        "She opened the door and walked into the room.",
        return_tensors="pt",
        return_special_tokens_mask=True,
    ).to(model.device)
    ids, special = encoded["input_ids"], encoded["special_tokens_mask"][0].bool()
    hidden = torch.eye(ids.shape[1], dtype=torch.bool, device=ids.device)[~special]  # one a row
    with torch.no_grad():
        loss = model(
            input_ids=torch.where(hidden, tokenizer.mask_token_id, ids),
            labels=torch.where(hidden, ids, -100),
        ).loss
    return float(loss) < math.log(model.config.vocab_size) / 2


def longest_input(model: Any) -> float:
    """Return how many tokens in a row the model can read, special tokens included.

    It is the number of rows of its table of positions, without those that it never uses: RoBERTa
    and its relatives count from ``padding_idx + 1``. Where nothing limits it, as with relative or
    rotary positions, it is ``math.inf``.

    Example:
        >>> model, _ = load_tutor()
        >>> longest_input(model)
        512

    Source: transformers#482; RoBERTa's offset, transformers#1363.
    """
    modules = dict(model.named_modules())
    for name, module in modules.items():
        parent, _, last = name.rpartition(".")
        if last not in ("position_embeddings", "embed_positions", "wpe"):
            continue
        if getattr(model.config, "reset_position_index_per_cell", False):
            return math.inf  # TAPAS, where later positions share the last row
        if not hasattr(module, "weight"):  # Reformer's are tables in a module
            return int(model.config.max_position_embeddings)
        padding = getattr(module, "padding_idx", None)
        rows = len(module.weight) - getattr(module, "offset", 0)
        numbers = getattr(modules[parent], "position_ids", None)
        if numbers is not None:  # some tables have two rows that no position uses
            rows = min(rows, numbers.shape[-1])
        return int(rows - (0 if padding is None else padding + 1))
    return math.inf


def verify_files(folder: pathlib.Path) -> None:
    """Compare each file of the embedded model with ``checksums.json``."""
    listing = folder / "checksums.json"
    advice = "Restore it: git checkout mlmtutor/tutor_bert, or install mlmtutor again."
    if not listing.is_file():
        raise FileNotFoundError(f"{listing} is missing. {advice}")
    try:
        expected_sums = json.loads(listing.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(
            f"{listing} is not the file that was shipped: {error}. {advice}"
        ) from error
    for file, expected in expected_sums.items():
        path = folder / file
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing. {advice}")
        found = hashlib.sha256(path.read_bytes()).hexdigest()
        if found != expected:
            raise ValueError(
                f"{path} is not the file that was shipped: its SHA-256 is {found}, expected "
                f"{expected} ({path.stat().st_size:,} bytes here). {advice}"
            )


def _why_not_found(name: str) -> str:
    from huggingface_hub.constants import HF_HUB_OFFLINE

    if os.path.isdir(name):
        return (
            f"the folder {name!r} holds no checkpoint that transformers can load: it needs "
            "config.json, model.safetensors and the tokenizer's files (save_pretrained of the "
            "model and of the tokenizer writes them)."
        )
    reason = "transformers is offline (HF_HUB_OFFLINE is set)" if HF_HUB_OFFLINE else "no download"
    return (
        f"{name!r} isn't a folder here or a name in the local cache, and {reason}. What works: "
        "load_tutor() for the embedded model, a path to a saved checkpoint, or a name that was "
        "downloaded before; with a network, unset HF_HUB_OFFLINE and call again."
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep progress bars, load reports and the tqdm warning of the import out of the lesson."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="IProgress not found")
        from transformers.utils import logging
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
