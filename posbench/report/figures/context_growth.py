"""A loss against the length of the context: what happens past the training length."""

from posbench.report.figures import Drawing
from posbench.report.figures.canvas import page
from posbench.report.figures.lines import CROSS, draw_lines, drawn_bands, room_for_labels
from posbench.report.figures.source import Source
from posbench.report.tables.captions import caption
from posbench.report.tables.measures import measure_named
from posbench.report.tables.selection import at_lengths
from posbench.report.tables.summary import baselines, summarise


def draw(
    source: Source,
    *,
    title: str = "What happens past the training length",
    task: str | None = None,
    protocol: str | None = "fixed_targets",
    measure: str = "bits_per_byte",
    variant: str | None = None,
) -> Drawing:
    what = measure_named(measure, task)
    rows = source.pick(
        what.tasks[0] if task is None else task, protocol=protocol, variant=variant, extension="none"
    )
    shown = summarise(at_lengths(rows), what)
    guesses = baselines(rows, what.guesses)
    ends = [CROSS] if shown["estimate"].isna().any() else []
    figure, axes = page(
        title,
        caption([(rows, shown, what)], *ends, intervals=drawn_bands(shown)),
        panel=(5.2, 3.6),
        right=room_for_labels(source, shown, guesses),
    )
    draw_lines(axes[0, 0], source, shown, what, int(rows["train_len"].iat[0]), guesses=guesses)
    return figure, shown
