"""Claims on jobs: at most one process runs a job, and what a dead process held is free again.

A claim is two things in locks/. NAME.lock is a file lock, which the operating system releases when the process dies;
it decides between processes of one machine. NAME.lease-N is for file systems whose locks do not hold between machines:
a thread of the owner rewrites it with a higher count every few seconds. A watcher on another machine takes it over
after the content has not changed for `lease_seconds` of the watcher's own monotonic clock; no clocks are compared. The
take-over is the exclusive creation of NAME.lease-(N+1), which one process alone can do.
"""

from __future__ import annotations

import json
import os
import re
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

from filelock import Timeout

from posbench import files
from posbench.errors import ConfigError, DataError, PosbenchError

LEASE = re.compile(r"(.+)\.lease-(\d+)")
# Writes of a lease in the time after which it is stale.
BEATS = 30
MAX_BEAT_SECONDS = 2.0


class LeaseLostError(PosbenchError):
    """Another process has taken the job over, because this one did not renew its lease in time."""


def host() -> str:
    """Returns a name of the processes between which file locks hold: those of one boot of one machine."""
    with suppress(OSError):
        return f"{files.host()}-{Path('/proc/sys/kernel/random/boot_id').read_text()[:8]}"
    return files.host()


class Claims:
    """The claims of one worker on the jobs of a results folder.

    Args:
        folder: locks/ of the results folder.
        run: id of the command that started the worker.
        lease_seconds: time without a sign after which a job of another machine is taken over.
        now: a clock in seconds that never goes back.
    """

    def __init__(
        self, folder: Path, run: str, lease_seconds: float, now: Callable[[], float] = time.monotonic
    ) -> None:
        self.folder, self.run, self.lease_seconds, self.now = folder, run, lease_seconds, now
        self.seen: dict[str, tuple[bytes, float]] = {}

    def acquire(self, name: str) -> Claim | None:
        """Claims a job, or returns None if another process holds it."""
        if not self.folder.is_dir():  # the lock would make it anew
            raise DataError(
                f"{self.folder.parent} was removed or is not reachable: start the same command again"
            )
        lock = files.Lock(self.folder / f"{name}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return None
        claim = None
        try:
            number, content = latest_lease(self.folder, name)
            if number and not self._is_free(name, content):
                return None
            before = parse_lease(content)
            crashes = before.get("crashes", 0) + 1 if before.get("run") == self.run else 0
            claim = Claim(self, lock, name, number + 1, crashes)
            with suppress(FileExistsError):  # another machine was faster
                with claim.path.open("xb") as file:
                    file.write(claim.content())
                for old in range(number, 0, -1):
                    if not _unlink(self.folder / f"{name}.lease-{old}"):
                        break
                claim.start()
                return claim
            return None
        except OSError as error:
            raise files.write_error(self.folder, error) from None
        finally:
            if claim is None or not claim.is_running:
                lock.release()

    def _is_free(self, name: str, content: bytes) -> bool:
        """Returns whether a lease can be taken over by the holder of the file lock."""
        if parse_lease(content).get("host") == host():
            return True  # its owner would hold the lock
        known, since = self.seen.get(name, (None, 0.0))
        if known != content:
            self.seen[name] = content, self.now()
            return False
        return self.now() - since >= self.lease_seconds


class Claim:
    """A job that this process holds.

    Attributes:
        crashes: how often in a row a process of the same command has died with this job.
        progress: steps or cells that are done, their total, and a note, for views.
    """

    def __init__(self, claims: Claims, lock: files.Lock, name: str, number: int, crashes: int) -> None:
        self.claims, self.lock, self.crashes = claims, lock, crashes
        self.path, self.newer = (claims.folder / f"{name}.lease-{n}" for n in (number, number + 1))
        self.owner, self.beats, self.progress = uuid4().hex, 0, (0, 0, "")
        self._taken, self._stop, self._renewed = threading.Event(), threading.Event(), claims.now()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    @property
    def is_running(self) -> bool:
        """True from the claim to its release."""
        return self._thread.ident is not None and not self._stop.is_set()

    @property
    def is_lost(self) -> bool:
        """True after another process took the job over, or may have done so."""
        return self._taken.is_set() or self.claims.now() - self._renewed > self.claims.lease_seconds

    def content(self) -> bytes:
        """Returns the content of the lease, different each time."""
        self.beats += 1
        where = {"owner": self.owner, "host": host(), "pid": os.getpid(), "run": self.claims.run}
        return json.dumps(
            {**where, "crashes": self.crashes, "beats": self.beats, "progress": self.progress}
        ).encode()

    def start(self) -> None:
        """Starts to renew the lease."""
        self._thread.start()

    def release(self) -> None:
        """Gives the job up, done or not."""
        self._stop.set()
        self._thread.join()
        if parse_lease(_read(self.path)).get("owner") == self.owner:
            _unlink(self.path)
        self.lock.release()

    def _beat(self) -> None:
        interval = min(MAX_BEAT_SECONDS, self.claims.lease_seconds / BEATS)
        while not self._stop.wait(interval):
            if not self.renew():
                return

    def renew(self) -> bool:
        """Writes the lease again; returns False if it is lost."""
        if self.newer.exists() or parse_lease(_read(self.path)).get("owner") != self.owner:
            self._taken.set()
            return False
        with suppress(ConfigError):  # a disk that is full for less than lease_seconds does no harm
            files.write_bytes(self.path, self.content())
            self._renewed = self.claims.now()
        return True


def latest_lease(folder: Path, name: str) -> tuple[int, bytes]:
    """Returns the number of the newest lease of a job and its content; 0 if there is none."""
    numbers = [int(path.name.rpartition("-")[2]) for path in folder.glob(f"{name}.lease-*")]
    number = max(numbers, default=0)
    return number, _read(folder / f"{name}.lease-{number}") if number else b""


def parse_lease(content: bytes) -> dict[str, Any]:
    """Returns the fields of a lease; none if it is not written completely."""
    try:
        found = json.loads(content)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _unlink(path: Path) -> bool:
    try:
        path.unlink()
    except OSError:
        return False
    return True
