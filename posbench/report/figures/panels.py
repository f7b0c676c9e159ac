"""Several metrics by context length, in panels side by side."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from posbench.errors import ConfigError, unknown
from posbench.report.figures import Drawing
from posbench.report.figures.canvas import captioned_subplots
from posbench.report.figures.figure_data import FigureData, MissingRowsError
from posbench.report.figures.length_lines import CROSS, draw_lines, end_label_width, has_cross
from posbench.report.tables.captions import caption
from posbench.report.tables.metrics import Metric, get_metric
from posbench.report.tables.selection import expand_prefix_lengths
from posbench.report.tables.summary import aggregate, baseline_values

PANEL_SETTINGS = ("task", "metric", "protocol", "variant", "scheme", "extension", "title")


def draw(
    data: FigureData,
    *,
    title: str,
    panels: Sequence[Mapping[str, Any]],
    scheme: str | None = None,
    extension: str | None = None,
    columns: int = 2,
    note: str = "",
) -> Drawing:
    """Draws a panel for each entry of `panels` that has rows.

    Args:
        panels: task and metric of each panel; optionally protocol, variant, scheme, extension and title.
        scheme: scheme of all panels without one; None draws all. Likewise `extension`.
        columns: panels per row.
        note: sentence in the caption.

    Raises:
        ConfigError: an entry has unknown settings, or no task or metric.
        MissingRowsError: no entry has rows.
    """
    drawn, sides, missing = [], [], []
    for panel in panels:
        try:
            sides.append(side(data, panel, scheme, extension))
            drawn.append(panel)
        except MissingRowsError as reason:
            missing.append(reason)
    if not sides:
        raise missing[0]
    baselines = [baseline_values(rows, what.baselines) for rows, _, what in sides]
    labels = [
        end_label_width(data, shown, baseline)
        for (_, shown, _), baseline in zip(sides, baselines, strict=True)
    ]
    ends = [CROSS] if any(has_cross(shown) for _, shown, _ in sides) else []
    figure, axes = captioned_subplots(
        title,
        caption(sides, *([note] if note else []), *ends),
        panel=(3.3, 3.2),
        columns=min(columns, len(drawn)),
        rows=-(-len(drawn) // columns),
        gap=(max(labels) + 0.55, 1.1),
        right=max(labels),
        top=0.85,  # titles of panels stand above the label of the training length
    )
    flat = axes.flatten()
    for one, panel, (rows, shown, what), baseline in zip(flat, drawn, sides, baselines, strict=False):
        draw_lines(one, data, shown, what, int(rows["train_len"].iat[0]), baselines=baseline)
        one.set_title(panel.get("title", ""), pad=16)
    for one in flat[len(drawn) :]:
        one.set_axis_off()
    shown = [
        shown.assign(
            metric=what.name, **{name: str(rows[name].iat[0]) for name in ("task", "protocol", "variant")}
        )
        for rows, shown, what in sides
    ]
    return figure, pd.concat(shown)


def side(
    data: FigureData, panel: Mapping[str, Any], scheme: str | None, extension: str | None
) -> tuple[pd.DataFrame, pd.DataFrame, Metric]:
    """Returns the rows of a panel, their summary and the metric.

    Raises:
        ConfigError: the panel has unknown settings, or no task or metric.
        MissingRowsError: there are no numbers.
    """
    for key in panel:
        if key not in PANEL_SETTINGS:
            raise unknown("setting of a panel", key, PANEL_SETTINGS)
    if not {"task", "metric"} <= set(panel):
        raise ConfigError(f"a panel has only {', '.join(panel)}: give it a task and a metric")
    what = get_metric(panel["metric"], panel["task"])
    wanted = {"scheme": scheme, "extension": extension, **panel}
    wanted = {key: wanted.get(key) for key in ("protocol", "variant", "scheme", "extension")}
    rows = data.select(panel["task"], of=what, **wanted)
    shown = aggregate(expand_prefix_lengths(rows), what)
    if shown["estimate"].isna().all():
        raise MissingRowsError(f"no numbers of {what.name} of task {panel['task']}: evaluate them first")
    return rows, shown, what
