"""Cells whose rows are there several times, as of a plan that names a model twice."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

# Columns in which two rows of a cell usually differ.
_MEASUREMENT = ["metric", "doc_id", "example", "position", "depth", "layer", "head", "value_sum", "n"]


def first_of_cell(rows: pd.DataFrame) -> np.ndarray:
    """(N,) index of the first row of each row's cell."""
    codes_N = _codes(rows["cell_id"])
    first = np.zeros(codes_N.max() + 1, dtype=int)
    first[codes_N[::-1]] = np.arange(len(rows))[::-1]
    return first[codes_N]


def _codes(column: pd.Series) -> np.ndarray:
    if isinstance(column.dtype, pd.CategoricalDtype):
        return column.cat.codes.to_numpy()
    if column.dtype == np.int64:
        return column.to_numpy()
    if not pd.api.types.is_numeric_dtype(column):
        return pd.factorize(column)[0]
    return np.nan_to_num(column.to_numpy(dtype=float, na_value=np.nan), nan=-1.0)


def equal_to_first(rows: pd.DataFrame, first_N: np.ndarray, columns: Sequence[str]) -> np.ndarray:
    """(N,) whether a row has the values of its cell's first row in the given columns."""
    equal_N = np.ones(len(rows), dtype=bool)
    for name in columns:
        codes_N = _codes(rows[name])
        equal_N &= codes_N == codes_N[first_N]
    return equal_N


def without_repeated_cells(rows: pd.DataFrame) -> pd.DataFrame:
    """Drops the repetitions of a cell whose rows are there several times, as of a plan that names a model twice.

    A row may occur twice in a cell, such as a question that was drawn twice; of a repeated cell every row does.
    """
    if rows.empty:
        return rows
    first_N = first_of_cell(rows)
    alike_N = equal_to_first(rows, first_N, _MEASUREMENT)
    suspect_N = (np.bincount(first_N[alike_N], minlength=len(rows)) > 1)[first_N]
    if not suspect_N.any():
        return rows
    hashes = pd.util.hash_pandas_object(rows[suspect_N], index=False)
    by_row = hashes.groupby(hashes.to_numpy())
    count, occurrence = by_row.transform("size"), by_row.cumcount()
    repeats = count.groupby(first_N[suspect_N]).transform("min")
    keep_N = np.ones(len(rows), dtype=bool)
    keep_N[suspect_N] = (occurrence < count // repeats).to_numpy()
    return rows if keep_N.all() else rows[keep_N]
