"""trackio, Hugging Face's local tracker; the only module that imports trackio. `trackio show` displays its runs."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posbench.tracking.run import RunInfo

if TYPE_CHECKING:
    import pandas as pd


class TrackioRun:
    """A run of trackio, in the folder trackio of the results folder unless TRACKIO_DIR is set."""

    def __init__(self, info: RunInfo) -> None:
        os.environ.setdefault("TRACKIO_DIR", str(info.results_dir.resolve() / "trackio"))
        self._trackio = importlib.import_module("trackio")
        # It reports to stdout, which belongs to the command; redirecting stdout would hide the command's lines too.
        for name in ("trackio", "trackio.run", "trackio.utils"):
            importlib.import_module(name).print = lambda *_, **__: None  # type: ignore[attr-defined]
        self._run = self._trackio.init(
            project=info.project or "posbench",
            name=f"{info.name}-{info.id}",  # a run is found again by its name
            group=info.group,
            config=dict(info.config),
            resume="allow",
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )

    def log_metrics(self, axis: str, at: int, metrics: Mapping[str, float]) -> None:
        """Logs metrics, with their place on the axis as the step."""
        self._run.log(dict(metrics), step=at)

    def log_table(self, name: str, frame: pd.DataFrame) -> None:
        """Logs a table."""
        self._run.log({f"tables/{name}": self._trackio.Table(dataframe=frame.reset_index(drop=True))})

    def log_figures(self, paths: Iterable[Path]) -> None:
        """Logs PNG files as images of their names."""
        self._run.log({f"figures/{path.stem}": self._trackio.Image(path) for path in paths})

    def log_checkpoint(self, folder: Path, name: str, metadata: Mapping[str, Any]) -> None:
        """Does nothing: checkpoints are in the results folder, on the same machine."""

    def use_checkpoint(self, name: str) -> None:
        """Does nothing."""

    def log_summary(self, numbers: Mapping[str, Any]) -> None:
        """Logs numbers; trackio has no summary."""
        self._run.log({f"summary/{name}": value for name, value in numbers.items()})

    def alert(self, title: str, text: str) -> None:
        """Sends an alert to the user."""
        self._trackio.alert(title, text, level=self._trackio.AlertLevel.ERROR)

    def finish(self, succeeded: bool) -> None:
        """Ends the run."""
        self._run.finish()
