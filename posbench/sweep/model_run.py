"""The run of a model on the tracker: one for its training and all its evaluations."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pandas as pd

from posbench.config.schema import RuntimeSettings
from posbench.plan.cell import ModelPlan
from posbench.plan.grid import NONE
from posbench.tracking.run import RunInfo
from posbench.tracking.tracker import TrackedRun, open_run


def open_model_run(model: ModelPlan, experiment: str, runtime: RuntimeSettings) -> TrackedRun:
    """Returns the run of a model, scheme[-extension of its fine-tuning]-length-seed in the group of an experiment."""
    settings = asdict(model.settings)
    if model.fine_tuning:
        settings["extension"] = asdict(model.fine_tuning.extension)
    train = model.settings.train
    parts = [model.settings.scheme.name, *([model.fine_tuning.extension.name] if model.fine_tuning else [])]
    name = "-".join([*parts, str(train.seq_len), str(train.seed)])
    folder = Path(runtime.results_dir)
    return open_run(
        runtime, RunInfo(model.id, name, experiment, "model", folder, runtime.wandb_project, settings)
    )


def checkpoint_name(model: ModelPlan) -> str:
    """Returns the name of the artifact of a trained model."""
    return f"model-{model.id}"


def means(rows: pd.DataFrame, extension: str) -> dict[str, float]:
    """Returns the mean of each metric of a cell, by the name task[+extension]/protocol/metric."""
    ok = rows[rows["status"] == "ok"]
    sums = ok.groupby(["task", "protocol", "metric"])[["value_sum", "n"]].sum()
    suffix = "" if extension == NONE.name else f"+{extension}"
    return {
        f"{task}{suffix}/{protocol}/{metric}": value / n
        for (task, protocol, metric), value, n in sums.itertuples()
    }
