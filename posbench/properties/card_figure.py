"""The property card as a figure: schemes by properties, with a mark, a colour and the measured value in each cell."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from posbench.properties.card import COLUMNS
from posbench.properties.measure import Row
from posbench.properties.ratings import NO, NOT_APPLICABLE, PARTIAL, YES, Rating
from posbench.report.figures import Drawing
from posbench.report.figures.canvas import GREY, captioned_subplots

NAME, CELL, LINE, HEAD = 1.6, 1.25, 0.19, 0.4  # inches
# Distinguishable with common colour blindness, and in grey by their marks.
COLOURS = {YES: "#a9cbe8", PARTIAL: "#fbe3b4", NO: "#ffffff", NOT_APPLICABLE: "#eeeeee", "": "#ffffff"}


def draw(rows: Sequence[Row], title: str, caption: str) -> Drawing:
    """Draws rows in their order, grouped by the parts of the model that they act on."""
    groups = [(acts_on, list(group)) for acts_on, group in groupby(rows, key=lambda row: row["acts_on"])]
    height = HEAD + LINE * (len(rows) + len(groups))
    width = NAME + CELL * len(COLUMNS)
    figure, panels = captioned_subplots(title, caption, panel=(width, height), right=0.2)
    axes = panels[0, 0]
    axes.set_axis_off()
    axes.set_ylim(height, 0)
    for i, column in enumerate(COLUMNS):
        left = NAME + CELL * i + 0.04
        axes.text(left, 0.06, column.title, va="top", fontsize=7.5, fontweight="bold", linespacing=1.2)
    top = HEAD
    shown = []
    for acts_on, group in groups:
        axes.text(
            0.02,
            top + 0.65 * LINE,
            f"acts on: {acts_on}",
            va="center",
            fontsize=7.5,
            style="italic",
            color=GREY,
        )
        axes.plot([0, width], [top + 0.02, top + 0.02], color="#bbbbbb", linewidth=0.6)
        top += LINE
        for row in group:
            marks = [column.of(row) for column in COLUMNS]
            _line(axes, top, row["scheme"], marks)
            shown.append(_numbers(row, marks))
            top += LINE
    axes.set_xlim(0, width)
    return figure, pd.DataFrame(shown)


def _line(axes: Axes, top: float, name: str, marks: Sequence[Rating]) -> None:
    axes.text(0.08, top + LINE / 2, name, va="center", fontsize=8.5)
    for i, mark in enumerate(marks):
        left = NAME + CELL * i
        box = Rectangle((left, top), CELL - 0.03, LINE - 0.02, facecolor=COLOURS[mark.sign], edgecolor="none")
        axes.add_patch(box)
        axes.text(left + 0.04, top + LINE / 2, mark.sign, va="center", fontsize=7.5)
        axes.text(left + 0.18, top + LINE / 2, mark.text, va="center", fontsize=7, color="#222222")


def _numbers(row: Row, marks: Sequence[Rating]) -> dict[str, str]:
    titles = [column.title.replace("\n", " ") for column in COLUMNS]
    cells = dict(zip(titles, map(str, marks), strict=True))
    return {"scheme": row["scheme"], "acts on": row["acts_on"], **cells}
