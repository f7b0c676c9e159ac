"""Evaluates one model on one task and prints the tables: a model of `posbench train`, or a pretrained one.

The settings of the training name the model. An extension stands around a trained scheme, an ensemble around a whole
model; neither changes the weights.

most used settings:
  scheme=alibi train.seq_len=128           the model, by the settings that it was trained with
  task=key_value                           what to measure (posbench list tasks); by default fixed_targets
  extension=yarn                           a context extension (posbench list extensions)
  'evaluation.length_multiples=[1,2,8]'    lengths as multiples of the training length
  lm=hugging_face lm.name=NAME             a pretrained model in place of scheme, size and train

examples:
  posbench evaluate scheme=rope extension=yarn task=key_value
  posbench evaluate scheme=alibi train.seq_len=128 train.seed=1 task=key_value 'evaluation.length_multiples=[1,2]'
  posbench evaluate scheme=rope ensemble=nbce task=key_value
  posbench evaluate lm=hugging_face lm.name=HuggingFaceTB/SmolLM2-1.7B data=pg19 extension=self_extend
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from posbench.commands import checks, settings_command
from posbench.config.schema import EvaluateScript, ExtensionSettings, ModelSettings
from posbench.errors import DataError, IncompatibleError, TaskMismatchError

if TYPE_CHECKING:
    import pandas as pd

    from posbench.evaluation.results_folder import ResultsFolder
    from posbench.plan.cell import Cell, ModelPlan


def main(arguments: Sequence[str]) -> int:
    return settings_command.main("evaluate", __doc__, run, arguments)


def run(script: EvaluateScript) -> None:
    """Evaluates the cells without rows, and prints the tables."""
    from posbench.config.hydra_app import given_keys

    model, rows = measure(script, given_keys())
    if rows is None:
        return
    from posbench.report.tables.layout import build_tables
    from posbench.report.tables.markup import to_markdown

    for table in build_tables(rows, [model.settings.scheme.name]):
        print(to_markdown(table))


def measure(script: EvaluateScript, given: Collection[str] = ()) -> tuple[ModelPlan, pd.DataFrame | None]:
    """Evaluates the cells without rows, and returns the model and the rows of all cells.

    There are no rows on the other ranks, and where cells are left for another run.

    Args:
        given: keys on the command line, of which none may be without an effect.
    """
    extension = checks.check_evaluation(script, given)
    from posbench.evaluation.results_folder import ResultsFolder
    from posbench.plan.cell import Plan
    from posbench.runtime.distributed import world
    from posbench.sweep.run import run_plan

    results_folder = ResultsFolder.from_runtime(script.runtime)
    model, cells = world().from_main(lambda: plan_evaluation(script, extension, results_folder, given))
    if (
        run_plan(Plan([model], cells, []), script.runtime, "evaluate").n_remaining
        or not world().is_main_process
    ):
        return model, None
    return model, results_folder.collect(cells)


def plan_evaluation(
    script: EvaluateScript,
    extension: ExtensionSettings,
    results_folder: ResultsFolder,
    given: Collection[str],
) -> tuple[ModelPlan, list[Cell]]:
    """Plans the model that the settings name, and its cells.

    Args:
        given: keys on the command line.
    """
    from posbench.data.corpus import open_corpus
    from posbench.plan.plan import build_task, check_cells, plan_cells

    model = plan(script)
    task = {"name": script.task.name, "build": script.task.build}
    evaluation = replace(script.evaluation, task=script.task.name)
    load = lambda group, name: task  # noqa: E731
    if not model.pretrained:  # before the model is missed: its training would be in vain
        check_cells(model, extension, "evaluation", evaluation, load)
    if not model.pretrained and not results_folder.is_trained(model.id):
        raise DataError(
            f"no trained model of {model.label} at {results_folder.model_dir(model.id)}: run posbench train "
            "with the same settings first"
        )
    corpus = open_corpus(model.settings.data, Path(script.runtime.cache_dir))
    if not any(key.startswith("evaluation.length") for key in given):
        _, made = build_task("evaluation", evaluation, load, 1)
        if made.fixed_lengths(corpus):  # in place of the lengths of configs/evaluate.yaml
            evaluation = replace(evaluation, lengths=[], length_multiples=[])
    try:
        return model, list(plan_cells(model, extension, "evaluation", evaluation, load, corpus))
    except TaskMismatchError as error:
        raise IncompatibleError(f"{error}: choose another task or another model") from None


def plan(script: EvaluateScript) -> ModelPlan:
    """Plans the model that the settings name."""
    from posbench.plan.plan import plan_model
    from posbench.plan.pretrained import plan_pretrained

    if script.lm.kind == "native":
        return plan_model(ModelSettings(script.scheme, script.size, script.data, script.train))
    model = plan_pretrained(script.lm, script.data)
    assert model.pretrained is not None
    own = model.pretrained.scaling
    if own.name != "none" and script.extension.build is not None:
        print(
            f"{script.extension.name} replaces {own.name}, the scaling in the configuration of "
            f"{model.pretrained.label}"
        )
    return model
