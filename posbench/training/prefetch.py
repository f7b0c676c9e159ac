"""Prefetches deterministic items, such as batches, in a background thread.

An item is a function of its index alone, so prefetching changes no number, also after an interruption. Keeping the
text on the device would save nothing more: a batch of 64 x 1024 tokens is 1.5 MB of pinned memory, copied while the
device computes, and the synthetic sequences in it are made on the CPU in any case.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Prefetcher(Generic[Item]):
    """Computes make(0) .. make(stop - 1) ahead of their use.

    Args:
        make: returns the item of an index.
        depth: number of items computed ahead; with 0 no thread is started.
    """

    def __init__(self, make: Callable[[int], Item], stop: int, depth: int) -> None:
        self.make, self.stop, self.depth = make, stop, depth
        self._thread: ThreadPoolExecutor | None = None
        self._pending: dict[int, Future[Item]] = {}

    def get(self, index: int) -> Item:
        """Returns make(index) or raises its error, and submits the following items."""
        if not self.depth:
            return self.make(index)
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="prefetch")
        wanted = range(index, max(index + 1, min(index + 1 + self.depth, self.stop)))
        for other in self._pending.keys() - set(wanted):  # after a jump to another index
            self._pending.pop(other).cancel()
        for one in wanted:
            if one not in self._pending:
                self._pending[one] = self._thread.submit(self.make, one)
        return self._pending.pop(index).result()

    def close(self) -> None:
        """Ends the thread after its current item; a later `get` starts another."""
        thread, self._thread, self._pending = self._thread, None, {}
        if thread is not None:
            thread.shutdown(wait=True, cancel_futures=True)
