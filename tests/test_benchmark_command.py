"""posbench benchmark: its table, its exit status, and where it is stored."""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
import torch

from posbench.benchmark import lines
from posbench.benchmark.line import Line
from posbench.benchmark.paired import Ratio
from posbench.commands import benchmark
from posbench.errors import ConfigError


@pytest.fixture(autouse=True)
def restored_threads() -> Iterator[None]:
    """The command sets one thread."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize(("slow", "status"), [(1.0, 0), (1.3, 1)])
def test_the_command_writes_its_table_and_exits_by_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slow: float, status: int
) -> None:
    def one(seconds: float) -> Iterator[Line]:
        yield Line("step", "peer 1.0", 1.0, Ratio(slow, slow, slow, 10 * slow, 10.0, 9))

    def none(seconds: float) -> Iterator[Line]:
        yield Line("other", "peer 2.0", 1.0, None, "MB", skipped="no such CPU")

    monkeypatch.setattr(lines, "LINES", {"one": one, "none": none})
    monkeypatch.setattr(lines, "measure_of", lambda group: lines.LINES[group])
    assert benchmark.main(["--only", "one"]) == status
    assert benchmark.main(["--results", str(tmp_path / "new")]) == status
    frame = pd.read_csv(tmp_path / "new" / "cpu.csv")
    assert frame["result"].tolist() == ["FAILED" if status else "ok", "skipped: no such CPU"]
    assert "peer 1.0" in (tmp_path / "new" / "cpu.md").read_text()
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["cpu.csv", "cpu.md"]


def test_a_folder_that_cannot_be_written_is_known_before_the_measurement(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Fault: an unwritable folder was an error after the measurement, and the table was lost; --results was ignored with --only."""
    ratio = Ratio(1.0, 1.0, 1.0, 10.0, 10.0, 9)
    measured = []

    def one(seconds: float) -> Iterator[Line]:
        measured.append(seconds)
        yield Line("step", "peer", 1.0, ratio)

    monkeypatch.setattr(lines, "LINES", {"one": one})
    monkeypatch.setattr(lines, "measure_of", lambda group: lines.LINES[group])
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="file is a file"):
        benchmark.main(["--results", str(tmp_path / "file" / "new")])
    with pytest.raises(ConfigError, match=r"--results .* changes nothing: a run of some groups"):
        benchmark.main(["--only", "one", "--results", str(tmp_path / "new")])
    assert not measured
    assert not (tmp_path / "new").exists()
    (tmp_path / "cpu.csv").mkdir()
    with pytest.raises(ConfigError, match="it is a folder"):
        benchmark.main(["--results", str(tmp_path)])
    assert "| step | peer |" in capsys.readouterr().out
