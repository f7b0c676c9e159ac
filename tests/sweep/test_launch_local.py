"""Local worker processes: their errors, and their deaths."""

import os
import signal
from types import SimpleNamespace

import pytest

from posbench.config.schema import RuntimeSettings
from posbench.errors import PosbenchError
from posbench.plan.sweep_file import Assignment
from posbench.sweep import launch_local


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
