"""Data parallelism over the processes that torchrun starts: all ranks run the same program in the same order.

Each rank computes its shard of every batch and gradients are summed over the ranks, so that a step equals that of one
process up to the order of summation. Only rank 0 writes files, takes locks and prints.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from posbench.errors import ConfigError, PosbenchError, unknown

# Number of parameters from which `auto` shards them over the ranks.
FSDP_MIN_PARAMETERS = 200_000_000
KINDS = ("auto", "ddp", "fsdp")
# Key in the store under which a failing rank leaves its reason.
_FAILURE_KEY = "posbench/failure"
# Parts of the messages of errors that torch raises when another rank is gone.
_LOST_CONNECTION = (
    "Connection closed",
    "Connection reset",
    "Broken pipe",
    "NCCL",
    "timed out",
    "Timed out",
    "recv",
)


class RankLostError(PosbenchError):
    """A rank failed or is gone. The run ends; the same command continues it."""


@dataclass(frozen=True)
class World:
    """This process within the group of processes that run together.

    Collective methods must be called by all ranks in the same order; they raise RankLostError if a rank is gone.

    Attributes:
        rank, world_size: 0 and 1 for a single process.
        local_rank: index of this process on its machine, and of its GPU there.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0

    @property
    def is_main_process(self) -> bool:
        """True on rank 0, the only one that writes and prints."""
        return self.rank == 0

    def shard(self, count: int) -> slice:
        """Returns this rank's part of `count` consecutive items; sizes differ by at most one."""
        return slice(*(count * rank // self.world_size for rank in (self.rank, self.rank + 1)))

    def broadcast_object(self, value: Any) -> Any:
        """Returns rank 0's value on every rank."""
        values = [value]
        if self.world_size > 1:
            with catch_rank_failure(self):
                dist.broadcast_object_list(values, src=0, group=_cpu_group())
        return values[0]

    def any_rank(self, value: bool) -> bool:
        """Returns whether the value is true on any rank; does not synchronise with the device."""
        if self.world_size == 1:
            return value
        flag = torch.tensor([int(value)])
        with catch_rank_failure(self):
            dist.all_reduce(flag, dist.ReduceOp.MAX, group=_cpu_group())
        return bool(flag)

    def all_reduce_sum(self, value: float) -> float:
        """Returns the sum of the value over the ranks."""
        if self.world_size == 1:
            return value
        total = torch.tensor([value], dtype=torch.float64)
        with catch_rank_failure(self):
            dist.all_reduce(total, group=_cpu_group())
        return float(total)

    def all_gather_object(self, value: Any) -> list[Any]:
        """Returns the values of all ranks, in the order of the ranks, on every rank."""
        if self.world_size == 1:
            return [value]
        values: list[Any] = [None] * self.world_size
        with catch_rank_failure(self):
            dist.all_gather_object(values, value, group=_cpu_group())
        return values

    def announce_failure(self, reason: str) -> RankLostError:
        """Returns the error of a rank that cannot continue, after leaving its reason for the other ranks."""
        message = f"rank {self.rank} of {self.world_size}: {reason}"
        with suppress(RuntimeError):  # the store goes with rank 0
            _store().set(_FAILURE_KEY, message)
        return RankLostError(message)


@contextmanager
def catch_rank_failure(world: World) -> Iterator[None]:
    """Turns the error of a collective operation whose other ranks are gone into a RankLostError of one line."""
    try:
        yield
    except RuntimeError as error:
        if world.world_size == 1 or not any(part in str(error) for part in _LOST_CONNECTION):
            raise
        raise RankLostError(
            _announced_failure()
            or f"rank {world.rank} of {world.world_size} lost another rank ({str(error).strip().splitlines()[0]}): "
            "start the same command again, it continues from the last checkpoint"
        ) from None


def _announced_failure() -> str:
    """Returns the reason that a failed rank has left; empty if it left none, such as one that was killed."""
    with suppress(RuntimeError):  # the store goes with rank 0
        if _store().check([_FAILURE_KEY]):
            return _store().get(_FAILURE_KEY).decode()
    return ""


@cache
def world() -> World:
    """Returns this process' place; the first call under torchrun joins the process group."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return World()
    found = World(int(os.environ["RANK"]), size, int(os.environ.get("LOCAL_RANK", "0")))
    gpus = torch.cuda.is_available()
    if gpus:
        torch.cuda.set_device(found.local_rank)
    atexit.register(dist.destroy_process_group)
    dist.init_process_group("cpu:gloo,cuda:nccl" if gpus else "gloo", timeout=timedelta(minutes=30))
    return found


@cache
def _cpu_group() -> dist.ProcessGroup:
    """The group for messages between processes, which do not wait for a device."""
    return dist.new_group(backend="gloo")


def _store() -> dist.Store:
    """The key-value store of the process group; reading it does not wait for other ranks, as a collective would."""
    return dist.distributed_c10d._get_default_store()


def check(kind: str, batch_size: int, grad_accum_steps: int, world_size: int) -> None:
    """Raises ConfigError if `kind` is unknown or a batch cannot be divided among `world_size` processes."""
    if kind not in KINDS:
        raise unknown("runtime.data_parallel", kind, KINDS)
    if batch_size % (world_size * grad_accum_steps):
        rows = batch_size // grad_accum_steps
        fits = [str(count) for count in range(1, rows + 1) if rows % count == 0]
        raise ConfigError(
            f"train.batch_size {batch_size} in {grad_accum_steps} part{'s' * (grad_accum_steps > 1)} cannot be divided "
            f"among {world_size} processes: start {', '.join(fits)} of them, or choose another batch size"
        )


def parallelize(module: nn.Module, blocks: list[nn.Module], kind: str, world: World) -> nn.Module:
    """Returns the module with gradients averaged over the ranks: by DDP, or by FSDP2 for a large one under `auto`.

    Args:
        blocks: submodules that FSDP2 gathers one at a time.
    """
    if world.world_size == 1:
        return module
    count = sum(parameter.numel() for parameter in module.parameters())
    if kind == "fsdp" or (kind == "auto" and count >= FSDP_MIN_PARAMETERS):
        from torch.distributed.fsdp import fully_shard

        for block in blocks:
            fully_shard(block)
        fully_shard(module)
        return module
    from torch.nn.parallel import DistributedDataParallel

    return DistributedDataParallel(module, gradient_as_bucket_view=True)


def gather_full_tensor(tensor: torch.Tensor) -> torch.Tensor:
    """Returns a sharded tensor whole, on every rank; any other tensor as it is."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def distribute_like(tensor: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Returns a whole tensor sharded as `other` is; as it is if `other` is not sharded."""
    if not hasattr(other, "full_tensor"):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(tensor, other.device_mesh, other.placements, src_data_rank=None)  # type: ignore[attr-defined]
