"""Distances of keys in buckets of doubling width: the axis, and the values of uniform attention."""

import numpy as np
from matplotlib.axes import Axes

from posbench.report.figures.canvas import GREY
from posbench.report.tables.metrics import Metric

# Only meaningful by position (bucket), so it is not in METRICS, whose members have tables.
DISTANCE = Metric(
    "attention_at_distance",
    ("attention",),
    "attention_at_distance",
    "attention by distance",
    None,
    is_fraction=True,
)
BUCKETS = "Each point sums the keys from its distance up to the next; 0 is the query token itself."


def distance_axis(panel: Axes, longest: int) -> None:
    """Labels x, the log2 of the ends 1, 2, 4, ... of buckets, with the first distance of each bucket."""
    last = int(np.ceil(np.log2(longest)))
    ticks = range(0, last + 1, 1 if last < 6 else 2)
    panel.set_xticks(ticks, [f"{2**tick // 2}" for tick in ticks])
    panel.set(xlim=(-0.3, last + 0.3), xlabel="distance to the key (tokens)")


def uniform(panel: Axes, length: int) -> None:
    """Draws the sum of each bucket for uniform attention over all tokens of a context."""
    ends = 2.0 ** np.arange(int(np.ceil(np.log2(length))) + 1)
    shares = np.diff(np.minimum(ends, length), prepend=0) / length
    panel.plot(np.log2(ends), shares, color=GREY, linestyle=":", linewidth=1.2)
