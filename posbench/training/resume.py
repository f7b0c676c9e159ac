"""Checkpoints of a training in progress: everything needed to continue it to the same bits."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from posbench.files import remove
from posbench.runtime.distributed import World, distribute_like, gather_full_tensor
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
        """Loads the state of the optimizers into `optimizers`, sharded as their parameters are."""
        for which, (optimizer, _) in enumerate(optimizers):
            groups = optimizer.state_dict()["param_groups"]
            parameters = [one for group in optimizer.param_groups for one in group["params"]]
            state: dict[int, dict[str, Tensor]] = {}
            for key, tensor in self.optimizer.items():
                owner, index, name = key.split("/")
                if int(owner) == which:
                    parameter = parameters[int(index)]
                    same_shape = tensor.shape == parameter.shape
                    value = distribute_like(tensor, parameter) if same_shape else tensor
                    state.setdefault(int(index), {})[name] = value
            optimizer.load_state_dict({"state": state, "param_groups": groups})


def load_latest(folder: Path, device: torch.device, world: World) -> TrainingState | None:
    """Loads the newest complete checkpoint, the same on every rank; broken ones are set aside."""
    chosen = (
        next((path for path in checkpoint_folders(folder) if _read(path, device)), None)
        if world.is_main_process
        else None
    )
    chosen = world.broadcast_object(chosen)
    return _read(chosen, device) if chosen else None


def checkpoint_folders(folder: Path) -> list[Path]:
    """Returns the complete checkpoints in the folder of a training, the newest first; no other folder is one."""
    return sorted((path for path in folder.glob("step-*") if FOLDER.fullmatch(path.name)), reverse=True)


def _read(path: Path, device: torch.device) -> TrainingState | None:
    metadata = checkpoints.read_metadata(path)
    model = metadata and checkpoints.tensors(path, "model", device)
    state = model and checkpoints.tensors(path, "optimizer", device)
    return TrainingState(metadata, model, state) if metadata and model and state else None


def save(
    folder: Path, step: int, model: nn.Module, optimizers: Optimizers, metadata: dict[str, Any], world: World
) -> None:
    """Writes a checkpoint after `step` steps and then deletes older ones. All ranks must call this."""
    # Gathering sharded tensors is a collective operation, so it comes before the other ranks return.
    weights = full_state_dict(model)
    state = {
        f"{which}/{index}/{name}": gather_full_tensor(tensor)
        for which, (optimizer, _) in enumerate(optimizers)
        for index, entry in optimizer.state_dict()["state"].items()
        for name, tensor in entry.items()
    }
    if not world.is_main_process:
        return
    current = folder / f"step-{step:08d}"
    older = [path for path in checkpoint_folders(folder) if path != current]
    checkpoints.write(current, {"model": weights, "optimizer": state}, {"step": step, **metadata})
    for path in older:
        remove(path)


def finish(folder: Path, model: nn.Module, metadata: dict[str, Any], world: World) -> None:
    """Writes the final model and then deletes the checkpoints. All ranks must call this."""
    weights = full_state_dict(model)
    if not world.is_main_process:
        return
    checkpoints.write(folder / "final", {"model": weights}, metadata)
    for path in checkpoint_folders(folder):
        remove(path)


def full_state_dict(model: nn.Module) -> dict[str, Tensor]:
    """Returns the state dict with sharded tensors gathered."""
    return {name: gather_full_tensor(tensor) for name, tensor in model.state_dict().items()}
