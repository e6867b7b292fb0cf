"""``mlmtutor``: check source files, or the environment.

``doctor`` ends with 0 if nothing was found, with 1 if something was, and with 2 if a path does not
lead to a program or nothing could be read. ``env`` ends with 0 if everything that a lesson needs is
there, else with 1.
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mlmtutor._html import printable

if TYPE_CHECKING:
    from mlmtutor.doctor.source import Report


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; ``arguments`` are those of the process if ``None``.

    Returns:
        The exit status.
    """
    parser = argparse.ArgumentParser(
        prog="mlmtutor", description="Helpers for masked language modeling."
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    doctor = commands.add_parser(
        "doctor",
        help="find obsolete and harmful uses of masked-LM labels in source files",
        description="Read .py and .ipynb files, without running them, and report obsolete and "
        "harmful uses of masked-LM labels. Ends with 0 if there are none, with 1 if there are "
        "some, with 2 if a path leads to no program or nothing could be read.",
    )
    doctor.add_argument("paths", nargs="+", metavar="FILE_OR_FOLDER")
    doctor.add_argument(
        "--format",
        choices=("text", "json", "github"),
        default="text",
        help="text for people (default), json for programs, github for marks in a pull request",
    )
    commands.add_parser(
        "env",
        help="compare what is installed with what the lessons need",
        description="Print one line for each package and for the embedded model.",
    )
    options = parser.parse_args(arguments)
    if options.command is None:
        parser.print_help()
        return 0
    if options.command == "env":
        from mlmtutor.lessons.lesson_00 import check_environment

        return 0 if check_environment() else 1
    return _doctor(options.paths, options.format)


def _doctor(paths: list[str], form: str) -> int:
    from mlmtutor.doctor.source import lint_paths

    report = lint_paths(paths)
    text = {"text": as_text, "json": as_json, "github": as_github}[form](report)
    try:
        if text:
            print(text, flush=True)
    except BrokenPipeError:  # of `| head`: what comes after is not wanted
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    for note in report.unread:
        print(f"mlmtutor doctor: not read: {printable(note)}", file=sys.stderr)
    for path in report.unusable:
        told = "not a .py or .ipynb file, and no folder with one in it that may be read"
        print(f"mlmtutor doctor: {printable(path)}: {told}", file=sys.stderr)
    if report.unusable or not report.files:
        return 2
    return 1 if report.findings else 0


def as_text(report: "Report") -> str:
    """For people: a line for each place, and under it what to write instead."""
    lines = [
        f"{printable(f.place)}: {f.severity} {f.code}: {f.message}\n    fix: {f.fix}"
        for f in report.findings
    ]
    files = f"{report.files} file{'s' * (report.files != 1)} read"
    found = f"{len(report.findings)} finding{'s' * (len(report.findings) != 1)}"
    return "\n".join([*lines, f"{files}, {found}."])


def as_json(report: "Report") -> str:
    """For programs: the findings with all their fields."""
    return json.dumps(vars(report) | {"findings": [vars(f) for f in report.findings]}, indent=2)


def as_github(report: "Report") -> str:
    """For GitHub Actions: a workflow command for each place, which marks it in the pull request."""
    lines = []
    for f in report.findings:
        path = printable(f.path).replace("%", "%25").replace(":", "%3A").replace(",", "%2C")
        line, cell = (f.line, "") if f.cell is None else (1, f"cell {f.cell}, line {f.line}: ")
        told = f"{cell}{f.message}. Fix: {f.fix}".replace("%", "%25")
        place = f"file={path},line={line},col={f.column},title={f.code}"
        lines.append(f"::{f.severity} {place}::{told}")
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
