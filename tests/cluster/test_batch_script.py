"""The batch script of the workers, without a cluster."""

from pathlib import Path

import pytest

from posbench.config.launchers import SlurmSettings
from posbench.errors import ConfigError
from posbench.plan.sweep_file import Assignment
from posbench.sweep import launch_slurm

WORKER = launch_slurm.SlurmWorker(Assignment(Path("results"), "0" * 16, "run", frozenset()))


@pytest.mark.parametrize(
    "sbatch", [{"comment": "a\n/bin/evil"}, {"Wrap": "x"}, {"a b": "x"}, {"x=y\nevil": "1"}, {"--x": "1"}]
)
def test_an_option_is_one_line(sbatch, tmp_path):
    """Fault: an option with a line end would have become a command of the batch script."""
    with pytest.raises(ConfigError, match="give an option of sbatch and a value of one line"):
        launch_slurm.submit(WORKER, tmp_path, "posbench", SlurmSettings(sbatch=sbatch), 1)


def test_without_slurm_it_is_one_line(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="this machine has no squeue; start it on a login node"):
        launch_slurm.in_queue("posbench")
