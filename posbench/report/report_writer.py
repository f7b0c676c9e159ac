"""Report of an experiment: tables and figures, redrawn if rows, settings or code have changed."""

import gc
import hashlib
import json
import logging
import re
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

import pandas as pd

from posbench import checksums
from posbench.errors import ConfigError, DataError
from posbench.files import staged, write_bytes
from posbench.instantiate import locate

STAMP = "report.json"
FOLDERS = TABLES, FIGURES = "tables", "figures"
_OWN = re.compile(rf"({TABLES}|{FIGURES})/(?!\.)[^/\\\0]+")  # names of the files of a report
# Code outside of this package that determines the content of a report.
CODE = (
    "escaping.py",
    "config/lengths.py",
    "results/gate.py",
    "results/repeated_cells.py",
    "results/rows.py",
    "results/statistics.py",
)
_log = logging.getLogger(__name__)


def write_report(
    rows: pd.DataFrame,
    figure_configs: Sequence[Mapping[str, Any]],
    out: Path | str,
    order: Sequence[str] = (),
    note: str = "",
) -> list[Path]:
    """Writes tables/ and figures/ under `out` and returns the paths of all files, redrawn or not.

    Equal rows, settings and code give equal bytes. A figure without rows is skipped with a warning. The files are
    drawn beside the report and replace it once all of them are there. Files of an earlier report that are no longer
    part of it are deleted.

    Args:
        order: schemes in the order of tables and legends.
        note: sentence at the end of all captions.

    Raises:
        ConfigError: a figure has invalid settings, or the folder cannot be written.
        DataError: rows of different models or evaluations have the same labels.
    """
    out = Path(out)
    rows = rows.astype(dict.fromkeys(rows.select_dtypes("str"), "category"))
    inputs = _inputs(rows, figure_configs, [*order, note] if note else order)
    before = _stamp(out)
    paths = [out / name for name in before["outputs"]]
    if before["inputs"] != inputs or any(
        _digest(out / name) != seen for name, seen in before["outputs"].items()
    ):
        left_out: list[str] = []
        gc.disable()  # a few figures need no collection, which takes 7% of the time
        try:
            # Tables have no settings: they mix kernels if a figure of the report may.
            mix_kernels = any(config.get("mix_kernels") for config in figure_configs)
            with staged(out, FOLDERS) as drawn:
                written = _tables(rows, drawn / TABLES, order, mix_kernels, note)
                written += _figures(rows, figure_configs, drawn / FIGURES, order, left_out, note)
                outputs = {f"{path.parent.name}/{path.name}": _digest(path) for path in written}
            for name in before["outputs"].keys() - outputs.keys():
                _remove(out / name)
            before = {"inputs": inputs, "left_out": left_out, "outputs": outputs}
            write_bytes(out / STAMP, checksums.dump_json(before))
        except OSError as error:
            raise ConfigError(
                f"cannot write {out} ({error.strerror or error}): choose a folder that can be written"
            ) from None
        finally:
            gc.enable()
        paths = [out / name for name in outputs]
    for reason in before["left_out"]:
        _log.warning("%s", reason)
    return paths


def _tables(
    rows: pd.DataFrame, folder: Path, order: Sequence[str], mix_kernels: bool, note: str
) -> list[Path]:
    # Slow to import, and not needed where nothing changed.
    from posbench.report.tables.layout import build_tables
    from posbench.report.tables.markup import to_csv, to_latex, to_markdown

    texts = {}
    for table in build_tables(rows, order, mix_kernels, note):
        if f"{table.name}.md" in texts:
            raise DataError(
                f"two tables have the name {table.name}: give the corpora, sizes or variants other names"
            )
        texts[f"{table.name}.md"] = to_markdown(table)
        texts[f"{table.name}.tex"] = to_latex(table)
        texts[f"{table.name}.csv"] = to_csv(table.numbers)
    for name, text in texts.items():
        (folder / name).write_bytes(text.encode())
    return [folder / name for name in texts]


def _figures(
    rows: pd.DataFrame,
    configs: Sequence[Mapping[str, Any]],
    folder: Path,
    order: Sequence[str],
    left_out: list[str],
    note: str,
) -> list[Path]:
    from posbench.report.figures import draw_from_data
    from posbench.report.figures.figure_data import FigureData, MissingRowsError
    from posbench.report.tables.captions import captions_with

    paths = []
    data = FigureData.of(rows, order)
    for name, count in Counter(config.get("name") for config in configs).items():
        if count > 1:
            raise ConfigError(
                f"two figures have the name {name}: give each yaml of configs/figure another name:"
            )
    with captions_with(note):
        for config in configs:
            try:
                paths += draw_from_data(config, data, folder)
            except MissingRowsError as reason:
                left_out.append(f"figure {config['name']} is left out: {reason}")
    return paths


def _inputs(rows: pd.DataFrame, configs: Sequence[Mapping[str, Any]], order: Sequence[str]) -> str:
    """Returns a hash of everything that determines the report: rows, settings, code, matplotlib's version."""
    digest = hashlib.sha256(pd.util.hash_pandas_object(rows, index=False).to_numpy().tobytes())
    settings = [list(rows.columns), [dict(config) for config in configs], list(order)]
    digest.update(json.dumps([*settings, version("matplotlib")], sort_keys=True, default=str).encode())
    package = files("posbench")
    report = package / "report"
    for folder in (report, report / "tables", report / "figures"):
        for file in sorted(folder.iterdir(), key=lambda each: each.name):
            if file.name.endswith((".mplstyle", ".py", ".yaml")):
                digest.update(file.read_bytes())
    for name in CODE:
        digest.update((package / name).read_bytes())
    for config in configs:
        draw = config.get("draw")
        if isinstance(draw, str) and not draw.startswith("posbench."):
            locate(draw, "draw")
            module = sys.modules[draw.rpartition(".")[0]]
            digest.update(Path(str(module.__file__)).read_bytes() if module.__file__ else b"")
    return digest.hexdigest()


def _stamp(out: Path) -> dict[str, Any]:
    try:
        stamp = checksums.read_json(out / STAMP)
        # A results folder can come from others: nothing outside the two folders of a report is one of its files.
        outputs = {name: str(digest) for name, digest in stamp["outputs"].items() if _OWN.fullmatch(name)}
        return {"inputs": stamp["inputs"], "left_out": list(stamp["left_out"]), "outputs": outputs}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {"inputs": "", "left_out": [], "outputs": {}}


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""


def _remove(path: Path) -> None:
    """Removes a file of a report, or a link in its place, but nothing behind a link."""
    if not path.parent.is_symlink() and (path.is_symlink() or path.is_file()):
        path.unlink(missing_ok=True)
