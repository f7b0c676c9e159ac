"""NTK-RoPE-mixed against the article's radices and its author's code. Relative tolerance 1e-12 (1e-5 in float32)."""

import math
from itertools import pairwise

import pytest
import torch
from extended import SHAPE, Llama, context, measured

from posbench.errors import ConfigError, IncompatibleError
from posbench.extensions.ntk_mixed import NTKMixed
from posbench.position.scheme import ModelShape
from posbench.schemes.nope import NoPE

WIDE = ModelShape(n_layers=1, n_heads=1, head_dim=64, d_model=64, train_len=128)


@pytest.mark.parametrize("b", [0.0, 0.625, 0.75, 1.0])
@pytest.mark.parametrize("factor", [1.0, 3.5, 8.0])
@pytest.mark.parametrize("shape", [SHAPE, WIDE])
def test_frequencies_are_the_digits_of_a_mixed_radix(shape: ModelShape, factor: float, b: float) -> None:
    """lambda_1 ... lambda_m = exp(a m^b), with decreasing lambdas of product k."""
    count = shape.head_dim // 2
    a = math.log(factor) / count**b
    ratios = [math.exp(a * m**b - (a * (m - 1) ** b if m > 1 else 0)) for m in range(1, count + 1)]
    assert all(one >= other - 1e-12 for one, other in pairwise(ratios))
    assert math.prod(ratios) == pytest.approx(factor, rel=1e-12)
    expected = [10000.0 ** (-m / count) / math.prod(ratios[: m + 1]) for m in range(count)]
    scheme = NTKMixed(Llama(shape), context(64, shape), factor, b)
    torch.testing.assert_close(
        measured(scheme, shape), torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=0
    )


def test_equals_the_author_s_code() -> None:
    """The initialiser in ntk_patch.py of bojone/rerope, k = 12, b = 0.75, d = 128, float32."""
    shape = ModelShape(1, 1, 128, 128, 4096)
    ours = measured(NTKMixed(Llama(shape), context(49152, shape), 12, 0.75), shape)
    m = torch.arange(1, 65).float()
    reference = 10000 ** (-torch.arange(0, 128, 2).float() / 128)
    reference = reference * (-math.log(12) / 64**0.75 * m**0.75).exp()
    torch.testing.assert_close(ours, reference.double(), rtol=1e-5, atol=0)


def test_b_0_is_interpolation() -> None:
    inv_freq_M = torch.tensor([1.0, 0.1, 0.01], dtype=torch.float64)
    found = NTKMixed(Llama(SHAPE), context(64), 4, 0.0).scale_inv_freq(inv_freq_M)
    torch.testing.assert_close(found, inv_freq_M / 4, rtol=1e-14, atol=0)


def test_bad_settings() -> None:
    for b in (-0.1, 1.5, float("nan")):
        with pytest.raises(ConfigError, match="from 0 to 1"):
            NTKMixed(Llama(SHAPE), context(64), 4, b)
    with pytest.raises(ConfigError, match="at least 1"):
        NTKMixed(Llama(SHAPE), context(64), 0.5)
    with pytest.raises(IncompatibleError, match="needs a scheme with inv_freq"):
        NTKMixed(NoPE(SHAPE), context(64))
