"""The gain of context over the training length's: does more of it help, or harm?"""

import pandas as pd

from posbench.report.figures import Drawing
from posbench.report.figures.canvas import GREY, page
from posbench.report.figures.lines import CROSS, draw_lines, room_for_labels
from posbench.report.figures.source import Source
from posbench.report.tables.captions import caption
from posbench.report.tables.gain import NOTE, gain_of, gains
from posbench.report.tables.measures import measure_named

LINEAR = 0.1  # below this gain the axis is linear, beyond it logarithmic: one collapse hides no small gain


def draw(
    source: Source,
    *,
    title: str = "What context past the training length gives",
    measure: str = "bits_per_byte",
    scheme: str = "",
) -> Drawing:
    """The plain schemes, and beside them one `scheme` with its extensions, each line with its paired interval."""
    what = measure_named(measure)
    chosen = [{"extension": "none"}, *([{"scheme": scheme}] if scheme else [])]
    sides = []
    for one in chosen:
        rows = source.pick(what.tasks[0], protocol="fixed_targets", **one)
        sides.append((rows, gains(rows, what), gain_of(what)))
    ends = [CROSS] if any(shown["estimate"].isna().any() for _, shown, _ in sides) else []
    figure, axes = page(
        title,
        caption(sides, NOTE, *ends),
        panel=(3.8, 3.6),
        columns=len(sides),
        gap=(room_for_labels(source, sides[0][1]) + 0.65, 0.5),
        right=room_for_labels(source, sides[-1][1]),
    )
    for panel, (rows, shown, gain) in zip(axes[0], sides, strict=True):
        draw_lines(panel, source, shown, gain, int(rows["train_len"].iat[0]), bands=True, linear=LINEAR)
        panel.axhline(0, color=GREY, linewidth=1, zorder=1)
    return figure, pd.concat([shown for _, shown, _ in sides]).drop_duplicates()
