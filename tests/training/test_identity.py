"""Ids of models: what they depend on, and what does not change them."""

import importlib.util
import sys
from dataclasses import replace

import pytest

from posbench.config.schema import (
    ExtensionSettings,
    ModelSettings,
    SchemeSettings,
    SizeSettings,
    TrainSettings,
)
from posbench.identity import hashed_fields, identity
from posbench.instantiate import by_name, locate
from posbench.plan.cell import FineTuning, ModelPlan

ROPE = SchemeSettings("rope", {"_target_": "posbench.schemes.rope.RoPE", "rope_theta": 500.0})
PI = ExtensionSettings("pi", {"_target_": "posbench.extensions.pi.PositionInterpolation", "factor": 4})


def plan(**train) -> ModelPlan:
    return ModelPlan(ModelSettings(ROPE, train=TrainSettings(**train)), "a corpus", 1)


def test_pinned_ids():
    model = plan()
    tuned = replace(model, fine_tuning=FineTuning(model, PI, 1, TrainSettings(seq_len=256, steps=200)))
    # Results are published under these ids; a change must be deliberate.
    assert model.id == "7b7a63acce2a00c3"
    assert tuned.id == "2271adc345b0ad10"


def test_a_field_added_later_changes_the_id_where_it_is_set():
    ids = {plan(synthetic_task=kind).id for kind in ("associative_recall", "copy", "reverse")}
    assert len(ids) == 3
    assert plan(synthetic_task="associative_recall").id == plan().id


def test_whole_numbers_of_type_float():
    """Fault: rope_theta=500 and 500.0, or a weight decay of 0 in grid.train and 0.0, were trained as two models."""
    whole = SchemeSettings("rope", {**ROPE.build, "rope_theta": 500})
    assert replace(plan(), settings=ModelSettings(whole)).id == plan().id
    assert plan(weight_decay=0).id == plan(weight_decay=0.0).id
    assert isinstance(hashed_fields(TrainSettings(steps=7))["steps"], int)
    # Fault: factor=4 and 4.0 were two cells, since it may be "auto" as well.
    ntk, longrope = ({"_target_": f"posbench.extensions.{name}"} for name in ("ntk.NTK", "longrope.LongRoPE"))
    assert identity(by_name({**ntk, "factor": 4})) == identity(by_name({**ntk, "factor": 4.0}))
    assert by_name({**ntk, "factor": 1.5})["factor"] == 1.5
    long = [identity(by_name({**longrope, "long_factor": factors})) for factors in ([1.0, 2.5], [1, 2.5])]
    assert long[0] == long[1]


@pytest.mark.parametrize("settings", [TrainSettings(), SizeSettings()])
def test_only_fields_added_later_may_be_left_out_of_the_hash(settings):
    hashed = hashed_fields(settings)
    for name, one in type(settings).__dataclass_fields__.items():
        assert (name in hashed) != bool(one.metadata.get("hash_if_set"))


def test_moving_a_module_changes_no_id(monkeypatch):
    """Ids once hashed import paths, so that every published id changed when a file moved."""
    original = locate("posbench.schemes.rope.RoPE")
    spec = importlib.util.spec_from_file_location(
        "posbench.moved.turning", sys.modules[original.__module__].__file__
    )
    moved = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "posbench.moved", moved)
    monkeypatch.setitem(sys.modules, "posbench.moved.turning", moved)
    spec.loader.exec_module(moved)
    build = {**ROPE.build, "_target_": "posbench.moved.turning.RoPE"}
    assert locate(build["_target_"]) is not original
    assert replace(plan(), settings=ModelSettings(SchemeSettings("rope", build))).id == plan().id
    nested = {"_target_": "posbench.schemes.ssmax.SSMax", "base_scheme": ROPE.build}
    assert by_name({**nested, "base_scheme": build}) == by_name(nested)


def test_a_class_from_outside_keeps_its_import_path(tmp_path, monkeypatch):
    (tmp_path / "outside_scheme.py").write_text(
        "from posbench.schemes.rope import RoPE\nclass Mine(RoPE):\n    pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert by_name({"_target_": "outside_scheme.Mine"}) == {"_target_": "outside_scheme.Mine"}
