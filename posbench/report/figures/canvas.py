"""Layout of figures: title, panels and caption in inches, axes of lengths and values, labels at line ends."""

import textwrap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from numpy.typing import ArrayLike, NDArray

from posbench.report.tables.formatting import multiple_of
from posbench.report.tables.metrics import METRICS

GREY = "#666666"
BASELINE_STYLES: dict[str, Literal[":", "--"]] = {"chance": ":", "random_in_context": "--"}
_CAPTION_POINTS = 7.5
_LINE_INCHES = 1.35 * _CAPTION_POINTS / 72


def captioned_subplots(
    title: str,
    caption: str,
    *,
    panel: tuple[float, float],
    columns: int = 1,
    rows: int = 1,
    gap: tuple[float, float] = (0.3, 0.5),
    left: float = 0.7,
    right: float = 0.2,
    top: float = 0.65,
    share_axes: bool = False,
) -> tuple[Figure, NDArray]:
    """Returns a figure of equal panels with a title above and a caption below, and its axes (rows, columns).

    Args:
        panel: width and height of a panel, in inches; so are `gap`, `left`, `right` and `top`.
        share_axes: share x and y axes between all panels.
    """
    bottom = 0.75
    width = max(left + columns * panel[0] + (columns - 1) * gap[0] + right, 0.4 + 0.105 * len(title))
    characters = int((width - 0.4) * 72 / (0.53 * _CAPTION_POINTS))
    lines = textwrap.wrap(caption, characters)
    bottom += len(lines) * _LINE_INCHES
    height = top + rows * panel[1] + (rows - 1) * gap[1] + bottom
    figure = Figure(figsize=(width, height))
    figure.text(0.2 / width, 1 - 0.12 / height, title, va="top", fontsize=11, fontweight="bold")
    figure.text(
        0.2 / width,
        0.1 / height,
        "\n".join(lines),
        va="bottom",
        fontsize=_CAPTION_POINTS,
        color="#444444",
        linespacing=1.3,
    )
    axes = figure.subplots(
        rows,
        columns,
        squeeze=False,
        sharex=share_axes,
        sharey=share_axes,
        gridspec_kw={
            "left": left / width,
            "right": 1 - right / width,
            "top": 1 - top / height,
            "bottom": bottom / height,
            "wspace": gap[0] / panel[0],
            "hspace": gap[1] / panel[1],
        },
    )
    return figure, axes


def length_axis(axes: Axes, lengths: Sequence[int], train_len: int, name: str) -> None:
    """Makes x a logarithmic axis of lengths in tokens and multiples of the training length, which is marked.

    Ticks are at doublings of the training length, or at the measured length where it differs by up to a tenth.
    """
    axes.set_xscale("log", base=2)
    powers, measured = train_len * 2.0 ** np.arange(-20, 21), np.asarray(lengths)
    nearest = measured[np.abs(measured[:, None] - powers).argmin(0)]
    doublings = np.where(np.abs(nearest / powers - 1) <= 0.1, nearest, powers)
    ticks = [tick for tick in doublings if lengths[0] <= tick <= lengths[-1]]
    if not ticks or lengths[-1] >= 1.4 * ticks[-1]:  # the longest length, where its label has space
        ticks.append(lengths[-1])
    fixed_ticks(axes.xaxis, ticks, lambda length: f"{length:.0f}\n{multiple_of(length, train_len)}")
    axes.set_xlabel(name)
    axes.axvline(train_len, color=GREY, linestyle=(0, (4, 3)), linewidth=1, zorder=1)
    axes.annotate(
        "training length",
        (train_len, 1),
        (3, 2),
        xycoords=("data", "axes fraction"),
        textcoords="offset points",
        fontsize=7.5,
        color=GREY,
    )


def fixed_ticks(axis: Axis, ticks: Sequence[float], label: Callable[[float], str] = "{:g}".format) -> None:
    """Labels these ticks of an axis and no others."""
    axis.set_major_locator(FixedLocator(ticks))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: label(value)))


def over_seeds(shown: pd.DataFrame) -> pd.Series:
    """Returns which intervals of a summary hold for other trainings, and may be drawn; the csv has the others too."""
    return shown["interval_method"].str.contains("seeds")


def band(axes: Axes, x: ArrayLike, shown: pd.DataFrame, colour: Any) -> None:
    """Shades the intervals of a summary that are over seeds, if there are any."""
    interval = shown[["low", "high"]].where(over_seeds(shown)).astype(float)
    if interval["low"].isna().all():
        return
    if len(interval) == 1:  # a band of one point has no area
        axes.vlines(x, interval["low"], interval["high"], color=colour, linewidth=1.6)
    else:
        axes.fill_between(x, interval["low"], interval["high"], color=colour, alpha=0.15, linewidth=0)


def value_axis(
    axes: Axes, values: Sequence[float], name: str, is_fraction: bool = False, linear: float | None = None
) -> None:
    """Sets label, scale and limits of y: 0 to 1 for fractions, logarithmic if values differ by more than 4 times.

    Args:
        linear: values of any sign: the axis is `signed_scale`.
    """
    finite = np.asarray(values, dtype=float)
    finite = finite[np.isfinite(finite)]
    low, high = finite.min(), finite.max()
    axes.set_ylabel(name)
    if is_fraction:
        axes.set_ylim(0, 1.02)
    elif linear is None and low > 0 and high / low > 4:
        axes.set_ylabel(f"{name} (log scale)")
        axes.set_yscale("log")
        axes.set_ylim(low / 1.1, high * 1.1)
        log_ticks(axes.yaxis, low / 1.1, high * 1.1)
    else:
        margin = 0.06 * (high - low) or 0.1
        axes.set_ylim(low - margin, high + margin)
        if linear is not None:
            _signed_axis(axes, linear)


def log_ticks(axis: Axis, low: float, high: float) -> None:
    """Labels round numbers of a logarithmic axis."""
    steps = [digit * 10.0**power for power in range(-3, 9) for digit in (1, 2, 3, 5)]
    fixed_ticks(axis, [step for step in steps if low <= step <= high])


def signed_scale(linear: float) -> str:
    """Returns the description of an axis of values of any sign for its caption."""
    return f"linear from -{linear:g} to {linear:g} and logarithmic beyond"


def _signed_axis(axes: Axes, linear: float) -> None:
    low, high = axes.get_ylim()
    axes.set_yscale("symlog", linthresh=linear)
    axes.set_ylim(min(1.15 * low, -linear), max(1.15 * high, linear))
    steps = [digit * 10.0**power for power in range(-6, 7) for digit in (1, 2, 5)]
    ticks = [sign * step for step in steps if step >= linear for sign in (-1, 1)]
    fixed_ticks(axes.yaxis, [0, *ticks])


def mean_label(baseline: str, values: pd.Series) -> str:
    """Returns the label of a line at the mean of a baseline over lengths."""
    varies = values.max() - values.min() >= 0.005
    return METRICS[baseline].label + (" (mean of all lengths)" if varies else "")


def label_width(labels: Iterable[str]) -> float:
    """Returns the width in inches of the longest label beside the axes."""
    return 0.3 + 0.068 * max(map(len, labels))


@dataclass(frozen=True)
class EndLabel:
    """A label of the data point (x, y)."""

    x: float
    y: float
    text: str
    colour: str


def end_labels(
    axes: Axes, labels: Sequence[EndLabel], side: Literal["right", "left", "beside"] = "right"
) -> None:
    """Writes labels without overlap, each with a line to its data point.

    Args:
        side: an edge of the axes, or beside and above the points.
    """
    labels = sorted(labels, key=lambda each: each.y)
    box, points = axes.get_window_extent(), axes.get_figure().dpi / 72  # type: ignore[union-attr]
    places = [axes.transData.transform((each.x, each.y)) for each in labels]
    above = 10 * points if side == "beside" else 0
    heights = spread([y + above for _, y in places], gap=10.5 * points, low=box.y0, high=box.y1)
    for each, height, (x, _) in zip(labels, heights, places, strict=True):
        edge = {"right": 1.035, "left": 0.01}.get(side, (x - box.x0) / box.width + 0.025)
        axes.annotate(
            each.text,
            (each.x, each.y),
            (edge, (height - box.y0) / box.height),
            textcoords="axes fraction",
            ha="left",
            va="center",
            fontsize=8,
            color=each.colour,
            arrowprops={
                "arrowstyle": "-",
                "color": each.colour,
                "linewidth": 0.6,
                "shrinkA": 1,
                "shrinkB": 4,
                # From the edge of the text, so as to cross no other label.
                "relpos": (1 if side == "left" else 0, 0.5),
            },
            path_effects=[withStroke(linewidth=2, foreground="white")] if side == "beside" else None,
            zorder=5,
            annotation_clip=False,
        )


def spread(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Returns sorted heights at least `gap` apart with the least squared distance to the wanted ones.

    They are the isotonic regression of wanted_i - i * gap, plus i * gap.
    """
    blocks: list[tuple[float, int]] = []  # mean of wanted - i * gap, number of labels that move together
    for i, height in enumerate(wanted):
        mean, size = height - i * gap, 1
        while blocks and blocks[-1][0] > mean:
            before, count = blocks.pop()
            mean, size = (before * count + mean * size) / (count + size), size + count
        blocks.append((mean, size))
    top = max(low, high - gap * (len(wanted) - 1))
    flat = [min(max(mean, low), top) for mean, size in blocks for _ in range(size)]
    return [height + i * gap for i, height in enumerate(flat)]
