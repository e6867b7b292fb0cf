"""The other doors: instructor's page, development container, workflow, the picture of the README."""

import json
import re
import struct

import stored
import yaml

INSTRUCTORS = (stored.ROOT / "docs" / "instructors.md").read_text("utf-8")
WORKFLOW = (stored.ROOT / ".github" / "workflows" / "ci.yml").read_text("utf-8")
TARGETS = set(re.findall(r"^([a-z]+):", (stored.ROOT / "Makefile").read_text("utf-8"), re.M))
NOT_SECTIONS = {"What you will learn", "Before you start", "Setup", "Summary",
                "Where this goes wrong in practice"}  # fmt: skip


def headings(path, level):
    text = "\n".join(cell.source for cell in stored.prose(stored.read(path)))
    return re.findall(rf"^{'#' * level} (.+)$", text, re.M)


def chapters():
    """Return the text of each lesson of the page, by the number of the lesson."""
    parts = re.split(r"^### (\d\d) (.+)$", INSTRUCTORS, flags=re.M)[1:]
    return {number: (title, text) for number, title, text in zip(*[iter(parts)] * 3, strict=True)}


def test_the_page_has_each_lesson_with_its_sections_in_order():
    found = chapters()
    assert list(found) == sorted(found)
    for path in stored.PATHS[1:]:
        title, text = found[path.name[:2]]
        assert title == headings(path, 1)[0]
        rows = re.findall(r"^\| (.+) \| +\d+ \|$", text, re.M)
        assert rows == [h for h in headings(path, 2) if h not in NOT_SECTIONS], path.name


def test_the_minutes_fit_the_minutes_of_the_lesson():
    for path in stored.PATHS[1:]:
        notebook = stored.read(path)
        source = "\n".join(cell.source for cell in stored.prose(notebook))
        start = source.index("## Before you start")
        stated = int(re.search(r"(\d+) minutes", source[start:]).group(1))
        exercises = [int(m) for m in re.findall(r"### Exercise \d \(\w+, (\d+) minutes\)", source)]
        sections = re.findall(r"^\| .+ \| +(\d+) \|$", chapters()[path.name[:2]][1], re.M)
        assert sum(map(int, sections)) <= stated, path.name
        assert sum(exercises) < stated + 10, path.name


def test_each_exercise_that_is_named_exists():
    named = 0
    for path in stored.PATHS[1:]:
        exist = {heading[9] for heading in headings(path, 3) if heading.startswith("Exercise ")}
        _, text = chapters()[path.name[:2]]
        for numbers in re.findall(r"[Ee]xercises? (\d(?: and \d)*)", text):
            assert set(numbers.split(" and ")) <= exist, path.name
            named += 1
    for lesson, numbers in re.findall(r"lesson (\d\d)[^|]*?exercises? (\d)", INSTRUCTORS):
        [path] = [p for p in stored.PATHS if p.name.startswith(lesson)]
        assert any(h.startswith(f"Exercise {numbers}") for h in headings(path, 3))
    assert named >= len(stored.PATHS) - 1


def test_the_plans_have_the_length_that_they_promise():
    plans = re.split(r"^## (.+)$", INSTRUCTORS, flags=re.M)
    minutes = {
        title: sum(map(int, re.findall(r"^\| (\d+) \|", text, re.M)))
        for title, text in zip(plans[1::2], plans[2::2], strict=True)
    }
    assert minutes["A class of 90 minutes"] == 90
    assert 210 <= minutes["Half a day"] <= 240


def test_the_threads_of_the_page_are_cited_in_its_lessons():
    for path in stored.PATHS[1:]:
        source = "\n".join(cell.source for cell in stored.prose(stored.read(path)))
        threads = re.findall(r"[\w./-]+#\d+", chapters()[path.name[:2]][1])
        assert threads, path.name
        everywhere = source + (stored.ROOT / "notebooks" / "questions.toml").read_text("utf-8")
        assert [t for t in threads if t not in everywhere] == [], path.name


def test_commands_that_are_named_exist():
    commands = re.findall(r"`make (\w+)`", INSTRUCTORS)
    assert {"slides", "student", "lab", "setup"} <= set(commands) <= TARGETS


def test_the_development_container_sets_the_project_up():
    container = json.loads((stored.ROOT / ".devcontainer" / "devcontainer.json").read_text())
    tag = container["image"].split(":")[1]
    assert tag == "3.11"
    assert container["postCreateCommand"].split()[:2] == ["make", "setup"]
    assert container["forwardPorts"] == [8888]


def test_the_workflow_runs_the_targets_of_the_makefile():
    workflow = yaml.safe_load(WORKFLOW)
    jobs = workflow["jobs"]
    commands = {name: [step.get("run", "") for step in job["steps"]] for name, job in jobs.items()}
    called = {t for run in commands["test"] for t in re.findall(r"^make (.+)$", run, re.M)}
    assert {"setup", "lint", "test", "site slides student"} <= called
    assert "make matrix" in commands["matrix"]
    assert all(set(targets.split()) <= TARGETS for targets in called)
    on = workflow[True]  # YAML 1.1 reads "on" as true
    assert on["schedule"][0]["cron"].count(" ") == 4
    assert "schedule" in jobs["matrix"]["if"]
    assert workflow["permissions"] == {"contents": "read"}
    assert any("chromium" in run for run in commands["test"])


def test_the_workflow_uses_pinned_actions_and_no_secret():
    uses = re.findall(r"uses: (\S+)", WORKFLOW)
    assert len(uses) >= 4
    assert all(re.fullmatch(r"actions/[a-z-]+@v\d+", action) for action in uses), uses
    assert "secrets" not in WORKFLOW


def test_the_picture_of_the_table_is_there_and_sharp():
    data = (stored.ROOT / "docs" / "_static" / "alignment.png").read_bytes()
    assert data.startswith(b"\x89PNG")
    width, height = struct.unpack(">II", data[16:24])
    assert 1200 <= width <= 2000  # about 730 pixels on a page, at two for each
    assert height < width / 3
    assert len(data) < 150_000
