"""A scheme's attention on random queries, keys and values, for comparison with another implementation."""

from __future__ import annotations

import torch
from torch import Tensor

from posbench.kernels.dispatcher import KernelDispatcher
from posbench.position.attention import attend
from posbench.position.geometry import Geometry
from posbench.position.scheme import AttentionInputs, ModelShape, PositionScheme

SHAPE = ModelShape(n_layers=2, n_heads=4, head_dim=8, d_model=32, train_len=16)


def attention_inputs(
    tokens: int = 20, layer: int = 0, dtype: torch.dtype = torch.float64, seed: int = 0
) -> AttentionInputs:
    """Two random sequences; queries and keys ask for gradients."""
    draw = torch.Generator().manual_seed(seed)
    stream = torch.randn(2, tokens, SHAPE.d_model, generator=draw, dtype=dtype)
    q, k = (
        torch.randn(2, SHAPE.n_heads, tokens, SHAPE.head_dim, generator=draw, dtype=dtype).requires_grad_()
        for _ in "qk"
    )
    return AttentionInputs(layer, Geometry.from_range(0, tokens), stream, stream, q, k)


def values(tokens: int = 20, dtype: torch.dtype = torch.float64) -> Tensor:
    draw = torch.Generator().manual_seed(9)
    shape = (2, SHAPE.n_heads, tokens, SHAPE.head_dim)
    return torch.randn(shape, generator=draw, dtype=dtype).requires_grad_()


def logits(scheme: PositionScheme, at: AttentionInputs) -> Tensor:
    """(B, H, T, S) of a scheme with one region, future keys at -inf."""
    q, k = scheme.qk(at)
    gain = scheme.logit_scale(at)
    scaled = q @ k.transpose(-1, -2) * SHAPE.head_dim**-0.5 * (1 if gain is None else gain[..., None])
    term = scheme.attention_bias(at)
    if term is not None:
        scaled = scaled + term.value(at.geo, slice(None))
    return scaled.masked_fill(~at.geo.visible(), -torch.inf)


def attention(scheme: PositionScheme, at: AttentionInputs, v: Tensor) -> Tensor:
    """(B, H, T, D) by the kernel that the scheme would use."""
    return attend(scheme, at, v, KernelDispatcher("auto"))


def causal(tokens: int) -> Tensor:
    """Additive mask, (T, T)."""
    return torch.full((tokens, tokens), -torch.inf, dtype=torch.float64).triu(1)


def assert_same_gradients(one: Tensor, other: Tensor, leaves: list[Tensor], tolerance: float) -> None:
    """Of the same random projection of both."""
    probe = torch.randn(one.shape, generator=torch.Generator().manual_seed(5), dtype=one.dtype)
    for mine, theirs in zip(
        torch.autograd.grad((one * probe).sum(), leaves, retain_graph=True),
        torch.autograd.grad((other * probe).sum(), leaves, retain_graph=True),
        strict=True,
    ):
        assert mine.abs().max() > 0
        torch.testing.assert_close(mine, theirs, rtol=0, atol=tolerance)
