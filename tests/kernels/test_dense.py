"""The reference kernel against a Python loop over pairs, and in chunks against itself."""

import math

import pytest
import torch
from cases import BIASES, CLASSES, MASKS, case, clipped, gradients

from posbench.kernels.dense import dense
from posbench.position.call import AttentionCall
from posbench.position.geometry import Geometry

EXACT = {"rtol": 0, "atol": 1e-12}


def loop(call: AttentionCall) -> tuple[torch.Tensor, torch.Tensor]:
    """Computes attention one pair at a time."""
    batch, heads, queries, _ = call.q_BHTE.shape
    geo = call.geo
    bias = None if call.bias is None else call.bias.value(geo, slice(None))
    out = torch.zeros(batch, heads, queries, call.v_BHSD.shape[-1], dtype=torch.float64)
    lse = torch.full((batch, heads, queries), -math.inf, dtype=torch.float64)
    for b in range(batch):
        for h in range(heads):
            for t in range(queries):
                i, weights, rows = int(geo.q_index_T[t]), [], []
                for s in range(len(geo.k_index_S)):
                    j = int(geo.k_index_S[s])
                    seen = all(bool(mask(torch.tensor(i), torch.tensor(j))) for mask in call.masks)
                    if j > i or not seen:
                        continue
                    logit = float(call.q_BHTE[b, h, t] @ call.k_BHSE[b, h, s]) * call.scale
                    if bias is not None:
                        logit += float(bias.expand(batch, heads, queries, len(geo.k_index_S))[b, h, t, s])
                    row = call.v_BHSD[b, h, s]
                    if call.relative_values is not None:
                        distance = geo.q_pos_T[t] - geo.k_pos_S[s]
                        row = row + call.relative_values.table_KD[int(clipped(distance))]
                    weights.append(math.exp(logit))
                    rows.append(row)
                if weights:
                    lse[b, h, t] = math.log(sum(weights))
                    mixed = [w / sum(weights) * row for w, row in zip(weights, rows, strict=True)]
                    out[b, h, t] = torch.stack(mixed).sum(0)
    return out, lse


@pytest.mark.parametrize("geometry", ["square", "suffix", "moved"])
@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("structure", ["none", "smooth", "key_content"])
def test_equals_loop_over_pairs(structure: str, mask: str, geometry: str) -> None:
    call, _ = case(structure, mask, geometry, relative_values=True)
    with torch.no_grad():
        out, lse = dense(call)
        expected_out, expected_lse = loop(call)
    torch.testing.assert_close(out, expected_out, **EXACT)
    torch.testing.assert_close(lse, expected_lse, **EXACT)


@pytest.mark.parametrize("chunk", [1, 100, 300])
@pytest.mark.parametrize("structure", BIASES)
def test_chunks_change_nothing(structure: str, chunk: int) -> None:
    call, leaves = case(structure, "near", "square", relative_values=True)
    whole, whole_lse = dense(call)
    parts, parts_lse = dense(call, chunk)
    torch.testing.assert_close(parts, whole, **EXACT)
    torch.testing.assert_close(parts_lse, whole_lse, **EXACT)
    for one, other in zip(
        gradients(parts, leaves) + gradients(parts_lse, leaves),
        gradients(whole, leaves) + gradients(whole_lse, leaves),
        strict=True,
    ):
        torch.testing.assert_close(one, other, **EXACT)


def test_gradients_equal_finite_differences() -> None:
    call, leaves = case("query_content", "both", "moved", relative_values=True)

    def outputs(*_: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return dense(call)

    # gradcheck perturbs its inputs in place, and the call holds the same tensors.
    assert torch.autograd.gradcheck(outputs, tuple(leaves), atol=1e-6)


def test_row_without_visible_keys_is_zero_with_finite_gradients() -> None:
    call, leaves = case("separable")
    masked = AttentionCall(
        call.q_BHTE,
        call.k_BHSE,
        call.v_BHSD,
        call.scale,
        call.geo,
        (lambda i, j: (i % 2 == 0) & (j >= 0),),
        call.bias,
    )
    out, lse = dense(masked)
    assert (out[:, :, 1::2] == 0).all()
    assert (lse[:, :, 1::2] == -torch.inf).all()
    assert lse[:, :, 0::2].isfinite().all()
    for gradient in gradients(out, leaves) + gradients(lse[:, :, 0::2], leaves):
        assert gradient.isfinite().all()


def test_bfloat16_is_computed_in_float32_and_rounded_once() -> None:
    call, _ = case("smooth", dtype=torch.bfloat16)
    out, lse = dense(call)
    wide = AttentionCall(
        call.q_BHTE.float(),
        call.k_BHSE.float(),
        call.v_BHSD.float(),
        call.scale,
        call.geo,
        bias=call.bias,
    )
    assert out.dtype == torch.bfloat16
    assert lse.dtype == torch.float32
    assert torch.equal(out, dense(wide)[0].bfloat16())


def test_shared_keys_equal_expanded_keys() -> None:
    call, _ = case("table", geometry="suffix", shared=True)
    out, _ = dense(call)
    wide = AttentionCall(
        call.q_BHTE,
        call.k_BHSE.expand(3, -1, -1, -1),
        call.v_BHSD.expand(3, -1, -1, -1),
        call.scale,
        call.geo,
        bias=call.bias,
    )
    torch.testing.assert_close(out, dense(wide)[0], **EXACT)


def test_clipped_has_all_classes() -> None:
    assert int(clipped(torch.arange(100)).max()) == CLASSES - 1


def test_one_token() -> None:
    geo = Geometry.from_range(0, 1)
    one = torch.ones(1, 1, 1, 2)
    out, lse = dense(AttentionCall(one, one, one, 0.5, geo))
    assert torch.equal(out, one)
    assert float(lse) == 1.0


@pytest.mark.parametrize("structure", BIASES)
def test_autocast_does_not_round(structure: str) -> None:
    """float32 inputs stay float32 in the products and in the bias."""
    call, leaves = case(structure, dtype=torch.float32)
    expected = dense(call)[0]
    with torch.autocast("cpu", torch.bfloat16):
        found = dense(call)[0]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    for one, other in zip(gradients(found, leaves), gradients(expected, leaves), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5)
