"""Several measures against the context's length side by side: what one shows, another may not."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from posbench.errors import ConfigError, unknown
from posbench.report.figures import Drawing
from posbench.report.figures.canvas import page
from posbench.report.figures.lines import CROSS, draw_lines, drawn_bands, room_for_labels
from posbench.report.figures.source import MissingRowsError, Source
from posbench.report.tables.captions import caption
from posbench.report.tables.measures import Measure, measure_named
from posbench.report.tables.selection import at_lengths
from posbench.report.tables.summary import baselines, summarise

PANEL = ("task", "measure", "protocol", "variant", "scheme", "extension", "title")


def draw(
    source: Source,
    *,
    title: str,
    panels: Sequence[Mapping[str, Any]],
    scheme: str | None = None,
    extension: str | None = None,
    columns: int = 2,
    note: str = "",
) -> Drawing:
    """A panel for each entry of `panels`: task and measure, and where there are several, protocol and variant.

    `scheme` and `extension` choose the lines of all panels, or of one in its entry; None takes all.
    """
    sides = [side(source, panel, scheme, extension) for panel in panels]
    guesses = [baselines(rows, what.guesses) for rows, _, what in sides]
    labels = [
        room_for_labels(source, shown, guess) for (_, shown, _), guess in zip(sides, guesses, strict=True)
    ]
    ends = [CROSS] if any(shown["estimate"].isna().any() for _, shown, _ in sides) else []
    figure, axes = page(
        title,
        caption(sides, *([note] if note else []), *ends, intervals=drawn_bands(sides[0][1])),
        panel=(3.3, 3.2),
        columns=min(columns, len(panels)),
        rows=-(-len(panels) // columns),
        gap=(max(labels) + 0.55, 1.1),
        right=max(labels),
    )
    places = axes.flatten()
    for place, panel, (rows, shown, what), guess in zip(places, panels, sides, guesses, strict=False):
        draw_lines(place, source, shown, what, int(rows["train_len"].iat[0]), guesses=guess)
        place.set_title(panel.get("title", ""), pad=16)
    for place in places[len(panels) :]:
        place.set_axis_off()
    shown = [
        shown.assign(measure=what.name, variant=rows["variant"].iat[0]).astype({"variant": str})
        for rows, shown, what in sides
    ]
    return figure, pd.concat(shown)


def side(
    source: Source, panel: Mapping[str, Any], scheme: str | None, extension: str | None
) -> tuple[pd.DataFrame, pd.DataFrame, Measure]:
    """The rows of a panel, their summary, and the measure."""
    for key in panel:
        if key not in PANEL:
            raise unknown("setting of a panel", key, PANEL)
    if not {"task", "measure"} <= set(panel):
        raise ConfigError(f"a panel has {', '.join(panel)}: give it a task and a measure")
    what = measure_named(panel["measure"], panel["task"])
    wanted = {"scheme": scheme, "extension": extension, **panel}
    wanted = {key: wanted.get(key) for key in ("protocol", "variant", "scheme", "extension")}
    rows = source.pick(panel["task"], **wanted)
    shown = summarise(at_lengths(rows), what)
    if shown["estimate"].isna().all():
        raise MissingRowsError(f"no numbers of {what.name} of task {panel['task']}: evaluate them first")
    return rows, shown, what
