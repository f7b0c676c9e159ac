"""Claims on jobs: at most one process runs a job, and what a dead process held is free again.

A claim is two things in locks/. NAME.lock is a file lock, which the operating system releases when the process dies;
it decides between processes of one machine. NAME.lease-N is for file systems whose locks do not hold between machines:
a thread of the owner rewrites it with a higher count every few seconds. A watcher on another machine takes it over
after the content has not changed for `lease_seconds` of the watcher's own monotonic clock; no clocks are compared. The
take-over is the exclusive creation of NAME.lease-(N+1), which one process alone can do.
"""

from __future__ import annotations

import json
import math
import os
import re
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

from filelock import Timeout

from posbench import files
from posbench.errors import ConfigError, DataError
from posbench.files import host

LEASE = re.compile(r"(.+)\.lease-(\d+)")
# Writes of a lease in the time after which it is stale.
BEATS = 30
MAX_BEAT_SECONDS = 2.0


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
        self.seen: dict[str, tuple[dict[str, Any], float]] = {}

    def acquire(self, name: str) -> Claim | None:
        """Claims a job, or returns None if another process holds it."""
        if not self.folder.is_dir():  # the lock would make it anew
            raise DataError(
                f"{self.folder.parent} was removed or is not reachable: start the same command again"
            )
        lock = files.Lock(self.folder / f"{name}.lock")
        with ExitStack() as undo:
            try:
                lock.acquire(timeout=0)
                undo.callback(lock.release)
                number, lease = latest_lease(self.folder, name)
                if number and not self._is_free(name, lease):
                    return None
                claim = Claim(self, lock, name, number + 1, lease)
            except (Timeout, FileExistsError):  # another process holds it, or another machine was faster
                return None
            except OSError as error:
                raise files.write_error(self.folder, error) from None
            undo.pop_all()
            return claim

    def _is_free(self, name: str, lease: dict[str, Any]) -> bool:
        """Returns whether a lease can be taken over by the holder of the file lock."""
        if lease.get("host") == host():
            return True  # its owner would hold the lock
        known, since = self.seen.get(name, (None, 0.0))
        if known != lease:
            self.seen[name] = lease, self.now()
            return False
        return self.now() - since >= self.lease_seconds


class Claim:
    """A job that this process holds, from the creation of the lease to its release.

    Attributes:
        crashes: how often in a row a process of the same command has died with this job without getting further.
        furthest: the most steps or cells that earlier processes of the same command have done.
        progress: steps or cells that are done, their total, and a note, for views.

    Raises:
        FileExistsError: if another process has created the lease.
    """

    def __init__(
        self, claims: Claims, lock: files.Lock, name: str, number: int, before: dict[str, Any]
    ) -> None:
        self.claims, self.lock = claims, lock
        self.crashes, self.furthest = 0, 0
        if before.get("run") == claims.run:
            done, furthest = before.get("progress", (0,))[0], before.get("furthest", 0)
            self.crashes = before.get("crashes", 0) + 1 if done <= furthest else 0
            self.furthest = max(done, furthest)
        self.path, self.newer = (claims.folder / f"{name}.lease-{n}" for n in (number, number + 1))
        self.owner, self.beats, self.progress = uuid4().hex, 0, (0, 0, "")
        self._stop, self._renewed = threading.Event(), claims.now()
        with self.path.open("xb") as file:
            try:
                os.write(file.fileno(), self.content())
            except OSError:  # an empty lease would hold the job for lease_seconds
                self.path.unlink(missing_ok=True)
                raise
        for old in range(1, number):
            (claims.folder / f"{name}.lease-{old}").unlink(missing_ok=True)
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self._thread.start()

    @property
    def is_lost(self) -> bool:
        """True after another process took the job over, or may have done so."""
        return self.claims.now() - self._renewed > self.claims.lease_seconds

    def content(self) -> bytes:
        """Returns the content of the lease, different each time."""
        self.beats += 1
        where = {"owner": self.owner, "host": host(), "pid": os.getpid(), "run": self.claims.run}
        count = {"crashes": self.crashes, "furthest": self.furthest, "beats": self.beats}
        return json.dumps(where | count | {"progress": self.progress}).encode()

    def release(self) -> None:
        """Gives the job up, done or not."""
        self._stop.set()
        self._thread.join()
        if read_lease(self.path).get("owner") == self.owner:
            with suppress(OSError):
                self.path.unlink()
        self.lock.release()

    def _beat(self) -> None:
        interval = min(MAX_BEAT_SECONDS, self.claims.lease_seconds / BEATS)
        while not self._stop.wait(interval) and self.renew():
            pass

    def renew(self) -> bool:
        """Writes the lease again; returns False if it is lost."""
        try:
            is_taken = self.newer.exists() or json.loads(self.path.read_bytes()).get("owner") != self.owner
        except FileNotFoundError:
            is_taken = True
        except (
            OSError,
            ValueError,
        ):  # a file system that does not answer for less than lease_seconds does no harm
            return True
        if is_taken:
            self._renewed = -math.inf
            return False
        with suppress(ConfigError):  # a disk that is full for less than lease_seconds does no harm
            files.write_bytes(self.path, self.content())
            self._renewed = self.claims.now()
        return True


def latest_lease(folder: Path, name: str) -> tuple[int, dict[str, Any]]:
    """Returns the number of the newest lease of a job and its fields; 0 if there is none."""
    number = max((int(path.name.rpartition("-")[2]) for path in folder.glob(f"{name}.lease-*")), default=0)
    return number, read_lease(folder / f"{name}.lease-{number}")


def read_lease(path: Path) -> dict[str, Any]:
    """Returns the fields of a lease; none if it is gone or not written completely."""
    try:
        lease = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return lease if isinstance(lease, dict) else {}
