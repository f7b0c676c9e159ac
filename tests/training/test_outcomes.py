"""What becomes of a job is the same for every launcher: done, busy, unfinished or failed."""

import time
from collections.abc import Callable
from multiprocessing import Pipe
from types import SimpleNamespace

import pytest

from posbench.config.schema import ModelSettings, RuntimeSettings
from posbench.errors import ConfigError
from posbench.sweep.jobs import Job
from posbench.sweep.plan import ModelPlan
from posbench.sweep.run import launcher, worker_pool
from posbench.sweep.scheduler import Queue


class Noting:
    """A board that notes what it is told."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda job, *content: self.said.append(
            " ".join([name, *content[:1]] if name == "failed" else [name])
        )


def jobs() -> tuple[Job, Job]:
    """A training, and what hangs on it."""
    model = ModelPlan(ModelSettings(), "corpus", 1)
    return Job("x", model), Job("x", model, ("a cell",))  # type: ignore[arg-type]


def inline(queue: Queue, board: Noting) -> None:
    launcher.inline(queue, RuntimeSettings(), board)


def in_step(queue: Queue, board: Noting) -> None:
    launcher.in_step(queue, RuntimeSettings(), board)


def by_message(queue: Queue, board: Noting) -> None:
    """As worker processes say it, without processes."""
    worker = launcher.Worker(RuntimeSettings())
    while (job := queue.wait()) is not None:
        board.started(job)
        here, there = Pipe()
        try:
            there.send((worker.run(job, None, None),))
        except ConfigError as error:
            there.send(("failed", str(error)))
        hand = SimpleNamespace(job=job, connection=here, since=time.monotonic())
        worker_pool._hear(hand, queue, board)  # type: ignore[arg-type]
        assert hand.job is None


@pytest.mark.parametrize("launch", [inline, in_step, by_message])
@pytest.mark.parametrize(
    ("outcomes", "said", "failures", "left"),
    [
        (["done", "done"], ["started", "finished"] * 2, 0, 0),
        (["unfinished"], ["started", "unfinished"], 0, 2),
        (["busy", "done", "done"], ["started", *["started", "finished"] * 2], 0, 0),
        # An error is one whatever its text, and takes away what hangs on it.
        ([ConfigError("no such thing")], ["started", "failed no such thing"], 1, 0),
        ([ConfigError("done")], ["started", "failed done"], 1, 0),
        ([ConfigError("busy")], ["started", "failed busy"], 1, 0),
    ],
)
def test_what_becomes_of_a_job(monkeypatch, launch, outcomes, said, failures, left) -> None:
    script = iter(outcomes)

    def run(*_: object) -> str:
        outcome = next(script)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    monkeypatch.setattr("posbench.sweep.scheduler.BUSY_SECONDS", 0.0)
    monkeypatch.setattr(launcher, "Worker", lambda runtime: SimpleNamespace(run=run))
    monkeypatch.setattr(launcher, "on_signal", lambda: lambda: False)
    queue, board = Queue(jobs()), Noting()
    launch(queue, board)
    assert board.said == said
    assert len(queue.failures) == failures
    assert all(line.startswith("train ") and line.endswith(str(outcomes[0])) for line in queue.failures)
    assert len(queue.left) == left
    assert not queue.waiting
