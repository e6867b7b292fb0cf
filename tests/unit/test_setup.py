"""``tools/setup.sh``: once, again after a change, and one clear line where it cannot work.

A shell script stands in for Python: it makes a ``.venv`` whose interpreter is itself, and notes
each call of pip.
"""

import os
import shutil
import subprocess

import pytest
import stored

FAKE_PYTHON = """#!/bin/sh
case "$*" in
    *version_info*) exit {old} ;;
    --version) echo "Python 3.8.1" ;;
    *"import venv"*) exit {no_venv} ;;
    "-m venv .venv") mkdir -p .venv/bin; cp "$0" .venv/bin/python ;;
    "-m pip"*) echo "$*" >> pip.log; echo "ERROR: no network"; exit {no_network} ;;
esac
"""


@pytest.fixture
def project(tmp_path):
    """A copy of what the set-up reads, in an empty folder."""
    folder = tmp_path / "clone"
    (folder / "tools").mkdir(parents=True)
    (folder / "docs" / "explorer").mkdir(parents=True)
    lock = "docs/explorer/package-lock.json"
    tools = ("tools/setup.sh", "tools/lab.css")
    for name in ("pyproject.toml", "constraints.txt", "Makefile", *tools, lock):
        shutil.copy(stored.ROOT / name, folder / name)
    (folder / "pip.log").touch()
    return folder


def call(folder, command=("sh", "tools/setup.sh", "lab"), **fault):
    faults = {"old": 0, "no_venv": 0, "no_network": 0} | fault
    python = folder.parent / "python3"
    python.write_text(FAKE_PYTHON.format(**faults))
    python.chmod(0o755)
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False,
        env={"PATH": os.environ["PATH"], "PYTHON": str(python), "HOME": str(folder.parent)},
    )  # fmt: skip


def pip_calls(folder):
    return (folder / "pip.log").read_text().splitlines()


def test_setup_does_nothing_when_called_again(project):
    first = call(project)
    assert first.returncode == 0, first.stderr
    assert "-c constraints.txt -e .[lab]" in pip_calls(project)[0]
    second = call(project)
    assert (second.returncode, second.stdout, second.stderr) == (0, "", "")
    assert len(pip_calls(project)) == 1


def test_setup_adds_an_extra_once_and_keeps_the_others(project):
    call(project)
    for _ in range(2):
        assert call(project, command=("sh", "tools/setup.sh", "test", "lab")).returncode == 0
    assert "-e .[lab,test]" in pip_calls(project)[1]
    assert len(pip_calls(project)) == 2


@pytest.mark.parametrize("name", ["pyproject.toml", "constraints.txt"])
def test_setup_installs_again_after_a_change(project, name):
    call(project)
    with open(project / name, "a") as file:
        file.write("# changed\n")
    call(project)
    assert len(pip_calls(project)) == 2


def test_setup_installs_again_in_a_moved_project(project):
    call(project)
    moved = project.rename(project.parent / "elsewhere")
    assert call(moved).returncode == 0
    assert len(pip_calls(moved)) == 2


def test_setup_is_taken_up_again_after_an_interruption(project):
    assert call(project, no_network=1).returncode == 1
    assert not (project / ".venv" / "installed").exists()
    assert call(project).returncode == 0
    assert len(pip_calls(project)) == 2


@pytest.mark.parametrize(
    ("fault", "line"),
    [
        ({"old": 1}, "Python 3.11 or newer is needed, and"),
        ({"no_venv": 1}, "has no venv module. Install it (on Debian and Ubuntu: apt install python3-venv)"),
        ({"no_network": 1}, "The first set-up needs a network"),
    ],
)  # fmt: skip
def test_setup_says_in_one_line_what_is_missing(project, fault, line):
    done = call(project, **fault)
    assert done.returncode == 1
    lines = [text for text in done.stderr.splitlines() if "this takes some minutes" not in text]
    assert len(lines) == 1
    assert line in lines[0]
    assert done.stdout == ""


def test_make_without_a_target_lists_the_targets(project):
    done = call(project, command=("make",))
    assert done.returncode == 0
    targets = [line.split()[1] for line in done.stdout.splitlines()]
    assert {"help", "lab", "test", "test-all", "lessons", "lint"} <= set(targets)
    assert not pip_calls(project)


@pytest.mark.parametrize(
    ("target", "command"),
    [
        ("test", "--ignore=tests/site -k show"),
        ("lab", "--no-browser --port 9999"),
        ("lessons", "-m tools.lessons"),
    ],
)
def test_make_targets_set_up_and_pass_options_on(project, target, command):
    options = ["TEST_ARGS=-k show", "LAB_ARGS=--no-browser --port 9999"]
    done = call(project, command=("make", target, *options))
    assert done.returncode == 0, done.stderr
    assert len(pip_calls(project)) == 1
    assert command in done.stdout
