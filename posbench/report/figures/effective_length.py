"""Effective length of each series, by loss and by retrieval, with intervals; see tables.effective_length."""

import math
from collections.abc import Sequence
from itertools import cycle

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from posbench.errors import ConfigError
from posbench.report.figures import Drawing
from posbench.report.figures.canvas import (
    captioned_subplots,
    label_width,
    length_axis,
    over_seeds,
)
from posbench.report.figures.figure_data import FigureData, MissingRowsError
from posbench.report.tables.captions import caption
from posbench.report.tables.effective_length import (
    NOTE,
    Threshold,
    effective_lengths,
    nats_per_token,
    with_intervals_of,
)
from posbench.report.tables.metrics import get_metric
from posbench.report.tables.selection import ordered_series, series_label
from posbench.report.tables.summary import aggregate

MARKS, COLOURS = ["o", "D", "s", "^", "v"], ["#31688e", "#d95f02", "#7570b3", "#1b9e77", "#666666"]
BEYOND = "Dashed: the training length. Arrow: beyond the longest measured length."
ROW_INCHES = 0.24


def draw(
    data: FigureData,
    *,
    title: str = "Effective length",
    protocol: str = "fixed_targets",
    nats: float = 0.1,
    retrieval_metric: str = "exact_match",
    retrieval_task: str = "key_value",
    retrieval_protocol: str | None = None,
    shares: Sequence[float] = (0.85, 0.5),
    scheme: str | None = None,
    extension: str | None = None,
) -> Drawing:
    """Draws the effective lengths of all series, or of one scheme or extension, a row for each.

    Args:
        nats: by how much the loss per token may exceed that at the training length.
        shares: parts of the score at the training length that retrieval must keep.

    Raises:
        ConfigError: a threshold out of its range.
    """
    if not 0 < nats < math.inf:
        raise ConfigError(f"effective_length with nats {nats}: give a number above 0")
    for share in shares:
        if not 0 < share < 1:
            raise ConfigError(f"effective_length with a share {share}: give numbers between 0 and 1")
    loss, found = nats_per_token(get_metric("bits_per_byte")), get_metric(retrieval_metric, retrieval_task)
    wanted = {"scheme": scheme, "extension": extension}
    sides, lines = [], []
    for what, task, task_protocol, thresholds in (
        (loss, loss.tasks[0], protocol, [Threshold(nats=nats)]),
        (found, retrieval_task, retrieval_protocol, [Threshold(share) for share in shares]),
    ):
        rows = data.select(task, of=what, protocol=task_protocol, **wanted)
        lengths = [effective_lengths(rows, what, one).assign(metric=what.name) for one in thresholds]
        numbers = aggregate(rows, what)
        failed = numbers[numbers["seeds"] == 0]
        sides.append((rows, pd.concat([with_intervals_of(lengths[0], numbers), failed]), what))
        lines += lengths
    shown = pd.concat(lines)
    if shown["estimate"].isna().all():
        raise MissingRowsError("no numbers at the training length: evaluate it too")
    names = [series_label(*series) for series in reversed(ordered_series(shown, data.order))]
    note = f"{NOTE} {BEYOND} No mark: not learned, or no number at the training length."
    figure, axes = captioned_subplots(
        title,
        caption(sides, note, intervals="lines"),
        panel=(5.2, ROW_INCHES * len(names) + 0.1),
        left=label_width(names),
    )
    draw_lengths(axes[0, 0], shown, names, int(sides[0][0]["train_len"].iat[0]))
    axes[0, 0].set_yticks(range(len(names)), names)
    return figure, shown


def draw_lengths(axes: Axes, shown: pd.DataFrame, names: Sequence[str], train_len: int) -> None:
    """Draws a mark per threshold and series with its interval; what is beyond the longest length is an arrow."""
    row_of = {name: row for row, name in enumerate(names)}
    labels = list(dict.fromkeys(zip(shown["metric"], shown["threshold"], strict=True)))
    offsets = np.linspace(0.22, -0.22, len(labels)) if len(labels) > 1 else [0.0]
    edge = float(shown["longest"].max()) * 1.15
    for (metric, threshold), offset, mark, colour in zip(
        labels, offsets, cycle(MARKS), cycle(COLOURS), strict=False
    ):
        part = shown[(shown["metric"] == metric) & (shown["threshold"] == threshold)]
        part = part[part["estimate"].notna()]
        y = np.array(
            [row_of[label] + offset for label in map(series_label, part["scheme"], part["extension"])]
        )
        longest = part["longest"].to_numpy(dtype=float)
        drawn = part[["low", "high"]].where(over_seeds(part)).astype(float)
        ends = {name: np.minimum(drawn[name], longest) for name in drawn}
        measured = np.isfinite(part["estimate"].to_numpy(dtype=float))
        at = np.where(measured, part["estimate"], longest)
        axes.hlines(y, ends["low"], ends["high"], color=colour, linewidth=1)
        axes.scatter(at[measured], y[measured], color=colour, marker=mark, s=18, zorder=3, label=threshold)
        axes.scatter(at[~measured] * 1.04, y[~measured], color=colour, marker=">", s=18, zorder=3)
    length_axis(
        axes, sorted({train_len, int(shown["longest"].max())}), train_len, "effective length (tokens)"
    )
    axes.set_xlim(train_len / 1.15, edge)
    axes.set_ylim(-0.7, len(names) - 0.3)
    axes.tick_params(axis="y", length=0)
    for text in axes.texts:
        text.set_visible(False)  # the legend is there; the caption names the dashed line
    axes.legend(
        loc="lower left",
        bbox_to_anchor=(0, 1),
        ncols=len(labels),
        borderpad=0,
        fontsize=7,
        handletextpad=0.2,
        columnspacing=0.9,
    )
