"""FlexAttention against `dense`: unfused on the CPU, fused without gradients on the CPU, fused with gradients on a GPU."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from cases import BIASES, GEOMETRIES, MASKS, case, gradients
from torch import Tensor

from posbench.errors import IncompatibleError
from posbench.kernels.dense import dense
from posbench.kernels.dispatcher import KernelDispatcher
from posbench.kernels.flex import block_mask, flex, why_unsupported
from posbench.kernels.flex_options import BLOCK, padded_length
from posbench.kernels.flex_score_mod import bias_of_indices
from posbench.kernels.sdpa import sdpa
from posbench.kernels.shared_context import is_shared_context
from posbench.position.biases import DistanceBias, KeyContentBias, QueryContentBias, SeparableBias
from posbench.position.call import AttentionCall
from posbench.position.geometry import Geometry
from posbench.position.masks import SlidingWindow

gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
SINGLE = {"rtol": 0, "atol": 2e-6}


@pytest.mark.parametrize("mask", [*MASKS, "some_rows_see_nothing"])
@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("structure", BIASES)
@torch.no_grad()
def test_unfused_equals_dense(structure: str, geometry: str, mask: str) -> None:
    hidden = (lambda i, j: (i % 2 == 0) & (j > 0),)
    call, _ = case(structure, "causal", geometry, torch.float32)
    call = replace(call, with_lse=True, masks=MASKS.get(mask, hidden))
    out, lse = flex(call, compiled=False)
    expected, expected_lse = dense(call)
    assert lse is not None
    torch.testing.assert_close(out, expected, **SINGLE)
    torch.testing.assert_close(lse, expected_lse, **SINGLE)


@pytest.mark.parametrize("structure", BIASES)
@torch.no_grad()
def test_unfused_with_a_shared_context(structure: str) -> None:
    call, _ = case(structure, geometry="suffix", dtype=torch.float32, shared=True)
    torch.testing.assert_close(flex(call, compiled=False)[0], dense(call)[0], **SINGLE)


@pytest.mark.parametrize("structure", ["table", "query_content", "key_content"])
@torch.no_grad()
def test_integer_positions_that_are_not_consecutive(structure: str) -> None:
    """As in the far regions of ReRoPE and Self-Extend, and with random positions."""
    call, _ = case(structure, dtype=torch.float32)
    moved = torch.arange(len(call.geo.k_pos_S)) // 3
    for q_pos in (moved, torch.full_like(moved, 4)):
        far = replace(call, geo=call.geo.with_positions(q_pos, moved))
        torch.testing.assert_close(flex(far, compiled=False)[0], dense(far)[0], **SINGLE)


@pytest.mark.parametrize(("start", "stop"), [(0, 300), (0, 256), (290, 300), (200, 600)])
@pytest.mark.parametrize("tokens", [1, 100, 128, 10_000])
def test_block_mask_equals_the_visible_pairs(start: int, stop: int, tokens: int) -> None:
    geo, masks = Geometry.from_range(start, stop), (SlidingWindow(tokens), lambda i, j: j % 2 == 0)
    q, k = torch.zeros(1, 1, stop - start, 4), torch.zeros(1, 1, stop, 4)
    for chosen in ((), masks[:1], masks):
        made = block_mask(
            AttentionCall(q, k, k, 1.0, geo, chosen), padded_length(stop - start), padded_length(stop)
        )
        seen_TS = geo.visible(chosen)
        padded_TS = torch.zeros(padded_length(stop - start), padded_length(stop), dtype=torch.bool)
        padded_TS[: stop - start, :stop] = seen_TS
        blocks = padded_TS.unflatten(0, (-1, BLOCK)).unflatten(-1, (-1, BLOCK)).any(1).any(-1)
        assert torch.equal(made.to_dense()[0, 0].bool(), blocks)
        i, j = torch.arange(stop - start)[:, None], torch.arange(stop)
        assert torch.equal(made.mask_mod(torch.tensor(0), torch.tensor(0), i, j), seen_TS)


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("structure", ["none", "table", "separable", "key_content", "elementwise"])
@torch.no_grad()
def test_subset_of_the_keys(structure: str, mask: str) -> None:
    """As when a shared context is attended apart from its continuations."""
    call, _ = case(structure, mask, "suffix", torch.float32)
    geo = call.geo
    for start, stop in ((0, 8), (8, 12)):
        keys = slice(start, stop)
        part = replace(
            call,
            k_BHSE=call.k_BHSE[:, :, keys],
            v_BHSD=call.v_BHSD[:, :, keys],
            geo=geo.slice_keys(start, stop),
        )
        if isinstance(part.bias, SeparableBias):
            part = replace(part, bias=SeparableBias(part.bias.row_BHT, part.bias.column_BHS[..., keys]))
        if isinstance(part.bias, KeyContentBias):
            part = replace(part, bias=replace(part.bias, content_BHSK=part.bias.content_BHSK[:, :, keys]))
        part = replace(part, with_lse=True)
        expected, expected_lse = dense(part)
        for out, lse in (flex(part, compiled=False), sdpa(part)):
            torch.testing.assert_close(out, expected, **SINGLE)
            torch.testing.assert_close(lse, expected_lse, **SINGLE)


def test_gradient_of_a_table_through_its_copies() -> None:
    """Every sequence and block of keys adds to a copy of its own; the table gets the sum of all of them."""
    length, batch, heads = 150, 2, 3
    padded = padded_length(length)
    table = torch.randn(heads, length, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(batch, heads, length, length)
    geo = Geometry.from_range(0, length)
    added = bias_of_indices(DistanceBias(lambda n: table[:, n]), geo, batch, padded, padded)
    b, h, i, j = torch.meshgrid(*map(torch.arange, (batch, heads, length, length)), indexing="ij")
    bias = DistanceBias(lambda n: table[:, n]).value(geo, slice(None)).float()
    torch.testing.assert_close(added(b, h, i, j), bias.expand(batch, -1, -1, -1), rtol=0, atol=0)
    found, wanted = (torch.autograd.grad((one * weight).sum(), table)[0] for one in (added(b, h, i, j), bias))
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("with_lse", [False, True])
@torch.no_grad()
def test_sequences_that_share_a_context_are_folded(with_lse: bool) -> None:
    """Keys and values were repeated for every sequence; the queries are now those of one sequence."""
    context, queries, batch = 200, 5, 3
    geo = Geometry.from_range(context, context + queries).slice_keys(0, context)
    k, v = torch.randn(2, 1, 2, context, 16).unbind()
    call = AttentionCall(torch.randn(batch, 2, queries, 16), k, v, 0.25, geo, with_lse=with_lse)
    assert is_shared_context(call)
    expected, expected_lse = dense(call)
    for kernel in (partial(flex, compiled=False), sdpa):
        out, lse = kernel(call)
        torch.testing.assert_close(out, expected, **SINGLE)
        if with_lse:
            torch.testing.assert_close(lse, expected_lse, **SINGLE)


def test_block_mask_is_cached_for_equal_masks() -> None:
    geo = Geometry.from_range(0, 200)
    x = torch.zeros(1, 1, 200, 4)
    first = block_mask(AttentionCall(x, x, x, 1.0, geo, (SlidingWindow(7),)), 256, 256)
    assert block_mask(AttentionCall(x, x, x, 1.0, geo, (SlidingWindow(7),)), 256, 256) is first
    assert block_mask(AttentionCall(x, x, x, 1.0, geo, (SlidingWindow(8),)), 256, 256) is not first


def test_reasons_for_unsupported_calls() -> None:
    call, _ = case("table", dtype=torch.float32)
    with pytest.raises(IncompatibleError, match=r"kernel flex cannot run .*no backward pass on the CPU"):
        KernelDispatcher("flex")(call)
    with torch.no_grad():
        assert "log-sum-exp" in str(why_unsupported(replace(call, with_lse=True)))
        assert "float32 at most" in str(why_unsupported(case("table")[0]))
        assert "values by pair" in str(
            why_unsupported(case("table", dtype=torch.float32, relative_values=True)[0])
        )
        long = Geometry.from_range(0, 1 << 15)
        x = torch.zeros(1, 2, 1 << 15, 4)
        written = replace(case("elementwise", dtype=torch.float32)[0], q_BHTE=x, k_BHSE=x, v_BHSD=x, geo=long)
        assert "may be written out" in str(why_unsupported(written))
        assert (
            why_unsupported(replace(written, bias=DistanceBias(lambda n: -n.float().expand(2, *n.shape))))
            is None
        )


@pytest.mark.slow
@torch.no_grad()
def test_one_compilation_per_padded_length_and_none_for_new_weights() -> None:
    torch._dynamo.reset()
    counted = torch._dynamo.utils.counters["stats"]

    def compilations(length: int, slope: float, wide: int) -> int:
        q = torch.randn(1, 2, length, 16)
        bias = DistanceBias(lambda n: -slope * n.float().expand(2, *n.shape))
        call = AttentionCall(q, q, q, 0.25, Geometry.from_range(0, length), (SlidingWindow(wide),), bias)
        torch.testing.assert_close(flex(call)[0], dense(call)[0], rtol=0, atol=1e-5)
        return counted["unique_graphs"]

    first = compilations(200, 0.1, 50)
    assert compilations(200, 0.2, 50) == first
    assert compilations(150, 0.3, 50) == first


def to_gpu(x: Tensor) -> Tensor:
    return x.detach().cuda().requires_grad_()


@pytest.mark.gpu
@gpu
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 5e-3), (torch.bfloat16, 4e-2)], ids=str)
@pytest.mark.parametrize("with_lse", [False, True])
@pytest.mark.parametrize("structure", ["none", "table", "separable", "query_content"])
def test_fused_values_and_gradients(
    structure: str, with_lse: bool, dtype: torch.dtype, tolerance: float
) -> None:
    """Against `dense` in float32 on the same device, where float32 products may run in TF32."""
    draw = torch.Generator().manual_seed(0)
    length, heads = 300, 4
    q, k, v = (to_gpu(torch.randn(2, heads, length, 64, generator=draw)) for _ in range(3))
    table, row = (
        to_gpu(torch.randn(heads, length, generator=draw)),
        to_gpu(torch.randn(2, heads, length, generator=draw)),
    )
    content = to_gpu(torch.randn(2, heads, length, 8, generator=draw))
    bias = {
        "none": None,
        "table": DistanceBias(lambda n: table[:, n]),
        "separable": SeparableBias(row, -row),
        "query_content": QueryContentBias(content, lambda n: n.clamp(max=7)),
    }[structure]
    leaves = [q, k, v, table, row, content]
    geo = Geometry.from_range(0, length, device="cuda")
    exact = AttentionCall(q, k, v, 0.125, geo, (SlidingWindow(100),), bias, with_lse=with_lse)
    rounded = replace(exact, q_BHTE=q.to(dtype), k_BHSE=k.to(dtype), v_BHSD=v.to(dtype))
    (out, lse), (expected, expected_lse) = flex(rounded), dense(exact)
    torch.testing.assert_close(out.float(), expected, rtol=0, atol=tolerance)
    found, wanted = out.float(), expected
    if with_lse:
        torch.testing.assert_close(lse, expected_lse, rtol=0, atol=tolerance)
        found, wanted = found + lse[..., None], wanted + expected_lse[..., None]
    for one, other in zip(gradients_of(found, leaves), gradients_of(wanted, leaves), strict=True):
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance * float(other.abs().max() + 1))


def gradients_of(out: Tensor, leaves: list[Tensor]) -> list[Tensor]:
    return [one.float().cpu() for one in gradients(out.cpu(), leaves)]


@pytest.mark.slow
@pytest.mark.parametrize("structure", ["smooth", "separable", "query_content", "elementwise"])
@torch.no_grad()
def test_captured_tensors_are_materialized_in_a_compiled_model(structure: str) -> None:
    """A kernel cannot gather from a tensor that the same graph computes, as in compiled validation."""
    torch._dynamo.reset()

    def model(x: Tensor) -> Tensor:
        call, _ = case(structure, dtype=torch.float32)
        call = replace(call, q_BHTE=call.q_BHTE + x)
        if isinstance(call.bias, SeparableBias):
            call = replace(call, bias=SeparableBias(call.bias.row_BHT.cumsum(-1), call.bias.column_BHS * x))
        return flex(call)[0]

    x = torch.ones(1)
    torch.testing.assert_close(torch.compile(model, dynamic=False)(x), model(x), rtol=0, atol=1e-5)
