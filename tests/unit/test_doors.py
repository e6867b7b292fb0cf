"""The other doors: instructor's page, development container, workflow."""

import json
import re

import pytest
import stored
import yaml

from tools import lessons as tool

INSTRUCTORS = (stored.ROOT / "docs" / "instructors.md").read_text("utf-8")
WORKFLOW = (stored.ROOT / ".github" / "workflows" / "ci.yml").read_text("utf-8")
TARGETS = set(re.findall(r"^([a-z-]+):", (stored.ROOT / "Makefile").read_text("utf-8"), re.M))
PLAN = re.compile(r"^\| (\d+) \| (.+?) \|", re.M)


def plans():
    """Return the rows of each plan, minutes and what, by its heading."""
    parts = re.split(r"^## (.+)$", INSTRUCTORS, flags=re.M)
    return {
        title: [(int(minutes), what) for minutes, what in PLAN.findall(text)]
        for title, text in zip(parts[1::2], parts[2::2], strict=True)
        if PLAN.search(text)
    }


def test_plans_have_the_length_that_they_promise():
    minutes = {title: sum(minutes for minutes, _ in rows) for title, rows in plans().items()}
    assert minutes.pop("A class of 90 minutes, without a laptop") == 90
    assert minutes.pop("A clinic of 45 minutes") == 45
    assert 210 <= minutes.pop("Half a day") <= 240
    assert 390 <= minutes.pop("A day") <= 450
    assert not minutes
    for rows in plans().values():
        assert "arrive" in rows[0][1]
        assert re.search("closing|what next", rows[-1][1])


@pytest.mark.slow  # it makes decks, with packages of the site
def test_plans_give_a_lesson_the_minutes_that_it_states():
    from tools.slides import deck

    checked = 0
    for title, rows in plans().items():
        for minutes, what in rows:
            for number in re.findall(r"(\d\d)(?= (?:or \d\d )?with its exercise)", what):
                [path] = tool.NOTEBOOKS.glob(f"{number}_*.ipynb")
                assert minutes >= tool.minutes(stored.read(path)), (title, what)
                checked += 1
            if number := re.match(r"lesson (\d\d), without", what):
                [path] = tool.NOTEBOOKS.glob(f"{number[1]}_*.ipynb")
                slides = len(deck(stored.read(path)))
                assert slides <= minutes, (title, what, slides)
                checked += 1
    assert checked >= 18


def test_instructors_page_has_each_lesson_with_its_threads_and_exercises():
    parts = re.split(r"^### (\d\d) (.+)$", INSTRUCTORS, flags=re.M)[1:]
    found = {number: (title, text) for number, title, text in zip(*[iter(parts)] * 3, strict=True)}
    questions = (tool.NOTEBOOKS / "questions.toml").read_text("utf-8")
    assert list(found) == [path.name[:2] for path in stored.CORE]
    for path in stored.CORE:
        notebook = stored.read(path)
        title, text = found[path.name[:2]]
        assert title == tool.title(notebook)
        source = questions + "\n".join(cell.source for cell in stored.prose(notebook))
        assert [t for t in re.findall(r"[\w./-]+#\d+", text) if t not in source] == [], path.name
        kept = re.findall(r"Keep exercise (\d)", text)
        assert kept
        assert all(f"### Exercise {number} " in source for number in kept)


def test_worksheet_has_the_numbers_of_lesson_05():
    sheet = (stored.ROOT / "docs" / "worksheet.md").read_text("utf-8")
    [path] = tool.NOTEBOOKS.glob("05_*.ipynb")
    cells = stored.code_cells(stored.read(path))
    shown = "\n".join(text for cell in cells for text in stored.output_texts(cell))
    numbers = [3.64, 0.79, 2.50]
    assert all(f"{number:.2f}" in shown and f"{number:.2f}" in sheet for number in numbers)
    for answer in (sum(numbers) / 3, sum(numbers) / 24, (3.64 + (0.79 + 2.50) / 2) / 2):
        assert f"{answer:.2f}" in sheet


def test_instructors_page_names_commands_that_exist():
    commands = re.findall(r"`make (\w+)`", INSTRUCTORS)
    assert {"slides", "student", "lab"} <= set(commands) <= TARGETS


def test_development_container_sets_the_project_up():
    container = json.loads((stored.ROOT / ".devcontainer" / "devcontainer.json").read_text())
    tag = container["image"].split(":")[1]
    assert tag == "3.11"
    assert container["postCreateCommand"].startswith("sh tools/setup.sh lab")
    assert container["forwardPorts"] == [8888]


def test_workflow_runs_the_targets_of_the_makefile():
    workflow = yaml.safe_load(WORKFLOW)
    jobs = workflow["jobs"]
    commands = {name: [step.get("run", "") for step in job["steps"]] for name, job in jobs.items()}
    called = {t for run in commands["test"] for t in re.findall(r"^make (.+)$", run, re.M)}
    assert {"lint", "test", "test-all", "site slides student"} <= called
    assert "make matrix" in commands["matrix"]
    assert all(set(targets.split()) <= TARGETS for targets in called)
    on = workflow[True]  # YAML 1.1 reads "on" as true
    assert on["schedule"][0]["cron"].count(" ") == 4
    assert "schedule" in jobs["matrix"]["if"]
    assert workflow["permissions"] == {"contents": "read"}
    assert any("chromium" in run for run in commands["test"])


def test_workflow_uses_pinned_actions_and_no_secret():
    uses = re.findall(r"uses: (\S+)", WORKFLOW)
    assert len(uses) >= 4
    assert all(re.fullmatch(r"actions/[a-z-]+@v\d+", action) for action in uses), uses
    assert "secrets" not in WORKFLOW
