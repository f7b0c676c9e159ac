"""Rows of several people in one table: each cell once, and no cell with two contents."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from posbench.errors import DataError
from posbench.results.repeated_cells import without_repeated_cells
from posbench.results.rows import AGAIN, COLUMNS, RowStore, read_rows

ROWS_FILE = "rows.parquet"
# Columns that are no part of a measurement: names for people, and the kernel, to which rows are equal up to rounding.
LABELS = ("scheme", "extension", "model_size", "corpus", "kernel")
# Properties of a model.
MODEL = ["n_params", "train_len", "train_tokens", "train_seed"]
# Relative and absolute difference of sums that two machines can have.
RTOL, ATOL = 1e-3, 1e-5


def collect_rows(results: Path, experiments: Iterable[str] = ()) -> pd.DataFrame:
    """Returns the rows of a results folder, each cell once: those of its cells, then those of its experiments.

    Args:
        experiments: names of experiments, to take only their rows; empty for all of the folder.

    Raises:
        DataError: if there are none, or a cell has two contents.
    """
    names = list(experiments)
    store = RowStore(results / "cells")
    cells = [] if names else sorted(path.stem for path in store.root.glob("*.parquet"))
    found, _ = store.collect(cells, AGAIN)
    every = {*results.glob(f"*/{ROWS_FILE}"), *results.glob(f"published/*/{ROWS_FILE}")}
    paths = [results / name / ROWS_FILE for name in names] or sorted(every)
    for path in paths:
        found, _ = merge(found, read_rows(path), f"{path} against the other rows of {results}")
    if found.empty:
        raise DataError(f"no rows in {results}: run posbench sweep or evaluate first, or give --results-dir")
    return found


def add_cells(store: RowStore, rows: pd.DataFrame, source: str) -> int:
    """Stores the cells of rows of others that are not there, so that sweeps take them as measured.

    Cells that did not fit in the memory of the others' device are left out.

    Args:
        source: of the rows, for the metadata of the cells.

    Returns:
        The number of cells that were stored.
    """
    # The gate is applied again when rows are collected.
    rows = without_repeated_cells(rows)
    ungated = rows.assign(status=rows["status"].mask(rows["status"] == "not_learned", "ok"))
    n_stored = 0
    for cell, measured in ungated.groupby("cell_id", sort=False):
        status = measured["status"].iat[0]
        if status == "out_of_memory" or (
            store.has(cell) and store.run_metadata(cell).get("status") != "out_of_memory"
        ):
            continue
        store.write(cell, measured, {"status": status, "imported_from": source})
        n_stored += 1
    return n_stored


def merge(ours: pd.DataFrame, theirs: pd.DataFrame, where: str) -> tuple[pd.DataFrame, int]:
    """Returns our rows and those of their cells that we do not have, and the number of cells that both have.

    Args:
        where: of what is compared, for the message.

    Raises:
        DataError: if a cell has other content on the two sides.
    """
    theirs = without_repeated_cells(theirs)
    # A device without the memory for a cell measures nothing, so another one's measurement replaces it.
    ours_unmeasured: list[str] = []
    common = sorted({*ours["cell_id"].unique()} & {*theirs["cell_id"].unique()})
    if common:
        own, other = (
            dict(iter(rows[rows["cell_id"].isin(common)].groupby("cell_id", sort=False)))
            for rows in (ours, theirs)
        )
        for cell in common:
            if "out_of_memory" in (statuses := [rows[cell]["status"].iat[0] for rows in (own, other)]):
                if statuses[1] != "out_of_memory":
                    ours_unmeasured.append(cell)
                continue
            if difference := first_difference(own[cell], other[cell]):
                raise DataError(
                    f"{where}: cell {cell} has other content ({difference}): an id stands for one measurement; find out "
                    "which rows were changed, and leave out the others"
                )
    models = pd.concat([rows[["model_id", *MODEL]].drop_duplicates() for rows in (ours, theirs)])
    several = models.drop_duplicates()["model_id"].duplicated()
    if several.any():
        name = models.drop_duplicates()["model_id"][several].iat[0]
        raise DataError(
            f"{where}: model {name} has several {' or '.join(MODEL)}: an id stands for one model; find out which rows were "
            "changed, and leave out the others"
        )
    ours = ours[~ours["cell_id"].isin(ours_unmeasured)]
    new = theirs[theirs["cell_id"].isin(ours_unmeasured) | ~theirs["cell_id"].isin(common)]
    return pd.concat([part for part in (ours, new) if len(part)] or [ours], ignore_index=True), len(common)


def first_difference(one: pd.DataFrame, other: pd.DataFrame) -> str:
    """Returns in which column two measurements of a cell differ by more than rounding; '' if in none."""
    if len(one) != len(other):
        return f"{len(one)} and {len(other)} rows"
    order = ["metric", "doc_id", "example", "position", "depth", "layer", "head", "value_sum"]
    first, second = (rows.sort_values(order, na_position="first") for rows in (one, other))
    for column in COLUMNS:
        a, b = first[column].reset_index(drop=True), second[column].reset_index(drop=True)
        if column in LABELS:
            continue
        if column == "status":  # the gate is applied when rows are collected
            a, b = a.replace("not_learned", "ok"), b.replace("not_learned", "ok")
        if column == "value_sum":
            same = np.isclose(a.to_numpy(float), b.to_numpy(float), rtol=RTOL, atol=ATOL, equal_nan=True)
        else:
            same = ((a == b).fillna(False) | (a.isna() & b.isna())).to_numpy(bool)
        if not same.all():
            place = int(np.argmin(same))
            return f"{column} {a.iat[place]!r} and {b.iat[place]!r}"
    return ""
