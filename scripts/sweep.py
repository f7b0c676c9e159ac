"""Plan, train, evaluate, tabulate and draw an experiment: python scripts/sweep.py experiment=demo."""

from pathlib import Path

from posbench.config import choice, launch
from posbench.plan import plan_sweep
from posbench.records import write_rows
from posbench.settings import SweepScript
from posbench.sweep import collect, run
from posbench.work import Places


def main(script: SweepScript) -> None:
    """The whole of an experiment."""
    plan = plan_sweep(script, choice, Path(script.runtime.cache))
    run(plan, script.runtime)
    places = Places(Path(script.runtime.results))
    rows = collect(plan.cells, places)
    write_rows(rows, places.results / script.name / "rows.parquet")


if __name__ == "__main__":
    launch("sweep", main)
