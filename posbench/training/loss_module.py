"""From a batch to its loss in one module: what is compiled, and what is divided among processes."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from posbench.data.batches import Batch
from posbench.model.gpt import GPT
from posbench.position.call import Kernel
from posbench.training.cross_entropy import IGNORE_INDEX, cross_entropy


class LossModule(nn.Module):
    """The sum of nats over the targets that count."""

    def __init__(self, model: GPT, kernel: Kernel) -> None:
        super().__init__()
        self.model, self.kernel = model, kernel

    def forward(self, ids_BT: Tensor, target_index_N: Tensor, target_N: Tensor) -> Tensor:
        """Of ids (B, L), the places among them in a row whose targets count, and those; negative targets do not."""
        hidden, _ = self.model(ids_BT, kernel=self.kernel)
        # Targets that do not count need no logits.
        hidden_NW = hidden.flatten(0, 1).index_select(0, target_index_N)
        return cross_entropy(hidden_NW, self.model.head.weight, target_N)


def collate_to_device(batch: Batch, device: torch.device, pad_targets: bool = False) -> tuple[Tensor, ...]:
    """A batch as the loss module takes it, on its device."""
    return to_device(collate(batch, pad_targets, device.type == "cuda"), device)


def to_device(parts: tuple[Tensor, ...], device: torch.device) -> tuple[Tensor, ...]:
    """What was laid out, on its device; the CPU does not wait for the device to have it."""
    return tuple(part.to(device, non_blocking=True) for part in parts)


def collate(batch: Batch, pad_targets: bool = False, pin_memory: bool = False) -> tuple[Tensor, ...]:
    """A batch as the loss module takes it, on the CPU.

    Args:
        pad_targets: as many places in every batch, those that are too many without a target: one compilation, one
            CUDA graph, and nothing for the device to count.
        pin_memory: in memory that a GPU reads by itself.
    """
    target_index = np.flatnonzero(batch.loss_mask)
    target = batch.ids[:, 1:].reshape(-1)[target_index]
    if pad_targets:
        spare = batch.loss_mask.size - len(target_index)
        target_index, target = (
            np.pad(target_index, (0, spare)),
            np.pad(target, (0, spare), constant_values=IGNORE_INDEX),
        )
    parts = (
        torch.from_numpy(np.ascontiguousarray(part)) for part in (batch.ids[:, :-1], target_index, target)
    )
    return tuple(part.pin_memory() if pin_memory else part for part in parts)
