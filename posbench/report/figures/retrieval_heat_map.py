"""Heat maps of retrieval by context length and depth, a panel per series."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.image import AxesImage

from posbench.errors import ConfigError
from posbench.report.figures import Drawing
from posbench.report.figures.canvas import BASELINE_STYLES, captioned_subplots, mean_label
from posbench.report.figures.depth import binned, bins_note
from posbench.report.figures.figure_data import FigureData
from posbench.report.tables.caption_text import DEPTH_AXIS_LABELS
from posbench.report.tables.captions import caption
from posbench.report.tables.formatting import multiple_of
from posbench.report.tables.metrics import METRICS, get_metric
from posbench.report.tables.summary import aggregate, baseline_values
from posbench.results.gate import GATE_METRICS, MIN_ACCURACY

COLUMNS = 4


def draw(
    data: FigureData,
    *,
    title: str = "Retrieval by context length and position of the record",
    task: str = "key_value",
    metric: str = "exact_match",
    protocol: str | None = None,
    variant: str | None = None,
    extension: str | None = None,
    bins: int = 5,
) -> Drawing:
    """Draws a metric that is a fraction by context length and depth, for all extensions by default.

    Raises:
        ConfigError: the metric is not a fraction.
    """
    what = get_metric(metric, task)
    if not what.is_fraction:
        allowed = ", ".join(each.name for each in METRICS.values() if each.is_fraction)
        raise ConfigError(f"a heat map shows a fraction, {metric} is not one: set metric to one of {allowed}")
    rows = data.select(task, of=what, protocol=protocol, variant=variant, extension=extension)
    by_length = aggregate(rows, what)
    shown = aggregate(binned(rows, bins), what, by=["eval_len", "depth"])
    baselines = baseline_values(rows, what.baselines)
    train_len = int(rows["train_len"].iat[0])
    lengths = sorted(by_length["eval_len"].unique())
    series = data.series(by_length)
    down = -(-len(series) // COLUMNS)
    note = f"Rows: context lengths in tokens and multiples of the training length; numbers: per cent. {bins_note(bins, 'cell')}"
    marks = [mean_label(str(name), column) for name, column in baselines.items()] + ["gate"] * (
        what.name in GATE_METRICS
    )
    note += f" Lines on the colour scale: {', '.join(marks)}." if marks else ""
    figure, axes = captioned_subplots(
        title,
        caption([(rows, by_length, what)], note, intervals="intervals, in the csv"),
        panel=(1.75, 0.32 * len(lengths) + 0.1),
        columns=min(COLUMNS, len(series)),
        rows=down,
        gap=(0.25, 0.55),
        left=0.95,
        right=0.9,
        share_axes=True,
    )
    for panel, (style, line) in zip(axes.flat, series, strict=False):
        here = shown[
            (shown["scheme"] == line["scheme"].iat[0]) & (shown["extension"] == line["extension"].iat[0])
        ]
        image = _panel(panel, here, line, lengths, bins)
        panel.set_title(style.label, fontweight="bold")
    for panel in axes.flat[len(series) :]:
        panel.set_visible(False)
    for panel in axes[:, 0]:
        panel.set_ylabel("context length\n(tokens)", fontsize=8)
    axes[0, 0].set_yticks(
        range(len(lengths)), [f"{length}  {multiple_of(length, train_len)}" for length in lengths]
    )
    axes[0, 0].set_xticks([0, (bins - 1) / 2, bins - 1], ["first", "middle", "last"])
    for panel in axes.flat[max(0, len(series) - COLUMNS) : len(series)]:  # lowest panels of the columns
        panel.tick_params(labelbottom=True)
        panel.set_xlabel(DEPTH_AXIS_LABELS.get(task, "queried record"))
    bar = figure.add_axes((1 - 0.65 / figure.get_figwidth(), 0.4, 0.12 / figure.get_figwidth(), 0.4))
    figure.colorbar(image, cax=bar, label=what.label).outline.set_visible(False)
    for name, dashes in BASELINE_STYLES.items():
        if name in baselines:
            bar.axhline(float(baselines[name].mean()), color="white", linestyle=dashes, linewidth=1.2)
    if what.name in GATE_METRICS:
        bar.axhline(MIN_ACCURACY, color="black", linewidth=1.2)
    return figure, shown.merge(baselines.reset_index(), on="eval_len", how="left")


def _panel(panel: Axes, here: pd.DataFrame, line: pd.DataFrame, lengths: list[int], bins: int) -> AxesImage:
    """Draws the cells of a series with their numbers, or the status of lengths without numbers."""
    centres = (np.arange(bins) + 0.5) / bins
    grid = here.pivot(index="eval_len", columns="depth", values="estimate")
    values = grid.reindex(index=lengths, columns=centres).to_numpy(dtype=float)
    panel.grid(False)
    panel.set_facecolor("#eeeeee")
    panel.tick_params(length=0)
    panel.spines[:].set_visible(False)
    image = panel.imshow(values, vmin=0, vmax=1, cmap="cividis", aspect="auto", origin="lower")
    for (row, column), value in np.ndenumerate(values):
        if np.isfinite(value):
            colour = "white" if value < 0.55 else "black"
            panel.text(column, row, f"{100 * value:.0f}", ha="center", va="center", fontsize=7, color=colour)
    for status, lines in line[line["estimate"].isna()].groupby("status"):
        for length in lines["eval_len"]:
            text = str(status).replace("_", " ")
            panel.text((bins - 1) / 2, lengths.index(length), text, ha="center", va="center", fontsize=7)
    return image
