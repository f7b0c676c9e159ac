"""Sinusoidal against Marian, whose sines come first. Tolerance 1e-7: Marian's are rounded to float32."""

import pytest
import torch
from calls import SHAPE
from transformers.models.marian.modeling_marian import MarianSinusoidalPositionalEmbedding

from posbench.errors import ConfigError
from posbench.position.geometry import Geometry
from posbench.position.scheme import ModelShape
from posbench.schemes.sinusoidal import Sinusoidal


@pytest.mark.parametrize("width", [2, 32, 96])
def test_equals_marian_with_its_columns_interleaved(width: int) -> None:
    marian = MarianSinusoidalPositionalEmbedding(300, width).create_weight().double()
    interleaved = torch.stack(marian.chunk(2, -1), -1).flatten(-2)
    mine = Sinusoidal(ModelShape(1, 1, width, width, 16)).table(torch.arange(300))
    torch.testing.assert_close(mine, interleaved, rtol=0, atol=1e-7)


def test_is_added_once_before_the_first_block() -> None:
    scheme = Sinusoidal(SHAPE, scale=2.0)
    geo = Geometry.from_range(3, 10)
    x_BTW = torch.randn(2, 7, SHAPE.d_model, dtype=torch.float64)
    added = scheme.embed(x_BTW, geo, 0) - x_BTW
    expected = 2 * Sinusoidal(SHAPE).table(torch.arange(3, 10)).expand(2, -1, -1)
    torch.testing.assert_close(added, expected, rtol=0, atol=1e-14)
    assert scheme.embed(x_BTW, geo, 1) is x_BTW


def test_a_shift_is_a_rotation() -> None:
    """PE(p + n) = M_n PE(p), the property for which the paper chose it; all entries are in [-1, 1]."""
    scheme = Sinusoidal(SHAPE)
    table = scheme.table(torch.arange(200))
    sin, cos = (scheme.inv_freq_M * 17).sin(), (scheme.inv_freq_M * 17).cos()
    sine, cosine = table[:-17, 0::2], table[:-17, 1::2]
    torch.testing.assert_close(table[17:, 0::2], sine * cos + cosine * sin, rtol=0, atol=1e-12)
    torch.testing.assert_close(table[17:, 1::2], cosine * cos - sine * sin, rtol=0, atol=1e-12)
    assert table.abs().max() <= 1


def test_positions_are_distinct() -> None:
    """At width 32, any two of 4096 positions are more than 0.5 apart."""
    table = Sinusoidal(SHAPE).table(torch.arange(4096))
    assert torch.pdist(table).min() > 0.5


def test_bad_settings() -> None:
    with pytest.raises(ConfigError, match="above 0"):
        Sinusoidal(SHAPE, scale=0)
    with pytest.raises(ConfigError, match="above 1"):
        Sinusoidal(SHAPE, base=1)
    with pytest.raises(ConfigError, match="the width is 5"):
        Sinusoidal(ModelShape(1, 1, 5, 5, 16))
