"""The adapter of W&B: content of an offline run, a dead network, and settings of the run around this process."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import matplotlib.image
import numpy as np
import pandas as pd
import pytest

from posbench.errors import ConfigError
from posbench.tracking.run import RunInfo
from posbench.tracking.wandb import WandbRun, WandbSettings, find_key, open_wandb_run

KEY = "0123456789abcdef" * 3


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Removes the key, the netrc and the settings of the user who runs the tests."""
    for name in [name for name in os.environ if name.startswith("WANDB")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))


def begin(folder: Path, id: str = "c7ce8e88646e3ac8") -> WandbRun:
    info = RunInfo(id, "rope-64-0", "demo", "model", folder, config={"train": {"seq_len": 64}})
    run = open_wandb_run(WandbSettings(), info)
    assert run
    return run


def run_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("wandb/wandb/offline-run-*/run-*.wandb"))


def records(path: Path) -> Iterator:
    """Yields the records of an offline run: 7 bytes, then LevelDB log blocks, a private format of W&B."""
    from wandb.proto import wandb_internal_pb2

    data, at, parts = path.read_bytes(), 7, b""
    while at + 7 <= len(data):
        left = 32768 - at % 32768
        if left < 7:  # too short for a chunk's header: zeros to the block's end
            at += left
            continue
        length, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        if at + 7 + length > len(data):  # W&B's process still writes
            return
        parts += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            record = wandb_internal_pb2.Record()
            record.ParseFromString(parts)
            parts = b""
            yield record


def finished_records(path: Path) -> list:
    """Returns the records of an offline run that has ended, whose last one W&B's process may write a moment later."""
    end = time.monotonic() + 120
    while True:
        found = list(records(path))
        if found and found[-1].WhichOneof("record_type") == "exit":
            return found
        assert time.monotonic() < end, "no exit is recorded"
        time.sleep(0.1)


def values(items: Iterable) -> dict[str, object]:
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}


def test_an_offline_run_has_everything(tmp_path: Path) -> None:
    checkpoint, figure = tmp_path / "final" / "model.safetensors", tmp_path / "loss.png"
    checkpoint.parent.mkdir()
    checkpoint.write_bytes(b"weights")
    matplotlib.image.imsave(figure, np.zeros((4, 4)))

    run = begin(tmp_path / "results")
    for step in range(1000):  # enough for records to cross a block
        run.log_metrics("train/step", step, {"train/loss": 1 / (step + 1)})
    run.log_metrics("eval/length", 256, {"eval/bits_per_byte": 2.5})
    run.log_table("retrieval", pd.DataFrame({"scheme": ["rope"], "accuracy": [float("nan")]}))
    run.log_figures([figure])
    run.log_checkpoint(checkpoint.parent, "rope 64:0", {"step": 1000})
    run.use_checkpoint("another")  # W&B has no record of it offline
    run.log_summary({"retrieval": 0.97})
    run.alert("diverged", "after 3 steps")
    run.finish(True)

    (path,) = run_files(tmp_path / "results")
    found = finished_records(path)
    (written,) = [record.run for record in found if record.WhichOneof("record_type") == "run"]
    assert (written.project, written.run_id, written.run_group, written.job_type, written.display_name) == (
        *("posbench", "c7ce8e88646e3ac8", "demo", "model"),
        "rope-64-0",
    )
    assert {update.key: json.loads(update.value_json) for update in written.config.update}["train"] == {
        "seq_len": 64
    }

    rows = [values(record.history.item) for record in found if record.WhichOneof("record_type") == "history"]
    assert [row["train/loss"] for row in rows if row.get("train/step") == 999] == [0.001]
    assert sum("train/step" in row for row in rows) == 1000
    assert [row["eval/bits_per_byte"] for row in rows if row.get("eval/length") == 256] == [2.5]
    media = {key: value for row in rows for key, value in row.items() if key.endswith("/_type")}
    assert media == {"tables/retrieval/_type": "table-file", "figures/loss/_type": "image-file"}

    metrics = [record.metric for record in found if record.WhichOneof("record_type") == "metric"]
    steps = {metric.glob_name or metric.name: metric.step_metric for metric in metrics}
    assert (steps["train/*"], steps["eval/*"]) == ("train/step", "eval/length")
    artifacts = [record.artifact for record in found if record.WhichOneof("record_type") == "artifact"]
    assert {artifact.type: artifact.name for artifact in artifacts}["model"] == "rope-64-0"
    alerts = [record.alert for record in found if record.WhichOneof("record_type") == "alert"]
    assert [(alert.title, alert.level) for alert in alerts] == [("diverged", "ERROR")]
    summaries = [record.summary for record in found if record.WhichOneof("record_type") == "summary"]
    assert any(values(summary.update).get("retrieval") == 0.97 for summary in summaries)


def test_an_evaluation_writes_to_the_run_of_its_model(tmp_path: Path) -> None:
    """Fault: every evaluation was a run of its own, so that no chart showed a model's lengths."""
    for number in range(3):
        run = begin(tmp_path)
        run.log_metrics("eval/length", number, {"eval/loss": 1.0})
        if number != 1:  # one that was never closed
            run.finish(True)
        else:
            run._lock.release()
            time.sleep(1)
    runs = [
        record.run
        for path in run_files(tmp_path)
        for record in records(path)
        if record.WhichOneof("record_type") == "run"
    ]
    assert [run.run_id for run in runs] == ["c7ce8e88646e3ac8"] * 3


def test_auto_is_online_with_a_key_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert WandbSettings().resolved() == "offline"
    (tmp_path / "netrc").write_text("machine")  # broken
    assert WandbSettings().resolved() == "offline"
    (tmp_path / "netrc").write_text(f"machine api.wandb.ai login user password {KEY}\n")
    assert (WandbSettings().resolved(), find_key()) == ("online", KEY)
    monkeypatch.setenv(
        "WANDB_BASE_URL", "http://wandb.example"
    )  # another server, for which the key is not valid
    assert WandbSettings().resolved() == "offline"
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    assert WandbSettings().resolved() == "online"
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert WandbSettings().resolved() == "disabled"
    assert WandbSettings("offline").resolved() == "offline"


def test_the_error_for_an_unknown_mode_has_the_known_ones() -> None:
    with pytest.raises(
        ConfigError, match=r"unknown wandb mode 'ofline': choose .*; did you mean 'offline'\?"
    ):
        WandbSettings("ofline")


SCRIPT = """
import logging, os, signal, sys
from pathlib import Path
from posbench.config.schema import RuntimeSettings
from posbench.tracking import tracker, wandb
from posbench.tracking.run import RunInfo
logging.basicConfig(format="%(message)s")
wandb.CONNECT_TIMEOUT = 2.0
tracker.EXIT_TIMEOUT = 200.0  # on a busy machine
for seed in range(2):
    info = RunInfo(f"id{seed}", f"rope-64-{seed}", "demo", "model", Path(sys.argv[1]))
    with tracker.open_run(RuntimeSettings(), info) as run:
        run.log_training(1, {"loss": 1.0})
        if "kill" in sys.argv:
            assert tracker._THREAD.wait(200)
            os.kill(os.getpid(), signal.SIGKILL)
tracker._THREAD.wait(200)
print("wandb" in sys.modules)
"""


def script(*args: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", SCRIPT, *args],
        env=os.environ | env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.fixture(scope="module")
def offline_seconds(tmp_path_factory: pytest.TempPathFactory) -> float:
    """Seconds of the script without a server, which depend on how busy the machine is."""
    began = time.monotonic()
    assert script(str(tmp_path_factory.mktemp("offline")), WANDB_MODE="offline").returncode == 0
    return time.monotonic() - began


@pytest.mark.parametrize("key", ["short", KEY])
@pytest.mark.slow
def test_a_bad_key_or_a_dead_network_does_not_stop_a_run(
    tmp_path: Path, key: str, offline_seconds: float
) -> None:
    began = time.monotonic()
    # Port 9 refuses connections at once, and W&B retries until its timeout.
    done = script(str(tmp_path), WANDB_API_KEY=key, WANDB_BASE_URL="http://127.0.0.1:9")
    assert time.monotonic() - began < 20 + 3 * offline_seconds
    assert done.returncode == 0
    assert done.stderr.count("\n") == 1  # one warning for two runs
    assert "is written offline from here on" in done.stderr
    assert len(run_files(tmp_path)) == 2
    assert not any(KEY.encode() in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


def test_disabled_imports_nothing(tmp_path: Path) -> None:
    assert script(str(tmp_path), WANDB_MODE="disabled").stdout == "False\n"
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_killed_run_does_not_disturb_the_next_one(tmp_path: Path) -> None:
    assert script(str(tmp_path), "kill").returncode == -signal.SIGKILL
    after = script(str(tmp_path))
    assert (after.returncode, after.stdout, after.stderr) == (0, "True\n", "")
    assert len(run_files(tmp_path)) == 3


ENVIRONMENT = """
import os, sys
from pathlib import Path
from posbench.tracking import wandb
from posbench.tracking.run import RunInfo
for seed in range(2):
    info = RunInfo(f"id{seed}", f"rope-{seed}", "demo", "model", Path(sys.argv[1]))
    wandb.open_wandb_run(wandb.WandbSettings("offline", *sys.argv[2:]), info).finish(True)
"""


@pytest.mark.parametrize(("given", "project"), [([], "theirs"), (["ours"], "ours")])
@pytest.mark.slow
def test_the_run_around_this_process_is_left_alone(tmp_path: Path, given: list[str], project: str) -> None:
    """Fault: with WANDB_RUN_ID set, all runs had one id; WANDB_PROJECT was ignored."""
    around = {
        "WANDB_RUN_ID": "outside",
        "WANDB_RESUME": "must",
        "WANDB_NAME": "outside",
        "WANDB_NOTES": "outside",
        "WANDB_TAGS": "outside",
        "WANDB_SWEEP_ID": "outside",
        "WANDB_RUN_GROUP": "outside",
        "WANDB_JOB_TYPE": "outside",
        "WANDB_SERVICE": "2-1-tcp-localhost-9",
        "WANDB_DIR": str(tmp_path / "outside"),
        "WANDB_PROJECT": "theirs",
        "WANDB_ENTITY": "team",
    }
    done = subprocess.run(
        [sys.executable, "-c", ENVIRONMENT, str(tmp_path), *given],
        env=os.environ | around,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    runs = [
        record.run
        for path in run_files(tmp_path)
        for record in records(path)
        if record.WhichOneof("record_type") == "run"
    ]
    assert {(run.project, run.entity, run.run_group, run.display_name) for run in runs} == {
        (project, "team", "demo", f"rope-{seed}") for seed in range(2)
    }
    assert {run.run_id for run in runs} == {"id0", "id1"}
    assert not any(run.notes or run.sweep_id or list(run.tags) for run in runs)
