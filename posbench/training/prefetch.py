"""What is a function of its number alone, made ahead of time in one thread: a device that trains does not wait.

Nothing depends on when a thing was made, so no number changes, whether a run was interrupted or not. Text already
on the device would save nothing beside it: a batch of 64 x 1024 tokens is 1.5 MB of pinned memory, which is copied
while the device computes, and the synthetic sequences in it are made on the CPU anyway.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

Made = TypeVar("Made")


class Prefetcher(Generic[Made]):
    """make(0) .. make(stop - 1), each asked for by its number.

    Args:
        depth: how many are made ahead; with 0 there is no thread.
    """

    def __init__(self, make: Callable[[int], Made], stop: int, depth: int) -> None:
        self.make, self.stop, self.depth = make, stop, depth
        self._thread: ThreadPoolExecutor | None = None
        self._begun: dict[int, Future[Made]] = {}

    def get(self, number: int) -> Made:
        """make(number), or what it raises; the next ones are begun."""
        if not self.depth:
            return self.make(number)
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="prefetch")
        following = range(number, max(number + 1, min(number + 1 + self.depth, self.stop)))
        for other in self._begun.keys() - set(following):  # the numbers do not run on
            self._begun.pop(other).cancel()
        for next_one in following:
            if next_one not in self._begun:
                self._begun[next_one] = self._thread.submit(self.make, next_one)
        return self._begun.pop(number).result()

    def close(self) -> None:
        """End the thread, once it is done with what it is at; it may be begun anew."""
        thread, self._thread, self._begun = self._thread, None, {}
        if thread is not None:
            thread.shutdown(wait=True, cancel_futures=True)
