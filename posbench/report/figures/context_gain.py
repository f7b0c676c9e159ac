"""Gain of context beyond the training length."""

from typing import Any

import pandas as pd

from posbench.report.figures import Drawing
from posbench.report.figures.canvas import GREY, captioned_subplots, signed_scale
from posbench.report.figures.figure_data import FigureData, MissingRowsError
from posbench.report.figures.length_lines import CROSS, draw_lines, end_label_width, has_cross
from posbench.report.tables.captions import caption
from posbench.report.tables.context_gain import NOTE, context_gain_metric, context_gains
from posbench.report.tables.metrics import get_metric

LINEAR = 0.1  # the axis is logarithmic beyond this gain, so that large losses do not hide small gains


def draw(
    data: FigureData,
    *,
    title: str = "Gain of context beyond the training length",
    metric: str = "bits_per_byte",
    scheme: str = "",
) -> Drawing:
    """Draws gains of the plain schemes and, in a second panel, of one `scheme` with its extensions."""
    what = get_metric(metric)
    chosen: list[dict[str, Any]] = [{"extension": "none"}, *([{"scheme": scheme}] if scheme else [])]
    sides, described = [], []
    for one in chosen:
        rows = data.select(what.tasks[0], of=what, protocol="fixed_targets", **one)
        shown = context_gains(rows, what)
        # The gain of the training length over itself is 0 by definition: it is drawn, but not described in the caption.
        gains = shown[shown["eval_len"] != rows["train_len"].iat[0]]
        if gains["estimate"].isna().all():
            raise MissingRowsError("no gain of context: evaluate the training length and at least one other")
        sides.append((rows, shown, context_gain_metric(what)))
        described.append((rows, gains, context_gain_metric(what)))
    ends = [CROSS] if any(has_cross(shown) for _, shown, _ in sides) else []
    figure, axes = captioned_subplots(
        title,
        caption(described, NOTE, f"The axis is {signed_scale(LINEAR)}.", *ends),
        panel=(3.8, 3.6),
        columns=len(sides),
        gap=(end_label_width(data, sides[0][1]) + 0.65, 0.5),
        right=end_label_width(data, sides[-1][1]),
    )
    for panel, (rows, shown, gain) in zip(axes[0], sides, strict=True):
        draw_lines(panel, data, shown, gain, int(rows["train_len"].iat[0]), linear=LINEAR)
        panel.axhline(0, color=GREY, linewidth=1, zorder=1)
    return figure, pd.concat([shown for _, shown, _ in sides]).drop_duplicates()
