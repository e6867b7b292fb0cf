"""The figures of the lessons: one style, drawn as SVG, each with alt text and a caption."""

import base64
import dataclasses
import html
import io
from collections.abc import Sequence
from typing import Any

from mlmtutor._html import COLOURS as COLOURS

TEXT, PALE = "#1A1A2E", "#E5E7EB"  # beside the colours of the alignment table
STYLE: Any = {
    "figure.figsize": (7.2, 3.6),
    "figure.facecolor": "white",
    "font.size": 11,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Arial"],  # as short as it may be: each text repeats it
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 12,
    "svg.fonttype": "none",  # text stays text: it can be searched, and is sharp at any size
    "svg.hashsalt": "mlmtutor",  # the same ids, so the same bytes, in each run
}


@dataclasses.dataclass(frozen=True)
class Figure:
    """A drawn figure: HTML with alt text and caption in a notebook, both as text elsewhere.

    Attributes:
        svg: the drawing.
        alt: what the drawing shows, for those who don't see it.
        caption: what to read off it.
    """

    svg: str
    alt: str
    caption: str

    def __repr__(self) -> str:
        """Return the words of the figure."""
        return f"Figure: {self.caption} [{self.alt}]"

    def _repr_html_(self) -> str:
        """Return HTML that an untrusted notebook keeps."""
        data = base64.b64encode(self.svg.encode()).decode()
        return (
            f'<figure style="margin:8px 0;"><img alt="{html.escape(self.alt)}" '
            f'style="max-width:100%;width:720px;background:#fff;" '
            f'src="data:image/svg+xml;base64,{data}"/>'
            f"<figcaption>{html.escape(self.caption)}</figcaption></figure>"
        )


def figure(rows: int = 1, columns: int = 1, *, size: Any = None, **options: Any) -> tuple[Any, Any]:
    """Return a matplotlib figure and its axes in the style of the lessons.

    It belongs to no window and to no global state: draw on the axes, then call :func:`finish`.

    Args:
        rows: rows of axes.
        columns: columns of axes.
        size: width and height in inches; ``None`` for that of the style.
        options: passed to ``matplotlib.figure.Figure.subplots``.

    Returns:
        ``(figure, axes)``, as ``matplotlib.pyplot.subplots`` does.

    Example:
        >>> canvas, axes = figure()
        >>> _ = axes.plot([1, 2], [3, 4])
        >>> finish(canvas, alt="A line from 3 to 4.", caption="It rises.")
        Figure: It rises. [A line from 3 to 4.]
    """
    import matplotlib
    from matplotlib.figure import Figure as Canvas

    with matplotlib.rc_context(STYLE):
        canvas = Canvas(figsize=size, layout="constrained")
        return canvas, canvas.subplots(rows, columns, **options)


def drawing(width: float, height: float, *, size: Any = None) -> tuple[Any, Any]:
    """Return a figure and axes without scales, for boxes and arrows.

    Args:
        width: the axes go from 0 to this, to the right.
        height: the axes go from 0 to this, downwards.
        size: width and height in inches; ``None`` for one that keeps squares square.

    Returns:
        ``(figure, axes)``.
    """
    canvas, axes = figure(size=size or (7.2, 7.2 * height / width))
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.axis("off")
    return canvas, axes


def box(
    axes: Any, x: float, y: float, text: str, *, width: float = 1.0, height: float = 1.0,
    fill: str = "white", colour: str = TEXT, **font: Any,
) -> None:  # fmt: skip
    """Draw a box whose upper left corner is (x, y), with a text in its middle."""
    from matplotlib.patches import Rectangle

    axes.add_patch(Rectangle((x, y), width, height, facecolor=fill, edgecolor="white"))
    middle = (x + width / 2, y + height / 2)
    axes.text(*middle, plain(text), ha="center", va="center", color=colour, **font)


def arrow(axes: Any, start: Sequence[float], end: Sequence[float], colour: str) -> None:
    """Draw an arrow from one point to another."""
    axes.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": colour, "lw": 1.2})


def plain(text: str) -> str:
    r"""Return text as matplotlib draws it letter by letter: a dollar sign starts no formula.

    Example:
        >>> plain("$5")
        '\\$5'
    """
    return text.replace("$", r"\$")


def finish(canvas: Any, *, alt: str, caption: str) -> Figure:
    """Draw a matplotlib figure as SVG and give it its words.

    Args:
        canvas: the figure from :func:`figure` or :func:`drawing`.
        alt: what the drawing shows, in a sentence or two, with its numbers.
        caption: what to read off it.

    Returns:
        A :class:`Figure` whose bytes are the same in each run on one machine.

    Raises:
        ValueError: ``alt`` or ``caption`` is empty.
    """
    import matplotlib

    if not alt.strip() or not caption.strip():
        raise ValueError("alt and caption must say in words what the figure shows; one is empty.")
    buffer = io.StringIO()
    with matplotlib.rc_context(STYLE):
        canvas.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return Figure(buffer.getvalue(), alt, caption)
