"""Names that become folders, files or labels follow one rule, and nothing leads out of the results folder."""

import pandas as pd
import pytest
from test_safety import SMALL, SWEEP, assert_refused

from posbench.errors import ConfigError
from posbench.names import check_name

BAD_NAMES = [
    "../escape",
    "..",
    ".",
    "/abs/path",
    "a/b",
    "a\\b",
    "cells",
    "models",
    "Models",
    "locks",
    "jobs",
    "sweeps",
    "published",
    "step-1",
    "STEP-00000007",
    "$x^{",
    "-x",
    ".x",
    "é",
]
BAD_NAMES += ["", "a\nb", "a\n", "a b", "a" * 65, "a" * 300, "\udcff"]


@pytest.mark.parametrize("name", [*BAD_NAMES, None, 3, ["a"]], ids=ascii)
def test_names_follow_one_rule(name):
    with pytest.raises(ConfigError, match=r"^scheme\.name [^\n]{1,250}$"):
        check_name("scheme.name", name)


@pytest.mark.parametrize("name", ["rope", "step-size", "0", "a.b_c+d-e", "a" * 64])
def test_other_names_are_allowed(name):
    check_name("scheme.name", name)


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("name", "../escape"),
        ("name", "cells"),
        ("name", "step-1"),
        ("name", "''"),
        ("name", "'a\nb'"),
        ("name", "/abs/path"),
        ("name", ".."),
        ("size.name", "a" * 300),
        ("data.name", "'�'"),
    ],
    ids=ascii,
)
def test_names_are_checked_first(key, name, script, tmp_path):
    """A name led out of the results folder, over its own folders, or to a traceback."""
    before = set(tmp_path.rglob("*"))
    assert_refused(script("sweep", *SWEEP, f"{key}={name}"), key)
    assert set(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("command", "overrides"),
    [
        ("train", (*SMALL, "scheme.name=../x")),
        ("evaluate", (*SMALL, "extension.name=../x")),
        ("evaluate", (*SMALL, "ensemble.name=../x")),
        ("evaluate", (*SMALL, "task.name=../x")),
        ("sweep", (*SWEEP, "+variants={../x: {extension: pi}}")),
        ("sweep", (*SWEEP, "+finetune={../x: {extension: pi, train: {steps: 1}}}")),
        ("sweep", (*SWEEP, "+evaluate={../x: {task: key_value}}")),
        ("sweep", (*SWEEP, "grid.scheme=[../x]")),
        ("sweep", (*SWEEP, "figures=[../x]")),
        ("figures", ("experiments=[../x]",)),
        ("figures", ("experiments=[cells]",)),
        ("properties", ("schemes=[../x]",)),
    ],
)
def test_every_name_follows_the_rule(command, overrides, script):
    assert_refused(script(command, *overrides), "letters" if "cells" not in overrides[-1] else "'cells'")


@pytest.mark.parametrize("group", ["scheme", "extension", "ensemble", "figure", "size"])
def test_names_in_files_follow_the_rule(group, script, foreign, tmp_path):
    path = foreign(f"{group}/theirs", "name: ../x\nbuild: null\n")
    chosen = "figures=[theirs]" if group == "figure" else f"grid.{group}=[theirs]"
    assert_refused(script("sweep", path, *SWEEP, chosen), "'../x'", f"{group} theirs")


def test_an_experiment_called_like_a_checkpoint_keeps_its_folder(script, tmp_path):
    """An experiment called `step-size` was set aside as a broken checkpoint by the next sweep, and then deleted."""
    kept = tmp_path / "results" / "step-size" / "notes.txt"
    kept.parent.mkdir(parents=True)
    kept.write_text("kept")
    (tmp_path / "results" / "step-00000001").mkdir()
    result = script(
        "sweep", *SWEEP, "train.steps=2", "name=step-size", "runtime.max_minutes=10", "figures=[]"
    )
    assert result.code == 0, result
    assert kept.read_text() == "kept"
    assert {path.name for path in (tmp_path / "results").glob("step-*")} == {"step-size", "step-00000001"}
    assert set(pd.read_parquet(kept.with_name("rows.parquet"))["scheme"]) == {"rope"}
