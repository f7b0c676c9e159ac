"""Plan, train, evaluate, tabulate and draw an experiment: python scripts/sweep.py experiment=demo."""

from dataclasses import asdict, replace
from pathlib import Path

from posbench.config.hydra_app import choice, launch
from posbench.config.schema import SweepScript
from posbench.report import experiment
from posbench.runtime.distributed import world
from posbench.sweep.jobs import Places
from posbench.sweep.lr_selection import settled
from posbench.sweep.plan import plan_sweep
from posbench.sweep.run import collect, run
from posbench.tracking.wandb import log_report


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
        log_report(folder, drawn, script.name, asdict(script), script.runtime)
    print(f"{len(drawn)} tables and figures in {folder}/tables and {folder}/figures")


if __name__ == "__main__":
    launch("sweep", main)
