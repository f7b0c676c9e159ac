"""What it takes to continue a training as if it had never stopped."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from posbench.runtime.distributed import World, distribute_like, gather_full_tensor
from posbench.training import checkpoints

Optimizers = Sequence[tuple[torch.optim.Optimizer, float]]


@dataclass(frozen=True, eq=False)
class Saved:
    """A whole checkpoint of a training on the way."""

    metadata: dict[str, Any]
    model: dict[str, Tensor]
    optimizer: dict[str, Tensor]

    def into(self, optimizers: Optimizers) -> None:
        """The optimizers as they were."""
        for which, (optimizer, _) in enumerate(optimizers):
            groups = optimizer.state_dict()["param_groups"]
            parameters = [one for group in optimizer.param_groups for one in group["params"]]
            entries: dict[int, dict[str, Tensor]] = {}
            for key, tensor in self.optimizer.items():
                owner, index, name = key.split("/")
                if int(owner) == which:
                    held = parameters[int(index)]
                    entry = distribute_like(tensor, held) if tensor.shape == held.shape else tensor
                    entries.setdefault(int(index), {})[name] = entry
            optimizer.load_state_dict({"state": entries, "param_groups": groups})


def load_latest(folder: Path, device: torch.device, world: World) -> Saved | None:
    """The newest whole checkpoint, the same one on every rank; broken ones are set aside."""
    chosen = (
        next((path for path in _paths(folder) if _read(path, device)), None)
        if world.is_main_process
        else None
    )
    chosen = world.broadcast_object(chosen)
    return _read(chosen, device) if chosen else None


def _paths(folder: Path) -> list[Path]:
    return checkpoints.latest_first(folder, "step-*")


def _read(path: Path, device: torch.device) -> Saved | None:
    metadata = checkpoints.read_metadata(path)
    model = metadata and checkpoints.tensors(path, "model", device)
    state = model and checkpoints.tensors(path, "optimizer", device)
    return Saved(metadata, model, state) if metadata and model and state else None


def save(
    folder: Path, step: int, model: nn.Module, optimizers: Optimizers, metadata: dict[str, Any], world: World
) -> None:
    """A checkpoint of `step` steps; older ones go once it stands."""
    # What ranks hold in parts all of them put together.
    weights = weights_of(model)
    state = {
        f"{which}/{index}/{name}": gather_full_tensor(tensor)
        for which, (optimizer, _) in enumerate(optimizers)
        for index, entry in optimizer.state_dict()["state"].items()
        for name, tensor in entry.items()
    }
    if not world.is_main_process:
        return
    here = folder / f"step-{step:08d}"
    older = [path for path in _paths(folder) if path != here]
    checkpoints.write(here, {"model": weights, "optimizer": state}, {"step": step, **metadata})
    for path in older:
        shutil.rmtree(path)


def finish(folder: Path, model: nn.Module, metadata: dict[str, Any], world: World) -> None:
    """The final model; what was only there to continue goes."""
    weights = weights_of(model)
    if not world.is_main_process:
        return
    checkpoints.write(folder / "final", {"model": weights}, metadata)
    for path in _paths(folder):
        shutil.rmtree(path)


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    """All weights, whole."""
    return {name: gather_full_tensor(tensor) for name, tensor in model.state_dict().items()}
