"""The loss of tokens by their position in the document: where a scheme begins to fail."""

from posbench.figures import Drawing
from posbench.figures.canvas import page
from posbench.figures.lines import CROSS, draw_lines, room_for_labels
from posbench.figures.source import Source
from posbench.tables.captions import caption
from posbench.tables.measures import measure_named
from posbench.tables.selection import longest
from posbench.tables.summary import summarise


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
