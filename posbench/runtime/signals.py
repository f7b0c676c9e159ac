"""SIGINT and SIGTERM: a command ends with one line and status 130 or 143, whatever it is doing."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from posbench.runtime import torchrun

SIGNALS = (signal.SIGINT, signal.SIGTERM)
STOPPED = "stopped"
CONTINUES = "stopped; the same command continues from here"

Handler = Callable[[int, FrameType | None], None]


class Interrupted(BaseException):
    """A signal that ends the command. It is no Exception, so that no `except Exception` continues after it."""

    def __init__(self, number: int = signal.SIGINT) -> None:
        super().__init__(number)
        self.status = 128 + number

    def report(self) -> int:
        """Prints the line, once over all ranks, and returns the exit status."""
        with suppress(OSError, RuntimeError):  # no reader, or a signal inside another write
            sys.stdout.flush()
        if not _reported and may_print(last_line):
            with suppress(OSError):
                os.write(2, f"{last_line}\n".encode())
        return self.status


def exit_on_signals() -> None:
    """Makes SIGINT and SIGTERM end the process at once, with the line and its status.

    An exception would be lost in imports, in callbacks and in libraries that catch everything. Nothing else is lost:
    files are whole or absent, and locks and worker processes end with the process.
    """
    for number in SIGNALS:
        signal.signal(number, _exit)


def report_error(line: object) -> None:
    """Prints the line of an error to stderr, once over all ranks."""
    global _reported  # noqa: PLW0603
    # A signal after the error prints no second line: torchrun sends one to the other ranks when one is gone.
    _reported = torchrun.world_size() > 1
    if may_print(str(line)):
        print(f"error: {line}", file=sys.stderr)


def _on_rank_0(line: str) -> bool:
    return torchrun.rank() == 0


# Returns whether this rank prints the line that ends the command; posbench.runtime.distributed replaces it under torchrun.
may_print: Callable[[str], bool] = _on_rank_0
# The line that ends a stopped command; posbench.commands replaces it for commands that save their progress.
last_line = STOPPED
_reported = False


@contextmanager
def interrupts() -> Iterator[None]:
    """Makes SIGINT and SIGTERM raise Interrupted inside the block, where something must be closed; a second one exits."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        exit_on_signals()
        raise Interrupted(number)

    with _handlers(interrupt):
        yield


@contextmanager
def stop_flag() -> Iterator[Callable[[], bool]]:
    """Yields a function that is true after SIGINT or SIGTERM, for work that stops where it can continue later.

    At the end of the block, a signal that came inside it raises Interrupted, in place of any other error. A second signal
    of the same kind kills the process as usual.
    """
    received: list[int] = []

    def remember(number: int, frame: FrameType | None) -> None:
        received.append(number)
        signal.signal(number, signal.SIG_DFL)

    with _handlers(remember):
        try:
            yield lambda: bool(received)
        finally:
            if received:
                raise Interrupted(received[0]) from None


@contextmanager
def delayed_signals() -> Iterator[None]:
    """Delays SIGINT and SIGTERM until the end of the block; a process started inside it begins with them delayed."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _handlers(handler: Handler) -> Iterator[None]:
    try:
        before = {number: signal.signal(number, handler) for number in SIGNALS}
    except ValueError:  # only the main thread can set handlers
        before = {}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)


def _exit(number: int, frame: FrameType | None) -> None:
    os._exit(Interrupted(number).report())
