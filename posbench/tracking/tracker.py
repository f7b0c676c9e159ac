"""Trackers as write-only mirrors: results are in files, nothing is read back, and no tracker stops or slows a run.

Every call of a tracker is made by one background thread, in order, so that a slow or dead network costs nothing. Its
errors become one warning, after which nothing more of that run is mirrored. At its end, a process waits at most
EXIT_TIMEOUT for what is left.
"""

from __future__ import annotations

import atexit
import queue
import threading
from collections.abc import Callable, Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posbench.config.schema import TRACKERS, RuntimeSettings
from posbench.errors import ConfigError, unknown
from posbench.tracking.run import RunInfo, Tracker, warn
from posbench.tracking.wandb import WandbSettings, open_wandb_run

if TYPE_CHECKING:
    import pandas as pd

EXIT_TIMEOUT = 30.0  # seconds
MAX_CALLS = 10_000  # calls that wait for the thread; more are dropped

Open = Callable[[RunInfo], Tracker | None]


def check_tracker(runtime: RuntimeSettings) -> None:
    """Raises ConfigError for a tracker that does not exist or is not installed."""
    if runtime.tracker not in TRACKERS:
        raise unknown("runtime.tracker", runtime.tracker, TRACKERS)
    WandbSettings(runtime.wandb_mode)
    if runtime.tracker in ("trackio", "tensorboard") and not find_spec(runtime.tracker):
        raise ConfigError(
            f"runtime.tracker {runtime.tracker} is not installed: run pip install -e '.[{runtime.tracker}]' in the clone, or "
            "give runtime.tracker=none"
        )


def open_run(runtime: RuntimeSettings, info: RunInfo, open_tracker: Open | None = None) -> TrackedRun:
    """Returns a run of the tracker of runtime.tracker.

    Args:
        open_tracker: opens the tracker, in place of that of runtime.tracker.
    """
    if runtime.tracker == "none" and open_tracker is None:
        return TrackedRun(None, info)
    return TrackedRun(open_tracker or _open_by_name(runtime), info)


def _open_by_name(runtime: RuntimeSettings) -> Open | None:
    if runtime.tracker == "trackio":
        from posbench.tracking.trackio import TrackioRun

        return TrackioRun
    if runtime.tracker == "tensorboard":
        from posbench.tracking.tensorboard import TensorBoardRun

        return TensorBoardRun
    settings = WandbSettings(runtime.wandb_mode, runtime.wandb_project)
    return None if settings.resolved() == "disabled" else lambda info: open_wandb_run(settings, info)


class TrackedRun:
    """A run whose calls return at once and never raise. It is opened by its first call."""

    def __init__(self, open_tracker: Open | None, info: RunInfo) -> None:
        self._open, self._info = open_tracker, info
        self._opened = False
        self._run: Tracker | None = None

    def __enter__(self) -> TrackedRun:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._submit(lambda run: run.finish(kind is None), ends=True)

    def log_training(self, step: int, metrics: Mapping[str, float]) -> None:
        """Logs training metrics against train/step."""
        metrics = {f"train/{name}": value for name, value in metrics.items()}
        self._submit(lambda run: run.log_metrics("train/step", step, metrics))

    def log_evaluation(self, length: int, metrics: Mapping[str, float]) -> None:
        """Logs evaluation metrics against eval/length, in tokens."""
        metrics = {f"eval/{name}": value for name, value in metrics.items()}
        self._submit(lambda run: run.log_metrics("eval/length", length, metrics))

    def log_table(self, name: str, frame: pd.DataFrame) -> None:
        """Logs a table."""
        self._submit(lambda run: run.log_table(name, frame))

    def log_figures(self, paths: Iterable[Path]) -> None:
        """Logs PNG files as images of their names; skips other files, such as their PDF versions."""
        if images := [path for path in paths if path.suffix == ".png"]:
            self._submit(lambda run: run.log_figures(images))

    def log_checkpoint(self, folder: Path, name: str, metadata: Mapping[str, Any]) -> None:
        """Logs the folder of a trained model."""
        self._submit(lambda run: run.log_checkpoint(folder, name, metadata))

    def use_checkpoint(self, name: str) -> None:
        """Records that this run reads a model that another run has logged."""
        self._submit(lambda run: run.use_checkpoint(name))

    def log_summary(self, numbers: Mapping[str, Any]) -> None:
        """Sets values of the summary of the run."""
        self._submit(lambda run: run.log_summary(numbers))

    def alert(self, title: str, text: str) -> None:
        """Sends an alert to the user."""
        self._submit(lambda run: run.alert(title, text))

    def _submit(self, call: Callable[[Tracker], object], ends: bool = False) -> None:
        if self._open is not None:
            _THREAD.submit(lambda: self._call(call, ends))

    def _call(self, call: Callable[[Tracker], object], ends: bool) -> None:
        """Opens the run unless it is open, and makes a call; in the thread."""
        try:
            if self._open is not None and not self._opened and not ends:
                self._opened = True
                self._run = self._open(self._info)
                _THREAD.wait_before_other_hooks()
            if self._run is not None:
                call(self._run)
        except Exception as error:
            warn("mirrors nothing more of this run" if self._run else "mirrors nothing of this run", error)
            self._run = None


class _Thread:
    """A daemon thread that makes calls in order."""

    def __init__(self) -> None:
        self._calls: queue.Queue[Callable[[], None]] = queue.Queue(MAX_CALLS)
        self._started = False

    def submit(self, call: Callable[[], None]) -> None:
        """Adds a call, or drops it if too many wait."""
        if not self._started:
            self._started = True
            atexit.register(self.wait_at_exit)
            threading.Thread(target=self._work, name="tracker", daemon=True).start()
        try:
            self._calls.put_nowait(call)
        except queue.Full:
            warn("is too slow, some of its metrics are left out", f"{MAX_CALLS} calls wait")

    def wait(self, timeout: float) -> bool:
        """Waits until all calls are made; returns False after `timeout` seconds."""
        with self._calls.all_tasks_done:
            return self._calls.all_tasks_done.wait_for(lambda: not self._calls.unfinished_tasks, timeout)

    def wait_at_exit(self) -> None:
        """Waits for what is left, at most EXIT_TIMEOUT."""
        if not self.wait(EXIT_TIMEOUT):
            warn(
                "is too slow, the rest of its metrics is left out", f"more than {EXIT_TIMEOUT:g} s at the end"
            )

    def wait_before_other_hooks(self) -> None:
        """Puts the wait before the exit hooks of the tracker, which close it; hooks run in reverse order."""
        atexit.unregister(self.wait_at_exit)
        atexit.register(self.wait_at_exit)

    def _work(self) -> None:
        while True:
            call = self._calls.get()
            call()
            self._calls.task_done()


_THREAD = _Thread()


def wait_for_calls() -> None:
    """Waits for what is left, at most EXIT_TIMEOUT, in a process that ends without exit hooks."""
    _THREAD.wait_at_exit()
