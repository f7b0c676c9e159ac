"""Which of torch's fused attentions a GPU runs fastest: tried once a kind of call, logged and remembered.

Whether FlashAttention or cuDNN is faster on a Hopper depends on shape and version, and torch's own order does not
ask. Lengths and batches count by powers of two, so that a sweep tries a few times and not at every length.
Not tried where torch may not wait for the device (tracing, graph capture), nor where the same bits are asked for
again (`torch.use_deterministic_algorithms`): there torch chooses.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Hashable, Sequence
from contextlib import AbstractContextManager
from statistics import median

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

BACKENDS = (SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION, SDPBackend.EFFICIENT_ATTENTION)
# Calls before the clock starts, and calls on it.
WARM, TIMED = 2, 5

Work = Callable[[], object]
_log = logging.getLogger(__name__)


class SDPAAutotuner:
    """The fastest backend for each kind of call without a mask, causal or not.

    Args:
        backends: what is tried; one that raises for a kind of call is out for it.
        seconds: how long a piece of work takes.
        only: allows one backend alone while it is entered.
    """

    def __init__(
        self,
        backends: Sequence[SDPBackend] = BACKENDS,
        seconds: Callable[[Work], float] | None = None,
        only: Callable[[SDPBackend], AbstractContextManager[object]] = sdpa_kernel,
    ) -> None:
        self.backends, self.seconds, self.only = backends, seconds or on_the_device, only
        self.fastest: dict[Hashable, SDPBackend | None] = {}

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, scale: float, causal: bool = True) -> Tensor:
        """(B, H, T, D): attention by the backend that is fastest for this kind of call."""
        kind = (*kind_of(q, k, v), "causal" if causal else "whole")
        if kind not in self.fastest:
            self.fastest[kind] = self.tried(kind, trial(q, k, v, scale, causal))
        chosen = self.fastest[kind]
        if chosen is None:
            return attention(q, k, v, scale, causal)
        with self.only(chosen):
            return attention(q, k, v, scale, causal)

    def tried(self, kind: Hashable, work: Work) -> SDPBackend | None:
        """The fastest of those that can run it; None if none can, and torch is left to choose."""
        took: dict[SDPBackend, float] = {}
        for backend in self.backends:
            # What cannot run says why by warnings, once a reason.
            with warnings.catch_warnings(), self.only(backend):
                warnings.simplefilter("ignore")
                try:
                    took[backend] = self.seconds(work)
                except RuntimeError:  # no kernel for this call, or no memory for a second one beside it
                    continue
        said = ", ".join(f"{backend.name} {1e3 * took[backend]:.3f} ms" for backend in took)
        best = min(took, key=lambda backend: took[backend], default=None)
        _log.info("attention %s: %s of %s", kind, best.name if best else "torch's own choice", said or "none")
        return best


def tunable(q: Tensor) -> bool:
    """Whether backends may be tried here and now."""
    return (
        q.device.type == "cuda"
        and not torch.compiler.is_compiling()
        and not torch.are_deterministic_algorithms_enabled()
        and not torch.cuda.is_current_stream_capturing()
    )


def kind_of(q: Tensor, k: Tensor, v: Tensor) -> tuple[Hashable, ...]:
    """Dtype, head dimensions, powers of two that hold B x H, T and S, and whether a backward pass follows."""
    # Autocast casts inside the call.
    device = q.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else q.dtype
    gradients = torch.is_grad_enabled() and any(x.requires_grad for x in (q, k, v))
    sizes = (len(q) * q.shape[1], q.shape[2], k.shape[2])
    powers = tuple(1 << (size - 1).bit_length() for size in sizes)
    return (dtype, q.shape[-1], v.shape[-1], *powers, "forward+backward" if gradients else "forward")


def trial(q: Tensor, k: Tensor, v: Tensor, scale: float, causal: bool = True) -> Work:
    """The call as it will be, its backward pass included, on tensors that nobody else's gradients hang on."""
    if not (torch.is_grad_enabled() and any(x.requires_grad for x in (q, k, v))):
        return lambda: attention(q, k, v, scale, causal)
    one, other, value = leaves = [x.detach().requires_grad_() for x in (q, k, v)]

    def both() -> object:
        out = attention(one, other, value, scale, causal)
        return torch.autograd.grad(out, leaves, torch.ones_like(out))

    return both


def attention(q: Tensor, k: Tensor, v: Tensor, scale: float, causal: bool = True) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, is_causal=causal, scale=scale)


def on_the_device(work: Work) -> float:
    """Seconds a call takes the GPU, the median of a few."""
    for _ in range(WARM):
        work()
    took = []
    for _ in range(TIMED):
        began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        began.record()
        work()
        ended.record()
        ended.synchronize()
        took.append(began.elapsed_time(ended) / 1e3)
    return median(took)


# One memory a process: schemes and cells share what was tried.
SDPA_AUTOTUNER = SDPAAutotuner()
