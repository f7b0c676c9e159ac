"""TAPA against equation 12 of the paper, pair by pair. Tolerance 1e-12 in float64, also of gradients."""

import math

import pytest
import torch
from calls import SHAPE, assert_same_gradients, attention, attention_inputs, values

from posbench.errors import ConfigError
from posbench.schemes.tapa import TAPA

TOKENS = 20


@pytest.mark.parametrize(("theta", "alpha", "split"), [(0.5, 0.1, 4), (0.25, 0.7, 2)])
def test_attention_equals_a_loop(theta: float, alpha: float, split: int) -> None:
    inputs, v = attention_inputs(TOKENS), values(TOKENS)
    q, k, dims = inputs.q_BHTD, inputs.k_BHSD, SHAPE.head_dim
    rows = []
    for i in range(TOKENS):
        logits = []
        for j in range(i + 1):
            product = q[:, :, i] * k[:, :, j]
            turns = product[..., split:].sum(-1) / math.sqrt((1 - theta) * dims)
            amplitude = product[..., :split].sum(-1) / math.sqrt(theta * dims)
            logits.append(amplitude * torch.cos(2 * math.pi * (i - j) ** alpha * turns))
        rows.append((torch.stack(logits, -1).softmax(-1)[..., None] * v[:, :, : i + 1]).sum(2))
    mine, expected = attention(TAPA(SHAPE, theta, alpha), inputs, v), torch.stack(rows, 2)
    torch.testing.assert_close(mine, expected, rtol=0, atol=1e-12)
    assert_same_gradients(mine, expected, [q, k, v], 1e-11)


@pytest.mark.parametrize("setting", [{"theta": 0.0}, {"theta": 0.01}, {"theta": 1.0}, {"alpha": 0.0}])
def test_bad_settings(setting: dict) -> None:
    with pytest.raises(ConfigError, match="give a theta"):
        TAPA(SHAPE, **setting)
