"""TensorBoard event files, in results/tensorboard/<run>. `tensorboard --logdir results/tensorboard` shows them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posbench.tracking.run import RunInfo

if TYPE_CHECKING:
    import pandas as pd


class TensorBoardRun:
    """A folder of event files; each process adds a file of its own."""

    def __init__(self, info: RunInfo) -> None:
        from torch.utils.tensorboard import SummaryWriter

        folder = info.results_dir / "tensorboard" / f"{info.name}-{info.id}"
        self._writer = SummaryWriter(str(folder))
        self._add_text("config", json.dumps(dict(info.config), indent=1, default=str))

    def log_metrics(self, axis: str, at: int, metrics: Mapping[str, float]) -> None:
        """Logs metrics, with their place on the axis as the step."""
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, at)

    def log_table(self, name: str, frame: pd.DataFrame) -> None:
        """Logs a table as text."""
        self._add_text(f"tables/{name}", frame.to_csv(index=False))

    def log_figures(self, paths: Iterable[Path]) -> None:
        """Logs PNG files as images of their names."""
        from matplotlib.image import imread

        for path in paths:
            self._writer.add_image(f"figures/{path.stem}", imread(path), dataformats="HWC")

    def log_checkpoint(self, folder: Path, name: str, metadata: Mapping[str, Any]) -> None:
        """Does nothing: TensorBoard has no files."""

    def use_checkpoint(self, name: str) -> None:
        """Does nothing."""

    def log_summary(self, numbers: Mapping[str, Any]) -> None:
        """Logs values as text."""
        self._add_text("summary", json.dumps(dict(numbers), indent=1, default=str))

    def alert(self, title: str, text: str) -> None:
        """Logs an alert as text."""
        self._add_text("alerts", f"{title}: {text}")

    def finish(self, succeeded: bool) -> None:
        """Ends the file."""
        self._writer.close()

    def _add_text(self, name: str, text: str) -> None:
        self._writer.add_text(name, "\n".join(f"    {line}" for line in text.splitlines()))  # as it is
