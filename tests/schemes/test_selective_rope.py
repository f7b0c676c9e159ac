"""Selective RoPE against the steps of the authors' module, token by token. Tolerance 1e-12 in float64, also of gradients."""

import math

import pytest
import torch
from calls import SHAPE, assert_same_gradients, attention, attention_inputs, causal, values

from posbench.errors import ConfigError
from posbench.schemes.selective_rope import SelectiveRoPE

TOKENS, PAIRS = 12, SHAPE.head_dim // 2


@pytest.mark.parametrize("use_gate", [False, True])
def test_attention_equals_the_steps_token_by_token(use_gate: bool) -> None:
    torch.manual_seed(0)
    scheme = SelectiveRoPE(SHAPE, phi_proj_rank=5, use_gate=use_gate, interleaved=False).double()
    with torch.no_grad():
        for parameter in scheme.parameters():
            parameter.normal_()
    inputs, v = attention_inputs(TOKENS, 1), values(TOKENS)
    temperature = 1 / 500000 ** (torch.arange(0, SHAPE.head_dim, 2).double() / SHAPE.head_dim)
    past, total, queries, keys = [], 0.0, [], []
    for t in range(TOKENS):
        slices = inputs.x_BSW[:, t].view(2, SHAPE.n_heads, -1)
        unit = (slices / torch.sqrt((slices**2).sum(-1, keepdim=True) + 1e-6)).view(2, -1)
        past.append(unit @ scheme.down_LRW[1].T @ scheme.up_LPR[1].T)
        taps = scheme.tap_LPN[1]  # the last tap is the token's own
        phi = sum(past[t - back] * taps[:, 3 - back] for back in range(min(4, t + 1)))
        phi = phi.view(2, SHAPE.n_heads, PAIRS)
        if use_gate:
            gate = torch.sigmoid(unit @ scheme.gate_LHW[1].T + scheme.gate_bias_LH[1])
            phi = phi * gate[..., None]
        total = total + phi
        cos, sin = torch.cos(temperature * total), torch.sin(temperature * total)
        for x, turned in ((inputs.q_BHTD[:, :, t], queries), (inputs.k_BHSD[:, :, t], keys)):
            x0, x1 = x[..., :PAIRS], x[..., PAIRS:]
            turned.append(torch.cat([x0 * cos - x1 * sin, x0 * sin + x1 * cos], -1))
    q, k = torch.stack(queries, 2), torch.stack(keys, 2)
    expected = (q @ k.mT / math.sqrt(SHAPE.head_dim) + causal(TOKENS)).softmax(-1) @ v
    mine = attention(scheme, inputs, v)
    torch.testing.assert_close(mine, expected, rtol=0, atol=1e-12)
    leaves = [*scheme.parameters(), inputs.q_BHTD, inputs.k_BHSD, v]
    assert_same_gradients(mine, expected, leaves, 1e-10)


@pytest.mark.parametrize("setting", [{"phi_proj_rank": 0}, {"theta": 1.0}])
def test_bad_settings(setting: dict) -> None:
    with pytest.raises(ConfigError, match="give"):
        SelectiveRoPE(SHAPE, **setting)
