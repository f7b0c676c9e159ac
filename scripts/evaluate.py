"""Measure one trained model: python scripts/evaluate.py scheme=rope extension=yarn task=key_value.

Or a pretrained one: python scripts/evaluate.py lm=hugging_face lm.name=PATH extension=yarn evaluation.length_multiples=[1,2].
"""

from dataclasses import replace
from pathlib import Path

from posbench.config.hydra_app import run_app
from posbench.config.schema import EvaluateScript, ModelSettings
from posbench.data.corpus import open_corpus
from posbench.errors import DataError, IncompatibleError, unknown
from posbench.report.tables.layout import build_tables
from posbench.report.tables.markup import to_markdown
from posbench.runtime.distributed import world
from posbench.sweep.cell import ModelPlan, Plan
from posbench.sweep.grid import resolve_ensemble
from posbench.sweep.jobs import ResultsFolder
from posbench.sweep.plan import plan_cells, plan_model
from posbench.sweep.pretrained import plan_pretrained
from posbench.sweep.run import collect_rows, run_plan


def main(script: EvaluateScript) -> None:
    """Measure what is not measured yet, and print the tables."""
    model = planned(script)
    results_folder = ResultsFolder.from_runtime(script.runtime)
    if not results_folder.is_trained(model):
        raise DataError(
            f"no trained model of {model.label} at {results_folder.model_dir(model)}: run scripts/train.py with the same "
            "settings first"
        )
    corpus = open_corpus(model.settings.data, Path(script.runtime.cache_dir))
    given = {"name": script.task.name, "build": script.task.build}
    evaluation = replace(script.evaluation, task=script.task.name)
    extension = resolve_ensemble(script.extension, script.ensemble)
    cells = list(
        plan_cells(model, extension, script.task.name, evaluation, lambda group, name: given, corpus)
    )
    if not cells:
        raise IncompatibleError(
            f"task {script.task.name} has nothing to ask this model, which was trained on other text "
            f"(train.synthetic_task={model.settings.train.synthetic_task}): choose another task or another model"
        )
    if (
        run_plan(Plan([model], cells, []), script.runtime, "evaluate").n_remaining
        or not world().is_main_process
    ):
        return
    for table in build_tables(collect_rows(cells, results_folder), [model.settings.scheme.name]):
        print(to_markdown(table))


def planned(script: EvaluateScript) -> ModelPlan:
    """The model that the settings name."""
    lm = script.lm
    if lm.kind == "native":
        return plan_model(ModelSettings(script.scheme, script.size, script.data, script.train))
    if lm.kind != "hugging_face":
        raise unknown("lm.kind", lm.kind, ["native", "hugging_face"])
    model = plan_pretrained(lm, script.data)
    assert model.pretrained is not None
    own = model.pretrained.scaling
    if own.name != "none" and script.extension.build is not None:
        print(
            f"{script.extension.name} takes the place of {own.name}, the scaling of {model.pretrained.label}'s own"
        )
    return model


if __name__ == "__main__":
    run_app("evaluate", main)
