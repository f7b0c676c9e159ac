"""The rows of a report: no cell twice, and under each label one model and one evaluation.

Tables and figures group rows by labels, such as the name of a scheme. Rows of two models or of two evaluations under
one label would become one number.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from posbench import escaping
from posbench.errors import DataError
from posbench.report.tables.selection import SERIES_COLUMNS, SETTING_COLUMNS, series_label
from posbench.results.repeated_cells import equal_to_first, first_of_cell, without_repeated_cells

PROTOCOL_COLUMNS = ["task", "protocol", "variant"]
_LABELS = [*SETTING_COLUMNS, *SERIES_COLUMNS]
_EVALUATION = [*_LABELS, *PROTOCOL_COLUMNS]
# Columns by which a report groups rows -> the columns that may have one value in each group.
_SINGLE: list[tuple[list[str], list[str]]] = [
    (_LABELS, ["n_params"]),
    (_EVALUATION, ["dtype", "eval_seed"]),
    ([*_EVALUATION, "train_seed"], ["model_id"]),
    ([*_EVALUATION, "train_seed", "eval_len"], ["cell_id"]),
]
_PRINTED = ["scheme", "extension", "model_size", "corpus", "task", "variant", "protocol", "kernel", "dtype"]
_IDENTITY = list(dict.fromkeys(column for group, single in _SINGLE for column in [*group, *single]))
_WORDS = {
    "model_id": "models",
    "cell_id": "evaluations",
    "n_params": "numbers of parameters",
    "dtype": "dtypes",
    "eval_seed": "evaluation seeds",
}


def report_rows(rows: pd.DataFrame) -> pd.DataFrame:
    """Returns the rows that tables and figures are made of: strings as categories, each cell once, printable labels.

    Raises:
        DataError: rows of several models or evaluations have the same labels, so that a report would average them.
    """
    # Strings as categories are grouped by their integer codes, which is most of the work.
    words = [name for name in rows if not pd.api.types.is_numeric_dtype(rows[name])]
    rows = rows.astype(dict.fromkeys(words, "category"))
    if rows.empty:
        return rows
    printable = {name: _printable(rows[name]) for name in _PRINTED}
    rows = rows.assign(**{name: column for name, column in printable.items() if column is not rows[name]})
    rows = without_repeated_cells(rows)
    _check(_cells(rows))
    return rows


def _printable(column: pd.Series) -> pd.Series:
    """Returns a column of categories without characters that no format can hold."""
    clean = [escaping.printable(str(name)) for name in column.cat.categories]
    if clean == list(column.cat.categories):
        return column
    return column.astype(str).map(escaping.printable).astype("category")


def _cells(rows: pd.DataFrame) -> pd.DataFrame:
    """Returns a line for each cell, or several for a cell whose rows differ in their labels."""
    first_N = first_of_cell(rows)
    chosen_N = ~equal_to_first(rows, first_N, _IDENTITY)
    chosen_N[first_N] = True
    return rows.loc[chosen_N, _IDENTITY].drop_duplicates()


def _check(cells: pd.DataFrame) -> None:
    named: dict[str, tuple[str, str]] = {}
    for series in cells[SERIES_COLUMNS].drop_duplicates().itertuples(index=False, name=None):
        other = named.setdefault(series_label(*series), series)
        if other != series:
            raise DataError(
                f"scheme {series[0]!r} with extension {series[1]!r} and scheme {other[0]!r} with extension {other[1]!r} "
                f"have one label, {series_label(*series)!r}: give one of them another name"
            )
    for group, single in _SINGLE:
        found = cells.groupby(group, observed=True, sort=False)[single].nunique()
        for column in single:
            if not (several := found[column] > 1).any():
                continue
            key = dict(zip(group, several.idxmax(), strict=True))
            same = cells[np.logical_and.reduce([cells[name] == value for name, value in key.items()])]
            raise DataError(_refusal(key, column, same))


def _refusal(key: dict[str, Any], column: str, same: pd.DataFrame) -> str:
    """The message about several identities under one label: where, what differs, and what to do."""
    where = [series_label(key["scheme"], key["extension"])]
    where += [" ".join(str(key[name]) for name in PROTOCOL_COLUMNS if key.get(name))] if "task" in key else []
    where += [f"at {key['eval_len']} tokens"] if "eval_len" in key else []
    differing = [
        name for name in ("n_params", "dtype", "eval_seed") if same[name].nunique() > 1 and name != column
    ]
    also = "".join(f", {name} {_listed(same[name].unique())}" for name in differing)
    remedy = (
        "run posbench sweep again, which labels models by the settings in which they differ, or import the experiments of "
        "others one by one, with --suffix"
        if same["model_id"].nunique() > 1
        else "evaluate them in different experiments (name=...)"
    )
    return (
        f"{', '.join(where)}: rows of this label come from {same[column].nunique()} {_WORDS[column]} "
        f"({_listed(same[column].unique())}{also}), which a report would average: {remedy}"
    )


def _listed(values: Sequence[Any], most: int = 3) -> str:
    texts = sorted(map(str, values))
    return " and ".join(texts[:most]) + (f" and {len(texts) - most} more" if len(texts) > most else "")
