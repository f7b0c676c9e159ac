"""xPos against x-transformers (tolerance 1e-5: float32), the paper's formula (1e-12) and RoPE."""

import cmath
import math

import pytest
import torch
from calls import SHAPE, assert_same_gradients, attention_inputs, logits
from x_transformers.x_transformers import RotaryEmbedding, apply_rotary_pos_emb

from posbench.errors import ConfigError, LengthError
from posbench.position.geometry import Geometry
from posbench.schemes.rope import RoPE
from posbench.schemes.xpos import XPos


@pytest.mark.parametrize("scale_base", [512, 10])
def test_logits_equal_x_transformers(scale_base: int) -> None:
    inputs = attention_inputs(40)
    theirs = RotaryEmbedding(SHAPE.head_dim, use_xpos=True, scale_base=scale_base)
    freqs, scale = theirs(torch.arange(40))
    q = apply_rotary_pos_emb(inputs.q_BHTD, freqs, scale)
    k = apply_rotary_pos_emb(inputs.k_BHSD, freqs, scale**-1.0)
    expected = q @ k.transpose(-1, -2) * SHAPE.head_dim**-0.5
    seen = inputs.geo.visible()
    mine = logits(XPos(SHAPE, scale_base=float(scale_base)), inputs)[..., seen]
    torch.testing.assert_close(mine, expected[..., seen], rtol=0, atol=1e-5)
    assert_same_gradients(mine, expected[..., seen], [inputs.q_BHTD, inputs.k_BHSD], 1e-4)


def test_logits_equal_the_formula_of_the_paper() -> None:
    """As a complex sum: each pair of dimensions has one factor for the decay and one for the angle."""
    inputs = attention_inputs(12)
    q, k = (
        torch.view_as_complex(x.detach().unflatten(-1, (-1, 2)).contiguous())
        for x in (inputs.q_BHTD, inputs.k_BHSD)
    )
    mine = logits(XPos(SHAPE, scale_base=16.0), inputs).detach()
    pairs = SHAPE.head_dim // 2
    for i in range(12):
        for j in range(i + 1):
            total = torch.zeros(2, SHAPE.n_heads, dtype=torch.float64)
            for m in range(pairs):
                zeta = (m / pairs + 0.4) / 1.4
                rotation = cmath.exp(1j * (i - j) * 10000 ** (-m / pairs))
                product = q[:, :, i, m] * k[:, :, j, m].conj() * rotation
                total += zeta ** ((i - j) / 16.0) * product.real
            torch.testing.assert_close(
                mine[:, :, i, j], total / math.sqrt(SHAPE.head_dim), rtol=0, atol=1e-12
            )


def test_without_decay_it_is_rope() -> None:
    inputs = attention_inputs()
    for mine, rope in zip(XPos(SHAPE, scale_base=1e12).qk(inputs), RoPE(SHAPE).qk(inputs), strict=True):
        torch.testing.assert_close(mine, rope, rtol=0, atol=1e-9)


def test_is_finite_in_float32_up_to_its_max_length() -> None:
    scheme = XPos(SHAPE)
    scheme.check(scheme.max_length)
    assert scheme.max_length > 30_000
    with pytest.raises(LengthError, match=f"at most {scheme.max_length} tokens"):
        scheme.check(scheme.max_length + 1)
    inputs = attention_inputs(4, dtype=torch.float32)
    far = torch.tensor([0, 1, scheme.max_length - 2, scheme.max_length - 1])
    scales = scheme.scales(
        type(inputs)(
            0,
            Geometry(far, far, far, far, scheme.max_length, None),
            *(inputs.x_BTW,) * 2,
            inputs.q_BHTD,
            inputs.k_BHSD,
        ),
        torch.float32,
    )
    for scale in scales:
        assert scale.isfinite().all()
        assert (scale > 0).all()
    # The factors of a key after its query were finite each, and their product was not: NaN beside an additive mask.
    assert (scales[0][0] * scales[1][-1]).isfinite().all()


@pytest.mark.parametrize(
    "setting", [{"gamma": 0.0}, {"gamma": -1.0}, {"gamma": 1e20}, {"scale_base": 0.0}, {"scale_base": 1e308}]
)
def test_bad_settings(setting: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="numbers above 0"):
        XPos(SHAPE, **setting)
