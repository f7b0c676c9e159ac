"""xPos against x-transformers, the product over pairs, and RoPE. Tolerance 1e-5: they turn in float32."""

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
    at = attention_inputs(40)
    theirs = RotaryEmbedding(SHAPE.head_dim, use_xpos=True, scale_base=scale_base)
    freqs, scale = theirs(torch.arange(40))
    q = apply_rotary_pos_emb(at.q_BHTD, freqs, scale)
    k = apply_rotary_pos_emb(at.k_BHSD, freqs, scale**-1.0)
    expected = q @ k.transpose(-1, -2) * SHAPE.head_dim**-0.5
    seen = at.geo.visible()
    mine = logits(XPos(SHAPE, scale_base=float(scale_base)), at)[..., seen]
    torch.testing.assert_close(mine, expected[..., seen], rtol=0, atol=1e-5)
    assert_same_gradients(mine, expected[..., seen], [at.q_BHTD, at.k_BHSD], 1e-4)


def test_logits_equal_the_formula_of_the_paper() -> None:
    """As a complex sum: every pair has one factor for the distance and one for the angle. 1e-12."""
    at = attention_inputs(12)
    q, k = (
        torch.view_as_complex(x.detach().unflatten(-1, (-1, 2)).contiguous()) for x in (at.q_BHTD, at.k_BHSD)
    )
    mine = logits(XPos(SHAPE, scale_base=16.0), at).detach()
    pairs = SHAPE.head_dim // 2
    for i in range(12):
        for j in range(i + 1):
            total = torch.zeros(2, SHAPE.n_heads, dtype=torch.float64)
            for m in range(pairs):
                zeta = (m / pairs + 0.4) / 1.4
                turn = cmath.exp(1j * (i - j) * 10000 ** (-m / pairs))
                product = q[:, :, i, m] * k[:, :, j, m].conj() * turn
                total += zeta ** ((i - j) / 16.0) * product.real
            torch.testing.assert_close(
                mine[:, :, i, j], total / math.sqrt(SHAPE.head_dim), rtol=0, atol=1e-12
            )


def test_without_decay_it_is_rope() -> None:
    at = attention_inputs()
    for mine, rope in zip(XPos(SHAPE, scale_base=1e12).qk(at), RoPE(SHAPE).qk(at), strict=True):
        torch.testing.assert_close(mine, rope, rtol=0, atol=1e-9)


def test_stays_finite_in_float32_as_far_as_it_says() -> None:
    scheme = XPos(SHAPE)
    scheme.check(scheme.longest)
    assert scheme.longest > 60_000
    with pytest.raises(LengthError, match=f"at most {scheme.longest} tokens"):
        scheme.check(scheme.longest + 1)
    at = attention_inputs(4, dtype=torch.float32)
    far = torch.tensor([0, 1, scheme.longest - 2, scheme.longest - 1])
    fades = scheme.fades(
        type(at)(
            0, Geometry(far, far, far, far, scheme.longest, None), *(at.x_BTW,) * 2, at.q_BHTD, at.k_BHSD
        ),
        torch.float32,
    )
    for fade in fades:
        assert fade.isfinite().all()
        assert (fade > 0).all()


@pytest.mark.parametrize("setting", [{"gamma": 0.0}, {"gamma": -1.0}, {"scale_base": 0.0}])
def test_bad_settings(setting: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="numbers above 0"):
        XPos(SHAPE, **setting)
