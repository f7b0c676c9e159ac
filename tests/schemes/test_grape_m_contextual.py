"""Contextual GRAPE-M against transformers' rotation at accumulated positions. Tolerance 1e-12 in float64, also of gradients."""

import math

import pytest
import torch
from calls import SHAPE, assert_same_gradients, attention, attention_inputs, causal, values
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from posbench.errors import ConfigError
from posbench.schemes.grape_m_contextual import GrapeMContextual

TOKENS = 20


def test_attention_equals_rope_at_accumulated_positions() -> None:
    torch.manual_seed(0)
    scheme = GrapeMContextual(SHAPE, omega_scale=2.0, interleaved=False).double()
    with torch.no_grad():
        for parameter in scheme.parameters():
            parameter.normal_()
    inputs, v = attention_inputs(TOKENS, 1), values(TOKENS)
    positions = [torch.zeros(2, dtype=torch.float64)]
    for t in range(TOKENS - 1):
        logit = inputs.x_BSW[:, t] @ scheme.weight_L1W[1, 0] + scheme.bias_L1[1, 0]
        positions.append(positions[-1] + torch.sigmoid(logit / 2))
    freq = 10000.0 ** (-torch.arange(0, SHAPE.head_dim, 2).double() / SHAPE.head_dim)
    angle = torch.stack(positions, 1)[..., None] * freq * scheme.log_LM[1].exp()
    angle = torch.cat((angle, angle), -1)
    q, k = apply_rotary_pos_emb(inputs.q_BHTD, inputs.k_BHSD, angle.cos(), angle.sin())
    expected = (q @ k.mT / math.sqrt(SHAPE.head_dim) + causal(TOKENS)).softmax(-1) @ v
    mine = attention(scheme, inputs, v)
    torch.testing.assert_close(mine, expected, rtol=0, atol=1e-12)
    leaves = [*scheme.parameters(), inputs.q_BHTD, inputs.k_BHSD, v]
    assert_same_gradients(mine, expected, leaves, 1e-11)


def test_steps_start_where_the_authors_code_starts_them() -> None:
    """sigmoid(softplus^-1(1e-3) / 16), for tokens of no weight."""
    bias = GrapeMContextual(SHAPE).bias_L1.detach().double()
    torch.testing.assert_close(torch.sigmoid(bias / 16), torch.full_like(bias, 0.3937), rtol=0, atol=1e-4)


@pytest.mark.parametrize("scale", [0.0, -1.0, math.inf])
def test_bad_settings(scale: float) -> None:
    with pytest.raises(ConfigError, match="give a number above 0"):
        GrapeMContextual(SHAPE, omega_scale=scale)
