"""Specifications of Vega-Lite for curves and heat maps; the page adds the points, the series and their colours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from posbench.report.tables.metrics import Metric

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


def lines(metric: Metric, numbers: pd.DataFrame, axis: str, train_len: int) -> dict[str, Any]:
    """Returns curves by length or position; the training length is a dashed line."""
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


def facets(metric: Metric, panels: Sequence[str], axis: str) -> dict[str, Any]:
    """Returns curves by depth, a panel for each length."""
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


def heat_maps(metric: Metric, panels: Sequence[str], axis: str) -> dict[str, Any]:
    """Returns a heat map for each series: lengths by depth."""
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
