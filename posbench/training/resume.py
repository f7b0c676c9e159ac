"""Checkpoints of a training in progress: everything needed to continue it to the same bits."""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from posbench.files import remove
from posbench.training import checkpoints

# Each optimizer with its peak learning rate.
Optimizers = Sequence[tuple[torch.optim.Optimizer, float]]

# The name of a checkpoint, which `save` gives: the number of its steps.
FOLDER = re.compile(r"step-\d{8,}")


@dataclass(frozen=True, eq=False)
class TrainingState:
    """A complete checkpoint of a training in progress.

    Attributes:
        metadata: its step, and the log history and unreported losses up to there.
        model: state dict of the model.
        optimizer: state of all optimizers by optimizer/parameter/name, the first two as indices.
    """

    metadata: dict[str, Any]
    model: dict[str, Tensor]
    optimizer: dict[str, Tensor]

    def restore(self, optimizers: Optimizers) -> None:
        """Loads the state of the optimizers into `optimizers`."""
        for which, (optimizer, _) in enumerate(optimizers):
            groups = optimizer.state_dict()["param_groups"]
            state: dict[int, dict[str, Tensor]] = {}
            for key, tensor in self.optimizer.items():
                owner, index, name = key.split("/")
                if int(owner) == which:
                    state.setdefault(int(index), {})[name] = tensor
            optimizer.load_state_dict({"state": state, "param_groups": groups})


def load_latest(folder: Path) -> TrainingState | None:
    """Loads the newest complete checkpoint; broken ones are set aside."""
    return next(filter(None, map(_read, checkpoint_folders(folder))), None)


def checkpoint_folders(folder: Path) -> list[Path]:
    """Returns the complete checkpoints in the folder of a training, the newest first; no other folder is one."""
    return sorted((path for path in folder.glob("step-*") if FOLDER.fullmatch(path.name)), reverse=True)


def _read(path: Path) -> TrainingState | None:
    metadata = checkpoints.read_metadata(path)
    model = metadata and checkpoints.tensors(path, "model")
    state = model and checkpoints.tensors(path, "optimizer")
    return TrainingState(metadata, model, state) if metadata and model and state else None


class CheckpointWriter:
    """Writes the checkpoints of a training in a background thread, one at a time.

    The thread writes a copy in the memory of the host, so that training goes on meanwhile. A process that is killed
    leaves each checkpoint whole or absent. An error of a write is raised by the next call.

    Args:
        folder: of the training.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._thread: ThreadPoolExecutor | None = None
        self._write: Future[None] | None = None

    def save(self, step: int, model: nn.Module, optimizers: Optimizers, metadata: dict[str, Any]) -> None:
        """Copies the state after `step` steps and starts to write it, then deletes older checkpoints.

        A checkpoint of this step that is there stays as it is: it is complete, and its replacement could lose it.
        """
        self.wait()
        if _folder(self.folder, step).is_dir():
            return
        weights = {name: _copy(tensor) for name, tensor in model.state_dict().items()}
        state = {
            f"{which}/{index}/{name}": _copy(tensor)
            for which, (optimizer, _) in enumerate(optimizers)
            for index, entry in optimizer.state_dict()["state"].items()
            for name, tensor in entry.items()
        }
        content = {"model": weights, "optimizer": state}
        # Of the history as it is now: training goes on to append to it.
        metadata = copy.deepcopy({"step": step, **metadata})
        self._thread = self._thread or ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._write = self._thread.submit(_replace, self.folder, step, content, metadata)

    def check(self) -> None:
        """Raises the error of a write that has failed; does not wait for one in progress."""
        if self._write and self._write.done():
            self.wait()

    def wait(self) -> None:
        """Waits for the write in progress, if there is one."""
        write, self._write = self._write, None
        if write:
            write.result()

    def close(self) -> None:
        """Ends the thread after the write in progress."""
        thread, self._thread = self._thread, None
        if thread:
            thread.shutdown(wait=True)


def _folder(training: Path, step: int) -> Path:
    return training / f"step-{step:08d}"


def _copy(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", copy=True)


def _replace(
    folder: Path, step: int, content: dict[str, dict[str, Tensor]], metadata: dict[str, Any]
) -> None:
    # Not newer ones: a process that hung may have lost its training to another, which is further.
    older = [path for path in checkpoint_folders(folder) if int(path.name.removeprefix("step-")) < step]
    checkpoints.write(_folder(folder, step), content, metadata)
    for path in older:
        remove(path)


def finish(folder: Path, model: nn.Module, metadata: dict[str, Any]) -> None:
    """Writes the final model and then deletes the checkpoints."""
    checkpoints.write(folder / "final", {"model": model.state_dict()}, metadata)
    for path in checkpoint_folders(folder):
        remove(path)
