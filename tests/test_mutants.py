"""A sample of `make mutants`: every fault still fits, some are put in, and those die."""

import importlib.util
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import lessons
import pytest
import transformers

TOOL = lessons.ROOT / "tools" / "mutants.py"
SPEC = importlib.util.spec_from_file_location("mutants", TOOL)
mutants = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(mutants)

FAULTS, EXPLANATIONS = mutants.read_faults()
BY_ID = {fault["id"]: fault for fault in FAULTS}


def with_fault(fault):
    """Return the text of the file before and after, and where the fault is."""
    before = (lessons.ROOT / fault["file"]).read_text("utf-8")
    return before, *mutants.apply(fault, before)


# The list ----------------------------------------------------------------------------------------


def test_there_are_enough_faults_in_every_lesson():
    assert len(BY_ID) == len(FAULTS)
    in_lessons = [fault for fault in FAULTS if fault["file"].startswith("notebooks/")]
    assert len(in_lessons) >= 60
    for name in lessons.NAMES[1:]:
        assert sum(fault["file"] == f"notebooks/{name}.ipynb" for fault in FAULTS) >= 8, name


@pytest.mark.parametrize("name", BY_ID)
def test_a_fault_fits_in_one_place_and_changes_nothing_else(name):
    fault = BY_ID[name]
    assert name.split("-")[0] in (pathlib.Path(fault["file"]).stem[:2], *mutants.MODULES)
    before, after, where = with_fault(fault)
    if where == "module":
        assert before.replace(fault["old"], fault["new"]) == after != before
        assert fault["tests"]
        assert all((lessons.ROOT / test).is_file() for test in fault["tests"])
        compile(after, fault["file"], "exec")
        return
    notebooks = [json.loads(text) for text in (before, after)]
    changed = [
        (old, new)
        for old, new in zip(*(notebook["cells"] for notebook in notebooks), strict=True)
        if old != new
    ]
    [(old, new)] = changed
    assert {key for key in old if old[key] != new[key]} == {"source"}
    source = "".join(new["source"])
    assert source == "".join(old["source"]).replace(fault["old"], fault["new"])
    if where == "code":
        compile(source, name, "exec")
    else:
        assert re.search(r"\d", fault["old"]), "the text is searched for numbers alone"


@pytest.mark.parametrize(
    ("old", "times"), [("no such text", 0), ("labels", "[1-9]"), ("import", "[1-9]")]
)
def test_a_fault_that_fits_nowhere_or_twice_is_refused(old, times):
    fault = {"id": "x", "file": BY_ID["01-shift"]["file"], "old": old, "new": "y"}
    with pytest.raises(mutants.Unusable, match=f"^x: {times}"):
        with_fault(fault)


def test_every_explanation_can_match():
    for entry in EXPLANATIONS:
        re.compile(entry["function"])
        assert " -> " in entry["change"]
        re.compile(entry["change"])
        assert entry["why"].endswith(".")


# A sample ----------------------------------------------------------------------------------------


@pytest.mark.skipif(
    int(transformers.__version__.split(".")[0]) < 5, reason="lessons store what release 5 prints"
)
def test_faults_die_where_they_are_and_harmless_changes_live(tmp_path):
    harmless = {
        "id": "harmless",
        "file": BY_ID["05-text-divisor"]["file"],
        "old": "it divides by 24",
        "new": "it is divided by 24",
    }
    sample = [BY_ID[name] for name in ("01-ignore-99", "05-text-divisor", "labels-ignore-99")]
    results = mutants.run_by_hand([*sample, harmless], tmp_path, jobs=2)
    killers = [result["killed_by"] for result in results]
    assert re.fullmatch(r"01_answer_the_question.ipynb::Cell [23]", killers[0])
    assert "test_every_number_is_shown_or_listed[05_compute" in killers[1]
    assert killers[2].startswith("tests/test_labels.py::")
    assert killers[3] is None
    for fault in sample:
        stored = (lessons.ROOT / fault["file"]).read_text("utf-8")
        assert all(
            (tmp_path / f"copy-{n}" / fault["file"]).read_text("utf-8") == stored for n in "01"
        )


def test_nothing_is_proven_on_a_copy_that_fails_by_itself(tmp_path, monkeypatch):
    monkeypatch.setattr(mutants, "failing", lambda targets, folder: "test_x")
    with pytest.raises(mutants.Unusable, match="fails without any fault: test_x"):
        mutants.run_by_hand([BY_ID["01-shift"]], tmp_path, jobs=1)


def test_a_run_that_is_no_test_failure_is_no_kill(tmp_path):
    with pytest.raises(mutants.Unusable, match="ended with 4"):
        mutants.failing(["tests/no_such_file.py"], tmp_path)


def test_an_interrupted_run_leaves_nothing_behind():
    process = subprocess.Popen([sys.executable, TOOL, "01-shift"], stdout=subprocess.DEVNULL)
    folder = mutants.BUILD / f"run-{process.pid}"
    end = time.monotonic() + 60
    while not (folder / "copy-0" / "mlmtutor" / "show.py").exists():
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 128 + signal.SIGTERM
    assert not folder.exists()


def test_what_a_killed_run_left_goes_with_the_next(tmp_path, monkeypatch):
    monkeypatch.setattr(mutants, "BUILD", tmp_path)
    gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"],
                          capture_output=True, text=True, check=True).stdout.strip()  # fmt: skip
    for name in (f"run-{gone}", f"run-{os.getppid()}"):
        (tmp_path / name).mkdir()
    with mutants.workplace() as folder:
        folder.mkdir()
    assert [path.name for path in tmp_path.iterdir()] == [f"run-{os.getppid()}"]


# What mutmut makes -------------------------------------------------------------------------------

MADE = """
def x_f__mutmut_orig(x):
    if x > 0:
        raise ValueError(f"x is {x}")
    return g("a b", x + 1)

def x_f__mutmut_1(x):
    if x >= 0:
        raise ValueError(f"x is {x}")
    return g("a b", x + 1)

def x_f__mutmut_2(x):
    if x > 0:
        raise ValueError(None)
    return g("a b", x + 1)

def x_f__mutmut_3(x):
    if x > 0:
        raise ValueError(f"x is {x}")
    return g("XXa bXX", x + 1)

def x_f__mutmut_4(x):
    if x > 0:
        raise ValueError(f"x is {x}")
    return g(x + 1)
"""


def test_words_of_messages_are_left_out(tmp_path):
    path = tmp_path / "toy.py"
    path.write_text(MADE, "utf-8")
    assert mutants.read_mutants(path) == {
        "mlmtutor.toy.x_f__mutmut_1": "if x > 0: -> if x >= 0:",
        "mlmtutor.toy.x_f__mutmut_4": "return g('a b', x + 1) -> return g(x + 1)",
    }


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("mlmtutor.loss.x_masked_lm_loss__mutmut_3", "loss.masked_lm_loss"),
        ("mlmtutor.loss.x__check__mutmut_12", "loss._check"),
        ("mlmtutor.doctor.xǁCheckedCollatorǁ__call____mutmut_1", "doctor.CheckedCollator.__call__"),
    ],
)
def test_the_function_of_a_fault(name, function):
    assert mutants.function_of(name) == function


def test_decorators_are_called_below(tmp_path):
    source = (
        "import functools\n"
        "names = []\n"
        "def keep(name):\n    return lambda f: names.append(name) or f\n"
        "@keep('f')\ndef f():\n    return 1\n"
        "class A:\n    @property\n    def one(self):\n        return 1\n"
        "    @functools.cached_property\n    def two(self):\n        return 2\n"
    )
    path = tmp_path / "toy.py"
    path.write_text(source, "utf-8")
    mutants.move_decorators_down(path)
    assert "@" not in path.read_text("utf-8")
    namespace = {}
    exec(path.read_text("utf-8"), namespace)
    assert namespace["names"] == ["f"]
    assert (namespace["f"](), namespace["A"]().one, namespace["A"]().two) == (1, 1, 2)


def test_an_explanation_belongs_to_a_function_and_a_change():
    known = [{"function": r"loss\.f", "change": r"a -> (b|c)", "why": "Because."}]
    name = "mlmtutor.loss.x_f__mutmut_1"
    assert mutants.explanation_of(name, "a -> c", known) == "Because."
    assert mutants.explanation_of(name, "a -> d", known) is None
    assert mutants.explanation_of("mlmtutor.loss.x_g__mutmut_1", "a -> c", known) is None


# The record --------------------------------------------------------------------------------------


def result(name, killed_by=None, explanation=None):
    return {"part": "p", "id": name, "change": f"{name} -> b", "killed_by": killed_by,
            "explanation": explanation, "seconds": 1.0}  # fmt: skip


def run_main(results, monkeypatch, tmp_path):
    monkeypatch.setattr(mutants, "run_by_hand", lambda *arguments: results)
    monkeypatch.setattr(mutants, "RECORD", tmp_path / "mutants.json")
    monkeypatch.setattr(sys, "argv", ["mutants.py", "01"])
    before = signal.getsignal(signal.SIGTERM)
    try:
        return mutants.main()
    finally:
        signal.signal(signal.SIGTERM, before)


def test_all_killed_or_explained_is_right(monkeypatch, tmp_path, capsys):
    results = [result(str(n), "test_x") for n in range(19)] + [result("20", None, "It is equal.")]
    assert run_main(results, monkeypatch, tmp_path) == 0
    record = json.loads((tmp_path / "mutants.json").read_text("utf-8"))
    assert (record["faults"], record["killed"], record["share"]) == (20, 19, 1.0)
    assert record["share_of_all"] == 0.95
    assert record["parts"] == {"p": {"faults": 20, "killed": 19, "survived": 1}}
    assert "It is equal." in capsys.readouterr().out
    assert mutants.figures_of(record)[1] == ["1 not killed: It is equal. For example `20 -> b`."]


@pytest.mark.parametrize("killed", [1, 99])
def test_a_survivor_without_explanation_is_an_error(monkeypatch, tmp_path, capsys, killed):
    results = [result(str(n), "test_x") for n in range(killed)] + [result("last")]
    assert run_main(results, monkeypatch, tmp_path) == 1
    assert "survived  last\n    last -> b\n    NOT EXPLAINED" in capsys.readouterr().out


def test_an_unknown_name_is_refused(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["mutants.py", "01", "magic"])
    with pytest.raises(SystemExit, match="2"):
        mutants.main()
    assert "no such lesson, fault or module: magic" in capsys.readouterr().err
