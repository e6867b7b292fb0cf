"""What tables and figures share: the colours, the styles of cells, and text that can be printed."""

# One meaning for each colour, the same in all lessons (Okabe-Ito). A coloured cell sets the
# colour of its text too, so that it reads in a dark theme; plain cells take the theme's.
COLOURS = {
    "scored": "#0072B2",
    "ignored": "#6B7280",
    "replaced": "#E69F00",
    "special": "#CC79A7",
    "wrong": "#D55E00",
    "right": "#009E73",
}
STYLES = {
    "plain": "",
    "muted": "opacity:.72;",
    "special": f"border-bottom:3px solid {COLOURS['special']};",
    "replaced": f"background:{COLOURS['replaced']};color:#000;font-weight:bold;",
    "scored": f"background:{COLOURS['scored']};color:#fff;font-weight:bold;",
    "strong": "font-weight:bold;",
    "error": f"background:{COLOURS['wrong']};color:#000;font-weight:bold;",
}
CELL = (
    "padding:3px 5px;text-align:center;white-space:nowrap;border:0;border-radius:3px;"
    "font-weight:normal;"
)
HEADER = "padding:3px 10px 3px 0;text-align:right;white-space:nowrap;border:0;font-weight:normal;"


def printable(text: str) -> str:
    """Return the text with what cannot be printed, such as NUL, written as an escape."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
