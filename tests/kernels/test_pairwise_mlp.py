"""The MLP on pairs against torch's convolutions, values and gradients. Tolerance 1e-12 in float64."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from posbench.position import pairwise_mlp
from posbench.position.pairwise_mlp import PairwiseMLP

EXACT = {"rtol": 0, "atol": 1e-12}
BATCH, HEADS, FURTHER, HIDDEN, OUT, QUERIES, KEYS = 2, 3, 2, 5, 4, 6, 9


def leaves(shared: int, taps: int) -> list[Tensor]:
    """Returns channels, channels shared by all sequences or one set for each, and the weights of both layers."""
    draw = torch.Generator().manual_seed(0)
    pairs = QUERIES, KEYS
    channels = (BATCH, HEADS, *pairs), (shared, FURTHER, *pairs)
    layers = (HIDDEN, HEADS + FURTHER, taps), (HIDDEN,), (OUT, HIDDEN, taps)
    shapes = (*channels, *layers)
    return [torch.randn(shape, generator=draw, dtype=torch.float64).requires_grad_() for shape in shapes]


def convolutions(
    x: Tensor, shared: Tensor, weight_in: Tensor, bias: Tensor, weight_out: Tensor, visible: Tensor | float
) -> Tensor:
    padding = (0, weight_in.shape[2] // 2)
    inputs = torch.cat((x, shared.expand(len(x), -1, -1, -1)), 1) * visible
    hidden = F.leaky_relu(F.conv2d(inputs, weight_in[:, :, None], bias, padding=padding), 0.01)
    return F.conv2d(hidden * visible, weight_out[:, :, None], padding=padding)


@pytest.mark.parametrize("pairs", [1, 20, 1000])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("shared", [BATCH, 1])
@pytest.mark.parametrize("taps", [1, 3, 5])
def test_equals_two_convolutions(
    taps: int, shared: int, masked: bool, pairs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For tiles of few and of many pairs."""
    monkeypatch.setattr(pairwise_mlp, "PAIRS_CPU", pairs)
    given = leaves(shared, taps)
    visible = torch.ones(QUERIES, KEYS, dtype=torch.float64).tril(3) if masked else None
    found = PairwiseMLP.apply(*given, 0.01, visible)
    expected = convolutions(*given, 1.0 if visible is None else visible)
    torch.testing.assert_close(found, expected, **EXACT)
    probe = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for one, other in zip(
        torch.autograd.grad(found, given, probe), torch.autograd.grad(expected, given, probe), strict=True
    ):
        torch.testing.assert_close(one, other, **EXACT)


@pytest.mark.parametrize("pairs", [1, 20, 1000])
def test_keys_after_the_diagonal_may_be_skipped(pairs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairwise_mlp, "PAIRS_CPU", pairs)
    x, _, weight_in, *layers = leaves(1, 1)
    given = [x, weight_in[:, :HEADS].detach().requires_grad_(), *layers]
    visible = torch.ones(QUERIES, KEYS, dtype=torch.bool).tril(KEYS - QUERIES)
    found = PairwiseMLP.apply(x, None, *given[1:], 0.0, None, KEYS - QUERIES)
    hidden = torch.einsum("kc,bcrs->bkrs", given[1][..., 0], x) + given[2][:, None, None]
    expected = torch.einsum("hk,bkrs->bhrs", given[3][..., 0], hidden.relu())
    torch.testing.assert_close(found[..., visible], expected[..., visible], **EXACT)
    for one, other in zip(
        torch.autograd.grad(found[..., visible].sum(), given),
        torch.autograd.grad(expected[..., visible].sum(), given),
        strict=True,
    ):
        torch.testing.assert_close(one, other, **EXACT)
