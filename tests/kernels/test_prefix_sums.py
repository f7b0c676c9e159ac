"""Biases that are differences of long cumulative sums, in float32 against float64."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from posbench.kernels.dense import dense
from posbench.kernels.flex import flex
from posbench.kernels.flex_score_mod import bias_of_indices
from posbench.kernels.relative_values import diagonals
from posbench.kernels.sdpa import sdpa
from posbench.position.biases import CompositeBias, SeparableBias
from posbench.position.call import AttentionCall
from posbench.position.geometry import Geometry

KEYS, QUERIES, HEADS = 32_768, 8, 2


def call_of(tokens: int = KEYS, queries: int = QUERIES, decay: float = 1.4) -> tuple[AttentionCall, Tensor]:
    """Returns a call in float64 with the bias of FoX or Cable, and the decays of the tokens, (1, H, S)."""
    draw = torch.Generator().manual_seed(0)
    q, k, v = (
        torch.randn(1, HEADS, count, 4, generator=draw, dtype=torch.float64)
        for count in (queries, tokens, tokens)
    )
    decay_BHS = decay * torch.rand(1, HEADS, tokens, generator=draw, dtype=torch.float64)
    total_BHS = decay_BHS.cumsum(-1)
    bias = SeparableBias(-total_BHS[..., -queries:], total_BHS)
    return AttentionCall(q, k, v, 0.5, Geometry.from_range(tokens - queries, tokens), bias=bias), decay_BHS


def single(call: AttentionCall) -> AttentionCall:
    """Returns the call with queries, keys and values in float32; the bias stays in float64, as schemes give it."""
    return replace(call, q_BHTE=call.q_BHTE.float(), k_BHSE=call.k_BHSE.float(), v_BHSD=call.v_BHSD.float())


@pytest.mark.parametrize("composite", [False, True])
@torch.no_grad()
def test_kernels_subtract_before_they_round(composite: bool) -> None:
    """flex cast the cumulative sums to float32 and then subtracted them: wrong by 1e-3 at 32,768 tokens."""
    exact, _ = call_of()
    if composite:
        zero = torch.zeros(1, HEADS, 1, dtype=torch.float64)
        parts = exact.bias, SeparableBias(zero.expand(-1, -1, QUERIES), zero.expand(-1, -1, KEYS))
        exact = replace(exact, bias=CompositeBias(parts))
    expected, expected_lse = dense(exact)
    call = replace(single(exact), with_lse=True)
    for kernel in (dense, sdpa, lambda call: flex(call, compiled=False)):
        out, lse = kernel(call)
        torch.testing.assert_close(out.double(), expected, rtol=0, atol=2e-6)
        torch.testing.assert_close(lse.double(), expected_lse, rtol=0, atol=2e-6)


@torch.no_grad()
def test_the_bias_of_a_pair_is_that_of_float64() -> None:
    """Each pair of neighbours, and pairs as far apart as the text, relative to the size of their bias."""
    call, decay_BHS = call_of()
    assert call.bias is not None
    added = bias_of_indices(call.bias, call.geo, len(call.q_BHTE), 128, KEYS)
    i, j = torch.arange(QUERIES)[:, None], torch.arange(KEYS)
    b, h = torch.zeros((), dtype=torch.long), torch.ones((), dtype=torch.long)
    found = added(b, h, i, j)
    total_S = decay_BHS[0, 1].cumsum(0)
    wanted = total_S - total_S[-QUERIES:, None]
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), wanted, rtol=2e-7, atol=1e-8)
    near = diagonals(single(call), 4) - diagonals(single(replace(call, bias=None)), 4)
    seen = torch.stack([wanted[row, KEYS - QUERIES + row - torch.arange(4)] for row in range(QUERIES)])
    torch.testing.assert_close(near[0, 1], seen, rtol=0, atol=1e-8)


def test_gradients_of_the_parts_are_those_of_the_bias() -> None:
    call, _ = call_of(tokens=16, queries=16)
    assert isinstance(call.bias, SeparableBias)
    leaves = [x.requires_grad_() for x in (call.bias.row_BHT, call.bias.column_BHS)]
    added = bias_of_indices(call.bias, call.geo, len(call.q_BHTE), 128, 128)
    b, h = torch.zeros((), dtype=torch.long), torch.zeros((), dtype=torch.long)
    added(b, h, torch.arange(3)[:, None], torch.arange(5)).sum().backward()
    for leaf, count, times in zip(leaves, (3, 5), (5, 3), strict=True):
        assert leaf.grad is not None
        assert leaf.grad[0, 0].tolist() == [times] * count + [0] * (16 - count)


def test_training_on_the_cpu_after_large_decays() -> None:
    """Within 2,048 keys the column of the bias was passed alone, however large it is."""
    exact, _ = call_of(tokens=512, queries=512, decay=200.0)
    expected, _ = dense(exact)
    call = single(exact)
    call.q_BHTE.requires_grad_()
    torch.testing.assert_close(sdpa(call)[0].double(), expected, rtol=0, atol=2e-6)
