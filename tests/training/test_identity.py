"""Names stay: what a model was called before settings had their later fields, it is called today."""

from dataclasses import replace

import pytest

from posbench.config.schema import (
    ExtensionSettings,
    ModelSettings,
    SchemeSettings,
    SizeSettings,
    TrainSettings,
)
from posbench.identity import content
from posbench.sweep.plan import ModelPlan, Tuning

ROPE = SchemeSettings("rope", {"_target_": "posbench.schemes.rope.RoPE", "base": 500.0})
PI = ExtensionSettings("pi", {"_target_": "posbench.extensions.pi.PositionInterpolation", "factor": 4})


def plan(**train) -> ModelPlan:
    return ModelPlan(ModelSettings(ROPE, train=TrainSettings(**train)), "a corpus", 1)


def test_the_names_of_the_first_release():
    model = plan()
    tuned = replace(model, tuning=Tuning(model, PI, 1, TrainSettings(length=256, steps=200)))
    # Computed by the code before there was any later field.
    assert model.id == "b1e7e82f4caadd5f"
    assert tuned.id == "7972dad53a192a4e"


def test_a_later_field_tells_models_apart_where_it_differs():
    names = {plan(synthetic=kind).id for kind in ("records", "copy", "reverse")}
    assert len(names) == 3
    assert plan(synthetic="records").id == plan().id


@pytest.mark.parametrize("settings", [TrainSettings(), SizeSettings()])
def test_only_later_fields_can_be_silent(settings):
    told = content(settings)
    for name, one in type(settings).__dataclass_fields__.items():
        assert (name in told) != bool(one.metadata.get("later"))
