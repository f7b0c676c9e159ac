"""Overview of many schemes: loss, retrieval and effective length, a row per scheme, best schemes first."""

import itertools
from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from posbench.config.lengths import tokens_at
from posbench.report.figures import Drawing
from posbench.report.figures.canvas import (
    BASELINE_STYLES,
    GREY,
    captioned_subplots,
    label_width,
    log_ticks,
    mean_label,
    over_seeds,
)
from posbench.report.figures.effective_length import BEYOND, draw_lengths
from posbench.report.figures.figure_data import FigureData, MissingRowsError
from posbench.report.tables.caption_text import capital
from posbench.report.tables.captions import caption
from posbench.report.tables.effective_length import (
    LOSS,
    NOTE,
    SHARES,
    effective_lengths,
)
from posbench.report.tables.metrics import METRICS, Metric, get_metric, nats_per_token
from posbench.report.tables.pairwise_tests import pairwise_tests
from posbench.report.tables.ranking import NOTE as NOTE_OF_GROUPS
from posbench.report.tables.ranking import not_ranked, ranking
from posbench.report.tables.selection import SERIES_COLUMNS, expand_prefix_lengths, series_label
from posbench.report.tables.summary import aggregate, baseline_values
from posbench.results.gate import GATE_METRICS, MIN_ACCURACY

ROW_INCHES = 0.17
MARKS = ["o", "D", "s", "^", "v"]


def draw(
    data: FigureData,
    *,
    title: str = "All schemes at the training length and beyond",
    protocol: str | None = "fixed_targets",
    metric: str = "bits_per_byte",
    task: str | None = None,
    retrieval_metric: str = "exact_match",
    retrieval_task: str = "key_value",
    retrieval_protocol: str | None = None,
    length_multiples: Sequence[float] = (1, 4, 16),
    extension: str | None = "none",
    effective_length: bool = True,
) -> Drawing:
    """Draws a loss and a retrieval accuracy at some multiples of the training length, and effective lengths.

    Args:
        metric: of the first panel, by which series are ranked; of `task`, by default the first task that has it.
    """
    sides, lengths = [], []
    loss, found = get_metric(metric, task), get_metric(retrieval_metric, retrieval_task)
    for what, of_task, task_protocol in (
        (loss, task or loss.tasks[0], protocol),
        (found, retrieval_task, retrieval_protocol),
    ):
        rows = data.select(of_task, of=what, protocol=task_protocol, extension=extension)
        shown = aggregate(expand_prefix_lengths(rows), what)
        shown = shown[shown["eval_len"].isin(_wanted(rows, length_multiples))]
        if shown.empty:
            raise MissingRowsError(
                f"no numbers of task {of_task} at {', '.join(f'{one:g}' for one in length_multiples)} times the training "
                "length: evaluate one, or change length_multiples"
            )
        sides.append((rows, shown, what))
        if effective_length and (what is found or task_protocol == "fixed_targets"):
            of, thresholds = (what, SHARES) if what is found else (nats_per_token(what), LOSS)
            lengths += [effective_lengths(rows, of, one).assign(metric=of.name) for one in thresholds]
    lengths = [one for one in lengths if one["estimate"].notna().any()]
    rows, shown, what = sides[0]
    names = ranked(shown, what)
    # Series that only retrieval was measured for are below the others.
    names = [*(name for name in ranked(sides[1][1], found) if name not in names), *names]
    far = int(shown["eval_len"].max())
    at_far = expand_prefix_lengths(rows).query("eval_len == @far")
    groups = ranking(shown, pairwise_tests(at_far, what), what, far)
    baselines = baseline_values(sides[1][0], found.baselines)
    marks = [mean_label(str(name), column) for name, column in baselines.items()]
    notes = [
        *([f"Vertical lines: {', '.join(marks)}."] if marks else []),
        "No mark: not measured, or no value.",
        f"Dotted lines: groups by the {what.label} at {far} tokens. {NOTE_OF_GROUPS}" if len(groups) else "",
        not_ranked(shown, groups, far) if len(groups) else "",
        *([NOTE, BEYOND] if lengths else []),
    ]
    drawn = f"lines at the longest context{' and of effective lengths' * bool(lengths)}"
    figure, axes = captioned_subplots(
        title,
        caption(sides, *notes, intervals=drawn),
        panel=(3.4, ROW_INCHES * len(names) + 0.1),
        columns=3 if lengths else 2,
        gap=(1.0 if lengths else 0.3, 0.5),  # the legend of the accuracy extends into it
        left=label_width(names),
        right=0.9,
        top=0.9,  # titles of panels stand above the legends
    )
    for panel, heading in zip(
        axes[0], [capital(sides[0][2].label), capital(found.label), "Effective length"], strict=False
    ):
        panel.set_title(heading, pad=18)
    for panel, (rows, shown, what) in zip(axes[0], sides, strict=False):
        _panel(panel, shown, what, names, _wanted(rows, length_multiples))
    group_of = groups.set_index("label")["group"]
    in_groups = [(row, group_of[name]) for row, name in enumerate(names) if name in group_of]
    for (row, below), (next_row, above) in itertools.pairwise(in_groups):
        if below != above:
            axes[0, 0].axhline((row + next_row) / 2, color=GREY, linestyle=":", linewidth=0.6, zorder=0)
    train_len = int(sides[0][0]["train_len"].iat[0])
    _reference_lines(axes[0, 1], baselines.mean().to_dict(), found)
    axes[0, 0].set_yticks(range(len(names)), names)
    axes[0, 1].set_yticks(range(len(names)), [""] * len(names))
    if lengths:
        draw_lengths(axes[0, 2], pd.concat(lengths), names, train_len)
        axes[0, 2].set_yticks(range(len(names)), [""] * len(names))
    handles = axes[0, 0].get_legend_handles_labels()[0]
    texts = [f"{tokens_at(multiple, train_len):g} tokens, {multiple:g}×" for multiple in length_multiples]
    position = {"loc": "lower left", "bbox_to_anchor": (0, 1), "ncols": len(length_multiples)}
    axes[0, 0].legend(handles, texts, **position, borderpad=0, handletextpad=0.2)
    ranks = groups[[*SERIES_COLUMNS, "eval_len", "first_rank", "last_rank", "group"]]
    numbers = [shown.assign(metric=what.name) for _, shown, what in sides]
    numbers[0] = numbers[0].merge(ranks, on=[*SERIES_COLUMNS, "eval_len"], how="left")
    return figure, pd.concat([*numbers, *(one.assign(metric="effective_length") for one in lengths)])


def _wanted(rows: pd.DataFrame, length_multiples: Sequence[float]) -> list[float]:
    return [tokens_at(multiple, int(rows["train_len"].iat[0])) for multiple in length_multiples]


def ranked(shown: pd.DataFrame, what: Metric) -> list[str]:
    """Returns the labels of all series from the worst to the best, as the y axis counts upwards.

    They are ranked by their value at the longest length, and by shorter ones where it is equal or missing; series
    without one come first.
    """
    sign = 1 if what.lower_is_better else -1
    values = shown.pivot(index=SERIES_COLUMNS, columns="eval_len", values="estimate").mul(sign).fillna(np.inf)
    order = values.sort_values(list(values.columns[::-1]), ascending=False, kind="stable").index
    return [series_label(*series) for series in order]


def _panel(panel: Axes, shown: pd.DataFrame, what: Metric, names: list[str], lengths: list[float]) -> None:
    # Colours are those of all lengths, so that a length has the same colour in both panels.
    colours = matplotlib.colormaps["cividis"](np.linspace(0, 0.85, max(2, len(lengths))))
    row_of = {name: row for row, name in enumerate(names)}
    for name, line in shown.groupby(SERIES_COLUMNS):
        found = line["estimate"].dropna()
        if len(found) > 1:
            panel.hlines(row_of[series_label(*name)], found.min(), found.max(), color="#bbbbbb", linewidth=1)
    for length, colour, mark in zip(lengths, colours, itertools.cycle(MARKS), strict=False):
        here = shown[shown["eval_len"] == length]
        rows = [
            row_of[series_label(*pair)] for pair in here[SERIES_COLUMNS].itertuples(index=False, name=None)
        ]
        panel.scatter(here["estimate"], rows, color=colour, marker=mark, s=22, zorder=3, label=f"{length:g}")
        if length == shown["eval_len"].max():
            ends = here[["low", "high"]].where(over_seeds(here)).astype(float)
            panel.hlines(rows, ends["low"], ends["high"], color=colour, linewidth=1.6, zorder=2)
    panel.set_ylim(-0.7, len(names) - 0.3)
    panel.set_xlabel(what.label)
    panel.tick_params(axis="y", length=0)
    low, high = shown["estimate"].min(), shown["estimate"].max()
    if what.is_fraction:
        panel.set_xlim(-0.02, 1.02)
    elif low > 0 and high / low > 4:
        panel.set_xlabel(f"{what.label} (log scale)")
        panel.set_xscale("log")
        log_ticks(panel.xaxis, *panel.get_xlim())


def _reference_lines(panel: Axes, baselines: Mapping[str, float], what: Metric) -> None:
    """Draws grey lines at the baselines (means over lengths) and at the gate."""
    lines: list[tuple[str, float, str]] = [
        (METRICS[name].label, value, BASELINE_STYLES[name]) for name, value in baselines.items()
    ]
    if what.name in GATE_METRICS:
        lines.append(("gate (training length)", MIN_ACCURACY, "-."))
    for name, value, style in lines:
        panel.axvline(value, color=GREY, linestyle=style, linewidth=1.2, zorder=1, label=name)
    handles = [line for line in panel.get_lines() if line.get_label() in [name for name, *_ in lines]]
    panel.legend(
        handles=handles,
        loc="lower left",
        bbox_to_anchor=(0.08, 1),  # beside the legend of the lengths, which extends into this panel
        ncols=3,
        borderpad=0,
        fontsize=7,
        handlelength=1.6,
        columnspacing=0.9,
    )
