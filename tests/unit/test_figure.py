import math

import pytest

from mlmtutor import figure


def drawn(**words):
    canvas, axes = plot.figure()
    axes.plot([0, 1], [0, 1])
    return plot.finish(canvas, **words)


def test_a_figure_carries_its_words():
    figure = drawn(alt='a line from "0" to 1', caption="It rises <b>.")
    assert figure.png.startswith(b"\x89PNG")
    html = figure._repr_html_()
    assert 'alt="a line from &quot;0&quot; to 1"' in html
    assert "<figcaption>It rises &lt;b&gt;.</figcaption>" in html
    assert repr(figure) == 'Figure: It rises <b>. [a line from "0" to 1]'


def test_the_same_drawing_gives_the_same_bytes():
    words = {"alt": "a line", "caption": "It rises."}
    assert drawn(**words).png == drawn(**words).png


@pytest.mark.parametrize("missing", ["alt", "caption"])
def test_a_figure_without_words_is_refused(missing):
    with pytest.raises(ValueError, match=f"{missing} is empty"):
        drawn(**{"alt": "a line", "caption": "It rises.", missing: " "})


def test_drawing_leaves_no_global_figure_behind():
    import matplotlib.pyplot

    drawn(alt="a line", caption="It rises.")
    assert matplotlib.pyplot.get_fignums() == []


def test_shares_against_rule_say_how_far_each_is():
    rule = {"untouched": 0.85, "selected": 0.15}
    figure = plot.shares_against_rule({"mine": [860, 140], "other": [700, 300]}, rule)
    assert "mine: untouched +1.0, selected -1.0" in figure.alt
    assert "other: untouched -15.0, selected +15.0" in figure.alt


def test_shares_against_rule_need_a_count_for_each_way():
    with pytest.raises(ValueError, match=r"'mine' must have 2 counts.*but has 3"):
        plot.shares_against_rule({"mine": [1, 2, 3]}, {"a": 0.5, "b": 0.5})


def test_gradients_say_which_tokens_they_reach():
    drawing = plot.gradients(["a", "[MASK]", "[PAD]"], [-100, 7, -100], [0, 0.5, 0], [0.1, 0.9, 0])
    assert drawing.alt == (
        "Bars over the tokens of one sentence. Gradient at the logits: not 0 at [MASK]. Gradient at the input: not 0 at a, [MASK]."
    )
    assert plot.gradients(["a"], [-100], [0], [0]).alt.count("not 0 at any position") == 2


def test_gradients_need_one_of_each_for_every_position():
    with pytest.raises(ValueError, match=r"have \[2, 1, 2, 2\] entries"):
        plot.gradients(["a", "b"], [-100], [0, 0], [0, 0])


def test_a_timeline_says_when_each_word_begins():
    days = ["2020-01-01", "2020-06-01", "2021-01-01", "2022-01-01"]
    rows = {"old": ["accepted", "warning", "TypeError", "dropped"], "value": ["-1", "-100"] * 2}
    assert plot.timeline(days, ["1", "2", "3", "4"], rows).alt == (
        "Bars over time. old: accepted from 1, warning from 2, TypeError from 3, dropped from 4. value: -1 from 1, -100 from 2, -1 from 3, -100 from 4."
    )


def test_a_timeline_needs_a_word_for_each_date():
    with pytest.raises(ValueError, match=r"have \[2, 2, 1\] entries"):
        plot.timeline(["2020-01-01", "2021-01-01"], ["1", "2"], {"old": ["accepted"]})


def test_pair_gaps_count_the_pairs_that_are_right():
    drawing = plot.pair_gaps({"agreement": [2.0, -1.0, 0.0], "word order": [5.0]})
    assert drawing.alt.endswith("in agreement: 1 of 3, word order: 1 of 1.")


def test_pair_gaps_need_a_pair_of_each_kind():
    with pytest.raises(ValueError, match=r"gaps\['agreement'\] needs at least one number"):
        plot.pair_gaps({"agreement": []})
    with pytest.raises(ValueError, match="gaps must hold at least one name"):
        plot.pair_gaps({})


LINES = {"uniform": 3.9, "unigram": 2.9, "guess": 0.2}


def test_label_policies_say_where_loss_and_accuracy_end():
    losses = {"right": [3.9, 2.0], "copy": [3.9, *[0.0] * 20], "stuck": [3.9, 3.0]}
    drawing = plot.label_policies(losses, {"right": 0.4, "copy": 0.0, "stuck": 0.2}, **LINES)
    assert drawing.alt.endswith(
        "right: the loss ends above unigram, accuracy above guessing. "
        "copy: the loss ends below 0.1, accuracy not above guessing. "
        "stuck: the loss ends above unigram, accuracy not above guessing."
    )


def test_label_policies_need_a_loss_and_an_accuracy_for_each():
    with pytest.raises(
        ValueError, match=r"policy of accuracy, \['other'\], but has \{'right': 1\}"
    ):
        plot.label_policies({"right": [1.0]}, {"other": 0.5}, **LINES)
    with pytest.raises(ValueError, match=r"losses\['right'\] needs at least one number"):
        plot.label_policies({"right": []}, {"right": 0.5}, **LINES)


def test_labelled_only_cost_needs_every_series():
    row = {"name": "test_training_step", "who": "mlmtutor", "size": 16, "median": 1, "bytes": 1}
    with pytest.raises(ValueError, match="test_training_step of transformers: run make bench"):
        plot.labelled_only_cost([row])


@pytest.mark.parametrize("number", [math.nan, -math.inf, 1.1e15, 2**80])
def test_a_number_that_cannot_be_drawn_is_refused(number):
    plot.gradients(["a"], [7], [1e15], [-1e15])
    with pytest.raises(ValueError, match=r"^at_inputs must be finite numbers of at most 1e\+15"):
        plot.gradients(["a"], [7], [0.5], [number])
