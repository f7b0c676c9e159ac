"""The property card: a row for every scheme, reproducible files, and the script."""

import json
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
from posbench.properties.report import _LEGEND, write

SCHEMES = {
    file.stem: yaml.safe_load(file.read_text())["build"]
    for file in sorted((config_dir() / "scheme").glob("*.yaml"))
}
COMMAND = "posbench properties results_dir=results/published"
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
        write({name: SCHEMES[name] for name in FEW}, tmp_path / folder, COMMAND, costs=False)
        for folder in "ab"
    )
    assert {path.name for path in first} == {
        "cards.json",
        *(f"properties.{ending}" for ending in ("csv", "md", "tex")),
        *(f"{name}.{ending}" for name in ("card", "decay") for ending in ("png", "pdf", "csv")),
    }
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes()
    text = (tmp_path / "a" / "properties.md").read_text()
    assert f"Made by {COMMAND}." in text


def test_costs() -> None:
    found = cost(SCHEMES["t5"], seconds=0.05)
    assert 0 < found["time_low"] <= found["time_ratio"] <= found["time_high"]
    assert found["peak_mib_without"] > 0


def test_compact_numbers() -> None:
    given = (0.0, 0.00321, 0.0123, 1.25, 12.5, 255.75, 2413.0, -843.0, 99_100.0, 150_000.0)
    assert [format_compact(value) for value in given] == [
        "0",
        "0.003",
        "0.012",
        "1.2",
        "12",
        "256",
        "2.4k",
        "-843",
        "99k",
        "1.5e5",
    ]


def rated(title: str, **numbers: object) -> str:
    return str(
        next(one for one in COLUMNS if one.title.startswith(title)).of({"has_weights": False, **numbers})
    )


@pytest.mark.parametrize(
    ("kind", "visible", "excess", "text"),
    [
        ("changing", 0.2, 2.4, "◐ changing 20% +2.4"),
        ("constant", 0.002, 0.0, "● constant <1%"),
        ("hidden", 0.0, 2.4, "◐ masked +2.4"),
        ("hidden", 0.0, 0.0, "● masked"),
        ("position_blind", 1.0, 0.0, "● no positions"),
    ],
)
def test_behavior_and_visible_keys(kind: str, visible: float, excess: float, text: str) -> None:
    """Fault: the cell was "2e+01% visible", without the behaviour. With masked keys, it also left out the excess of the others."""
    numbers = {"behavior_4x": kind, "visible_fraction_4x": visible, "excess_4x": excess}
    assert rated("at 4", **numbers) == text


def test_values_that_are_not_nats_are_marked() -> None:
    """Fault: the unit of "± 8.4" was nats, but it was 8.4 times the weight of the token itself."""
    assert rated("bounded", largest_change=8.4, grows_with="nothing", has_weights=True) == "● ± 8.4×"
    assert rated("bounded", largest_change=8.4, grows_with="nothing") == "● ± 8.4"
    assert "×: not in nats" in _LEGEND


def test_a_scheme_without_positions_has_no_source_of_positions() -> None:
    """Fault: the source of NoPE's positions was a formula."""
    assert rated("source", behavior_1x="position_blind", position_source="formula") == "– no positions"
    assert rated("source", behavior_1x="position_blind", position_source="trained") == "◐ trained"


def test_script(tmp_path: Path) -> None:
    script = Path(__file__).parents[2] / "scripts" / "properties.py"

    def run(*arguments: str) -> subprocess.CompletedProcess:
        command = [sys.executable, str(script), f"results_dir={tmp_path}", "costs=false", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    done = run("schemes=[rope]", "--config-dir", str(tmp_path))
    assert (done.returncode, done.stderr) == (0, "")
    assert list(pd.read_csv(tmp_path / "properties" / "properties.csv")["scheme"]) == ["rope"]
    # Fault: the text had the command of results/published for every other command too.
    called = (
        f"posbench properties results_dir={tmp_path} costs=false 'schemes=[rope]' --config-dir {tmp_path}"
    )
    assert f"Made by {called}." in (tmp_path / "properties" / "properties.md").read_text()
    assert json.loads((tmp_path / "properties" / "cards.json").read_text())["command"] == called
    wrong = run("schemes=[rop]")
    assert wrong.returncode == 2
    assert wrong.stderr.startswith("error: unknown scheme 'rop'")
    assert len(wrong.stderr.splitlines()) == 1
