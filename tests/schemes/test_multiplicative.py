"""Multiplicative positions against their closed form; no other implementation exists. Tolerance 1e-12 in float64."""

import pytest
import torch
from calls import SHAPE, assert_same_gradients

from posbench.errors import ConfigError, UndefinedError
from posbench.position.geometry import Geometry
from posbench.schemes.multiplicative import Multiplicative

LEN = SHAPE.train_len


def multiplicative(out_of_range: str = "undefined") -> Multiplicative:
    torch.manual_seed(0)
    return Multiplicative(SHAPE, out_of_range).double()


def test_equals_the_product_as_a_diagonal_matrix() -> None:
    """x_p is multiplied by the matrix diag(W[p]) from the right."""
    scheme = multiplicative()
    x_BTW = torch.randn(2, LEN, SHAPE.d_model, dtype=torch.float64, requires_grad=True)
    expected = torch.stack([x_BTW[:, p] @ torch.diag(scheme.row_NW[p]) for p in range(LEN)], 1)
    mine = scheme.embed(x_BTW, Geometry.from_range(0, LEN), 0)
    torch.testing.assert_close(mine, expected, rtol=0, atol=1e-12)
    assert_same_gradients(mine, expected, [scheme.row_NW, x_BTW], 1e-12)


def test_multiplies_once() -> None:
    x_BTW = torch.randn(1, 4, SHAPE.d_model)
    assert multiplicative().embed(x_BTW, Geometry.from_range(0, 4), 1) is x_BTW


def test_initial_factors_are_near_one() -> None:
    """Standard deviation 0.1, which changes the norm of the residual stream by half a percent."""
    row_NW = multiplicative().row_NW.detach()
    assert float(row_NW.mean()) == pytest.approx(1, abs=0.02)
    assert float(row_NW.std()) == pytest.approx(0.1, abs=0.02)


def test_past_its_length() -> None:
    with pytest.raises(UndefinedError, match=r"16 rows has no position 16.*clamp, wrap"):
        multiplicative().check(LEN + 1)
    scheme = multiplicative("wrap")
    scheme.check(LEN + 3)
    ones = torch.ones(1, LEN + 3, SHAPE.d_model, dtype=torch.float64)
    factor = scheme.embed(ones, Geometry.from_range(0, LEN + 3), 0)[0]
    assert torch.equal(factor[LEN:], factor[:3])
    assert not multiplicative("interpolate").traits.prefix_stable


def test_bad_settings() -> None:
    with pytest.raises(ConfigError, match=r"'clip'.*clamp, interpolate, undefined, wrap"):
        Multiplicative(SHAPE, "clip")
    for deviation in (0.0, -0.1, 1.0, float("nan")):
        with pytest.raises(ConfigError, match=r"deviation .* above 0"):
            Multiplicative(SHAPE, deviation=deviation)
