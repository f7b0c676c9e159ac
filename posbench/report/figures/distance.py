"""Distances of keys in buckets that double: their axis, and what even attention would be there."""

import numpy as np
from matplotlib.axes import Axes

from posbench.report.figures.canvas import GREY
from posbench.report.tables.metrics import Metric

# Of one bucket: a number only in a summary by position, so that no table is made of it.
DISTANCE = Metric(
    "attention_at_distance",
    ("attention",),
    "attention_at_distance",
    "attention by distance",
    None,
    is_fraction=True,
)
BUCKETS = "Distances are in buckets: a point is all keys from its distance up to the next power of two, 0 the token itself."


def distance_axis(panel: Axes, longest: int) -> None:
    """Places log2(end) of buckets that end at 1, 2, 4 and so on, named by their first distance."""
    last = int(np.ceil(np.log2(longest)))
    ticks = range(0, last + 1, 1 if last < 6 else 2)
    panel.set_xticks(ticks, [f"{2**tick // 2}" for tick in ticks])
    panel.set(xlim=(-0.3, last + 0.3), xlabel="distance of the key (tokens, from)")


def evenly(panel: Axes, length: int) -> None:
    """The share of each bucket if all tokens of a context were attended to alike."""
    ends = 2.0 ** np.arange(int(np.ceil(np.log2(length))) + 1)
    shares = np.diff(np.minimum(ends, length), prepend=0) / length
    panel.plot(np.log2(ends), shares, color=GREY, linestyle=":", linewidth=1.2)
