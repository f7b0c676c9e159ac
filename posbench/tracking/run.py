"""The interface of the adapters of trackers, and the description of a run."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import pandas as pd

_log = logging.getLogger("posbench.tracking")
# Warnings of this process, each of which is given once.
_given: set[str] = set()


@dataclass(frozen=True)
class RunInfo:
    """The description of a run.

    Attributes:
        id: of the model, whose training and evaluations are one run; of the experiment for a report.
        name: name to display, scheme-length-seed.
        group: name of the experiment.
        job_type: model or report.
        results_dir: results folder, below which trackers write their own folder.
        project: project of W&B or trackio; empty is the default.
        config: resolved settings.
    """

    id: str
    name: str
    group: str
    job_type: str
    results_dir: Path
    project: str = ""
    config: Mapping[str, Any] = field(default_factory=dict)


class Tracker(Protocol):
    """An open run of a tracker. Every method may raise or take long; posbench.tracking.tracker guards the callers."""

    def log_metrics(self, axis: str, at: int, metrics: Mapping[str, float]) -> None:
        """Logs metrics against an axis, train/step or eval/length."""

    def log_table(self, name: str, frame: pd.DataFrame) -> None:
        """Logs a table."""

    def log_figures(self, paths: Iterable[Path]) -> None:
        """Logs PNG files as images of their names."""

    def log_checkpoint(self, folder: Path, name: str, metadata: Mapping[str, Any]) -> None:
        """Logs the folder of a trained model."""

    def use_checkpoint(self, name: str) -> None:
        """Records that this run reads a model that another run has logged."""

    def log_summary(self, numbers: Mapping[str, Any]) -> None:
        """Sets values of the summary of the run."""

    def alert(self, title: str, text: str) -> None:
        """Sends an alert to the user."""

    def finish(self, succeeded: bool) -> None:
        """Ends the run."""


def warn(consequence: str, error: object) -> None:
    """Warns in one line, once per process for each consequence."""
    line = " ".join(str(error).split()) or type(error).__name__
    if consequence not in _given:
        _given.add(consequence)
        _log.warning(
            "the tracker %s (%s); results are in files as always, runtime.tracker=none silences this",
            consequence,
            line,
        )
