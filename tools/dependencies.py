"""List the licences of what is installed, and ask for known advisories; write the page.

python tools/dependencies.py             needs a network for the advisories
python tools/dependencies.py --offline   licences alone; the page is not written
"""

import argparse
import collections
import json
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent

IN_ITS_FILE = {"axe-playwright-python": "MIT"}  # the metadata are silent, its LICENSE is not


def licences():
    """Return {package: licence} of everything in this environment."""
    command = [sys.executable, "-m", "piplicenses", "--format=json", "--from=mixed"]
    listed = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    found = {row["Name"]: " ".join(row["License"].split())[:60] for row in listed}
    return found | {name: text for name, text in IN_ITS_FILE.items() if name in found}


def kind(licence):
    """Return the family of a licence.

    >>> kind("BSD-3-Clause"), kind("GNU General Public License v3 (GPLv3)"), kind("UNKNOWN")
    ('permissive', 'GPL', 'unknown')
    """
    text = licence.upper()
    if "LGPL" in text or "LESSER" in text:
        return "LGPL"
    if "GPL" in text or "GENERAL PUBLIC" in text:
        return "GPL"
    if "MPL" in text or "MOZILLA" in text:
        return "MPL"
    return "unknown" if text in ("", "UNKNOWN") else "permissive"


def audit():
    """Return the answer of pip-audit: a list of packages; empty where there is no answer."""
    command = [sys.executable, "-m", "pip_audit", "--format=json", "--progress-spinner=off",
               "--skip-editable", "--timeout=30"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True)
    try:
        answer = json.loads(done.stdout)["dependencies"]
    except ValueError:
        print(done.stderr[-600:], file=sys.stderr)
        return []
    return answer


def advisories(answer):
    """Return the figure and the lines of an answer of pip-audit.

    A package that the service does not know is skipped by pip-audit, and so not asked for.

    >>> bad = {"name": "a", "version": "1", "vulns": [{"id": "X-1"}]}
    >>> advisories([bad, {"name": "b", "skip_reason": "not found"}])
    ('1, of 1 packages that the service knows', ['a 1: X-1'])
    >>> advisories([{"name": "b", "skip_reason": "not found"}])
    ('not known: no service answered', [])
    """
    asked = [one for one in answer if "skip_reason" not in one]
    lines = [
        f"{one['name']} {one['version']}: {', '.join(v['id'] for v in one['vulns'])}"
        for one in asked
        if one["vulns"]
    ]
    if not asked:
        return "not known: no service answered", []
    return f"{len(lines)}, of {len(asked)} packages that the service knows", lines


def main():
    """Print and store what is found; returns 1 where a licence is unknown."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--offline", action="store_true", help="licences alone")
    options = parser.parse_args()
    found = licences()
    kinds = {name: kind(licence) for name, licence in found.items()}
    counts = collections.Counter(kinds.values())
    figures = {"packages": f"{len(found)}", **{k: f"{n}" for k, n in counts.most_common()}}
    listed = [
        f"{name}: {found[name]}" for name, kind in sorted(kinds.items()) if kind != "permissive"
    ]
    if not options.offline:
        figures["advisories"], known = advisories(audit())
        listed += known
    print(json.dumps([figures, listed], indent=1))
    if not options.offline:
        import reliability

        reliability.record("dependencies", figures, listed)
    return int("unknown" in counts)


if __name__ == "__main__":
    sys.exit(main())
