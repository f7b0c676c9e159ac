"""One line a series against the context's length, labelled at its end: the panel that several figures share."""

import pandas as pd
from matplotlib.axes import Axes

from posbench.report.figures.canvas import (
    GREY,
    GUESS_STYLES,
    EndLabel,
    end_labels,
    length_axis,
    room,
    signed_axis,
    value_axis,
)
from posbench.report.figures.source import Source
from posbench.report.tables.measures import MEASURES, Measure
from posbench.results.gate import ACCURACIES, GATE

MARKERS = 14  # at most so many on a line
CROSS = "A cross marks the last value of a line that has no more."
NOT_DRAWN = "intervals in the csv, not drawn since all lines share their documents"


def drawn_bands(shown: pd.DataFrame) -> str:
    """What a caption calls the intervals of lines that have a band where there are several seeds alone."""
    return "bands" if _over_seeds(shown).any() else NOT_DRAWN


def _over_seeds(shown: pd.DataFrame) -> pd.Series:
    return shown["interval"].str.contains("seeds")


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
    bands: bool = False,
    linear: float | None = None,
) -> None:
    """Lines with a band where there are several seeds, or always if `bands`; one that ends early ends with a cross.

    `guesses`, a column each by length, are drawn in grey, and at the training length the gate of an accuracy.
    With `linear` the values' axis is linear up to it on both sides of zero, and logarithmic beyond.
    """
    x, name = (
        ("position", "position in the document") if "position" in shown else ("eval_len", "context length")
    )
    last = shown[x].max()
    drawn = shown[shown["estimate"].notna()]
    # Bands of exploding schemes may leave the picture: the limits are the lines'.
    value_axis(axes, drawn["estimate"].tolist(), measure.label, measure.share)
    if linear is not None:
        signed_axis(axes, linear)
    ended, reached = [], []
    for guess, column in ({} if guesses is None else guesses.to_dict("series")).items():
        heights = column.dropna()
        axes.plot(heights.index, heights, color=GREY, linestyle=GUESS_STYLES[guess], linewidth=1.2)
        reached.append(EndLabel(heights.index[-1], heights.iloc[-1], MEASURES[guess].label, GREY))
    if measure.name in ACCURACIES and x == "eval_len":
        axes.plot(train_len, GATE, marker="_", color=GREY, markersize=12, markeredgewidth=1.5, zorder=2)
        axes.annotate(
            "gate", (train_len, GATE), (3, -9), textcoords="offset points", fontsize=7.5, color=GREY
        )
    for look, line in source.series(drawn):
        every = -(-len(line) // MARKERS)
        axes.plot(line[x], line["estimate"], **look.line, markevery=every, zorder=3)
        band = line[["low", "high"]].where(_over_seeds(line) | bands)
        axes.fill_between(line[x], band["low"], band["high"], color=look.colour, alpha=0.15, linewidth=0)
        end = line.iloc[-1]
        if end[x] == last:
            text = f"{look.label}  {end['estimate']:z.2f}"
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
