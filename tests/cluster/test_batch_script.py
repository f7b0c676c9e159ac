"""Mistakes in the settings of Slurm, without a cluster."""

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
