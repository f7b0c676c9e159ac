"""Retrieval by the position of the queried record ("lost in the middle"): a column per length, a row per variant."""

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from posbench.report.figures import Drawing
from posbench.report.figures.canvas import (
    BASELINE_STYLES,
    GREY,
    band,
    captioned_subplots,
    label_width,
)
from posbench.report.figures.depth import binned, bins_note
from posbench.report.figures.figure_data import FigureData
from posbench.report.tables.caption_text import DEPTH_AXIS_LABELS, variant_name
from posbench.report.tables.captions import caption
from posbench.report.tables.formatting import multiple_of
from posbench.report.tables.metrics import METRICS, Metric, get_metric
from posbench.report.tables.summary import aggregate, baseline_values
from posbench.results.gate import GATE_METRICS, MIN_ACCURACY

GATE_STYLE = (0, (6, 2, 1, 2))
RECIPROCAL_RANK = "Reciprocal rank: 1 over the rank of the answer among the values of the context."


def draw(
    data: FigureData,
    *,
    title: str = "Retrieval by the position of the record in the context",
    task: str = "key_value",
    metric: str = "exact_match",
    protocol: str | None = None,
    variant: str | Sequence[str] | None = None,
    extension: str | None = "none",
    bins: int = 8,
) -> Drawing:
    """Draws accuracy by depth, a panel per context length.

    Args:
        variant: a variant, or several such as ['', query_aware], with a row of panels each.
        extension: the extension of all lines; None draws all.
        bins: bins of depth.
    """
    what = get_metric(metric, task)
    variants = [variant] if variant is None or isinstance(variant, str) else list(variant)
    picked = [
        data.select(task, of=what, protocol=protocol, variant=name, extension=extension) for name in variants
    ]
    by_length = [aggregate(rows, what) for rows in picked]
    shown = [aggregate(binned(rows, bins), what, by=["eval_len", "depth"]) for rows in picked]
    baselines = [baseline_values(rows, what.baselines) for rows in picked]
    train_len = int(picked[0]["train_len"].iat[0])
    lengths = sorted({length for numbers in by_length for length in numbers["eval_len"]})
    names = list(dict.fromkeys(name for each in baselines for name in each))
    handles = _handles(data, pd.concat(by_length), names, what, train_len in lengths)
    notes = [bins_note(bins), *([RECIPROCAL_RANK] if metric == "reciprocal_rank" else [])]
    figure, axes = captioned_subplots(
        title,
        caption([(pd.concat(picked), pd.concat(by_length), what)], *notes),
        panel=(2.1, 2.8 if len(picked) == 1 else 2.0),
        columns=len(lengths),
        rows=len(picked),
        gap=(0.3, 0.75),
        right=0.35 + label_width(str(handle.get_label()) for handle in handles),
        share_axes=True,
    )
    for down, (name, numbers, grey) in enumerate(zip(variants, shown, baselines, strict=True)):
        for panel, length in zip(axes[down], lengths, strict=True):
            _panel(panel, data, numbers[numbers["eval_len"] == length], grey, length)
            if what.name in GATE_METRICS and length == train_len:
                panel.axhline(MIN_ACCURACY, color=GREY, linestyle=GATE_STYLE, linewidth=1, zorder=1)
            trained = " (training length)" if length == train_len else ""
            panel.set_title(f"{length} tokens, {multiple_of(length, train_len)}{trained}")
            panel.set_xticks([0, 0.5, 1], ["first", "middle", "last"])
        axes[down, 0].set_ylabel(
            what.label if len(picked) == 1 else f"{variant_name(str(name))}\n{what.label}"
        )
    for panel in axes[-1]:
        panel.set_xlabel(DEPTH_AXIS_LABELS.get(task, "queried record"))
    axes[0, 0].set_xlim(-0.03, 1.03)
    if what.is_fraction:
        axes[0, 0].set_ylim(0, 1)
    axes[0, -1].legend(
        handles=handles,
        loc="upper left" if len(picked) > 1 else "center left",
        bbox_to_anchor=(1.05, 1.0 if len(picked) > 1 else 0.5),
    )
    parts = [
        numbers.merge(grey.reset_index(), on="eval_len", how="left").assign(variant=rows["variant"].iat[0])
        for rows, numbers, grey in zip(picked, shown, baselines, strict=True)
    ]
    return figure, pd.concat(parts, ignore_index=True)


def _handles(
    data: FigureData, by_length: pd.DataFrame, baselines: Sequence[str], what: Metric, at_home: bool
) -> list[Line2D]:
    drawn = by_length[by_length["estimate"].notna()]
    handles = [Line2D([], [], **style.plot_kwargs, label=style.label) for style, _ in data.series(drawn)]
    handles += [
        Line2D([], [], color=GREY, linestyle=BASELINE_STYLES[name], label=METRICS[name].label)
        for name in baselines
    ]
    if what.name in GATE_METRICS and at_home:
        handles.append(
            Line2D([], [], color=GREY, linestyle=GATE_STYLE, linewidth=1, label="gate (training length)")
        )
    return handles


def _panel(panel: Axes, data: FigureData, here: pd.DataFrame, baselines: pd.DataFrame, length: int) -> None:
    for name, column in baselines.items():
        height = column.get(length, float("nan"))
        panel.axhline(height, color=GREY, linestyle=BASELINE_STYLES[str(name)], linewidth=1.2)
    for style, line in data.series(here[here["estimate"].notna()]):
        panel.plot(line["depth"], line["estimate"], **style.plot_kwargs, clip_on=False)
        band(panel, line["depth"], line, style.colour)
