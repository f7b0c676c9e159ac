"""KERPLE, logarithmic and power, against the paper's formulas, pair by pair. Tolerance 1e-12 in float64."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from calls import SHAPE, assert_same_gradients, attention, attention_inputs, causal, values

from posbench.position.kerple import Kerple
from posbench.schemes.alibi import ALiBi
from posbench.schemes.kerple_log import KerpleLog
from posbench.schemes.kerple_power import KerplePower

Bias = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def log(p: torch.Tensor, a: torch.Tensor, distance: torch.Tensor) -> torch.Tensor:
    """-r1 log(1 + r2 |i - j|), where p is r1 and a is r2."""
    return -p * torch.log(1 + a * distance)


def power(p: torch.Tensor, a: torch.Tensor, distance: torch.Tensor) -> torch.Tensor:
    """-r1 |i - j|^r2, where a is r1 and p is r2."""
    return -a * distance**p


def loop(scheme: Kerple, bias: Bias, tokens: int) -> torch.Tensor:
    """Returns the biases of all pairs, (H, T, T)."""
    rows = []
    for p, a in zip(scheme.p_H, scheme.a_H, strict=True):
        for i in range(tokens):
            rows += [bias(p, a, torch.tensor(float(abs(i - j))).double()) for j in range(tokens)]
    return torch.stack(rows).view(SHAPE.n_heads, tokens, tokens)


both = pytest.mark.parametrize(
    ("kind", "bias"), [(KerpleLog, log), (KerplePower, power)], ids=["log", "power"]
)


@both
def test_attention_equals_the_formula(kind: type[Kerple], bias: Bias) -> None:
    torch.manual_seed(0)
    scheme = kind(SHAPE).double()
    inputs, v = attention_inputs(), values()
    expected = torch.nn.functional.scaled_dot_product_attention(
        inputs.q_BHTD, inputs.k_BHSD, v, attn_mask=loop(scheme, bias, 20) + causal(20)
    )
    mine = attention(scheme, inputs, v)
    torch.testing.assert_close(mine, expected, rtol=0, atol=1e-12)
    assert_same_gradients(mine, expected, [scheme.p_H, scheme.a_H, inputs.q_BHTD, inputs.k_BHSD, v], 1e-12)


@pytest.mark.parametrize("kind", [KerpleLog, KerplePower])
def test_draws_are_uniform_over_the_authors_ranges(kind: type[Kerple]) -> None:
    torch.manual_seed(0)
    scheme = kind(replace(SHAPE, n_heads=20000))
    for drawn, top in ((scheme.p_H.detach(), 2.0), (scheme.a_H.detach(), 1.0)):
        assert 0 <= float(drawn.min()) < 0.01 * top
        assert 0.99 * top < float(drawn.max()) <= top
        assert float(drawn.mean()) == pytest.approx(top / 2, rel=0.02)


@pytest.mark.parametrize(
    ("kind", "bias", "given", "inside"),
    [
        (
            KerpleLog,
            log,
            ([-3.0, 0.0, 0.01, 1.0], [1.0, -0.5, 0.01, 0.002]),
            ([0.01, 0.01, 0.01, 1.0], [1.0, 0.01, 0.01, 0.01]),
        ),
        (
            KerplePower,
            power,
            ([-3.0, 5.0, 1.5, 0.0], [1.0, 0.5, -0.5, 7.0]),
            ([0.01, 2.0, 1.5, 0.01], [1.0, 0.5, 0.01, 7.0]),
        ),
    ],
    ids=["log", "power"],
)
def test_parameters_outside_their_range_are_clamped_and_can_return(
    kind: type[Kerple], bias: Bias, given: tuple, inside: tuple
) -> None:
    scheme = kind(SHAPE).double()
    with torch.no_grad():
        scheme.p_H.copy_(torch.tensor(given[0]))
        scheme.a_H.copy_(torch.tensor(given[1]))
    penalty = scheme.penalty(torch.tensor([7]))[:, 0]
    p_H, a_H = torch.tensor(inside, dtype=torch.float64)
    expected = bias(p_H, a_H, torch.tensor(7.0).double())
    torch.testing.assert_close(penalty, expected, rtol=0, atol=1e-12)
    penalty.sum().backward()
    assert (scheme.p_H.grad != 0).all()
    assert (scheme.a_H.grad != 0).all()


def test_power_with_exponent_one_is_alibi() -> None:
    scheme, alibi = KerplePower(SHAPE).double(), ALiBi(SHAPE)
    with torch.no_grad():
        scheme.p_H.fill_(1.0)
        scheme.a_H.copy_(alibi.slope_H)
    scheme.a_H.data.clamp_(min=0.01)
    distance = torch.arange(100)
    expected = -alibi.slope_H.clamp(min=0.01)[:, None] * distance
    torch.testing.assert_close(scheme.penalty(distance), expected, rtol=0, atol=1e-12)
