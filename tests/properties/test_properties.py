"""Every property on schemes whose answer is known from their definition. Equal is within 1e-9 (float64)."""

import functools
import math

import numpy as np
import pytest
import torch
import yaml

from posbench.config.hydra_app import configs
from posbench.properties import decay, linearity, relativity, uniqueness
from posbench.properties.bounds import bounds
from posbench.properties.determinism import determinism
from posbench.properties.hooks import acts_on
from posbench.properties.lengths import behaviour
from posbench.properties.order import control, felt
from posbench.properties.plane import plane
from posbench.properties.probe import EXACT, Subject
from posbench.properties.turns import isometry


@pytest.fixture(autouse=True)
def _without_gradients():
    with torch.no_grad():
        yield


@functools.cache
def subject(name: str) -> Subject:
    return Subject.of(yaml.safe_load((configs() / "scheme" / f"{name}.yaml").read_text())["build"])


def test_attention_is_equivariant_without_mask_and_scheme_and_the_mask_ends_that() -> None:
    found = control()
    assert found["unmasked"] < 1e-12
    assert found["causal"] > 0.1


@pytest.mark.parametrize(
    ("name", "feels"),
    [("nope", False), ("linear", False), ("sinusoidal", True), ("rope", True), ("alibi", True)],
)
def test_order_is_felt_by_the_scheme_alone(name: str, feels: bool) -> None:
    assert (felt(subject(name)) > EXACT) == feels


@pytest.mark.parametrize(
    ("name", "kind", "of_the_seed"),
    [
        ("sinusoidal", "formula", False),
        ("learned", "trained", True),
        ("randomized_rope", "drawn anew", False),
    ],
)
def test_determinism(name: str, kind: str, of_the_seed: bool) -> None:
    found = determinism(subject(name))
    assert found["kind"] == kind
    assert found["repeated_difference"] == 0
    assert (found["seed_difference"] > EXACT) == of_the_seed
    assert found["parameters"] == (64 * 32 if name == "learned" else 0)


def test_unique_positions() -> None:
    """ALiBi's gentlest slope is 1/256, its steepest 1/4: neighbours differ by 1/4 somewhere. Shaw's clip is 16."""
    assert uniqueness.told_apart(subject("alibi"))["smallest_difference"] == pytest.approx(0.25)
    assert uniqueness.told_apart(subject("nope")) == {"smallest_difference": 0, "alike": 1}
    past = 64 - 16  # distances 16 .. 63 are one class
    expected = past * (past - 1) / (64 * 63)
    assert uniqueness.told_apart(subject("shaw"))["alike"] == pytest.approx(expected)


def test_distances_in_embeddings() -> None:
    """Neighbours are nearest: 4 sum sin(theta / 2)^2."""
    found = uniqueness.embedded(subject("sinusoidal"))
    theta = 10000.0 ** (-np.arange(16) / 16)
    assert found["position_distance"] == pytest.approx(2 * math.sqrt((np.sin(theta / 2) ** 2).sum()))
    assert found["token_distance"] > 0
    assert math.isnan(uniqueness.embedded(subject("rope"))["position_distance"])


def test_relativity() -> None:
    for name in ("rope", "alibi", "t5", "shaw", "xpos"):
        assert relativity.shifted(subject(name)) < EXACT
        assert relativity.along_diagonals(subject(name)) < EXACT
    for name in ("learned", "sinusoidal", "fire"):
        assert relativity.shifted(subject(name)) > 0.01
    # A factor by the number of keys, and a global token, follow indices and no positions.
    assert relativity.shifted(subject("log_n")) < EXACT < relativity.along_diagonals(subject("log_n"))
    assert relativity.along_diagonals(subject("longformer")) == math.inf


def test_linear_relation() -> None:
    assert linearity.of_embeddings(subject("sinusoidal")) < EXACT
    assert linearity.of_embeddings(subject("learned")) > 0.5
    assert linearity.of_vectors(subject("rope")) < EXACT
    assert linearity.of_vectors(subject("fope")) > 0.01
    assert math.isnan(linearity.of_embeddings(subject("alibi")))
    assert math.isnan(linearity.of_vectors(subject("alibi")))


def test_norm_and_orthogonality() -> None:
    for name in ("rope", "p_rope", "hope"):
        assert all(value < EXACT for value in isometry(subject(name)).values())
    stretched = isometry(subject("xpos"))
    assert stretched["norm_change"] > 0.01 < stretched["orthogonality"]
    assert isometry(subject("key_norm"))["orthogonality"] == math.inf
    assert all(math.isnan(value) for value in isometry(subject("alibi")).values())


def test_boundedness() -> None:
    steepest = bounds(subject("alibi"))
    assert steepest["largest_change"] == pytest.approx(1023 / 4)
    assert steepest["grows_with"] == "positions"
    for name in ("rope", "sinusoidal", "t5", "shaw", "learned"):
        assert bounds(subject(name))["grows_with"] == "nothing"
    assert bounds(subject("kerple_log"))["grows_with"] == "positions"
    assert bounds(subject("forgetting"))["grows_with"] == "tokens"
    assert bounds(subject("log_n"))["grows_with"] == "tokens"


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("nope", "silent"),
        ("learned", "undefined"),
        ("window", "hidden"),
        ("shaw", "constant"),
        ("t5", "constant"),
        ("rope", "changing"),
        ("alibi", "changing"),
    ],
)
def test_past_the_training_length(name: str, kind: str) -> None:
    found = behaviour(subject(name))
    assert found["at_16x"] == kind
    if name == "alibi":
        assert found["excess_16x"] == pytest.approx((1023 - 63) / 4)


def test_decay() -> None:
    """The mean cosine at head dimension 64 is no monotone function and below zero at 725; only its envelope falls."""
    curve = decay.curves(subject("rope"))
    theta = 10000.0 ** (-np.arange(32) / 32)
    np.testing.assert_allclose(curve[0], np.cos(np.arange(1024)[:, None] * theta).mean(1), atol=1e-12)
    assert curve[0, 725] < 0
    found = decay.decay(curve)
    assert found["decay"] == "envelope falls"
    assert found["first_rise"] < 64
    above = decay.envelope(curve[0])
    assert (above >= curve[0]).all()
    assert (np.diff(above) <= 0).all()
    assert decay.decay(decay.curves(subject("alibi")))["decay"] == "falls"
    assert decay.decay(decay.curves(subject("nope")))["decay"] == "flat"


def test_two_dimensions() -> None:
    turned, added = plane(subject("rope")), plane(subject("sinusoidal"))
    assert turned["plane"]
    assert turned["plane_shift"] < EXACT < turned["plane_smallest_difference"]
    assert added["plane"]
    assert added["plane_shift"] > 0.01
    assert not plane(subject("alibi"))["plane"]
    assert not plane(subject("nope"))["plane"]


def test_what_a_scheme_acts_on() -> None:
    assert acts_on(subject("nope")) == ()
    assert acts_on(subject("rope")) == ("q and k",)
    assert acts_on(subject("shaw")) == ("logits", "values")
    assert acts_on(subject("window")) == ("q and k", "mask")
    assert acts_on(subject("linear")) == ("attention",)
