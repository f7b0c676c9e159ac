"""Linear attention against its quadratic form, pair by pair, and its recurrence. Tolerance 1e-12 in float64."""

import math
from dataclasses import replace

import pytest
import torch
from calls import SHAPE, assert_same_gradients, attention_inputs, values
from torch import Tensor

from posbench.errors import ConfigError
from posbench.kernels.dispatcher import KernelDispatcher
from posbench.position.geometry import Geometry
from posbench.position.scheme import ModelShape
from posbench.schemes.linear_attention import CHUNK, LinearAttention

EXACT = {"rtol": 0, "atol": 1e-12}


def linear(scheme: LinearAttention, inputs, v: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
    out = scheme.attention(inputs, v, KernelDispatcher("auto"))
    assert out is not None
    return out


def feature(x: Tensor) -> Tensor:
    """elu(x) + 1, by its definition."""
    return torch.where(x > 0, x + 1, torch.exp(torch.minimum(x, torch.zeros_like(x))))


def rotated(x_D: Tensor, position: int, base: float) -> Tensor:
    """Pairs as complex numbers, multiplied by exp(i position theta)."""
    dims = len(x_D)
    theta = torch.tensor([position * base ** (-2 * m / dims) for m in range(dims // 2)], dtype=torch.float64)
    product = torch.view_as_complex(x_D.view(-1, 2)) * torch.polar(torch.ones_like(theta), theta)
    return torch.view_as_real(product).flatten()


@pytest.mark.parametrize("base", [None, 10000.0, 20.0])
def test_equals_the_quadratic_form(base: float | None) -> None:
    """Equation 19 of RoFormer pair by pair, the denominator not rotated; without rotation, equation 9 of the paper."""
    inputs, v = attention_inputs(14), values(14)
    scheme = LinearAttention(SHAPE, base is not None, base or 10000.0, min_head_dim=1)
    rows = []
    for b in range(2):
        for h in range(SHAPE.n_heads):
            q, k = feature(inputs.q_BHTD[b, h]), feature(inputs.k_BHSD[b, h])
            for i in range(14):
                above, below = (
                    torch.zeros(SHAPE.head_dim, dtype=torch.float64),
                    torch.zeros((), dtype=torch.float64),
                )
                for j in range(i + 1):
                    weight = q[i] @ k[j] if base is None else rotated(q[i], i, base) @ rotated(k[j], j, base)
                    above, below = above + weight * v[b, h, j], below + q[i] @ k[j]
                rows.append(above / below)
    expected = torch.stack(rows).view(2, SHAPE.n_heads, 14, SHAPE.head_dim)
    mine = linear(scheme, inputs, v)
    torch.testing.assert_close(mine, expected, **EXACT)
    assert_same_gradients(mine, expected, [inputs.q_BHTD, inputs.k_BHSD, v], 1e-12)


@pytest.mark.parametrize("rotation", [False, True])
@pytest.mark.parametrize("tokens", [1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 5])
def test_equals_the_recurrence_over_chunks_and_past_a_cache(rotation: bool, tokens: int) -> None:
    """Section 3.4: a state of D x D and one of D, token by token; also for suffixes of any length over a cache."""
    inputs, v = attention_inputs(tokens), values(tokens)
    scheme = LinearAttention(SHAPE, rotation, min_head_dim=1)
    q, k = feature(inputs.q_BHTD), feature(inputs.k_BHSD)
    plain, position = q, torch.arange(tokens)
    total = k
    if rotation:
        q, k = (
            torch.stack(
                [
                    rotated(row, int(p), 10000.0)
                    for x_D in x.flatten(0, 1)
                    for row, p in zip(x_D, position, strict=True)
                ]
            ).view_as(x)
            for x in (q, k)
        )
    state = torch.zeros(2, SHAPE.n_heads, SHAPE.head_dim, SHAPE.head_dim, dtype=torch.float64)
    norm = torch.zeros(2, SHAPE.n_heads, SHAPE.head_dim, dtype=torch.float64)
    rows = []
    for i in range(tokens):
        state = state + k[:, :, i, :, None] * v[:, :, i, None, :]
        norm = norm + total[:, :, i]
        rows.append((q[:, :, i, None] @ state).squeeze(2) / (plain[:, :, i] * norm).sum(-1, keepdim=True))
    expected = torch.stack(rows, 2)
    torch.testing.assert_close(linear(scheme, inputs, v), expected, **EXACT)
    for start in {0, tokens // 2, tokens - 1}:
        suffix = replace(inputs, geo=Geometry.from_range(start, tokens), q_BHTD=inputs.q_BHTD[:, :, start:])
        torch.testing.assert_close(linear(scheme, suffix, v), expected[:, :, start:], **EXACT)


def test_far_positions_are_rotated_in_float64() -> None:
    inputs, v = attention_inputs(4), values(4)
    scheme = LinearAttention(SHAPE, True, min_head_dim=1)
    far = replace(
        inputs, geo=inputs.geo.with_positions(inputs.geo.q_pos_T + 10**6, inputs.geo.k_pos_S + 10**6, 0)
    )
    torch.testing.assert_close(linear(scheme, far, v), linear(scheme, inputs, v), rtol=0, atol=1e-9)


def test_memory_is_linear_in_the_length() -> None:
    """No tensor grows with T x S, checked on the meta device at 2^20 tokens, which would need terabytes."""
    shape = (1, 1, 1 << 20, SHAPE.head_dim)
    q = torch.empty(shape, device="meta")
    inputs = replace(
        attention_inputs(4), geo=Geometry.from_range(0, 1 << 20, device="meta"), q_BHTD=q, k_BHSD=q
    )
    largest = 0

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            nonlocal largest
            out = func(*args, **(kwargs or {}))
            for one in out if isinstance(out, list | tuple) else [out]:
                largest = max(largest, one.numel() if isinstance(one, Tensor) else 0)
            return out

    with Watch():
        linear(LinearAttention(SHAPE, True, min_head_dim=1), inputs, q)
    assert largest <= math.prod(shape) * CHUNK / SHAPE.head_dim


def test_bad_settings() -> None:
    with pytest.raises(ConfigError, match="the head dimension is 9"):
        LinearAttention(ModelShape(2, 4, 9, 36, 16), use_rope=True, min_head_dim=1)
    for base in (1.0, 0.0):
        for rotation in (False, True):
            with pytest.raises(ConfigError, match="above 1"):
                LinearAttention(SHAPE, rotation, base)
