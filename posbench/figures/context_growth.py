"""A loss against the length of the context: what happens past the training length."""

from posbench.figures import Drawing
from posbench.figures.canvas import page
from posbench.figures.lines import CROSS, draw_lines, room_for_labels
from posbench.figures.source import Source
from posbench.tables.captions import caption
from posbench.tables.measures import measure_named
from posbench.tables.selection import at_lengths
from posbench.tables.summary import summarise


def draw(
    source: Source,
    *,
    title: str = "What happens past the training length",
    protocol: str = "fixed_targets",
    measure: str = "bits_per_byte",
    variant: str | None = None,
) -> Drawing:
    what = measure_named(measure)
    rows = source.pick(what.task, protocol=protocol, variant=variant, extension="none")
    shown = summarise(at_lengths(rows), what, within_seed=False)
    ends = [CROSS] if shown["estimate"].isna().any() else []
    figure, axes = page(
        title, caption([(rows, shown, what)], *ends), panel=(5.2, 3.6), right=room_for_labels(source, shown)
    )
    draw_lines(axes[0, 0], source, shown, what, int(rows["train_len"].iat[0]))
    return figure, shown
