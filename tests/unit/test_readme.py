"""What the README says is run."""

import doctest
import re
import subprocess

import pytest
import stored
import torch

from tools import lessons

README = (stored.ROOT / "README.md").read_text("utf-8")


def test_readme_code_runs():
    answer, doctor = re.findall(r"```python\n(.*?)```", README, re.S)
    assert answer.count(">>>") == 6
    code = doctest.DocTestParser().get_doctest(answer + doctor, {}, "README", "README.md", 0)
    results = doctest.DocTestRunner().run(code)
    assert (results.failed, results.attempted) == (0, 8)


def test_readme_table_is_what_the_tokenizer_says(tutor):
    model, tokenizer = tutor
    rows = {
        cells[0].strip(" `"): [cell.strip(" *") for cell in cells[1:]]
        for line in README.splitlines()
        if line.startswith("| ") and line.count("|") == 11
        for cells in [line.strip("|").split("|")]
    }
    ids = tokenizer("I want to [MASK] the world.")["input_ids"]
    assert rows["token"] == tokenizer.convert_ids_to_tokens(ids)
    assert rows["input_ids"] == [str(i) for i in ids]
    labels = torch.tensor([[int(label) for label in rows["labels"]]])
    [[row, column]] = (labels != -100).nonzero().tolist()
    assert tokenizer.convert_ids_to_tokens(int(labels[row, column])) == "change"
    out = model(torch.tensor([ids]), labels=labels)
    alone = torch.nn.functional.cross_entropy(out.logits[row, column], labels[row, column])
    torch.testing.assert_close(out.loss, alone)


def test_readme_links_lead_to_files():
    links = re.findall(r"\]\(([^)]+)\)", README)
    assert len(links) > 5
    for link in links:
        assert (stored.ROOT / link).exists(), link


def test_readme_lists_every_lesson_as_generated():
    assert lessons.readme() == README


@pytest.mark.parametrize("file", ["README.md", "CONTRIBUTING.md"])
def test_make_targets_that_are_named_exist(file):
    text = (stored.ROOT / file).read_text("utf-8")
    makefile = (stored.ROOT / "Makefile").read_text("utf-8")
    named = set(re.findall(r"(?:^|`)make ([a-z-]+)", text, re.M))
    assert "test" in named
    assert named <= set(re.findall(r"^([a-z-]+):", makefile, re.M))


def test_files_name_no_registry_host_and_no_path_of_a_machine():
    tracked = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"],
        cwd=stored.ROOT, capture_output=True, text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    forbidden = re.compile(r"py" r"pi\.org|files\.python" r"hosted|registry\.np" r"mjs|/ro" r"ot/")
    for name in tracked:
        path = stored.ROOT / name
        if path.suffix in (".safetensors", ".png", ".mo") or not path.is_file():
            continue
        found = forbidden.search(path.read_text("utf-8"))
        assert not found, f"{name} names {found.group()}"
