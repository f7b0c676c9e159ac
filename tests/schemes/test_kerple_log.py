"""KERPLE (log) against the formula of its paper, pair by pair. Tolerance 1e-12 in float64."""

import math
from dataclasses import replace

import pytest
import torch
from calls import SHAPE, assert_same_gradients, attention, causal, site, values

from posbench.schemes.kerple_log import KerpleLog


def loop(scheme: KerpleLog, tokens: int) -> torch.Tensor:
    """(H, T, T): -r1 log(1 + r2 |i - j|), in torch for its gradient."""
    rows = []
    for r1, r2 in zip(scheme.p_H, scheme.a_H, strict=True):
        for i in range(tokens):
            rows += [-r1 * torch.log(1 + r2 * abs(i - j)) for j in range(tokens)]
    return torch.stack(rows).view(SHAPE.heads, tokens, tokens)


def test_attention_equals_the_formula() -> None:
    torch.manual_seed(0)
    scheme = KerpleLog(SHAPE).double()
    at, v = site(), values()
    expected = torch.nn.functional.scaled_dot_product_attention(
        at.q_BHTD, at.k_BHSD, v, attn_mask=loop(scheme, 20) + causal(20)
    )
    mine = attention(scheme, at, v)
    torch.testing.assert_close(mine, expected, rtol=0, atol=1e-12)
    assert_same_gradients(mine, expected, [scheme.p_H, scheme.a_H, at.q_BHTD, at.k_BHSD, v], 1e-12)


def test_draws_are_uniform_over_the_authors_ranges() -> None:
    torch.manual_seed(0)
    scheme = KerpleLog(replace(SHAPE, heads=20000))
    for drawn, top in ((scheme.p_H.detach(), 2.0), (scheme.a_H.detach(), 1.0)):
        assert 0 <= float(drawn.min()) < 0.01 * top
        assert 0.99 * top < float(drawn.max()) <= top
        assert float(drawn.mean()) == pytest.approx(top / 2, rel=0.02)


def test_parameters_below_a_hundredth_act_as_a_hundredth_and_can_come_back() -> None:
    scheme = KerpleLog(SHAPE).double()
    with torch.no_grad():
        scheme.p_H.copy_(torch.tensor([-3.0, 0.0, 0.01, 1.0]))
        scheme.a_H.copy_(torch.tensor([1.0, -0.5, 0.01, 0.002]))
    penalty = scheme.penalty(torch.tensor([7]))[:, 0]
    expected = [(0.01, 1.0), (0.01, 0.01), (0.01, 0.01), (1.0, 0.01)]
    torch.testing.assert_close(
        penalty, torch.tensor([-p * math.log(1 + a * 7) for p, a in expected]).double(), rtol=0, atol=1e-8
    )
    penalty.sum().backward()
    assert (scheme.p_H.grad != 0).all()
    assert (scheme.a_H.grad != 0).all()
