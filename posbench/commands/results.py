"""Exports the rows of a results folder as one parquet file with a data card, or imports rows of others.

An export has every cell once. An import adds cells to a results folder, and refuses a cell that is there with other
content. Sweeps take the added cells as measured: they train and evaluate what is missing only. With --name, an import
writes an experiment, results/NAME, with the rows of others beside those of experiments here, without a sweep.
`posbench figures` then draws its tables.

examples:
  posbench results export --to rows
  posbench results export --to rows --experiments demo finetune --push USER/NAME
  posbench results import results/published/leaderboard
  posbench results import rows --name leaderboard --with demo
  posbench results import USER/NAME --name leaderboard --suffix theirs
"""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from posbench.commands.export import check_empty
from posbench.errors import ConfigError, DataError
from posbench.files import atomic_path
from posbench.hub import check_repository, download, push_folder
from posbench.names import check_name


def add_arguments(parser: argparse.ArgumentParser) -> None:
    results_dir = argparse.ArgumentParser(add_help=False)
    results_dir.add_argument("--results-dir", type=Path, default=Path("results"), help="by default results")
    actions = parser.add_subparsers(dest="action", required=True)
    export = actions.add_parser("export", parents=[results_dir], help="write rows.parquet and README.md")
    export.add_argument("--to", type=Path, required=True, help="the folder to write, new or empty")
    export.add_argument(
        "--experiments", nargs="+", action="extend", default=[], help="only their rows; by default all rows"
    )
    export.add_argument("--licence", default="cc-by-4.0", help="of the rows; by default cc-by-4.0")
    export.add_argument("--push", default="", metavar="USER/NAME", help="also upload to a dataset repository")
    add = actions.add_parser("import", parents=[results_dir], help="add rows of others")
    add.add_argument("rows", help="an exported or published folder, a parquet file, or a dataset on the hub")
    add.add_argument("--name", default="", help="write an experiment; rows are added if it is there")
    add.add_argument(
        "--with",
        nargs="+",
        action="extend",
        default=[],
        dest="beside",
        help="experiments whose rows are added as well",
    )
    add.add_argument("--suffix", default="", help="added to the labels of their schemes, such as their name")


def main(arguments: Sequence[str]) -> int:
    from posbench.commands.arguments import parser

    given = parser("results").parse_args(arguments)
    if given.action == "export":
        export_rows(given, shlex.join(["posbench", "results", *arguments]))
    else:
        import_rows(given, ["posbench", "results", *arguments])
    return 0


def export_rows(given: argparse.Namespace, command: str) -> None:
    """Writes the rows of a results folder and their data card, and uploads them if requested."""
    check_empty(given.to)
    if given.push:
        check_repository(given.push)
    from posbench.results.data_card import data_card
    from posbench.results.exchange import ROWS_FILE, collect_rows
    from posbench.results.gate import apply_gate
    from posbench.results.rows import write_rows

    rows = apply_gate(collect_rows(given.results_dir, given.experiments))
    with atomic_path(given.to) as folder:
        folder.mkdir()
        write_rows(rows, folder / ROWS_FILE)
        card = data_card(rows, ", ".join(given.experiments) or "all experiments", given.licence, command)
        (folder / "README.md").write_text(card, "utf-8")
    print(f"{len(rows):,} rows of {rows['cell_id'].nunique():,} cells in {given.to}")
    if given.push:
        print(push_folder(given.to, given.push, "dataset"))


def import_rows(given: argparse.Namespace, command: Sequence[str]) -> None:
    """Adds the cells of others to the results folder, or writes an experiment with their rows.

    Args:
        command: words of the import, which are stored beside the rows of a new experiment.
    """
    if not given.name and (given.beside or given.suffix):
        raise ConfigError(
            "--with and --suffix are options of an imported experiment: add --name NAME, or remove them"
        )
    for option in ("name", "suffix"):
        if value := getattr(given, option):
            check_name(f"--{option}", value)
    from posbench.report.experiment import ROWS_FILE, find_experiments, read_metadata, save_experiment
    from posbench.results.exchange import add_cells, collect_rows, merge
    from posbench.results.gate import apply_gate
    from posbench.results.rows import RowStore, read_foreign_rows

    path = Path(given.rows)
    if path.is_dir():
        path = path / ROWS_FILE
    elif not path.exists():
        if path.suffix == ".parquet" or path.is_absolute():
            raise DataError(
                f"no rows at {path}: give an exported folder, a parquet file, or a dataset on the hub"
            )
        path = download(given.rows, ROWS_FILE, "dataset")
    theirs = read_foreign_rows(path)
    if given.suffix:
        theirs["scheme"] = theirs["scheme"] + f" ({given.suffix})"
    folder = given.results_dir / given.name
    names = [*([given.name] if (folder / ROWS_FILE).exists() else []), *given.beside]
    rows, known = theirs, 0
    if any(given.results_dir.glob("cells/*.parquet")) or find_experiments(given.results_dir):
        _, known = merge(collect_rows(given.results_dir), theirs, str(path))
    if not given.name:
        n_cells = theirs["cell_id"].nunique()
        n_stored = add_cells(RowStore(given.results_dir / "cells"), theirs, given.rows)
        print(
            f"{n_cells:,} cells of {given.rows}, {n_stored:,} of them added to {given.results_dir / 'cells'}"
        )
        return
    if names:
        rows, _ = merge(collect_rows(given.results_dir, names), theirs, str(path))
    metadata = {name: read_metadata(given.results_dir / name) for name in names}
    figures = dict.fromkeys(figure for one in metadata.values() for figure in one["figures"])
    note = joined_notes({name: one.get("caption_note", "") for name, one in metadata.items()})
    order = list(dict.fromkeys(rows["scheme"]))
    made_by = metadata.get(given.name, {}).get("command") or command
    save_experiment(folder, apply_gate(rows), order, list(figures), note, made_by)
    print(
        f"{theirs['cell_id'].nunique():,} cells of {given.rows}, of which {known:,} are here already: {folder} has "
        f"{len(rows):,} rows; posbench figures 'experiments=[{given.name}]' results_dir={given.results_dir} draws them"
    )


def joined_notes(notes: Mapping[str, str]) -> str:
    """Returns one note of captions for several experiments, given the note of each by its name.

    Sentences about fine-tuning come last, because captions search for them at the end. Repeated sentences are left out.
    """
    from posbench.report.tables.caption_text import TUNED

    heads, tuned = "", ""
    for name, note in notes.items():
        head, _, end = note.partition(TUNED)
        head, end = head.strip(), end.strip().removesuffix(".")
        if f" {head}" not in f" {heads}":
            heads = f"{heads} {name}: {head}" if heads else head
        if f" {end}" not in f" {tuned}":
            tuned = f"{tuned}, {end}" if tuned else end
    return " ".join(filter(None, [heads, f"{TUNED} {tuned}." if tuned else ""]))
