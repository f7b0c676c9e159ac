"""The property card: a row for every scheme, reproducible files, and the script."""

import math
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml

from posbench.config.hydra_app import config_dir
from posbench.properties.card import COLUMNS
from posbench.properties.cost import cost
from posbench.properties.measure import measure, rounded
from posbench.properties.ratings import format_compact
from posbench.properties.report import write

SCHEMES = {
    file.stem: yaml.safe_load(file.read_text())["build"]
    for file in sorted((config_dir() / "scheme").glob("*.yaml"))
}
FEW = ("nope", "learned", "rope", "alibi", "window", "hwfa")


@pytest.mark.parametrize("name", SCHEMES)
@pytest.mark.slow
def test_every_scheme_has_a_row(name: str) -> None:
    row, curves = measure(name, SCHEMES[name])
    row = rounded(row)
    assert row["repeated_difference"] == 0
    assert all(str(column.of(row)) for column in COLUMNS)
    assert curves.shape[0] == 2
    assert not math.isinf(row["largest_change"])


def test_files_are_reproducible(tmp_path: Path) -> None:
    first, second = (
        write({name: SCHEMES[name] for name in FEW}, tmp_path / folder, costs=False) for folder in "ab"
    )
    assert {path.name for path in first} == {
        "cards.json",
        *(f"properties.{ending}" for ending in ("csv", "md", "tex")),
        *(f"{name}.{ending}" for name in ("card", "decay") for ending in ("png", "pdf", "csv")),
    }
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes()
    text = (tmp_path / "a" / "properties.md").read_text()
    assert "posbench properties results_dir=results/published" in text


def test_costs() -> None:
    found = cost(SCHEMES["t5"], seconds=0.05)
    assert 0 < found["time_low"] <= found["time_ratio"] <= found["time_high"]
    assert found["peak_mib_without"] > 0


def test_compact_numbers() -> None:
    given = (0.0, 0.00321, 0.0123, 1.25, 12.5, 255.75, 2413.0, -843.0)
    assert [format_compact(value) for value in given] == [
        "0",
        "0.003",
        "0.012",
        "1.2",
        "12",
        "256",
        "2.4k",
        "-843",
    ]


def test_script(tmp_path: Path) -> None:
    script = Path(__file__).parents[2] / "scripts" / "properties.py"

    def run(*arguments: str) -> subprocess.CompletedProcess:
        command = [sys.executable, str(script), f"results_dir={tmp_path}", "costs=false", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    done = run("schemes=[rope]")
    assert (done.returncode, done.stderr) == (0, "")
    assert list(pd.read_csv(tmp_path / "properties" / "properties.csv")["scheme"]) == ["rope"]
    wrong = run("schemes=[rop]")
    assert wrong.returncode == 2
    assert wrong.stderr.startswith("error: unknown scheme 'rop'")
    assert len(wrong.stderr.splitlines()) == 1
