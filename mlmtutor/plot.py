"""The figures of the lessons: one style, each with alt text and a caption."""

import base64
import dataclasses
import datetime
import html
import io
import itertools
import math
from collections.abc import Mapping, Sequence
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
            f"<figcaption>{html.escape(self.caption)}</figcaption></figure>"
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


def shares_against_rule(counts: Mapping[str, Sequence[int]], rule: Mapping[str, float]) -> Figure:
    """Draw counted shares, less the share that a rule states, with 99.9 % intervals.

    Args:
        counts: for each masker, how many tokens ended in each of the ways that ``rule`` names,
            in its order. The first masker is drawn as right, the others as wrong.
        rule: the share of each way, between 0 and 1.

    Returns:
        One line a way: where a bar crosses zero, the masker agrees with the rule.

    Raises:
        ValueError: a masker has not one count for each way.

    Example:
        >>> shares_against_rule({"mine": [86, 14]}, {"untouched": 0.85, "selected": 0.15}).alt
        'Share less the rule, in percentage points. mine: untouched +1.0, selected -1.0.'
    """
    for masker, count in counts.items():
        if len(count) != len(rule):
            raise ValueError(
                f"{masker!r} must have {len(rule)} counts, one for each of "
                f"{', '.join(rule)}, but has {len(count)}."
            )
    canvas, axes = figure()
    axes.axvline(0, color=COLOURS["ignored"], linewidth=1)
    words = []
    for number, (masker, count) in enumerate(counts.items()):
        colour, marker = (COLOURS["wrong"], "s") if number else (COLOURS["right"], "o")
        gaps = []
        for row, (part, share) in enumerate(zip(count, rule.values(), strict=True)):
            found = part / sum(count)
            bar = 3.29 * math.sqrt(found * (1 - found) / sum(count))
            gaps.append(round(100 * (found - share), 1) + 0.0)  # + 0.0: no "-0.0"
            place = row + 0.3 * number - 0.15 * (len(counts) - 1)
            axes.errorbar(
                100 * (found - share), place, xerr=100 * bar, fmt=marker, color=colour, capsize=4
            )
        axes.annotate(
            masker,
            (100 * (found - share + bar), place),
            (8, 0),
            textcoords="offset points",
            va="center",
            color=colour,
        )
        said = (f"{name} {gap:+.1f}" for name, gap in zip(rule, gaps, strict=True))
        words.append(f"{masker}: {', '.join(said)}")
    ticks = [f"{name} ({100 * share:g} %)" for name, share in rule.items()]
    axes.set_yticks(range(len(rule)), ticks)
    axes.invert_yaxis()
    axes.margins(x=0.25)
    axes.set_xlabel("share of the tokens less the rule (percentage points)")
    return finish(
        canvas,
        alt="Share less the rule, in percentage points. " + "; ".join(words) + ".",
        caption="How far each share is from the rule, in percentage points of all ordinary "
        "tokens. Where a bar crosses zero, the masker agrees with the rule.",
    )


def gradients(
    tokens: Sequence[str],
    labels: Sequence[int],
    at_logits: Sequence[float],
    at_inputs: Sequence[float],
) -> Figure:
    """Draw the size of two gradients of the loss at each position of one sentence.

    Args:
        tokens: the token at each position.
        labels: the label at each position, -100 where it is ignored.
        at_logits: the norm of d loss / d logits at each position.
        at_inputs: the norm of d loss / d input embedding at each position.

    Returns:
        Two rows of bars over the tokens; where a gradient is exactly 0 there stands a 0.

    Raises:
        ValueError: the four do not have the same length.

    Example:
        >>> tokens, labels = ["a", "[MASK]", "[PAD]"], [-100, 7, -100]
        >>> gradients(tokens, labels, [0, 0.5, 0], [0.1, 0.9, 0]).alt.split(". ")[1:]
        ['Gradient at the logits: not 0 at [MASK]', 'Gradient at the input: not 0 at a, [MASK].']
    """
    lengths = [len(tokens), len(labels), len(at_logits), len(at_inputs)]
    if len(set(lengths)) > 1:
        raise ValueError(
            f"tokens, labels, at_logits and at_inputs have {lengths} entries: give one of each "
            "for every position of one sentence."
        )
    canvas, panels = figure(2, 1, sharex=True)
    colours = [COLOURS["ignored" if label == -100 else "scored"] for label in labels]
    names = {"at the logits": at_logits, "at the input": at_inputs}
    words = []
    for axes, (name, sizes) in zip(panels, names.items(), strict=True):
        axes.bar(range(len(tokens)), sizes, color=colours)
        for position, size in enumerate(sizes):
            if size == 0:
                axes.text(position, 0, "0", ha="center", va="bottom", color=colours[position])
        axes.set_title(f"gradient {name}", loc="left")
        axes.set_ylabel("norm")
        reached = [token for token, size in zip(tokens, sizes, strict=True) if size]
        words.append(f"Gradient {name}: not 0 at {', '.join(reached) or 'any position'}.")
    ticks = [f"{token}\n{label}" for token, label in zip(tokens, labels, strict=True)]
    panels[-1].set_xticks(range(len(tokens)), ticks)
    for tick, colour in zip(panels[-1].get_xticklabels(), colours, strict=True):
        tick.set_color(colour)
    panels[-1].set_xlabel("token and its label")
    return finish(
        canvas,
        alt="Bars over the tokens of one sentence. " + " ".join(words),
        caption="How large the gradient of the loss is at each position. Blue: scored. Grey: the "
        "label is -100.",
    )


def timeline(
    dates: Sequence[str], names: Sequence[str], rows: Mapping[str, Sequence[str]]
) -> Figure:
    """Draw what was true when: one bar for each stretch of dates in which a word stays the same.

    Args:
        dates: the dates, as ``2020-01-31``, ascending.
        names: what each date is called; shown where a word changes.
        rows: for each row its words, one for each date. ``accepted`` and ``warning`` are drawn
            in the colour of what is right, words that end in ``Error`` in that of what is wrong,
            ``dropped`` in grey.

    Returns:
        The figure.

    Raises:
        ValueError: the numbers of dates, names and words differ.

    Example:
        >>> days = ["2020-01-01", "2021-01-01", "2022-01-01"]
        >>> timeline(days, ["1.0", "2.0", "3.0"], {"answer": ["no", "yes", "yes"]}).alt
        'Bars over time. answer: no from 1.0, yes from 2.0.'
    """
    sizes = [len(dates), len(names), *(len(words) for words in rows.values())]
    if len(set(sizes)) != 1:
        raise ValueError(
            f"dates, names and the words of each row have {sizes} entries: give one for each date."
        )
    days = [datetime.date.fromisoformat(date) for date in dates]
    length = (days[-1] - days[0]).days
    canvas, axes = figure()
    told, changes = [], {}
    paper = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}
    for row, (title, words) in enumerate(rows.items()):
        starts = [i for i, word in enumerate(words) if i == 0 or word != words[i - 1]]
        told.append(f"{title}: " + ", ".join(f"{words[i]} from {names[i]}" for i in starts) + ".")
        for start, end in itertools.pairwise([*starts, len(days) - 1]):
            word, width = words[start], (days[end] - days[start]).days
            colour, text = _word_colours(word)
            axes.barh(row, width, left=days[start], height=0.5, color=colour, edgecolor="white",
                      hatch="///" if word == "warning" else None)  # fmt: skip
            fits = width / length > 0.018 * len(word)
            axes.text(
                days[start] + datetime.timedelta(width / 2),
                row if fits else row - 0.3,
                word,
                ha="center",
                va="center" if fits else "bottom",
                fontsize=10,
                color=text if fits else "black",
                bbox=None if fits else paper,
            )
            if start:
                changes[days[start]] = names[start]
    for level, (day, name) in enumerate(sorted(changes.items())):
        axes.axvline(day, color="#6B7280", linewidth=0.8, linestyle=":", zorder=0)
        height = -0.95 + 0.27 * (level % 2)
        axes.text(day, height, name, ha="center", va="bottom", fontsize=10, bbox=paper)
    axes.set_yticks(range(len(rows)), list(rows))
    axes.set_ylim(len(rows) - 0.5, -1.2)
    axes.set_xlabel("day of the release")
    return finish(
        canvas,
        alt="Bars over time. " + " ".join(told),
        caption="Releases at the top, where something changes. Green: taken. Vermilion: an error. "
        "Grey: taken and never used.",
    )


def pair_gaps(gaps: Mapping[str, Sequence[float]]) -> Figure:
    """Draw by how much the right sentence of each minimal pair is preferred.

    Args:
        gaps: for each kind of pair the score of the right sentence less that of the wrong one,
            in nats.

    Returns:
        One dot a pair, one line a kind: to the right of 0 the right sentence has the higher score.

    Raises:
        ValueError: a kind has no pair.

    Example:
        >>> pair_gaps({"agreement": [1.5, -0.5, 3.0]}).alt
        'One dot for each pair. The right sentence has the higher score in agreement: 2 of 3.'
    """
    empty = [kind for kind, values in gaps.items() if not values]
    if empty or not gaps:
        raise ValueError(f"each kind needs at least one pair, but {empty or 'gaps'} has none.")
    canvas, axes = figure()
    axes.axvline(0, color=COLOURS["ignored"], linewidth=1)
    ticks, words = [], []
    for row, (kind, values) in enumerate(gaps.items()):
        for number, gap in enumerate(sorted(values)):
            right = gap > 0
            axes.plot(
                gap,
                row + 0.12 * (number % 5 - 2),  # dots of about the same gap stand side by side
                marker="o" if right else "s",
                color=COLOURS["right" if right else "wrong"],
                alpha=0.8,
            )
        count = sum(gap > 0 for gap in values)
        ticks.append(f"{kind}\n{count} of {len(values)}")
        words.append(f"{kind}: {count} of {len(values)}")
    axes.set_yticks(range(len(gaps)), ticks)
    axes.set_ylim(len(gaps) - 0.4, -0.85)
    reach = max(abs(gap) for values in gaps.values() for gap in values) or 1.0
    lowest = min(gap for values in gaps.values() for gap in values)
    axes.set_xlim(min(lowest - 0.05 * reach, -0.25 * reach), 1.08 * reach)
    for side, text, colour, align in (
        (8, "right sentence preferred", "right", "left"),
        (-8, "wrong one", "wrong", "right"),
    ):
        axes.annotate(text, (0, -0.6), (side, 0), textcoords="offset points", ha=align,
                      va="center", color=COLOURS[colour])  # fmt: skip
    axes.set_xlabel("score of the right sentence less that of the wrong one (nats)")
    return finish(
        canvas,
        alt="One dot for each pair. The right sentence has the higher score in "
        + ", ".join(words)
        + ".",
        caption="How much the model prefers the right sentence of each pair. Green circles: the "
        "right one has the higher score. Vermilion squares: the wrong one has.",
    )


def _word_colours(word: str) -> tuple[str, str]:
    """Return the colour of a bar of :func:`timeline` and that of the text on it."""
    if word in ("accepted", "warning"):
        return COLOURS["right"], "white"
    if word.endswith("Error"):
        return COLOURS["wrong"], "black"
    if word == "dropped":
        return COLOURS["ignored"], "white"
    return "#DBEAFE", "black"


__all__ = [
    "COLOURS",
    "Figure",
    "figure",
    "finish",
    "gradients",
    "pair_gaps",
    "shares_against_rule",
    "timeline",
]
