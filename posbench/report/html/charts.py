"""Curves and heat maps of an experiment as Vega-Lite specifications, whose numbers are those of tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from posbench.report.figures.depth import binned
from posbench.report.figures.line_styles import LineStyle, assign_line_styles
from posbench.report.html import vega
from posbench.report.html.results import ExperimentResults
from posbench.report.tables.caption_text import DEPTH_AXIS_LABELS, capital, variant_name
from posbench.report.tables.captions import caption
from posbench.report.tables.formatting import format_interval, format_number, multiple_of
from posbench.report.tables.layout import BEST_IN_BOLD, COMPARED
from posbench.report.tables.markup import Table
from posbench.report.tables.metrics import Metric, get_metric
from posbench.report.tables.selection import (
    expand_prefix_lengths,
    longest,
    ordered_series,
    rows_of_metric,
    series_label,
)
from posbench.report.tables.summary import aggregate
from posbench.results.gate import GATE_METRICS

DRAWN = (*COMPARED, "longppl", "position_accuracy")  # metrics with a curve by length
BINS = 8  # of depth
MANY = 15  # largest number of series that are all drawn at first; of more, the best BEST are
BEST = 8


@dataclass(frozen=True)
class Chart:
    """A chart and the numbers that it draws.

    Attributes:
        data: name of the points, which charts may share.
        series: (label, colour, whether it is drawn at first) in the order of the legend.
        points: values of the specification, with `series`, `where` and `value` as texts for readers.
        spec: Vega-Lite without the data.
    """

    name: str
    title: str
    caption: str
    data: str
    series: Sequence[tuple[str, str, bool]]
    points: Sequence[Mapping[str, Any]]
    spec: Mapping[str, Any]


def charts(experiment: ExperimentResults) -> Iterator[Chart]:
    """Yields the charts of an experiment: by length, by position in the text, and by position of the answer."""
    styles = assign_line_styles(ordered_series(experiment.rows, experiment.order))
    for table in experiment.tables:
        if table.about["kind"] != "values" or table.about["metric"] not in DRAWN:
            continue
        metric = get_metric(table.about["metric"], table.about["task"])
        if table.numbers["eval_len"].nunique() > 1 and table.numbers["estimate"].notna().any():
            yield _by_length(table, metric, experiment, styles)
        if table.about["protocol"] == "prefix" and metric.name == "bits_per_byte":
            yield _by_position(table, metric, experiment, styles)
        if metric.name in GATE_METRICS:
            yield from _by_depth(table, metric, experiment, styles)


Styles = Mapping[tuple[str, str], LineStyle]


def _by_length(table: Table, metric: Metric, experiment: ExperimentResults, styles: Styles) -> Chart:
    variant = str(table.about["variant"])
    words = f", {variant_name(variant)}" if variant not in ("", "none") else ""
    protocol = str(table.about["protocol"]).replace("_", " ")
    numbers = table.numbers.assign(x=table.numbers["eval_len"])
    train_len = int(table.about["train_len"])
    return Chart(
        table.name,
        f"{capital(metric.label)} by context length ({protocol}{words})",
        f"{table.caption.replace(f'{BEST_IN_BOLD} ', '')} A missing point: no number, for the reason in the table.",
        table.name,
        _series(numbers, metric, experiment, styles),
        _points(numbers, lambda line: _tokens(line.eval_len, train_len)),
        vega.lines(metric, numbers, "context length (tokens)", train_len),
    )


def _by_position(table: Table, metric: Metric, experiment: ExperimentResults, styles: Styles) -> Chart:
    rows = experiment.rows_of(table.about)
    # A scheme that is undefined at the longest context has a line up to the longest at which it is defined.
    rows = longest(rows[rows["value_sum"].notna()])
    numbers = aggregate(rows, metric, by=["position"])
    numbers = numbers.assign(x=numbers["position"].astype(float))
    described = pd.concat([numbers, table.numbers[table.numbers["estimate"].isna()]])
    return Chart(
        f"{table.name}-position",
        f"{capital(metric.label)} by position in the document",
        f"{caption([(rows, described, metric)], intervals='intervals')} A point is the mean over the tokens between it and the "
        "previous point.",
        f"{table.name}-position",
        _series(numbers, metric, experiment, styles),
        _points(numbers, lambda line: f"up to token {int(line.position):,}"),
        vega.lines(metric, numbers, "position in the document (tokens)", int(table.about["train_len"])),
    )


def _by_depth(table: Table, metric: Metric, experiment: ExperimentResults, styles: Styles) -> Iterator[Chart]:
    rows = rows_of_metric(expand_prefix_lengths(experiment.rows_of(table.about)), metric)
    if rows.loc[rows["metric"] == metric.row_metric, "depth"].nunique() < 2:
        return
    numbers = aggregate(binned(rows, BINS), metric, by=["eval_len", "depth"])
    numbers = numbers[numbers["estimate"].notna()]
    if numbers.empty:
        return
    train_len = int(table.about["train_len"])
    axis = DEPTH_AXIS_LABELS.get(str(table.about["task"]), "queried record")
    words = caption([(rows, table.numbers, metric)], intervals="intervals")
    series = _series(numbers, metric, experiment, styles)
    points = _points(
        numbers.assign(x=numbers["depth"]),
        lambda line: f"{_tokens(line.eval_len, train_len)}, {axis} at {line.depth:.2f} of the context",
        lambda line: {"panel": _tokens(line.eval_len, train_len), "length": int(line.eval_len)},
    )
    variant = str(table.about["variant"])
    which = f" ({variant_name(variant)})" if variant else ""
    panels = [_tokens(length, train_len) for length in sorted(numbers["eval_len"].unique())]
    meaning = f"Depth: the place of the {axis}, 0 first, 1 last, in {BINS} bins."
    yield Chart(
        f"{table.name}-depth",
        f"{capital(metric.label)} by position of the {axis}{which}",
        f"{words} {meaning}",
        f"{table.name}-depth",
        series,
        points,
        vega.facets(metric, panels, axis),
    )
    yield Chart(
        f"{table.name}-heat",
        f"{capital(metric.label)} by context length and position, a map per series{which}",
        f"{words} {meaning} A missing row: no number at this length.",
        f"{table.name}-depth",
        series,
        points,
        vega.heat_maps(metric, panels, axis),
    )


def _tokens(length: int, train_len: int) -> str:
    return f"{length:,} tokens ({multiple_of(length, train_len)})"


def _series(
    numbers: pd.DataFrame, metric: Metric, experiment: ExperimentResults, styles: Styles
) -> list[tuple[str, str, bool]]:
    """Returns the series with numbers; of many, those are drawn at first that are best at the longest length."""
    drawn = numbers[numbers["estimate"].notna()]
    keys = ordered_series(drawn, experiment.order)
    length = "eval_len" if "eval_len" in drawn else "x"
    means = drawn[drawn[length] == drawn[length].max()].groupby(["scheme", "extension"], observed=True)
    ranked = means["estimate"].mean().sort_values(ascending=metric.lower_is_better is not False)
    first = set(keys) if len(keys) <= MANY else set(ranked.index[:BEST])
    return [(series_label(*key), styles[key].colour, key in first) for key in keys]


def _points(numbers: pd.DataFrame, where: Any, more: Any = lambda line: {}) -> list[dict[str, Any]]:
    found = []
    for line in numbers[numbers["estimate"].notna()].itertuples():
        over_seeds = "seeds" in line.interval_method  # as in figures; others hold for these trainings alone
        interval = {"low": _short(line.low), "high": _short(line.high)} if over_seeds else {}
        value = f"{format_number(line.estimate)} {format_interval(line.low, line.high)}".strip()
        point: dict[str, Any] = {"x": _short(line.x), "y": _short(line.estimate), **interval}
        point |= {"series": series_label(line.scheme, line.extension), "where": where(line), "value": value}
        found.append({**point, **more(line)})
    return found


def _short(value: float) -> float:
    return float(f"{value:.6g}")
