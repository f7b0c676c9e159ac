"""Times linear recurrences, forward and backward, beside the implementations in PyTorch of transformers.

On sequences as short as those trained here, a recurrence takes longer than attention. The ratio to RoPE's step therefore
does not show whether the implementation is fast.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from posbench.benchmark.line import Line
from posbench.benchmark.models import version
from posbench.benchmark.paired import FEW_PAIRS, time_paired
from posbench.position.recurrence import recur

BATCH, HEADS, TOKENS, HEAD_DIM = 4, 4, 256, 64
# (q, k, v, logarithms of decays, beta) -> outputs, all (B, T, H, ...).
Function = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]


def lines(seconds: float) -> Iterator[Line]:
    """Times Gated DeltaNet's recurrence and Kimi Delta Attention's."""
    for name, peer, channels in (
        ("gated delta rule", gated_delta_rule, 1),
        ("Kimi Delta Attention", kimi_delta_attention, HEAD_DIM),
    ):
        inputs = draw_inputs(channels)
        work, other = partial(_run, delta_rule, inputs), partial(_run, peer, inputs)
        shape = f"{BATCH} x {TOKENS}, {HEADS} heads of {HEAD_DIM}"
        yield Line(
            f"{name}, forward and backward: {shape}",
            f"{version('transformers')} {peer.__name__.replace('_', ' ')} in PyTorch",
            1.0,
            time_paired(work, other, seconds, warm=1, least=FEW_PAIRS),
        )


def draw_inputs(channels: int) -> tuple[Tensor, ...]:
    """Draws unit queries and keys, values, logarithms of decays and beta: (B, T, H, D) three times, (B, T, H, channels), (B, T, H)."""
    generator = torch.Generator().manual_seed(0)
    q, k, v = torch.randn(3, BATCH, TOKENS, HEADS, HEAD_DIM, generator=generator)
    decay = -F.softplus(torch.randn(BATCH, TOKENS, HEADS, channels, generator=generator) - 3)
    beta = torch.rand(BATCH, TOKENS, HEADS, generator=generator)
    return tuple(x.requires_grad_() for x in (F.normalize(q, dim=-1), F.normalize(k, dim=-1), v, decay, beta))


def delta_rule(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, beta: Tensor) -> Tensor:
    """Computes posbench's recurrence."""
    q, k, v, log_decay = (x.transpose(1, 2) for x in (q * q.shape[-1] ** -0.5, k, v, log_decay))
    return recur(q, k, v, log_decay, beta.mT).transpose(1, 2)


def gated_delta_rule(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, beta: Tensor) -> Tensor:
    """Computes the recurrence of transformers' Qwen3-Next."""
    from transformers.models.qwen3_next.modeling_qwen3_next import torch_chunk_gated_delta_rule

    return torch_chunk_gated_delta_rule(q, k, v, log_decay[..., 0], beta)[0]


def kimi_delta_attention(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, beta: Tensor) -> Tensor:
    """Computes the recurrence of transformers' Kimi Linear."""
    from transformers.models.kimi_linear.modeling_kimi_linear import chunk_kimi_delta_attention

    return chunk_kimi_delta_attention(q, k, v, log_decay, beta)[0]


def _run(function: Function, inputs: tuple[Tensor, ...]) -> None:
    for x in inputs:
        x.grad = None
    function(*inputs).sum().backward()
