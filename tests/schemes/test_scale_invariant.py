"""Scale-invariant attention against a loop written from the paper. Tolerance 1e-12 in float64, also of gradients."""

import math

import pytest
import torch
from calls import SHAPE, assert_same_gradients, attention, attention_inputs, values

from posbench.errors import ConfigError
from posbench.schemes.p_rope import PRoPE
from posbench.schemes.scale_invariant import ScaleInvariant

TOKENS = 20
BASE = {"_target_": "posbench.schemes.p_rope.PRoPE", "partial_rotary_factor": 0.5}


def test_attention_equals_a_loop() -> None:
    inputs, v = attention_inputs(TOKENS), values(TOKENS)
    q, k = PRoPE(SHAPE, 0.5).qk(inputs)
    alpha = beta = math.exp(0.5)
    rows = []
    for i in range(TOKENS):
        logits = []
        for j in range(i + 1):
            square = 2 * (math.log((i - j) / 10 + 1) - math.log(alpha) + beta / alpha)
            content = (q[:, :, i] * k[:, :, j]).sum(-1) / math.sqrt(SHAPE.head_dim)
            logits.append(math.sqrt(square) * content - square + beta / alpha)
        rows.append((torch.stack(logits, -1).softmax(-1)[..., None] * v[:, :, : i + 1]).sum(2))
    mine, expected = attention(ScaleInvariant(SHAPE, BASE), inputs, v), torch.stack(rows, 2)
    torch.testing.assert_close(mine, expected, rtol=0, atol=1e-12)
    assert_same_gradients(mine, expected, [inputs.q_BHTD, inputs.k_BHSD, v], 1e-12)


def test_total_weight_of_a_range_hardly_depends_on_its_scale() -> None:
    """What the paper derives for Gaussian logits: E exp(logit) is alpha / (t / tau + 1), so decades weigh the same."""
    distance = torch.arange(100_000)
    gain, penalty = ScaleInvariant(SHAPE, BASE).gain(distance)
    expected = (gain.square() / 2 + penalty).exp()
    torch.testing.assert_close(expected, math.exp(0.5) / (distance.double() / 10 + 1), rtol=1e-12, atol=0)


@pytest.mark.parametrize("tau", [0.0, -1.0, math.inf])
def test_bad_settings(tau: float) -> None:
    with pytest.raises(ConfigError, match="give a number of tokens above 0"):
        ScaleInvariant(SHAPE, BASE, tau)
