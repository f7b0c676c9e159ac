"""What a figure draws from: rows of one setting and one kernel, and their series."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from posbench.errors import ConfigError, unknown
from posbench.report.figures.line_styles import LineStyle, assign_line_styles
from posbench.report.tables.metrics import Metric
from posbench.report.tables.selection import (
    SERIES_COLUMNS,
    SETTING_COLUMNS,
    conclusive,
    one_kernel,
    ordered_series,
    propagate_gate,
    rows_of_metric,
)


class MissingRowsError(ConfigError):
    """A figure whose rows are not there: the others can still be drawn."""


@dataclass(frozen=True)
class FigureData:
    rows: pd.DataFrame
    order: Sequence[str]
    line_styles: Mapping[tuple[str, str], LineStyle]
    mix_kernels: bool = False

    @classmethod
    def of(
        cls,
        rows: pd.DataFrame,
        order: Sequence[str],
        filters: Mapping[str, Any] | None = None,
        mix_kernels: bool = False,
    ) -> "FigureData":
        # Of all rows, so that a series looks the same in every figure.
        line_styles = assign_line_styles(ordered_series(rows, order))
        # Before any choice: an extension is gated by the plain scheme.
        return cls(propagate_gate(rows), order, line_styles).narrowed(filters, mix_kernels)

    def narrowed(self, filters: Mapping[str, Any] | None, mix_kernels: bool) -> "FigureData":
        """The rows with the wanted values in some columns, for one figure."""
        rows = self.rows
        for column, wanted in (filters or {}).items():
            if column not in rows:
                raise unknown("column in filters:", column, rows.columns)
            chosen = wanted if isinstance(wanted, list | tuple) else [wanted]
            rows = rows[rows[column].isin(chosen)]
            if rows.empty:
                raise MissingRowsError(f"no rows with {column} {wanted}: evaluate them or change filters:")
        return replace(self, rows=rows, mix_kernels=mix_kernels)

    def select(self, task: str, of: Metric | None = None, **wanted: Any) -> pd.DataFrame:
        """The rows of one task, protocol and so on; a value of None takes any, if there is only one.

        Of several variants None takes the plain one. A series that mixes kernels is refused unless told to mix.
        With a metric in `of` only the rows that a figure of it reads.
        """
        chosen = self.rows["task"] == task
        for column, value in wanted.items():
            chosen = chosen if value is None else chosen & (self.rows[column] == value)
        if wanted.get("variant") is None and (plain := chosen & (self.rows["variant"] == "")).any():
            chosen = plain
        rows = self.rows[chosen]
        rows = rows if of is None else rows_of_metric(rows, of)
        if rows.empty:
            asked = ", ".join(f"{key} {value}" for key, value in wanted.items() if value)
            raise MissingRowsError(
                f"no rows of task {task} with {asked or 'any protocol'}: evaluate them first"
            )
        for column in ["protocol", "variant", *SETTING_COLUMNS]:
            found = sorted(rows[column].unique())
            if len(found) > 1:
                raise ConfigError(
                    f"a figure shows one {column}, the rows hold {', '.join(map(str, found))}: "
                    f"choose one with filters: {{{column}: {found[0]}}}"
                )
        if not (rows["value_sum"].notna() & conclusive(rows)).any():
            raise MissingRowsError(
                f"no numbers of task {task}, only {', '.join(sorted(rows['status'].unique()))}: leave the figure out"
            )
        if not self.mix_kernels:
            one_kernel(rows)
        return rows

    def series(self, shown: pd.DataFrame) -> list[tuple[LineStyle, pd.DataFrame]]:
        """The lines of a summary, in the experiment's order."""
        groups = dict(iter(shown.groupby(SERIES_COLUMNS)))
        return [(self.line_styles[key], groups[key]) for key in ordered_series(shown, self.order)]
