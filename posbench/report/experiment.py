"""Folder of an experiment: rows, names of figures, and the report drawn from them. Does not import torch."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from posbench.errors import DataError
from posbench.files import write_text
from posbench.report.report_writer import write_report
from posbench.results.rows import read_rows, write_rows

ROWS_FILE = "rows.parquet"
METADATA_FILE = "experiment.json"


def save_experiment(
    folder: Path,
    rows: pd.DataFrame,
    scheme_order: Sequence[str],
    figures: Sequence[str],
    caption_note: str = "",
) -> None:
    """Writes the rows of an experiment, the order of its schemes, the names of its figures and a note for captions."""
    write_rows(rows, folder / ROWS_FILE)
    metadata = {"scheme_order": list(scheme_order), "figures": list(figures)} | (
        {"caption_note": caption_note} if caption_note else {}
    )
    write_text(folder / METADATA_FILE, json.dumps(metadata, indent=1) + "\n")


def draw_report(folder: Path, load_option: Callable[[str, str], dict[str, Any]]) -> list[Path]:
    """Draws all tables and figures of an experiment and returns their paths; up-to-date files are kept.

    Args:
        load_option: returns the content of a config file, given its group and name.

    Raises:
        DataError: the folder is not an experiment's.
    """
    if not (folder / ROWS_FILE).is_file() or not (folder / METADATA_FILE).is_file():
        raise DataError(
            f"{folder} has no {ROWS_FILE} and {METADATA_FILE}: give a folder that posbench sweep has written"
        )
    metadata = json.loads((folder / METADATA_FILE).read_text())
    configs = [load_option("figure", name) for name in metadata["figures"]]
    return write_report(
        read_rows(folder / ROWS_FILE, categorical=True),
        configs,
        folder,
        metadata["scheme_order"],
        metadata.get("caption_note", ""),
    )


def find_experiments(results: Path) -> list[Path]:
    """Returns the folders of all experiments, published ones included, in sorted order."""
    found = {
        path.parent
        for pattern in (f"*/{METADATA_FILE}", f"published/*/{METADATA_FILE}")
        for path in results.glob(pattern)
    }
    return sorted(found)
