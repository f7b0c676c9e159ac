"""Loss of tokens by their position in the document."""

import pandas as pd

from posbench.report.figures import Drawing
from posbench.report.figures.canvas import captioned_subplots
from posbench.report.figures.figure_data import FigureData
from posbench.report.figures.length_lines import draw_lines, end_label_width, has_cross
from posbench.report.tables.captions import caption
from posbench.report.tables.metrics import get_metric
from posbench.report.tables.selection import longest
from posbench.report.tables.summary import aggregate


def draw(
    data: FigureData,
    *,
    title: str = "Loss by position in the document",
    metric: str = "bits_per_byte",
    extension: str | None = "none",
) -> Drawing:
    """Draws a loss by position, from the longest context of each series."""
    what = get_metric(metric)
    rows = data.select(what.tasks[0], protocol="prefix", extension=extension)
    by_length = aggregate(rows, what)
    # A scheme that is undefined at the longest context has a line up to the longest at which it is defined.
    rows = longest(rows[rows["value_sum"].notna()])
    shown = aggregate(rows, what, by=["position"])
    missing = by_length[by_length["estimate"].isna() & (by_length["status"] != "ok")]
    notes = [
        "A value is the mean over the tokens between its position and the one before; not every value has a marker."
    ]
    notes += ["Cross: no value, or not measured, at later positions."] if has_cross(shown) else []
    figure, axes = captioned_subplots(
        title,
        caption([(rows, pd.concat([shown, missing]), what)], *notes),
        panel=(5.2, 3.6),
        right=end_label_width(data, shown),
    )
    draw_lines(axes[0, 0], data, shown, what, int(rows["train_len"].iat[0]))
    return figure, shown
