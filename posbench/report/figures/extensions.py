"""Extensions of one scheme: loss and retrieval side by side, since they can disagree."""

import pandas as pd

from posbench.report.figures import Drawing
from posbench.report.figures.canvas import captioned_subplots
from posbench.report.figures.figure_data import FigureData, MissingRowsError
from posbench.report.figures.length_lines import CROSS, draw_lines, end_label_width, has_cross
from posbench.report.tables.captions import caption
from posbench.report.tables.metrics import get_metric
from posbench.report.tables.selection import expand_prefix_lengths
from posbench.report.tables.summary import aggregate, baseline_values


def draw(
    data: FigureData,
    *,
    scheme: str,
    title: str = "",
    protocol: str = "fixed_targets",
    metric: str = "bits_per_byte",
    retrieval_metric: str = "exact_match",
    retrieval_task: str = "key_value",
    retrieval_protocol: str | None = None,
) -> Drawing:
    """Draws a loss and a retrieval accuracy of a scheme and its extensions by context length.

    Raises:
        MissingRowsError: there are no rows with extensions.
    """
    loss, found = get_metric(metric), get_metric(retrieval_metric, retrieval_task)
    sides = []
    for what, task, task_protocol in (
        (loss, loss.tasks[0], protocol),
        (found, retrieval_task, retrieval_protocol),
    ):
        rows = data.select(task, of=what, protocol=task_protocol, scheme=scheme)
        sides.append((rows, aggregate(expand_prefix_lengths(rows), what), what))
    if all(set(shown["extension"]) == {"none"} for _, shown, _ in sides):
        raise MissingRowsError(f"no rows with extensions of {scheme}: evaluate some first")
    baselines = baseline_values(sides[1][0], found.baselines)
    ends = [CROSS] if any(has_cross(shown) for _, shown, _ in sides) else []
    figure, axes = captioned_subplots(
        title or f"Extensions of {scheme} beyond the training length: loss and retrieval",
        caption(sides, *ends),
        panel=(3.3, 3.4),
        columns=2,
        gap=(end_label_width(data, sides[0][1]) + 0.55, 0.5),
        right=end_label_width(data, sides[1][1], baselines),
    )
    for panel, (rows, shown, what), grey in zip(axes[0], sides, (None, baselines), strict=True):
        draw_lines(panel, data, shown, what, int(rows["train_len"].iat[0]), baselines=grey)
    return figure, pd.concat([shown.assign(metric=what.name) for _, shown, what in sides])
