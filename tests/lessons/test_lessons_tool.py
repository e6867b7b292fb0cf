"""Which figures of a training run ``make lessons`` keeps, and which it replaces."""

import base64
import importlib.util
import io

import stored
import nbformat
import pytest
from matplotlib.figure import Figure

SPEC = importlib.util.spec_from_file_location("execute", stored.ROOT / "tools" / "lessons.py")
tool = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(tool)


def curve(shift=0.0, color="black", size=(4, 3), alt="a curve"):
    """Return the output of a cell that draws a curve."""
    figure = Figure(figsize=size)
    axes = figure.add_subplot(ylim=(0, 10))
    axes.plot([8 + shift, 4 + shift, 3 + shift], color=color)
    png = io.BytesIO()
    figure.savefig(png, format="png")
    source = "data:image/png;base64," + base64.b64encode(png.getvalue()).decode()
    html = f'<img alt="{alt}" src="{source}">'
    return nbformat.v4.new_output("display_data", {"text/html": html, "text/plain": alt})


def kept(now, before, tags=("training-figure",), source="draw()"):
    """Return whether the tool puts the stored output back."""
    notebooks = []
    for output, text in ((now, source), (before, "draw()")):
        cell = nbformat.v4.new_code_cell(text, outputs=[output], metadata={"tags": list(tags)})
        notebooks.append(nbformat.v4.new_notebook(cells=[cell]))
    tool.keep_figures(*notebooks)
    assert notebooks[0].cells[0].outputs[0] in (now, before)
    return notebooks[0].cells[0].outputs[0] == before


def test_a_curve_that_moved_by_a_pixel_keeps_its_stored_bytes():
    assert curve(0.04) != curve()
    assert kept(curve(0.04), curve())


@pytest.mark.parametrize(
    "drawn", [curve(1), curve(color="red"), curve(size=(4, 3.5)), curve(0.04, alt="another curve")],
    ids=["moved", "colour", "size", "alt"],
)  # fmt: skip
def test_another_figure_replaces_the_stored_one(drawn):
    assert not kept(drawn, curve())


def test_an_untagged_cell_and_a_changed_cell_are_stored_as_they_are():
    assert not kept(curve(0.04), curve(), tags=["slide"])
    assert not kept(curve(0.04), curve(), source="draw(again)")


def test_printed_text_is_never_kept():
    now, before = (nbformat.v4.new_output("stream", text=text) for text in ("loss 2.95", "2.96"))
    assert not kept(now, before)
