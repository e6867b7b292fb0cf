"""The figures of the lessons: one style, drawn as SVG, each with alt text and a caption."""

import base64
import dataclasses
import html
import io
from collections.abc import Iterable, Sequence
from typing import Any

from mlmtutor._html import COLOURS as COLOURS
from mlmtutor._messages import translated

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
    """An SVG with alt text and caption: HTML in a notebook, the words alone elsewhere."""

    svg: str
    alt: str
    caption: str

    def __repr__(self) -> str:
        """Return the words of the figure."""
        return f"Figure: {translated(self.caption)} [{translated(self.alt)}]"

    def _repr_html_(self) -> str:
        """Return HTML that an untrusted notebook keeps."""
        data = base64.b64encode(self.svg.encode()).decode()
        return (
            f'<figure style="margin:8px 0;"><img alt="{html.escape(translated(self.alt))}" '
            f'style="max-width:100%;width:720px;background:#fff;" '
            f'src="data:image/svg+xml;base64,{data}"/>'
            f"<figcaption>{html.escape(translated(self.caption))}</figcaption></figure>"
        )


def figure(rows: int = 1, columns: int = 1, *, size: Any = None, **options: Any) -> tuple[Any, Any]:
    """Return a matplotlib figure and its axes in the style of the lessons.

    Draw on the axes, then call :func:`finish`. Arguments and result are those of
    ``matplotlib.pyplot.subplots``, with ``size`` in inches; the figure belongs to no window.

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

    The axes go from 0 to ``width``, to the right, and from 0 to ``height``, downwards. ``size`` is
    in inches; ``None`` keeps squares square.
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


def notes(axes: Any, *texts: tuple[Any, ...], **font: Any) -> None:
    """Write texts, each ``(x, y, text)`` or ``(x, y, text, colour)``, to the right of its point."""
    for x, y, text, *colour in texts:
        style = {"va": "center", "color": colour[0] if colour else TEXT} | font
        axes.text(x, y, plain(f"{text}"), **style)


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

    Its bytes are the same in each run on one machine.

    Args:
        canvas: the figure from :func:`figure` or :func:`drawing`.
        alt: what the drawing shows, in a sentence or two, with its numbers.
        caption: what to read off it.

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


# How a cell looks, by what it means: its fill and its ink.
LOOKS = {name: (colour, "white") for name, colour in COLOURS.items()} | {
    "replaced": (COLOURS["replaced"], "black"),
    "ignored": (PALE, COLOURS["ignored"]),
    "pale": (PALE, TEXT),
    "plain": ("white", TEXT),
    "dark": (TEXT, "white"),
}


def cells(
    axes: Any, x: float, y: float, texts: Sequence[Any], looks: Iterable[str], *,
    width: float = 1.0, height: float = 1.0, gap: float = 0.0, **font: Any,
) -> None:  # fmt: skip
    """Draw a row of boxes to the right of (x, y), a text in each, each in one of ``LOOKS``."""
    for i, (text, look) in enumerate(zip(texts, looks, strict=True)):
        fill, ink = LOOKS[look]
        left = x + i * (width + gap)
        box(axes, left, y, f"{text}", width=width, height=height, fill=fill, colour=ink, **font)


def bars(
    axes: Any, x: float, y: float, names: Sequence[str], sizes: Sequence[float],
    looks: Iterable[str], *, length: float, step: float,
) -> float:  # fmt: skip
    """Draw bars from (x, y) to the right, one below the other, with names and numbers beside them.

    The largest has the ``length``, and the next one begins a ``step`` lower. Returns where the
    last one ends.
    """
    for i, (name, size, look) in enumerate(zip(names, sizes, looks, strict=True)):
        top, end, colour = y + i * step, x + length * size / max(sizes), COLOURS[look]
        box(axes, x, top, "", width=end - x, height=0.84 * step, fill=colour)
        notes(axes, (x - 1, top + step / 2, name, colour), ha="right")
        notes(axes, (end + 1, top + step / 2, f"{size:.4f}", colour))
    return end
