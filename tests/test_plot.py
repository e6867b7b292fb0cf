import pytest

from mlmtutor import plot


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
