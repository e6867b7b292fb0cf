"""Run each fix on a copy of the batch, and print as code only what cures."""

import copy
import logging
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from mlmtutor.doctor.facts import Case
from mlmtutor.doctor.rules import RULES, Finding, is_own, run_rules
from mlmtutor.masking import MaskingPolicy, mask_tokens

CODE = re.compile(r"`([^`]+)`")
ONLY_IDS = 'batch["input_ids"]'
NO_CODE = "no line of code mends it: make the batch anew from its texts"


def in_words(fix: str) -> str:
    """The fix without its code."""
    words = CODE.split(fix)[0].rstrip(" :,(.")
    return (words or NO_CODE) + "."


def proven(
    findings: Sequence[Finding],
    case: Case,
    places: Mapping[str, str] | None = None,
) -> list[Finding]:
    """Return the findings, with code in their fixes only where it was run and cured.

    The fixes are run one after the other on one copy, as a reader would. A fix counts if its
    finding is gone then, and none that was mended before is back. ``places`` says, by code, which
    batches of a list are to be gone through.
    """
    batch: Any = None
    mended: set[str] = set()
    result = []
    known = {finding.code for finding in findings}
    key = "labels" if "labels-misnamed" in known else case.label_key or "labels"
    for finding in findings:
        if CODE.search(finding.fix) and finding.code in RULES and is_own(RULES[finding.code]):
            fix = finding.fix.replace('batch["labels"]', f'batch["{key}"]')
            fix = _completed(fix, case, bool(places))
            tried = _tried(fix, case.given if batch is None else batch, case, bool(places))
            after, found, errors = tried if tried is not None else (None, {finding.code}, set())
            guessed = bool(places) and "original" in fix  # from labels that may be wrong
            if found & {finding.code, *mended} or (guessed and errors - known):
                fix = in_words(finding.fix)
            else:
                batch = after
                mended.add(finding.code)
                if places:
                    fix = fix.replace("for one in batch", f"for one in {places[finding.code]}")
            finding = replace(finding, fix=fix)
        result.append(finding)
    return result


def _completed(fix: str, case: Case, in_list: bool) -> str:
    """The fix for what was given: arrays and lists become tensors first; a list is gone through."""
    codes = CODE.findall(fix)
    keys = [key for key in ("input_ids", "attention_mask", case.label_key) if key is not None]
    keys = [key for key in keys if case.raw(key) is not None]
    if re.search(r"(= |in ).*batch\[", fix) and not all(
        isinstance(case.raw(key), torch.Tensor) for key in keys
    ):
        rows = "torch.stack([torch.as_tensor(row) for row in batch[key]])"
        codes.insert(0, f"batch.update({{key: {rows} for key in {keys}}})")
    if in_list and any("original" in code for code in codes):
        origin = 'torch.where(batch["labels"] == -100, batch["input_ids"], batch["labels"])'
        codes.insert(0, f"original = {origin if case.label_key else ONLY_IDS}")
    if in_list and any("batch" in code for code in codes):
        codes = ["for one in batch: " + re.sub(r"\bbatch\b", "one", "; ".join(codes))]
    text = ", ".join(f"`{code}`" for code in codes)
    return fix[: fix.index("`")] + text + fix[fix.rindex("`") + 1 :]


def _tried(
    fix: str, batch: Any, case: Case, in_list: bool
) -> tuple[Any, set[str], set[str]] | None:
    """The batch after the fix, what is found in it, and the errors; ``None`` if the fix raised."""
    try:
        with quiet():
            batch = copy.deepcopy(batch)
            tensors = {k: v for k in case.keys if isinstance(v := batch.get(k), torch.Tensor)}
            if {value.is_cuda for value in tensors.values()} == {True}:
                batch.update({key: value.cpu() for key, value in tensors.items()})
            names: dict[str, Any] = {
                "batch": [batch] if in_list else batch,
                "tokenizer": case.tokenizer,
                "model": case.model,
                "torch": torch,
                "mask_tokens": partial(mask_tokens, generator=torch.Generator().manual_seed(0)),
                "MaskingPolicy": MaskingPolicy,
            }
            if not in_list:  # where they are many, nobody has them under one name
                if "original" in fix:
                    names["original"] = _original(case, '`batch["labels"] = ' in fix)
                names["word_ids"] = case.words if "word_ids" in fix else None
            if "texts" in fix and not in_list:
                ids = _original(case, False)
                names["texts"] = case.tokenizer.batch_decode(ids, skip_special_tokens=True)
            if "model." in fix:
                names["model"] = _copied_model(case)
            for code in CODE.findall(fix):
                exec(code, names)  # the code is the package's own, and runs on copies
            batch = names["batch"][0] if in_list else names["batch"]
            whole = bool(case.whole_word)
            after = Case(batch, case.tokenizer, names["model"], whole, case.policy)
            result = run_rules(RULES, after)
    except Exception:
        return None
    errors = {finding.code for finding in result.findings if finding.severity == "error"}
    return batch, {*result.codes, *result.failed}, errors


def _original(case: Case, labels_lie: bool) -> torch.Tensor:
    """What the batch may have been before masking: tokens of the text where nobody can know."""
    ids: torch.Tensor = case.original.clone()
    unknown = (ids < 0) | (ids >= (case.rows_out or 2**62))
    if case.mask_id is not None:
        unknown |= ids == case.mask_id
    if labels_lie and case.labels is not None:
        unknown |= case.scored & ~case.kept
    text = ids[~unknown & ~torch.isin(ids, case.special_ids)]
    if unknown.any() and len(text):
        places = torch.arange(int(unknown.sum())) * 7 + 3
        ids[unknown] = text[places % len(text)]
    return ids


def _copied_model(case: Case) -> Any:
    """A copy that shares the matrices without a row for each id: what is resized is its own."""
    sizes = {case.rows_in, case.rows_out}
    shared = (p for p in case.model.parameters() if p.dim() > 1 and p.shape[0] not in sizes)
    return copy.deepcopy(case.model, {id(p): p for p in shared})


@contextmanager
def quiet() -> Iterator[None]:
    """Draw from no generator of the user's, and say nothing."""
    log = logging.getLogger("transformers")
    level = log.level
    devices = range(torch.cuda.device_count())
    try:
        log.setLevel(logging.ERROR)
        with torch.random.fork_rng(devices=devices), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)
