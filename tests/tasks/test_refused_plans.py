"""Evaluations that a plan refuses: what an ensemble cannot answer, and what it cannot read."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
from test_tasks import Text

from posbench.config.hydra_app import load_group
from posbench.config.schema import (
    EvaluationSettings,
    ExtensionSettings,
    ModelSettings,
    SchemeSettings,
    TrainSettings,
)
from posbench.errors import IncompatibleError, TaskMismatchError
from posbench.plan.plan import plan_cells, plan_model
from posbench.tasks.fixed_targets import FixedTargets

ENSEMBLE = ExtensionSettings("chunks", ensemble={"_target_": "posbench.lm.chunks.ChunkEnsemble"})
ROPE = SchemeSettings("rope", {"_target_": "posbench.schemes.rope.RoPE"})
MODEL = plan_model(ModelSettings(ROPE, train=TrainSettings(seq_len=40)))


def cells(task, model=MODEL):
    """The lengths of the cells of a task with an ensemble."""
    evaluation = EvaluationSettings(length_multiples=[1])
    found = plan_cells(model, ENSEMBLE, task, evaluation, lambda group, name: load_group(group)[name], Text())
    return [cell.length for cell in found]


def test_a_task_that_an_ensemble_cannot_answer(monkeypatch):
    """Fault: a plan with such cells, each of which fails after the training, passed unnoticed."""
    assert cells("fixed_targets") == [40]
    with pytest.raises(TaskMismatchError, match="chunks cannot answer task attention"):
        cells("attention")
    monkeypatch.setattr(FixedTargets, "supports_ensembles", False)
    with pytest.raises(TaskMismatchError, match="chunks cannot answer task fixed_targets"):
        cells("fixed_targets")


def test_an_ensemble_of_a_model_without_whole_distributions():
    """Fault: a plan with cells of a black box in an ensemble passed unnoticed."""
    for architecture in (None, "converted"):
        pretrained = SimpleNamespace(
            architecture=architecture, resolve_extension=lambda extension: extension, id="", description=""
        )
        model = replace(MODEL, pretrained=pretrained)
        if architecture:
            assert cells("fixed_targets", model) == [40]
        else:
            with pytest.raises(
                IncompatibleError, match="chunks needs whole distributions, which a black box"
            ):
                cells("fixed_targets", model)
