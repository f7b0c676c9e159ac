"""Folder of an experiment: rows, names of figures, and the report drawn from them. Does not import torch."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd

from posbench import checksums
from posbench.errors import DataError
from posbench.files import write_bytes
from posbench.report.report_writer import write_report
from posbench.results.rows import read_rows, write_rows
from posbench.version import __version__, source_commit

ROWS_FILE = "rows.parquet"
METADATA_FILE = "experiment.json"


def save_experiment(
    folder: Path,
    rows: pd.DataFrame,
    scheme_order: Sequence[str],
    figures: Sequence[str],
    caption_note: str = "",
    command: Sequence[str] = (),
) -> None:
    """Writes the rows of an experiment, and beside them what its report needs and what made them.

    The latter are the command, the version of posbench and, in a clone, its commit, as of the end of the sweep.

    Args:
        command: words of the command that computed the rows.
    """
    write_rows(rows, folder / ROWS_FILE)
    metadata: dict[str, Any] = {"scheme_order": list(scheme_order), "figures": list(figures)}
    metadata |= {"caption_note": caption_note} if caption_note else {}
    metadata |= {"command": list(command)} if command else {}
    commit = source_commit()
    metadata |= {"version": __version__, **({"commit": commit} if commit else {})}
    write_bytes(folder / METADATA_FILE, checksums.dump_json(metadata))


def draw_report(folder: Path, load_option: Callable[[str, str], dict[str, Any]]) -> list[Path]:
    """Draws all tables and figures of an experiment and returns their paths; up-to-date files are kept.

    Args:
        load_option: returns the content of a config file, given its group and name.

    Raises:
        DataError: the folder is not an experiment's.
    """
    metadata, rows = read_experiment(folder)
    configs = [load_option("figure", name) for name in metadata["figures"]]
    return write_report(rows, configs, folder, metadata["scheme_order"], metadata.get("caption_note", ""))


def read_experiment(folder: Path) -> tuple[dict[str, Any], pd.DataFrame]:
    """Reads the metadata and the rows of an experiment, with strings as categories.

    Raises:
        DataError: the folder is not an experiment's.
    """
    for name in (ROWS_FILE, METADATA_FILE):
        if not (folder / name).is_file():
            raise DataError(f"{folder} has no {name}: {remedy(folder)}, or give a folder that it has written")
    return read_metadata(folder), read_rows(folder / ROWS_FILE, categorical=True, remedy=remedy(folder))


def read_metadata(folder: Path) -> dict[str, Any]:
    """Reads the metadata of an experiment; raises DataError if it is damaged."""
    path = folder / METADATA_FILE
    try:
        metadata = checksums.read_json(path)
        for name in ("scheme_order", "figures"):
            if not isinstance(metadata.get(name), list) or not all(
                isinstance(x, str) for x in metadata[name]
            ):
                raise checksums.DamageError(f"{name} is not a list of names")
    except (OSError, checksums.DamageError) as error:
        raise DataError(f"{path} cannot be used ({error}): {remedy(folder)}") from None
    return metadata


def remedy(folder: Path) -> str:
    """Returns what makes the files of an experiment again: the command that is stored beside its rows, if any."""
    with suppress(OSError, checksums.DamageError):
        if command := checksums.read_json(folder / METADATA_FILE).get("command"):
            return f"run {shlex.join(map(str, command))} again"
    return f"run posbench sweep experiment={folder.name} again, with the settings that made it"


def find_experiments(results: Path) -> list[Path]:
    """Returns the folders of all experiments, published ones included, in sorted order."""
    found = {
        path.parent
        for pattern in (f"*/{METADATA_FILE}", f"published/*/{METADATA_FILE}")
        for path in results.glob(pattern)
    }
    return sorted(found)
