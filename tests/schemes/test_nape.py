"""NAPE against a table of slopes. Tolerance 1e-12 in float64."""

from dataclasses import replace

import pytest
import torch
from calls import SHAPE, attention, attention_inputs, values

from posbench.errors import ConfigError
from posbench.schemes.nape import NAPE

TOKENS = 20


def test_attention_equals_a_table() -> None:
    inputs, v = attention_inputs(TOKENS), values(TOKENS)
    i, j = torch.arange(TOKENS)[:, None], torch.arange(TOKENS)
    slopes = (1.0, 1 / 2, 0.0, 0.0)
    bias = torch.stack([slope * (j - i).double() for slope in slopes])
    expected = torch.nn.functional.scaled_dot_product_attention(
        inputs.q_BHTD, inputs.k_BHSD, v, attn_mask=bias.masked_fill(j > i, -torch.inf)
    )
    torch.testing.assert_close(attention(NAPE(SHAPE), inputs, v), expected, rtol=0, atol=1e-12)


def test_half_of_the_heads_rounded_down_have_positions() -> None:
    assert NAPE(replace(SHAPE, n_heads=5)).slope_H.tolist() == [1.0, 0.5, 0.0, 0.0, 0.0]
    with pytest.raises(ConfigError, match="give at least 2"):
        NAPE(replace(SHAPE, n_heads=1))
