"""Plan, train, evaluate, tabulate and draw an experiment: python scripts/sweep.py experiment=demo."""

from dataclasses import asdict, replace
from pathlib import Path

from posbench import experiment
from posbench.config import choice, launch
from posbench.parallel import world
from posbench.plan import plan_sweep
from posbench.rates import settled
from posbench.settings import SweepScript
from posbench.sweep import collect, run
from posbench.work import Places


def main(script: SweepScript) -> None:
    """The whole of an experiment."""
    for name in script.figures:
        choice("figure", name)  # a misspelt figure is better known before the training than after
    plan = plan_sweep(script, choice, Path(script.runtime.cache))
    note = ""
    if script.grid.lr:
        if run(replace(plan, cells=[]), script.runtime, script.name).left:
            return
        plan, note = settled(plan, Places.of(script.runtime))
        if world().leads:
            print(note)
    outcome = run(plan, script.runtime, script.name)
    if (
        outcome.left or not world().leads
    ):  # tables and figures of half an experiment would be taken for the whole
        return
    places = Places.of(script.runtime)
    folder = places.results / script.name
    experiment.write(folder, collect(plan.cells, places), script.grid.scheme, script.figures, note)
    drawn = experiment.draw(folder, choice)
    if outcome.done:
        experiment.mirror(folder, drawn, script.name, asdict(script), script.runtime)
    print(f"{len(drawn)} tables and figures in {folder}/tables and {folder}/figures")


if __name__ == "__main__":
    launch("sweep", main)
