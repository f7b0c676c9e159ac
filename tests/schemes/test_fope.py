"""FoPE against sums over frequencies, dimension by dimension. Tolerance 1e-12.

Written from the authors' code, github.com/TsinghuaC3I/Fourier-Position-Embedding, olmo/model.py, with the settings of
its 60M configuration.
"""

import math
from dataclasses import replace

import pytest
import torch
from calls import SHAPE, attention_inputs

from posbench.errors import ConfigError
from posbench.position.scheme import AttentionInputs, ModelShape
from posbench.schemes.fope import FoPE

LONG = replace(SHAPE, train_len=4000)  # three of four frequencies complete a period
WIDE = ModelShape(n_layers=2, n_heads=2, head_dim=32, d_model=64, train_len=300)
SHAPES = {8: LONG, 32: WIDE}


def expected(scheme: FoPE, x: torch.Tensor, layer: int, base: float = 10000.0) -> torch.Tensor:
    """Returns x multiplied by its mixtures, (B, H, T, D), one number at a time; 1 where there is no mixture."""
    batch, heads, tokens, dims = x.shape
    half = dims // 2
    kept = [base ** (-2 * m / dims) for m in range(half)]
    kept = [theta for theta in kept if theta >= 2 * math.pi / SHAPES[dims].train_len]
    mixed = min(len(kept), dims // 4)
    out = torch.empty_like(x)
    for h in range(heads):
        for p in range(tokens):
            for m in range(half):
                cos = sin = 1.0
                if m < mixed:
                    cos = sum(
                        float(scheme.cos_LHKO[layer, h, k, m]) * math.cos(p * t) for k, t in enumerate(kept)
                    )
                    sin = sum(
                        float(scheme.sin_LHKO[layer, h, k, m]) * math.sin(p * t) for k, t in enumerate(kept)
                    )
                first, second = x[:, h, p, m], x[:, h, p, m + half]
                out[:, h, p, m] = first * cos - second * sin
                out[:, h, p, m + half] = second * cos + first * sin
    assert batch == 2
    return out


@pytest.mark.parametrize("layer", [0, 1])
@pytest.mark.parametrize("shape", [LONG, WIDE], ids=["8", "32"])
def test_rotation_equals_the_sums(shape: ModelShape, layer: int) -> None:
    scheme, inputs = FoPE(shape), attention_inputs(10, layer)
    x = torch.randn(2, shape.n_heads, 10, shape.head_dim, dtype=torch.float64)
    q, k = scheme.qk(AttentionInputs(layer, inputs.geo, inputs.x_BTW, inputs.x_BSW, x, -x))
    torch.testing.assert_close(q, expected(scheme, x, layer), rtol=0, atol=1e-12)
    torch.testing.assert_close(k, -q, rtol=0, atol=0)


def test_coefficients_are_one_frequency_plus_noise() -> None:
    """The noise has Xavier's standard deviation times `init_norm_gain`; without it, frequencies are evenly chosen."""
    scheme = FoPE(WIDE, init_norm_gain=0.0)
    kept, mixed = scheme.cos_LHKO.shape[2:]
    step = math.ceil(kept / mixed)
    assert (kept, mixed, step) == (7, 7, 1)
    expected_KO = torch.zeros(kept, mixed)
    torch.nn.init.eye_(expected_KO)
    assert torch.equal(scheme.sin_LHKO[1, 1].float(), expected_KO)
    noisy = FoPE(replace(WIDE, n_heads=400), init_norm_gain=0.3)
    noise = noisy.cos_LHKO - expected_KO
    reference = torch.nn.init.xavier_normal_(torch.empty(400, kept, mixed), gain=0.3)
    assert float(noise.std()) == pytest.approx(float(reference.std()), rel=0.05)
    many = FoPE(replace(WIDE, train_len=10**7), init_norm_gain=0.0)
    kept, mixed = many.cos_LHKO.shape[2:]
    assert (kept, mixed) == (16, 8)
    assert many.cos_LHKO[0, 0].nonzero().tolist() == [[2 * m, m] for m in range(8)]


def test_draws_depend_on_the_setting_seed_alone() -> None:
    torch.manual_seed(1)
    one = FoPE(SHAPE)
    torch.manual_seed(2)
    assert torch.equal(one.cos_LHKO, FoPE(SHAPE).cos_LHKO)
    assert not torch.equal(one.cos_LHKO, FoPE(SHAPE, seed=1).cos_LHKO)


def test_bad_settings() -> None:
    for shape, gain in (
        (SHAPE, -0.1),
        (replace(SHAPE, head_dim=2), 0.3),
        (replace(SHAPE, train_len=6), 0.3),
    ):
        with pytest.raises(ConfigError, match="give an init_norm_gain of 0 to 1e6"):
            FoPE(shape, init_norm_gain=gain)
