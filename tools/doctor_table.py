"""Write docs/doctor.md: the table of codes, and the measured recall and false alarms.

    python -m tools.doctor_table            the table, and figures over some 3,700 batches (minutes)
    python -m tools.doctor_table --check    does the table in the docs agree with the code?

The figures are measured on the corpus of tests/doctor/corpus.py, with seeds that no test uses.
"""

import argparse
import collections
import inspect
import pathlib
import re
import sys
import time

import torch

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "doctor"))

from corpus import FAMILIES, broken_examples, healthy_examples

from mlmtutor.doctor import ALPHA, RULES, TRAINER_RULES, diagnose
from mlmtutor.doctor import source as lint
from tools import atomic

PAGE = ROOT / "docs" / "doctor.md"
START, END = "<!-- table: tools/doctor_table.py -->", "<!-- end of table -->"
REPOSITORY = re.compile(r"(?<![\w/])([\w.-]+/[\w.-]+|transformers|pytorch|tokenizers)#(\d+)")
OWNERS = {
    "transformers": "huggingface/transformers",
    "pytorch": "pytorch/pytorch",
    "tokenizers": "huggingface/tokenizers",
}


def section(doc: str, name: str) -> str:
    """The text after ``name:`` in a docstring, as one line."""
    match = re.search(rf"{name}: (.*?)(?=\n\n|\n\w+: |\Z)", inspect.cleandoc(doc), re.DOTALL)
    return " ".join(match.group(1).split()) if match else ""


def linked(text: str) -> str:
    """Markdown with a link for each thread."""

    def link(match: re.Match[str]) -> str:
        repository, number = match.groups()
        return (
            f"[{match[0]}](https://github.com/{OWNERS.get(repository, repository)}/issues/{number})"
        )

    text = REPOSITORY.sub(link, text.replace("``", "`"))
    return text.replace("|", "\\|")


def rows(checks: dict, test: str) -> list[str]:
    """The lines of one table."""
    lines = [
        "| code | severity | what is wrong | symptom | source | test |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for item in checks.values():
        doc = inspect.getdoc(item.function) or ""
        first = doc.split("\n")[0]
        cells = [
            f"`{item.code}`",
            item.severity,
            linked(first),
            linked(section(doc, "Symptom")),
            linked(section(doc, "Source").rstrip(".")),
            f"`{test.format(code=item.code)}`",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


TRAINER_TESTS = {
    "accumulation-inflated": "test_bert_with_accumulation_is_inflated_and_the_fix_cures_it",
    "column-dropped": "test_a_label_column_that_trainer_drops",
    "labels-overwritten": "test_labels_that_the_collator_overwrites",
    "eval-unmasked": "test_an_evaluation_without_masking",
    "eval-mask-changes": "test_an_evaluation_whose_masks_change",
}


def table() -> str:
    """The part of the page that follows from the code."""
    trainer = []
    for code, item in TRAINER_RULES.items():
        trainer += rows({code: item}, TRAINER_TESTS[code])[0 if not trainer else 2 :]
    source = [
        "| code | what is reported | fix | source |",
        "| --- | --- | --- | --- |",
        *(
            f"| `{rule.code}` | {linked(rule.title)} | {linked(rule.fix)} | {linked(rule.source)} |"
            for rule in lint.RULES
        ),
    ]
    return "\n".join(
        [
            START,
            "",
            "## Batches: `diagnose`",
            "",
            "In the order in which they run. A check is silent after a finding that explains what "
            "it would see. Tests are in `tests/doctor/test_doctor.py`; each runs the fix.",
            "",
            *rows(RULES, "test_finding_and_fix[{code}]"),
            "",
            "## Trainers: `diagnose_trainer`",
            "",
            *trainer,
            "",
            "## Source files: `mlmtutor doctor`",
            "",
            "Each rule has broken and healthy sources in `tests/doctor/test_source.py`.",
            "",
            *source,
            "",
            END,
        ]
    )


def measured(rounds: int, healthy: int) -> str:
    """The figures, over seeds that no test uses."""
    begin = time.perf_counter()
    total, found, exact = 0, 0, 0
    missed = []
    for example in broken_examples(rounds, first_seed=300_000):
        findings = diagnose(example.batch, example.tokenizer, **example.options).findings
        loud = [finding.code for finding in findings if finding.severity != "info"]
        total += 1
        found += example.code in loud
        exact += loud == [example.code]
        if example.code not in loud:
            missed.append(example.name)
    alarms: collections.Counter[str] = collections.Counter()
    alarmed = 0
    for example in healthy_examples(healthy, first_seed=600_000):
        diagnosis = diagnose(example.batch, example.tokenizer, **example.options)
        alarmed += not diagnosis.ok
        alarms.update(f.code for f in diagnosis.findings if f.severity != "info")
    print(f"{time.perf_counter() - begin:.0f} s; missed: {missed}; alarms: {dict(alarms)}")
    return "\n".join(
        [
            "On the corpus of `tests/doctor/corpus.py`: made-up texts, "
            f"{len(FAMILIES)} tokenizer families (WordPiece, byte-level BPE, unigram, single "
            "letters, and one token for padding and every end), 1 to 32 rows, padded and packed, "
            "rates from 15 to 40 %, four recipes, four maskers, tensors, arrays and lists.",
            "",
            "| figure | value |",
            "| --- | --- |",
            f"| broken batches | {total} |",
            f"| found (recall) | {found} of {total}, {found / total:.1%} |",
            f"| found as the only error or warning | {exact} of {total}, {exact / total:.1%} |",
            f"| healthy batches | {healthy:,} |",
            f"| with an error or a warning (false alarms) | {alarmed} of {healthy:,} |",
            f"| upper bound of that rate, 95 % confidence | {upper_bound(alarmed, healthy):.2%} |",
            "",
            "The defects are those in the list `DEFECTS` of that file, so recall says how well the "
            "checks hold across tokenizers, sizes, rates and seeds. It says nothing about "
            "mistakes that nobody has listed.",
        ]
    )


def upper_bound(alarms: int, trials: int) -> float:
    """The rate at which as few alarms as seen have a chance of 5 % (Clopper-Pearson)."""
    from mlmtutor.doctor.rules import at_most

    low, high = 1e-9, 1 - 1e-9
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if at_most(alarms, trials, middle) > 0.05 else (low, middle)
    return high


INTRODUCTION = f"""# What the label doctor finds

```python
from mlmtutor import diagnose

print(diagnose(collator(rows), tokenizer, model))
```

It reads a batch, never changes it, runs no model and never raises on what it finds. A finding has
a stable code, a severity, the positions, and a fix that can be run: in it `original` is the ids of
the batch before masking, and `rows` is what the collator got. An **error** means that the loss is
wrong or that the model crashes, a **warning** that this is probably not what was meant. `.ok` is
true without either, and `.raise_for_errors()` raises a `ValueError` with the errors.

`CheckedCollator(collator, tokenizer)` does this to the first two batches of a training, raises
errors and logs warnings once. `diagnose_trainer(trainer)` looks at a Trainer before it starts.
`python -m mlmtutor doctor FOLDER` reads source files, and `--format github` marks the lines in a
pull request.

A check of your own takes one function:

```python
from mlmtutor.doctor import RULES, Problem, rule


@rule("too-few", "warning", needs=("labels",))
def too_few(case):
    if case.scored.sum() < 3:
        return Problem("fewer than 3 labels", "use longer texts", case.scored)


del RULES["too-few"]  # and it is gone
```

## How often it is wrong

Eight checks are statistical: `everything-labelled`, `never-replaced`, `replacement-shares` (three
tests), `selection-low`, `selection-high`, `random-special`, `same-mask-rows` and, for a list of
batches, `same-mask-epochs`. Each takes the most extreme recipe in use (a rate from 10 to 50 %; at
least 70 % mask tokens, at most 25 % random, 25 % kept), asks for the exact binomial
probability of what it sees, and speaks below {ALPHA:g}. A few short sentences cannot reach that.
One batch meets nine such tests, so at most 9 in 10,000 healthy batches raise an alarm (Bonferroni),
if each token is drawn by itself. The pieces of a word, and the tokens of a span, are drawn
together: in a small batch `selection-low` and `replacement-shares` then warn more often.
"""


def main() -> int:
    """Write or check the page."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--check", action="store_true", help="compare the table, write nothing")
    parser.add_argument("--rounds", type=int, default=5, help="batches for each defect")
    parser.add_argument("--healthy", type=int, default=3500, help="healthy batches")
    options = parser.parse_args()
    if options.check:
        page = PAGE.read_text() if PAGE.exists() else ""
        current = table() in page and INTRODUCTION in page
        print("docs/doctor.md is current" if current else "run tools/doctor_table.py")
        return not current
    torch.set_num_threads(1)
    parts = [INTRODUCTION, measured(options.rounds, options.healthy), "", table(), ""]
    atomic.write(PAGE, "\n".join(parts))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
