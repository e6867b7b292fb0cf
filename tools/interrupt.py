"""Kill work at random moments, and show that nothing is lost and that the next run works.

    python tools/interrupt.py                  twenty kills of each
    python tools/interrupt.py train --kills 3  this one, three times

Everything happens in a clone of the last commit, in ``build/interrupt/``. The kill is SIGKILL, to
the whole process group, at a moment drawn evenly from the time that the work takes (of `make
lessons` and `make test`: from their first minute). After each kill the tracked files are compared
with the commit; at the end the work is done once more without a kill. The result goes to
``docs/reliability.md``.
"""

import argparse
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time

import nbformat
from safetensors.torch import load_file
from tqdm import tqdm

ROOT = pathlib.Path(__file__).resolve().parent.parent
BUILD = ROOT / "build" / "interrupt"
CLONE = BUILD / "clone"
LOG = BUILD / "log"
PATIENCE = 30  # seconds that a kernel may live on after the process that started it

sys.path.insert(0, str(ROOT / "tests"))
import reliability
from tiny_corpus import write_tiny_corpus


def start(*command):
    """Start a command in the clone, as the leader of a process group."""
    with open(LOG, "a", encoding="utf-8") as log:
        return subprocess.Popen(
            [str(part) for part in command],
            cwd=CLONE, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip


def killed(command, seconds):
    """Start `command`, kill its group after `seconds`; False where it had ended before."""
    process = start(*command)
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return True
    if process.returncode:
        raise SystemExit(f"{' '.join(map(str, command))} failed by itself; see {LOG}")
    return False


def finish(*command):
    """Run `command` to its end; return the seconds."""
    begun = time.monotonic()
    if start(*command).wait():
        raise SystemExit(f"{' '.join(map(str, command))} failed after the kills; see {LOG}")
    return time.monotonic() - begun


def changed_files():
    """Return what git sees as changed or new in the clone."""
    status = subprocess.run(
        ["git", "status", "--porcelain"], cwd=CLONE, capture_output=True, text=True, check=True
    )
    return status.stdout.splitlines()


def left_over():
    """Return the processes that still work in the clone when the patience is over."""
    end = time.monotonic() + PATIENCE
    while True:
        alive = []
        for folder in pathlib.Path("/proc").glob("[0-9]*"):
            try:
                if os.readlink(folder / "cwd").startswith(str(CLONE)):
                    alive.append(int(folder.name))
            except OSError:  # it has ended, or is not ours
                continue
        if not alive or time.monotonic() > end:
            return alive
        time.sleep(0.2)


def kill_often(command, kills, longest, check, afresh=lambda: None):
    """Kill `command` `kills` times at moments in [0, longest).

    Each run goes on where the last was killed. `check` is called after each kill, `afresh` where
    a run came to its end before the kill.
    """
    done = 0
    with tqdm(total=kills, desc=" ".join(map(str, command))[-40:], unit="kill") as bar:
        while done < kills:
            if killed(command, random.uniform(0, longest)):
                done += 1
                bar.update()
                check()
            else:
                afresh()


def untouched():
    """Fail where a tracked file changed or a process lives on."""
    if changed_files() or left_over():
        raise SystemExit(f"after a kill: {changed_files()}, processes {left_over()}")


def interrupt_setup(kills):
    """Kill the set-up, then let it finish; a second call must then have nothing to do."""
    command = ["sh", "tools/setup.sh"]
    environment = CLONE / ".venv"
    shutil.rmtree(environment, ignore_errors=True)
    whole = finish(*command)
    shutil.rmtree(environment)
    kill_often(command, kills, whole, untouched, lambda: shutil.rmtree(environment))
    finish(*command)
    again = finish(*command)
    if again > 3:
        raise SystemExit(f"the second call took {again:.1f} s")
    finish(CLONE / ".venv/bin/python", "-c", "import mlmtutor; mlmtutor.load_tutor()")


def interrupt_lessons(kills):
    """Kill ``make lessons`` on lessons without outputs; each file must be one or the other.

    A training figure keeps its picture: drawn anew, it has the pixels of this processor.
    """
    lessons = sorted((CLONE / "notebooks").glob("*.ipynb"))
    stored = {path: path.read_bytes() for path in lessons}

    def empty(path):
        notebook = nbformat.read(path, as_version=4)
        for cell in notebook.cells:
            if cell.cell_type == "code" and "training-figure" not in cell.metadata.get("tags", []):
                cell.outputs = []
        path.write_text(nbformat.writes(notebook) + "\n", encoding="utf-8")
        return path.read_bytes()

    emptied = {path: empty(path) for path in lessons}

    def whole():
        others = {line.split()[-1] for line in changed_files()}
        others -= {f"notebooks/{path.name}" for path in lessons}
        others = {name for name in others if not name.endswith(".ipynb.new")}
        torn = [p.name for p in lessons if p.read_bytes() not in (stored[p], emptied[p])]
        if torn or others or left_over():
            raise SystemExit(f"after a kill: torn {torn}, changed {others}, {left_over()}")
        for path in lessons:
            path.write_bytes(emptied[path])

    kill_often(["make", "lessons"], kills, 60, whole)
    finish("make", "lessons")
    untouched()


def interrupt_test(kills):
    """Kill ``make test``; then a part of it must pass."""
    kill_often(["make", "test"], kills, 60, untouched)
    finish("make", "test", "TEST_ARGS=tests/test_loss.py notebooks/01_answer_the_question.ipynb")
    untouched()


def interrupt_train(kills):
    """Kill the training on a tiny corpus; it must end with the weights of one that was not."""
    data = BUILD / "data"
    shutil.rmtree(data, ignore_errors=True)
    data.mkdir()
    write_tiny_corpus(data)
    fixed = "--steps 1000 --precision fp32 --threads 1 --positions 256 --checkpoint-minutes 0"

    def afresh():
        shutil.rmtree(BUILD / "parts", ignore_errors=True)

    def command(run):
        python, recipe = CLONE / ".venv/bin/python", "tools/pretrain/train.py"
        return [python, recipe, data, BUILD / run, *fixed.split()]

    shutil.rmtree(BUILD / "whole", ignore_errors=True)
    whole = finish(*command("whole"))
    afresh()
    kill_often(command("parts"), kills, whole, untouched, afresh)
    finish(*command("parts"))
    first, second = (
        load_file(BUILD / run / "checkpoint.safetensors") for run in ("whole", "parts")
    )
    different = [name for name, tensor in first.items() if not tensor.equal(second[name])]
    if different or first.keys() != second.keys():
        raise SystemExit(f"the weights differ from those of a run without kills: {different[:5]}")


WORK = {
    "setup": interrupt_setup,
    "train": interrupt_train,
    "lessons": interrupt_lessons,
    "test": interrupt_test,
}


def main():
    """Do the work that was named, all of it by default."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("work", nargs="*", metavar="work", help=f"of {', '.join(WORK)}")
    parser.add_argument("--kills", type=int, default=20, help="of each (default: 20)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default: 0)")
    options = parser.parse_args()
    unknown = sorted(set(options.work) - set(WORK))
    if unknown:
        parser.error(f"no such work: {', '.join(unknown)}; known: {', '.join(WORK)}")
    random.seed(options.seed)
    BUILD.mkdir(parents=True, exist_ok=True)
    if not CLONE.exists():
        subprocess.run(["git", "clone", "--quiet", ROOT, CLONE], check=True)
    for update in (["fetch", "--quiet", "origin"], ["reset", "--quiet", "--hard", "origin/HEAD"]):
        subprocess.run(["git", *update], cwd=CLONE, check=True)
    if not (CLONE / ".venv/installed").exists() and "setup" not in (options.work or WORK):
        finish("sh", "tools/setup.sh")
    for name in options.work or WORK:
        WORK[name](options.kills)
        told = f"{options.kills} kills, nothing lost, and the next run worked"
        print(f"{name}: {told}", flush=True)
        reliability.record("interruption", {f"`{name}`": told}, add=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
