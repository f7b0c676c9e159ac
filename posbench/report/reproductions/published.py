"""Published numbers of papers, read from published.csv, with the source of each and how it was checked."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from posbench.errors import ConfigError, unknown

Row = Mapping[str, str]


@cache
def published() -> list[Row]:
    """Returns the lines of published.csv."""
    with (files(__package__) / "published.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def find(selection: Mapping[str, Any]) -> Row:
    """Returns the one line with the given values; a source may be shortened to its start, such as ALiBi.

    Raises:
        ConfigError: no line has them, or several have.
    """
    rows = published()
    for key in selection:
        if key not in rows[0]:
            raise unknown("column of published.csv", key, list(rows[0]))
    found = [
        row
        for row in rows
        if all(
            row[key].startswith(f"{value},") if key == "source" else row[key] == str(value)
            for key, value in selection.items()
        )
    ]
    if len(found) != 1:
        where = ", ".join(f"{key} {value}" for key, value in selection.items())
        raise ConfigError(f"published.csv has {len(found)} lines with {where}: select exactly one")
    return found[0]


def seeds(row: Row) -> list[float]:
    """Returns the numbers of the training seeds of a line, [] if they are not published."""
    return [float(value) for value in row["seeds"].split()]


def number(row: Row) -> float:
    """Returns the number of a line: the logarithm of a perplexity, in nats per token, and a fraction for a percentage."""
    value = float(row["value"])
    if row["metric"] == "perplexity":
        return math.log(value)
    return value / 100 if row["metric"].endswith("%") else value
