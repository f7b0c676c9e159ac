"""What the adapter of W&B does online, where tests have no network: runs, artifacts and reports."""

import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from posbench.config.schema import RuntimeSettings
from posbench.tracking import run as run_module
from posbench.tracking import tracker, wandb
from posbench.tracking.report import cells_table, log_report
from posbench.tracking.run import RunInfo
from posbench.tracking.wandb import WandbSettings, open_wandb_run


def info(folder: Path, id: str = "id") -> RunInfo:
    return RunInfo(id, "rope-64-0", "demo", "model", folder)


class FakeWandb(types.ModuleType):
    """Records what the adapter does online, where tests have no network."""

    def __init__(self) -> None:
        super().__init__("wandb")
        self.calls: list[tuple[str, Any]] = []
        self.Settings = dict
        self.Table = lambda dataframe: ("table", len(dataframe))
        self.Image = lambda path: ("image", Path(path).name)
        self.run = self

    offline = False

    def init(self, **arguments: Any) -> "FakeWandb":
        self.calls.append(("init", arguments))
        return self

    def Artifact(self, name: str, **arguments: Any) -> Any:
        self.calls.append(("artifact", (name, arguments["type"])))
        return types.SimpleNamespace(name=name, add_dir=lambda *args, **kwargs: None)

    @property
    def summary(self) -> dict[str, Any]:
        return {}

    def __getattr__(self, name: str) -> Callable[..., None]:
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *args, **kwargs: self.calls.append((name, args))


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeWandb:
    """W&B with a key, a thread and warnings of this test alone."""
    module = FakeWandb()
    monkeypatch.setattr(tracker, "_THREAD", tracker._Thread())
    monkeypatch.setattr(run_module, "_given", set())
    monkeypatch.setitem(sys.modules, "wandb", module)
    monkeypatch.setattr(wandb.time, "sleep", lambda seconds: None)
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_RUN_ID", "outside")
    for name in ("WANDB_MODE", "WANDB_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    return module


def test_online_a_run_is_resumed_by_the_id_of_its_model(fake: FakeWandb, tmp_path: Path) -> None:
    for _ in range(2):
        run = open_wandb_run(WandbSettings("online"), info(tmp_path, "model1"))
        assert run
        run.log_metrics("eval/length", 64, {"eval/perplexity/loss": 1.0})
        run.use_checkpoint("model-base")
        run.log_checkpoint(tmp_path, "model-model1", {})
        run.alert("diverged", "after 3 steps")
        run.finish(True)
    starts = [arguments for name, arguments in fake.calls if name == "init"]
    assert [(one["id"], one["resume"], one["mode"]) for one in starts] == [("model1", "allow", "online")] * 2
    defined = [arguments for name, arguments in fake.calls if name == "define_metric"]
    assert ("eval/*",) in defined
    assert ("log", ({"eval/length": 64, "eval/perplexity/loss": 1.0},)) in fake.calls
    assert ("use_artifact", ("model-base:latest",)) in fake.calls
    assert ("artifact", ("model-model1", "model")) in fake.calls
    assert ("alert", ("diverged", "after 3 steps")) in fake.calls


def test_a_base_model_that_is_not_on_the_server_is_one_warning(
    fake: FakeWandb, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Fault: one missing artifact stopped the tracking of the whole run or report."""

    def fail(name: str) -> None:
        raise ValueError("artifact not found")

    monkeypatch.setattr(fake, "use_artifact", fail, raising=False)
    runtime = RuntimeSettings(results_dir=str(tmp_path), wandb_mode="online")
    with tracker.open_run(runtime, info(tmp_path)) as run:
        run.use_checkpoint("model-base")
        run.use_checkpoint("model-other")
        run.log_summary({"status": "ok"})
        run.log_training(1, {"loss": 1.0})
    assert tracker._THREAD.wait(10)
    (line,) = [record.getMessage() for record in caplog.records]
    assert "the tracker leaves out which models a run reads (artifact not found)" in line
    assert [name for name, _ in fake.calls][-2:] == ["log", "finish"]


def test_a_worker_waits_until_others_have_uploaded_to_the_same_run(
    fake: FakeWandb, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fault: a worker waited 60 seconds for a run that another worker can hold for 120, and lost its evaluations."""
    waits: list[float] = []
    acquire = wandb.Lock.acquire

    def record(self: wandb.Lock, timeout: float) -> Any:
        waits.append(timeout)
        return acquire(self, timeout=timeout)

    monkeypatch.setattr(wandb.Lock, "acquire", record)
    run = open_wandb_run(WandbSettings("online"), info(tmp_path))
    assert run
    run.finish(True)
    (waited,) = waits
    assert waited >= 4 * wandb.UPLOAD_TIMEOUT


def rows() -> pd.DataFrame:
    cell = {"scheme": "rope", "task": "perplexity", "metric": "nll", "status": "ok"}
    return pd.DataFrame(
        [
            {"cell_id": "a", "eval_len": 64, "value_sum": 6.0, "n": 2, "doc_id": "1", **cell},
            {"cell_id": "a", "eval_len": 64, "value_sum": 2.0, "n": 2, "doc_id": "2", **cell},
            {"cell_id": "b", "eval_len": 128, "value_sum": None, "n": 0, "doc_id": "", **cell}
            | {"status": "out_of_memory"},
        ]
    )


def test_the_table_of_cells_has_a_line_for_each_metric() -> None:
    table = cells_table(rows())
    assert list(table["cell_id"]) == ["a", "b"]
    assert (table["mean"][0], table["n"][0]) == (2.0, 4)
    assert np.isnan(table["mean"][1])


def test_a_report_has_its_tables_figures_and_models(fake: FakeWandb, tmp_path: Path) -> None:
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "loss.csv").write_text("a,b\n1,2\n")
    paths = [
        tmp_path / "tables" / "loss.csv",
        tmp_path / "figures" / "loss.png",
        tmp_path / "figures" / "loss.pdf",
    ]
    log_report(
        rows(),
        paths,
        ["model-1"],
        "demo",
        {},
        RuntimeSettings(results_dir=str(tmp_path), wandb_mode="online"),
    )
    assert tracker._THREAD.wait(10)
    logged = [arguments[0] for name, arguments in fake.calls if name == "log"]
    assert logged == [
        {"tables/cells": ("table", 2)},
        {"tables/loss": ("table", 1)},
        {"figures/loss": ("image", "loss.png")},
    ]
    assert ("use_artifact", ("model-1:latest",)) in fake.calls
