"""The loss of tokens by their position in the document: where a scheme begins to fail."""

from posbench.report.figures import Drawing
from posbench.report.figures.canvas import page
from posbench.report.figures.lines import CROSS, draw_lines, room_for_labels
from posbench.report.figures.source import Source
from posbench.report.tables.captions import caption
from posbench.report.tables.measures import measure_named
from posbench.report.tables.selection import longest
from posbench.report.tables.summary import summarise


def draw(
    source: Source,
    *,
    title: str = "Loss by position in the document",
    measure: str = "bits_per_byte",
    extension: str | None = "none",
) -> Drawing:
    what = measure_named(measure)
    rows = longest(source.pick(what.tasks[0], protocol="prefix", extension=extension))
    shown = summarise(rows, what, by=["position"])
    notes = ["A point is the mean over the tokens since the point before."]
    notes += [CROSS] if shown["estimate"].isna().any() else []
    figure, axes = page(
        title, caption([(rows, shown, what)], *notes), panel=(5.2, 3.6), right=room_for_labels(source, shown)
    )
    draw_lines(axes[0, 0], source, shown, what, int(rows["train_len"].iat[0]), bands=True)
    return figure, shown
