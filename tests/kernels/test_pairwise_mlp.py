"""PairwiseMLP against torch's convolutions, values and gradients. Tolerance 1e-12 in float64."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from posbench.position import pairwise_mlp
from posbench.position.pairwise_mlp import PairwiseMLP

EXACT = {"rtol": 0, "atol": 1e-12}
BATCH, HEADS, HIDDEN, OUT, QUERIES, KEYS = 2, 3, 5, 4, 6, 9


def leaves(bias: tuple[int, ...], taps: int) -> list[Tensor]:
    draw = torch.Generator().manual_seed(0)
    shapes = ((BATCH, HEADS, QUERIES, KEYS), bias, (HIDDEN, HEADS, taps), (OUT, HIDDEN, taps))
    return [torch.randn(shape, generator=draw, dtype=torch.float64).requires_grad_() for shape in shapes]


def convolutions(
    x: Tensor, bias: Tensor, weight_in: Tensor, weight_out: Tensor, visible: Tensor | float
) -> Tensor:
    padding = (0, weight_in.shape[2] // 2)
    hidden = (
        F.leaky_relu(F.conv2d(x * visible, weight_in[:, :, None], padding=padding) + bias, 0.01) * visible
    )
    return F.conv2d(hidden, weight_out[:, :, None], padding=padding)


@pytest.mark.parametrize("pairs", [1, 20, 1000])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(
    "bias", [(BATCH, HIDDEN, QUERIES, KEYS), (1, HIDDEN, QUERIES, KEYS), (1, HIDDEN, 1, 1)]
)
@pytest.mark.parametrize("taps", [1, 3, 5])
def test_equals_two_convolutions(
    taps: int, bias: tuple[int, ...], masked: bool, pairs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tiles of any size give the same."""
    monkeypatch.setattr(pairwise_mlp, "CPU_TILE_PAIRS", pairs)
    inputs = leaves(bias, taps)
    visible = torch.ones(QUERIES, KEYS, dtype=torch.float64).tril(3) if masked else None
    found = PairwiseMLP.apply(*inputs, 0.01, visible)
    expected = convolutions(*inputs, 1.0 if visible is None else visible)
    torch.testing.assert_close(found, expected, **EXACT)
    probe = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for one, other in zip(
        torch.autograd.grad(found, inputs, probe), torch.autograd.grad(expected, inputs, probe), strict=True
    ):
        torch.testing.assert_close(one, other, **EXACT)


@pytest.mark.parametrize("pairs", [1, 20, 1000])
def test_keys_after_the_diagonal_are_ignored(pairs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairwise_mlp, "CPU_TILE_PAIRS", pairs)
    inputs = leaves((1, HIDDEN, 1, 1), 1)
    visible = torch.ones(QUERIES, KEYS, dtype=torch.bool).tril(KEYS - QUERIES)
    found = PairwiseMLP.apply(*inputs, 0.0, None, KEYS - QUERIES)
    hidden = torch.einsum("kc,bcrs->bkrs", inputs[2][..., 0], inputs[0]) + inputs[1]
    expected = torch.einsum("hk,bkrs->bhrs", inputs[3][..., 0], hidden.relu())
    torch.testing.assert_close(found[..., visible], expected[..., visible], **EXACT)
    for one, other in zip(
        torch.autograd.grad(found[..., visible].sum(), inputs),
        torch.autograd.grad(expected[..., visible].sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(one, other, **EXACT)
