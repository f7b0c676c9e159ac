"""Retrieval as a heat map, length by depth: one panel a scheme shows where its memory ends."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.image import AxesImage

from posbench.errors import ConfigError
from posbench.report.figures import Drawing
from posbench.report.figures.canvas import GUESS_STYLES, page
from posbench.report.figures.depth import binned
from posbench.report.figures.source import Source
from posbench.report.tables.caption_text import PLACES
from posbench.report.tables.captions import caption
from posbench.report.tables.measures import MEASURES, measure_named
from posbench.report.tables.summary import baselines, summarise
from posbench.results.gate import ACCURACIES, GATE

COLUMNS = 4


def draw(
    source: Source,
    *,
    title: str = "Retrieval by length and by the depth of the record",
    task: str = "key_value",
    measure: str = "exact_match",
    protocol: str | None = None,
    variant: str | None = None,
    extension: str | None = None,
    bins: int = 5,
) -> Drawing:
    what = measure_named(measure, task)
    if not what.share:
        allowed = ", ".join(each.name for each in MEASURES.values() if each.share)
        raise ConfigError(f"a heat map shows a share, {measure} is none: set measure to one of {allowed}")
    rows = source.pick(task, protocol=protocol, variant=variant, extension=extension)
    by_length = summarise(rows, what)
    shown = summarise(binned(rows, bins), what, by=["eval_len", "depth"])
    guesses = baselines(rows, what.guesses)
    train_len = int(rows["train_len"].iat[0])
    lengths = sorted(by_length["eval_len"].unique())
    series = source.series(by_length)
    down = -(-len(series) // COLUMNS)
    note = "Cells in per cent; rows are lengths in tokens and multiples of the training length."
    marks = [MEASURES[str(name)].label for name in guesses] + ["gate"] * (what.name in ACCURACIES)
    note += f" Lines on the scale: {', '.join(marks)}." if marks else ""
    figure, axes = page(
        title,
        caption([(rows, by_length, what)], note, intervals="intervals, in the csv"),
        panel=(1.75, 0.32 * len(lengths) + 0.1),
        columns=min(COLUMNS, len(series)),
        rows=down,
        gap=(0.25, 0.55),
        right=0.9,
        share=True,
    )
    for panel, (look, line) in zip(axes.flat, series, strict=False):
        here = shown[
            (shown["scheme"] == line["scheme"].iat[0]) & (shown["extension"] == line["extension"].iat[0])
        ]
        image = _panel(panel, here, line, lengths, bins)
        panel.set_title(look.label, fontweight="bold")
    for panel in axes.flat[len(series) :]:
        panel.set_visible(False)
    axes[0, 0].set_yticks(range(len(lengths)), [f"{length}  {length / train_len:g}×" for length in lengths])
    axes[0, 0].set_xticks([0, (bins - 1) / 2, bins - 1], ["first", "middle", "last"])
    for panel in axes.flat[max(0, len(series) - COLUMNS) : len(series)]:  # the lowest of each column
        panel.tick_params(labelbottom=True)
        panel.set_xlabel(PLACES.get(task, "record asked for"))
    bar = figure.add_axes((1 - 0.65 / figure.get_figwidth(), 0.4, 0.12 / figure.get_figwidth(), 0.4))
    figure.colorbar(image, cax=bar).outline.set_visible(False)
    # Chance on the scale: a colour below it is worth nothing.
    for name, style in GUESS_STYLES.items():
        if name in guesses:
            bar.axhline(float(guesses[name].mean()), color="white", linestyle=style, linewidth=1.2)
    if what.name in ACCURACIES:
        bar.axhline(GATE, color="black", linewidth=1.2)
    return figure, shown.merge(guesses.reset_index(), on="eval_len", how="left")


def _panel(panel: Axes, here: pd.DataFrame, line: pd.DataFrame, lengths: list[int], bins: int) -> AxesImage:
    """One scheme: cells with their number, or the status of a length that has none."""
    middles = (np.arange(bins) + 0.5) / bins
    grid = here.pivot(index="eval_len", columns="depth", values="estimate")
    values = grid.reindex(index=lengths, columns=middles).to_numpy(dtype=float)
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
