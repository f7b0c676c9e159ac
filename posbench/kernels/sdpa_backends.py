"""Selects the fastest of torch's fused attention backends on a GPU, by timing each once per kind of call.

Whether FlashAttention or cuDNN is faster on a Hopper GPU depends on shape and version, which torch's own priority order
ignores. Lengths and batch sizes are rounded up to powers of two, so that a sweep times backends a few times only.
torch chooses where timing cannot synchronize with the device (tracing, graph capture) and under
`torch.use_deterministic_algorithms`.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Hashable, Sequence
from contextlib import AbstractContextManager, nullcontext
from statistics import median

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

BACKENDS = (SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION, SDPBackend.EFFICIENT_ATTENTION)
# Calls before timing starts, and timed calls.
WARMUP_CALLS, TIMED_CALLS = 2, 5

Work = Callable[[], object]
_log = logging.getLogger(__name__)


class SDPAAutotuner:
    """Attention without a mask, causal or not, by the fastest backend for each kind of call.

    Args:
        backends: candidates; one that raises RuntimeError for a kind of call is excluded for it.
        seconds: returns the seconds that a function takes; the default times it on the current device.
        only: returns a context in which torch uses the given backend alone.

    Attributes:
        fastest: the chosen backend by kind of call; None where torch chooses.
    """

    def __init__(
        self,
        backends: Sequence[SDPBackend] = BACKENDS,
        seconds: Callable[[Work], float] | None = None,
        only: Callable[[SDPBackend], AbstractContextManager[object]] = sdpa_kernel,
    ) -> None:
        self.backends, self.seconds, self.only = backends, seconds or time_on_device, only
        self.fastest: dict[Hashable, SDPBackend | None] = {}

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, scale: float, causal: bool = True) -> Tensor:
        """Returns the (B, H, T, D) output."""
        kind = (str(q.device), *call_kind(q, k, v), "causal" if causal else "whole")
        if kind not in self.fastest:
            with torch.cuda.device(q.device) if q.device.type == "cuda" else nullcontext():
                self.fastest[kind] = self._time_backends(kind, trial(q, k, v, scale, causal))
        chosen = self.fastest[kind]
        if chosen is None:
            return attention(q, k, v, scale, causal)
        with self.only(chosen):
            return attention(q, k, v, scale, causal)

    def _time_backends(self, kind: Hashable, work: Work) -> SDPBackend | None:
        """Returns the fastest backend that supports the call, or None if none does."""
        took: dict[SDPBackend, float] = {}
        for backend in self.backends:
            # Unsupported backends warn once per reason.
            with warnings.catch_warnings(), self.only(backend):
                warnings.simplefilter("ignore")
                try:
                    took[backend] = self.seconds(work)
                except RuntimeError:  # no kernel for this call, or not enough memory for a second call
                    continue
        timings = ", ".join(f"{backend.name} {1e3 * took[backend]:.3f} ms" for backend in took)
        best = min(took, key=lambda backend: took[backend], default=None)
        _log.info(
            "attention %s: %s of %s", kind, best.name if best else "torch's own choice", timings or "none"
        )
        return best


def tunable(q: Tensor) -> bool:
    """Whether backends may be timed: on a GPU, outside tracing and graph capture, without determinism."""
    return (
        q.device.type == "cuda"
        and not torch.compiler.is_compiling()
        and not torch.are_deterministic_algorithms_enabled()
        and not torch.cuda.is_current_stream_capturing()
    )


def call_kind(q: Tensor, k: Tensor, v: Tensor) -> tuple[Hashable, ...]:
    """Returns dtype, head dimensions, B x H, T and S rounded up to powers of two, and the passes that will run."""
    # Autocast casts inside the call.
    device = q.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else q.dtype
    gradients = torch.is_grad_enabled() and any(x.requires_grad for x in (q, k, v))
    sizes = (len(q) * q.shape[1], q.shape[2], k.shape[2])
    powers = tuple(1 << (size - 1).bit_length() for size in sizes)
    return (dtype, q.shape[-1], v.shape[-1], *powers, "forward+backward" if gradients else "forward")


def trial(q: Tensor, k: Tensor, v: Tensor, scale: float, causal: bool = True) -> Work:
    """Returns a function that runs the call, and its backward pass if one follows, on detached tensors."""
    if not (torch.is_grad_enabled() and any(x.requires_grad for x in (q, k, v))):
        return lambda: attention(q, k, v, scale, causal)
    q, k, v = leaves = [x.detach().requires_grad_() for x in (q, k, v)]

    def forward_backward() -> object:
        out = attention(q, k, v, scale, causal)
        return torch.autograd.grad(out, leaves, torch.ones_like(out))

    return forward_backward


def attention(q: Tensor, k: Tensor, v: Tensor, scale: float, causal: bool = True) -> Tensor:
    """Returns the (B, H, T, D) output by the backend that torch chooses."""
    return F.scaled_dot_product_attention(q, k, v, is_causal=causal, scale=scale)


def time_on_device(work: Work) -> float:
    """Returns the median seconds of TIMED_CALLS calls on the GPU."""
    for _ in range(WARMUP_CALLS):
        work()
    took = []
    for _ in range(TIMED_CALLS):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        work()
        end.record()
        end.synchronize()
        took.append(start.elapsed_time(end) / 1e3)
    return median(took)


# One per process: all schemes and cells share its timings.
SDPA_AUTOTUNER = SDPAAutotuner()
