"""The SDPA kernel against `dense`, values and gradients."""

from dataclasses import replace

import pytest
import torch
from cases import BIASES, GEOMETRIES, MASKS, case, gradients

from posbench.kernels.dense import dense
from posbench.kernels.sdpa import sdpa, why_unsupported
from posbench.position.biases import DistanceBias

EXACT = {"rtol": 0, "atol": 1e-10}


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("structure", BIASES)
def test_equals_dense(structure: str, mask: str, geometry: str) -> None:
    call, leaves = case(structure, mask, geometry)
    assert why_unsupported(call) is None
    out, none = sdpa(call)
    expected, _ = dense(call)
    assert none is None
    torch.testing.assert_close(out, expected, **EXACT)
    for one, other in zip(gradients(out, leaves), gradients(expected, leaves), strict=True):
        torch.testing.assert_close(one, other, **EXACT)


@pytest.mark.parametrize("structure", BIASES)
def test_shared_context(structure: str) -> None:
    call, leaves = case(structure, geometry="suffix", shared=True)
    out, expected = sdpa(call)[0], dense(call)[0]
    torch.testing.assert_close(out, expected, **EXACT)
    for one, other in zip(gradients(out, leaves), gradients(expected, leaves), strict=True):
        torch.testing.assert_close(one, other, **EXACT)


@pytest.mark.parametrize("mask", [*MASKS, "some_rows_see_nothing"])
@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("structure", BIASES)
def test_log_sum_exp_equals_dense(structure: str, geometry: str, mask: str) -> None:
    hidden = (lambda i, j: (i % 2 == 0) & (j > 0),)
    call, _ = case(structure, "causal", geometry)
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
@pytest.mark.parametrize("structure", BIASES)
def test_gradients_through_log_sum_exp(structure: str, geometry: str, mask: str) -> None:
    """Of the log-sum-exp alone, the output alone and both, which take different backward passes."""
    hidden = (lambda i, j: (i % 2 == 0) & (j > 0),)
    call, leaves = case(structure, "causal", geometry)
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


@pytest.mark.parametrize("structure", ["none", "table"])
def test_log_sum_exp_without_gradient_is_unsupported(structure: str) -> None:
    """Also if only the scheme is trained, and queries and keys require no gradient."""
    call, _ = case(structure, geometry="suffix")
    frozen = replace(
        call,
        q_BHTE=call.q_BHTE.detach(),
        k_BHSE=call.k_BHSE.detach(),
        v_BHSD=call.v_BHSD.detach(),
        with_lse=True,
    )
    rounded, _ = case(structure, dtype=torch.bfloat16)
    for unsupported in (frozen, replace(rounded, with_lse=True)):
        assert "has a gradient in float32 and float64 only" in (why_unsupported(unsupported) or "")
        with torch.no_grad():
            assert why_unsupported(unsupported) is None


@pytest.mark.parametrize("with_lse", [False, True])
@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("structure", BIASES)
def test_values_narrower_than_queries(structure: str, geometry: str, with_lse: bool) -> None:
    """Rotated or augmented queries and keys may have more dimensions than values."""
    call, leaves = case(structure, "near", geometry)
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
@pytest.mark.parametrize("structure", BIASES)
def test_in_training_precision(structure: str, dtype: torch.dtype, tolerance: float) -> None:
    call, leaves = case(structure, dtype=dtype)
    out, expected = sdpa(call)[0], dense(call)[0]
    assert out.dtype == dtype
    torch.testing.assert_close(out, expected, rtol=tolerance, atol=tolerance)
    for one, other in zip(gradients(out, leaves), gradients(expected, leaves), strict=True):
        torch.testing.assert_close(one, other, rtol=tolerance, atol=3 * tolerance)


def test_table_without_parameters_is_computed_once_per_geometry() -> None:
    call, _ = case("none")
    calls = []

    def slope(distance: torch.Tensor) -> torch.Tensor:
        calls.append(len(distance))
        return -torch.tensordot(torch.tensor([0.5, 0.25]), distance.float(), 0)

    owner = object()
    for _ in range(3):
        sdpa(replace(call, bias=DistanceBias(slope, cache_owner=owner)))
    assert calls == [len(call.geo.k_pos_S)]
