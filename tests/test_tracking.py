"""Trackers: no error, delay or absence of one changes a run; what each adapter writes, without a network."""

import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pandas as pd
import pytest

from posbench.config.schema import RuntimeSettings
from posbench.errors import ConfigError
from posbench.tracking import run as run_module
from posbench.tracking import tracker
from posbench.tracking.report import cell_means
from posbench.tracking.run import RunInfo


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A thread and warnings of this test alone, and no key of the user."""
    monkeypatch.setattr(tracker, "_THREAD", tracker._Thread())
    monkeypatch.setattr(run_module, "_given", set())
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)


def info(folder: Path, id: str = "id") -> RunInfo:
    return RunInfo(id, "rope-64-0", "demo", "model", folder, config={"train": {"seq_len": 64}})


class Recorder:
    """Records calls; each method sleeps or raises first, as it is made."""

    def __init__(self, before: Callable[[str], None] = lambda name: None) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.before = before

    def __getattr__(self, name: str) -> Callable[..., None]:
        def call(*args: Any) -> None:
            self.before(name)
            self.calls.append((name, *args))

        return call


def every_call(run: tracker.TrackedRun) -> None:
    run.log_training(1, {"loss": 1.0})
    run.log_evaluation(64, {"loss": 1.0})
    run.log_summary({"status": "ok"})
    run.alert("diverged", "after 3 steps")


def test_calls_arrive_in_order(tmp_path: Path) -> None:
    recorder: Any = Recorder()
    with tracker.open_run(RuntimeSettings(), info(tmp_path), lambda info: recorder) as run:
        every_call(run)
    assert tracker._THREAD.wait(10)
    assert recorder.calls == [
        ("log_metrics", "train/step", 1, {"train/loss": 1.0}),
        ("log_metrics", "eval/length", 64, {"eval/loss": 1.0}),
        ("log_summary", {"status": "ok"}),
        ("alert", "diverged", "after 3 steps"),
        ("finish", True),
    ]


@pytest.mark.parametrize("where", ["open", "log_metrics", "finish"])
def test_a_tracker_that_raises_gives_one_warning_and_stops_nothing(
    where: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Fault: an error while a run was opened or closed could end a training."""

    def fail(name: str) -> None:
        if name == where:
            raise RuntimeError("no\nnetwork")

    def open_tracker(info: RunInfo) -> Any:
        fail("open")
        return Recorder(fail)

    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            with tracker.open_run(RuntimeSettings(), info(tmp_path), open_tracker) as run:
                every_call(run)
        assert tracker._THREAD.wait(10)
    (line,) = [record.getMessage() for record in caplog.records]
    assert "no network" in line
    assert "runtime.tracker=none silences this" in line
    assert "\n" not in line


def test_a_tracker_that_sleeps_delays_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Fault: the start of every run waited up to 15 seconds for a server that does not answer, its end 120."""
    monkeypatch.setattr(tracker, "EXIT_TIMEOUT", 0.2)
    monkeypatch.setattr(tracker, "MAX_CALLS", 100)
    monkeypatch.setattr(tracker, "_THREAD", tracker._Thread())
    began, network = time.monotonic(), threading.Event()
    recorder: Any = Recorder(lambda name: network.wait(30))
    with tracker.open_run(RuntimeSettings(), info(tmp_path), lambda info: recorder) as run:
        for _ in range(1000):
            every_call(run)
    tracker._THREAD.wait_at_exit()
    assert time.monotonic() - began < 2
    network.set()
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 2
    assert all("the tracker is too slow" in line for line in lines)


SLEEPER = """
import sys, time
from pathlib import Path
from posbench.config.schema import RuntimeSettings
from posbench.tracking import tracker
from posbench.tracking.run import RunInfo
tracker.EXIT_TIMEOUT = 0.3
def opener(info):
    time.sleep(3600)
with tracker.open_run(RuntimeSettings(), RunInfo("id", "n", "g", "model", Path(".")), opener) as run:
    run.log_training(1, {})
"""


def test_a_process_ends_although_its_tracker_hangs() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SLEEPER], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stderr.count("\n") == 1
    assert "the tracker is too slow" in done.stderr


def test_a_tracker_that_is_not_there_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracker, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"runtime.tracker trackio is not installed: run pip install -e"):
        tracker.check_tracker(RuntimeSettings(tracker="trackio"))
    tracker.check_tracker(RuntimeSettings(tracker="wandb"))
    with pytest.raises(
        ConfigError, match=r"unknown runtime.tracker 'mlflow': choose one of none, tensorboard"
    ):
        tracker.check_tracker(RuntimeSettings(tracker="mlflow"))


def measured(**columns: Any) -> dict[str, Any]:
    cell = {
        "task": "repetition",
        "protocol": "teacher_forced",
        "variant": "",
        "metric": "nll",
        "status": "ok",
    }
    return {**cell, "value_sum": 3.0, "n": 2, **columns}


def test_variants_of_a_task_have_names_of_their_own() -> None:
    """Fault: natural and repeated text had one name, so a chart had two values at one length."""
    names = {
        variant: list(cell_means(pd.DataFrame([measured(variant=variant)]), extension))
        for variant, extension in (("natural", "none"), ("repeated", "pi"), ("", "none"))
    }
    assert names == {
        "natural": ["repetition/teacher_forced/natural/nll"],
        "repeated": ["repetition+pi/teacher_forced/repeated/nll"],
        "": ["repetition/teacher_forced/nll"],
    }


def test_a_metric_without_values_has_no_mean() -> None:
    """Fault: ZeroDivisionError ended the job."""
    found = cell_means(pd.DataFrame([measured(), measured(metric="accuracy", value_sum=None, n=0)]), "none")
    assert found == {"repetition/teacher_forced/nll": 1.5}


def write_everything(name: str, folder: Path) -> None:
    image = folder / "loss.png"
    matplotlib.image.imsave(image, np.zeros((4, 4)))
    with tracker.open_run(RuntimeSettings(tracker=name), info(folder)) as run:
        every_call(run)
        run.log_table("cells", pd.DataFrame({"scheme": ["rope"]}))
        run.log_figures([image])
        run.log_checkpoint(folder, "model-id", {})
        run.use_checkpoint("model-base")
    assert tracker._THREAD.wait(60)


def test_tensorboard_has_scalars_tables_and_figures(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    write_everything("tensorboard", tmp_path)
    assert not caplog.records
    found = accumulator.EventAccumulator(str(tmp_path / "tensorboard" / "rope-64-0-id"))
    found.Reload()
    assert [(one.step, one.value) for one in found.Scalars("eval/loss")] == [(64, 1.0)]
    assert found.Tags()["images"] == ["figures/loss"]
    assert {tag.removesuffix("/text_summary") for tag in found.Tags()["tensors"]} == {
        *("config", "summary", "alerts", "tables/cells")
    }


def test_trackio_has_the_metrics(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    if not tracker.find_spec("trackio"):
        pytest.skip("trackio is not installed")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    write_everything("trackio", tmp_path)
    assert list((tmp_path / "trackio").glob("*.db"))
    assert capfd.readouterr().out == ""
