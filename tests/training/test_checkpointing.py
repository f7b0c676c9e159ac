"""Checkpoints in the background: by minutes, one at a time, whole or absent, and their errors end the training."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from posbench.config.schema import RuntimeSettings
from posbench.errors import ConfigError
from posbench.training import checkpoints, resume
from posbench.training.resume import CheckpointWriter, checkpoint_folders
from posbench.training.trainer import TrainingInterrupted


def model() -> torch.nn.Module:
    return torch.nn.Linear(4, 4)


def test_a_checkpoint_is_due_after_minutes(tmp_path: Path, small_trainer, monkeypatch) -> None:
    """Fault: a checkpoint was due after 100 steps, hours of a large model or a blink of a small one."""
    runtime = RuntimeSettings(device="cpu", checkpoint_minutes=1.0)
    trainer, clock, saved = small_trainer(tmp_path, runtime=runtime), [0.0], []
    monkeypatch.setattr("posbench.training.trainer.time.monotonic", lambda: clock[0])
    step, save = trainer.step, trainer.save

    def slow_step(index: int) -> torch.Tensor:
        clock[0] += 25.0
        return step(index)

    def recorded_save(index: int, losses: list[torch.Tensor]) -> None:
        saved.append((index, clock[0]))
        save(index, losses)

    trainer.step, trainer.save = slow_step, recorded_save
    trainer.run()
    assert saved == [(3, 75.0), (6, 150.0), (9, 225.0)]


def test_a_step_is_saved_once(tmp_path: Path, small_trainer, monkeypatch) -> None:
    """Fault: a stop after a checkpoint wrote it a second time, with a moment at which the training had none."""
    saved: list[str] = []
    write = checkpoints.write
    monkeypatch.setattr(
        checkpoints, "write", lambda path, *rest: (saved.append(path.name), write(path, *rest))
    )
    runtime = RuntimeSettings(device="cpu", checkpoint_interval=2)
    for _ in range(2):  # the second continues, and stops before a step
        trainer = small_trainer(tmp_path, runtime=runtime)
        with pytest.raises(TrainingInterrupted):
            trainer.run(stop=lambda trainer=trainer: len(trainer.losses) == 2)
    assert saved == ["step-00000002"]


def test_training_goes_on_while_a_checkpoint_is_written(tmp_path: Path, monkeypatch) -> None:
    """Fault: every checkpoint stopped the training until it was on the disk. The file has the state of its step."""
    release, written = threading.Event(), []

    def slow_write(folder: Path, tensors: dict, metadata: dict) -> None:
        release.wait(20)
        written.append((folder.name, tensors["model"]["weight"].clone(), metadata))

    monkeypatch.setattr(checkpoints, "write", slow_write)
    writer, trained, history = CheckpointWriter(tmp_path), model(), [{"loss": 1.0}]
    before = trained.weight.detach().clone()
    began = time.monotonic()
    writer.save(1, trained, [], {"log_history": history})
    writer.check()
    assert time.monotonic() - began < 5
    with torch.no_grad():
        trained.weight += 1
    history.append({"loss": 0.5})
    threading.Timer(0.3, release.set).start()
    writer.save(2, trained, [], {"log_history": history})  # at most one is written at a time
    writer.wait()
    writer.close()
    (first, weight, metadata), (second, later, _) = written
    assert (first, second) == ("step-00000001", "step-00000002")
    assert torch.equal(weight, before)
    assert torch.equal(later, before + 1)
    assert metadata == {"step": 1, "log_history": [{"loss": 1.0}]}


def test_newer_checkpoints_of_another_process_stay(tmp_path: Path) -> None:
    """Fault: a process that hung and lost its training deleted the checkpoints of the one that had gone on."""
    for step in (1, 2, 10**8):
        (tmp_path / f"step-{step:08d}").mkdir()
    writer = CheckpointWriter(tmp_path)
    writer.save(3, model(), [], {})
    writer.wait()
    writer.close()
    assert {path.name for path in checkpoint_folders(tmp_path)} == {"step-00000003", "step-100000000"}


def test_a_training_that_was_taken_over_writes_no_final_model(tmp_path: Path, small_trainer) -> None:
    """Fault: after its last step, a training did not look whether it still held its lease."""
    trainer = small_trainer(tmp_path)

    def stop() -> bool:
        if trainer.log_history and trainer.log_history[-1]["step"] == trainer.plan.steps:
            raise ConfigError("lost")
        return False

    with pytest.raises(ConfigError, match="lost"):
        trainer.run(stop=stop)
    assert not (tmp_path / "final").exists()


def test_the_error_of_a_write_ends_the_training(tmp_path: Path, small_trainer, monkeypatch) -> None:
    def fail(*_: object) -> None:
        raise ConfigError("the disk is full")

    monkeypatch.setattr(resume, "_replace", fail)
    trainer = small_trainer(tmp_path, runtime=RuntimeSettings(device="cpu", checkpoint_interval=2), steps=400)
    with pytest.raises(ConfigError, match="the disk is full"):
        trainer.run()
    assert trainer.losses, "before the end"


KILLED = """
import sys, torch
from pathlib import Path
from posbench.training.resume import CheckpointWriter
model = torch.nn.Linear(256, 256)
writer = CheckpointWriter(Path(sys.argv[1]))
print("ready", flush=True)
for step in range(10**6):
    model.weight.data.fill_(step)
    writer.save(step, model, [], {})
"""


def test_a_process_killed_at_any_moment_leaves_whole_checkpoints(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        deadline = time.monotonic() + 60
        while not checkpoint_folders(tmp_path) and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.3)
        os.kill(process.pid, signal.SIGKILL)
    folders = checkpoint_folders(tmp_path)
    assert 1 <= len(folders) <= 2
    for folder in folders:
        metadata, weights = checkpoints.read(folder, "model")
        assert metadata
        assert weights
        assert (weights["weight"] == metadata["step"]).all()
    assert not list(tmp_path.glob("*.damaged-*"))
