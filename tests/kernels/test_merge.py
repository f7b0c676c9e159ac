"""Attention over disjoint sets of pairs merges to attention over all of them."""

from dataclasses import replace

import pytest
import torch
from cases import case, gradients
from torch import Tensor

from posbench.kernels.dense import dense
from posbench.kernels.dispatcher import KernelDispatcher
from posbench.position.attention import attend, merge
from posbench.position.geometry import Mask, Region
from posbench.position.scheme import AttentionInputs, PositionScheme

EXACT = {"rtol": 0, "atol": 1e-10}
PARTITIONS: dict[str, list[Mask]] = {
    "whole": [lambda i, j: j >= 0],
    "near_far": [lambda i, j: i - j < 4, lambda i, j: i - j >= 4],
    "interleaved": [
        lambda i, j: (i + j) % 3 == 0,
        lambda i, j: (i + j) % 3 == 1,
        lambda i, j: (i + j) % 3 == 2,
    ],
    "one_is_empty": [lambda i, j: j >= 0, lambda i, j: j < 0],
}


@pytest.mark.parametrize("geometry", ["square", "suffix"])
@pytest.mark.parametrize("partition", PARTITIONS)
def test_parts_merge_to_the_softmax_over_all_pairs(partition: str, geometry: str) -> None:
    call, leaves = case("separable", "both", geometry, relative_values=True)
    whole, whole_lse = dense(call)
    out, lse = merge([dense(replace(call, masks=(*call.masks, mask))) for mask in PARTITIONS[partition]])
    torch.testing.assert_close(out, whole, **EXACT)
    torch.testing.assert_close(lse, whole_lse, **EXACT)
    for one, other in zip(
        gradients(out, leaves) + gradients(lse, leaves),
        gradients(whole, leaves) + gradients(whole_lse, leaves),
        strict=True,
    ):
        torch.testing.assert_close(one, other, **EXACT)


def test_rows_without_visible_keys_are_zero_with_finite_gradients() -> None:
    call, leaves = case("table")
    even: Mask = lambda i, j: (i % 2 == 0) & (j % 2 == 0)  # noqa: E731
    odd: Mask = lambda i, j: (i % 2 == 0) & (j % 2 == 1)  # noqa: E731
    out, lse = merge([dense(replace(call, masks=(mask,))) for mask in (even, odd)])
    assert (out[:, :, 1::2] == 0).all()
    assert (lse[:, :, 1::2] == -torch.inf).all()
    for gradient in gradients(out, leaves):
        assert gradient.isfinite().all()
        assert (gradient != 0).any()


def test_huge_logits_do_not_overflow() -> None:
    call, _ = case("none")
    call = replace(call, scale=1e5)
    out, lse = merge([dense(replace(call, masks=(mask,))) for mask in PARTITIONS["near_far"]])
    torch.testing.assert_close(out, dense(call)[0], rtol=0, atol=1e-9)
    assert lse.isfinite().all()


class Split(PositionScheme):
    """Regions with the same geometry, which change no logits."""

    def regions(self, inputs: AttentionInputs) -> list[Region]:
        return [Region(inputs.geo, mask) for mask in PARTITIONS["interleaved"]]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_attend_merges_regions(dtype: torch.dtype) -> None:
    call, _ = case("none", dtype=dtype)
    stream: Tensor = torch.zeros(2, 12, 8, dtype=dtype)
    inputs = AttentionInputs(0, call.geo, stream, stream, call.q_BHTE, call.k_BHSE)
    kernel = KernelDispatcher("auto")
    out = attend(Split(), inputs, call.v_BHSD, kernel)
    expected = attend(PositionScheme(), inputs, call.v_BHSD, KernelDispatcher("auto"))
    assert kernel.ran == "sdpa"
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-10 if dtype == torch.float64 else 1e-6)
