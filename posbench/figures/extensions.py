"""Extensions of one scheme: the loss beside retrieval, because the two disagree."""

import pandas as pd

from posbench.errors import ConfigError
from posbench.figures import Drawing
from posbench.figures.canvas import page
from posbench.figures.lines import draw_lines
from posbench.figures.source import Source
from posbench.tables.captions import caption
from posbench.tables.measures import measure_named
from posbench.tables.selection import at_lengths
from posbench.tables.summary import baselines, summarise


def draw(
    source: Source,
    *,
    scheme: str,
    title: str = "",
    protocol: str = "fixed_targets",
    measure: str = "bits_per_byte",
    retrieval: str = "exact_match",
) -> Drawing:
    sides = []
    for name, task_protocol in ((measure, protocol), (retrieval, None)):
        what = measure_named(name)
        rows = source.pick(what.task, protocol=task_protocol, scheme=scheme)
        sides.append((rows, summarise(at_lengths(rows), what, within_seed=False), what))
    if all(set(shown["extension"]) == {"none"} for _, shown, _ in sides):
        raise ConfigError(f"no rows with extensions of {scheme}: evaluate some first")
    figure, axes = page(
        title or f"Extending {scheme} past its training length: loss beside retrieval",
        caption(sides),
        panel=(3.3, 3.4),
        columns=2,
        gap=(2.0, 0.5),
        right=1.45,
    )
    for panel, (rows, shown, what) in zip(axes[0], sides, strict=True):
        guesses = baselines(rows) if what.name == "exact_match" else None
        draw_lines(panel, source, shown, what, int(rows["train_len"].iat[0]), guesses=guesses)
    return figure, pd.concat([shown.assign(measure=what.name) for _, shown, what in sides])
