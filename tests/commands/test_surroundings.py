"""Fault: an encoding, a variable of a notebook or a closed stream of the surroundings ended a command."""

import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
import torch

from posbench.config.schema import RuntimeSettings
from posbench.evaluation.evaluator import EvaluatedModel
from posbench.version import __version__

PRINT = "from posbench import commands; commands.run = lambda _: print('† …', chr(0xDC80)); commands.main()"
FIGURES = "import posbench.report.figures"


@pytest.mark.parametrize(
    ("program", "variables"),
    [
        (PRINT, {"PYTHONIOENCODING": "latin-1"}),
        (PRINT, {"PYTHONIOENCODING": "ascii"}),
        (PRINT, {"PYTHONIOENCODING": "utf-8"}),
        (f"import sys; sys.stdout = sys.stderr = None; {PRINT}", {}),
        (FIGURES, {"MPLBACKEND": "module://matplotlib_inline.backend_inline"}),
        (FIGURES, {"MPLBACKEND": "no such backend"}),
    ],
)
def test_surroundings(program: str, variables: dict[str, str], tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | variables,
        capture_output=True,
        check=False,
        cwd=tmp_path,
    )
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_clone_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the clone on PYTHONPATH alone, nine models were trained and no cell could be evaluated."""

    def fails(name: str) -> None:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata.Distribution, "from_name", fails)
    evaluator = object.__new__(EvaluatedModel)
    evaluator.runtime = RuntimeSettings()
    evaluator.device = torch.device("cpu")
    assert evaluator.run_metadata("ok", 0.0)["posbench"] == __version__


def test_a_folder_of_the_same_name_on_the_path_hides_nothing(tmp_path: Path) -> None:
    """A clone beside a script was taken for the package, and its results/ for posbench.results: a traceback."""
    (tmp_path / "posbench" / "results").mkdir(parents=True)
    command = [sys.executable, "-c", "import posbench.results.rows as rows; print(rows.SCHEMA_VERSION)"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    found = subprocess.run(
        command, capture_output=True, text=True, env=environment, cwd=tmp_path, check=False
    )
    assert found.stdout.strip().isdigit(), found.stderr
