"""NTK-RoPE-fixed against the digits of a mixed radix, as in the article. Relative tolerance 1e-12 in float64."""

import pytest
import torch
from extended import SHAPE, Llama, context, measured

from posbench.errors import ConfigError, IncompatibleError
from posbench.extensions.ntk_fixed import NTKFixed
from posbench.extensions.ntk_mixed import NTKMixed
from posbench.position.rotary import compute_inv_freq
from posbench.position.scheme import ModelShape
from posbench.schemes.alibi import ALiBi

WIDE = ModelShape(n_layers=1, n_heads=1, head_dim=64, d_model=64, train_len=128)


@pytest.mark.parametrize("factor", [1.0, 3.5, 8.0])
@pytest.mark.parametrize("shape", [SHAPE, WIDE])
def test_frequencies_are_the_digits_of_a_mixed_radix(shape: ModelShape, factor: float) -> None:
    """Digit m is divided by beta^(m-1) and by lambda_1 ... lambda_m, with equal lambdas of product k."""
    count = shape.head_dim // 2
    ratio = factor ** (1 / count)
    divisor, expected = 1.0, []
    for m in range(count):
        divisor *= ratio
        expected.append(10000.0 ** (-m / count) / divisor)
    scheme = NTKFixed(Llama(shape), context(64, shape), factor)
    torch.testing.assert_close(measured(scheme, shape), torch.tensor(expected).double(), rtol=1e-6, atol=0)
    torch.testing.assert_close(
        measured(scheme, shape), torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=0
    )


def test_the_fastest_and_the_slowest_frequency() -> None:
    """The slowest is divided by exactly k, the fastest by k^(2 / d)."""
    inv_freq_M = compute_inv_freq(8, 10000.0)
    ratio_M = NTKFixed(Llama(SHAPE), context(64), 4).scale_inv_freq(inv_freq_M) / inv_freq_M
    assert float(ratio_M[-1]) == pytest.approx(1 / 4, rel=1e-14)
    assert float(ratio_M[0]) == pytest.approx(4 ** (-2 / 8), rel=1e-14)


def test_equals_ntk_mixed_with_b_1() -> None:
    mixed = NTKMixed(Llama(SHAPE), context(64), 4, b=1.0)
    torch.testing.assert_close(
        measured(NTKFixed(Llama(SHAPE), context(64))), measured(mixed), rtol=1e-12, atol=0
    )


def test_bad_settings() -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        NTKFixed(Llama(SHAPE), context(64), 0.9)
    with pytest.raises(IncompatibleError, match="needs a scheme with inv_freq"):
        NTKFixed(ALiBi(SHAPE), context(64))
