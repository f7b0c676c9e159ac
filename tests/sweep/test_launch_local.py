"""Local worker processes: their errors, and their deaths."""

import os
import signal
import sys
import time
from types import SimpleNamespace

import pytest

from posbench.config.schema import RuntimeSettings
from posbench.errors import PosbenchError
from posbench.plan.sweep_file import Assignment
from posbench.sweep import launch_local, launch_ray, worker
from posbench.tracking import tracker
from posbench.tracking.run import RunInfo


def work(folder, num_workers):
    """Runs workers on a sweep that is not there."""
    assignment = Assignment(folder, "0" * 16, "run", frozenset())
    runtime = RuntimeSettings(device="cpu", num_workers=num_workers)
    with launch_local.workers(assignment, runtime, 9) as wait:
        while wait(10.0):
            pass


def test_the_error_of_a_worker_is_that_of_the_sweep(tmp_path):
    with pytest.raises(PosbenchError, match=r"no sweep .0{16}. in .*: run posbench sweep first"):
        work(tmp_path, 2)


def test_a_worker_that_dies_is_replaced_a_number_of_times(tmp_path, monkeypatch, capsys):
    """Fault: workers without memory would have been started for ever."""
    join, started = launch_local.connection.wait, []

    def kill(sentinels, seconds):
        for child in launch_local.multiprocessing.active_children():
            if child.pid not in started:
                started.append(child.pid)
                os.kill(child.pid, signal.SIGKILL)
        return join(sentinels, 10.0)

    monkeypatch.setattr(launch_local, "connection", SimpleNamespace(wait=kill))
    with pytest.raises(
        PosbenchError, match=r"4 worker processes died, the last with exit code -9: give fewer"
    ):
        work(tmp_path, 1)
    assert len(started) == 1 + launch_local.MAX_DEATHS
    assert capsys.readouterr().err.count("a worker died (exit code -9); another one is started\n") == 3


def test_a_killed_server_of_forks_is_started_again(tmp_path):
    """Fault: a kill of the process from which workers are forked ended the sweep with a traceback, EOFError."""
    launch_local.warm_up()
    server = launch_local.multiprocessing.forkserver._forkserver
    os.kill(server._forkserver_pid, signal.SIGKILL)
    with pytest.raises(PosbenchError, match=r"no sweep .0{16}. in"):
        work(tmp_path, 1)


class SlowTracker:
    """Writes a line for each call into a file, some time later."""

    def __init__(self, info):
        self.path = info.results_dir / "calls"

    def log_metrics(self, axis, at, metrics):
        self.write(f"{axis} {at}")

    def finish(self, succeeded):
        self.write(f"finish {succeeded}")

    def write(self, line):
        time.sleep(0.2)
        with self.path.open("a") as file:
            print(line, file=file)


def evaluate(folder, fails):
    """Makes the calls of an evaluation."""
    info = RunInfo("id", "rope-64-0", "demo", "model", folder)
    with tracker.open_run(RuntimeSettings(), info, SlowTracker) as run:
        for length in (64, 128):
            run.log_evaluation(length, {"loss": 1.0})
        if fails:
            raise PosbenchError("an error")


def serve(theirs, assignment, fails):
    """Serves in a child process, with a tracked run as its work."""
    worker.run_worker = lambda *_: evaluate(assignment.results_dir, fails)
    launch_local.serve(theirs, assignment, "cpu", 1)


@pytest.mark.parametrize("fails", [False, True])
def test_a_worker_ends_after_its_tracker(tmp_path, fails):
    """Fault: a process of the forkserver ends without exit hooks, so that W&B lacked the last evaluations of each worker."""
    context = launch_local.multiprocessing.get_context("forkserver")
    _, theirs = context.Pipe()
    assignment = Assignment(tmp_path, "0" * 16, "run", frozenset())
    process = context.Process(target=serve, args=(theirs, assignment, fails))
    process.start()
    process.join(120)
    assert process.exitcode == (2 if fails else 0)
    calls = (tmp_path / "calls").read_text().splitlines()
    assert calls == ["eval/length 64", "eval/length 128", f"finish {not fails}"]


def test_an_actor_ends_after_its_tracker(tmp_path, monkeypatch):
    """Fault: Ray kills actors when the sweep ends, with what their trackers still had to write."""
    monkeypatch.chdir(tmp_path)  # back at the end
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace())
    monkeypatch.setattr(launch_ray, "run_worker", lambda *_: evaluate(tmp_path, False))
    assignment = Assignment(tmp_path, "0" * 16, "run", frozenset())
    assert launch_ray.RayWorker().work(str(tmp_path), assignment, True) == ""
    assert (tmp_path / "calls").read_text().splitlines()[-1] == "finish True"
