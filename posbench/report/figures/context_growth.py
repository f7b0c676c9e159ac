"""Loss by context length, to the training length and beyond."""

from posbench.report.figures import Drawing
from posbench.report.figures.canvas import captioned_subplots
from posbench.report.figures.figure_data import FigureData
from posbench.report.figures.length_lines import CROSS, draw_lines, end_label_width, has_cross
from posbench.report.tables.captions import caption
from posbench.report.tables.metrics import get_metric
from posbench.report.tables.selection import expand_prefix_lengths
from posbench.report.tables.summary import aggregate, baseline_values


def draw(
    data: FigureData,
    *,
    title: str = "Loss beyond the training length",
    task: str | None = None,
    protocol: str | None = "fixed_targets",
    metric: str = "bits_per_byte",
    variant: str | None = None,
) -> Drawing:
    """Draws a metric of the plain schemes by context length."""
    what = get_metric(metric, task)
    rows = data.select(
        what.tasks[0] if task is None else task, of=what, protocol=protocol, variant=variant, extension="none"
    )
    shown = aggregate(expand_prefix_lengths(rows), what)
    baselines = baseline_values(rows, what.baselines)
    ends = [CROSS] if has_cross(shown) else []
    figure, axes = captioned_subplots(
        title,
        caption([(rows, shown, what)], *ends),
        panel=(5.2, 3.6),
        right=end_label_width(data, shown, baselines),
    )
    draw_lines(axes[0, 0], data, shown, what, int(rows["train_len"].iat[0]), baselines=baselines)
    return figure, shown
