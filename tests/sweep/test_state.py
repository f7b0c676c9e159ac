"""The state of a sweep follows from the files of its results folder alone."""

import json
import os
import subprocess
import sys
import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from small_sweeps import cell, finish, model, tuned

from posbench.checksums import dump_json
from posbench.commands import status
from posbench.config.data import TokenizerSettings
from posbench.errors import DataError
from posbench.plan.cell import Plan
from posbench.plan.cost import training_cost
from posbench.plan.jobs import plan_jobs
from posbench.plan.sweep_file import read_sweep
from posbench.sweep.claims import Claims
from posbench.sweep.state import FAILED, READY, RUNNING, UNNEEDED, WAITING, StateReader, write_record
from posbench.sweep.status import Board


def labels(jobs) -> set[str]:
    return {" ".join(job.label.split()[:1] + job.label.split(",")[2:]) for job in jobs}


def by(sweep, model, evaluation: bool):
    return next(job for job in sweep.jobs if job.model == model.id and bool(job.cells) is evaluation)


def test_a_sweep_is_read_as_it_was_written(results, write):
    base = model()
    sweep = write([cell(base), cell(base, 128), cell(base, 32, "pi"), cell(tuned(base))])
    found = read_sweep(results.path, sweep.id)
    assert found.jobs == sweep.jobs
    assert found.runtime == sweep.runtime
    assert (
        write([found.cell(one) for job in found.jobs for one in job.cells], launcher="slurm", wait=False).id
        == sweep.id
    )
    for job in found.jobs:
        assert found.model(job.model).id == job.model
        assert [found.cell(one).id for one in job.cells] == list(job.cells)


def test_jobs_wait_for_their_models(results, write):
    """An evaluation waits for its training, and a fine-tuning for its base model."""
    base = model()
    child = tuned(base)
    sweep = write([cell(base), cell(child)])
    reader = StateReader(sweep, results)
    jobs = reader.read().jobs
    assert jobs[READY] == [by(sweep, base, False)]
    assert len(jobs[WAITING]) == 3
    finish(results, by(sweep, base, False))
    jobs = reader.read().jobs
    assert set(jobs[READY]) == {by(sweep, base, True), by(sweep, child, False)}
    assert jobs[WAITING] == [by(sweep, child, True)]
    finish(results, by(sweep, child, False))
    assert set(reader.read().jobs[READY]) == {by(sweep, base, True), by(sweep, child, True)}


def test_a_model_is_not_trained_for_cells_that_are_there(results, write):
    base = model()
    child = tuned(base)
    sweep = write([cell(base), cell(child)])
    for job in sweep.jobs:
        if job.cells:
            finish(results, job)
    assert not StateReader(sweep, results).read().left
    (results.path / "cells" / f"{by(sweep, child, True).cells[0]}.parquet").unlink()
    assert len(StateReader(sweep, results).read().left) == 3
    finish(results, by(sweep, child, False))
    assert StateReader(sweep, results).read().left == [by(sweep, child, True)]


def test_only_the_best_rate_is_measured(results, write):
    models = [model(seed, lr=lr) for lr in (0.1, 0.2) for seed in (0, 1)]
    sweep = write([cell(one) for one in models], selects_rate=True)
    reader = StateReader(sweep, results)
    for one, loss in zip(models, (3.0, 1.0, 2.0, 1.0), strict=True):
        assert not reader.read().jobs[UNNEEDED]
        assert all(not job.cells for job in reader.read().jobs[READY])
        finish(results, by(sweep, one, False), loss)
    jobs = reader.read().jobs
    assert {job.model for job in jobs[READY]} == {models[2].id, models[3].id}
    assert {job.model for job in jobs[UNNEEDED]} == {models[0].id, models[1].id}
    assert len(reader.left) == 2


@pytest.mark.parametrize(("kind", "ids"), [("bytes", 257), ("bpe", 50_001), ("hugging_face", 0)])
def test_the_work_of_a_training_counts_its_vocabulary(kind, ids):
    """Fault: a model of 50,000 ids had the operations of one of bytes; bounds of what is possible have neither."""
    one = model()
    one.settings.data.tokenizer = TokenizerSettings(kind, 50_000)
    bound, (job,) = training_cost(one.settings, one.settings.train), plan_jobs(Plan([one], [], []))
    assert job.flops == bound.flops + 6 * bound.tokens * ids * one.settings.size.d_model


def test_jobs_with_the_most_work_come_first():
    short, long = model(0, steps=10), model(1, steps=20)
    jobs = plan_jobs(Plan([short, long], [cell(short, 10**6), cell(short), cell(long)], []))
    assert [job.model for job in jobs][:1] == [short.id], "its cells take longest"
    assert (
        jobs[0].weight
        == jobs[0].flops + next(job for job in jobs if job.cells and job.model == short.id).flops
    )


def test_running_and_failed_jobs(results, write):
    sweep = write([cell(model(seed)) for seed in range(3)])
    running, failed, dead = (by(sweep, model(seed), False) for seed in range(3))
    claim = Claims(results.path / "locks", "run", 90).acquire(running.name)
    write_record(results, failed, "run", outcome="failed", error="no memory", traceback="Traceback")
    process = subprocess.Popen(["true"])
    process.wait()
    lease = json.loads(claim.path.read_bytes()) | {"pid": process.pid}
    (results.path / "locks" / f"{dead.name}.lease-1").write_text(json.dumps(lease))
    reader = StateReader(sweep, results).read()
    jobs = reader.jobs
    assert jobs[RUNNING] == [running]
    assert reader.leases[running.name]["pid"] == os.getpid()
    assert jobs[FAILED] == [failed]
    assert reader.record(failed.name)["error"] == "no memory"
    assert (results.path / "jobs" / f"{failed.name}.log").read_text() == "Traceback"
    assert dead in jobs[READY], "its process is dead"
    claim.release()
    assert not StateReader(sweep, results).read().jobs[RUNNING]


def test_rows_of_another_kernel_are_left_on_a_login_node(results, write):
    """Fault: with runtime.kernel=dense, a sweep on Slurm or Ray took rows of sdpa as its own, and no worker started."""
    sweep = write([cell(model())], kernel="dense")
    for job in sweep.jobs:
        finish(results, job)
    path = results.path / "cells" / f"{by(sweep, model(), True).cells[0]}.parquet"
    assert len(StateReader(sweep, results).read().left) == 1, "a file that cannot be read"
    pq.write_table(pa.table({"kernel": ["sdpa"]}), path)
    assert len(StateReader(sweep, results).read().left) == 1
    for kernels in (
        ["dense"],
        ["none"],
        ["transformers"],
        ["dense", "none"],
    ):  # without attention, or not ours
        pq.write_table(pa.table({"kernel": kernels}), path)
        assert not StateReader(sweep, results).read().left, kernels


def test_a_record_that_cannot_be_read_is_read_again(results, write):
    """Fault: it was taken as one without an outcome, for good, and ended the sweep with KeyError."""
    sweep = write([cell(model())])
    reader, training = StateReader(sweep, results), by(sweep, model(), False)
    board = Board(reader, sweep.jobs)
    record = results.path / "jobs" / f"{training.name}.json"
    record.parent.mkdir(exist_ok=True)
    for content in (b"{", b"{}"):
        record.write_bytes(content)
        reader.read()
        assert not list(board.ends(False))
    write_record(results, training, "run", outcome="failed", error="no memory")
    reader.read()
    assert list(board.ends(False)) == [f"{training.label} FAILED: no memory"]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"format": -1}, "format -1, this version reads"),
        ({"jobs": {"model": "../x"}}, "a name that is no file name"),
        ({"jobs": {"name": "/tmp/x"}}, "a name that is no file name"),
    ],
)
def test_a_sweep_that_this_version_cannot_use(results, write, changes, reason):
    """Fault: a reader without checks of the format and of names, which become names of files, passed unnoticed."""
    sweep = write([cell(model())])
    document = json.loads(json.dumps(sweep.document))
    document["jobs"][0] |= changes.get("jobs", {})
    document |= {key: value for key, value in changes.items() if key != "jobs"}
    (results.path / "sweeps" / f"{sweep.id}.json").write_bytes(dump_json(document))
    with pytest.raises(DataError, match=reason):
        read_sweep(results.path, sweep.id)


def test_status_leaves_out_a_sweep_of_another_version(results, write, capsys):
    """Fault: one old file ended posbench status with "unknown setting", without the name of the file."""
    sweep = write([cell(model())])
    old = sweep.document | {"runtime": {**sweep.document["runtime"], "old_setting": 1}}
    path = results.path / "sweeps" / "old.json"
    path.write_bytes(dump_json(old))
    assert status.main([str(results.path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"left out: {path} cannot be used (unknown setting 'old_setting'")
    assert lines[1].startswith("test: 0 of 2 jobs done")


def test_status_shows_an_older_sweep_of_the_same_name_that_has_failed(results, write, capsys):
    """Fault: all trainings have the sweep name "train", and only the last one was shown."""
    old = write([cell(model(0))])
    write_record(results, by(old, model(0), False), "run", outcome="failed", error="no memory")
    new = write([cell(model(1))])
    os.utime(results.path / "sweeps" / f"{new.id}.json", (2e9, 2e9))
    assert status.main([str(results.path)]) == 0
    shown = capsys.readouterr().out
    assert "no memory" in shown
    assert shown.count("test: 0 of 2 jobs done") == 2


def test_the_time_left_follows_from_finished_jobs(results, write):
    sweep = write([cell(model(seed)) for seed in range(4)])
    reader = StateReader(sweep, results)
    reader.read()
    assert reader.seconds_left() is None
    for seed in range(2):
        training = by(sweep, model(seed), False)
        finish(results, training)
        write_record(results, training, "run", outcome="done", seconds=10.0, flops=training.flops)
        measuring = by(sweep, model(seed), True)
        finish(results, measuring)
        write_record(results, measuring, "run", outcome="done", seconds=1.0, flops=measuring.flops)
    reader.read()
    assert abs(reader.seconds_left() - 22.0) < 1e-6
    claims = Claims(results.path / "locks", "run", 90)
    held = [claims.acquire(by(sweep, model(seed), False).name) for seed in (2, 3)]
    held[0].progress = (1, 2, "")
    held[0].renew()
    reader.read()
    left = reader.seconds_left()
    for claim in held:
        claim.release()
    assert abs(left - (10 / 2 + 10 + 1 + 1) / 2) < 1e-6, "half a training less, and two at once"


def test_the_status_of_two_thousand_jobs_within_two_seconds(results, write):
    """Half of them done, some failed, some running; and without torch."""
    models = [model(seed) for seed in range(1000)]
    sweep = write([cell(one, length) for one in models for length in (64, 128)])
    assert len(sweep.jobs) == 2000
    for job in sweep.jobs[:1000]:
        finish(results, job)
        write_record(results, job, "run", outcome="done", seconds=1.0, flops=job.flops)
    for job in sweep.jobs[1000:1020]:
        write_record(results, job, "run", outcome="failed", error="no memory")
    claims = Claims(results.path / "locks", "run", 90)
    held = [claims.acquire(job.name) for job in sweep.jobs[1020:1030]]
    code = (
        "import sys; from posbench.commands import run; status = run(sys.argv[1:]); "
        "assert 'torch' not in sys.modules; sys.exit(status)"
    )
    began = time.monotonic()
    ended = subprocess.run(
        [sys.executable, "-c", code, "status", str(results.path)], capture_output=True, text=True, check=False
    )
    seconds = time.monotonic() - began
    for claim in held:
        claim.release()
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith(
        "test: 1000 of 2000 jobs done, 10 running, 20 failed, 970 to start, about "
    )
    assert "failed: evaluate nope, tiny, length 64, seed" in ended.stdout
    assert ": no memory" in ended.stdout
    assert f"process {os.getpid()} on " in ended.stdout
    assert seconds < 2.0, seconds
    print(f"status of 2,000 jobs: {seconds:.2f} s")
