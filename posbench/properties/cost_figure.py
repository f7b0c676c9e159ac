"""Figure of costs: time of a forward pass with its interval, and peak memory."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from posbench.properties.measure import Row
from posbench.report.figures import Drawing
from posbench.report.figures.canvas import GREY, captioned_subplots

DOT = "#0072B2"


def draw(rows: Sequence[Row], title: str, caption: str) -> Drawing:
    """Draws schemes from the fastest to the slowest."""
    rows = sorted(rows, key=lambda row: row["time_ratio"])
    figure, panels = captioned_subplots(
        title, caption, panel=(2.9, 0.17 * len(rows) + 0.2), columns=2, gap=(0.35, 0.5), right=0.3
    )
    # Names of schemes are wider than the tick labels of other figures.
    figure.set_figwidth(figure.get_figwidth() + 0.9)
    shift = 0.9 / figure.get_figwidth()
    for axes in panels.flat:
        box = axes.get_position()
        axes.set_position([box.x0 * (1 - shift) + shift, box.y0, box.width * (1 - shift), box.height])
    time, memory = panels[0]
    for y, row in enumerate(rows):
        time.plot([row["time_low"], row["time_high"]], [y, y], color=DOT, linewidth=1.2)
        time.plot(row["time_ratio"], y, "o", color=DOT, markersize=4)
        memory.plot([0, row["extra_mib"]], [y, y], color=DOT, linewidth=2)
        memory.plot(row["extra_mib"], y, "o", color=DOT, markersize=4)
    _axes(time, rows, "time of a forward pass (1 = no scheme)", 1)
    _axes(memory, rows, "additional peak memory (MiB)", 0)
    time.set_xscale("log")
    time.xaxis.set_major_locator(_ticks(rows))
    time.xaxis.set_minor_locator(NullLocator())
    time.xaxis.set_major_formatter(FuncFormatter(lambda ratio, _: f"{ratio:g}"))
    memory.tick_params(labelleft=False)
    return figure, pd.DataFrame(rows)


def _ticks(rows: Sequence[Row]) -> FixedLocator:
    highest = max(row["time_high"] for row in rows)
    return FixedLocator([tick for tick in (0.5, 1, 1.5, 2, 3, 5, 10, 20, 50, 100) if tick < 1.1 * highest])


def _axes(axes: Axes, rows: Sequence[Row], label: str, without: float) -> None:
    axes.set_yticks(range(len(rows)), [row["scheme"] for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.7)
    axes.set_xlabel(label)
    axes.axvline(without, color=GREY, linestyle=(0, (4, 3)), linewidth=1, zorder=1)
