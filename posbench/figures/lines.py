"""One line a series against the context's length, labelled at its end: the panel that several figures share."""

import pandas as pd
from matplotlib.axes import Axes

from posbench.figures.canvas import GREY, GUESS_STYLES, EndLabel, end_labels, length_axis, room, value_axis
from posbench.figures.source import Source
from posbench.tables.measures import MEASURES, Measure

MARKERS = 14  # at most so many on a line
CROSS = "A cross marks the last value of a line that has no more."


def room_for_labels(source: Source, shown: pd.DataFrame, guesses: pd.DataFrame | None = None) -> float:
    names = [] if guesses is None else [MEASURES[guess].label for guess in guesses]
    return room([*(f"{look.label}  00.00" for look, _ in source.series(shown)), *names])


def draw_lines(
    axes: Axes,
    source: Source,
    shown: pd.DataFrame,
    measure: Measure,
    train_len: int,
    *,
    guesses: pd.DataFrame | None = None,
) -> None:
    """Lines with a band where there are several seeds; a line that ends early ends with a cross.

    `guesses`, a column each by length, are drawn in grey.
    """
    x, name = (
        ("position", "position in the document") if "position" in shown else ("eval_len", "context length")
    )
    last = shown[x].max()
    drawn = shown[shown["estimate"].notna()]
    # Bands of exploding schemes may leave the picture: the limits are the lines'.
    value_axis(axes, drawn["estimate"].tolist(), measure.label, measure.share)
    ended, reached = [], []
    for guess, column in ({} if guesses is None else guesses.to_dict("series")).items():
        heights = column.dropna()
        axes.plot(heights.index, heights, color=GREY, linestyle=GUESS_STYLES[guess], linewidth=1.2)
        reached.append(EndLabel(heights.index[-1], heights.iloc[-1], MEASURES[guess].label, GREY))
    for look, line in source.series(drawn):
        every = -(-len(line) // MARKERS)
        axes.plot(line[x], line["estimate"], color=look.colour, marker=look.marker, markevery=every, zorder=3)
        axes.fill_between(line[x], line["low"], line["high"], color=look.colour, alpha=0.15, linewidth=0)
        end = line.iloc[-1]
        if end[x] == last:
            text = f"{look.label}  {end['estimate']:.2f}"
            reached.append(EndLabel(end[x], end["estimate"], text, look.colour))
        else:
            axes.plot(
                end[x], end["estimate"], color=look.colour, marker="x", markersize=11, markeredgewidth=2
            )
            ended.append(EndLabel(end[x], end["estimate"], f"{look.label} ×", look.colour))
    length_axis(
        axes, sorted(shown[x].unique()), train_len, f"{name} (tokens, and multiples of the training length)"
    )
    if ended:
        # Lines begin at the shortest length: left of it there is room for the names of those that end there.
        axes.set_xlim(left=shown[x].min() / 1.7)
    end_labels(axes, reached)
    end_labels(axes, ended, side="left")
