"""Put one fault at a time into a copy, and see whether a test or a lesson fails: ``make mutants``.

    python tools/mutants.py                 all of it; writes build/mutants.json and the record
    python tools/mutants.py --jobs 2        two at a time
    python tools/mutants.py 04 loss         lesson 04 and mlmtutor/loss.py only; nothing recorded
    python tools/mutants.py --list 04       the faults, without running anything

Two kinds of faults. Those in ``tests/mutants.toml`` are written by hand: in the lessons, in their
text, and in lines of the package that stand outside of functions. Those in the functions of the
package are made by mutmut, one for each thing that can be changed in a line. Left out are faults
that change nothing but the words of a message. Of the ``doctor_*`` modules a seeded sample is run.

A fault is killed when a test fails. One that survives is listed, and either it is explained in
``tests/mutants.toml`` or the exit status is 1.
"""

import argparse
import ast
import collections
import concurrent.futures
import contextlib
import difflib
import json
import os
import pathlib
import queue
import random
import re
import shutil
import signal
import subprocess
import sys
import time
import tomllib

import atomic
from tabulate import tabulate

ROOT = pathlib.Path(__file__).resolve().parent.parent
BUILD = ROOT / "build" / "mutants"
RECORD = ROOT / "build" / "mutants.json"
GOAL = 0.95
# It reads the lessons as files, so it needs none of what the conftest of the tests imports.
NUMBERS = ["tests/test_numbers_in_prose.py", "--noconftest", "-o", "addopts=--strict-markers"]
TIMEOUT = 600  # seconds for one run of a lesson or of a test file

# The modules whose functions mutmut changes, and how many of the faults are drawn (None: all).
MODULES = dict.fromkeys(["loss", "masking", "labels", "predict", "scale", "doctor"])
MODULES |= dict.fromkeys(
    ["doctor_batch", "doctor_case", "doctor_checks", "doctor_labels", "doctor_trainer"], 60
)
SEED = 0
TESTS = [
    f"tests/test_{name}.py"
    for name in ("loss", "masking", "labels", "convert_labels", "predict",
                 "pseudo_log_likelihood", "scale", "doctor", "doctor_corpus")
]  # fmt: skip
QUIET = {
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "CUDA_VISIBLE_DEVICES": "",
    "TOKENIZERS_PARALLELISM": "false",
    "PYTHONHASHSEED": "0",
}


running = set()  # the processes of this program, each the first of its group


class Unusable(Exception):
    """The unchanged copy fails, or a fault cannot be put in: nothing was proven."""


# ---- faults written by hand


def read_faults(path=None):
    """Return the faults and the explanations in ``tests/mutants.toml``."""
    text = (path or ROOT / "tests" / "mutants.toml").read_text(encoding="utf-8")
    stored = tomllib.loads(text)
    return stored["mutant"], stored.get("equivalent", [])


def apply(fault, text):
    """Return the text of the file with the fault in it, and where it is.

    Where is ``code`` or ``markdown`` for a lesson and ``module`` for a file of the package. All
    but the one place stays as it is, stored outputs included.
    """
    old, new = fault["old"], fault["new"]
    if fault["file"].endswith(".py"):
        if text.count(old) != 1:
            raise Unusable(f"{fault['id']}: {text.count(old)} times in {fault['file']}: {old!r}")
        return text.replace(old, new), "module"
    notebook = json.loads(text)
    cells = [cell for cell in notebook["cells"] if old in "".join(cell["source"])]
    times = sum("".join(cell["source"]).count(old) for cell in cells)
    if times != 1:
        raise Unusable(f"{fault['id']}: {times} times in {fault['file']}: {old!r}")
    [cell] = cells
    cell["source"] = "".join(cell["source"]).replace(old, new).splitlines(keepends=True)
    return json.dumps(notebook, ensure_ascii=False, indent=1) + "\n", cell["cell_type"]


def checks_of(fault, where):
    """Return what pytest is to run on a copy with the fault."""
    if where == "module":
        return fault["tests"]
    return NUMBERS if where == "markdown" else [fault["file"]]


def make_copy(folder, link=True):
    """Copy what the tests and lessons read; with ``link`` the weights and data are linked."""
    folder.mkdir(parents=True)
    for name in ("conftest.py", "pyproject.toml"):
        shutil.copy(ROOT / name, folder)
    ignored = shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints")
    for name in ("tests", "notebooks"):
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    if link:
        (folder / "mlmtutor").mkdir()
        for path in (ROOT / "mlmtutor").iterdir():
            if path.is_dir() and path.name != "__pycache__":
                (folder / "mlmtutor" / path.name).symlink_to(path)
            elif path.is_file():
                shutil.copy(path, folder / "mlmtutor")
    else:
        shutil.copytree(ROOT / "mlmtutor", folder / "mlmtutor", ignore=ignored)
    for name in ("docs", "tools"):
        (folder / name).symlink_to(ROOT / name)


def environment(folder):
    """Return the variables of a run: those of the tests, and the package of the copy."""
    own = {key: value for key, value in os.environ.items() if key != "MLMTUTOR_MODEL"}
    return own | QUIET | {"PYTHONPATH": str(folder)}


def call(command, folder, log=None):
    """Run a command in a process group of its own; the group ends with this program."""
    with contextlib.ExitStack() as stack:
        out = stack.enter_context(open(log, "w", encoding="utf-8")) if log else subprocess.PIPE
        process = subprocess.Popen(
            command, cwd=folder, env=environment(folder), start_new_session=True,
            stdout=out, stderr=subprocess.STDOUT, text=True, errors="replace",
        )  # fmt: skip
        running.add(process)
        try:
            text, _ = process.communicate(timeout=None if log else TIMEOUT)
        except subprocess.TimeoutExpired:
            return None, "no end within the time limit"
        finally:
            end(process)
            running.discard(process)
    return process.returncode, text or ""


def end(process):
    """End a process and all that it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def failing(targets, folder):
    """Return the first thing that fails in the copy, or None where all of it passes."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *targets]
    status, text = call(command, folder)
    if status == 0:
        return None
    if status is None:
        return text
    failed = re.search(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", text, re.M)
    if status != 1 or not failed:
        raise Unusable(f"pytest {' '.join(targets)} ended with {status}:\n{text[-2000:]}")
    return failed[1].removeprefix("notebooks/")


def run_fault(fault, copies):
    """Return the result of one fault in one of the copies."""
    folder = copies.get()
    started = time.monotonic()
    path = folder / fault["file"]
    original = path.read_text(encoding="utf-8")
    try:
        changed, where = apply(fault, original)
        path.write_text(changed, encoding="utf-8")
        killer = failing(checks_of(fault, where), folder)
    finally:
        path.write_text(original, encoding="utf-8")
        copies.put(folder)
    return {
        "part": {"markdown": "text of the lessons", "code": "cells of the lessons"}.get(
            where, "package, by hand"
        ),
        "id": fault["id"],
        "change": f"{fault['old'].strip()} -> {fault['new'].strip()}",
        "killed_by": killer,
        "explanation": fault.get("equivalent"),
        "seconds": round(time.monotonic() - started, 1),
    }


def run_by_hand(faults, folder, jobs):
    """Run the faults of ``tests/mutants.toml``, after the checks on an unchanged copy."""
    copies = queue.Queue()
    for number in range(jobs):
        make_copy(folder / f"copy-{number}")
        copies.put(folder / f"copy-{number}")
    wheres = [apply(fault, (ROOT / fault["file"]).read_text("utf-8"))[1] for fault in faults]
    needed = dict.fromkeys(
        tuple(checks_of(fault, where)) for fault, where in zip(faults, wheres, strict=True)
    )

    def unchanged(targets):
        copy = copies.get()
        try:
            return failing(targets, copy)
        finally:
            copies.put(copy)

    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        try:
            for targets, killer in zip(needed, pool.map(unchanged, needed), strict=True):
                print(f"unchanged  {targets[0]}: {killer or 'passes'}", flush=True)
                if killer:
                    raise Unusable(f"{targets[0]} fails without any fault: {killer}")
            results = []
            for result in pool.map(lambda fault: run_fault(fault, copies), faults):
                word = f"killed by {result['killed_by']}" if result["killed_by"] else "SURVIVED"
                print(f"{result['seconds']:5.0f} s  {result['id']}: {word}", flush=True)
                results.append(result)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in list(running):  # none is left, unless this program was interrupted
                end(process)
    return results


# ---- faults made by mutmut


def move_decorators_down(path):
    """Call the decorator of a function below it: mutmut leaves out what has a decorator.

    ``@check("code", "error")`` over ``def f`` becomes ``f = check("code", "error")(f)`` below.
    """
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    for node in sorted(ast.walk(ast.parse("".join(lines))), key=lambda n: -getattr(n, "lineno", 0)):
        if isinstance(node, ast.FunctionDef) and len(node.decorator_list) == 1:
            [decorator] = node.decorator_list
            indent, call = " " * node.col_offset, ast.unparse(decorator)
            lines.insert(node.end_lineno, f"\n{indent}{node.name} = ({call})({node.name})\n")
            del lines[decorator.lineno - 1 : decorator.end_lineno]
    path.write_text("".join(lines), encoding="utf-8")


def prepare_mutmut(folder, modules):
    """Make the copy that mutmut works in."""
    make_copy(folder, link=False)  # mutmut copies the package, and follows no link
    for name in modules:
        move_decorators_down(folder / "mlmtutor" / f"{name}.py")
    (folder / "pyproject.toml").write_text(
        "[tool.pytest.ini_options]\n"
        'addopts = ["--strict-markers", "-p", "no:cacheprovider"]\n'
        "[tool.mutmut]\n"
        'source_paths = ["mlmtutor"]\n'
        f"only_mutate = {json.dumps([f'mlmtutor/{name}.py' for name in modules])}\n"
        'also_copy = ["docs", "tools", "notebooks"]\n'
        f"pytest_add_cli_args_test_selection = {json.dumps(TESTS)}\n"
        "use_git_change_detection = false\n"
        "track_dependencies = false\n"
        "timeout_constant = 3.0\n",
        encoding="utf-8",
    )


def first_difference(before, after, above=()):
    """Return the smallest pair of nodes that holds the whole difference, and what is above it."""
    different = []
    if type(before) is type(after):
        for name in before._fields:
            pair = getattr(before, name, None), getattr(after, name, None)
            if all(isinstance(side, list) for side in pair) and len(pair[0]) == len(pair[1]):
                pairs = list(zip(*pair, strict=True))
            else:
                pairs = [pair]
            for one, other in pairs:
                if isinstance(one, ast.AST) and isinstance(other, ast.AST):
                    if ast.dump(one) != ast.dump(other):
                        different.append((one, other))
                elif one != other:
                    return before, after, above
    if len(different) != 1:
        return before, after, above
    return first_difference(*different[0], (*above, before))


def is_text(before, after):
    """Tell whether two versions of a function differ in the words of a message alone.

    That is a difference within ``raise``, in the literal parts of an f-string, in a string that
    has a space or is a noun for ``counted``, or in the HTML of a table.
    """
    if before.name == "_repr_html_":
        return True
    one, _, above = first_difference(before, after)
    places = (*above, one)
    if any(isinstance(node, ast.Raise) for node in places):
        return True
    if isinstance(one, ast.Constant) and isinstance(one.value, str):
        calls = [node.func for node in above if isinstance(node, ast.Call)]
        if " " in one.value or any(getattr(name, "id", None) == "counted" for name in calls):
            return True
    return any(isinstance(node, ast.JoinedStr) for node in places) and not any(
        isinstance(node, ast.FormattedValue) for node in places
    )


def read_mutants(path):
    """Return {name: change} of the faults in one file that mutmut has made.

    A change is the lines that go, an arrow, and the lines that come.
    """
    tree = ast.parse(path.read_text(encoding="utf-8"))
    functions = {n.name: n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)}
    changes = {}
    for name, function in functions.items():
        stem, mark, number = name.rpartition("__mutmut_")
        if not mark or not number.isdigit():
            continue
        before = ast.parse(ast.unparse(functions[f"{stem}__mutmut_orig"])).body[0]
        after = ast.parse(ast.unparse(function)).body[0]
        before.name = after.name = re.split("x_|ǁ", stem)[-1]
        if is_text(before, after):
            continue
        lines = [ast.unparse(version).splitlines() for version in (before, after)]
        diff = list(difflib.unified_diff(*lines, lineterm="", n=0))[2:]
        gone, come = (
            " ".join(line[1:].strip() for line in diff if line[0] == sign) for sign in "-+"
        )
        changes[f"mlmtutor.{path.stem}.{name}"] = f"{gone} -> {come}"
    return changes


def function_of(name):
    """Return ``loss.masked_lm_loss`` for ``mlmtutor.loss.x_masked_lm_loss__mutmut_3``."""
    module, function = name.split(".")[1:]
    function = function.rpartition("__mutmut_")[0]
    function = function.removeprefix("x_").removeprefix("xǁ").replace("ǁ", ".")
    return f"{module}.{function}"


def explanation_of(name, change, explanations):
    """Return why a fault cannot be noticed, if ``tests/mutants.toml`` says so."""
    for entry in explanations:
        if re.fullmatch(entry["function"], function_of(name)) and re.fullmatch(
            entry["change"], change
        ):
            return entry["why"]
    return None


def run_mutmut(modules, folder, jobs, explanations, everything=False):
    """Run the faults of mutmut in some modules; returns results as those by hand."""
    prepare_mutmut(folder, modules)
    # A script beside the interpreter: `python -m mutmut` would import the program twice.
    mutmut = [str(pathlib.Path(sys.executable).with_name("mutmut")), "run"]
    mutmut += ["--max-children", str(jobs)]
    log = BUILD.parent / "mutmut.log"

    def finish(status):
        tail = log.read_text(encoding="utf-8", errors="replace")[-2000:]
        if status != 0:
            raise Unusable(f"mutmut ended with {status}; the end of {log}:\n{tail}")

    # The first run makes all faults and times the tests, then runs the first of each function.
    finish(call([*mutmut, f"mlmtutor.{modules[0]}.*__mutmut_1"], folder, log)[0])
    changes, chosen = {}, []
    for module in modules:
        found = read_mutants(folder / "mutants" / "mlmtutor" / f"{module}.py")
        changes |= found
        size = None if everything else MODULES[module]
        names = sorted(found)
        chosen += (
            names if size is None else random.Random(SEED).sample(names, min(size, len(names)))
        )
        print(f"{module}: {len(found)} faults" + (f", {size} drawn" if size else ""), flush=True)
    finish(call([*mutmut, *chosen], folder, log)[0])
    results = []
    for name in chosen:
        module = name.split(".")[1]
        meta = json.loads(
            (folder / "mutants" / "mlmtutor" / f"{module}.py.meta").read_text("utf-8")
        )
        status = meta["exit_code_by_key"][name]
        if status in (1, 24, -24, 36, 152, 255):  # a test failed, or the time was up
            killer = "a test" if status == 1 else "the time limit"
        elif status in (0, 5, 33):  # all passed, or no test comes here
            killer = None
        else:
            raise Unusable(f"{name} ended with {status}, which is neither killed nor survived")
        results.append(
            {
                "part": f"mlmtutor/{module}.py",
                "id": name,
                "change": f"{function_of(name)}: {changes[name]}",
                "killed_by": killer,
                "explanation": explanation_of(name, changes[name], explanations),
                "seconds": round(meta["durations_by_key"].get(name) or 0, 1),
            }
        )
    return results


# ---- the record


def summary(results, seconds):
    """Return the record: counts for each part, the share, and what survived."""
    parts = {}
    for result in results:
        counts = parts.setdefault(result["part"], collections.Counter())
        counts["faults"] += 1
        counts["killed" if result["killed_by"] else "survived"] += 1
    killed = sum(counts["killed"] for counts in parts.values())
    survivors = [result for result in results if not result["killed_by"]]
    explained = [result for result in survivors if result["explanation"]]
    return {
        "parts": parts,
        "faults": len(results),
        "killed": killed,
        "equivalent": len(explained),
        "share": killed / max(1, len(results) - len(explained)),
        "share_of_all": killed / max(1, len(results)),
        "survivors": survivors,
        "unexplained": [r["id"] for r in survivors if not r["explanation"]],
        "seconds": round(seconds),
    }


def figures_of(record):
    """Return the rows and the list for docs/reliability.md."""
    figures = {
        part: f"{counts['killed']} of {counts['faults']} killed"
        for part, counts in record["parts"].items()
    }
    figures["all"] = (
        f"{record['killed']} of {record['faults']} killed ({record['share_of_all']:.1%}); without "
        f"{record['equivalent']} explained below: {record['share']:.1%}"
    )
    figures["time"] = f"{record['seconds'] / 60:.0f} minutes"
    counts = collections.Counter(r["explanation"] or "NOT EXPLAINED" for r in record["survivors"])
    examples = {r["explanation"] or "NOT EXPLAINED": r["change"] for r in record["survivors"]}
    listed = [
        f"{count} not killed: {why} For example `{' '.join(examples[why].split())}`."
        for why, count in counts.most_common()
    ]
    return figures, listed


def end_on_signal(number, frame):
    """Leave by an exception, so that the copies are removed."""
    sys.exit(128 + number)


@contextlib.contextmanager
def workplace():
    """A folder for the copies, which is removed at the end; what a killed run left goes as well."""
    for left in BUILD.glob("run-*"):
        try:
            os.kill(int(left.name.removeprefix("run-")), 0)
        except ProcessLookupError:
            shutil.rmtree(left)
        except (ValueError, PermissionError):
            continue
    folder = BUILD / f"run-{os.getpid()}"
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def main():
    """Run the faults and print the table; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", metavar="name",
                        help="a lesson (04), a fault (01-shift), a module (loss)")  # fmt: skip
    parser.add_argument("--jobs", type=int, default=1, help="faults at a time (default: 1)")
    parser.add_argument("--every", action="store_true", help="no sample: all faults of a module")
    parser.add_argument("--list", action="store_true", help="list the faults by hand, run nothing")
    options = parser.parse_args()
    faults, explanations = read_faults()
    modules = list(MODULES)
    if options.names:
        known = {f["id"] for f in faults} | {f["id"].split("-")[0] for f in faults} | set(MODULES)
        unknown = sorted(set(options.names) - known)
        if unknown:
            parser.error(f"no such lesson, fault or module: {', '.join(unknown)}")
        faults = [f for f in faults if {f["id"], f["id"].split("-")[0]} & set(options.names)]
        modules = [name for name in MODULES if name in options.names]
    if options.list:
        print(tabulate([(f["id"], f["kind"], f["file"]) for f in faults]))
        return 0
    signal.signal(signal.SIGTERM, end_on_signal)
    started = time.monotonic()
    results = []
    with workplace() as folder:
        if faults:
            results += run_by_hand(faults, folder, options.jobs)
        if modules:
            results += run_mutmut(
                modules, folder / "mutmut", options.jobs, explanations, options.every
            )
    record = summary(results, time.monotonic() - started)
    RECORD.parent.mkdir(exist_ok=True)
    atomic.write(RECORD, json.dumps(record, indent=2, ensure_ascii=False) + "\n")
    figures, listed = figures_of(record)
    print(tabulate(figures.items()))
    for result in record["survivors"]:
        print(f"survived  {result['id']}\n    {result['change']}")
        print(f"    {result['explanation'] or 'NOT EXPLAINED'}")
    if not options.names:
        import reliability

        reliability.record("mutants", figures, listed)
    return int(record["share"] < GOAL or bool(record["unexplained"]))


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Unusable as error:
        print(f"nothing was proven: {error}", file=sys.stderr)
        sys.exit(2)
