"""What the adapter of trackio writes, with a module in the place of trackio that records its calls."""

import os
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from posbench.config.schema import RuntimeSettings
from posbench.tracking import run as run_module
from posbench.tracking import tracker
from posbench.tracking.run import RunInfo


class FakeTrackio(types.ModuleType):
    """Records what the adapter does, and prints as trackio does."""

    AlertLevel = types.SimpleNamespace(ERROR="error")

    def __init__(self) -> None:
        super().__init__("trackio")
        self.calls: list[tuple[Any, ...]] = []
        self.print: Callable[..., None] = print
        self.Table = lambda dataframe: ("table", list(dataframe.index))
        self.Image = lambda path: ("image", path.name)

    def init(self, **arguments: Any) -> "FakeTrackio":
        self.print("* Trackio project initialized")
        self.calls.append(("init", arguments))
        return self

    def log(self, metrics: dict[str, Any], step: int | None = None) -> None:
        self.calls.append(("log", metrics, step))

    def alert(self, title: str, text: str, level: str) -> None:
        self.calls.append(("alert", title, text, level))

    def finish(self) -> None:
        self.print("* Run finished")
        self.calls.append(("finish",))


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeTrackio:
    """trackio, with a thread and warnings of this test alone."""
    module = FakeTrackio()
    for name in ("trackio.run", "trackio.utils"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, "trackio", module)
    monkeypatch.setattr(tracker, "_THREAD", tracker._Thread())
    monkeypatch.setattr(run_module, "_given", set())
    monkeypatch.setenv("TRACKIO_DIR", "")  # restored after the test
    monkeypatch.delenv("TRACKIO_DIR")
    return module


def test_a_run_is_resumed_by_its_name_and_its_metrics_have_steps(
    fake: FakeTrackio,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Fault: where trackio is not installed, an adapter that starts a second run or drops the steps passed unnoticed."""
    info = RunInfo("id", "rope-64-0", "demo", "model", tmp_path, config={"train": {"seq_len": 64}})
    with tracker.open_run(RuntimeSettings(tracker="trackio"), info) as run:
        run.log_training(1, {"loss": 1.0})
        run.log_evaluation(64, {"loss": 2.0})
        run.log_table("cells", pd.DataFrame({"scheme": ["rope"]}, index=[7]))
        run.log_figures([tmp_path / "loss.png"])
        run.log_checkpoint(tmp_path, "model-id", {})
        run.use_checkpoint("model-base")
        run.log_summary({"status": "ok"})
        run.alert("diverged", "after 3 steps")
    assert tracker._THREAD.wait(10)
    assert not caplog.records
    (_, started), *calls = fake.calls
    assert started == {
        "project": "posbench",
        "name": "rope-64-0-id",
        "group": "demo",
        "config": {"train": {"seq_len": 64}},
        "resume": "allow",
        "embed": False,
        "auto_log_gpu": False,
        "auto_log_cpu": False,
    }
    assert calls == [
        ("log", {"train/loss": 1.0}, 1),
        ("log", {"eval/loss": 2.0}, 64),
        ("log", {"tables/cells": ("table", [0])}, None),
        ("log", {"figures/loss": ("image", "loss.png")}, None),
        ("log", {"summary/status": "ok"}, None),
        ("alert", "diverged", "after 3 steps", "error"),
        ("finish",),
    ]
    assert os.environ["TRACKIO_DIR"] == str(tmp_path / "trackio")
    assert capfd.readouterr().out == "", "stdout belongs to the command"
