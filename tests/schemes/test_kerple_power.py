"""KERPLE (power) against the formula of its paper, pair by pair. Tolerance 1e-12 in float64."""

from dataclasses import replace

import pytest
import torch
from calls import SHAPE, assert_same_gradients, attention, causal, site, values

from posbench.schemes.alibi import ALiBi
from posbench.schemes.kerple_power import KerplePower


def loop(scheme: KerplePower, tokens: int) -> torch.Tensor:
    """(H, T, T): -r1 |i - j|^r2, in torch for its gradient."""
    rows = []
    for r1, r2 in zip(scheme.a_H, scheme.p_H, strict=True):
        for i in range(tokens):
            rows += [-r1 * torch.tensor(float(abs(i - j))).double() ** r2 for j in range(tokens)]
    return torch.stack(rows).view(SHAPE.heads, tokens, tokens)


def test_attention_equals_the_formula() -> None:
    torch.manual_seed(0)
    scheme = KerplePower(SHAPE).double()
    at, v = site(), values()
    expected = torch.nn.functional.scaled_dot_product_attention(
        at.q_BHTD, at.k_BHSD, v, attn_mask=loop(scheme, 20) + causal(20)
    )
    mine = attention(scheme, at, v)
    torch.testing.assert_close(mine, expected, rtol=0, atol=1e-12)
    assert_same_gradients(mine, expected, [scheme.p_H, scheme.a_H, at.q_BHTD, at.k_BHSD, v], 1e-12)


def test_exponent_one_is_alibi() -> None:
    scheme, alibi = KerplePower(SHAPE).double(), ALiBi(SHAPE)
    with torch.no_grad():
        scheme.p_H.fill_(1.0)
        scheme.a_H.copy_(alibi.slope_H)
    scheme.a_H.data.clamp_(min=0.01)
    distance = torch.arange(100)
    expected = -alibi.slope_H.clamp(min=0.01)[:, None] * distance
    torch.testing.assert_close(scheme.penalty(distance), expected, rtol=0, atol=1e-12)


def test_draws_are_uniform_over_the_authors_ranges() -> None:
    torch.manual_seed(0)
    scheme = KerplePower(replace(SHAPE, heads=20000))
    for drawn, top in ((scheme.p_H.detach(), 2.0), (scheme.a_H.detach(), 1.0)):
        assert 0 <= float(drawn.min()) < 0.01 * top
        assert 0.99 * top < float(drawn.max()) <= top
        assert float(drawn.mean()) == pytest.approx(top / 2, rel=0.02)


def test_parameters_outside_act_as_the_nearest_inside_and_can_come_back() -> None:
    scheme = KerplePower(SHAPE).double()
    with torch.no_grad():
        scheme.p_H.copy_(torch.tensor([-3.0, 5.0, 1.5, 0.0]))
        scheme.a_H.copy_(torch.tensor([1.0, 0.5, -0.5, 7.0]))
    penalty = scheme.penalty(torch.tensor([7]))[:, 0]
    expected = [(1.0, 0.01), (0.5, 2.0), (0.01, 1.5), (7.0, 0.01)]
    exact = torch.tensor([-a * 7**p for a, p in expected], dtype=torch.float64)
    torch.testing.assert_close(penalty, exact, rtol=0, atol=1e-12)
    penalty.sum().backward()
    assert (scheme.p_H.grad != 0).all()
    assert (scheme.a_H.grad != 0).all()
