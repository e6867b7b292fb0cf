"""The figures: words beside the drawing, the same bytes in each run, no state left behind."""

import base64
import re
import xml.etree.ElementTree as ElementTree

import matplotlib.pyplot
import pytest

from mlmtutor.figure import COLOURS, arrow, box, drawing, figure, finish

WORDS = {"alt": 'a line from "0" to 1', "caption": "It rises <b>."}


def drawn(**words):
    canvas, axes = figure()
    axes.plot([0, 1], [0, 1], label="$5")
    return finish(canvas, **WORDS | words)


def test_finish_gives_a_figure_its_words():
    made = drawn()
    html = made._repr_html_()
    assert 'alt="a line from &quot;0&quot; to 1"' in html
    assert "<figcaption>It rises &lt;b&gt;.</figcaption>" in html
    assert repr(made) == 'Figure: It rises <b>. [a line from "0" to 1]'
    [data] = re.findall(r'src="data:image/svg\+xml;base64,([^"]+)"', html)
    assert base64.b64decode(data).decode() == made.svg
    for missing in WORDS:
        with pytest.raises(ValueError, match="alt and caption must say in words"):
            drawn(**{missing: " "})


def test_finish_draws_the_same_bytes_and_leaves_no_window():
    assert drawn().svg == drawn().svg
    assert matplotlib.pyplot.get_fignums() == []
    assert matplotlib.pyplot.rcParams["svg.fonttype"] == "path", "the style stays in the figure"


def test_drawing_keeps_text_as_text_and_measures_downwards():
    canvas, axes = drawing(4, 2)
    box(axes, 0, 0, "$[MASK]$", fill=COLOURS["scored"], colour="white")
    box(axes, 3, 1, "change")
    arrow(axes, (1, 0.5), (3, 1.5), COLOURS["scored"])
    svg = finish(canvas, **WORDS).svg
    texts = {
        "".join(node.itertext()).strip(): node
        for node in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")
    }
    assert set(texts) == {"$[MASK]$", "change"}
    assert axes.yaxis_inverted()
    assert COLOURS["scored"].lower() in svg
    assert "<script" not in svg
