"""Collect what the package says to a learner, for the catalog of ``tools.translate``.

The exercises, the alignment table and ``explain_error`` are asked, so that nothing has to be marked
in a lesson. Only where a text is made of parts does ``translated`` mark it.
"""

import importlib
import re
import tomllib

import torch
from babel.messages.extract import extract_from_file

from mlmtutor import alignment, load_tutor
from mlmtutor._messages import template
from mlmtutor.lessons.exercise import CHANGED, NOT_WRITTEN, NOTHING, ByHand, Exercise, WrongAnswer
from tools.explorer import presets
from tools.lessons import ROOT

CODE = {"input_ids", "labels", "attention_mask", "−log p(label)"}  # names that are no words


def said():
    """Yield what the package says: a text and its place, or a template, its place and a text."""
    for number in range(1, 11):
        module = importlib.import_module(f"mlmtutor.lessons.lesson_{number:02}")
        for name, value in vars(module).items():
            if isinstance(value, Exercise):
                for text, fixed in said_by(value):
                    yield from named(text, f"lesson_{number:02}.{name}", fixed)
    site = [*(ROOT / "docs").glob("*.py"), ROOT / "tools/slides.py"]
    for path in sorted([*(ROOT / "mlmtutor").rglob("*.py"), *site]):
        for _, text, *_ in extract_from_file("python", path, {"translated": None}):
            yield text, path.stem, ""
    yield from ((case["title"], "presets", "") for case in presets())
    for text in (NOT_WRITTEN, NOTHING, CHANGED):
        yield text, "exercise", ""
    for table in tables():
        for text in (table.summary, *(block.title for block in table.blocks)):
            yield from named(text, "alignment_table", fixed=False)
        names = {name: "" for block in table.blocks for name, _ in block.lines if name not in CODE}
        yield from ((name, "alignment_table", "") for name in names)
    yield from ((name, "explain", "") for name in ("means", "look", "said by", "do", "see"))
    errors = tomllib.loads((ROOT / "mlmtutor/releases/errors.toml").read_text("utf-8"))
    for entry in errors["error"]:
        for text in (*entry["means"], entry.get("look"), entry["said_by"], entry["fix"]):
            if text and re.sub(r"\{[^}]*\}", "", text):  # not a list of releases alone
                yield text, "errors", ""


def named(text, place, fixed):
    """Yield a text as it is where it is fixed, else as a template."""
    key, values = template(text)
    yield (text, place, "") if fixed or not values else (key, place, text)


def said_by(exercise):
    """Yield what an exercise says, each with whether it is the same for every answer."""
    yield from ((name, True) for name in exercise.returns if name not in CODE)
    yield from ((text, True) for text in (exercise.hint, *exercise.errors.values()) if text)
    by_hand = isinstance(exercise, ByHand)
    for wrong, message in exercise.mistakes:
        fixed = isinstance(message, str) and not by_hand
        yield (message if fixed else refused(exercise, wrong)), fixed
    fixed = isinstance(exercise.says, str) and not by_hand
    yield (exercise.says if fixed else exercise.judge(exercise.right)), fixed


def refused(exercise, wrong):
    """Return what is said to those who wrote a wrong function."""
    try:
        exercise.judge(wrong)
    except WrongAnswer as told:
        return str(told)
    raise ValueError(f"a wrong function is taken for right: {wrong}")


def tables():
    """Yield alignment tables that together say what such a table can say."""
    _, tokenizer = load_tutor()
    for shape in (5,), (45,), (2, 5), (9, 45):
        ids = torch.full(shape, 2088)
        yield alignment({"input_ids": ids, "attention_mask": ids}, tokenizer)
        for count, label in (*((count, 3) for count in range(8)), (1, 7), (2, 7)):
            labels = torch.full(shape, -100)
            labels.view(-1)[:count] = label
            batch = {"input_ids": ids, "labels": labels}
            yield alignment(batch, tokenizer, torch.zeros(*shape, 5))
            if label == 3:
                yield alignment(batch, tokenizer)
