"""Measure one trained model: python scripts/evaluate.py scheme=rope extension=yarn task=key_value.

Or a pretrained one: python scripts/evaluate.py subject=hugging_face subject.name=PATH extension=yarn evaluation.multiples=[1,2].
"""

from dataclasses import replace
from pathlib import Path

from posbench.config.hydra_app import launch
from posbench.config.schema import EvaluateScript, ModelSettings
from posbench.data.corpus import open_corpus
from posbench.errors import DataError, IncompatibleError, unknown
from posbench.report.tables.layout import tables
from posbench.report.tables.markup import to_markdown
from posbench.runtime.distributed import world
from posbench.sweep.grid import chosen
from posbench.sweep.jobs import Places
from posbench.sweep.plan import ModelPlan, Plan, plan_cells, plan_model
from posbench.sweep.pretrained import plan_pretrained
from posbench.sweep.run import collect, run


def main(script: EvaluateScript) -> None:
    """Measure what is not measured yet, and print the tables."""
    model = planned(script)
    places = Places.of(script.runtime)
    if not places.trained(model):
        raise DataError(
            f"no trained model of {model.label} at {places.model(model)}: run scripts/train.py with the same "
            "settings first"
        )
    corpus = open_corpus(model.settings.data, Path(script.runtime.cache))
    given = {"name": script.task.name, "build": script.task.build}
    evaluation = replace(script.evaluation, task=script.task.name)
    extension = chosen(script.extension, script.ensemble)
    cells = list(
        plan_cells(model, extension, script.task.name, evaluation, lambda group, name: given, corpus)
    )
    if not cells:
        raise IncompatibleError(
            f"task {script.task.name} has nothing to ask this model, which was trained on other text "
            f"(train.synthetic={model.settings.train.synthetic}): choose another task or another model"
        )
    if run(Plan([model], cells, []), script.runtime, "evaluate").left or not world().leads:
        return
    for table in tables(collect(cells, places), [model.settings.scheme.name]):
        print(to_markdown(table))


def planned(script: EvaluateScript) -> ModelPlan:
    """The model that the settings name."""
    subject = script.subject
    if subject.kind == "checkpoint":
        return plan_model(ModelSettings(script.scheme, script.size, script.data, script.train))
    if subject.kind != "hugging_face":
        raise unknown("subject.kind", subject.kind, ["checkpoint", "hugging_face"])
    model = plan_pretrained(subject, script.data)
    assert model.pretrained is not None
    own = model.pretrained.scaling
    if own.name != "none" and script.extension.build is not None:
        print(
            f"{script.extension.name} takes the place of {own.name}, the scaling of {model.pretrained.label}'s own"
        )
    return model


if __name__ == "__main__":
    launch("evaluate", main)
