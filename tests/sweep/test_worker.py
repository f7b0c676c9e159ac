"""The loop of a worker: order, failures, deaths, deadlines and claims that are lost."""

import math
import subprocess
import time
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace

import pytest
from small_sweeps import cell, finish, model, tuned

from posbench import commands
from posbench.config.schema import RuntimeSettings
from posbench.errors import ConfigError, PosbenchError
from posbench.plan.cell import Plan
from posbench.plan.jobs import plan_jobs
from posbench.plan.sweep_file import Assignment
from posbench.sweep import claims
from posbench.sweep.run import LAUNCHERS, run_plan
from posbench.sweep.state import StateReader, read_record, write_record
from posbench.sweep.worker import MAX_CRASHES, DeviceLostError, Worker, run_worker


class Runner:
    """Makes the files of jobs, or fails as the test says, in place of training and measuring."""

    def __init__(self, results) -> None:
        self.results, self.started, self.errors = results, [], {}

    def run(self, job, on_progress, should_stop):
        self.started.append(job.name)
        on_progress(1, 2, "loss 1.0")
        if error := self.errors.get(job.name):
            raise error
        if should_stop():
            from posbench.training.trainer import TrainingInterrupted

            raise TrainingInterrupted
        finish(self.results, job)
        return 1.0


@pytest.fixture
def work(results, monkeypatch):
    """Runs a worker over a sweep and returns the names of the jobs that it started."""

    def work(sweep, errors=(), run="run", on_change=lambda: None, **arguments):
        # No settings for the reader, because the files of these tests are empty.
        worker = Worker(StateReader(sweep, results), RuntimeSettings(device="cpu"), run, **arguments)
        worker.runner = Runner(results)
        worker.runner.errors = dict(errors)
        worker.on_change = on_change
        worker.work(lambda: False)
        return worker.runner.started

    return work


def test_every_job_runs_once_and_models_come_before_their_cells(results, write, work):
    base = model()
    sweep = write([cell(base), cell(base, 128, "pi"), cell(tuned(base)), cell(model(1))])
    started = work(sweep)
    assert sorted(started) == sorted(job.name for job in sweep.jobs)
    for job in sweep.jobs:
        for needed in job.requires:
            assert started.index(f"{needed}.train") < started.index(job.name)
    assert work(sweep) == []
    assert all(read_record(results, job.name)["outcome"] == "done" for job in sweep.jobs)
    assert not list(results.path.glob("locks/*.lease-*"))


@pytest.mark.parametrize("error", [ConfigError("no such thing"), TypeError("a bug\nof two lines")])
def test_a_failure_is_recorded_and_tried_again_by_the_next_run_only(results, write, work, error):
    one, other = model(0), model(1)
    sweep = write([cell(one), cell(tuned(one)), cell(other)])
    failing = f"{one.id}.train"
    started = work(sweep, {failing: error})
    assert sorted(started) == sorted([failing, f"{other.id}.train", f"{other.id}.none"])
    record = read_record(results, failing)
    assert (record["outcome"], record["run"]) == ("failed", "run")
    assert "\n" not in record["error"]
    assert (results.path / "jobs" / f"{failing}.log").exists() == isinstance(error, TypeError)
    assert work(sweep) == [], "not again under the same command"
    assert len(work(sweep, run="next")) == 4
    assert not StateReader(sweep, results).read().left


def test_an_error_that_ends_the_device_ends_the_process(results, write, work):
    """Fault: the record was not written, so that every fresh worker died by the same job until the sweep ended."""
    sweep = write([cell(model(0)), cell(model(1))])
    first, second = (job.name for job in sweep.jobs if not job.cells)
    with pytest.raises(DeviceLostError, match="device-side assert"):
        work(sweep, {first: RuntimeError("CUDA error: device-side assert triggered")})
    assert read_record(results, first)["outcome"] == "failed"
    assert first not in work(sweep), "the worker that takes its place runs the others"
    assert read_record(results, second)["outcome"] == "done"


def test_what_an_earlier_command_has_failed_is_tried_last(results, write, work):
    """Fault: under torchrun, where a failure ends all ranks, the jobs after it never ran, however often it was started."""
    sweep = write([cell(model(0)), cell(model(1))])
    trainings = [job for job in sweep.jobs if not job.cells]
    write_record(results, trainings[0], "earlier", outcome="failed", error="no memory")
    started = work(sweep)
    assert started.index(trainings[0].name) > started.index(trainings[1].name)


def test_workers_of_two_commands_do_not_retry_each_others_failures_for_ever(results, write, work):
    """Fault: each took the failure under the other command as one of an earlier command."""
    sweep = write([cell(model())])
    training = next(job for job in sweep.jobs if not job.cells)
    other = lambda: write_record(results, training, "other", outcome="failed", error="no memory")  # noqa: E731
    assert work(sweep, {training.name: ConfigError("no memory")}, on_change=other) == [training.name]


def test_a_worker_says_what_is_left(results, write, monkeypatch):
    """Fault: posbench worker said that no job was left for it, also at the end of its time or after a failure."""
    monkeypatch.setattr("posbench.sweep.worker.JobRunner", lambda sweep, folder, runtime: Runner(folder))
    sweep = write([cell(model())])
    assignment = Assignment(results.path, sweep.id, "run", frozenset(), deadline=time.monotonic())
    assert run_worker(assignment, lambda: False) == ("time is up: 2 jobs are left", 0)
    training = next(job for job in sweep.jobs if not job.cells)
    write_record(results, training, "run", outcome="failed", error="no memory")
    expected = f"2 jobs are left, 1 failed, the first {training.label}: no memory"
    assert run_worker(assignment._replace(deadline=math.inf), lambda: False) == (expected, 1)
    assert run_worker(assignment._replace(deadline=math.inf, run="next"), lambda: False) == (
        "no job is left",
        0,
    )


def test_a_bug_under_torchrun_is_recorded(results, write, work, monkeypatch):
    """Fault: no record, so that every start ran into the same job first."""
    sweep = write([cell(model())])
    training = next(job for job in sweep.jobs if not job.cells)
    ranks = SimpleNamespace(world_size=2, is_main_process=True, from_main=lambda call: call())
    ranks.fail_together = ranks.any_rank = lambda *_: nullcontext()
    monkeypatch.setattr("posbench.sweep.worker.world", lambda: ranks)
    worker = Worker(StateReader(sweep, results), RuntimeSettings(device="cpu"), "run")
    worker.runner = SimpleNamespace(run=lambda *_: 1 / 0)
    claim = SimpleNamespace(is_lost=False, crashes=0, progress=None)
    with pytest.raises(ZeroDivisionError):
        worker.run_job(training, claim, lambda: False)
    record = read_record(results, training.name)
    assert (record["outcome"], record["error"]) == ("failed", "ZeroDivisionError: division by zero")
    claim.is_lost = True  # another process runs the job, and its record stays
    write_record(results, training, "other", outcome="done")
    with pytest.raises(ZeroDivisionError):
        worker.run_job(training, claim, lambda: False)
    assert read_record(results, training.name)["outcome"] == "done"


@pytest.mark.parametrize("device", ["meta", "cuda:99", "gpu"])
def test_a_worker_refuses_a_device_that_is_not_there(results, write, device):
    """Fault: such a device made the jobs fail, or the worker ended in a traceback."""
    sweep = write([cell(model())])
    assignment = Assignment(results.path, sweep.id, "run", frozenset())
    with pytest.raises(ConfigError, match="device"):
        run_worker(assignment, lambda: False, device)


@pytest.mark.parametrize(("n_failed", "status"), [(0, 0), (2, 1)])
def test_the_exit_status_of_a_worker(n_failed, status, monkeypatch, capsys):
    """Fault: posbench worker exited with 0 although jobs had failed."""
    monkeypatch.setattr("posbench.sweep.worker.run_worker", lambda *arguments: ("a line", n_failed))
    assert commands.run(["worker", ".", "abc"]) == status
    assert capsys.readouterr().err == "a line\n"


def test_a_job_that_another_worker_has_failed_just_now_is_not_run(results, write, work, monkeypatch):
    """Fault: a failure between the reading of the state and the claim was not seen, and the job ran and failed again."""
    sweep = write([cell(model())])
    training, acquire = next(job for job in sweep.jobs if not job.cells), claims.Claims.acquire

    def acquire_late(self, name):
        write_record(results, training, "run", outcome="failed", error="no memory")
        return acquire(self, name)

    monkeypatch.setattr(claims.Claims, "acquire", acquire_late)
    assert work(sweep) == []


def test_a_job_that_kills_its_processes_fails(results, write, work):
    """Fault: a job whose process ran out of memory and was killed would have been claimed again and again."""
    sweep = write([cell(model())])
    training = next(job for job in sweep.jobs if not job.cells)
    claim = claims.Claims(results.path / "locks", "run", 90).acquire(training.name)
    claim.crashes = MAX_CRASHES - 1
    dead = subprocess.Popen(["true"])
    dead.wait()
    content = claim.content().replace(
        f'"pid": {__import__("os").getpid()}'.encode(), f'"pid": {dead.pid}'.encode()
    )
    claim.release()
    claim.path.write_bytes(content)
    assert work(sweep) == []
    assert "died 3 times" in read_record(results, training.name)["error"]
    assert len(work(sweep, run="next")) == 2


def test_a_worker_waits_for_the_jobs_of_others(results, write, work, monkeypatch):
    sweep = write([cell(model())])
    training, measuring = sorted(sweep.jobs, key=lambda job: bool(job.cells))
    held = claims.Claims(results.path / "locks", "other", 90).acquire(training.name)
    looks = []

    def on_change():
        looks.append(time.monotonic())
        if len(looks) == 3:
            finish(results, training)
            held.release()

    assert work(sweep, on_change=on_change) == [measuring.name]


def test_a_deadline_ends_a_worker(results, write, work):
    sweep = write([cell(model())])
    assert work(sweep, deadline=time.monotonic()) == []


def test_a_lost_claim_ends_its_job_without_a_record(results, write, work, monkeypatch):
    sweep = write([cell(model())])
    lost = []

    def is_lost(claim):
        lost.append(1)
        return len(lost) == 1

    monkeypatch.setattr(claims.Claim, "is_lost", property(is_lost))
    started = work(sweep)
    assert len(started) == 3, "the job was stopped, then claimed again"
    assert len(lost) > 1


def test_a_claim_that_is_lost_when_its_job_ends_leaves_no_record(results, write, work, monkeypatch):
    """Fault: a record over that of the process which may have taken the job over passed unnoticed."""
    sweep, looks = write([cell(model())]), []

    def is_lost(claim):
        looks.append(1)
        return len(looks) == 2  # as the job runs, then as it has ended

    monkeypatch.setattr(claims.Claim, "is_lost", property(is_lost))
    first, second = work(sweep)
    assert read_record(results, first) == {}
    assert read_record(results, second)["outcome"] == "done"


def test_failures_that_no_worker_tries_again_end_the_command(results, monkeypatch):
    """Fault: with workers of an earlier command in the queue, it said that jobs are left, with status 0 and no reason."""
    plan, retries = Plan([model()], [cell(model())], []), []
    training = next(job for job in plan_jobs(plan, False) if not job.cells)
    write_record(results, training, "earlier", outcome="failed", error="no memory")

    @contextmanager
    def workers(assignment, runtime, jobs):
        retries.append(assignment.retries)
        yield lambda seconds: False

    monkeypatch.setitem(LAUNCHERS, "slurm", workers)
    runtime = RuntimeSettings(launcher="slurm", tracker="none", results_dir=str(results.path))
    with pytest.raises(PosbenchError, match=r"1 job failed: train nope.*: no memory; run again to retry"):
        run_plan(plan, runtime, "test")
    assert retries == [True]
