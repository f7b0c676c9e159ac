"""Attention by distance: a column per scheme, a row per layer, a line per context length."""

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.lines import Line2D

from posbench.report.figures import Drawing
from posbench.report.figures.canvas import GREY, band, captioned_subplots
from posbench.report.figures.distance import BUCKETS, DISTANCE, distance_axis, uniform
from posbench.report.figures.figure_data import FigureData
from posbench.report.tables.captions import caption
from posbench.report.tables.formatting import multiple_of
from posbench.report.tables.summary import aggregate


def draw(
    data: FigureData,
    *,
    title: str = "Fraction of attention by distance, in each layer",
    extension: str | None = "none",
) -> Drawing:
    """Draws the mean over heads of the attention to each bucket of distances."""
    rows = data.select("attention", of=DISTANCE, protocol="synthetic_records", extension=extension)
    by_length = aggregate(rows, DISTANCE)
    shown = aggregate(rows, DISTANCE, by=["eval_len", "layer", "position"])
    lengths, layers = sorted(shown["eval_len"].unique()), sorted(shown["layer"].unique())
    train_len, series = int(rows["train_len"].iat[0]), data.series(shown)
    colours = matplotlib.colormaps["cividis"](np.linspace(0, 0.85, max(2, len(lengths))))
    notes = [
        BUCKETS,
        "Lines are means over heads. No line: no value at this length. Dotted: uniform attention at the longest context.",
    ]
    figure, axes = captioned_subplots(
        title,
        caption([(rows, pd.concat([shown, by_length[by_length["estimate"].isna()]]), DISTANCE)], *notes),
        panel=(1.4, 0.95),
        columns=len(series),
        rows=len(layers),
        gap=(0.16, 0.2),
        right=1.75,
        share_axes=True,
    )
    for column, (style, line) in zip(axes.T, series, strict=True):
        column[0].set_title(style.label, fontweight="bold")
        for panel, layer in zip(column, layers, strict=True):
            uniform(panel, lengths[-1])
            for length, colour in zip(lengths, colours, strict=False):
                here = line[(line["eval_len"] == length) & (line["layer"] == layer)]
                x = np.log2(here["position"].astype(float))
                panel.plot(x, here["estimate"], color=colour, linewidth=1.4, marker="o", markersize=3)
                band(panel, x, here, colour)
        column[-1].set_xlabel("distance (tokens)")
    distance_axis(axes[0, 0], lengths[-1])
    axes[0, 0].set_xlabel("")
    for panel, layer in zip(axes[:, 0], layers, strict=True):
        panel.set_ylabel(f"layer {int(layer) + 1}")
        panel.set_ylim(0, 1)
    handles = [
        Line2D([], [], color=colour, marker="o", label=f"{length} tokens, {multiple_of(length, train_len)}")
        for length, colour in zip(lengths, colours, strict=False)
    ]
    handles.append(Line2D([], [], color=GREY, linestyle=":", label="uniform"))
    axes[0, -1].legend(handles=handles, loc="upper left", bbox_to_anchor=(1.05, 1.1))
    return figure, shown
