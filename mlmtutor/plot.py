"""The figures of the lessons: one style, each with alt text and a caption."""

import base64
import dataclasses
import html
import io
from typing import Any

from mlmtutor.show import COLOURS

STYLE: Any = {
    "figure.figsize": (7.2, 3.6),
    "figure.dpi": 144,
    "figure.facecolor": "white",
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 12,
}


@dataclasses.dataclass(frozen=True)
class Figure:
    """A drawn figure: HTML with alt text and caption in a notebook, both as text elsewhere.

    Attributes:
        png: the image.
        alt: what the image shows, for those who do not see it.
        caption: what to read off it.
    """

    png: bytes
    alt: str
    caption: str

    def __repr__(self) -> str:
        """Return the words of the figure."""
        return f"Figure: {self.caption} [{self.alt}]"

    def _repr_html_(self) -> str:
        """Return HTML that an untrusted notebook keeps."""
        data = base64.b64encode(self.png).decode()
        return (
            f'<figure style="margin:8px 0;"><img alt="{html.escape(self.alt)}" '
            f'style="max-width:100%;width:720px;background:#fff;" '
            f'src="data:image/png;base64,{data}"/>'
            f'<figcaption>{html.escape(self.caption)}</figcaption></figure>'
        )


def figure(rows: int = 1, columns: int = 1, **options: Any) -> tuple[Any, Any]:
    """Return a matplotlib figure and its axes in the style of the lessons.

    It belongs to no window and to no global state: draw on the axes, then call :func:`finish`.

    Args:
        rows: rows of axes.
        columns: columns of axes.
        options: passed to ``matplotlib.figure.Figure.subplots``.

    Returns:
        ``(figure, axes)``, as ``matplotlib.pyplot.subplots`` does.
    """
    import matplotlib
    from matplotlib.figure import Figure as Canvas

    with matplotlib.rc_context(STYLE):
        canvas = Canvas(layout="constrained")
        return canvas, canvas.subplots(rows, columns, **options)


def finish(canvas: Any, *, alt: str, caption: str) -> Figure:
    """Draw a matplotlib figure and give it its words.

    Args:
        canvas: the figure from :func:`figure`.
        alt: what the image shows, in a sentence or two.
        caption: what to read off it.

    Returns:
        A :class:`Figure` whose bytes are the same in each run on one machine.

    Raises:
        ValueError: ``alt`` or ``caption`` is empty.
    """
    for name, text in (("alt", alt), ("caption", caption)):
        if not text.strip():
            raise ValueError(f"{name} is empty: every figure says what it shows in words.")
    buffer = io.BytesIO()
    canvas.savefig(buffer, format="png", metadata={"Software": None})
    return Figure(buffer.getvalue(), alt, caption)


__all__ = ["COLOURS", "Figure", "figure", "finish"]
