"""Resolution of neighbouring positions; extensions of a sweep under several settings."""

from types import SimpleNamespace

import numpy as np
import pytest
from test_tasks import Text

from posbench.config.schema import FinetuneSettings, GridSettings, SweepScript, VariantSettings
from posbench.errors import ConfigError, LengthError
from posbench.lm.interface import Scores
from posbench.plan import grid
from posbench.tasks import position_resolution
from posbench.tasks.position_resolution import PositionResolution

FILE = {"name": "pi", "build": {"_target_": "posbench.extensions.pi.PositionInterpolation", "factor": "auto"}}


@pytest.mark.parametrize("length", [16, 64, 128])
def test_own_value_and_next_value_at_distances_one_and_two(length):
    prompts = list(PositionResolution(4).prompts(length, Text(), 64, 0))
    assert len(prompts) == 4
    for prompt in prompts:
        assert prompt.length == length
        context = list(prompt.context)
        assert len(prompt.continuations) == 2 * len(prompt.doc["records"])
        for (key, own), (same_key, following) in zip(
            prompt.continuations[::2], prompt.continuations[1::2], strict=True
        ):
            first = context.index(key)
            assert key == same_key
            assert own != following
            assert context[first + 1] == own  # one token after the key
            assert context[first + 2] == key  # the key again,
            assert context[first + 4] == following  # two tokens before the next record's value


def test_a_context_without_neighbours_that_differ_is_left_out():
    """Fault: one such context ended the evaluation after the training."""
    found = [prompt.doc["context"] for prompt in PositionResolution(20).prompts(10, Text(), 64, 0)]
    assert 0 < len(found) < 20
    assert found == sorted(found)


def test_contexts_whose_neighbours_are_all_alike_are_an_error(monkeypatch):
    """Fault: an evaluation without a prompt, and so without rows, passed unnoticed."""
    alike = SimpleNamespace(key_ids=np.arange(3), value_ids=np.full(3, 7), ids=np.arange(9))
    monkeypatch.setattr(position_resolution, "recall_contexts", lambda *_: iter([alike] * 4))
    with pytest.raises(LengthError, match="at 10 tokens: no context has two neighbouring values that differ"):
        list(PositionResolution(4).prompts(10, Text(), 64, 0))


def test_metrics_compare_the_two_log_probabilities():
    task = PositionResolution(1)
    (prompt,) = task.prompts(16, Text(), 64, 0)
    count = len(prompt.doc["records"])
    logprob = np.tile([[-1.0], [-3.0]], (count, 1))
    logprob[:2] = [[-2.0], [-0.5]]
    measures = list(task.process_results(prompt, Scores(logprob, logprob.astype(int))))
    assert [one.value_sum for one in measures if one.metric == "position_accuracy"] == [0.0] + [1.0] * (
        count - 1
    )
    assert [one.value_sum for one in measures if one.metric == "log_likelihood_ratio"] == [-1.5] + [2.0] * (
        count - 1
    )
    (chance,) = [one for one in measures if one.metric == "chance"]
    assert chance.value_sum / chance.n == 0.5


def test_ties_count_half():
    """Fault: a tie, common in bfloat16, counted as a confusion, under a chance of 1/2."""
    task = PositionResolution(1)
    (prompt,) = task.prompts(64, Text(), 64, 0)
    same = Scores(
        np.zeros((len(prompt.continuations), 1)), np.zeros((len(prompt.continuations), 1), np.int64)
    )
    found = [one for one in task.process_results(prompt, same) if one.metric == "position_accuracy"]
    assert {one.value_sum for one in found} == {0.5}


def test_an_extension_with_several_settings():
    variants = {f"pi_k{k}": VariantSettings("pi", {"factor": k}) for k in (2, 4)}
    tuned = {"tuned": FinetuneSettings("pi", {"factor": 4}, {"steps": 5})}
    script = SweepScript(
        grid=GridSettings(scheme=["rope"], extension=["pi"]), variants=variants, finetune=tuned
    )
    found = grid.extensions(script, "rope", lambda group, name: dict(FILE))
    assert [(one.name, one.build["factor"], one.finetune) for one in found] == [
        ("pi", "auto", {}),
        ("pi_k2", 2, {}),
        ("pi_k4", 4, {}),
        ("tuned", 4, {"steps": 5}),
    ]


def test_extended_schemes_are_names_of_files():
    """Fault: a scheme whose label differs from the name of its file was evaluated without extensions, in silence."""
    script = SweepScript(grid=GridSettings(scheme=["mine"], extension=["pi"], extended_schemes=["mine"]))
    labels = {"mine": "rope-500k"}
    load = lambda group, name: {**FILE, "name": labels.get(name, name)}  # noqa: E731
    assert [one.name for one in grid.extensions(script, "rope-500k", load)] == ["pi"]
    assert grid.extensions(script, "alibi", load) == []


def test_entries_with_the_same_name_are_an_error():
    script = SweepScript(
        grid=GridSettings(scheme=["rope"]),
        variants={"twice": VariantSettings("pi")},
        finetune={"twice": FinetuneSettings("pi", train={"steps": 5})},
    )
    with pytest.raises(ConfigError, match=r"finetune\.twice"):
        grid.extensions(script, "rope", lambda group, name: dict(FILE))


def test_an_ensemble_with_the_name_of_an_extension_is_an_error():
    """Fault: two groups of rows under one name passed unnoticed."""
    script = SweepScript(grid=GridSettings(scheme=["rope"], extension=["pi"], ensemble=["mine"]))
    with pytest.raises(ConfigError, match=r"grid\.extension has a pi as well; rename one of the two"):
        grid.extensions(script, "rope", lambda group, name: dict(FILE))
