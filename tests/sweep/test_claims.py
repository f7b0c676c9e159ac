"""A job is claimed by one process, renewed while it runs, and taken over from a process that is gone."""

import errno
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from filelock import FileLock

from posbench import files
from posbench.errors import ConfigError, DataError
from posbench.sweep import claims
from posbench.sweep.claims import Claims, latest_lease


class Clock:
    """A monotonic clock that the test moves."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def no_locks(monkeypatch):
    """A file system whose locks do not exclude anybody, and a name for each machine."""
    monkeypatch.setattr(FileLock, "acquire", lambda self, *args, **kwargs: None)
    monkeypatch.setattr(FileLock, "release", lambda self, *args, **kwargs: None)
    return lambda name: monkeypatch.setattr(claims, "host", lambda: name)


def test_a_job_is_held_by_one(tmp_path):
    one, other = Claims(tmp_path, "a", 90), Claims(tmp_path, "b", 90)
    claim = one.acquire("job")
    assert claim
    assert other.acquire("job") is None
    assert other.acquire("another").release() is None
    claim.release()
    assert other.acquire("job").release() is None
    assert not list(tmp_path.glob("*.lease-*"))


def test_the_job_of_a_killed_process_is_free_at_once(tmp_path):
    code = (
        "import os, sys, time; from pathlib import Path; from posbench.sweep.claims import Claims; "
        "Claims(Path(sys.argv[1]), 'a', 90).acquire('job'); print('claimed', flush=True); time.sleep(60)"
    )
    for crashes in range(3):
        process = subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout.readline() == "claimed\n"
        assert Claims(tmp_path, "a", 90).acquire("job") is None
        process.kill()
        process.wait()
        content = latest_lease(tmp_path, "job")[1]
        assert (content["crashes"], content["pid"]) == (crashes, process.pid)
    claim = Claims(tmp_path, "a", 90).acquire("job")
    assert claim.crashes == 3
    claim.release()
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    process.stdout.readline()
    process.kill()
    process.wait()
    claim = Claims(tmp_path, "another command", 90).acquire("job")
    assert claim.crashes == 0, "deaths under another command"
    claim.release()


def test_deaths_with_progress_between_them_are_not_counted(tmp_path):
    """Fault: a training of a week that made progress failed after three kills, because requeues keep the command."""
    dead, crashes = Claims(tmp_path, "a", 90), []
    for step in (100, 200, 200, 150, 300, 0):
        claim = dead.acquire("job")
        crashes.append(claim.crashes)
        claim.progress = (step, 1000, "")
        claim.renew()
        claim._stop.set()  # the process is killed
        claim._thread.join()
        claim.lock.release()
    assert crashes == [0, 0, 0, 1, 2, 0]
    assert dead.acquire("job").crashes == 1


def test_a_stale_lease_is_taken_over_after_its_time(tmp_path, no_locks):
    """Where locks do not hold between machines, by the watcher's own clock and not by the times of files."""
    clock = Clock()
    no_locks("one")
    held = Claims(tmp_path, "a", 1000.0).acquire("job")
    held._stop.set()  # the process hangs, or its machine is gone
    held._thread.join()
    no_locks("two")
    watcher = Claims(tmp_path, "b", 90.0, clock)
    for path in tmp_path.iterdir():
        os.utime(path, (0, 0))  # a clock that was set back by decades
    assert watcher.acquire("job") is None
    clock.seconds = 89.0
    assert watcher.acquire("job") is None
    no_locks("one")
    assert held.renew()
    no_locks("two")
    clock.seconds = 100.0
    assert watcher.acquire("job") is None, "it was renewed"
    clock.seconds = 189.0
    assert watcher.acquire("job") is None
    clock.seconds = 190.0
    claim = watcher.acquire("job")
    assert claim
    assert not held.renew()
    assert held.is_lost
    held.release()
    assert latest_lease(tmp_path, "job")[1]["owner"] == claim.owner, "the loser left it alone"
    claim.release()
    assert not list(tmp_path.glob("*.lease-*"))


def test_exactly_one_of_many_takes_over(tmp_path, no_locks, monkeypatch):
    no_locks("gone")
    held = Claims(tmp_path, "a", 90).acquire("job")
    held._stop.set()
    held._thread.join()
    monkeypatch.setattr(claims, "host", lambda: threading.current_thread().name)
    watchers, clock = [], Clock()
    for name in range(8):
        watcher = Claims(tmp_path, str(name), 90.0, clock)
        assert watcher.acquire("job") is None
        watchers.append(watcher)
    clock.seconds = 1000.0
    monotonic = time.monotonic()
    found, barrier = [], threading.Barrier(len(watchers))

    def take(watcher: Claims) -> None:
        barrier.wait()
        found.append(watcher.acquire("job"))

    threads = [threading.Thread(target=take, args=(watcher,)) for watcher in watchers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    taken = [claim for claim in found if claim]
    assert len(taken) == 1
    taken[0].release()
    assert time.monotonic() - monotonic < 10


def test_an_owner_that_cannot_renew_stops(tmp_path, no_locks):
    """Its own clock ends its claim not later than a watcher's."""
    clock = Clock()
    no_locks("one")
    claim = Claims(tmp_path, "a", 90.0, clock).acquire("job")
    assert not claim.is_lost
    claim._stop.set()
    claim._thread.join()
    clock.seconds = 91.0
    assert claim.is_lost
    claim.release()


def test_a_lease_is_renewed(tmp_path):
    claim = Claims(tmp_path, "a", 3.0).acquire("job")
    before = json.loads(claim.path.read_bytes())
    claim.progress = (3, 10, "loss 2.0")
    time.sleep(0.5)
    after = json.loads(claim.path.read_bytes())
    assert after["beats"] > before["beats"]
    assert after["progress"] == [3, 10, "loss 2.0"]
    assert not claim.is_lost
    claim.release()


def test_a_lease_that_cannot_be_read_for_a_moment_is_kept(tmp_path, monkeypatch):
    """Fault: one error of a network file system ended a training of hours, which another worker began again."""
    claim = Claims(tmp_path, "a", 90.0).acquire("job")

    def fails(path):
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "read_bytes", fails)
        assert claim.renew()
    assert not claim.is_lost
    claim.release()


def test_a_disk_that_is_full_for_a_moment_keeps_the_claim(tmp_path, monkeypatch):
    """Fault: an error of writing that ends the thread which renews the lease passed unnoticed."""
    claim = Claims(tmp_path, "a", 90.0).acquire("job")

    def fails(path, content):
        raise ConfigError(f"{path} cannot be written: No space left on device")

    with monkeypatch.context() as full:
        full.setattr(files, "write_bytes", fails)
        assert claim.renew()
    assert not claim.is_lost
    before = claim.beats
    assert claim.renew()
    assert json.loads(claim.path.read_bytes())["beats"] > before
    claim.release()


def test_a_torn_lease_is_waited_for(tmp_path, no_locks):
    """A machine that died while it created the lease."""
    clock = Clock()
    no_locks("here")
    (tmp_path / "job.lease-1").write_bytes(b'{"own')
    watcher = Claims(tmp_path, "a", 90.0, clock)
    assert watcher.acquire("job") is None
    clock.seconds = 90.0
    claim = watcher.acquire("job")
    assert claim
    claim.release()


def test_a_removed_folder_ends_the_claim(tmp_path):
    folder = tmp_path / "locks"
    folder.mkdir()
    claim = Claims(folder, "a", 90).acquire("job")
    files.remove(folder)
    assert not claim.renew()
    assert claim.is_lost
    claim.release()
    with pytest.raises(DataError, match="was removed or is not reachable"):
        Claims(folder, "a", 90).acquire("job")
    assert not folder.exists()


def test_a_lease_is_an_object(tmp_path):
    """Fault: a lease with a list in it was an AttributeError."""
    (tmp_path / "job.lease-1").write_text("[]")
    assert latest_lease(tmp_path, "job") == (1, {})


def test_a_full_disk_leaves_no_empty_lease(tmp_path, monkeypatch):
    """Fault: it held the job for lease_seconds on the same machine."""
    with monkeypatch.context() as full:
        full.setattr(os, "write", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, "no space")))
        with pytest.raises(ConfigError, match="cannot be written"):
            Claims(tmp_path, "a", 90).acquire("job")
    Claims(tmp_path, "a", 90).acquire("job").release()
