"""Rowwise biases, and biases trained on the CPU's fused kernel, against `dense` and loops."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest
import torch
from cases import BIASES, DIMS, GEOMETRIES, HEADS, KEYS, MASKS, case, gradients
from torch import Tensor

from posbench.errors import IncompatibleError
from posbench.kernels.dense import dense
from posbench.kernels.dispatcher import KernelDispatcher
from posbench.kernels.sdpa import MASK, sdpa, square_bias, why_unsupported
from posbench.position.attention import attend
from posbench.position.biases import (
    CompositeBias,
    DistanceBias,
    QueryRows,
    RowwiseBias,
    SeparableBias,
)
from posbench.position.call import AttentionCall
from posbench.position.geometry import Geometry, Region
from posbench.position.numerics import reverse_cumsum
from posbench.position.scheme import AttentionInputs, PositionScheme, Traits

EXACT = {"rtol": 0, "atol": 1e-10}
# Attributes of these names of the package are the functions, not the modules.
dense_module, sdpa_module = (sys.modules[f"posbench.kernels.{name}"] for name in ("dense", "sdpa"))


def later_keys(rows: QueryRows) -> Tensor:
    """A bias that depends on all later keys and on the next head."""
    seen = torch.sigmoid(rows.content_BHRS) * rows.visible_RS
    return reverse_cumsum(seen) * torch.tanh(rows.content_BHRS.roll(1, 1)) + rows.q_BHRE.sum(-1, keepdim=True)


def with_rowwise_bias(call: AttentionCall) -> AttentionCall:
    return replace(call, bias=RowwiseBias(later_keys, call.q_BHTE, call.k_BHSE))


def by_row(call: AttentionCall) -> Tensor:
    """Computes attention one query at a time, over its visible keys only."""
    rows = []
    for t in range(call.q_BHTE.shape[2]):
        seen = call.geo.visible(call.masks)[t]
        q, k, v = call.q_BHTE[:, :, t : t + 1], call.k_BHSE[:, :, seen], call.v_BHSD[:, :, seen]
        content = call.scale * q @ k.transpose(-1, -2)
        gate = torch.sigmoid(content)
        tail = torch.stack([gate[..., j:].sum(-1) for j in range(k.shape[2])], -1)
        bias = tail * torch.tanh(content.roll(1, 1)) + q.sum(-1, keepdim=True)
        rows.append((content + bias).softmax(-1) @ v)
    return torch.cat(rows, 2)


@pytest.mark.parametrize("step", [1, 5, 64])
@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("geometry", ["square", "suffix"])
def test_rowwise_bias_depends_on_visible_keys_only(
    geometry: str, mask: str, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With any number of rows at a time, recomputed in the backward pass or not."""
    monkeypatch.setattr(dense_module, "STEP", step)
    call, leaves = case("none", mask, geometry)
    expected = by_row(call)
    for chunk in (dense_module.CHUNK, 2 * HEADS * KEYS * 3):
        out, _ = dense(with_rowwise_bias(call), chunk)
        torch.testing.assert_close(out, expected, **EXACT)
        for one, other in zip(gradients(out, leaves), gradients(expected, leaves), strict=True):
            torch.testing.assert_close(one, other, **EXACT)


def test_value_and_sum_with_other_biases() -> None:
    call, _ = case("separable")
    bias = RowwiseBias(later_keys, call.q_BHTE, call.k_BHSE)
    assert call.bias is not None
    together, _ = dense(replace(call, bias=CompositeBias((call.bias, bias))))
    logits = call.q_BHTE @ call.k_BHSE.transpose(-1, -2) * call.scale
    logits = logits + call.bias.value(call.geo, slice(None)) + bias.value(call.geo, slice(None))
    expected = logits.masked_fill(~call.geo.visible(), -torch.inf).softmax(-1) @ call.v_BHSD
    torch.testing.assert_close(together, expected, **EXACT)


def test_prepare_runs_once_per_call() -> None:
    call, _ = case("none")
    seen: list[int] = []

    def prepare(k_BHSE: Tensor) -> Tensor:
        seen.append(k_BHSE.shape[2])
        return k_BHSE.sum(-1)[:, :, None]

    bias = RowwiseBias(
        lambda rows, sums: sums[..., : rows.content_BHRS.shape[-1]], call.q_BHTE, call.k_BHSE, prepare
    )
    for with_others in (bias, CompositeBias((bias, bias))):
        seen.clear()
        dense(replace(call, bias=with_others), chunk=2 * HEADS * KEYS * 3)
        assert seen == [KEYS] * (1 if with_others is bias else 2)


def test_sdpa_does_not_support_it() -> None:
    call, _ = case("none")
    assert "rows of logits" in (why_unsupported(with_rowwise_bias(call)) or "")
    with pytest.raises(IncompatibleError, match=r"use runtime\.kernel=dense or auto"):
        KernelDispatcher("sdpa")(with_rowwise_bias(call))


class Split(PositionScheme):
    """Two regions, although the scheme is not `lse_mergeable`."""

    traits = Traits(relative=True, lse_mergeable=False)

    def regions(self, inputs: AttentionInputs) -> list[Region]:
        return [Region(inputs.geo, lambda i, j: i - j < 3), Region(inputs.geo, lambda i, j: i - j >= 3)]


def test_regions_of_a_rowwise_bias_raise() -> None:
    call, _ = case("none")
    stream = torch.zeros(2, KEYS, HEADS * DIMS, dtype=torch.float64)
    inputs = AttentionInputs(0, call.geo, stream, stream, call.q_BHTE, call.k_BHSE)
    with pytest.raises(IncompatibleError, match=r"^Split: .* depend on all of its keys, .* without regions$"):
        attend(Split(), inputs, call.v_BHSD, KernelDispatcher("auto"))


def test_reverse_cumsum() -> None:
    x = torch.randn(3, 7, dtype=torch.float64, requires_grad=True)
    expected = torch.stack([x[:, n:].sum(-1) for n in range(7)], -1)
    torch.testing.assert_close(reverse_cumsum(x), expected, rtol=0, atol=1e-14)
    assert torch.autograd.gradcheck(reverse_cumsum, x)


def test_trimming_keeps_the_first_keys() -> None:
    geo = GEOMETRIES["suffix"]
    assert len(geo.trim_to_visible_keys(slice(0, 1)).k_index_S) == KEYS - 3
    assert geo.trim_to_visible_keys(slice(3, 4)) is geo
    assert geo.trim_to_visible_keys(slice(None)) is geo
    unordered = replace(geo, first_key=None)
    assert unordered.trim_to_visible_keys(slice(0, 1)) is unordered


@pytest.mark.parametrize("structure", ["table", "separable"])
def test_trained_bias_is_not_expanded_over_the_batch(structure: str) -> None:
    call, _ = case(structure)
    bias = square_bias(call)
    assert bias.shape == ((1, HEADS, KEYS, KEYS) if structure == "table" else (2, HEADS, 1, KEYS))
    assert bias.requires_grad


@pytest.mark.parametrize("length", [1, 63, 64, 65, 150])
@pytest.mark.parametrize("structure", ["table", "separable"])
def test_trained_bias_at_any_length(structure: str, length: int) -> None:
    draw = torch.Generator().manual_seed(2)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=draw, dtype=torch.float64).requires_grad_()

    q, k, v = (random(2, 2, length, 4) for _ in range(3))
    row_HN, column_BHS = random(2, length), random(2, 2, length)
    made = DistanceBias(lambda n: row_HN[:, n]) if structure == "table" else SeparableBias(row_HN, column_BHS)
    call = AttentionCall(q, k, v, 0.5, Geometry.from_range(0, length), bias=made)
    out, expected = sdpa(call)[0], dense(call)[0]
    torch.testing.assert_close(out, expected, **EXACT)
    leaves = [q, k, v, row_HN if structure == "table" else column_BHS]
    for one, other in zip(gradients(out, leaves), gradients(expected, leaves), strict=True):
        torch.testing.assert_close(one, other, **EXACT)


@pytest.mark.parametrize("structure", BIASES)
def test_mask_written_out_in_blocks_of_rows(structure: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert MASK == 1 << 24
    monkeypatch.setattr(sdpa_module, "MASK", 2 * HEADS * KEYS * 5)
    call, _ = case(structure, "near")
    call = replace(call, with_lse=True)
    with torch.no_grad():
        (out, lse), (expected, expected_lse) = sdpa(call), dense(call)
    assert lse is not None
    torch.testing.assert_close(out, expected, **EXACT)
    torch.testing.assert_close(lse, expected_lse, **EXACT)


def test_steep_penalties_underflow_to_zero() -> None:
    """Weights below 1e-28 of the largest are zero in float32."""
    q = k = torch.zeros(1, 1, 200, 2)
    v = torch.randn(1, 1, 200, 2)
    steep = SeparableBias(torch.zeros(1, 1, 200), torch.arange(200.0)[None, None])
    out, _ = dense(AttentionCall(q, k, v, 1.0, Geometry.from_range(0, 200), bias=steep))
    expected = torch.softmax(torch.arange(200.0).double(), -1) @ v[0, 0].double()
    torch.testing.assert_close(out[0, 0, -1].double(), expected, rtol=1e-6, atol=1e-6)
