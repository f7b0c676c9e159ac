"""Figure of decay: the mean logit by distance and its envelope, a panel per scheme."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from numpy.typing import NDArray

from posbench.properties.decay import distinct, envelope
from posbench.properties.measure import Row
from posbench.properties.probe import MULTIPLES, TRAIN_LEN
from posbench.properties.ratings import format_compact
from posbench.report.figures import Drawing
from posbench.report.figures.canvas import GREY, captioned_subplots

CURVE, ENVELOPE = "#0072B2", "#E69F00"
ACROSS = 7
LOW, HIGH = -1.0, 2.0  # limits of y, relative to the logit without a scheme


def draw(rows: Sequence[Row], curves: Mapping[str, NDArray[np.float64]], title: str, caption: str) -> Drawing:
    """Draws a panel per scheme, with a line for each different layer."""
    down = -(-len(rows) // ACROSS)
    across = min(ACROSS, len(rows))
    figure, panels = captioned_subplots(
        title, caption, panel=(1.55, 0.92), columns=across, rows=down, gap=(0.14, 0.32), share_axes=True
    )
    shown = []
    for i, axes in enumerate(panels.flat):
        if i >= len(rows):
            axes.set_axis_off()
            continue
        row = rows[i]
        layers = distinct(curves[row["scheme"]])
        for number, curve in enumerate(layers):
            _curve(axes, curve, number)
            shown += _numbers(row["scheme"], number, curve)
        axes.set_title(row["scheme"], fontsize=8.5, fontweight="bold", pad=3)
        _note(axes, row, layers)
        _axes(axes, below=i + across >= len(rows))
    figure.text(
        0.16 / figure.get_figwidth(), 0.5, "mean logit, 1 = no scheme", rotation=90, va="center", fontsize=9
    )
    return figure, pd.DataFrame(shown)


def _curve(axes: Axes, curve: NDArray[np.float64], number: int) -> None:
    distance = np.arange(len(curve))
    style = ("-", (0, (3, 1.5)), ":")[number % 3]
    axes.plot(distance[1:], envelope(curve)[1:], color=ENVELOPE, linewidth=1, zorder=3)
    axes.plot(distance[1:], curve[1:], color=CURVE, linewidth=1.1, linestyle=style, zorder=4)
    visible = np.flatnonzero(~np.isnan(curve))
    isolated = visible[(np.diff(visible, prepend=-2) > 1) & (np.diff(visible, append=len(curve) + 2) > 1)]
    axes.plot(isolated, curve[isolated], ".", color=CURVE, markersize=3, zorder=4)
    last = visible[-1]
    if last < MULTIPLES[-1] * TRAIN_LEN - 1:
        axes.plot(last, curve[last], marker="x", color=CURVE, markersize=5, markeredgewidth=1.4, zorder=5)


def _note(axes: Axes, row: Row, layers: Sequence[NDArray[np.float64]]) -> None:
    """Notes the values of lines beyond the limits, and why a line ends."""
    notes = []
    highest, lowest = (edge([edge(curve[~np.isnan(curve)]) for curve in layers]) for edge in (max, min))
    if highest > HIGH:
        notes.append(f"from {format_compact(highest)}")
    if lowest < LOW:
        drawn = max(np.fmax.reduce(curve[1:], initial=-np.inf) for curve in layers)
        notes.append(f"{'below the axis, ' if drawn < LOW else ''}to {format_compact(lowest)}")
    if row["behavior_16x"] == "undefined":
        notes.append("undefined beyond")
    if notes:
        axes.annotate(", ".join(notes), (0.04, 0.06), xycoords="axes fraction", fontsize=7.5, color="#333333")


def _axes(axes: Axes, below: bool) -> None:
    axes.set_ylim(LOW, HIGH)
    axes.set_xscale("log", base=2)
    axes.set_xlim(0.9, MULTIPLES[-1] * TRAIN_LEN * 1.25)
    axes.yaxis.set_major_locator(FixedLocator([-1, 0, 1, 2]))
    axes.xaxis.set_major_locator(FixedLocator([1, 8, TRAIN_LEN, MULTIPLES[-1] * TRAIN_LEN]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda distance, _: f"{distance:.0f}"))
    axes.tick_params(labelsize=7.5, labelbottom=below, length=2)
    axes.axvline(TRAIN_LEN, color=GREY, linestyle=(0, (4, 3)), linewidth=0.8, zorder=1)
    axes.axhline(0, color="#bbbbbb", linewidth=0.8, zorder=1)
    if below:
        axes.set_xlabel("distance (tokens)", fontsize=7.5, labelpad=2)


def _numbers(scheme: str, number: int, curve: NDArray[np.float64]) -> list[dict[str, object]]:
    above = envelope(curve)
    distances = sorted({*range(min(64, len(curve))), *np.geomspace(1, len(curve), 128).astype(int) - 1, 725})
    return [
        {"scheme": scheme, "curve": number, "distance": n, "mean": curve[n], "envelope": above[n]}
        for n in distances
        if n < len(curve) and not np.isnan(curve[n])
    ]
