"""Write docs/reliability.md from what the proofs measured: ``python tools/reliability.py``.

Each proof (``tools/mutants.py``, ``tools/repeat.py``, ``tools/interrupt.py``, the fuzz tests, ...)
ends with ``record(name, figures, listed)``. That stores its figures in ``docs/reliability.json``
with the date and the versions, and writes the page again. Nothing in the page is typed by hand but
the sentences that say what was done. What can be counted in the lessons without running them is
counted again by this script; a test compares it.
"""

import datetime
import importlib.metadata
import json
import os
import pathlib
import platform
import sys

from tabulate import tabulate

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "tools"))
import atomic

RECORDS = ROOT / "docs" / "reliability.json"
PAGE = ROOT / "docs" / "reliability.md"

# name of the record: (heading, the command that repeats it, what was done)
SECTIONS = {
    "mutants": (
        "Break every claim",
        "make mutants",
        "One fault at a time is put into a copy: into a lesson (-100 becomes -99, a mean becomes a "
        "sum, a clone is dropped, a number in the text changes) or into a line of the package "
        "that computes something (of the doctor's checks, a seeded sample). The fault is *killed* "
        "when a test or a lesson fails.",
    ),
    "numbers": (
        "Numbers in the text",
        "make test",
        "Every number in the text of a lesson is printed or asserted by a cell of the same "
        "section, or is listed with a reason in `tests/plain_numbers.toml`. A changed number of "
        "one digit is seldom noticed: the section mostly shows that digit too. Number words are "
        "not looked at.",
    ),
    "fuzz": (
        "Feed every function garbage",
        "python tools/fuzz.py",
        "Hypothesis draws the arguments of every public function. A case passes when the answer "
        "is right, or when a `ValueError` or `TypeError` names the argument, and when no input "
        "was changed in place.",
    ),
    "files": (
        "Damaged files, full disks, hostile input",
        "python tools/fuzz.py",
        "Each fault gives one clear error, or does no harm. No file is ever half-written.",
    ),
    "repetition": (
        "Repeat everything",
        "python tools/repeat.py",
        "All lessons under strict nbval: ten times, then under other conditions. *Noise* changes "
        "each weight of the model by about one part in a hundred thousand, more than processors "
        "differ. *AVX2* lets torch use an older set of instructions.",
    ),
    "checkpoint": (
        "Another checkpoint",
        "python tools/repeat.py checkpoints",
        "All lessons run on a checkpoint with the same vocabulary, another size and random "
        "weights. Their assertions decide; an assertion that needs a trained model is skipped by "
        "a condition that the reader sees.",
    ),
    "interruption": (
        "Interrupt the work",
        "python tools/interrupt.py",
        "The process group gets SIGKILL at a random moment. Afterwards no tracked file is "
        "damaged, no process is left, and the next run works; the training ends with the "
        "weights of a run that was not killed, bit for bit.",
    ),
    "dependencies": (
        "Licences and advisories",
        "python tools/dependencies.py",
        "What the pinned environment holds.",
    ),
}


def page(records):
    """Return the text of the page; a section without a record is left out."""
    lines = [
        "# Reliability",
        "",
        "Written by the commands below, each of which repeats its section.",
    ]
    for name, (heading, command, done) in SECTIONS.items():
        if name not in records:
            continue
        record = records[name]
        lines += ["", f"## {heading}", "", done, "", f"Repeat it: `{command}`. ", ""]
        lines[-2] += f"Measured on {record['date']}, {record['where']}."
        lines += [tabulate(record["figures"].items(), ["what", "figure"], tablefmt="github")]
        if record["listed"]:
            lines += ["", *(f"- {text}" for text in record["listed"])]
    return "\n".join(lines) + "\n"


def record(name, figures, listed=(), add=False):
    """Store the figures of one proof, {what: figure}, and lines to list; write the page.

    With `add` the figures that the proof has already are kept.
    """
    if name not in SECTIONS:
        raise ValueError(f"no section {name!r} in tools/reliability.py: {', '.join(SECTIONS)}")
    records = json.loads(RECORDS.read_text(encoding="utf-8")) if RECORDS.exists() else {}
    if add:
        figures = records.get(name, {}).get("figures", {}) | figures
    versions = [f"{n} {importlib.metadata.version(n)}" for n in ("torch", "transformers")]
    records[name] = {
        "date": datetime.date.today().isoformat(),
        "where": f"{', '.join(versions)}, Python {platform.python_version()}, "
        f"{os.cpu_count()} cores",
        "figures": figures,
        "listed": list(listed),
    }
    atomic.write(RECORDS, json.dumps(records, indent=2, ensure_ascii=False) + "\n")
    atomic.write(PAGE, page(records))


def main():
    """Count again what stands in the lessons, and write the page."""
    sys.path.insert(0, str(ROOT / "tests"))
    import test_another_checkpoint
    import test_numbers_in_prose

    record("numbers", test_numbers_in_prose.figures())
    record("checkpoint", test_another_checkpoint.figures(), add=True)


if __name__ == "__main__":
    main()
