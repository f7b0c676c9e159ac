"""FIRE against the paper's equations, pair by pair, with an MLP of torch.nn. Tolerance 1e-12 in float64."""

import math

import pytest
import torch
from calls import SHAPE, assert_same_gradients, attention, attention_inputs, causal, values

from posbench.errors import ConfigError
from posbench.position.geometry import Geometry
from posbench.schemes.fire import FIRE


def scheme(threshold: float | None = None) -> FIRE:
    torch.manual_seed(0)
    return FIRE(SHAPE, init_threshold=threshold).double()


def loop(scheme: FIRE, layer: int, tokens: int) -> torch.Tensor:
    """f(psi(i - j) / psi(max(L, i))), psi(x) = log(c x + 1); (H, T, T)."""
    mlp = torch.nn.Sequential(torch.nn.Linear(1, 32), torch.nn.ReLU(), torch.nn.Linear(32, SHAPE.n_heads))
    weights = {
        "0.weight": scheme.in_LK[layer][:, None],
        "0.bias": scheme.bias_LK[layer],
        "2.weight": scheme.out_LHK[layer],
        "2.bias": torch.zeros(SHAPE.n_heads).double(),
    }
    c, least = scheme.c_L[layer], scheme.times_L[layer] * scheme.init_threshold
    parts = []
    for i in range(tokens):
        longest = torch.maximum(torch.tensor(float(i)).double(), least)
        for j in range(tokens):
            parts.append(torch.log(c * max(i - j, 0) + 1) / (torch.log(c * longest + 1) + 1e-6))
    biases = torch.func.functional_call(mlp, weights, torch.stack(parts)[:, None])
    return biases.T.view(SHAPE.n_heads, tokens, tokens)


@pytest.mark.parametrize("layer", [0, 1])
@pytest.mark.parametrize("threshold", [None, 7.5])
def test_attention_equals_the_equations(layer: int, threshold: float | None) -> None:
    own, inputs, v = scheme(threshold), attention_inputs(20, layer), values()
    expected = torch.nn.functional.scaled_dot_product_attention(
        inputs.q_BHTD, inputs.k_BHSD, v, attn_mask=loop(own, layer, 20) + causal(20)
    )
    mine = attention(own, inputs, v)
    torch.testing.assert_close(mine, expected, rtol=0, atol=1e-12)
    leaves = [*own.parameters(), inputs.q_BHTD, inputs.k_BHSD, v]
    assert_same_gradients(mine, expected, leaves, 1e-12)


def test_below_the_threshold_the_bias_depends_on_the_distance_only() -> None:
    bias = scheme(12.0).attention_bias(attention_inputs()).value(Geometry.from_range(0, 20), slice(None))
    for i in range(1, 12):
        torch.testing.assert_close(bias[:, i, 1 : i + 1], bias[:, i - 1, :i], rtol=0, atol=1e-14)
    assert (bias[:, 19, 1:] - bias[:, 18, :19]).abs().max() > 1e-3


def test_initial_values_are_those_of_the_paper() -> None:
    own = FIRE(SHAPE)
    assert own.c_L.tolist() == pytest.approx([0.1, 0.1])
    assert own.times_L.tolist() == [1.0, 1.0]
    assert own.init_threshold == SHAPE.train_len / 4


@pytest.mark.parametrize(
    "setting", [{"mlp_width": 0}, {"init_c": 0.0}, {"init_c": math.nan}, {"init_threshold": 0.0}]
)
def test_bad_settings(setting: dict) -> None:
    with pytest.raises(ConfigError, match="give at least 1 unit"):
        FIRE(SHAPE, **setting)
