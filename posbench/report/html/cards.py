"""Measured properties of each scheme: property card, picture and cost, read from the files of `posbench properties`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from posbench import checksums
from posbench.errors import DataError
from posbench.report.html.leaderboard import Entry
from posbench.report.tables.formatting import format_interval, format_number

FILE = "cards.json"
COSTS = "costs.csv"
REMEDY = "run posbench properties again"


@dataclass(frozen=True)
class Card:
    """Properties of a scheme by title, none of an extension, and pictures of its logits as (address of the image, description)."""

    ratings: Mapping[str, str]
    pictures: list[tuple[str, str]]


@dataclass(frozen=True)
class Cards:
    """Cards by scheme and extension, the meaning of each property, a sentence about the marks, and costs by scheme."""

    by_scheme: Mapping[str, Card] = field(default_factory=dict)
    by_extension: Mapping[str, Card] = field(default_factory=dict)
    meanings: Mapping[str, str] = field(default_factory=dict)
    legend: str = ""
    costs: Mapping[str, Entry] = field(default_factory=dict)
    command: str = ""


def read_cards(folder: Path) -> Cards:
    """Reads the files of `posbench properties`; without them, there are no cards.

    Raises:
        DataError: a file is damaged.
    """
    path = folder / FILE
    costs = _costs(folder / COSTS)
    if not path.is_file():
        return Cards(costs=costs)
    try:
        content = checksums.read_json(path)
        schemes, extensions = (
            {name: _card(one) for name, one in content[group].items()} for group in ("schemes", "extensions")
        )
        return Cards(schemes, extensions, content["meanings"], content["legend"], costs, content["command"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path} cannot be used ({error}): {REMEDY}") from None


def _card(content: Mapping[str, Any]) -> Card:
    pictures = [(f"data:image/png;base64,{one['png']}", str(one["about"])) for one in content["pictures"]]
    return Card({str(title): str(text) for title, text in content.get("ratings", {}).items()}, pictures)


def _costs(path: Path) -> dict[str, Entry]:
    if not path.is_file():
        return {}
    try:
        found = pd.read_csv(path)
        return {
            line.scheme: Entry(
                f"{format_number(line.time_ratio)} {format_interval(line.time_low, line.time_high)}".strip(),
                float(line.time_ratio),
            )
            for line in found.itertuples()
        }
    except (OSError, ValueError, AttributeError) as error:
        raise DataError(f"{path} cannot be used ({error}): {REMEDY}") from None
