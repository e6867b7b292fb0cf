"""The numbers in the words of a figure are those that its lesson computes.

nbval compares the caption and the alt text of each figure with what is stored. Here the numbers in
them are computed once more, from the variables that the figure is drawn from: `NUMBERS` says how.
Of a lesson, only the cells run that make these variables.
"""

import ast
import contextlib
import io
import re
import textwrap

import pytest
import stored
import torch

from tools import picture

NUMBER = re.compile(r"(?<![\w.-])[-+−]?\d+(?:,\d{3})*(?:\.\d+)*(?![\d-])")
# By notebook and function, the numbers of the caption, then those of the alt text, in order.
NUMBERS = {
    "01 dataflow": """
        p, label = outputs.logits[0, 4].softmax(-1), labels[0, 4]
        found = [4, *p.topk(5).values, 4, label, p[label], outputs.loss]""",
    "02 shrinking_window": "found = []",
    "02 four_masks": """
        attention, special = base["attention_mask"], base["special_tokens_mask"]
        on = [hidden, attention, special, base["labels"] != -100]
        on = [mask[0].nonzero().flatten().tolist() for mask in on]
        found = [hidden.shape[1], *on[0], *on[1], *on[2], -100, *on[3]]""",
    "03 thousand_squares": "found = [1000, 1000 - selected, *counts.values()]",
    "03 deeper shares_against_rule": """
        library, tenth = (
            [100 * (n / 100_000 - share) for n, share in zip(row, rule.values())]
            for row in counts.values()
        )
        found = [*library, 0.1, *tenth]""",
    "04 three_rows": """
        each = cross_entropy(logits, labels, reduction="none")
        found = [0, 0, each[0], 1, 2, each[1], 2, -100, each.sum(), 2, with_ignored]""",
    "04 four_fields": """
        masked, scored = both == 103, both_labels != -100
        found = [(h & s).sum() for h in (masked, ~masked) for s in (scored, ~scored)]""",
    "04 losses_by_padding": """
        first, second, third = ([x for n in run for x in (run[n], n)] for run in losses.values())
        found = [-100, 0, *first, *second, -100, 1, *third]""",
    "05 loss_grid": """
        n, cost = labels.numel(), [each.item() for each in -of_label]
        rows = (cost[0] + sum(cost[1:]) / 2) / 2
        found = [n, n - 3, 3, *cost, sum(cost), 3, outputs.loss, sum(cost), n, sum(cost) / n, rows]""",
    "05 loss_ladder": "found = [len(tokenizer), *ladder.values()]",
    "05 gradients": "found = [-100, 0, 0]  # not 0 at",
    "05 deeper surprise_curve": """
        axes = [0, 16, 0, 0, 1]  # near p = 0; above 16 at p near 0, to 0 at p = 1
        found = [*axes, *(-math.log(each) for each in p)]""",
    "07 symptom_map": "found = [-100]",
    "08 label_weights": """
        sizes = [len(first), len(second)]
        found = [x for n in sizes for x in (n, 1, sum(sizes))]
        found += [x for n in sizes for x in (n, 1, n * len(sizes))]""",
    "08 deeper labelled_only_cost": """
        steps = [(key, step) for key in ("seconds", "gigabytes") for step in stored["steps"]]
        gains = [(step["share"], step["all"][key] / step["labelled"][key]) for key, step in steps]
        found = [x for share, gain in gains for x in (100 * share, gain)]""",
    "09 hidden_diagonal": "found = [*batch.shape, *-log_p, -log_p.sum()]",
    "10 timeline": """
        new = [i for i, each in enumerate(endings) if i == 0 or each != endings[i - 1]]
        found = [releases[i].version for i in new]""",
    "10 deeper timeline": """
        found = [releases[0].ignore_index]
        names = [lambda r: word(r.takes("masked_lm_labels")), lambda r: r.takes("labels")]
        for value in [lambda r: r.ignore_index, *names, lambda r: r.output]:
            values = [value(release) for release in releases]
            new = [i for i, each in enumerate(values) if i == 0 or each != values[i - 1]]
            found += [releases[i].version for i in new]
        found.insert(2, -100)""",
}
# These take long. The numbers of the first are printed by their lesson or asserted in it; that of
# the second recomputes its own and looks for them in the alt text.
TRAINED = {"06 loss_curves": "0 0 0", "06 accuracies": "17%", "06 mixture": "15% 85% 0"}
ASSERTED = {"09 pair_gaps"}


def is_figure(cell):
    return any(text.startswith("Figure: ") for text in stored.output_texts(cell))


def name_of(path, cell):
    """Return the notebook and the function that draws the figure of a cell."""
    function = ast.parse(cell.source).body[-1].value.func
    deeper = " deeper" * (path in stored.DEEPER)
    return f"{path.name[:2]}{deeper} {getattr(function, 'attr', None) or function.id}"


FIGURES = {
    name_of(path, cell): (path, number)
    for path in stored.FULL
    for number, cell in enumerate(stored.read(path).cells)
    if is_figure(cell)
}


def words(name):
    """Return the caption and the alt text of a figure."""
    path, number = FIGURES[name]
    texts = stored.output_texts(stored.read(path).cells[number])
    return next(text for text in texts if text.startswith("Figure: "))


def names(tree):
    """Return the names that a program binds, and those that it takes from elsewhere."""
    nodes = list(ast.walk(tree))
    used = {node.id for node in nodes if isinstance(node, ast.Name)}
    bound = {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    bound |= {node.arg for node in nodes if isinstance(node, ast.arg)}
    bound |= {node.name for node in nodes if isinstance(node, ast.FunctionDef)}
    bound |= {node.asname or node.name for node in nodes if isinstance(node, ast.alias)}
    return bound, used - bound


def computed(name):
    """Run the cells that make the variables of a figure; returns the numbers of its words."""
    path, number = FIGURES[name]
    last = ast.parse(textwrap.dedent(NUMBERS[name]))
    programs, (_, wanted) = [last], names(last)
    for cell in reversed(stored.read(path).cells[: number + 1]):
        if cell.cell_type == "code" and not {"exercise", "solution", "proof"} & {
            *stored.tags(cell)
        }:
            program = ast.parse(cell.source)
            if is_figure(cell):
                program.body.pop()  # the call that draws
            bound, used = names(program)
            if bound & wanted:
                programs.insert(0, program)
                wanted |= used
    space = {}
    with torch.random.fork_rng(), torch.no_grad(), contextlib.redirect_stdout(io.StringIO()):
        for program in programs:
            exec(compile(program, name, "exec"), space)
    return [x if isinstance(x, str) else float(x) for x in space["found"]]


def is_said(text, value):
    """Return whether the text of a number is a value, rounded to as many decimals as it has."""
    if isinstance(value, str):
        return text == value
    decimals = len(text.partition(".")[2])
    return abs(float(text.replace(",", "").replace("−", "-")) - value) <= 0.501 / 10**decimals


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_in_the_words_of_a_figure_are_computed(name):
    told, right = NUMBER.findall(words(name)), computed(name)
    assert len(told) == len(right), (told, right)
    assert [(a, b) for a, b in zip(told, right, strict=True) if not is_said(a, b)] == []
    for at, text in enumerate(told):  # a number that is off by one in its last digit is found
        digit = str((int(text[-1]) + 1) % 10)
        assert not is_said(text[:-1] + digit, right[at])


@pytest.mark.parametrize("name", TRAINED)
def test_numbers_of_a_training_are_printed_or_asserted(name):
    assert re.findall(r"\d+%|\b0\b", words(name)) == TRAINED[name].split()
    cells = stored.code_cells(stored.read(FIGURES[name][0]))
    shown = [cell.source for cell in cells]
    shown += [output.get("text", "") for cell in cells for output in cell.outputs]
    for share in re.findall(r"(\d+)%", TRAINED[name]):
        assert re.search(rf"\b{share}%|== 0\.{share}\b", "\n".join(shown)), share


@pytest.mark.parametrize("name", ASSERTED)
def test_numbers_of_a_figure_are_asserted_by_its_lesson(name):
    sources = [cell.source for cell in stored.code_cells(stored.read(FIGURES[name][0]))]
    assert any(re.search(r'assert f".*" in alt$', source, re.M) for source in sources)


def test_every_figure_is_looked_at():
    assert set(FIGURES) == {*NUMBERS, *TRAINED, *ASSERTED}


def test_figure_in_the_readme_is_that_of_lesson_01():
    readme = (stored.ROOT / "README.md").read_text("utf-8")
    [alt] = re.findall(r"!\[(.*?)\]\(docs/_static/dataflow\.svg\)", readme)
    assert set(NUMBER.findall(alt)) <= set(NUMBER.findall(words("01 dataflow")))
    assert picture.PICTURE.read_text("utf-8") == picture.figure()
