"""MrRoPE-Pro against the product of the paper's radix factors, frequency by frequency. Relative tolerance 1e-12."""

import math

import pytest
import torch
from extended import SHAPE, Llama, attention_inputs, context, measured

from posbench.errors import ConfigError, IncompatibleError
from posbench.extensions.mrrope_pro import MrRoPEPro
from posbench.position.scheme import ModelShape
from posbench.schemes.kerple_log import KerpleLog


@pytest.mark.parametrize(
    ("dims", "base", "train_len"), [(128, 10000.0, 4096), (128, 500000.0, 8192), (64, 1e6, 2048)]
)
@pytest.mark.parametrize("factor", [1.0, 4.0, 16.0])
def test_frequencies_equal_the_product_of_radix_factors(
    dims: int, base: float, train_len: int, factor: float
) -> None:
    """lambda_d = S^(2 (1 + d - lo) / ((1 + n) n)) for lo <= d < hi, and frequency j is divided by those before it."""
    shape = ModelShape(1, 1, dims, dims, train_len)
    theta = [base ** (-2 * j / dims) for j in range(dims // 2)]
    turns = [one * train_len / (2 * math.pi) for one in theta]
    lo = max(j for j, one in enumerate(turns) if one > 32)
    hi = min(j for j, one in enumerate(turns) if one < 1)
    expected, product = [], 1.0
    for j, one in enumerate(theta):
        expected.append(one / product)
        if lo <= j < hi:
            product *= factor ** (2 * (1 + j - lo) / ((1 + hi - lo) * (hi - lo)))
    assert product == pytest.approx(factor)
    found = measured(MrRoPEPro(Llama(shape, base), context(train_len, shape), factor), shape)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=1e-18)


@pytest.mark.parametrize("train_len", [4, 16, 100000000])
def test_bands_without_a_boundary(train_len: int) -> None:
    """No frequency above 32 rotations, none below 1, or only the latter: finite, ordered, never slowed by more than k."""
    shape = ModelShape(1, 1, 32, 32, train_len)
    plain, found = (
        MrRoPEPro(Llama(shape), context(4 * train_len, shape), factor).scale_inv_freq(
            10000.0 ** (-torch.arange(16).double() / 16)
        )
        for factor in (1.0, 8.0)
    )
    ratio = plain / found
    assert (ratio.diff() >= -1e-12).all()
    assert ratio.min() >= 1 - 1e-12
    assert ratio.max() <= 8 + 1e-12


def test_temperature_is_yarn_s() -> None:
    scheme = MrRoPEPro(Llama(SHAPE), context(64), 4)
    assert scheme.qk_scale == (0.1 * math.log(4) + 1) ** 2
    scale = scheme.logit_scale(attention_inputs(4))
    assert scale is not None
    assert float(scale) == scheme.qk_scale


def test_bad_settings() -> None:
    with pytest.raises(ConfigError, match="beta_fast > beta_slow > 0"):
        MrRoPEPro(Llama(SHAPE), context(64), 4, 1.0, 32.0)
    with pytest.raises(ConfigError, match="0 is off"):
        MrRoPEPro(Llama(SHAPE), context(64), 4, temperature=-0.1)
    with pytest.raises(IncompatibleError, match="needs a scheme with inv_freq"):
        MrRoPEPro(KerpleLog(SHAPE), context(64))
