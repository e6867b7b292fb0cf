"""Write into docs/doctor.md the table of codes, and measured causes, cures and false alarms.

    python -m tools.doctor_table          the table, and figures over some 69,000 batches (an hour)
    python -m tools.doctor_table --table  the table alone; the figures stay
    python -m tools.doctor_table --check  does the table in the docs agree with the code?

The figures are measured on the corpus of tests/doctor/corpus.py, with seeds that no test uses.
"""

import argparse
import collections
import pathlib
import re
import sys
import time

import torch

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "doctor"))

from corpus import DEFECTS, FAMILIES, RECIPES, broken_examples, cured, healthy_examples

from mlmtutor.doctor import RULES, TRAINER_RULES
from mlmtutor.doctor import source as lint
from tools import atomic

PAGE = ROOT / "docs" / "doctor.md"
START, END = "<!-- table: tools/doctor_table.py -->", "<!-- end of table -->"
REPOSITORY = re.compile(r"(?<![\w/])([\w.-]+/[\w.-]+|transformers|pytorch|tokenizers)#(\d+)")


def linked(text: str) -> str:
    """Markdown with a link for each thread."""

    def link(match: re.Match[str]) -> str:
        repository, number = match.groups()
        if "/" not in repository:
            owner = "pytorch" if repository == "pytorch" else "huggingface"
            repository = f"{owner}/{repository}"
        return f"[{match[0]}](https://github.com/{repository}/issues/{number})"

    return REPOSITORY.sub(link, text.replace("``", "`")).replace("|", "\\|")


def rows(rules: dict) -> str:
    """One table."""
    lines = [
        "| code | severity | what is wrong | symptom | source |",
        "| --- | --- | --- | --- | --- |",
    ]
    for rule in rules.values():
        texts = (linked(text) for text in (rule.what, rule.symptom, rule.source))
        cells = [f"`{rule.code}`", rule.severity, *texts]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def table() -> str:
    """The part of the page that follows from the code."""
    source = "\n".join(
        f"| `{code}` | {linked(row['title'])} | {linked(row['fix'])} | {linked(row['source'])} |"
        for code, row in lint.RULES.items()
    )
    return f"""{START}

## Batches: `diagnose`

In the order in which they run. A rule is silent after a finding that explains what it would see. \
`test_finding_and_fix` in `tests/doctor/test_findings.py` has a broken batch for each code and \
runs its fix.

{rows(RULES)}

## Trainers: `diagnose_trainer`

`test_trainer_finding_and_fix` in `tests/doctor/test_trainer.py` does the same.

{rows(TRAINER_RULES)}

## Source files: `mlmtutor doctor`

Each rule has broken and healthy sources in `tests/doctor/test_source.py`.

| code | what is reported | fix | source |
| --- | --- | --- | --- |
{source}

{END}"""


def measured(rounds: int, healthy: int) -> str:
    """The figures, over seeds that no test uses."""
    begin = time.perf_counter()
    alarms = {}
    for recipe in RECIPES:
        seen = (example.diagnosis().ok for example in healthy_examples(recipe, healthy, 600_000))
        alarms[recipe] = sum(not ok for ok in seen)
        print(f"{time.perf_counter() - begin:.0f} s: {alarms[recipe]} {recipe}", flush=True)
    named, alone, cures = 0, 0, collections.Counter()
    kinds: dict[str, list[bool]] = {}
    for example in broken_examples(rounds, first_seed=300_000):
        found = [f.code for f in example.diagnosis().findings if f.severity != "info"]
        named += found[:1] == [example.code]
        alone += found == [example.code]
        cures[cured(example)] += 1
        kind = example.name.partition(example.base.name)[0]
        kinds.setdefault(kind, []).append(found[:1] == [example.code])
    print(f"{time.perf_counter() - begin:.0f} s: {cures}")
    total, worst = rounds * len(DEFECTS), max(alarms.values())
    in_code = cures[True] + cures[False]
    counts = "\n".join(f"| {name} | {count} of {healthy:,} |" for name, count in alarms.items())
    return f"""The corpus of `tests/doctor/corpus.py` has made-up texts, {len(FAMILIES)} families \
of tokenizers (WordPiece, byte-level BPE, unigram, single letters, and one token for padding and \
every end), 1 to 32 rows, padded and packed, tensors, arrays and lists. Repeat the figures with \
`python -m tools.doctor_table`.

**False alarms**: batches with an error or a warning, of {healthy:,} healthy ones of each recipe. \
The worst is {worst / healthy:.2%}, at most {upper_bound(worst, healthy):.2%} at a confidence of \
95 %.

| recipe | false alarms |
| --- | --- |
{counts}

**Broken batches**: {len(kinds)} kinds, {rounds} batches of each.

| figure | value |
| --- | --- |
| the cause is the first finding | {named} of {total}, {named / total:.1%} |
| it is the only error or warning | {alone} of {total}, {alone / total:.1%} |
| kinds whose cause is named in every batch | {sum(map(all, kinds.values()))} of {len(kinds)} |
| batches whose fix is code | {in_code} of {total}, {in_code / total:.1%} |
| cured by that code: labels are the original ids | {cures[True]} of {in_code}, \
{cures[True] / in_code:.1%} |

The defects are those in the list `DEFECTS` of that file, so the figures say how well the rules \
hold across tokenizers, sizes, rates and seeds. They say nothing about mistakes that nobody has \
listed."""


def upper_bound(alarms: int, trials: int) -> float:
    """The rate at which as few alarms as seen have a chance of 5 % (Clopper-Pearson)."""
    from mlmtutor.doctor.rules import at_most

    low, high = 1e-9, 1 - 1e-9
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if at_most(alarms, trials, middle) > 0.05 else (low, middle)
    return high


def main() -> int:
    """Write or check the page."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--check", action="store_true", help="compare the table, write nothing")
    parser.add_argument("--table", action="store_true", help="keep the figures that are there")
    parser.add_argument("--rounds", type=int, default=12, help="batches for each defect")
    parser.add_argument("--healthy", type=int, default=3000, help="batches of each recipe")
    options = parser.parse_args()
    page = PAGE.read_text()
    if options.check:
        current = table() in page
        print(f"docs/doctor.md is {'current' if current else 'old: --table writes it'}")
        return not current
    torch.set_num_threads(1)
    text, begin, rest = page.partition("The corpus of ")
    figures = begin + rest.partition(START)[0].rstrip()
    if not options.table:
        figures = measured(options.rounds, options.healthy)
    atomic.write(PAGE, f"{text}{figures}\n\n{table()}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
