"""Sandwich against inner products of Marian's sinusoidal embeddings. Tolerance 1e-4: Marian's are float32."""

import pytest
import torch
from calls import SHAPE, attention, attention_inputs, causal, values
from transformers.models.marian.modeling_marian import MarianSinusoidalPositionalEmbedding

from posbench.errors import ConfigError
from posbench.position.geometry import Geometry
from posbench.schemes.sandwich import Sandwich


def products(tokens: int, dims: int) -> torch.Tensor:
    """Appendix E: p_i . p_j divided by the compression ratio 8h/H; (H, T, T)."""
    table = MarianSinusoidalPositionalEmbedding(tokens, dims).create_weight().double()
    ratio_H = torch.arange(1, SHAPE.n_heads + 1).double() * 8 / SHAPE.n_heads
    return table @ table.T / ratio_H[:, None, None]


@pytest.mark.parametrize("dims", [128, 32])
def test_biases_are_products_of_marian_s_embeddings(dims: int) -> None:
    scheme = Sandwich(SHAPE, dims=dims)
    bias = scheme.attention_bias(attention_inputs()).value(Geometry.from_range(0, 300), slice(None))
    seen = torch.ones(300, 300).tril().bool()
    torch.testing.assert_close(bias[:, seen], products(300, dims)[:, seen], rtol=0, atol=1e-4)


def test_attention_equals_that_with_those_products() -> None:
    inputs, v = attention_inputs(), values()
    expected = torch.nn.functional.scaled_dot_product_attention(
        inputs.q_BHTD, inputs.k_BHSD, v, attn_mask=products(20, 128) + causal(20)
    )
    torch.testing.assert_close(attention(Sandwich(SHAPE), inputs, v), expected, rtol=0, atol=1e-5)


def test_the_envelope_decreases_with_the_distance() -> None:
    """The largest bias is d/2, at distance 0."""
    bias_N = Sandwich(SHAPE).bias(torch.arange(2000))[0] * 2  # the first of 4 heads has ratio 2
    assert float(bias_N[0]) == pytest.approx(64)
    assert bias_N[1:].max() < bias_N[0]
    assert bias_N[1000:].max() < bias_N[:50].min()


@pytest.mark.parametrize(("dims", "base"), [(0, 10000.0), (-2, 10000.0), (7, 10000.0), (128, 1.0)])
def test_bad_settings(dims: int, base: float) -> None:
    with pytest.raises(ConfigError, match=r"sandwich dims|above 1"):
        Sandwich(SHAPE, dims=dims, base=base)
