"""What the adapter of W&B does about an error at the start of an online run, without W&B's process."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import wandb as client
from wandb.errors import CommError, UsageError

from posbench.tracking import wandb
from posbench.tracking.run import RunInfo
from posbench.tracking.wandb import WandbSettings, open_wandb_run


@pytest.mark.parametrize(
    ("error", "later"),
    [
        (CommError("timed out"), "offline"),
        (ConnectionError(), "offline"),
        (UsageError("a bad tag"), "online"),
    ],
)
def test_later_runs_are_offline_where_the_server_cannot_be_reached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, later: str
) -> None:
    """Fault: any error of one run made all later runs of the process offline."""
    modes: list[str] = []

    def init(mode: str, *_: object) -> object:
        modes.append(mode)
        if len(modes) == 1:
            raise error
        return SimpleNamespace(finish=lambda exit_code: None)

    monkeypatch.setattr(wandb, "_init", init)
    monkeypatch.setattr(wandb, "_unreachable", set())
    monkeypatch.setattr(wandb, "warn", lambda *_: None)
    monkeypatch.setattr(client, "teardown", lambda: None)
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    for id in ("first", "second"):
        run = open_wandb_run(WandbSettings("online"), RunInfo(id, "rope-64-0", "demo", "model", tmp_path))
        assert run
        run.finish(True)
    assert modes == ["online", "offline", later]


def test_dryrun_is_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fault: WANDB_MODE=dryrun, which W&B takes for offline, was ignored, and runs with a key were online."""
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_MODE", "dryrun")
    assert WandbSettings().resolved() == "offline"
