"""ASEntmax against the `entmax` package. Tolerance 1e-10 in float64, also of gradients."""

import math

import pytest
import torch
from calls import SHAPE, assert_same_gradients, attention, attention_inputs, causal, values
from entmax import entmax15

from posbench.errors import ConfigError
from posbench.position.entmax import LogEntmax15
from posbench.schemes.asentmax import ASEntmax

TOKENS = 20
NAPE = {"_target_": "posbench.schemes.nape.NAPE"}
ROPE = {"_target_": "posbench.schemes.rope.RoPE"}


@pytest.mark.parametrize("scale", [0.01, 1.0, 100.0])
@pytest.mark.parametrize("keys", [1, 2, 300, 5000])
def test_entmax_equals_the_package(keys: int, scale: float) -> None:
    draw = torch.Generator().manual_seed(keys)
    logits = (torch.randn(4, keys, generator=draw, dtype=torch.float64) * scale).requires_grad_()
    mine, expected = LogEntmax15.apply(logits).exp(), entmax15(logits, dim=-1)
    torch.testing.assert_close(mine, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(mine.sum(-1), torch.ones(4, dtype=torch.float64), rtol=0, atol=1e-12)
    probe = torch.randn(4, keys, generator=draw, dtype=torch.float64)
    one, other = (torch.autograd.grad((x * probe).sum(), [logits])[0] for x in (mine, expected))
    torch.testing.assert_close(one, other, rtol=0, atol=1e-10)


def test_equal_logits_of_a_long_row_have_equal_weights() -> None:
    weights = LogEntmax15.apply(torch.zeros(65536, dtype=torch.float64)).exp()
    torch.testing.assert_close(weights, torch.full_like(weights, 2.0**-16), rtol=1e-10, atol=0)


@pytest.mark.parametrize("scaled", [2, 4])
def test_attention_equals_the_package(scaled: int) -> None:
    """The authors' steps: a factor on the queries of the last heads, biases, the causal mask, and the normaliser."""
    torch.manual_seed(0)
    scheme = ASEntmax(SHAPE, NAPE, scaled).double()
    with torch.no_grad():
        for parameter in scheme.parameters():
            parameter.normal_()
    inputs, v = attention_inputs(TOKENS, 1), values(TOKENS)
    log_position = torch.log(torch.arange(2, TOKENS + 2).double())
    beta = torch.nn.functional.softplus(inputs.x_BTW @ scheme.beta_LHW[1].T).transpose(1, 2)
    gamma = 2 * torch.tanh(inputs.x_BTW @ scheme.gamma_LHW[1].T).transpose(1, 2)
    factor = torch.ones(2, SHAPE.n_heads, TOKENS, dtype=torch.float64)
    factor[:, -scaled:] = 1 + beta * log_position**gamma
    steps = torch.arange(TOKENS) - torch.arange(TOKENS)[:, None]
    bias = torch.stack([slope * steps for slope in (1.0, 0.5, 0.0, 0.0)])
    q = inputs.q_BHTD * factor[..., None]
    logits = q @ inputs.k_BHSD.mT / math.sqrt(SHAPE.head_dim) + bias + causal(TOKENS)
    weights = entmax15(logits.masked_fill(logits.isinf(), -1e9), dim=-1)
    assert (weights == 0).sum() > (logits.isinf()).sum()
    mine, expected = attention(scheme, inputs, v), weights @ v
    torch.testing.assert_close(mine, expected, rtol=0, atol=1e-10)
    leaves = [*scheme.parameters(), inputs.q_BHTD, inputs.k_BHSD, v]
    assert_same_gradients(mine, expected, leaves, 1e-10)


def test_half_of_the_heads_adapt_by_default() -> None:
    assert ASEntmax(SHAPE, ROPE).beta_LHW.shape == (2, 2, SHAPE.d_model)


@pytest.mark.parametrize("scaled", [0, 5])
def test_bad_settings(scaled: int) -> None:
    with pytest.raises(ConfigError, match="give 1 to 4"):
        ASEntmax(SHAPE, NAPE, scaled)
