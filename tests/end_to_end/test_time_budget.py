"""A sweep with a time budget starts only jobs that will end in time, ends cleanly, and reports what is left."""

import json
import time

import pytest

from posbench.config.schema import ModelSettings, TrainSettings
from posbench.errors import ConfigError
from posbench.plan.cell import ModelPlan
from posbench.sweep.job_queue import JobQueue
from posbench.sweep.jobs import Job
from posbench.sweep.time_budget import TimeBudget

MINIATURE = "experiment=miniature"


def models() -> list[ModelPlan]:
    return [ModelPlan(ModelSettings(train=TrainSettings(seed=seed)), "corpus", 1) for seed in range(3)]


def test_only_jobs_that_will_end_are_started():
    short, long, longest = models()
    cells = ("one", "other")
    jobs = [
        # Fits a whole time budget, but not what is left of this one.
        Job("x", long, estimated_seconds=(400.0,)),
        Job("x", long, cells, estimated_seconds=(1.0, 1.0)),
        Job("x", short, estimated_seconds=(30.0,)),
        Job("x", short, cells, estimated_seconds=(500.0, 20.0)),
        Job("x", longest, estimated_seconds=(5000.0,)),  # longer than any budget: starts, to be resumed
    ]
    time_budget = TimeBudget(10)
    time_budget.deadline = time.time() + 60
    queue = JobQueue(jobs, time_budget)
    taken = [queue.next_ready(), queue.next_ready()]
    assert {job.model for job in taken} == {short, longest}
    assert all(job.deadline == time_budget.deadline for job in taken)
    assert queue.remaining == jobs[:2], "the cells of a skipped model are left too"
    queue.mark_finished(taken[0], seconds=30.0)
    measuring = queue.next_ready()
    assert measuring.cells == cells, "its shorter cell fits"
    queue.skip(measuring)
    queue.skip(taken[1])
    assert len(queue.remaining) == 4
    assert queue.next_ready() is None
    assert not queue.pending


def test_estimates_are_corrected_by_measured_durations():
    one, other, _ = models()
    time_budget = TimeBudget(10)
    assert time_budget.fits(Job("x", one, estimated_seconds=(300.0,)))
    time_budget.record_duration(Job("x", other, estimated_seconds=(10.0,)), 15.0)
    time_budget.deadline = time.time() + 400
    assert not time_budget.fits(Job("x", one, estimated_seconds=(300.0,)))
    assert time_budget.fits(Job("x", one, ("a cell",), estimated_seconds=(300.0,))), (
        "cells and trainings are corrected separately"
    )
    assert TimeBudget(None).fits(Job("x", one, estimated_seconds=(1e9,)))


def test_a_budget_too_short_for_any_job():
    one, _, _ = models()
    time_budget = TimeBudget(3)
    time_budget.deadline = time.time() + 60
    with pytest.raises(
        ConfigError, match=r"max_minutes 3: .*shortest job .* takes about 4 minutes; give more"
    ):
        time_budget.check([Job("x", one, estimated_seconds=(100.0,))])
    TimeBudget(0.5).check([])


def test_bad_settings(script):
    for given in ("0", "-3"):
        result = script("sweep", MINIATURE, f"runtime.max_minutes={given}")
        assert result.code == 2
        assert f"runtime.max_minutes {given}" in result.err
        assert result.err.count("error: ") == 1
        assert "Traceback" not in result.err
    result = script("sweep", MINIATURE, "runtime.max_minutes=soon")
    assert (result.code, len(result.err.strip().splitlines())) == (2, 1)


@pytest.mark.parametrize("launcher", ["inline", "local"])
def test_at_its_end_it_saves_checkpoints_and_reports_what_is_left(started, tmp_path, launcher):
    settings = ["grid.scheme=[nope,rope]", "train.steps=200000", f"runtime.launcher={launcher}"]
    process = started("sweep", MINIATURE, "runtime.max_minutes=0.3", *settings)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    assert "Traceback" not in output
    assert "time is up" in output
    assert "jobs are left" in output
    found = list((tmp_path / "results").glob("models/*/step-*/metadata.json"))
    assert found
    # On a busy machine a worker may start after the deadline.
    steps = [json.loads(path.read_text())["step"] for path in found]
    assert launcher == "local" or max(steps) > 0
    assert not (tmp_path / "results" / "miniature").exists(), "no tables of half an experiment"


def test_a_budget_changes_no_row(script, tmp_path):
    assert script("sweep", MINIATURE, "grid.scheme=[rope]", "runtime.launcher=inline").code == 0
    rows = tmp_path / "results" / "miniature" / "rows.parquet"
    free = rows.read_bytes()
    (tmp_path / "results").rename(tmp_path / "free")
    limited = ["grid.scheme=[rope]", "runtime.launcher=inline", "runtime.max_minutes=30"]
    assert script("sweep", MINIATURE, *limited).code == 0
    assert rows.read_bytes() == free
