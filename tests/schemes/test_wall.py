"""Wall attention against the pairwise form of flash-linear-attention. Tolerance 1e-12 in float64, also of gradients."""

import math

import pytest
import torch
from calls import SHAPE, assert_same_gradients, attention, attention_inputs, causal, values

from posbench.errors import ConfigError
from posbench.kernels.dense import dense
from posbench.position.attention import attend
from posbench.schemes.wall import Wall

TOKENS = 70


def wall(bias: float, layer: int = 1) -> Wall:
    torch.manual_seed(0)
    scheme = Wall(SHAPE, bias).double()
    with torch.no_grad():
        scheme.weight_LGW.normal_(std=0.5)
    return scheme


def pairwise(scheme: Wall, inputs, v):  # type: ignore[no-untyped-def]
    """Every factor of every pair and dimension written out."""
    gate = torch.nn.functional.logsigmoid(inputs.x_BSW @ scheme.weight_LGW[1].T + scheme.bias_LG[1])
    total = gate.unflatten(-1, (SHAPE.n_heads, -1)).transpose(1, 2).cumsum(2)
    # Pairs of later keys are masked: their exponents would overflow.
    factor = (total[:, :, :, None] - total[:, :, None]).clamp(max=0).exp()
    logits = (inputs.q_BHTD[:, :, :, None] * inputs.k_BHSD[:, :, None] * factor).sum(-1)
    return (logits / math.sqrt(SHAPE.head_dim) + causal(TOKENS)).softmax(-1) @ v


@pytest.mark.parametrize("bias", [8.0, 0.0, -1.0])
def test_attention_equals_pairs(bias: float) -> None:
    """From gates that forget nearly nothing to gates that forget a sequence by e^-100."""
    scheme, inputs, v = wall(bias), attention_inputs(TOKENS, 1), values(TOKENS)
    mine, expected = attention(scheme, inputs, v), pairwise(scheme, inputs, v)
    torch.testing.assert_close(mine, expected, rtol=0, atol=1e-12)
    leaves = [*scheme.parameters(), inputs.q_BHTD, inputs.k_BHSD, v]
    assert_same_gradients(mine, expected, leaves, 1e-11)


def test_rows_in_chunks_of_any_size_are_the_same() -> None:
    scheme, inputs, v = wall(0.0), attention_inputs(TOKENS, 1), values(TOKENS)
    whole = attention(scheme, inputs, v)
    in_chunks = attend(scheme, inputs, v, lambda call: dense(call, chunk=TOKENS * 2 * SHAPE.n_heads * 23))
    torch.testing.assert_close(in_chunks, whole, rtol=0, atol=1e-12)


def test_strong_forgetting_stays_finite_in_float32() -> None:
    """Gates that forget e^-9 at every token."""
    scheme, inputs = wall(-9.0).float(), attention_inputs(TOKENS, 1, torch.float32)
    v = values(TOKENS, torch.float32)
    out = attention(scheme, inputs, v)
    gradients = torch.autograd.grad(out.sum(), [*scheme.parameters(), inputs.q_BHTD, inputs.k_BHSD])
    assert out.isfinite().all()
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_bad_settings() -> None:
    with pytest.raises(ConfigError, match="give a number from -50 to 50"):
        Wall(SHAPE, math.inf)
