"""From a batch to its loss: `collate` makes tensors, `LossModule` is what is compiled and parallelised."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from posbench.data.batches import Batch
from posbench.model.gpt import GPT
from posbench.position.call import Kernel
from posbench.training.cross_entropy import IGNORE_INDEX, cross_entropy


def collate(batch: Batch, pad_targets: bool = False, pin_memory: bool = False) -> tuple[Tensor, ...]:
    """Returns a batch as CPU tensors, the arguments of `LossModule`: token ids (B, L), indices (N,) and targets (N,).

    Args:
        pad_targets: pads to N = B * L with targets of IGNORE_INDEX, so that one compilation and one CUDA graph serve
            all batches.
        pin_memory: uses page-locked memory, from which a GPU copies asynchronously.
    """
    target_index = np.flatnonzero(batch.loss_mask)
    target = batch.targets.reshape(-1)[target_index]
    if pad_targets:
        padding = (0, batch.loss_mask.size - len(target_index))
        target_index = np.pad(target_index, padding)
        target = np.pad(target, padding, constant_values=IGNORE_INDEX)
    arrays = batch.ids[:, :-1], target_index, target
    tensors = (torch.from_numpy(np.ascontiguousarray(array)) for array in arrays)
    return tuple(tensor.pin_memory() if pin_memory else tensor for tensor in tensors)


class LossModule(nn.Module):
    """A model with its loss: the sum over the scored targets, in nats."""

    def __init__(self, model: GPT, kernel: Kernel) -> None:
        super().__init__()
        self.model, self.kernel = model, kernel

    def forward(self, ids_BT: Tensor, target_index_N: Tensor, target_N: Tensor) -> Tensor:
        """Returns the loss of token ids, flat indices of the scored positions, and their targets.

        Targets of IGNORE_INDEX are left out.
        """
        hidden, _ = self.model(ids_BT, kernel=self.kernel)
        hidden_NW = hidden.flatten(0, 1).index_select(0, target_index_N)
        return cross_entropy(hidden_NW, self.model.head.weight, target_N)
