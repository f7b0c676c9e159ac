"""Extensions of one scheme: the loss beside retrieval, because the two disagree."""

import pandas as pd

from posbench.report.figures import Drawing
from posbench.report.figures.canvas import page
from posbench.report.figures.lines import CROSS, draw_lines, drawn_bands, room_for_labels
from posbench.report.figures.source import MissingRowsError, Source
from posbench.report.tables.captions import caption
from posbench.report.tables.measures import measure_named
from posbench.report.tables.selection import at_lengths
from posbench.report.tables.summary import baselines, summarise


def draw(
    source: Source,
    *,
    scheme: str,
    title: str = "",
    protocol: str = "fixed_targets",
    measure: str = "bits_per_byte",
    retrieval: str = "exact_match",
    retrieval_task: str = "key_value",
    retrieval_protocol: str | None = None,
) -> Drawing:
    loss, found = measure_named(measure), measure_named(retrieval, retrieval_task)
    sides = []
    for what, task, task_protocol in (
        (loss, loss.tasks[0], protocol),
        (found, retrieval_task, retrieval_protocol),
    ):
        rows = source.pick(task, protocol=task_protocol, scheme=scheme)
        sides.append((rows, summarise(at_lengths(rows), what), what))
    if all(set(shown["extension"]) == {"none"} for _, shown, _ in sides):
        raise MissingRowsError(f"no rows with extensions of {scheme}: evaluate some first")
    guesses = baselines(sides[1][0], found.guesses)
    ends = [CROSS] if any(shown["estimate"].isna().any() for _, shown, _ in sides) else []
    figure, axes = page(
        title or f"Extending {scheme} past its training length: loss beside retrieval",
        caption(sides, *ends, intervals=drawn_bands(sides[0][1])),
        panel=(3.3, 3.4),
        columns=2,
        gap=(room_for_labels(source, sides[0][1]) + 0.55, 0.5),
        right=room_for_labels(source, sides[1][1], guesses),
    )
    for panel, (rows, shown, what), grey in zip(axes[0], sides, (None, guesses), strict=True):
        draw_lines(panel, source, shown, what, int(rows["train_len"].iat[0]), guesses=grey)
    return figure, pd.concat([shown.assign(measure=what.name) for _, shown, what in sides])
