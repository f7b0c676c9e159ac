"""Report of an experiment: tables and figures, redrawn if rows, settings or code have changed."""

import gc
import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

import pandas as pd

from posbench import checksums
from posbench.errors import ConfigError
from posbench.files import write_bytes, write_text

STAMP = "report.json"
_log = logging.getLogger(__name__)


def write_report(
    rows: pd.DataFrame,
    figure_configs: Sequence[Mapping[str, Any]],
    out: Path | str,
    order: Sequence[str] = (),
    note: str = "",
) -> list[Path]:
    """Writes tables/ and figures/ under `out` and returns the paths of all files, redrawn or not.

    Equal rows, settings and code give equal bytes. A figure without rows is skipped with a warning. Files of an
    earlier report that are no longer part of it are deleted.

    Args:
        order: schemes in the order of tables and legends.
        note: sentence at the end of the captions of tables.

    Raises:
        ConfigError: a figure has invalid settings, or the folder cannot be written.
    """
    out = Path(out)
    # Strings as categories are grouped by their integer codes, which is most of the work.
    rows = rows.astype(dict.fromkeys(rows.select_dtypes("str"), "category"))
    inputs = _inputs(rows, figure_configs, [*order, note] if note else order)
    before = _stamp(out)
    paths = [out / name for name in before["outputs"]]
    if before["inputs"] != inputs or any(
        _digest(out / name) != seen for name, seen in before["outputs"].items()
    ):
        left_out: list[str] = []
        gc.freeze()  # excludes everything imported from garbage collection, 4% of the time
        try:
            # Tables have no settings: they mix kernels if a figure of the report may.
            mix_kernels = any(config.get("mix_kernels") for config in figure_configs)
            written = _tables(rows, out / "tables", order, mix_kernels, note)
            written += _figures(rows, figure_configs, out / "figures", order, left_out)
            for path in set(paths) - set(written):
                path.unlink(missing_ok=True)
            outputs = {str(path.relative_to(out)): _digest(path) for path in written}
            before = {"inputs": inputs, "left_out": left_out, "outputs": outputs}
            write_bytes(out / STAMP, checksums.dump_json(before))
        except OSError as error:
            raise ConfigError(
                f"cannot write {out} ({error.strerror or error}): choose a folder that can be written"
            ) from None
        paths = written
    for reason in before["left_out"]:
        _log.warning("%s", reason)
    return paths


def _tables(
    rows: pd.DataFrame, folder: Path, order: Sequence[str], mix_kernels: bool, note: str
) -> list[Path]:
    # Slow to import, and not needed where nothing changed.
    from posbench.report.tables.layout import build_tables
    from posbench.report.tables.markup import to_latex, to_markdown

    folder.mkdir(parents=True, exist_ok=True)
    texts = {}
    found = list(build_tables(rows, order, mix_kernels))
    if note:
        found = [replace(table, caption=f"{table.caption} {note}") for table in found]
    for table in found:
        texts[f"{table.name}.md"] = to_markdown(table)
        texts[f"{table.name}.tex"] = to_latex(table)
        texts[f"{table.name}.csv"] = _csv(table.numbers)
    for name, text in texts.items():
        write_text(folder / name, text)
    return [folder / name for name in texts]


def _figures(
    rows: pd.DataFrame,
    configs: Sequence[Mapping[str, Any]],
    folder: Path,
    order: Sequence[str],
    left_out: list[str],
) -> list[Path]:
    from posbench.report.figures import draw_from_data
    from posbench.report.figures.figure_data import FigureData, MissingRowsError

    paths = []
    data = FigureData.of(rows, order)
    for config in configs:
        try:
            paths += draw_from_data(config, data, folder)
        except MissingRowsError as reason:
            left_out.append(f"figure {config['name']} is left out: {reason}")
    return paths


def _inputs(rows: pd.DataFrame, configs: Sequence[Mapping[str, Any]], order: Sequence[str]) -> str:
    """Returns a hash of everything that determines the report: rows, settings, this code, matplotlib's version."""
    digest = hashlib.sha256(pd.util.hash_pandas_object(rows, index=False).to_numpy().tobytes())
    settings = [list(rows.columns), [dict(config) for config in configs], list(order)]
    digest.update(json.dumps([*settings, version("matplotlib")], sort_keys=True, default=str).encode())
    report, results = files("posbench.report"), files("posbench.results")
    for folder in (report, report / "tables", report / "figures"):
        for file in sorted(folder.iterdir(), key=lambda each: each.name):
            if file.name.endswith((".mplstyle", ".py")):
                digest.update(file.read_bytes())
    for name in ("rows.py", "statistics.py", "gate.py"):
        digest.update((results / name).read_bytes())
    return digest.hexdigest()


def _stamp(out: Path) -> dict[str, Any]:
    try:
        stamp = checksums.read_json(out / STAMP)
        return {key: stamp[key] for key in ("inputs", "left_out", "outputs")}
    except (OSError, ValueError, KeyError, TypeError):
        return {"inputs": "", "left_out": [], "outputs": {}}


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""


def _csv(frame: pd.DataFrame) -> str:
    return frame.to_csv(index=False, float_format="%.8g", lineterminator="\n")
