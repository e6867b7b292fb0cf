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

from mlmtutor.show import COLOURS, _printable

LARGEST = 1e15  # far beyond it matplotlib fails
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

    Raises:
        TypeError: ``rows`` or ``columns`` is not an int, or an option is unknown.
        ValueError: ``rows`` or ``columns`` is not between 1 and 20.
    """
    for name, number in (("rows", rows), ("columns", columns)):
        if isinstance(number, bool) or not isinstance(number, int):
            raise TypeError(f"{name} must be an int, but is a {type(number).__name__}.")
        if not 1 <= number <= 20:
            raise ValueError(f"{name} must be between 1 and 20, but is {number}.")
    import matplotlib
    from matplotlib.figure import Figure as Canvas

    with matplotlib.rc_context(STYLE):
        canvas = Canvas(layout="constrained")
        try:
            return canvas, canvas.subplots(rows, columns, **options)
        except (TypeError, AttributeError) as error:
            raise TypeError(f"options must be those of Figure.subplots: {error}") from None


def finish(canvas: Any, *, alt: str, caption: str) -> Figure:
    """Draw a matplotlib figure and give it its words.

    Args:
        canvas: the figure from :func:`figure`.
        alt: what the image shows, in a sentence or two.
        caption: what to read off it.

    Returns:
        A :class:`Figure` whose bytes are the same in each run on one machine.

    Raises:
        TypeError: ``alt`` or ``caption`` is not a str, or ``canvas`` no figure.
        ValueError: ``alt`` or ``caption`` is empty, or no valid Unicode.
    """
    if not hasattr(canvas, "savefig"):
        raise TypeError(
            f"canvas must be a matplotlib figure, but is a {type(canvas).__name__}: "
            "`canvas, axes = figure()` makes one."
        )
    for name, text in (("alt", alt), ("caption", caption)):
        if not isinstance(text, str):
            raise TypeError(f"{name} must be a str, but is a {type(text).__name__}.")
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise ValueError(f"{name} has a lone surrogate at {error.start}.") from None
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
        TypeError: ``counts`` or ``rule`` is no mapping, or holds what is no number.
        ValueError: a masker has not one count for each way, or has counted nothing; a count is
            negative; a number is not finite or above 1e15; there is no masker or no way.

    Example:
        >>> shares_against_rule({"mine": [86, 14]}, {"untouched": 0.85, "selected": 0.15}).alt
        'Share less the rule, in percentage points. mine: untouched +1.0, selected -1.0.'
    """
    for name, mapping in (("counts", counts), ("rule", rule)):
        _check_keys(name, mapping)
    _check_numbers("rule", list(rule.values()))
    for masker, count in counts.items():
        _check_numbers(f"counts of {masker!r}", count)
        if len(count) != len(rule):
            raise ValueError(
                f"{masker!r} must have {len(rule)} counts, one for each of "
                f"{', '.join(rule)}, but has {len(count)}."
            )
        if min(count) < 0 or not sum(count):
            raise ValueError(f"counts of {masker!r} must be 0 or more, and not all 0: {count}.")
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
            _shown(masker),
            (100 * (found - share + bar), place),
            (8, 0),
            textcoords="offset points",
            va="center",
            color=colour,
        )
        said = (f"{name} {gap:+.1f}" for name, gap in zip(rule, gaps, strict=True))
        words.append(_printable(f"{masker}: {', '.join(said)}"))
    ticks = [_shown(f"{name} ({100 * share:g} %)") for name, share in rule.items()]
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
        TypeError: one of the four is no list, or holds what is no str or number.
        ValueError: the four do not have the same length, are empty, or hold a number
            that is not finite or above 1e15.

    Example:
        >>> tokens, labels = ["a", "[MASK]", "[PAD]"], [-100, 7, -100]
        >>> gradients(tokens, labels, [0, 0.5, 0], [0.1, 0.9, 0]).alt.split(". ")[1:]
        ['Gradient at the logits: not 0 at [MASK]', 'Gradient at the input: not 0 at a, [MASK].']
    """
    tokens = _words("tokens", tokens)
    _check_numbers("labels", labels)
    _check_numbers("at_logits", at_logits)
    _check_numbers("at_inputs", at_inputs)
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
    ticks = [f"{_shown(token)}\n{label}" for token, label in zip(tokens, labels, strict=True)]
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
        TypeError: an argument is not of the type that is stated above.
        ValueError: the numbers of dates, names and words differ, there are fewer than two dates
            or no rows, a date is none, or the dates do not ascend.

    Example:
        >>> days = ["2020-01-01", "2021-01-01", "2022-01-01"]
        >>> timeline(days, ["1.0", "2.0", "3.0"], {"answer": ["no", "yes", "yes"]}).alt
        'Bars over time. answer: no from 1.0, yes from 2.0.'
    """
    dates, names = _words("dates", dates), _words("names", names)
    _check_keys("rows", rows)
    rows = {_printable(title): _words(f"rows[{title!r}]", words) for title, words in rows.items()}
    sizes = [len(dates), len(names), *(len(words) for words in rows.values())]
    if len(set(sizes)) != 1:
        raise ValueError(
            f"dates, names and the words of each row have {sizes} entries: give one for each date."
        )
    try:
        days = [datetime.date.fromisoformat(date) for date in dates]
    except ValueError as error:
        raise ValueError(f"dates must look like 2020-01-31: {error}.") from None
    if days != sorted(days) or days[0] == days[-1]:
        raise ValueError("dates must ascend, and hold at least two days.")
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
                _shown(word),
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
        axes.text(day, height, _shown(name), ha="center", va="bottom", fontsize=10, bbox=paper)
    axes.set_yticks(range(len(rows)), [_shown(title) for title in rows])
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
        TypeError: ``gaps`` is no mapping of lists of numbers.
        ValueError: a kind has no pair, or a gap is not finite or above 1e15.

    Example:
        >>> pair_gaps({"agreement": [1.5, -0.5, 3.0]}).alt
        'One dot for each pair. The right sentence has the higher score in agreement: 2 of 3.'
    """
    _check_keys("gaps", gaps)
    for kind, values in gaps.items():
        _check_numbers(f"gaps[{kind!r}]", values)
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
        ticks.append(f"{_shown(kind)}\n{count} of {len(values)}")
        words.append(f"{_printable(kind)}: {count} of {len(values)}")
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


def label_policies(
    losses: Mapping[str, Sequence[float]],
    accuracy: Mapping[str, float],
    *,
    uniform: float,
    unigram: float,
    guess: float,
) -> Figure:
    """Draw the training loss of several label policies, and below it what each of them taught.

    Args:
        losses: for each policy the loss of every step, in nats. The first policy is drawn as
            right, the others as wrong.
        accuracy: for each policy the share of masked tokens that its model gets right.
        uniform: the loss of a model that gives every token the same probability, ln V.
        unigram: the loss of a model that knows how often each token occurs.
        guess: the accuracy of always answering the most frequent token.

    Returns:
        One column a policy: the loss over the steps above, the masked accuracy below. The alt
        text says how both compare with the lines, and holds no digit that training can change.

    Raises:
        TypeError: an argument is no number, or no mapping of numbers.
        ValueError: there is no policy, a policy has no loss, ``accuracy`` has other policies, a
            number is not finite or above 1e15, or ``uniform`` or ``guess`` is not above 0.

    Example:
        >>> curves = {"right": [3.9, 1.8], "copy": [3.9, 0.0]}
        >>> scores = {"right": 0.4, "copy": 0.0}
        >>> figure = label_policies(curves, scores, uniform=3.9, unigram=2.9, guess=0.2)
        >>> figure.alt.split(". ")[1]
        'right: the loss ends below unigram, accuracy above guessing'
    """
    _check_keys("losses", losses)
    _check_keys("accuracy", accuracy)
    _check_numbers("accuracy", list(accuracy.values()))
    _check_numbers("uniform, unigram and guess", [uniform, unigram, guess])
    if uniform <= 0 or guess <= 0:
        raise ValueError(f"uniform and guess must be above 0, but are {uniform} and {guess}.")
    if list(losses) == list(accuracy):
        for name, values in losses.items():
            _check_numbers(f"losses[{name!r}]", values)
    else:
        raise ValueError(
            f"losses must have at least one loss for each policy of accuracy, {list(accuracy)}, "
            f"but has { {name: len(values) for name, values in losses.items()} }."
        )
    canvas, panels = figure(
        2, len(losses), sharey="row", squeeze=False, gridspec_kw={"height_ratios": [2, 1]}
    )
    words = []
    top = math.ceil(12.5 * max(guess, *accuracy.values())) / 10  # a round number does not move
    for column, (name, values) in enumerate(losses.items()):
        colour = COLOURS["wrong" if column else "right"]
        above, below = panels[:, column]
        above.plot(range(1, len(values) + 1), values, color=colour, linewidth=1)
        above.set_title(_shown(name), color=colour, fontsize=11)
        for level, text in ((uniform, "ln V"), (unigram, "unigram")):
            above.axhline(level, color=COLOURS["ignored"], linewidth=1, linestyle=":")
            above.text(len(values), level, text, ha="right", va="bottom", fontsize=9,
                       color=COLOURS["ignored"])  # fmt: skip
        above.set_ylim(-0.1, 1.15 * uniform)
        above.set_xlabel("step")
        below.barh(0, accuracy[name], color=colour)
        below.axvline(guess, color=COLOURS["ignored"], linewidth=1, linestyle=":")
        below.text(accuracy[name] + 0.02 * top, 0, f"{accuracy[name]:.0%}", va="center",
                   color=colour)  # fmt: skip
        below.set_xlim(0, top)
        below.set_ylim(-1, 1)
        below.set_yticks([])
        below.xaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
        below.set_xlabel("right guesses")
        last = sum(values[-20:]) / len(values[-20:])
        end = "below 0.1" if last < 0.1 else "below unigram" if last < unigram else "above unigram"
        score = "above" if accuracy[name] > guess else "not above"
        words.append(f"{_printable(name)}: the loss ends {end}, accuracy {score} guessing.")
    panels[0, 0].set_ylabel("training loss (nats)")
    panels[1, 0].set_ylabel("masked\naccuracy")
    return finish(
        canvas,
        alt="Training loss above, masked accuracy on a frozen mask below, one column for each "
        "policy. " + " ".join(words),
        caption="Above: the training loss, with the loss of guessing evenly (ln V) and by "
        "frequency (unigram). Below: masked accuracy on one frozen mask; the dotted line is the "
        "most frequent token as the only answer.",
    )


def labelled_only_cost(measurements: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw time and peak memory of a training step, dense and on labelled positions alone.

    Args:
        measurements: the list ``"measurements"`` of ``mlmtutor/data/performance.json``, which
            ``make bench`` writes. Those whose name begins with ``test_training_step`` are drawn:
            each has ``who`` (``"mlmtutor"`` or ``"transformers"``), ``size``, ``median`` in
            seconds, and ``bytes``.

    Returns:
        One column for each quantity that was varied; time above, memory below.

    Raises:
        TypeError: ``measurements`` is no list of mappings, or holds what is no number.
        ValueError: a series is missing, or a number is not finite or above 1e15.

    Example:
        >>> import json
        >>> from importlib.resources import files
        >>> stored = files("mlmtutor").joinpath("data/performance.json").read_text("utf-8")
        >>> labelled_only_cost(json.loads(stored)["measurements"]).alt.split(":")[0]
        'Six log-log panels'
    """
    columns = {
        "test_training_step": "rows of 128 tokens",
        "test_training_step_by_length": "length of 8 rows",
        "test_training_step_by_share": "labelled share",
    }
    series: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in measurements if isinstance(measurements, Sequence) else [measurements]:
        if not isinstance(row, Mapping) or not {"name", "who"} <= row.keys():
            raise TypeError(
                "measurements must be a list of mappings with a name and who was measured, but "
                f"holds {row!r}."
            )
        if row["name"] in columns:
            numbers = [row.get(key) for key in ("size", "median", "bytes")]
            _check_numbers("size, median and bytes of measurements", numbers)
        series.setdefault((row["name"], row["who"]), []).append(row)
    for name in columns:
        for who in ("mlmtutor", "transformers"):
            if (name, who) not in series:
                raise ValueError(f"measurements must hold {name} of {who}: run make bench.")
    canvas, panels = figure(2, len(columns), sharex="col", sharey="row")
    drawn = {"transformers": ("all positions", "wrong"), "mlmtutor": ("labelled only", "right")}
    for column, (name, label) in enumerate(columns.items()):
        for who, (text, meaning) in drawn.items():
            rows = sorted(series[name, who], key=lambda row: row["size"])
            sizes = [row["size"] for row in rows]
            for panel, key, unit in ((0, "median", 1.0), (1, "bytes", 1e9)):
                axes, values = panels[panel, column], [row[key] / unit for row in rows]
                axes.loglog(sizes, values, "o-", color=COLOURS[meaning], markersize=4)
                if column == 2 and panel == 0:
                    lift, side = (-8, "top") if who == "mlmtutor" else (8, "bottom")
                    axes.annotate(text, (sizes[-1], values[-1]), (0, lift), ha="right", va=side,
                                  textcoords="offset points", color=COLOURS[meaning])  # fmt: skip
        panels[1, column].set_xlabel(label)
        panels[1, column].set_xticks(sizes, [f"{size:g}" for size in sizes])
        panels[1, column].minorticks_off()
    panels[0, 0].set_ylabel("seconds")
    panels[1, 0].set_ylabel("peak memory (GB)")
    return finish(
        canvas,
        alt="Six log-log panels: time and peak memory of a training step against rows, length and "
        "labelled share. Each has a line for logits at all positions and one for logits at "
        "labelled positions only.",
        caption="Time (above) and peak memory (below) of a training step, as make bench measured "
        "them, with logits at all positions and at labelled positions only.",
    )


def _check_keys(name: str, value: Any) -> None:
    """Raise unless ``value`` maps names to something, at least one of them."""
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise TypeError(f"{name} must map names to values, but is a {type(value).__name__}.")
    if not value:
        raise ValueError(f"{name} must hold at least one name, but is empty.")


def _check_numbers(name: str, values: Any) -> None:
    """Raise unless ``values`` are numbers that can be drawn, at least one of them."""
    try:
        drawable = [math.isfinite(value) and abs(value) <= LARGEST for value in values]
        len(values)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        raise TypeError(f"{name} must be a list of numbers, but is {values!r}.") from None
    if not drawable:
        raise ValueError(f"{name} needs at least one number, but has none.")
    if not all(drawable):
        raise ValueError(
            f"{name} must be finite numbers of at most {LARGEST:.0e}, but is {values!r}: nan, "
            "infinity and what is larger cannot be drawn."
        )


def _words(name: str, values: Any) -> list[str]:
    """Return ``values``, a list of str, with what cannot be printed written as an escape."""
    if not isinstance(values, Sequence) or not all(isinstance(value, str) for value in values):
        raise TypeError(f"{name} must be a list of str, but is {values!r}.")
    return [_printable(value) for value in values]


def _shown(text: str) -> str:
    """Return text as matplotlib draws it letter by letter: a dollar sign starts no formula."""
    return _printable(text).replace("$", r"\$")


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
    "label_policies",
    "labelled_only_cost",
    "pair_gaps",
    "shares_against_rule",
    "timeline",
]
