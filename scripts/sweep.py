"""Plan, train, evaluate, tabulate and draw an experiment: python scripts/sweep.py experiment=demo."""

from dataclasses import asdict, replace
from pathlib import Path

from posbench.config.hydra_app import load_option, run_app
from posbench.config.schema import SweepScript
from posbench.report import experiment
from posbench.runtime.distributed import world
from posbench.sweep.jobs import ResultsFolder
from posbench.sweep.lr_selection import select_learning_rates
from posbench.sweep.plan import plan_sweep
from posbench.sweep.run import collect_rows, run_plan
from posbench.tracking.wandb import log_report


def main(script: SweepScript) -> None:
    """The whole of an experiment."""
    for name in script.figures:
        load_option("figure", name)  # a misspelt figure is better known before the training than after
    plan = plan_sweep(script, load_option, Path(script.runtime.cache_dir))
    note = ""
    if script.grid.lr:
        if run_plan(replace(plan, cells=[]), script.runtime, script.name).n_remaining:
            return
        plan, note = select_learning_rates(plan, ResultsFolder.from_runtime(script.runtime))
        if world().is_main_process:
            print(note)
    summary = run_plan(plan, script.runtime, script.name)
    if (
        summary.n_remaining or not world().is_main_process
    ):  # tables and figures of half an experiment would be taken for the whole
        return
    results_folder = ResultsFolder.from_runtime(script.runtime)
    folder = results_folder.path / script.name
    experiment.save_experiment(
        folder, collect_rows(plan.cells, results_folder), script.grid.scheme, script.figures, note
    )
    drawn = experiment.draw_report(folder, load_option)
    if summary.n_completed:
        log_report(folder, drawn, script.name, asdict(script), script.runtime)
    print(f"{len(drawn)} tables and figures in {folder}/tables and {folder}/figures")


if __name__ == "__main__":
    run_app("sweep", main)
