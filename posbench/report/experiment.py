"""The folder of an experiment: its rows, what to draw of them, and what was drawn. No torch is needed here."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from posbench.errors import DataError
from posbench.report.report_writer import write_report
from posbench.results.rows import read_rows, write_rows

ROWS = "rows.parquet"
FACTS = "experiment.json"


def write(
    folder: Path, rows: pd.DataFrame, order: Sequence[str], figures: Sequence[str], note: str = ""
) -> None:
    """Keep an experiment's rows, the order of its schemes, the names of its figures, and a note for its captions."""
    write_rows(rows, folder / ROWS)
    temporary = folder / f".{FACTS}.{os.getpid()}"
    facts = {"order": list(order), "figures": list(figures)} | ({"note": note} if note else {})
    temporary.write_text(json.dumps(facts, indent=1) + "\n")
    temporary.replace(folder / FACTS)


def draw(folder: Path, choose: Callable[[str, str], dict[str, Any]]) -> list[Path]:
    """All tables and figures of a folder, the same bytes each time; what stands already is left alone."""
    if not (folder / ROWS).is_file() or not (folder / FACTS).is_file():
        raise DataError(
            f"{folder} has no {ROWS} with {FACTS}: give a folder that scripts/sweep.py has written"
        )
    facts = json.loads((folder / FACTS).read_text())
    configs = [choose("figure", name) for name in facts["figures"]]
    return write_report(read_rows(folder / ROWS), configs, folder, facts["order"], facts.get("note", ""))


def experiments(results: Path) -> list[Path]:
    """The folders that hold an experiment, the published ones among them."""
    found = {
        path.parent for pattern in (f"*/{FACTS}", f"published/*/{FACTS}") for path in results.glob(pattern)
    }
    return sorted(found)
