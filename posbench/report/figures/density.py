"""Metrics of several tasks by the factor by which an extension compresses positions, with the best factors marked."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from posbench.errors import ConfigError
from posbench.report.figures import Drawing
from posbench.report.figures.canvas import (
    BASELINE_STYLES,
    GREY,
    band,
    captioned_subplots,
    fixed_ticks,
    label_width,
    mean_label,
    value_axis,
)
from posbench.report.figures.figure_data import FigureData, MissingRowsError
from posbench.report.figures.line_styles import LineStyle
from posbench.report.figures.panels import side
from posbench.report.tables.captions import caption
from posbench.report.tables.formatting import multiple_of
from posbench.report.tables.metrics import Metric
from posbench.report.tables.summary import baseline_values


def draw(
    data: FigureData,
    *,
    title: str,
    panels: Sequence[Mapping[str, Any]],
    scheme: str,
    factors: Mapping[str, float],
    note: str = "",
) -> Drawing:
    """Draws a panel per task and a line per context length, by the factor k; stars mark the best k of each line.

    Args:
        panels: as in figures.panels.
        factors: k by name of the extension.
        note: sentence in the caption.

    Raises:
        ConfigError: there are fewer than two factors.
    """
    if len(factors) < 2:
        raise ConfigError(f"factors has {len(factors)} entries: give the k of two extensions or more")
    sides = [chosen(data, panel, scheme, factors) for panel in panels]
    train_len = int(sides[0][0]["train_len"].iat[0])
    lengths = sorted({length for _, shown, _ in sides for length in shown["eval_len"]})
    line_styles = {length: LineStyle.from_index(i, str(length)) for i, length in enumerate(lengths)}
    handles = [
        Line2D([], [], **style.plot_kwargs, label=f"{length} tokens ({multiple_of(length, train_len)})")
        for length, style in line_styles.items()
    ]
    handles.append(Line2D([], [], color=GREY, marker="*", markersize=12, linestyle="", label="best k"))
    baselines = [baseline_values(rows, what.baselines) for rows, _, what in sides]
    labels = {
        str(name): mean_label(str(name), column) for values in baselines for name, column in values.items()
    }
    handles += [
        Line2D([], [], color=GREY, linestyle=BASELINE_STYLES[name], linewidth=1.2, label=label)
        for name, label in labels.items()
    ]
    figure, axes = captioned_subplots(
        title,
        caption(
            sides,
            *([note] if note else []),
            _stars(sides, panels),
        ),
        panel=(2.6, 2.9),
        columns=len(panels),
        gap=(0.75, 0.5),
        right=0.3 + label_width(str(handle.get_label()) for handle in handles),
    )
    for one, panel, (_, shown, what), values in zip(axes[0], panels, sides, baselines, strict=True):
        lines(one, shown, what, line_styles)
        for baseline, column in values.items():
            one.axhline(column.mean(), color=GREY, linestyle=BASELINE_STYLES[str(baseline)], linewidth=1.2)
        one.set_title(panel.get("title", what.label))
    axes[0, -1].legend(handles=handles, loc="center left", bbox_to_anchor=(1.05, 0.5))
    names = ("task", "protocol", "variant")
    return figure, pd.concat(
        [
            shown.assign(metric=what.name, **{name: str(rows[name].iat[0]) for name in names})
            for rows, shown, what in sides
        ]
    )


def _stars(
    sides: Sequence[tuple[pd.DataFrame, pd.DataFrame, Metric]], panels: Sequence[Mapping[str, Any]]
) -> str:
    """Returns the sentence about the stars, with the factors that are not compared at every length."""
    lacking = []
    for (_, shown, what), panel in zip(sides, panels, strict=True):
        without = sorted(shown.loc[shown["estimate"].isna(), "factor"].unique())
        if without:
            title = panel.get("title", what.label)
            lacking.append(f"{title} lacks values for k = {', '.join(f'{factor:g}' for factor in without)}")
    among = f", among those with a value there; {'; '.join(lacking)}" if lacking else ""
    return f"Stars mark the best k of each context length{among}."


def chosen(
    data: FigureData, panel: Mapping[str, Any], scheme: str, factors: Mapping[str, float]
) -> tuple[pd.DataFrame, pd.DataFrame, Metric]:
    """Returns the rows of extensions with a factor, their summary with columns `factor` and `best`, and the metric."""
    rows, shown, what = side(data, panel, scheme, None)
    rows = rows[rows["extension"].isin(list(factors))]
    shown = shown[shown["extension"].isin(list(factors))]
    if shown["estimate"].isna().all():
        raise MissingRowsError(
            f"no numbers of {what.label} with any of the extensions {', '.join(factors)}: evaluate some, or leave the figure out"
        )
    shown = shown.assign(factor=shown["extension"].astype(str).map(dict(factors)).astype(float))
    per_length = shown.groupby("eval_len")["estimate"]
    best = per_length.transform("min" if what.lower_is_better else "max")
    return rows, shown.assign(best=shown["estimate"] == best).sort_values(["eval_len", "factor"]), what


def lines(axes: Axes, shown: pd.DataFrame, what: Metric, line_styles: Mapping[int, LineStyle]) -> None:
    """Draws a line per context length, with bands over seeds."""
    value_axis(axes, shown["estimate"].dropna().tolist(), what.label, what.is_fraction)
    for length, line in shown.groupby("eval_len"):
        style = line_styles[length]
        axes.plot(line["factor"], line["estimate"], **style.plot_kwargs, zorder=3)
        band(axes, line["factor"], line, style.colour)
        star = line[line["best"]].iloc[:1]
        axes.plot(star["factor"], star["estimate"], "*", color=style.colour, markersize=14, zorder=4)
    axes.set_xscale("log", base=2)
    fixed_ticks(axes.xaxis, sorted(shown["factor"].unique()))
    axes.set_xlabel("factor k by which positions are divided")
