"""SIGINT and SIGTERM: a command ends with one line and status 130 or 143, whatever it is doing."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)
STOPPED = "stopped; the same command continues from here"


class Interrupted(BaseException):
    """A signal that ends the command. It is no Exception, so that no `except Exception` continues after it."""

    def __init__(self, number: int = signal.SIGINT) -> None:
        super().__init__(number)
        self.status = 128 + number

    def report(self) -> int:
        """Prints the line, on rank 0 only, and returns the exit status."""
        if os.environ.get("RANK", "0") == "0":
            with suppress(OSError):  # the reader of stderr may be gone
                print(STOPPED, file=sys.stderr, flush=True)
        return self.status


def raise_on_signals() -> None:
    """Makes SIGINT and SIGTERM raise Interrupted from here on; a second signal kills the process as usual."""
    for number in SIGNALS:
        signal.signal(number, _interrupt)
    default_hook = sys.unraisablehook

    def hook(unraisable: Any) -> None:
        if isinstance(unraisable.exc_value, Interrupted):  # raised inside a callback, which would swallow it
            _exit_now(unraisable.exc_value)
        default_hook(unraisable)

    sys.unraisablehook = hook


def exit_on_signals() -> None:
    """Makes SIGINT and SIGTERM end the process at once, while the interpreter shuts down."""
    for number in SIGNALS:
        if signal.getsignal(number) is _interrupt:
            signal.signal(number, lambda number, frame: _exit_now(Interrupted(number)))


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
def _handlers(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    try:
        before = {number: signal.signal(number, handler) for number in SIGNALS}
    except ValueError:  # only the main thread can set handlers
        before = {}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)


@contextmanager
def delayed_signals() -> Iterator[None]:
    """Delays SIGINT and SIGTERM until the end of the block; a process started inside it begins with them delayed."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _interrupt(number: int, frame: FrameType | None) -> None:
    for each in SIGNALS:
        signal.signal(each, signal.SIG_DFL)
    if _is_importing(frame):
        _exit_now(Interrupted(number))
    raise Interrupted(number)


def _is_importing(frame: FrameType | None) -> bool:
    """Returns whether a module is being imported: extension modules print or replace errors of their imports."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _exit_now(stopped: Interrupted) -> None:
    os._exit(stopped.report())
