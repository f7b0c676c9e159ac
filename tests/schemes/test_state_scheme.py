"""Merged heads against a layer that has as many heads as are left."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from calls import SHAPE

from posbench.errors import ConfigError
from posbench.kernels.dispatcher import KernelDispatcher
from posbench.model.architecture import Size
from posbench.model.attention import Attention
from posbench.position.geometry import Geometry
from posbench.position.scheme import ModelShape
from posbench.position.state_scheme import StateScheme
from posbench.schemes.gated_deltanet import GatedDeltaNet
from posbench.schemes.kda import KDA
from posbench.schemes.linear_attention import LinearAttention
from posbench.schemes.mamba2 import Mamba2

SCHEMES: dict[str, Callable[..., StateScheme]] = {
    "gated_deltanet": GatedDeltaNet,
    "kda": KDA,
    "mamba2": Mamba2,
    "linear_attention": LinearAttention,
    "linear_attention_rope": lambda shape, **settings: LinearAttention(shape, use_rope=True, **settings),
}


def layer_output(shape: ModelShape, scheme: StateScheme, tokens: int = 70) -> torch.Tensor:
    config = Size(shape.n_layers, shape.d_model, shape.n_heads).architecture
    torch.manual_seed(3)
    attention = Attention(config, layer=1).double()
    x_BTW = torch.randn(2, tokens, shape.d_model, dtype=torch.float64)
    return attention(x_BTW, scheme.double(), Geometry.from_range(0, tokens), KernelDispatcher("auto"))[0]


@pytest.mark.parametrize("name", SCHEMES)
@pytest.mark.parametrize(("min_head_dim", "heads"), [(1, 4), (8, 4), (9, 2), (16, 2), (17, 1), (1000, 1)])
def test_is_the_layer_of_a_model_with_fewer_heads(name: str, min_head_dim: int, heads: int) -> None:
    fewer = replace(SHAPE, n_heads=heads, head_dim=SHAPE.d_model // heads)
    torch.manual_seed(0)
    merged = SCHEMES[name](SHAPE, min_head_dim=min_head_dim)
    torch.manual_seed(0)
    expected = layer_output(fewer, SCHEMES[name](fewer, min_head_dim=1))
    assert merged.shape == fewer
    torch.testing.assert_close(layer_output(SHAPE, merged), expected, rtol=0, atol=1e-12)


def test_heads_that_do_not_divide() -> None:
    """Six heads of 16 dimensions are two of 48; five heads have no group but all."""
    six = ModelShape(n_layers=1, n_heads=6, head_dim=16, d_model=96, train_len=16)
    assert KDA(six, min_head_dim=33).shape.head_dim == 48
    assert KDA(replace(six, n_heads=5, d_model=80), min_head_dim=33).shape.head_dim == 80


def test_min_head_dim_of_zero() -> None:
    with pytest.raises(ConfigError, match="min_head_dim 0: give"):
        KDA(SHAPE, min_head_dim=0)
