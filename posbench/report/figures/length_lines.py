"""Panel with one line per series by context length, labelled at its end; used by several figures."""

import math

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke

from posbench.report.figures.canvas import (
    BASELINE_STYLES,
    GREY,
    EndLabel,
    band,
    end_labels,
    label_width,
    length_axis,
    value_axis,
)
from posbench.report.figures.figure_data import FigureData
from posbench.report.tables.metrics import METRICS, Metric
from posbench.report.tables.selection import SERIES_COLUMNS
from posbench.results.gate import GATE_METRICS, MIN_ACCURACY

MARKERS = 14  # largest number of markers on a line
CROSS = "Cross: no value, or not measured, at longer contexts."


def end_label_width(data: FigureData, shown: pd.DataFrame, baselines: pd.DataFrame | None = None) -> float:
    """Returns the width in inches of the labels at the ends of lines and baselines."""
    names = [] if baselines is None else [METRICS[baseline].label for baseline in baselines]
    return label_width([*(f"{style.label}  00.00" for style, _ in data.series(shown)), *names])


def has_cross(shown: pd.DataFrame) -> bool:
    """Returns whether a line of a summary ends before the others and therefore with a cross."""
    x = "position" if "position" in shown else "eval_len"
    drawn = shown[shown["estimate"].notna()]
    return bool((drawn.groupby(SERIES_COLUMNS, observed=True)[x].max() < shown[x].max()).any())


def draw_lines(
    axes: Axes,
    data: FigureData,
    shown: pd.DataFrame,
    metric: Metric,
    train_len: int,
    *,
    baselines: pd.DataFrame | None = None,
    linear: float | None = None,
) -> None:
    """Draws a line per series; lines that end early end with a cross.

    Args:
        baselines: columns by length, drawn in grey; accuracies also have the gate at the training length.
        linear: values up to which the axis is linear on both sides of zero; it is logarithmic beyond.
    """
    x, name = (
        ("position", "position in the document") if "position" in shown else ("eval_len", "context length")
    )
    last = shown[x].max()
    drawn = shown[shown["estimate"].notna()]
    # Limits are those of the lines; bands of diverging schemes may exceed them.
    value_axis(axes, drawn["estimate"].tolist(), metric.label, metric.is_fraction, linear)
    ended, complete = [], []
    for baseline, column in ({} if baselines is None else baselines.to_dict("series")).items():
        heights = column.dropna()
        axes.plot(heights.index, heights, color=GREY, linestyle=BASELINE_STYLES[baseline], linewidth=1.2)
        complete.append(EndLabel(heights.index[-1], heights.iloc[-1], METRICS[baseline].label, GREY))
    if metric.name in GATE_METRICS and x == "eval_len":
        axes.plot(
            train_len, MIN_ACCURACY, marker="_", color=GREY, markersize=12, markeredgewidth=1.5, zorder=2
        )
        axes.annotate(
            "gate",
            (train_len, MIN_ACCURACY),
            (3, -9),
            textcoords="offset points",
            fontsize=7.5,
            color=GREY,
            path_effects=[withStroke(linewidth=2, foreground="white")],
            zorder=4,
        )
    for style, line in data.series(drawn):
        every = -(-len(line) // MARKERS)
        axes.plot(line[x], line["estimate"], **style.plot_kwargs, markevery=every, zorder=3)
        band(axes, line[x], line, style.colour)
        end = line.iloc[-1]
        if end[x] == last:
            text = f"{style.label}  {end['estimate']:z.2f}"
            complete.append(EndLabel(end[x], end["estimate"], text, style.colour))
        else:
            axes.plot(
                end[x],
                end["estimate"],
                color=style.colour,
                marker="x",
                markersize=11,
                markeredgewidth=2,
                zorder=4,
            )
            ended.append(EndLabel(end[x], end["estimate"], f"{style.label} ×", style.colour))
    length_axis(
        axes, sorted(shown[x].unique()), train_len, f"{name} (tokens, and multiples of the training length)"
    )
    at_start = [each for each in ended if each.x == shown[x].min()]
    if at_start:
        # Space at the left for the labels of lines that end at the shortest length, on the logarithmic axis.
        inches = axes.get_window_extent().width / axes.get_figure().dpi  # type: ignore[union-attr]
        share = min(label_width(each.text for each in at_start) / inches, 0.5)
        first, right = math.log(shown[x].min()), math.log(axes.get_xlim()[1])
        axes.set_xlim(left=math.exp((first - share * right) / (1 - share)))
    end_labels(axes, complete)
    end_labels(axes, at_start, side="left")
    end_labels(axes, [each for each in ended if each not in at_start], side="beside")
