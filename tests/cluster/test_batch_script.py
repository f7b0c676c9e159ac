"""Mistakes in the settings of Slurm, and errors of its programs, without a cluster."""

import pytest

from posbench.config import checks
from posbench.config.checks import check_launcher
from posbench.config.launchers import SlurmSettings
from posbench.config.schema import RuntimeSettings
from posbench.errors import ConfigError
from posbench.plan.sweep_file import Assignment
from posbench.sweep import launch_slurm


@pytest.mark.parametrize(
    "sbatch", [{"comment": "a\n/bin/evil"}, {"Wrap": "x"}, {"a b": "x"}, {"x=y\nevil": "1"}, {"--x": "1"}]
)
def test_an_option_is_one_line(sbatch, monkeypatch):
    """Fault: an option with a line end would have become a command of the batch script."""
    monkeypatch.setattr(checks, "which", lambda name: name)  # also where there is no Slurm
    with pytest.raises(ConfigError, match="give an option of sbatch and a value of one line"):
        check_launcher(RuntimeSettings(launcher="slurm", slurm=SlurmSettings(sbatch=sbatch)))


def test_without_slurm_it_is_one_line(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="this machine has no squeue; start it on a login node"):
        check_launcher(RuntimeSettings(launcher="slurm"))


def test_a_worker_is_submitted_for_failed_jobs(monkeypatch, tmp_path):
    """Fault: with enough workers of an earlier command in the queue, which try no failed job again, none was submitted."""
    submitted = []
    monkeypatch.setattr(launch_slurm, "in_queue", lambda name: 4)
    monkeypatch.setattr(launch_slurm, "submit", lambda *given: submitted.append(given[-1]))
    for retries in (False, True):
        with launch_slurm.workers(
            Assignment(tmp_path, "id", "run", frozenset(), retries=retries), RuntimeSettings(), 9
        ):
            pass
    assert submitted == [1]


@pytest.mark.parametrize(
    ("slurm", "words"),
    [
        (
            SlurmSettings(sbatch={"cpus-per-task": 16}),
            r"posbench sets this option; give runtime\.slurm\.cpus",
        ),
        (SlurmSettings(sbatch={"job-name": "mine"}), "posbench sets this option; remove it"),
        (SlurmSettings(minutes=2), "signal_seconds 120 is not below runtime.slurm.minutes 2"),
    ],
)
def test_options_that_contradict_settings_are_refused(slurm, words, monkeypatch):
    """Fault: cpus-per-task and job-name stood twice in the script, and time and array replaced settings."""
    monkeypatch.setattr("posbench.config.checks.which", lambda program: program)
    with pytest.raises(ConfigError, match=words):
        check_launcher(RuntimeSettings(launcher="slurm", slurm=slurm))


@pytest.fixture
def program(monkeypatch, tmp_path):
    """Returns a function that adds a fake Slurm program to PATH, with the output and exit status given."""
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")

    def write(name, out="", error="", status=0):
        path = tmp_path / name
        path.write_text(f"#!/bin/sh\nprintf '{out}'\nprintf '{error}' >&2\nexit {status}\n")
        path.chmod(0o755)

    return write


def test_workers_that_are_held_are_not_in_the_queue(program):
    """Fault: no test without a cluster noticed that held workers were counted, for which the command would wait for ever."""
    program("squeue", r"1_0 JobHeldUser\n1_1 None\n1_2 JobHeldAdmin\n1_3 Resources\n")
    assert launch_slurm.in_queue("x") == 2
    program("squeue")
    assert launch_slurm.in_queue("x") == 0


def test_a_squeue_that_fails_is_one_line(program):
    """Fault: no test without a cluster noticed a traceback."""
    program("squeue", error=r"slurm_load_jobs error:\nUnable to contact\n", status=1)
    with pytest.raises(
        ConfigError, match=r"^squeue failed \(slurm_load_jobs error: Unable to contact\): is Slurm"
    ):
        launch_slurm.in_queue("x")


def test_workers_that_sbatch_refuses_are_one_line(program, tmp_path):
    """Fault: no test without a cluster noticed a traceback of submitit."""
    pytest.importorskip("submitit")
    program("srun")
    program("squeue")
    program("sbatch", error=r"sbatch: error:\ninvalid partition\n", status=1)
    runtime = RuntimeSettings(launcher="slurm", slurm=SlurmSettings(partition="nosuch"))
    started = launch_slurm.workers(Assignment(tmp_path, "id", "run", frozenset()), runtime, 1)
    with (
        pytest.raises(
            ConfigError, match=r"^sbatch has refused the workers \(.*invalid partition.*\): change"
        ),
        started,
    ):
        pass


def test_a_controller_that_does_not_answer_for_long_ends_the_command(monkeypatch, tmp_path):
    """Fault: no test without a cluster noticed a command that ended at the first failure of squeue, or never."""
    answers = []

    def in_queue(name):
        if answer := answers.pop(0):
            return answer
        raise ConfigError("squeue failed")

    monkeypatch.setattr(launch_slurm, "in_queue", in_queue)
    monkeypatch.setattr(launch_slurm, "POLL_SECONDS", 0.0)
    monkeypatch.setattr(launch_slurm, "submit", lambda *given: None)
    silent = [None] * launch_slurm.MAX_FAILURES
    answers += [4, *silent, 1, *silent, None]
    with launch_slurm.workers(Assignment(tmp_path, "id", "run", frozenset()), RuntimeSettings(), 9) as wait:
        for _ in range(2 * launch_slurm.MAX_FAILURES + 1):
            assert wait(0)
        with pytest.raises(ConfigError, match="squeue failed"):
            wait(0)
