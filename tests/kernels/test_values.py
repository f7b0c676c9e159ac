"""Values by pair around other kernels against the specification, values and gradients."""

from dataclasses import replace

import pytest
import torch
from cases import CLASSES, DIMS, HEADS, KEYS, MASKS, TERMS, Leaves, case, clipped, gradients
from torch import Tensor

from posbench.kernels.dense import dense
from posbench.kernels.flex import flex, unfit
from posbench.kernels.relative_values import BLOCK, MOST, by_pair
from posbench.kernels.sdpa import refusal, sdpa
from posbench.position.biases import PairValue, QueryContent
from posbench.position.call import Pairs
from posbench.position.geometry import Geometry

EXACT = {"rtol": 0, "atol": 1e-10}
# With its gradients, as a GPU's kernel has them.
AROUND_DENSE, _ = by_pair(dense, lambda pairs: None)
HIDDEN = (lambda i, j: (i % 2 == 0) & (j > 0),)


@pytest.mark.parametrize("mask", [*MASKS, "some_rows_see_nothing"])
@pytest.mark.parametrize("geometry", ["square", "suffix"])
@pytest.mark.parametrize("term", TERMS)
@pytest.mark.parametrize("with_lse", [True, False])
def test_equals_dense(term: str, geometry: str, mask: str, with_lse: bool) -> None:
    pairs, leaves = case(term, "causal", geometry, value=True)
    pairs = replace(pairs, masks=MASKS.get(mask, HIDDEN), with_lse=with_lse)
    (out, lse), (expected, expected_lse) = AROUND_DENSE(pairs), dense(pairs)
    torch.testing.assert_close(out, expected, **EXACT)
    assert (lse is not None) == with_lse
    if lse is not None:
        torch.testing.assert_close(lse, expected_lse, **EXACT)
    for one, other in zip(gradients(out, leaves), gradients(expected, leaves), strict=True):
        torch.testing.assert_close(one, other, **EXACT)


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("term", TERMS)
def test_sdpa_is_trained_with_them(term: str, mask: str) -> None:
    run, refused = by_pair(sdpa, refusal)
    pairs, leaves = case(term, mask, value=True)
    assert refused(pairs) is None
    out, expected = run(pairs)[0], dense(pairs)[0]
    torch.testing.assert_close(out, expected, **EXACT)
    for one, other in zip(gradients(out, leaves), gradients(expected, leaves), strict=True):
        torch.testing.assert_close(one, other, **EXACT)


@pytest.mark.parametrize("term", ["none", "table", "query_content"])
@torch.no_grad()
def test_flex_unfused(term: str) -> None:
    run, refused = by_pair(lambda pairs: flex(pairs, compiled=False), unfit)
    for geometry, shared in (("square", False), ("suffix", True)):
        pairs, _ = case(term, "near", geometry, torch.float32, shared, value=True)
        assert refused(pairs) is None
        torch.testing.assert_close(run(pairs)[0], dense(pairs)[0], rtol=0, atol=2e-6)


@pytest.mark.parametrize(("start", "stop"), [(0, 8), (8, KEYS), (9, KEYS)])
def test_a_part_of_the_keys(start: int, stop: int) -> None:
    """Keys that all lie before the queries, and queries whose near keys lie in another part."""
    pairs, _ = case("none", geometry="suffix", value=True)
    part = replace(
        pairs,
        k_BHSE=pairs.k_BHSE[:, :, start:stop],
        v_BHSD=pairs.v_BHSD[:, :, start:stop],
        geo=pairs.geo.keys(start, stop),
    )
    torch.testing.assert_close(AROUND_DENSE(part)[0], dense(part)[0], **EXACT)


@pytest.mark.parametrize("length", [1, BLOCK - 1, BLOCK, 3 * BLOCK + 5])
@pytest.mark.parametrize("clip", [1, 7, 2 * BLOCK])
def test_any_number_of_rows_and_of_distances(length: int, clip: int) -> None:
    draw = Leaves(torch.Generator().manual_seed(1), [], torch.float64)
    q, k, v = (draw(1, HEADS, length, DIMS) for _ in "qkv")

    def row(distance: Tensor) -> Tensor:
        return distance.clamp(max=clip)

    term = QueryContent(draw(1, HEADS, length, clip + 1), row)
    value = PairValue(draw(clip + 1, DIMS), row, clip)
    pairs = Pairs(q, k, v, 0.5, Geometry.span(0, length), (), term, value)
    torch.testing.assert_close(AROUND_DENSE(pairs)[0], dense(pairs)[0], **EXACT)


def test_a_row_that_returns_is_told_apart() -> None:
    """Classes need not grow with distance, and the last may have come before."""
    pairs, leaves = case("table", value=True)
    returns = PairValue(leaves[-1], lambda d: torch.where(d == 3, CLASSES - 2, torch.where(d == 5, 1, 0)), 6)
    pairs = replace(pairs, value=returns)
    torch.testing.assert_close(AROUND_DENSE(pairs)[0], dense(pairs)[0], **EXACT)


def test_what_it_cannot_do() -> None:
    _, refused = by_pair(dense, lambda pairs: "never" if pairs.value is not None else None)
    pairs, leaves = case("none", value=True)
    assert refused(pairs) is None
    moved = case("none", geometry="moved", value=True)[0]
    assert "positions do not run in steps of one" in str(refused(moved))
    x = torch.zeros(1, 1, 2 * MOST, DIMS)
    many = Pairs(
        x, x, x, 1.0, Geometry.span(0, 2 * MOST), value=PairValue(leaves[-1], lambda d: d % CLASSES, MOST + 1)
    )
    assert f"more than {MOST}" in str(refused(many))
    assert refused(replace(many, value=PairValue(leaves[-1], clipped, MOST))) is None
