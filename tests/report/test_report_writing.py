"""Reports have reproducible bytes, are drawn once, and import neither torch nor Hydra."""

import ast
import importlib
import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from synthetic_rows import synthetic_rows
from test_figure_kinds import KINDS, config

from posbench.errors import ConfigError
from posbench.instantiate import allow
from posbench.report.experiment import read_metadata, save_experiment
from posbench.report.report_writer import CODE, write_report
from posbench.version import __version__, source_commit

ORDER = ["rope", "alibi"]
FIGURES = [config("fixed_targets"), config("extensions")]


@pytest.fixture
def few(rows):
    rows = rows[rows["scheme"].isin(ORDER) & rows["extension"].isin(["none", "pi"])]
    return rows[rows["protocol"].isin(["fixed_targets", "synthetic_records"])]


def contents(paths):
    return {path.name: path.read_bytes() for path in paths}


def test_deleted_files_are_redrawn_with_the_same_bytes(few, tmp_path):
    first = contents(write_report(few, FIGURES, tmp_path, ORDER))
    assert {"fixed_targets.png", "extensions.pdf", "models.md"} <= set(first)
    for path in [*tmp_path.rglob("*.pdf"), *tmp_path.rglob("*.md")]:
        path.unlink()
    assert contents(write_report(few, FIGURES, tmp_path, ORDER)) == first
    elsewhere = write_report(few, FIGURES, tmp_path / "elsewhere", ORDER)
    assert contents(elsewhere) == first


def test_a_task_that_no_model_has_learned_has_a_report(tmp_path):
    """Fault: from 128 documents on, with lengths that are undefined, the report ended in an error of pandas."""
    rows = synthetic_rows(contexts=128, schemes=["nope"])
    rows = rows[rows["task"] == "key_value"]
    assert set(rows["status"]) == {"not_learned"}
    longer = rows["eval_len"] > rows["train_len"]
    undefined = {"status": "undefined", "doc_id": "", "n": 0, "value_sum": np.nan}
    rows = pd.concat([rows[~longer], rows[longer].drop_duplicates("eval_len").assign(**undefined)])
    assert write_report(rows, [config("retrieval_by_position")], tmp_path, ["nope"])


def test_reports_are_redrawn_after_changes_only(few, tmp_path):
    def written() -> dict[str, int]:
        paths = write_report(few, figures, tmp_path, ORDER)
        assert all(path.is_file() for path in paths)
        for path in paths:
            seen[path.name] = path.stat().st_mtime_ns
            os.utime(path, ns=(0, 0))
        return {name: time for name, time in seen.items() if time}

    seen: dict[str, int] = {}
    figures = FIGURES[:1]
    assert "fixed_targets.png" in written()
    assert not written()
    (tmp_path / "figures" / "fixed_targets.csv").write_text("edited")
    assert "fixed_targets.csv" in written()
    assert "edited" not in (tmp_path / "figures" / "fixed_targets.csv").read_text()
    assert not written()
    figures = [FIGURES[0] | {"title": "Another title"}]
    assert written()
    few.loc[few.index[0], "value_sum"] += 0.5
    assert written()


OWN_FIGURE = """
import pandas as pd
from matplotlib.figure import Figure


def draw(data):
    return Figure(), pd.DataFrame({"number": [NUMBER]})
"""


def test_changed_code_outside_of_the_report_redraws_it():
    """config/lengths.py had come into use without being part of what is compared: its changes redrew nothing."""
    package = Path(importlib.import_module("posbench").__file__).parent
    imported = set()
    for file in [*package.glob("report/tables/*.py"), *package.glob("report/figures/*.py")]:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module == "posbench":
                imported |= {f"posbench.{each.name}" for each in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported.add(node.module)
    without_content = {"errors", "instantiate"}
    outside = {
        name.removeprefix("posbench.")
        for name in imported
        if name.startswith("posbench.") and not name.startswith("posbench.report")
    }
    assert {f"{name.replace('.', '/')}.py" for name in outside - without_content} == set(CODE)


def test_a_function_from_outside_that_has_changed_is_drawn_anew(few, tmp_path, monkeypatch):
    """The code of a figure's function from outside was no part of what a report is drawn from: an edit changed nothing."""
    monkeypatch.syspath_prepend(tmp_path)
    allow(["own_figure"])
    figures = [{"name": "own", "draw": "own_figure.draw"}]
    for number in ("1", "2"):
        monkeypatch.delitem(sys.modules, "own_figure", raising=False)
        (tmp_path / "own_figure.py").write_text(OWN_FIGURE.replace("NUMBER", number) + "#" * int(number))
        importlib.invalidate_caches()
        write_report(few, figures, tmp_path / "report", ORDER)
        assert number in (tmp_path / "report" / "figures" / "own.csv").read_text()
    allow([])


def test_files_of_an_earlier_report_are_deleted(few, tmp_path):
    write_report(few, FIGURES, tmp_path, ORDER)
    write_report(few, FIGURES[:1], tmp_path, ORDER)
    assert not list(tmp_path.rglob("extensions.*"))
    assert list(tmp_path.rglob("fixed_targets.png"))


def test_figure_without_rows_is_left_out_with_a_warning(few, tmp_path, caplog):
    plain = few[few["extension"] == "none"]
    for _ in range(2):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            paths = write_report(plain, FIGURES, tmp_path, ORDER)
        assert [message.split(":")[0] for message in caplog.messages] == ["figure extensions is left out"]
    assert "fixed_targets.png" in contents(paths)


def test_invalid_figure_raises(few, tmp_path):
    with pytest.raises(ConfigError, match="unknown setting"):
        write_report(few, [FIGURES[0] | {"titel": "x"}], tmp_path, ORDER)


def test_folder_that_cannot_be_written_raises(few, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ConfigError, match="choose another folder") as error:
        write_report(few, FIGURES, tmp_path / "file", ORDER)
    assert "\n" not in str(error.value)


def test_heavy_modules_are_not_imported():
    modules = [
        "results.rows",
        "results.statistics",
        "report.tables.layout",
        "report.report_writer",
        *(f"report.figures.{k}" for k in _kinds()),
    ]
    code = "; ".join(f"import posbench.{module}" for module in modules)
    code += "; import sys; print([m for m in ('torch', 'hydra', 'transformers', 'scipy.stats') if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def _kinds() -> set[str]:
    return {config(name)["draw"].split(".")[3] for name in KINDS}


def test_an_experiment_names_the_version_and_the_commit_that_made_it(rows, tmp_path):
    """Fault: CITATION.cff asks for the version that made the rows, which no file of an experiment contained."""
    save_experiment(tmp_path, rows, [], [])
    metadata = read_metadata(tmp_path)
    assert metadata["version"] == __version__
    assert metadata.get("commit", "") == source_commit()
    assert re.fullmatch(r"([0-9a-f]{40}(-dirty)?)?", source_commit())
