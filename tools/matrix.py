"""Run the tests and the lessons on the oldest and the newest supported transformers.

    python -m tools.matrix                   the releases below
    python -m tools.matrix 4.57.6 5.10.2     these

Each release gets an environment of its own in ``build/matrix/``. It sees the packages of the
environment that runs this script, torch among them, and installs transformers and what that
release needs differently. Lessons run with ``--nbval-lax``: their own assertions decide, and
stored text is not compared. What passed is written to ``docs/releases.md``, where the row of a
release that did not run stays as it was.
"""

import argparse
import datetime
import importlib.metadata
import os
import pathlib
import platform
import re
import subprocess
import sys
import sysconfig
import venv
import xml.etree.ElementTree

from packaging.version import Version

from tools import atomic

ROOT = pathlib.Path(__file__).resolve().parent.parent
BUILD = ROOT / "build" / "matrix"
RELEASES = ["4.57.*", importlib.metadata.version("transformers"), "5.*"]
TEST = [
    "-o", "addopts=", "--doctest-modules", "--nbval-lax", "--nbval-current-env",
    "-q", "-p", "no:cacheprovider", "--ignore=tests/site",
]  # fmt: skip


def make_environment(release):
    """Return the interpreter of an environment with this release, and the release it holds."""
    folder = BUILD / release.replace("*", "newest")
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
    site = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip
    # Sorted after the environment's own packages, so that these win.
    pathlib.Path(site, "zz_shared.pth").write_text(
        f"{sysconfig.get_path('purelib')}\n{ROOT}\n", encoding="utf-8"
    )
    subprocess.run(
        [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--upgrade",
         "--upgrade-strategy", "only-if-needed", f"transformers=={release}"],
        check=True,
    )  # fmt: skip
    version = "import importlib.metadata as m; print(m.version('transformers'))"
    found = subprocess.run([python, "-c", version], capture_output=True, text=True, check=True)
    return python, found.stdout.strip()


def run(python, release):
    """Run everything in one environment; returns the counts of the report."""
    report = BUILD / f"{release}.xml"
    report.unlink(missing_ok=True)
    scripts = f"{python.parent}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(
        [python, "-m", "pytest", *TEST, f"--junitxml={report}"],
        cwd=ROOT, env={**os.environ, "PATH": scripts}, check=False,
    )  # fmt: skip
    suite = xml.etree.ElementTree.parse(report).getroot().find("testsuite").attrib
    failed = int(suite["failures"]) + int(suite["errors"])
    skipped = int(suite["skipped"])
    return int(suite["tests"]) - failed - skipped, failed, skipped


def read_rows(page):
    """Return the rows of an earlier page, by release."""
    return {row.split()[1]: row for row in page.splitlines() if re.match(r"\| \d", row)}


def page_of(rows):
    """Return the page with these rows, the oldest release first."""
    lines = [
        "# Releases that pass",
        "",
        "Made by `make matrix`: the unit tests, the doctests and all lessons, each lesson decided "
        "by its own assertions.",
        "",
        "| transformers | torch | Python | passed | failed | skipped | date |",
        "| --- | --- | --- | ---: | ---: | ---: | --- |",
        *(rows[release] for release in sorted(rows, key=Version)),
    ]
    return "\n".join(lines) + "\n"


def main():
    """Run the matrix and write the table; returns 1 where something failed."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("releases", nargs="*", default=RELEASES, help=f"default: {RELEASES}")
    releases = parser.parse_args().releases
    BUILD.mkdir(parents=True, exist_ok=True)
    page = ROOT / "docs" / "releases.md"
    rows, some_failed, done = read_rows(page.read_text("utf-8")), False, set()
    today = datetime.date.today().isoformat()
    for wanted in releases:
        python, release = make_environment(wanted)
        if release in done:
            continue
        done.add(release)
        print(f"transformers {release}", flush=True)
        passed, failed, skipped = run(python, release)
        some_failed |= failed > 0
        rows[release] = (
            f"| {release} | {importlib.metadata.version('torch').split('+')[0]} | "
            f"{platform.python_version()} | {passed} | {failed} | {skipped} | {today} |"
        )
    atomic.write(page, page_of(rows))
    print(page_of(rows))
    return int(some_failed)


if __name__ == "__main__":
    sys.exit(main())
