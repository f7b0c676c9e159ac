"""Data of a figure: rows of one setting and one attention kernel, and the series in them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from posbench.errors import ConfigError, unknown
from posbench.report.figures.line_styles import LineStyle, assign_line_styles
from posbench.report.tables.identities import report_rows
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
    """The rows of a figure are missing; other figures can still be drawn."""


@dataclass(frozen=True)
class FigureData:
    """Rows that figures select from.

    Attributes:
        rows: rows of an experiment, models below the gate marked.
        order: schemes in the order in which figures show them.
        line_styles: line style of every series, by (scheme, extension).
        mix_kernels: allows a series whose rows come from several attention kernels.
    """

    rows: pd.DataFrame
    order: Sequence[str]
    line_styles: Mapping[tuple[str, str], LineStyle]
    mix_kernels: bool = False

    @classmethod
    def of(cls, rows: pd.DataFrame, order: Sequence[str]) -> "FigureData":
        """Returns the data of all rows of an experiment."""
        rows = report_rows(rows)
        # Styles are assigned from all rows, so that a series looks the same in every figure.
        line_styles = assign_line_styles(ordered_series(rows, order))
        # Before any filter, since extensions are gated by the scheme without extension.
        return cls(propagate_gate(rows), order, line_styles)

    def narrowed(self, filters: Mapping[str, Any] | None, mix_kernels: bool) -> "FigureData":
        """Returns the data with some of the rows.

        Args:
            filters: the value, or a list of values, that a row must have, by column.
            mix_kernels: see `FigureData`.

        Raises:
            ConfigError: if there is no such column.
            MissingRowsError: if there are no such rows.
        """
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
        """Returns the rows of one task, with the given values in other columns.

        Args:
            task: a value of the column `task`.
            of: a metric, to select only the rows that a figure of it needs; None selects all rows.
            wanted: values by column. None allows any value, but protocol, variant and settings must be unique; of
                several variants, None selects the plain one.

        Raises:
            ConfigError: if there is no such column, or several protocols, variants or settings remain.
            MissingRowsError: if there are no rows, or only rows without numbers.
            IncompatibleError: if a series mixes attention kernels and `mix_kernels` is False.
        """
        chosen = self.rows["task"] == task
        for column, value in wanted.items():
            if column not in self.rows:
                raise unknown("column", column, self.rows.columns)
            chosen = chosen if value is None else chosen & (self.rows[column] == value)
        if wanted.get("variant") is None and (plain := chosen & (self.rows["variant"] == "")).any():
            chosen = plain
        rows = self.rows[chosen]
        rows = rows if of is None else rows_of_metric(rows, of)
        if rows.empty:
            requested = ", ".join(f"{key} {value}" for key, value in wanted.items() if value)
            raise MissingRowsError(
                f"no rows of task {task} with {requested or 'any protocol'}: evaluate them first"
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
        """Returns the line style and the rows of each series of a summary, in the order of the experiment.

        Args:
            shown: a summary with the columns scheme and extension.
        """
        groups = dict(iter(shown.groupby(SERIES_COLUMNS)))
        return [(self.line_styles[key], groups[key]) for key in ordered_series(shown, self.order)]
