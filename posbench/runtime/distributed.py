"""Data parallelism over the processes that torchrun starts: all ranks run the same program in the same order.

Each rank computes its shard of every batch and gradients are summed over the ranks, so that a step equals that of one
process up to the order of summation (DDP; every rank holds the whole model). Only rank 0 plans, reads the results
folder, writes files, takes locks and prints; a rank that fails prints its error instead and ends the others.
"""

from __future__ import annotations

import atexit
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from posbench.errors import ConfigError, PosbenchError
from posbench.runtime import signals, torchrun

T = TypeVar("T")
# Keys of the store: the number of ranks that are ready to join; the rank that prints the last line, and its words.
_ARRIVED_KEY, _FAILURE_KEY = "posbench/arrived", "posbench/failure"
TIMEOUT = timedelta(minutes=30)
MESSAGE_TIMEOUT = timedelta(days=7)
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

# Parts of the messages of NCCL about a machine or its settings, which another start would meet again.
_WRONG_SETUP = ("invalid usage", "unhandled system error")


class RankLostError(PosbenchError):
    """A rank failed or is gone. The run ends; the same command continues it.

    Attributes:
        has_reason: whether a rank left the reason, as of an error in a job, before it ended.
    """

    def __init__(self, message: str, has_reason: bool = False) -> None:
        super().__init__(message)
        self.has_reason = has_reason


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

    def from_main(self, make: Callable[[], T]) -> T:
        """Returns on every rank what `make` returns on rank 0, the only one that calls it; an error ends every rank."""
        with self.fail_together():
            return self.broadcast_object(make() if self.is_main_process else None)

    def any_rank(self, value: bool) -> bool:
        """Returns whether the value is true on any rank; does not synchronise with the device."""
        return bool(self.all_reduce_max(int(value)))

    def all_reduce_max(self, value: int) -> int:
        """Returns the largest of the values of the ranks; does not synchronise with the device."""
        if self.world_size == 1:
            return value
        largest = torch.tensor([value])
        with catch_rank_failure(self):
            dist.all_reduce(largest, dist.ReduceOp.MAX, group=_cpu_group())
        return int(largest)

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

    @contextmanager
    def fail_together(self) -> Iterator[None]:
        """Ends every rank with the message of the first one on which the block raises a PosbenchError.

        A rank that went on alone would answer the next message of the others with another one.
        """
        try:
            with catch_rank_failure(self):
                yield
            return
        except PosbenchError as error:
            if self.world_size == 1 or isinstance(error, RankLostError):
                raise
            failure = self.announce_failure(str(error))
        raise failure

    def announce_failure(self, reason: str) -> RankLostError:
        """Returns the error of a rank that cannot continue, after leaving its reason for the other ranks."""
        message = f"rank {self.rank} of {self.world_size}: {reason}"
        _first_words(self.rank, message)
        return RankLostError(message, has_reason=True)


@contextmanager
def catch_rank_failure(world: World) -> Iterator[None]:
    """Turns the error of a collective operation whose other ranks are gone into a RankLostError of one line."""
    try:
        yield
    except RuntimeError as error:
        is_lost = any(part in str(error) for part in _LOST_CONNECTION)
        if world.world_size == 1 or not is_lost or any(part in str(error) for part in _WRONG_SETUP):
            raise
        if reason := _announced_failure():
            raise RankLostError(reason, has_reason=True) from None
        raise RankLostError(
            f"rank {world.rank} of {world.world_size} lost another rank ({str(error).strip().splitlines()[0]}): "
            "start the same command again, it continues from the last checkpoint"
        ) from None


def _first_words(rank: int, words: str) -> int:
    """Stores the message of a rank unless another rank has stored one; returns the rank whose message is stored."""
    try:
        return int(_store().compare_set(_FAILURE_KEY, "", f"{rank} {words}").decode().split()[0])
    except RuntimeError:  # the store is gone with torchrun or rank 0
        return 0


def _announced_failure() -> str:
    """Returns the message of the rank that failed first; empty without one, as after a kill."""
    with suppress(RuntimeError):
        if _store().check([_FAILURE_KEY]):
            return _store().get(_FAILURE_KEY).decode().partition(" ")[2]
    return ""


@cache
def world() -> World:
    """Returns this process' place; the first call under torchrun joins the process group.

    Raises:
        ConfigError: if environment variables describe several processes, but not which one this is.
        RankLostError: if another rank has failed before it joined.
    """
    torchrun.check_environment()
    size = torchrun.world_size()
    if size == 1:
        return World()
    found = World(torchrun.rank(), size, int(os.environ.get("LOCAL_RANK", "0")))
    # In Python, because torch would wait for a rank that does not come, deaf to signals.
    _store().add(_ARRIVED_KEY, 1)
    while _store().add(_ARRIVED_KEY, 0) < size:
        if words := _announced_failure():
            raise RankLostError(words)
        time.sleep(0.02)
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, store=_store(), rank=found.rank, world_size=size, timeout=TIMEOUT)
    atexit.register(dist.destroy_process_group)
    return found


def print_once() -> None:
    """Lets only the first rank that fails or stops print its line, whichever it is."""
    rank = torchrun.rank()
    signals.may_print = lambda line: _first_words(rank, line) == rank


@cache
def _cpu_group() -> dist.ProcessGroup:
    """The group for messages between processes, which do not wait for a device.

    Rank 0 may work for hours before it sends one, as when it builds a corpus. The end of a rank closes its connections.
    """
    return dist.new_group(backend="gloo", timeout=MESSAGE_TIMEOUT)


@cache
def _store() -> dist.Store:
    """The key-value store of the ranks; reading it does not wait for other ranks, as a collective would."""
    return next(rendezvous("env://", timeout=TIMEOUT))[0]


def check(batch_size: int, grad_accum_steps: int, world_size: int) -> None:
    """Raises ConfigError if a batch cannot be divided among `world_size` processes."""
    if batch_size % (world_size * grad_accum_steps):
        rows = batch_size // grad_accum_steps
        fits = [str(count) for count in range(1, rows + 1) if rows % count == 0]
        raise ConfigError(
            f"train.batch_size {batch_size} in {grad_accum_steps} part{'s' * (grad_accum_steps > 1)} cannot be divided "
            f"among {world_size} processes: start {', '.join(fits)} of them, or choose another batch size"
        )


def parallelize(module: nn.Module, world: World) -> nn.Module:
    """Returns the module with gradients averaged over the ranks."""
    if world.world_size == 1:
        return module
    return DistributedDataParallel(module, gradient_as_bucket_view=True)
