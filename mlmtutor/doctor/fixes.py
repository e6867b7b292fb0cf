"""Run each fix on a copy of the batch, and print as code only what cures."""

import copy
import logging
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from mlmtutor.doctor.facts import Case
from mlmtutor.doctor.rules import RULES, Diagnosis, Finding, is_own
from mlmtutor.masking import MaskingPolicy, mask_tokens

CODE = re.compile(r"`([^`]+)`")
SPELLED = re.compile(r"[<\[]\s*mask\s*[>\]]", re.IGNORECASE)
NO_CODE = "no line of code mends it: make the batch anew from its texts"


def in_words(fix: str) -> str:
    """The fix without its code."""
    words = CODE.split(fix)[0].rstrip(" :,(.")
    return (words or NO_CODE) + "."


def proven(
    findings: Sequence[Finding], case: Case, run: Callable[[Case], Diagnosis], in_list: bool = False
) -> list[Finding]:
    """Return the findings, with code in their fixes only where it was run and cured.

    The fixes are run one after the other on one copy, as a reader would. A fix counts if its
    finding is gone then, and none that was mended before is back.
    """
    batch: Any = None
    key = case.label_key if all(f.code != "labels-misnamed" for f in findings) else "labels"
    mended: set[str] = set()
    result = []
    for finding in findings:
        if CODE.search(finding.fix) and finding.code in RULES and is_own(RULES[finding.code]):
            fix = finding.fix.replace('batch["labels"]', f'batch["{key or "labels"}"]')
            fix = _completed(fix, case, in_list)
            after, found = _tried(fix, case.given if batch is None else batch, case, run, in_list)
            if found is None or found & {finding.code, *mended}:
                fix = in_words(finding.fix)
            else:
                batch = after
                mended.add(finding.code)
            finding = replace(finding, fix=fix)
        result.append(finding)
    return result


def _completed(fix: str, case: Case, in_list: bool) -> str:
    """The fix for what was given: arrays and lists become tensors first; a list is gone through."""
    codes = CODE.findall(fix)
    keys = [key for key in ("input_ids", "attention_mask", case.label_key) if key is not None]
    keys = [key for key in keys if case.raw(key) is not None]
    if re.search(r"= .*batch\[", fix) and not all(
        isinstance(case.raw(key), torch.Tensor) for key in keys
    ):
        codes.insert(0, f"batch.update({{key: torch.as_tensor(batch[key]) for key in {keys}}})")
        fix = CODE.sub(lambda found: f"`{codes[0]}`, {found[0]}", fix, count=1)
    if in_list and any("batch" in code for code in codes):
        if any("original" in code for code in codes):
            codes.insert(0, 'original = torch.where(batch["labels"] == -100, batch["input_ids"], '
                         'batch["labels"])')  # fmt: skip
        loop = "for one in batch: " + re.sub(r"\bbatch\b", "one", "; ".join(codes))
        fix = fix[: fix.index("`")] + f"`{loop}`" + fix[fix.rindex("`") + 1 :]
    return fix


def _tried(
    fix: str, batch: Any, case: Case, run: Callable[[Case], Diagnosis], in_list: bool
) -> tuple[Any, set[str] | None]:
    """The batch after the fix, and what is found in it; ``None`` if the fix raised."""
    try:
        with quiet():
            batch = copy.deepcopy(batch)
            names: dict[str, Any] = {
                "batch": [batch] if in_list else batch,
                "tokenizer": case.tokenizer,
                "model": case.model,
                "torch": torch,
                "mask_tokens": partial(mask_tokens, generator=torch.Generator().manual_seed(0)),
                "MaskingPolicy": MaskingPolicy,
            }
            if "original" in fix and not in_list:
                names["original"] = _original(case, '`batch["labels"] = ' in fix)
            if "texts" in fix:
                texts = case.tokenizer.batch_decode(
                    _original(case, False), skip_special_tokens=True
                )
                spelled = re.search(r'replace\("(.+?)"', fix)
                names["texts"] = [
                    SPELLED.sub(spelled[1] if spelled else "", text) for text in texts
                ]
            if "word_ids" in fix:
                names["word_ids"] = case.words
            if "model." in fix:
                names["model"] = _copied_model(case)
            for code in CODE.findall(fix):
                exec(code, names)  # the code is the package's own, and runs on copies
            batch = names["batch"][0] if in_list else names["batch"]
            after = Case(batch, case.tokenizer, names["model"], bool(case.whole_word), case.policy)
            result = run(after)
    except Exception:
        return None, None
    return batch, {*result.codes, *result.failed}


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
