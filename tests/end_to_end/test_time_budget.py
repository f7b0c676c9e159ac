"""A sweep with runtime.max_minutes ends cleanly with checkpoints and reports what is left."""

import json

import pytest

pytestmark = pytest.mark.slow

MINIATURE = "experiment=miniature"


def test_a_limit_that_is_no_number(script):
    result = script("sweep", MINIATURE, "runtime.max_minutes=soon")
    assert (result.code, len(result.err.strip().splitlines())) == (2, 1)


@pytest.mark.parametrize(("launcher", "minutes"), [("inline", 0.2), ("local", 0.15)])
def test_at_its_end_it_saves_checkpoints_and_reports_what_is_left(started, tmp_path, launcher, minutes):
    settings = ["grid.scheme=[nope,rope]", "train.steps=200000", f"runtime.launcher={launcher}"]
    process = started("sweep", MINIATURE, f"runtime.max_minutes={minutes}", *settings)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    assert "Traceback" not in output
    assert "time is up" in output
    assert "jobs are left" in output
    found = list((tmp_path / "results").glob("models/*/step-*/metadata.json"))
    assert found
    # On a busy machine a worker may start after the deadline.
    steps = [json.loads(path.read_text())["step"] for path in found]
    assert launcher == "local" or max(steps) > 0
    assert not (tmp_path / "results" / "miniature").exists(), "no tables of half an experiment"


def test_a_budget_changes_no_row(script, tmp_path):
    settings = ["grid.scheme=[rope]", "runtime.launcher=inline", "figures=[]"]
    assert script("sweep", MINIATURE, *settings).code == 0
    rows = tmp_path / "results" / "miniature" / "rows.parquet"
    free = rows.read_bytes()
    (tmp_path / "results").rename(tmp_path / "free")
    assert script("sweep", MINIATURE, *settings, "runtime.max_minutes=30").code == 0
    assert rows.read_bytes() == free
