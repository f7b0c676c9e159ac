"""The command that the report shows for a series plans exactly the cells that its rows come from.

Ids are compared where the rows have today's arithmetic, else what a cell is of.
"""

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import posbench
from posbench.results.rows import read_rows

ROOT = Path(posbench.__file__).parents[1]
PUBLISHED = ROOT / "results" / "published"
# Makes the report's command of a series, plans it, and prints the command and the ids of the plan's cells.
CODE = """
import json, sys
from pathlib import Path
from posbench.commands.report import described
from posbench.config import overrides
from posbench.config.hydra_app import load_option, run_app
from posbench.config.keys import SCHEMAS
from posbench.plan.labels import with_distinct_labels
from posbench.plan.plan import plan_sweep
from posbench.report.html.results import ExperimentResults

name, scheme, extension, *words = sys.argv[1:]
of = ExperimentResults(name, Path(name, "rows.parquet"), None, [], [], "", words)
command = of.series_command(scheme, extension, described)

def run(script):
    plan = with_distinct_labels(plan_sweep(script, load_option, Path(script.runtime.cache_dir)))
    of = {cell.id: [cell.extension.name, cell.length, cell.model.settings.train.seed] for cell in plan.cells}
    print(json.dumps([command, of]))

import shlex
run_app("sweep", run, overrides.quote_texts(SCHEMAS["sweep"], shlex.split(command)[2:]), print)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "scheme", "extension"),
    [("demo", "rope", "yarn"), ("density", "rope", "pi_k2"), ("leaderboard", "fox", "none")],
    ids=" ".join,
)
def test_the_command_of_a_series_plans_its_cells(name: str, scheme: str, extension: str) -> None:
    words = json.loads((PUBLISHED / name / "experiment.json").read_text()).get("command")
    words = words or ["posbench", "sweep", f"experiment={name}"]
    arguments = [sys.executable, "-c", CODE, name, scheme, extension, *words]
    done = subprocess.run(arguments, capture_output=True, text=True, cwd=ROOT, check=True)
    command, cells = json.loads(done.stdout.splitlines()[-1])
    assert f"grid.scheme=[{scheme}]" in shlex.split(command)
    rows = read_rows(PUBLISHED / name / "rows.parquet")
    series = rows[(rows["scheme"] == scheme) & rows["extension"].isin(["none", extension])]
    if name == "demo":
        assert set(series["cell_id"]) <= set(cells) <= set(rows["cell_id"])
    columns = ["extension", "eval_len", "train_seed"]
    expected, all_of = (set(map(tuple, one[columns].drop_duplicates().to_numpy())) for one in (series, rows))
    assert expected <= set(map(tuple, cells.values())) <= all_of
