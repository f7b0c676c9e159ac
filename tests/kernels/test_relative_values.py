"""Relative values around other kernels against `dense`, values and gradients."""

from dataclasses import replace

import pytest
import torch
from cases import BIASES, CLASSES, DIMS, HEADS, KEYS, MASKS, Leaves, case, clipped, gradients
from torch import Tensor

from posbench.kernels.dense import dense
from posbench.kernels.flex import flex, why_never_supported
from posbench.kernels.relative_values import BLOCK, MAX_CLIP_DISTANCE, with_relative_values
from posbench.kernels.sdpa import sdpa, why_unsupported
from posbench.position.biases import QueryContentBias, RelativeValues
from posbench.position.call import AttentionCall
from posbench.position.geometry import Geometry

EXACT = {"rtol": 0, "atol": 1e-10}
# Differentiable on the CPU, as FlexAttention is on a GPU.
AROUND_DENSE, _ = with_relative_values(dense, lambda call: None)
HIDDEN = (lambda i, j: (i % 2 == 0) & (j > 0),)


@pytest.mark.parametrize("mask", [*MASKS, "some_rows_see_nothing"])
@pytest.mark.parametrize("geometry", ["square", "suffix"])
@pytest.mark.parametrize("structure", BIASES)
@pytest.mark.parametrize("with_lse", [True, False])
def test_equals_dense(structure: str, geometry: str, mask: str, with_lse: bool) -> None:
    call, leaves = case(structure, "causal", geometry, relative_values=True)
    call = replace(call, masks=MASKS.get(mask, HIDDEN), with_lse=with_lse)
    (out, lse), (expected, expected_lse) = AROUND_DENSE(call), dense(call)
    torch.testing.assert_close(out, expected, **EXACT)
    assert (lse is not None) == with_lse
    if lse is not None:
        torch.testing.assert_close(lse, expected_lse, **EXACT)
    for one, other in zip(gradients(out, leaves), gradients(expected, leaves), strict=True):
        torch.testing.assert_close(one, other, **EXACT)


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("structure", BIASES)
def test_around_sdpa(structure: str, mask: str) -> None:
    run, why_not = with_relative_values(sdpa, why_unsupported)
    call, leaves = case(structure, mask, relative_values=True)
    assert why_not(call) is None
    out, expected = run(call)[0], dense(call)[0]
    torch.testing.assert_close(out, expected, **EXACT)
    for one, other in zip(gradients(out, leaves), gradients(expected, leaves), strict=True):
        torch.testing.assert_close(one, other, **EXACT)


@pytest.mark.parametrize("structure", ["none", "table", "query_content"])
@torch.no_grad()
def test_around_unfused_flex(structure: str) -> None:
    run, why_not = with_relative_values(lambda call: flex(call, compiled=False), why_never_supported)
    for geometry, shared in (("square", False), ("suffix", True)):
        call, _ = case(structure, "near", geometry, torch.float32, shared, relative_values=True)
        assert why_not(call) is None
        torch.testing.assert_close(run(call)[0], dense(call)[0], rtol=0, atol=2e-6)


@pytest.mark.parametrize(("start", "stop"), [(0, 8), (8, KEYS), (9, KEYS)])
def test_subset_of_the_keys(start: int, stop: int) -> None:
    """Keys that are all before the queries, and queries whose nearest keys are left out."""
    call, _ = case("none", geometry="suffix", relative_values=True)
    part = replace(
        call,
        k_BHSE=call.k_BHSE[:, :, start:stop],
        v_BHSD=call.v_BHSD[:, :, start:stop],
        geo=call.geo.slice_keys(start, stop),
    )
    torch.testing.assert_close(AROUND_DENSE(part)[0], dense(part)[0], **EXACT)


@pytest.mark.parametrize("length", [1, BLOCK - 1, BLOCK, 3 * BLOCK + 5])
@pytest.mark.parametrize("clip", [1, 7, 2 * BLOCK])
def test_any_number_of_rows_and_distances(length: int, clip: int) -> None:
    draw = Leaves(torch.Generator().manual_seed(1), [], torch.float64)
    q, k, v = (draw(1, HEADS, length, DIMS) for _ in "qkv")

    def row(distance: Tensor) -> Tensor:
        return distance.clamp(max=clip)

    bias = QueryContentBias(draw(1, HEADS, length, clip + 1), row)
    value = RelativeValues(draw(clip + 1, DIMS), row, clip)
    call = AttentionCall(q, k, v, 0.5, Geometry.from_range(0, length), (), bias, value)
    torch.testing.assert_close(AROUND_DENSE(call)[0], dense(call)[0], **EXACT)


def test_classes_need_not_be_monotonic() -> None:
    """Far pairs may have the class of a near distance."""
    call, leaves = case("table", relative_values=True)
    cyclic = RelativeValues(
        leaves[-1], lambda d: torch.where(d == 3, CLASSES - 2, torch.where(d == 5, 1, 0)), 6
    )
    call = replace(call, relative_values=cyclic)
    torch.testing.assert_close(AROUND_DENSE(call)[0], dense(call)[0], **EXACT)


def test_unsupported_calls() -> None:
    _, why_not = with_relative_values(
        dense, lambda call: "never" if call.relative_values is not None else None
    )
    call, leaves = case("none", relative_values=True)
    assert why_not(call) is None
    moved = case("none", geometry="moved", relative_values=True)[0]
    assert "positions do not run in steps of one" in str(why_not(moved))
    x = torch.zeros(1, 1, 2 * MAX_CLIP_DISTANCE, DIMS)
    many = AttentionCall(
        x,
        x,
        x,
        1.0,
        Geometry.from_range(0, 2 * MAX_CLIP_DISTANCE),
        relative_values=RelativeValues(leaves[-1], lambda d: d % CLASSES, MAX_CLIP_DISTANCE + 1),
    )
    assert f"more than {MAX_CLIP_DISTANCE}" in str(why_not(many))
    assert (
        why_not(replace(many, relative_values=RelativeValues(leaves[-1], clipped, MAX_CLIP_DISTANCE))) is None
    )
