"""Feed every public function garbage for a long time, and damage files; write the page.

    python tools/fuzz.py                  some twenty minutes; the page is written
    python tools/fuzz.py --examples 24    twice the cases of make test; the page is not written

The cases are drawn anew each time. A failure prints its case: add it to tests/test_fuzz.py.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
RECORD = ROOT / "build" / "fuzz.json"
FILES = ["tests/test_fuzz.py", "tests/test_files.py", "tests/test_security.py"]


def figures(stored):
    """Return the figures of the two sections of the page."""
    counts = stored["fuzz"].values()
    total = {key: sum(count[key] for count in counts) for key in ("cases", "right", "refused")}
    fuzz = {
        "functions": f"{len(counts)}",
        "cases tried": f"{total['cases']:,}",
        "right answers": f"{total['right']:,}",
        "refused with a message that names an argument": f"{total['refused']:,}",
        "crashes, hangs, wrong answers, inputs changed": "0",  # one would have ended this run
    }
    damaged, hostile = dict(stored["files"]), dict(stored["hostile files"])
    places = damaged.pop("places")
    files = {
        "damaged files, full disks, folders not to be written": told(damaged, "faults"),
        "hostile files read by the doctor": told(hostile, "files"),
        "places in the code that write a file, all checked": f"{places}",
    }
    return fuzz, files


def told(counts, whole):
    """Return a count with its parts."""
    parts = ", ".join(f"{count} {what}" for what, count in counts.items() if what != whole)
    return f"{counts[whole]} ({parts})"


def main():
    """Run the tests with many cases; returns their exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--examples", type=int, help="for 12 of make test (default: 600)")
    options = parser.parse_args()
    RECORD.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pytest", "-q", "-o", "addopts=--strict-markers", *FILES]
    examples = str(options.examples or 600)
    status = subprocess.call(command, cwd=ROOT, env=os.environ | {"FUZZ_EXAMPLES": examples})
    if status == 0:
        fuzz, files = figures(json.loads(RECORD.read_text("utf-8")))
        print(json.dumps([fuzz, files], indent=1))
        if not options.examples:
            import reliability

            reliability.record("fuzz", fuzz)
            reliability.record("files", files)
    return status


if __name__ == "__main__":
    sys.exit(main())
