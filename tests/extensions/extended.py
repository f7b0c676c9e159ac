"""Helpers for the tests of extensions: small inputs, reference attention pair by pair, transformers' rotations."""

from __future__ import annotations

import cmath
import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from posbench.kernels.dispatcher import KernelDispatcher
from posbench.position.attention import attend
from posbench.position.extension import ExtensionContext
from posbench.position.geometry import Geometry
from posbench.position.scheme import AttentionInputs, ModelShape, PositionScheme
from posbench.schemes.rope import RoPE

# RoPE in the half-split layout of transformers, with which extensions are compared.
Llama = partial(RoPE, interleaved=False)
SHAPE = ModelShape(n_layers=2, n_heads=2, head_dim=8, d_model=16, train_len=16)


def context(length: int, shape: ModelShape = SHAPE) -> ExtensionContext:
    return ExtensionContext(shape, length)


def attention_inputs(tokens: int, shape: ModelShape = SHAPE, start: int = 0) -> AttentionInputs:
    """Random inputs of two sequences; queries from index `start` on, all keys."""
    draw = torch.Generator().manual_seed(0)
    stream = torch.randn(2, tokens, shape.d_model, generator=draw, dtype=torch.float64)
    q, k = (
        torch.randn(2, shape.n_heads, tokens, shape.head_dim, generator=draw, dtype=torch.float64)
        for _ in "qk"
    )
    return AttentionInputs(
        0, Geometry.from_range(start, tokens), stream[:, start:], stream, q[:, :, start:], k
    )


def values(tokens: int, shape: ModelShape = SHAPE) -> Tensor:
    draw = torch.Generator().manual_seed(9)
    return torch.randn(2, shape.n_heads, tokens, shape.head_dim, generator=draw, dtype=torch.float64)


def attention(scheme: PositionScheme, inputs: AttentionInputs, v: Tensor) -> Tensor:
    """(B, H, T, D) attention as in evaluation, which must equal attention as in training."""
    placed = AttentionInputs(
        inputs.layer,
        scheme.assign_positions(inputs.geo),
        inputs.x_BTW,
        inputs.x_BSW,
        inputs.q_BHTD,
        inputs.k_BHSD,
    )
    trained = attend(scheme, placed, v, KernelDispatcher("auto"))
    with torch.no_grad():
        evaluated = attend(scheme, placed, v, KernelDispatcher("auto"))
    torch.testing.assert_close(evaluated, trained, rtol=0, atol=1e-12)
    return evaluated


def by_pairs(
    inputs: AttentionInputs,
    v: Tensor,
    logit: Callable[[int, Tensor, Tensor, int, int], float],
    visible: Callable[[int, int], bool] = lambda i, j: True,
) -> Tensor:
    """(B, H, T, D) attention with the logits logit(h, q, k, i, j), computed one pair at a time."""
    out = torch.zeros_like(inputs.q_BHTD)
    for b in range(len(v)):
        for h in range(v.shape[1]):
            for t, i in enumerate(inputs.geo.q_index_T.tolist()):
                seen = [j for j in range(i + 1) if visible(i, j)]
                weights = [
                    math.exp(logit(h, inputs.q_BHTD[b, h, t], inputs.k_BHSD[b, h, j], i, j)) for j in seen
                ]
                for weight, j in zip(weights, seen, strict=True):
                    out[b, h, t] += weight / sum(weights) * v[b, h, j]
    return out


def rotary(q: Tensor, k: Tensor, distance: float, base: float = 10000.0) -> float:
    """q . k / sqrt(D) with half-split q and k rotated relative to each other by a distance, in complex numbers."""
    half = len(q) // 2
    total = 0.0
    for m in range(half):
        turn = cmath.exp(1j * distance * base ** (-m / half))
        total += (complex(q[m], q[m + half]) * complex(k[m], k[m + half]).conjugate() * turn).real
    return total / math.sqrt(len(q))


def alibi(h: int, q: Tensor, k: Tensor, distance: float) -> float:
    """q . k / sqrt(D) minus ALiBi's slope of head h, of 2 heads, times a distance."""
    return float(q @ k) / math.sqrt(len(q)) - 2.0 ** (-4 * (h + 1)) * distance


def hugging_face(
    rope_type: str, factor: float, shape: ModelShape = SHAPE, base: float = 10000.0, **settings: object
) -> LlamaRotaryEmbedding:
    """transformers' rotation with a rope type of its own."""
    config = LlamaConfig(
        hidden_size=shape.d_model,
        num_attention_heads=shape.n_heads,
        max_position_embeddings=shape.train_len,
        rope_parameters={
            "rope_type": rope_type,
            "rope_theta": base,
            "factor": factor,
            "original_max_position_embeddings": shape.train_len,
            **settings,
        },
    )
    return LlamaRotaryEmbedding(config)


def measured(scheme: PositionScheme, shape: ModelShape = SHAPE) -> Tensor:
    """(M,) radians by which the scheme rotates a query between positions 0 and 1, measured on its output."""
    x = torch.zeros(1, 1, 2, shape.head_dim, dtype=torch.float64)
    x[..., : shape.head_dim // 2] = 1
    stream = torch.zeros(1, 2, shape.d_model, dtype=torch.float64)
    out = scheme.qk(
        AttentionInputs(0, scheme.assign_positions(Geometry.from_range(0, 2)), stream, stream, x, x)
    )[0][0, 0, 1]
    cosine, sine = out.chunk(2)
    return torch.atan2(sine, cosine)
