"""GRAPE-A against its formula, pair by pair, with x-transformers' ALiBi slopes. Tolerance 1e-12 in float64."""

import math

import pytest
import torch
from calls import SHAPE, assert_same_gradients, attention, attention_inputs, logits, values
from x_transformers.x_transformers import AlibiPositionalBias

from posbench.schemes.alibi import ALiBi
from posbench.schemes.grape_a import GrapeA
from posbench.schemes.nope import NoPE


def scheme() -> GrapeA:
    torch.manual_seed(0)
    own = GrapeA(SHAPE).double()
    with torch.no_grad():
        own.omega_LH.normal_()
    return own


@pytest.mark.parametrize("layer", [0, 1])
def test_attention_equals_the_formula(layer: int) -> None:
    own, inputs, v = scheme(), attention_inputs(12, layer), values(12)
    slope_H = AlibiPositionalBias(SHAPE.n_heads).slopes.flatten().double()
    rows = []
    for b in range(2):
        for h in range(SHAPE.n_heads):
            direction = own.v_LHD[layer, h] / own.v_LHD[layer, h].norm()
            for i in range(12):
                gate = torch.log1p(torch.exp(direction @ inputs.q_BHTD[b, h, i] / math.sqrt(8)))
                steep = slope_H[h] * torch.log1p(torch.exp(own.omega_LH[layer, h])) * gate
                logit = [
                    inputs.q_BHTD[b, h, i] @ inputs.k_BHSD[b, h, j] / math.sqrt(8) - (i - j) * steep
                    for j in range(i + 1)
                ]
                rows.append(torch.stack(logit).softmax(0) @ v[b, h, : i + 1])
    expected = torch.stack(rows).view(2, SHAPE.n_heads, 12, 8)
    mine = attention(own, inputs, v)
    torch.testing.assert_close(mine, expected, rtol=0, atol=1e-12)
    leaves = [own.omega_LH, own.v_LHD, inputs.q_BHTD, inputs.k_BHSD, v]
    assert_same_gradients(mine, expected, leaves, 1e-12)


def test_a_zero_query_has_alibi_times_ln_2() -> None:
    """softplus(0) is ln 2, and softplus(omega) starts at 1."""
    own, inputs = GrapeA(SHAPE).double(), attention_inputs()
    seen = inputs.geo.visible()
    inputs.q_BHTD.data.zero_()
    plain, alibi = (logits(one(SHAPE), inputs)[..., seen] for one in (NoPE, ALiBi))
    torch.testing.assert_close(
        logits(own, inputs)[..., seen], plain + math.log(2) * (alibi - plain), rtol=0, atol=1e-6
    )
