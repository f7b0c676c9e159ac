"""Loss of tokens by their position in the document."""

from posbench.report.figures import Drawing
from posbench.report.figures.canvas import captioned_subplots, drawn_bands
from posbench.report.figures.figure_data import FigureData
from posbench.report.figures.length_lines import CROSS, draw_lines, end_label_width
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
    rows = longest(data.select(what.tasks[0], protocol="prefix", extension=extension))
    shown = aggregate(rows, what, by=["position"])
    notes = ["A point is the mean over the tokens between it and the previous point."]
    notes += [CROSS] if shown["estimate"].isna().any() else []
    figure, axes = captioned_subplots(
        title,
        caption([(rows, shown, what)], *notes, intervals=drawn_bands(shown)),
        panel=(5.2, 3.6),
        right=end_label_width(data, shown),
    )
    draw_lines(axes[0, 0], data, shown, what, int(rows["train_len"].iat[0]))
    return figure, shown
