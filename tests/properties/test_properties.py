"""Properties of schemes whose values follow from their definition, within 1e-9 (float64)."""

import functools
import math

import numpy as np
import pytest
import torch
import yaml

from posbench.config.hydra_app import config_dir
from posbench.properties import decay, decay_figure, linearity, relativity, report, uniqueness
from posbench.properties.axial_2d import axial_2d
from posbench.properties.bounds import bounds
from posbench.properties.determinism import determinism
from posbench.properties.hooks import acts_on
from posbench.properties.length_behavior import length_behavior
from posbench.properties.order import order_sensitivity, permutation_control
from posbench.properties.pictures import pictures
from posbench.properties.probe import EXACT, SchemeProbe, last_token_logits
from posbench.properties.qk_map import isometry
from posbench.report.figures import house_style


@pytest.fixture(autouse=True)
def _without_gradients():
    with torch.no_grad():
        yield


@functools.cache
def probe(name: str) -> SchemeProbe:
    return SchemeProbe.of(yaml.safe_load((config_dir() / "scheme" / f"{name}.yaml").read_text())["build"])


def test_attention_is_permutation_equivariant_without_mask_and_scheme() -> None:
    found = permutation_control()
    assert found["unmasked"] < 1e-12
    assert found["causal"] > 0.1


@pytest.mark.parametrize(
    ("name", "sensitive"),
    [("nope", False), ("linear_attention", False), ("sinusoidal", True), ("rope", True), ("alibi", True)],
)
def test_order_sensitivity(name: str, sensitive: bool) -> None:
    assert (order_sensitivity(probe(name)) > EXACT) == sensitive


@pytest.mark.parametrize(
    ("name", "kind", "of_the_seed"),
    [
        ("sinusoidal", "formula", False),
        ("learned", "trained", True),
        ("randomized_rope", "random", False),
    ],
)
def test_determinism(name: str, kind: str, of_the_seed: bool) -> None:
    found = determinism(probe(name))
    assert found["position_source"] == kind
    assert found["repeated_difference"] == 0
    assert (found["seed_difference"] > EXACT) == of_the_seed
    assert found["parameters"] == (64 * 32 if name == "learned" else 0)


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("formula", "learned_sink gated_attention gpt_oss qwen3_next ssmax differential"),
        ("trained", "kerple_log bam repo asentmax gated_deltanet"),
    ],
)
def test_parameters_are_not_positions(kind: str, names: str) -> None:
    """Fault: any parameter made positions count as trained, such as a sink or an output gate beside RoPE."""
    found = {name: determinism(probe(name)) for name in names.split()}
    assert all(one["parameters"] for one in found.values())
    assert {name: one["position_source"] for name, one in found.items()} == dict.fromkeys(found, kind)


def test_logits_are_those_before_the_normalizer() -> None:
    """Fault: the logits of entmax were logarithms of normalised weights, which fall by ln 4 with 4 times as many keys."""
    own, of_base = (last_token_logits(probe(name), 64) for name in ("asentmax", "nape"))
    own, of_base = (one.unflatten(0, (2, 4, 4)) for one in (own, of_base))  # layers, tokens, heads
    assert torch.equal(own[:, :, :2], of_base[:, :, :2])
    assert own.isfinite().all()
    assert acts_on(probe("asentmax")) == ("logit scale", "logits", "softmax")
    # Differential attention subtracts the weights of two softmaxes, whose logits are those of its base.
    assert torch.equal(last_token_logits(probe("differential"), 64), last_token_logits(probe("rope"), 64))


def test_a_layer_with_softmax_beside_one_without_has_logits() -> None:
    """Fault: one trait of a hybrid decided for all its layers, so that a layer with softmax was shown as weights."""
    weights, of_logits = (one.about for one in pictures(probe("kimi_linear").settings))
    assert weights.startswith("Layer 1 of 4: Weight of key j")
    assert "where 1 is the weight of the token itself" in weights
    assert of_logits.startswith("Layer 4 of 4: Logit of query i")
    assert "1 everywhere, where 1 is the logit without a scheme" in of_logits
    np.testing.assert_allclose(decay.curves(probe("kimi_linear"))[1], 1)
    assert isometry(probe("gated_deltanet_hybrid"))["norm_change"] < EXACT


def test_unique_positions() -> None:
    """ALiBi's largest slope is 1/4, the difference between neighbours. Shaw clips distances at 16."""
    assert uniqueness.position_separation(probe("alibi"))["min_logit_difference"] == pytest.approx(0.25)
    assert uniqueness.position_separation(probe("nope")) == {
        "min_logit_difference": 0,
        "indistinguishable_fraction": 1,
    }
    clipped = 64 - 16  # distances 16 .. 63 are equal
    expected = clipped * (clipped - 1) / (64 * 63)
    assert uniqueness.position_separation(probe("shaw"))["indistinguishable_fraction"] == pytest.approx(
        expected
    )


def test_distances_in_embeddings() -> None:
    """The nearest positions are neighbours, at a squared distance of 4 sum sin(theta / 2)^2."""
    found = uniqueness.embedded(probe("sinusoidal"))
    theta = 10000.0 ** (-np.arange(16) / 16)
    assert found["position_distance"] == pytest.approx(2 * math.sqrt((np.sin(theta / 2) ** 2).sum()))
    assert found["token_distance"] > 0
    assert math.isnan(uniqueness.embedded(probe("rope"))["position_distance"])


def test_relativity() -> None:
    for name in ("rope", "alibi", "t5", "shaw", "xpos"):
        assert relativity.shifted(probe(name)) < EXACT
        assert relativity.along_diagonals(probe(name)) < EXACT
    for name in ("learned", "sinusoidal", "fire"):
        assert relativity.shifted(probe(name)) > 0.01
    # A factor that depends on the number of keys, and a global token, depend on indices but not on positions.
    assert relativity.shifted(probe("log_n")) < EXACT < relativity.along_diagonals(probe("log_n"))
    assert relativity.along_diagonals(probe("longformer")) == math.inf


def test_linear_relation() -> None:
    assert linearity.of_embeddings(probe("sinusoidal")) < EXACT
    assert linearity.of_embeddings(probe("learned")) > 0.5
    assert linearity.of_vectors(probe("rope")) < EXACT
    assert linearity.of_vectors(probe("fope")) > 0.01
    assert math.isnan(linearity.of_embeddings(probe("alibi")))
    assert math.isnan(linearity.of_vectors(probe("alibi")))


def test_norm_and_orthogonality() -> None:
    for name in ("rope", "p_rope", "hope"):
        assert all(value < EXACT for value in isometry(probe(name)).values())
    scaled = isometry(probe("xpos"))
    assert scaled["norm_change"] > 0.01 < scaled["orthogonality"]
    assert isometry(probe("key_norm"))["orthogonality"] == math.inf
    assert all(math.isnan(value) for value in isometry(probe("alibi")).values())


def test_boundedness() -> None:
    linear = bounds(probe("alibi"))
    assert linear["largest_change"] == pytest.approx(1023 / 4)
    assert linear["grows_with"] == "positions"
    for name in ("rope", "sinusoidal", "t5", "shaw", "learned"):
        assert bounds(probe(name))["grows_with"] == "nothing"
    assert bounds(probe("kerple_log"))["grows_with"] == "positions"
    assert bounds(probe("fox"))["grows_with"] == "tokens"
    assert bounds(probe("log_n"))["grows_with"] == "tokens"


def test_a_slow_rotation_is_bounded():
    """Fault: logits under RoPE of base 2 * 10^6 grow up to 2^14 positions, and were called unbounded."""
    slow = SchemeProbe.of({"_target_": "posbench.schemes.rope.RoPE", "rope_theta": 2e6})
    for one in (slow, probe("smollm3")):
        assert bounds(one)["grows_with"] == "nothing"


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("nope", "position_blind"),
        ("learned", "undefined"),
        ("window", "hidden"),
        ("shaw", "constant"),
        ("t5", "constant"),
        ("rope", "changing"),
        ("alibi", "changing"),
    ],
)
def test_behavior_beyond_the_training_length(name: str, kind: str) -> None:
    found = length_behavior(probe(name))
    assert found["behavior_16x"] == kind
    if name == "alibi":
        assert found["excess_16x"] == pytest.approx((1023 - 63) / 4)


def test_logits_beyond_their_range_are_those_of_all_keys() -> None:
    """Fault: the caption said that the excess is that of the distant half of the keys; it is that of all visible keys."""
    near, far = (last_token_logits(probe("t5"), length) for length in (64, 256))
    outside = (far - near.amax(1, keepdim=True)).maximum(near.amin(1, keepdim=True) - far).amax(0)
    found = length_behavior(probe("t5"))
    assert found["excess_4x"] == pytest.approx(float(outside[128:].max()))
    assert found["excess_4x"] > 0.1 > outside[:128].max()


def test_a_curve_below_the_axis_is_named() -> None:
    """Fault: the panel of hard_alibi was empty but for "to -624", and the caption explained neither this nor dashes."""
    curves = {"hidden": np.array([[1.0, -300.0, -600.0]]), "falls": np.array([[1.0, 0.5, -2.0]])}
    rows = [{"scheme": name, "behavior_16x": "defined"} for name in curves]
    with house_style():
        figure, _ = decay_figure.draw(rows, curves, "Decay", report._DECAY_CAPTION)
    assert [axes.texts[0].get_text() for axes in figure.axes] == ["below the axis, to -600", "to -2"]
    words = " ".join(text.get_text() for text in figure.texts).replace("\n", " ")
    assert "'below the axis': the whole curve from distance 1 on" in words
    assert "the first is solid, the others are dashed or dotted" in words


def test_decay() -> None:
    """The mean cosine at head dimension 64 is not monotone and negative at 725; its envelope falls."""
    curve = decay.curves(probe("rope"))
    theta = 10000.0 ** (-np.arange(32) / 32)
    np.testing.assert_allclose(curve[0], np.cos(np.arange(1024)[:, None] * theta).mean(1), atol=1e-12)
    assert curve[0, 725] < 0
    found = decay.decay(curve)
    assert found["decay"] == "envelope falls"
    assert found["first_rise"] < 64
    above = decay.envelope(curve[0])
    assert (above >= curve[0]).all()
    assert (np.diff(above) <= 0).all()
    assert decay.decay(decay.curves(probe("alibi")))["decay"] == "falls"
    assert decay.decay(decay.curves(probe("nope")))["decay"] == "flat"


def test_two_dimensions() -> None:
    rotated, added = axial_2d(probe("rope")), axial_2d(probe("sinusoidal"))
    assert rotated["axial_2d"]
    assert rotated["axial_2d_shift"] < EXACT < rotated["axial_2d_min_logit_difference"]
    assert added["axial_2d"]
    assert added["axial_2d_shift"] > 0.01
    assert not axial_2d(probe("alibi"))["axial_2d"]
    assert not axial_2d(probe("nope"))["axial_2d"]


def test_parts_that_a_scheme_acts_on() -> None:
    assert acts_on(probe("nope")) == ()
    assert acts_on(probe("rope")) == ("q and k",)
    assert acts_on(probe("shaw")) == ("logits", "values")
    assert acts_on(probe("window")) == ("q and k", "mask")
    assert acts_on(probe("linear_attention")) == ("attention",)
