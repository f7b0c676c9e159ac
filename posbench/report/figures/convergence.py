"""Loss beyond the training length against the length of the training: whether a break grows as a model is trained on."""

import pandas as pd
from matplotlib.axes import Axes

from posbench.config.lengths import tokens_at
from posbench.report.figures import Drawing
from posbench.report.figures.canvas import (
    GREY,
    EndLabel,
    band,
    captioned_subplots,
    end_labels,
    fixed_ticks,
    signed_scale,
    value_axis,
)
from posbench.report.figures.figure_data import FigureData, MissingRowsError
from posbench.report.figures.length_lines import end_label_width
from posbench.report.tables.captions import caption
from posbench.report.tables.context_gain import context_gains
from posbench.report.tables.metrics import get_metric, nats_per_token
from posbench.report.tables.summary import aggregate

LINEAR = 0.1  # the axis of differences is logarithmic beyond, so that one scheme that breaks does not hide the others


def draw(
    data: FigureData,
    *,
    title: str = "Increase of the loss beyond the training length as training goes on",
    length_multiple: float = 8,
    metric: str = "bits_per_byte",
    extension: str | None = "none",
) -> Drawing:
    """Draws the loss at some multiple of the training length minus that at it, and the latter, by training tokens.

    Raises:
        MissingRowsError: the rows have one number of training tokens, or not these lengths.
    """
    what = get_metric(metric)
    chosen = (data.rows["task"] == what.tasks[0]) & (data.rows["protocol"] == "fixed_targets")
    budgets = sorted(data.rows.loc[chosen, "train_tokens"].unique())
    if len(budgets) < 2:
        raise MissingRowsError(
            f"{len(budgets)} numbers of training tokens: train several, such as grid.train.steps=[250,1000]"
        )
    parts, differences, losses, missing = [], [], [], []
    for tokens in budgets:
        at = data.narrowed({"train_tokens": tokens}, data.mix_kernels)
        try:
            rows = at.select(what.tasks[0], of=what, protocol="fixed_targets", extension=extension)
        except MissingRowsError:  # all models of this training diverged
            missing.append(tokens)
            continue
        train_len = int(rows["train_len"].iat[0])
        gains, numbers = context_gains(rows, what), aggregate(rows, what)
        far = gains[gains["eval_len"] == tokens_at(length_multiple, train_len)]
        ends = {"estimate": -far["estimate"], "low": -far["high"], "high": -far["low"]}
        parts.append(rows)
        differences.append(far.assign(**ends, train_tokens=tokens))
        losses.append(numbers[numbers["eval_len"] == train_len].assign(train_tokens=tokens))
    shown = pd.concat(differences) if differences else pd.DataFrame()
    if shown.empty or shown["estimate"].isna().all():
        raise MissingRowsError(
            f"no numbers at {length_multiple:g} times the training length: evaluate it too"
        )
    heading = f"loss at {length_multiple:g}× minus loss at 1×"
    notes = [
        f"Left: {heading} of the same targets, paired by document, on an axis that is {signed_scale(LINEAR)}. "
        "Right: loss at the training length. Each point is a training of its own, with a "
        "learning rate schedule of its own."
    ]
    if missing:
        notes.append(f"No numbers after {', '.join(f'{one / 1e6:.3g}M' for one in missing)} tokens.")
    width = end_label_width(data, shown)
    figure, axes = captioned_subplots(
        title,
        caption([(pd.concat(parts), shown, what)], *notes),
        panel=(3.6, 3.4),
        columns=2,
        gap=(width + 0.65, 0.5),
        right=width,
    )
    home = pd.concat(losses)
    unit = (nats_per_token(what) if what.exponential else what).label
    _lines(axes[0, 0], data, shown, f"{heading} ({unit})", linear=LINEAR)
    _lines(axes[0, 1], data, home, f"{what.label} at the training length")
    return figure, pd.concat([shown.assign(panel="difference"), home.assign(panel="loss")])


def _lines(
    axes: Axes, data: FigureData, shown: pd.DataFrame, label: str, linear: float | None = None
) -> None:
    drawn = shown[shown["estimate"].notna()]
    value_axis(axes, drawn["estimate"].tolist(), label, linear=linear)
    if linear is not None:
        axes.axhline(0, color=GREY, linewidth=1, zorder=1)
    labels = []
    for style, line in data.series(drawn):
        tokens = line["train_tokens"].to_numpy(dtype=float)
        axes.plot(tokens, line["estimate"], **style.plot_kwargs, zorder=3)
        band(axes, tokens, line, style.colour)
        end = line.iloc[-1]
        text = f"{style.label}  {end['estimate']:z.2f}"
        labels.append(EndLabel(end["train_tokens"], end["estimate"], text, style.colour))
    axes.set_xscale("log", base=2)
    fixed_ticks(axes.xaxis, sorted(shown["train_tokens"].unique()), lambda tokens: f"{tokens / 1e6:.3g}")
    axes.set_xlabel("training tokens (millions)")
    end_labels(axes, labels)
