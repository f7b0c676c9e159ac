"""The network on pairs against torch's convolutions, values and gradients. Tolerance 1e-12 in float64."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from posbench.position import pairwise_mlp
from posbench.position.pairwise_mlp import PairwiseMLP

EXACT = {"rtol": 0, "atol": 1e-12}
BATCH, HEADS, HIDDEN, OUT, QUERIES, KEYS = 2, 3, 5, 4, 6, 9


def leaves(before: tuple[int, ...], taps: int) -> list[Tensor]:
    draw = torch.Generator().manual_seed(0)
    shapes = ((BATCH, HEADS, QUERIES, KEYS), before, (HIDDEN, HEADS, taps), (OUT, HIDDEN, taps))
    return [torch.randn(shape, generator=draw, dtype=torch.float64).requires_grad_() for shape in shapes]


def convolutions(x: Tensor, before: Tensor, into: Tensor, onto: Tensor, seen: Tensor | float) -> Tensor:
    reach = (0, into.shape[2] // 2)
    hidden = F.leaky_relu(F.conv2d(x * seen, into[:, :, None], padding=reach) + before, 0.01) * seen
    return F.conv2d(hidden, onto[:, :, None], padding=reach)


@pytest.mark.parametrize("pairs", [1, 20, 1000])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(
    "before", [(BATCH, HIDDEN, QUERIES, KEYS), (1, HIDDEN, QUERIES, KEYS), (1, HIDDEN, 1, 1)]
)
@pytest.mark.parametrize("taps", [1, 3, 5])
def test_equals_two_convolutions(
    taps: int, before: tuple[int, ...], masked: bool, pairs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However few pairs there are at a time."""
    monkeypatch.setattr(pairwise_mlp, "PAIRS", pairs)
    given = leaves(before, taps)
    seen = torch.ones(QUERIES, KEYS, dtype=torch.float64).tril(3) if masked else None
    found = PairwiseMLP.apply(*given, 0.01, seen)
    expected = convolutions(*given, 1.0 if seen is None else seen)
    torch.testing.assert_close(found, expected, **EXACT)
    probe = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for one, other in zip(
        torch.autograd.grad(found, given, probe), torch.autograd.grad(expected, given, probe), strict=True
    ):
        torch.testing.assert_close(one, other, **EXACT)


@pytest.mark.parametrize("pairs", [1, 20, 1000])
def test_keys_after_the_diagonal_may_read_zero(pairs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairwise_mlp, "PAIRS", pairs)
    given = leaves((1, HIDDEN, 1, 1), 1)
    visible = torch.ones(QUERIES, KEYS, dtype=torch.bool).tril(KEYS - QUERIES)
    found = PairwiseMLP.apply(*given, 0.0, None, KEYS - QUERIES)
    hidden = torch.einsum("kc,bcrs->bkrs", given[2][..., 0], given[0]) + given[1]
    expected = torch.einsum("hk,bkrs->bhrs", given[3][..., 0], hidden.relu())
    torch.testing.assert_close(found[..., visible], expected[..., visible], **EXACT)
    for one, other in zip(
        torch.autograd.grad(found[..., visible].sum(), given),
        torch.autograd.grad(expected[..., visible].sum(), given),
        strict=True,
    ):
        torch.testing.assert_close(one, other, **EXACT)
