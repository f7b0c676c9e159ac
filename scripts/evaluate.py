"""Measure one trained model: python scripts/evaluate.py scheme=rope extension=yarn task=key_value."""

from dataclasses import replace
from pathlib import Path

from posbench.config import launch
from posbench.data.corpus import open_corpus
from posbench.errors import DataError
from posbench.plan import Plan, plan_cells, plan_model
from posbench.settings import EvaluateScript, ModelSettings
from posbench.sweep import collect, run
from posbench.tables.layout import tables
from posbench.tables.markup import to_markdown
from posbench.work import Places


def main(script: EvaluateScript) -> None:
    """Measure what is not measured yet, and print the tables."""
    model = plan_model(ModelSettings(script.scheme, script.size, script.data, script.train))
    places = Places.of(script.runtime)
    if not places.trained(model):
        raise DataError(
            f"no trained model of {model.label} at {places.model(model)}: run scripts/train.py with the same "
            "settings first"
        )
    corpus = open_corpus(script.data, Path(script.runtime.cache))
    given = {"name": script.task.name, "build": script.task.build}
    evaluation = replace(script.evaluation, task=script.task.name)
    cells = list(
        plan_cells(model, script.extension, script.task.name, evaluation, lambda group, name: given, corpus)
    )
    run(Plan([model], cells, []), script.runtime, "evaluate")
    for table in tables(collect(cells, places), [script.scheme.name]):
        print(to_markdown(table))


if __name__ == "__main__":
    launch("evaluate", main)
