"""Curves and heat maps of an experiment as Vega-Lite specifications, whose numbers are those of tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from posbench.report.figures.depth import binned
from posbench.report.figures.line_styles import LineStyle, assign_line_styles
from posbench.report.html.results import ExperimentResults
from posbench.report.tables.caption_text import DEPTH_AXIS_LABELS, capital, variant_name
from posbench.report.tables.captions import caption
from posbench.report.tables.formatting import format_interval, format_number
from posbench.report.tables.layout import COMPARED
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
        table.caption,
        table.name,
        _series(numbers, metric, experiment, styles),
        _points(numbers, lambda line: _tokens(line.eval_len, train_len)),
        _lines(metric, numbers, "context length (tokens)", train_len),
    )


def _by_position(table: Table, metric: Metric, experiment: ExperimentResults, styles: Styles) -> Chart:
    rows = longest(experiment.rows_of(table.about))
    numbers = aggregate(rows, metric, by=["position"])
    numbers = numbers.assign(x=numbers["position"].astype(float))
    return Chart(
        f"{table.name}-position",
        f"{capital(metric.label)} by position in the document",
        f"{caption([(rows, numbers, metric)], notes=False)} A point is the mean over the tokens between it and the "
        "previous point.",
        f"{table.name}-position",
        _series(numbers, metric, experiment, styles),
        _points(numbers, lambda line: f"up to token {int(line.position):,}"),
        _lines(metric, numbers, "position in the document (tokens)", int(table.about["train_len"])),
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
    words = caption([(rows, table.numbers, metric)], intervals="bands", notes=False)
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
        _facets(metric, panels, axis),
    )
    yield Chart(
        f"{table.name}-heat",
        f"{capital(metric.label)} by context length and position, a map per series{which}",
        f"{words} {meaning} A missing row: no number at this length.",
        f"{table.name}-depth",
        series,
        points,
        _heat_maps(metric, panels, axis),
    )


def _tokens(length: int, train_len: int) -> str:
    return f"{length:,} tokens ({length / train_len:g}×)"


def _series(
    numbers: pd.DataFrame, metric: Metric, experiment: ExperimentResults, styles: Styles
) -> list[tuple[str, str, bool]]:
    """Returns the series with numbers; of many, those are drawn at first that are best at the longest length."""
    drawn = numbers[numbers["estimate"].notna()]
    keys = ordered_series(drawn, experiment.order)
    length = "eval_len" if "eval_len" in drawn else "x"
    means = drawn[drawn[length] == drawn[length].max()].groupby(["scheme", "extension"], observed=True)
    ranked = means["estimate"].mean().sort_values(ascending=bool(metric.lower_is_better))
    first = set(keys) if len(keys) <= MANY else set(ranked.index[:BEST])
    return [(series_label(*key), styles[key].colour, key in first) for key in keys]


def _points(numbers: pd.DataFrame, where: Any, more: Any = lambda line: {}) -> list[dict[str, Any]]:
    found = []
    for line in numbers[numbers["estimate"].notna()].itertuples():
        interval = {} if pd.isna(line.low) else {"low": _short(line.low), "high": _short(line.high)}
        value = f"{format_number(line.estimate)} {format_interval(line.low, line.high)}".strip()
        point: dict[str, Any] = {"x": _short(line.x), "y": _short(line.estimate), **interval}
        point |= {"series": series_label(line.scheme, line.extension), "where": where(line), "value": value}
        found.append({**point, **more(line)})
    return found


def _short(value: float) -> float:
    return float(f"{value:.6g}")


_TOOLTIP = [
    {"field": "series", "title": "series"},
    {"field": "where", "title": "at"},
    {"field": "value", "title": "value"},
]
# `shown` has the series of the legend that are chosen; `focus`, the series and place of the point under the keyboard.
_PARAMS = [{"name": "shown", "value": []}, {"name": "focus", "value": {"series": "", "where": ""}}]
_SHOWN = {"filter": "indexof(shown, datum.series) >= 0"}
_FOCUSED = "datum.series === focus.series && datum.where === focus.where"


def _layers(x: Mapping[str, Any], y: Mapping[str, Any]) -> list[dict[str, Any]]:
    dimmed = {"condition": {"test": "focus.series === '' || datum.series === focus.series", "value": 1}}
    return [
        {
            "mark": {"type": "area", "opacity": 0.15},
            "encoding": {"y": {**y, "field": "low"}, "y2": {"field": "high"}},
        },
        {
            "mark": {"type": "line", "strokeWidth": 2},
            "encoding": {"y": y, "opacity": {**dimmed, "value": 0.25}},
        },
        {
            "mark": {"type": "point", "filled": True},
            "encoding": {
                "y": y,
                "size": {"condition": {"test": _FOCUSED, "value": 240}, "value": 55},
                "opacity": {**dimmed, "value": 0.25},
                "tooltip": _TOOLTIP,
            },
        },
    ]


def _lines(metric: Metric, numbers: pd.DataFrame, axis: str, train_len: int) -> dict[str, Any]:
    places = sorted(numbers["x"].unique())
    x = {
        "field": "x",
        "type": "quantitative",
        "scale": {"type": "log", "nice": False, "domain": [float(places[0]), float(places[-1])]},
        "axis": {"title": axis, "values": [float(place) for place in places], "format": ",d", "grid": False},
    }
    y: dict[str, Any] = {"field": "y", "type": "quantitative", "title": metric.label}
    y["scale"] = {"domain": [0, 1]} if metric.is_fraction else {"zero": False}
    color = {"field": "series", "type": "nominal", "legend": None}
    rule = {
        "data": {"values": [{"x": train_len}]},
        "mark": {"type": "rule", "strokeDash": [4, 4], "opacity": 0.5},
        "encoding": {"x": x},
    }
    inside = places[0] <= train_len <= places[-1]
    layers = [{"transform": [_SHOWN], **layer} for layer in _layers(x, y)]
    for layer in layers:
        layer["encoding"] = {"x": x, "color": color, **layer["encoding"]}
    return {
        "width": "container",
        "height": 300,
        "params": _PARAMS,
        "layer": [*([rule] if inside else []), *layers],
    }


def _facets(metric: Metric, panels: Sequence[str], axis: str) -> dict[str, Any]:
    x = {
        "field": "x",
        "type": "quantitative",
        "scale": {"domain": [0, 1]},
        "axis": {"title": f"{axis} (0 first, 1 last)", "values": [0, 0.5, 1], "grid": False},
    }
    y: dict[str, Any] = {
        "field": "y",
        "type": "quantitative",
        "title": metric.label,
        "scale": {"domain": [0, 1]},
    }
    layers = _layers(x, y)
    for layer in layers:
        layer["encoding"] = {
            "x": x,
            "color": {"field": "series", "type": "nominal", "legend": None},
            **layer["encoding"],
        }
    return {
        "params": _PARAMS,
        "transform": [_SHOWN],
        "columns": 3,
        "facet": {"field": "panel", "type": "nominal", "sort": list(panels), "title": None},
        "spec": {"width": 210, "height": 220, "layer": layers},
    }


def _heat_maps(metric: Metric, panels: Sequence[str], axis: str) -> dict[str, Any]:
    x = {
        "field": "x",
        "type": "ordinal",
        "axis": {"title": f"{axis}: first to last", "labels": False, "ticks": False},
    }
    y = {"field": "panel", "type": "nominal", "sort": list(panels), "title": None}
    rectangle = {
        "mark": {"type": "rect"},
        "encoding": {
            "color": {
                "field": "y",
                "type": "quantitative",
                "scale": {"scheme": "cividis", "domain": [0, 1]},
                "title": metric.label,
            },
            "stroke": {"condition": {"test": _FOCUSED, "value": "#e00000"}, "value": None},
            "strokeWidth": {"value": 3},
            "tooltip": _TOOLTIP,
        },
    }
    text = {
        "mark": {"type": "text", "fontSize": 9},
        "encoding": {
            "text": {"field": "y", "type": "quantitative", "format": ".0%"},
            "color": {"condition": {"test": "datum.y < 0.55", "value": "#ffffff"}, "value": "#000000"},
            "tooltip": _TOOLTIP,
        },
    }
    return {
        "params": _PARAMS,
        "transform": [_SHOWN],
        "columns": 3,
        "facet": {"field": "series", "type": "nominal", "title": None},
        "spec": {
            "width": 200,
            "height": {"step": 24},
            "encoding": {"x": x, "y": y},
            "layer": [rectangle, text],
        },
    }
