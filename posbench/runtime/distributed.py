"""Several processes on one job, as torchrun starts them: the same work in the same order on each.

Each rank computes its share of every batch; gradients are summed, so that a step is what one process would do
up to the order of summation. Rank 0 alone writes files, holds locks and speaks.
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

# Parameters from which on every rank holds a part of them alone.
SHARDED = 200_000_000
KINDS = ("auto", "ddp", "fsdp")
# The key of what a rank says that goes.
_WHY = "posbench/why"


class RankLostError(PosbenchError):
    """A rank is gone, or has to go; the run ends and can be continued."""


@dataclass(frozen=True)
class World:
    """This process among its like.

    Attributes:
        rank, world_size: 0 and 1 where there is one process.
        local_rank: the number of its device on its machine.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0

    @property
    def is_main_process(self) -> bool:
        """Whether it is the one that writes and speaks."""
        return self.rank == 0

    def share(self, count: int) -> slice:
        """The part of `count` things in a row that this rank has."""
        each = count // self.world_size
        return slice(self.rank * each, (self.rank + 1) * each)

    def portion(self, count: int) -> slice:
        """Its part of any number of things in a row, the first ranks one more where it does not divide."""
        edges = [count * rank // self.world_size for rank in (self.rank, self.rank + 1)]
        return slice(*edges)

    def broadcast_object(self, said: Any) -> Any:
        """What rank 0 says, on every rank."""
        return self._exchanged(lambda: _broadcast(said, self))

    def any_rank(self, said: bool) -> bool:
        """Whether any rank says so; no device waits for it."""
        if self.world_size == 1:
            return said
        flag = torch.tensor([int(said)])
        self._exchanged(lambda: dist.all_reduce(flag, dist.ReduceOp.MAX, group=_control()))
        return bool(flag)

    def all_reduce_sum(self, value: float) -> float:
        """The sum over the ranks."""
        if self.world_size == 1:
            return value
        one = torch.tensor([value], dtype=torch.float64)
        self._exchanged(lambda: dist.all_reduce(one, group=_control()))
        return float(one)

    def all_gather_object(self, said: Any) -> list[Any]:
        """What each rank says, in the order of the ranks, on every rank."""
        found: list[Any] = [None] * self.world_size
        if self.world_size == 1:
            return [said]
        self._exchanged(lambda: dist.all_gather_object(found, said, group=_control()))
        return found

    def lost(self, why: str) -> RankLostError:
        """The error of a rank that cannot go on; the others are told why, who would only see that it is gone."""
        said = f"rank {self.rank} of {self.world_size}: {why}"
        with suppress(RuntimeError):  # nobody is left to hear it
            _store().set(_WHY, said)
        return RankLostError(said)

    def _heard(self) -> str:
        """What another rank said when it went; empty if it could say nothing, as one that was killed."""
        with suppress(RuntimeError):  # what keeps it went with the rank
            if _store().check([_WHY]):
                return _store().get(_WHY).decode()
        return ""

    def _exchanged(self, exchange: Any) -> Any:
        with catch_rank_failure(self):
            return exchange()


@contextmanager
def catch_rank_failure(world: World) -> Iterator[None]:
    """What all ranks must do together; one that is gone ends the run in one line."""
    try:
        yield
    except RuntimeError as error:
        lost = (
            "Connection closed",
            "Connection reset",
            "Broken pipe",
            "NCCL",
            "timed out",
            "Timed out",
            "recv",
        )
        if world.world_size == 1 or not any(word in str(error) for word in lost):
            raise
        raise RankLostError(
            world._heard()
            or f"rank {world.rank} of {world.world_size} has lost another one ({str(error).strip().splitlines()[0]}); "
            "start the same command again, it continues from the last checkpoint"
        ) from None


def _broadcast(said: Any, world: World) -> Any:
    held = [said]
    if world.world_size > 1:
        dist.broadcast_object_list(held, src=0, group=_control())
    return held[0]


@cache
def world() -> World:
    """This process' place; joins the others at the first call if torchrun started it."""
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
def _control() -> dist.ProcessGroup:
    """Messages between processes for which no device waits."""
    return dist.new_group(backend="gloo")


def _store() -> dist.Store:
    """Where ranks met; reading it waits for no other rank, as every exchange would."""
    return dist.distributed_c10d._get_default_store()


def check(kind: str, batch_size: int, grad_accum_steps: int, world_size: int) -> None:
    """Raise ConfigError if a batch cannot be divided among `world_size` processes."""
    if kind not in KINDS:
        raise unknown("runtime.data_parallel", kind, KINDS)
    if batch_size % (world_size * grad_accum_steps):
        fits = [
            count
            for count in range(1, batch_size // grad_accum_steps + 1)
            if (batch_size // grad_accum_steps) % count == 0
        ]
        raise ConfigError(
            f"{world_size} processes do not divide train.batch_size {batch_size} in {grad_accum_steps} part{'s' * (grad_accum_steps > 1)}: "
            f"start {', '.join(map(str, fits))} of them, or choose another batch"
        )


def parallelize(module: nn.Module, parts: list[nn.Module], kind: str, world: World) -> nn.Module:
    """The module with its gradients averaged over the ranks: DDP, or FSDP2 where it is large.

    Args:
        parts: submodules of which a rank gathers one at a time under FSDP2.
    """
    if world.world_size == 1:
        return module
    count = sum(parameter.numel() for parameter in module.parameters())
    if kind == "fsdp" or (kind == "auto" and count >= SHARDED):
        from torch.distributed.fsdp import fully_shard

        for part in parts:
            fully_shard(part)
        fully_shard(module)
        return module
    from torch.nn.parallel import DistributedDataParallel

    return DistributedDataParallel(module, gradient_as_bucket_view=True)


def gather_full_tensor(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor of which ranks hold parts, on each of them whole."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def distribute_like(tensor: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """A whole tensor, held in parts if `other` is."""
    if not hasattr(other, "full_tensor"):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(tensor, other.device_mesh, other.placements, src_data_rank=None)  # type: ignore[attr-defined]
