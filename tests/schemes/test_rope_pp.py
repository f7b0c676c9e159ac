"""RoPE++ against the real and imaginary parts of complex products. Tolerance 1e-12 in float64, also of gradients."""

from dataclasses import replace

import pytest
import torch
from calls import SHAPE, assert_same_gradients, attention, attention_inputs, causal, values

from posbench.errors import ConfigError
from posbench.schemes.rope_pp import RoPEPP

TOKENS = 20


@pytest.mark.parametrize("interleaved", [True, False])
def test_attention_equals_complex_products(interleaved: bool) -> None:
    """q sin - J q cos against rotated keys is -Im of the complex product of q, the conjugate key and the rotation."""
    inputs, v = attention_inputs(TOKENS), values(TOKENS)

    def pairs(x: torch.Tensor) -> torch.Tensor:
        first, second = (x[..., 0::2], x[..., 1::2]) if interleaved else x.chunk(2, -1)
        return torch.complex(first, second)

    freq_M = 10000.0 ** (-torch.arange(0, SHAPE.head_dim, 2, dtype=torch.float64) / SHAPE.head_dim)
    distance = torch.arange(TOKENS)[:, None] - torch.arange(TOKENS)
    turn_TSM = torch.polar(torch.ones(1, dtype=torch.float64), distance[..., None] * freq_M)
    q, k = pairs(inputs.q_BHTD), pairs(inputs.k_BHSD)
    product = torch.einsum("bhtm,bhsm,tsm->bhts", q, k.conj(), turn_TSM)
    logits = torch.cat((product.real[:, :2], product.imag[:, 2:]), 1) / SHAPE.head_dim**0.5
    expected = (logits + causal(TOKENS)).softmax(-1) @ v
    mine = attention(RoPEPP(SHAPE, interleaved=interleaved), inputs, v)
    torch.testing.assert_close(mine, expected, rtol=0, atol=1e-12)
    assert_same_gradients(mine, expected, [inputs.q_BHTD, inputs.k_BHSD, v], 1e-12)


def test_one_head_has_no_imaginary_half() -> None:
    with pytest.raises(ConfigError, match="give at least 2"):
        RoPEPP(replace(SHAPE, n_heads=1))
