"""Terms of whole rows, and biases that are trained on the CPU's fused kernel, against the specification."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest
import torch
from cases import DIMS, GEOMETRIES, HEADS, KEYS, MASKS, TERMS, case, gradients
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
# In the package the functions of these names hide them.
dense_module, sdpa_module = (sys.modules[f"posbench.kernels.{name}"] for name in ("dense", "sdpa"))


def later(rows: QueryRows) -> Tensor:
    """What the keys from this one on make of the row, weighed by the next head's logits."""
    seen = torch.sigmoid(rows.content_BHRS) * rows.visible_RS
    return reverse_cumsum(seen) * torch.tanh(rows.content_BHRS.roll(1, 1)) + rows.q_BHRE.sum(-1, keepdim=True)


def whole(call: AttentionCall) -> AttentionCall:
    return replace(call, bias=RowwiseBias(later, call.q_BHTE, call.k_BHSE))


def by_row(call: AttentionCall) -> Tensor:
    """One query at a time, over the keys that it sees and no others."""
    rows = []
    for t in range(call.q_BHTE.shape[2]):
        seen = call.geo.visible(call.masks)[t]
        q, k, v = call.q_BHTE[:, :, t : t + 1], call.k_BHSE[:, :, seen], call.v_BHSD[:, :, seen]
        content = call.scale * q @ k.transpose(-1, -2)
        gate = torch.sigmoid(content)
        tail = torch.stack([gate[..., j:].sum(-1) for j in range(k.shape[2])], -1)
        term = tail * torch.tanh(content.roll(1, 1)) + q.sum(-1, keepdim=True)
        rows.append((content + term).softmax(-1) @ v)
    return torch.cat(rows, 2)


@pytest.mark.parametrize("step", [1, 5, 64])
@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("geometry", ["square", "suffix"])
def test_a_row_is_all_that_it_sees(
    geometry: str, mask: str, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However few rows there are at a time, recomputed in the backward pass or not."""
    monkeypatch.setattr(dense_module, "STEP", step)
    call, leaves = case("none", mask, geometry)
    expected = by_row(call)
    for chunk in (dense_module.CHUNK, 2 * HEADS * KEYS * 3):
        out, _ = dense(whole(call), chunk)
        torch.testing.assert_close(out, expected, **EXACT)
        for one, other in zip(gradients(out, leaves), gradients(expected, leaves), strict=True):
            torch.testing.assert_close(one, other, **EXACT)


def test_it_adds_to_other_terms_and_says_the_same_alone() -> None:
    call, _ = case("separable")
    term = RowwiseBias(later, call.q_BHTE, call.k_BHSE)
    assert call.bias is not None
    together, _ = dense(replace(call, bias=CompositeBias((call.bias, term))))
    logits = call.q_BHTE @ call.k_BHSE.transpose(-1, -2) * call.scale
    logits = logits + call.bias.value(call.geo, slice(None)) + term.value(call.geo, slice(None))
    expected = logits.masked_fill(~call.geo.visible(), -torch.inf).softmax(-1) @ call.v_BHSD
    torch.testing.assert_close(together, expected, **EXACT)


def test_what_is_prepared_of_the_keys_is_prepared_once() -> None:
    call, _ = case("none")
    seen: list[int] = []

    def prepare(k_BHSE: Tensor) -> Tensor:
        seen.append(k_BHSE.shape[2])
        return k_BHSE.sum(-1)[:, :, None]

    term = RowwiseBias(
        lambda rows, sums: sums[..., : rows.content_BHRS.shape[-1]], call.q_BHTE, call.k_BHSE, prepare
    )
    for with_others in (term, CompositeBias((term, term))):
        seen.clear()
        dense(replace(call, bias=with_others), chunk=2 * HEADS * KEYS * 3)
        assert seen == [KEYS] * (1 if with_others is term else 2)


def test_the_fused_kernel_refuses_it() -> None:
    call, _ = case("none")
    assert "rows of logits" in (why_unsupported(whole(call)) or "")
    with pytest.raises(IncompatibleError, match=r"use runtime\.kernel=dense or auto"):
        KernelDispatcher("sdpa")(whole(call))


class Split(PositionScheme):
    """Two regions and a row that wants to be whole."""

    traits = Traits(relative=True, lse_mergeable=False)

    def regions(self, inputs: AttentionInputs) -> list[Region]:
        return [Region(inputs.geo, lambda i, j: i - j < 3), Region(inputs.geo, lambda i, j: i - j >= 3)]


def test_regions_of_a_whole_row_are_refused() -> None:
    call, _ = case("none")
    stream = torch.zeros(2, KEYS, HEADS * DIMS, dtype=torch.float64)
    inputs = AttentionInputs(0, call.geo, stream, stream, call.q_BHTE, call.k_BHSE)
    with pytest.raises(IncompatibleError, match=r"^Split splits .* whole rows: use one or the other$"):
        attend(Split(), inputs, call.v_BHSD, KernelDispatcher("auto"))


def test_sums_from_the_end() -> None:
    x = torch.randn(3, 7, dtype=torch.float64, requires_grad=True)
    expected = torch.stack([x[:, n:].sum(-1) for n in range(7)], -1)
    torch.testing.assert_close(reverse_cumsum(x), expected, rtol=0, atol=1e-14)
    assert torch.autograd.gradcheck(reverse_cumsum, x)


def test_fewer_keys_are_the_first_ones() -> None:
    geo = GEOMETRIES["suffix"]
    assert len(geo.trim_to_visible_keys(slice(0, 1)).k_index_S) == KEYS - 3
    assert geo.trim_to_visible_keys(slice(3, 4)) is geo
    assert geo.trim_to_visible_keys(slice(None)) is geo
    unordered = replace(geo, first_key=None)
    assert unordered.trim_to_visible_keys(slice(0, 1)) is unordered


@pytest.mark.parametrize("term", ["table", "separable"])
def test_a_trained_bias_is_never_written_out_for_the_batch(term: str) -> None:
    call, _ = case(term)
    bias = square_bias(call)
    assert bias.shape == ((1, HEADS, KEYS, KEYS) if term == "table" else (2, HEADS, 1, KEYS))
    assert bias.requires_grad


@pytest.mark.parametrize("length", [1, 63, 64, 65, 150])
@pytest.mark.parametrize("term", ["table", "separable"])
def test_a_trained_bias_in_blocks_of_rows(term: str, length: int) -> None:
    draw = torch.Generator().manual_seed(2)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=draw, dtype=torch.float64).requires_grad_()

    q, k, v = (random(2, 2, length, 4) for _ in range(3))
    row_HN, column_BHS = random(2, length), random(2, 2, length)
    made = DistanceBias(lambda n: row_HN[:, n]) if term == "table" else SeparableBias(row_HN, column_BHS)
    call = AttentionCall(q, k, v, 0.5, Geometry.from_range(0, length), bias=made)
    out, expected = sdpa(call)[0], dense(call)[0]
    torch.testing.assert_close(out, expected, **EXACT)
    leaves = [q, k, v, row_HN if term == "table" else column_BHS]
    for one, other in zip(gradients(out, leaves), gradients(expected, leaves), strict=True):
        torch.testing.assert_close(one, other, **EXACT)


@pytest.mark.parametrize("term", TERMS)
def test_a_mask_of_a_long_text_is_written_out_a_few_rows_at_a_time(
    term: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert MASK == 1 << 24
    monkeypatch.setattr(sdpa_module, "MASK", 2 * HEADS * KEYS * 5)
    call, _ = case(term, "near")
    call = replace(call, with_lse=True)
    with torch.no_grad():
        (out, lse), (expected, expected_lse) = sdpa(call), dense(call)
    assert lse is not None
    torch.testing.assert_close(out, expected, **EXACT)
    torch.testing.assert_close(lse, expected_lse, **EXACT)


def test_steep_penalties_make_no_denormal_numbers() -> None:
    """Their weights are zero: below 1e-28 of the largest in float32."""
    q = k = torch.zeros(1, 1, 200, 2)
    v = torch.randn(1, 1, 200, 2)
    steep = SeparableBias(torch.zeros(1, 1, 200), torch.arange(200.0)[None, None])
    out, _ = dense(AttentionCall(q, k, v, 1.0, Geometry.from_range(0, 200), bias=steep))
    expected = torch.softmax(torch.arange(200.0).double(), -1) @ v[0, 0].double()
    torch.testing.assert_close(out[0, 0, -1].double(), expected, rtol=1e-6, atol=1e-6)
