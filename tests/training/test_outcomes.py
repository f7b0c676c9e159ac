"""The outcome of a job is the same under every launcher: done, busy, out of time or failed."""

import time
from collections.abc import Callable
from multiprocessing import Pipe
from types import SimpleNamespace

import pytest
from posbench.sweep.job_queue import JobQueue
from posbench.sweep.jobs import Job

from posbench.config.schema import ModelSettings, RuntimeSettings
from posbench.errors import ConfigError
from posbench.plan.cell import ModelPlan
from posbench.sweep import launcher, worker_pool


class RecordedProgress:
    """Progress that records its calls."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda job, *content: self.calls.append(
            " ".join([name, *content[:1]] if name == "job_failed" else [name])
        )


def jobs() -> tuple[Job, Job]:
    """A training, and an evaluation that depends on it."""
    model = ModelPlan(ModelSettings(), "corpus", 1)
    return Job("x", model), Job("x", model, ("a cell",))  # type: ignore[arg-type]


def inline(queue: JobQueue, progress: RecordedProgress) -> None:
    launcher.run_inline(queue, RuntimeSettings(), progress)


def on_ranks(queue: JobQueue, progress: RecordedProgress) -> None:
    launcher.run_on_ranks(queue, RuntimeSettings(), progress)


def by_message(queue: JobQueue, progress: RecordedProgress) -> None:
    """Through the messages of worker processes, without processes."""
    worker = launcher.Worker(RuntimeSettings())
    while (job := queue.next_blocking()) is not None:
        progress.job_started(job)
        here, there = Pipe()
        try:
            there.send((worker.run(job, None, None),))
        except ConfigError as error:
            there.send(("failed", str(error)))
        worker_process = SimpleNamespace(job=job, connection=here, since=time.monotonic())
        worker_pool._receive(worker_process, queue, progress)  # type: ignore[arg-type]
        assert worker_process.job is None


@pytest.mark.parametrize("launch", [inline, on_ranks, by_message])
@pytest.mark.parametrize(
    ("outcomes", "calls", "failures", "left"),
    [
        (["done", "done"], ["job_started", "job_finished"] * 2, 0, 0),
        (["out_of_time"], ["job_started", "job_interrupted"], 0, 2),
        (["busy", "done", "done"], ["job_started", *["job_started", "job_finished"] * 2], 0, 0),
        # An error is a failure whatever its text, and removes the jobs that depend on the failed one.
        ([ConfigError("no such thing")], ["job_started", "job_failed no such thing"], 1, 0),
        ([ConfigError("done")], ["job_started", "job_failed done"], 1, 0),
        ([ConfigError("busy")], ["job_started", "job_failed busy"], 1, 0),
    ],
)
def test_outcomes_of_jobs(monkeypatch, launch, outcomes, calls, failures, left) -> None:
    script = iter(outcomes)

    def run(*_: object) -> str:
        outcome = next(script)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    monkeypatch.setattr("posbench.sweep.job_queue.RETRY_BUSY_SECONDS", 0.0)
    monkeypatch.setattr(launcher, "Worker", lambda runtime: SimpleNamespace(run=run))
    queue, progress = JobQueue(jobs()), RecordedProgress()
    launch(queue, progress)
    assert progress.calls == calls
    assert len(queue.failures) == failures
    assert all(line.startswith("train ") and line.endswith(str(outcomes[0])) for line in queue.failures)
    assert len(queue.remaining) == left
    assert not queue.pending
