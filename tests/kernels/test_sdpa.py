"""scaled_dot_product_attention against the specification, values and gradients."""

from dataclasses import replace

import pytest
import torch
from cases import GEOMETRIES, MASKS, TERMS, case, gradients

from posbench.kernels.dense import dense
from posbench.kernels.sdpa import sdpa, why_unsupported
from posbench.position.biases import DistanceBias

EXACT = {"rtol": 0, "atol": 1e-10}


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("term", TERMS)
def test_equals_dense(term: str, mask: str, geometry: str) -> None:
    call, leaves = case(term, mask, geometry)
    assert why_unsupported(call) is None
    out, none = sdpa(call)
    expected, _ = dense(call)
    assert none is None
    torch.testing.assert_close(out, expected, **EXACT)
    for one, other in zip(gradients(out, leaves), gradients(expected, leaves), strict=True):
        torch.testing.assert_close(one, other, **EXACT)


@pytest.mark.parametrize("term", TERMS)
def test_many_questions_over_one_context(term: str) -> None:
    call, leaves = case(term, geometry="suffix", shared=True)
    out, expected = sdpa(call)[0], dense(call)[0]
    torch.testing.assert_close(out, expected, **EXACT)
    for one, other in zip(gradients(out, leaves), gradients(expected, leaves), strict=True):
        torch.testing.assert_close(one, other, **EXACT)


@pytest.mark.parametrize("mask", [*MASKS, "some_rows_see_nothing"])
@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("term", TERMS)
def test_log_sum_exp_equals_that_of_dense(term: str, geometry: str, mask: str) -> None:
    hidden = (lambda i, j: (i % 2 == 0) & (j > 0),)
    call, _ = case(term, "causal", geometry)
    call = replace(call, with_lse=True, masks=MASKS.get(mask, hidden))
    with torch.no_grad():
        assert why_unsupported(call) is None
        out, lse = sdpa(call)
        expected, expected_lse = dense(call)
    assert lse is not None
    torch.testing.assert_close(out, expected, **EXACT)
    torch.testing.assert_close(lse, expected_lse, **EXACT)
    if mask == "some_rows_see_nothing":
        assert (lse == -torch.inf).any()


@pytest.mark.parametrize("mask", [*MASKS, "some_rows_see_nothing"])
@pytest.mark.parametrize("geometry", ["square", "moved"])
@pytest.mark.parametrize("term", TERMS)
def test_log_sum_exp_is_trained(term: str, geometry: str, mask: str) -> None:
    """Alone, and with the output, by either of the backward passes."""
    hidden = (lambda i, j: (i % 2 == 0) & (j > 0),)
    call, leaves = case(term, "causal", geometry)
    call = replace(call, with_lse=True, masks=MASKS.get(mask, hidden))
    assert why_unsupported(call) is None
    found, expected = sdpa(call), dense(call)
    seen = call.geo.visible(call.masks).any(-1)
    assert bool(seen.all()) == (mask != "some_rows_see_nothing")
    for of_out, of_lse in ((1.0, 1.0), (1.0, 0.0), (0.0, 1.0)):
        one, other = (
            torch.cat((of_out * out, of_lse * lse.masked_fill(~seen, 0)[..., None]), -1)
            for out, lse in (found, expected)
        )
        torch.testing.assert_close(one, other, **EXACT)
        for mine, theirs in zip(gradients(one, leaves), gradients(other, leaves), strict=True):
            torch.testing.assert_close(mine, theirs, **EXACT)


@pytest.mark.parametrize("term", ["none", "table"])
def test_where_it_has_no_gradient_it_leaves_the_log_sum_exp_to_dense(term: str) -> None:
    """Also where the scheme alone is trained and queries and keys ask for none."""
    call, _ = case(term, geometry="suffix")
    frozen = replace(
        call,
        q_BHTE=call.q_BHTE.detach(),
        k_BHSE=call.k_BHSE.detach(),
        v_BHSD=call.v_BHSD.detach(),
        with_lse=True,
    )
    rounded, _ = case(term, dtype=torch.bfloat16)
    for refused in (frozen, replace(rounded, with_lse=True)):
        assert "has a gradient in float32 and float64 only" in (why_unsupported(refused) or "")
        with torch.no_grad():
            assert why_unsupported(refused) is None


@pytest.mark.parametrize("with_lse", [False, True])
@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("term", TERMS)
def test_values_narrower_than_queries(term: str, geometry: str, with_lse: bool) -> None:
    """What was rotated or augmented has more dimensions than what is averaged."""
    call, leaves = case(term, "near", geometry)
    call = replace(call, v_BHSD=call.v_BHSD[..., :3], with_lse=with_lse and geometry != "suffix")
    assert why_unsupported(call) is None
    out, lse = sdpa(call)
    expected, expected_lse = dense(call)
    assert out.shape == expected.shape
    torch.testing.assert_close(out, expected, **EXACT)
    if lse is not None:
        torch.testing.assert_close(lse, expected_lse, **EXACT)
        out, expected = (
            torch.cat(both, -1) for both in ((out, lse[..., None]), (expected, expected_lse[..., None]))
        )
    for one, other in zip(gradients(out, leaves), gradients(expected, leaves), strict=True):
        torch.testing.assert_close(one, other, **EXACT)
    with torch.no_grad():
        evaluated, lse = sdpa(replace(call, with_lse=with_lse))
    torch.testing.assert_close(evaluated, expected[..., :3], **EXACT)
    assert (lse is not None) == with_lse


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 4e-2)])
@pytest.mark.parametrize("term", TERMS)
def test_in_training_precision(term: str, dtype: torch.dtype, tolerance: float) -> None:
    call, leaves = case(term, dtype=dtype)
    out, expected = sdpa(call)[0], dense(call)[0]
    assert out.dtype == dtype
    torch.testing.assert_close(out, expected, rtol=tolerance, atol=tolerance)
    for one, other in zip(gradients(out, leaves), gradients(expected, leaves), strict=True):
        torch.testing.assert_close(one, other, rtol=tolerance, atol=3 * tolerance)


def test_a_table_without_parameters_is_made_once_for_a_geometry() -> None:
    call, _ = case("none")
    calls = []

    def slope(distance: torch.Tensor) -> torch.Tensor:
        calls.append(len(distance))
        return -torch.tensordot(torch.tensor([0.5, 0.25]), distance.float(), 0)

    owner = object()
    for _ in range(3):
        sdpa(replace(call, bias=DistanceBias(slope, cache_owner=owner)))
    assert calls == [len(call.geo.k_pos_S)]
