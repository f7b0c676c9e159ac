"""Fault: a worker process that was killed while idle or starting ended the sweep with a BrokenPipeError."""

import multiprocessing
import time
from multiprocessing import Pipe
from types import SimpleNamespace

import pytest

from posbench.config.schema import RuntimeSettings
from posbench.errors import PosbenchError
from posbench.sweep import worker_pool
from posbench.sweep.worker_pool import _WorkerProcess, run_in_processes


class IdleQueue:
    """A queue whose only job is never ready; it is empty `seconds` after a worker is ready."""

    def __init__(self, workers: list[_WorkerProcess]) -> None:
        self.workers = workers

    @property
    def pending(self) -> bool:
        return not any(worker.ready for worker in self.workers)

    def next_ready(self) -> None:
        return None


def run_with_deaths(monkeypatch: pytest.MonkeyPatch, deaths: int) -> None:
    """Runs a worker pool whose first processes are killed while they start."""
    workers: list[_WorkerProcess] = []
    start, left = _WorkerProcess.start, deaths

    def start_and_kill(worker: _WorkerProcess) -> None:
        nonlocal left
        start(worker)
        workers[:] = [worker]
        if left:
            left -= 1
            worker.process.kill()

    monkeypatch.setattr(_WorkerProcess, "start", start_and_kill)
    run_in_processes(IdleQueue(workers), [RuntimeSettings(device="cpu")], None)  # type: ignore[arg-type]


def test_a_worker_killed_while_it_starts_is_replaced(monkeypatch, capsys) -> None:
    run_with_deaths(monkeypatch, 1)
    error = capsys.readouterr().err
    assert error == "a worker process without a job died (exit code -9); another one is started\n"
    assert not multiprocessing.active_children()


def test_workers_that_never_start_are_an_error(monkeypatch) -> None:
    began = time.monotonic()
    with pytest.raises(
        PosbenchError, match=r"3 worker processes in a row died \(exit code -9\) while they started: "
    ):
        run_with_deaths(monkeypatch, 100)
    assert time.monotonic() - began < 20


def test_a_worker_killed_before_it_receives_its_job_fails_the_job(monkeypatch) -> None:
    here, there = Pipe()
    there.close()
    worker = object.__new__(_WorkerProcess)
    worker.connection, worker.job = here, None
    monkeypatch.setattr(_WorkerProcess, "restart", lambda worker: "died (exit code -9)")
    worker.give("job")  # type: ignore[arg-type]
    outcomes = []
    queue = SimpleNamespace(
        record_outcome=lambda job, progress, *outcome: outcomes.append((job, outcome[0], outcome[2]))
    )
    worker_pool._receive(worker, queue, None)  # type: ignore[arg-type]
    assert outcomes == [("job", "failed", "its process died (exit code -9)")]
