"""Random inputs of one attention call, and the logits and outputs of a scheme on them, for comparison with references."""

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
    """Returns two random sequences; queries and keys require gradients."""
    draw = torch.Generator().manual_seed(seed)
    stream = torch.randn(2, tokens, SHAPE.d_model, generator=draw, dtype=dtype)
    q, k = (
        torch.randn(2, SHAPE.n_heads, tokens, SHAPE.head_dim, generator=draw, dtype=dtype).requires_grad_()
        for _ in "qk"
    )
    return AttentionInputs(layer, Geometry.from_range(0, tokens), stream, stream, q, k)


def values(tokens: int = 20, dtype: torch.dtype = torch.float64) -> Tensor:
    """Returns (B, H, T, D) random values that require gradients."""
    draw = torch.Generator().manual_seed(9)
    shape = (2, SHAPE.n_heads, tokens, SHAPE.head_dim)
    return torch.randn(shape, generator=draw, dtype=dtype).requires_grad_()


def logits(scheme: PositionScheme, inputs: AttentionInputs) -> Tensor:
    """Returns the logits of a scheme with one region, (B, H, T, S); future keys are at -inf."""
    q, k = scheme.qk(inputs)
    scale = scheme.logit_scale(inputs)
    scaled = q @ k.transpose(-1, -2) * SHAPE.head_dim**-0.5 * (1 if scale is None else scale[..., None])
    bias = scheme.attention_bias(inputs)
    if bias is not None:
        scaled = scaled + bias.value(inputs.geo, slice(None))
    return scaled.masked_fill(~inputs.geo.visible(), -torch.inf)


def attention(scheme: PositionScheme, inputs: AttentionInputs, v: Tensor) -> Tensor:
    """Returns the output of attention, (B, H, T, D), by the kernel that the dispatcher selects."""
    return attend(scheme, inputs, v, KernelDispatcher("auto"))


def causal(tokens: int) -> Tensor:
    """Returns the additive causal mask, (T, T)."""
    return torch.full((tokens, tokens), -torch.inf, dtype=torch.float64).triu(1)


def assert_same_gradients(one: Tensor, other: Tensor, leaves: list[Tensor], tolerance: float) -> None:
    """Asserts that the gradients of one random projection of both tensors agree and are not zero."""
    probe = torch.randn(one.shape, generator=torch.Generator().manual_seed(5), dtype=one.dtype)
    for mine, theirs in zip(
        torch.autograd.grad((one * probe).sum(), leaves, retain_graph=True),
        torch.autograd.grad((other * probe).sum(), leaves, retain_graph=True),
        strict=True,
    ):
        assert mine.abs().max() > 0
        torch.testing.assert_close(mine, theirs, rtol=0, atol=tolerance)
