"""Run all lessons again under other conditions, and compare with what is stored.

    python tools/repeat.py                 ten plain runs, then each condition once; one at a time
    python tools/repeat.py --jobs 2        two at a time
    python tools/repeat.py noise avx2      these conditions only
    python tools/repeat.py checkpoints     all of this kind

Each run is strict nbval on every lesson in a process of its own, with the environment that the
tests set (``conftest.py``) and the condition on top of it. ``noise`` gives the lessons a copy of
the embedded model whose weights w became w (1 + 1e-5 n), n normal: what differs in the last
digits between processors differs here. The conditions ``checkpoint-1`` and so on give them a model
with random weights and compare no output: there the assertions of the lessons decide. The logs are
in ``build/repeat/``. The result goes to ``docs/reliability.md``, of each kind that ran whole.
"""

import argparse
import concurrent.futures
import locale
import multiprocessing
import os
import pathlib
import shutil
import subprocess
import sys
import xml.etree.ElementTree

ROOT = pathlib.Path(__file__).resolve().parent.parent
BUILD = ROOT / "build" / "repeat"
LOCALES = BUILD / "locales"
NOISE = 1e-5
PLAIN_RUNS = 10
RANDOM_CHECKPOINTS = 8
CONDITIONS = {
    "threads-2": {"OMP_NUM_THREADS": "2", "MKL_NUM_THREADS": "2"},
    "hash-seed": {"PYTHONHASHSEED": "4711"},
    "turkish": {"LC_ALL": "tr_TR.UTF-8", "LANG": "tr_TR.UTF-8", "LOCPATH": str(LOCALES)},
    "chinese": {"LC_ALL": "zh_CN.UTF-8", "LANG": "zh_CN.UTF-8", "LOCPATH": str(LOCALES)},
    "time-zone": {"TZ": "Pacific/Chatham"},
    "avx2": {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_CBWR": "AVX2"},
    "noise": {"MLMTUTOR_MODEL": str(BUILD / "noisy_bert")},
}

MEANING = {
    "threads-2": "two threads (one is usual)",
    "hash-seed": "another PYTHONHASHSEED",
    "turkish": "locale tr_TR",
    "chinese": "locale zh_CN",
    "time-zone": "another time zone",
    "avx2": "AVX2",
    "noise": "noise",
}

PLAIN = [f"plain-{n}" for n in range(1, PLAIN_RUNS + 1)]
CHECKPOINTS = {
    f"checkpoint-{n}": {"MLMTUTOR_MODEL": str(BUILD / f"checkpoint-{n}")}
    for n in range(1, RANDOM_CHECKPOINTS + 1)
}
LAX = ["-o", "addopts=", "--nbval-lax", "--nbval-current-env", "--nbval-cell-timeout=240"]

sys.path.insert(0, str(ROOT / "tests"))


class Condition:
    """A pytest plugin: put a condition over the environment that conftest.py has set."""

    def __init__(self, environment):
        self.environment = environment

    def pytest_configure(self):
        """Called after conftest.py was imported, before a kernel starts."""
        os.environ.update(self.environment)


def prepare(names):
    """Make what the conditions need: the locales, and the model with noise."""
    BUILD.mkdir(parents=True, exist_ok=True)
    for name in names:
        wanted = CONDITIONS.get(name, {}).get("LC_ALL")
        if wanted:
            LOCALES.mkdir(exist_ok=True)
            code = wanted.partition(".")[0]
            subprocess.run(
                ["localedef", "-i", code, "-f", "UTF-8", LOCALES / wanted],
                check=True, capture_output=True,
            )  # fmt: skip
    if "noise" in names:
        import torch
        from safetensors.torch import load_file, save_file

        from mlmtutor.model import TUTOR_FOLDER

        folder = pathlib.Path(CONDITIONS["noise"]["MLMTUTOR_MODEL"])
        shutil.copytree(TUTOR_FOLDER, folder, dirs_exist_ok=True)
        generator = torch.Generator().manual_seed(0)
        weights = {
            key: w.float() * (1 + NOISE * torch.randn(w.shape, generator=generator))
            for key, w in load_file(TUTOR_FOLDER / "model.safetensors").items()
        }
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    for name in set(names) & set(CHECKPOINTS):
        from random_checkpoint import write_random_checkpoint

        folder = pathlib.Path(CHECKPOINTS[name]["MLMTUTOR_MODEL"])
        write_random_checkpoint(folder, seed=int(name.removeprefix("checkpoint-")))


def run_lessons(name, environment, lessons):
    """Run `lessons` under one condition; returns the numbers of cells that passed and failed."""
    log, report = BUILD / f"{name}.log", BUILD / f"{name}.xml"
    report.unlink(missing_ok=True)
    with open(log, "w", encoding="utf-8") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.chdir(ROOT)
    import pytest

    os.environ.update(environment)
    if "LC_ALL" in environment:
        locale.setlocale(locale.LC_ALL, "")  # fails where the locale is not there
    how = LAX if name in CHECKPOINTS else []
    pytest.main(
        [*how, "-q", "-p", "no:cacheprovider", f"--junitxml={report}", *lessons],
        plugins=[Condition(environment)],
    )
    sys.stdout.flush()
    suite = xml.etree.ElementTree.parse(report).getroot().find("testsuite").attrib
    failed = int(suite["failures"]) + int(suite["errors"])
    return int(suite["tests"]) - failed - int(suite["skipped"]), failed


def write_page(counts):
    """Write the sections whose conditions ran, all of them."""
    import reliability

    if counts.keys() >= {*PLAIN, *CONDITIONS}:
        plain = map(sum, zip(*(counts[name] for name in PLAIN), strict=True))
        groups = {f"{PLAIN_RUNS} runs in a row": tuple(plain)}
        groups |= {MEANING[name]: counts[name] for name in CONDITIONS}
        reliability.record(
            "repetition",
            {
                group: f"{same} cells as stored, {new} changed"
                for group, (same, new) in groups.items()
            },
        )
    if counts.keys() >= CHECKPOINTS.keys():
        passed, failed = map(sum, zip(*(counts[name] for name in CHECKPOINTS), strict=True))
        what = f"on {RANDOM_CHECKPOINTS} random checkpoints"
        figure = f"{passed} cells passed, {failed} failed"
        reliability.record("checkpoint", {what: figure}, add=True)


def main():
    """Run the conditions, print the table; returns 1 where a stored output changed."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    known = [*PLAIN, *CONDITIONS, *CHECKPOINTS]
    parser.add_argument("conditions", nargs="*", metavar="condition", help=", ".join(known))
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time (default: 1)")
    parser.add_argument("--lessons", nargs="+", default=["notebooks"], help="default: all")
    options = parser.parse_args()
    if options.conditions == ["checkpoints"]:
        options.conditions = list(CHECKPOINTS)
    unknown = sorted(set(options.conditions) - set(known))
    if unknown:
        parser.error(f"no such condition: {', '.join(unknown)}; known: {', '.join(known)}")
    names = options.conditions or known
    prepare(names)
    environments = CONDITIONS | CHECKPOINTS
    counts = {}
    with concurrent.futures.ProcessPoolExecutor(
        options.jobs, multiprocessing.get_context("spawn"), max_tasks_per_child=1
    ) as pool:
        runs = {
            pool.submit(run_lessons, name, environments.get(name, {}), options.lessons): name
            for name in names
        }
        for run in concurrent.futures.as_completed(runs):
            counts[runs[run]] = run.result()
            passed, failed = counts[runs[run]]
            print(f"{runs[run]}: {passed} cells passed, {failed} failed", flush=True)
    if options.lessons == ["notebooks"]:
        write_page(counts)
    return int(any(failed for _, failed in counts.values()))


if __name__ == "__main__":
    sys.exit(main())
