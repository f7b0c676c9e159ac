"""Results of one experiment as the report shows them: its rows, its tables, and the commands that compute them."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from posbench import escaping
from posbench.report.experiment import ROWS_FILE, read_experiment
from posbench.report.tables.identities import report_rows
from posbench.report.tables.layout import PROTOCOL, build_tables
from posbench.report.tables.markup import Table
from posbench.report.tables.selection import SETTING_COLUMNS, series_label


@dataclass(frozen=True)
class Description:
    """The description of a choice, such as a scheme, without its results.

    Attributes:
        kind: in a few words, such as "additive bias".
        paper: address, "" if there is none.
        summary: one line.
        parts: (name, text) of each class: the docstring of its module and the formula.
        settings: yaml text with the defaults.
        commands: that use the choice.
    """

    name: str
    kind: str
    paper: str
    summary: str
    parts: Sequence[tuple[str, str, str]]
    settings: str
    commands: Sequence[str]


# Returns the description of a choice, given its config group and name; None if there is no such choice.
Describe = Callable[[str, str], Description | None]


@dataclass(frozen=True)
class ExperimentResults:
    """Rows and tables of an experiment.

    Attributes:
        name: of the experiment.
        rows_file: the file of `rows`.
        order: schemes in the order in which figures show them.
        note: text of the experiment, for its readers.
        words: of the command that computed the rows; empty if it is not known.
    """

    name: str
    rows_file: Path
    rows: pd.DataFrame
    tables: Sequence[Table]
    order: Sequence[str]
    note: str
    words: Sequence[str]

    @property
    def anchor(self) -> str:
        return f"experiment-{escaping.file_name(self.name)}"

    @property
    def command(self) -> str:
        return shlex.join(self.words)

    def series_command(self, scheme: str, extension: str, describe: Describe) -> str:
        """Returns the command that computes the numbers of one series again, in an experiment of another name.

        It is empty if no sweep is known to have computed them.

        A scheme whose label is not the name of a configuration, and an extension that the experiment itself defines,
        cannot be chosen from a command line; the command then computes more than the series.
        """
        if list(self.words[:2]) != ["posbench", "sweep"]:  # such as an import of rows of others
            return ""
        chosen = []
        if describe("scheme", scheme):
            chosen.append(f"grid.scheme=[{scheme}]")
        if extension == "none":
            chosen.append("grid.extension=[]")
        elif describe("extension", extension):
            chosen.append(f"grid.extension=[{extension}]")
        elif describe("ensemble", extension):
            chosen.append(f"grid.ensemble=[{extension}]")
        name = escaping.file_name(
            "_".join([self.rows_file.parent.name, *series_label(scheme, extension).split(" + ")])
        )
        return shlex.join([*self.words, f"name={name}", *chosen])

    def rows_query(self, about: Mapping[str, Any]) -> str:
        """Returns a line of Python that reads the rows with the values of some columns, such as those of a table."""
        columns = ["scheme", "extension", *PROTOCOL, *self.settings_that_differ]
        conditions = " and ".join(f"{name} == {_plain(about[name])!r}" for name in columns if name in about)
        read = f"pandas.read_parquet({self.rows_file.as_posix()!r})"
        return f"{read}.query({conditions!r})" if conditions else read

    @cached_property
    def settings_that_differ(self) -> list[str]:
        """Names of the settings of which the rows have several values."""
        return [name for name in SETTING_COLUMNS if self.rows[name].nunique() > 1]

    def rows_of(self, about: Mapping[str, Any]) -> pd.DataFrame:
        """Returns the rows of a table."""
        chosen = pd.Series(True, index=self.rows.index)
        for name in (*SETTING_COLUMNS, *PROTOCOL):
            if name in about:
                chosen &= self.rows[name] == about[name]
        return self.rows[chosen]


def read_results(
    folder: Path, load_option: Callable[[str, str], dict[str, Any]], describe: Describe
) -> ExperimentResults:
    """Reads an experiment and makes its tables.

    Raises:
        DataError: the folder is not an experiment's, or rows of different models have the same labels.
    """
    metadata, rows = read_experiment(folder)
    order, note = metadata["scheme_order"], metadata.get("caption_note", "")
    mix_kernels = any(load_option("figure", name).get("mix_kernels") for name in metadata["figures"])
    words = [str(word) for word in metadata.get("command", ())]
    if not words and describe("experiment", folder.name):
        words = ["posbench", "sweep", f"experiment={folder.name}"]
    tables = build_tables(rows, order, mix_kernels, note)
    return ExperimentResults(folder.name, folder / ROWS_FILE, report_rows(rows), tables, order, note, words)


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value
