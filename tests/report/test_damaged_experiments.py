"""Fault: commands that only read renamed a damaged rows.parquet, and did not say which command makes it again."""

import shutil
from pathlib import Path

import pytest

from posbench import checksums
from posbench.commands import run
from posbench.report.experiment import find_experiments

PUBLISHED = Path(__file__).parents[2] / "results" / "published"
COMMAND = ["posbench", "sweep", "experiment=demo", "grid.scheme=[rope]"]


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """A results folder with one experiment, small rows and the command that made it."""
    (tmp_path / "demo").mkdir()
    source = min(PUBLISHED.glob("*/rows.parquet"), key=lambda path: path.stat().st_size)
    shutil.copy(source, tmp_path / "demo")
    content = {"scheme_order": [], "figures": [], "command": COMMAND}
    (tmp_path / "demo" / "experiment.json").write_bytes(checksums.dump_json(content))
    return tmp_path


@pytest.mark.parametrize("command", ["figures", "report", "reproductions"])
@pytest.mark.parametrize("keep", [0, 500], ids=["empty", "truncated"])
def test_damaged_rows_stay_and_the_command_is_quoted(results, command, keep, capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["posbench"])
    rows = results / "demo" / "rows.parquet"
    rows.write_bytes(rows.read_bytes()[:keep])
    assert run([command, f"results_dir={results}"]) == 2
    error = capsys.readouterr().err
    assert "demo/rows.parquet cannot be used" in error
    assert "run posbench sweep experiment=demo 'grid.scheme=[rope]' again" in error
    assert len(error.splitlines()) == 1
    assert sorted(path.name for path in rows.parent.iterdir()) == ["experiment.json", "rows.parquet"]


def test_rows_without_their_settings(results, capsys, monkeypatch):
    """Fault: "no experiment in ...: run make demo first", beside the rows of one."""
    monkeypatch.setattr("sys.argv", ["posbench"])
    (results / "demo" / "experiment.json").unlink()
    assert find_experiments(results) == []
    assert run(["figures", f"results_dir={results}"]) == 2
    assert "demo has no experiment.json: run posbench sweep experiment=demo again" in capsys.readouterr().err


def test_an_experiment_in_place_of_its_results_folder(results, capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["posbench"])
    assert run(["figures", f"results_dir={results}/demo"]) == 2
    assert f"give the results folder that holds it, results_dir={results}" in capsys.readouterr().err
