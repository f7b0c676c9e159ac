"""CARoPE against phases accumulated token by token. Tolerance 1e-12 in float64, also of gradients."""

import math
from dataclasses import replace

import pytest
import torch
from calls import SHAPE, assert_same_gradients, attention, attention_inputs, causal, values

from posbench.errors import ConfigError
from posbench.schemes.carope import CARoPE

TOKENS = 12


def test_attention_equals_phases_token_by_token() -> None:
    torch.manual_seed(0)
    scheme = CARoPE(SHAPE).double()
    with torch.no_grad():
        scheme.weight_LHW.normal_()
    inputs, v = attention_inputs(TOKENS, 1), values(TOKENS)
    base_BSH = 1 / (1 + torch.log1p(torch.exp(inputs.x_BSW @ scheme.weight_LHW[1].T)))
    phase = torch.zeros(2, SHAPE.n_heads, SHAPE.head_dim // 2, dtype=torch.float64)
    queries, keys = [], []
    for t in range(TOKENS):
        powers = [base_BSH[:, t] ** pair for pair in range(1, SHAPE.head_dim // 2 + 1)]
        phase = phase + torch.stack(powers, -1)
        turn = torch.polar(torch.ones_like(phase), phase)
        for x, turned in ((inputs.q_BHTD, queries), (inputs.k_BHSD, keys)):
            pairs = torch.view_as_complex(x[:, :, t].unflatten(-1, (-1, 2)).contiguous())
            turned.append(torch.view_as_real(pairs * turn).flatten(-2))
    q, k = torch.stack(queries, 2), torch.stack(keys, 2)
    expected = (q @ k.mT / math.sqrt(SHAPE.head_dim) + causal(TOKENS)).softmax(-1) @ v
    mine = attention(scheme, inputs, v)
    torch.testing.assert_close(mine, expected, rtol=0, atol=1e-12)
    assert_same_gradients(mine, expected, [scheme.weight_LHW, inputs.q_BHTD, inputs.k_BHSD, v], 1e-11)


def test_odd_heads_have_no_pairs() -> None:
    with pytest.raises(ConfigError, match="give an even number"):
        CARoPE(replace(SHAPE, head_dim=7))
