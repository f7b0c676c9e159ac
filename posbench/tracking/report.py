"""Sends rows, checkpoints and reports to a tracker."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from posbench.config.schema import RuntimeSettings
from posbench.tracking.run import RunInfo
from posbench.tracking.tracker import open_run

# Columns of rows that describe a measurement; its values are averaged over all others.
CELL: tuple[str, ...] = (
    *("cell_id", "model_id", "scheme", "extension", "model_size", "train_len", "train_seed", "corpus"),
    *("task", "variant", "protocol", "eval_len", "eval_seed", "dtype", "kernel", "metric", "unit", "status"),
)


def checkpoint_name(model: str) -> str:
    """Returns the name of the artifact of a trained model, given its id."""
    return f"model-{model}"


def log_report(
    rows: pd.DataFrame,
    paths: Sequence[Path],
    models: Iterable[str],
    name: str,
    config: dict[str, Any],
    runtime: RuntimeSettings,
) -> None:
    """Logs a table of all cells, and the tables and figures of a report.

    Args:
        rows: rows of the experiment.
        paths: files of the report.
        models: names of the checkpoints that the report is about.
        name: of the experiment.
    """
    info = RunInfo(
        f"report-{name}", name, name, "report", Path(runtime.results_dir), runtime.wandb_project, config
    )
    with open_run(runtime, info) as run:
        run.log_table("cells", cells_table(rows))
        for path in paths:
            if path.suffix == ".csv" and path.parent.name == "tables":
                run.log_table(path.stem, pd.read_csv(path))
        run.log_figures(paths)
        for model in models:
            run.use_checkpoint(model)


def cell_means(rows: pd.DataFrame, extension: str) -> dict[str, float]:
    """Returns the mean of each metric of a cell, by the name task[+extension]/protocol[/variant]/metric."""
    ok = rows[(rows["status"] == "ok") & (rows["n"] > 0)]
    sums = ok.groupby(["task", "protocol", "variant", "metric"])[["value_sum", "n"]].sum()
    suffix = "" if extension == "none" else f"+{extension}"
    return {
        "/".join(filter(None, [f"{task}{suffix}", protocol, variant, metric])): value / n
        for (task, protocol, variant, metric), value, n in sums.itertuples()
    }


def cells_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Returns a line for each metric of each cell: what it describes, the mean, and the number of values."""
    columns = [column for column in CELL if column in rows]
    grouped = rows.groupby(columns, dropna=False, observed=True, sort=False)[["value_sum", "n"]].sum()
    mean = (grouped["value_sum"] / grouped["n"]).where(grouped["n"] > 0)
    return grouped.assign(mean=mean).drop(columns="value_sum").reset_index()
