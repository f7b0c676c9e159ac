"""Model FLOP utilisation: what a training needs of what its device can do, as measured there, not as advertised."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache

import torch

from posbench.model.gpt import GPT

# Rows and columns of the matrices that find a device's peak, and the seconds that it may take.
EDGE = {"cuda": 8192, "cpu": 512}
SECONDS = 0.1


def flops(model: GPT, length: int) -> float:
    """Of a token in training at `length` tokens: three times its forward pass.

    Each weight of a matrix is one multiplication and one addition; so is each dimension of the queries and of the
    values for every key that a token sees, half of the text on average. What a scheme computes is not counted, nor
    what it hides: all schemes at one size have the same count.
    """
    weights = model.head.weight.numel() + sum(parameter.numel() for parameter, _ in model.matrix_parameters())
    own = model.architecture
    wide = own.n_layers * own.n_heads * own.head_dim
    return 3 * 2 * (weights + 2 * wide * (length + 1) / 2)


@cache
def peak(device: torch.device, dtype: str) -> float:
    """FLOP a second of the fastest of a few products of large matrices; measured once a process."""
    edge, one = EDGE[device.type], getattr(torch, dtype)
    left, right = (torch.randn(edge, edge, device=device).to(one) for _ in range(2))
    into = torch.empty_like(left)
    best, started = float("inf"), time.monotonic()
    for repeat in range(100):  # the first warms up
        taken = _seconds(lambda: torch.mm(left, right, out=into), device)
        best = min(best, taken) if repeat else best
        if repeat > 1 and time.monotonic() - started > SECONDS:
            break
    return 2 * edge**3 / best


def _seconds(run: Callable[[], object], device: torch.device) -> float:
    if device.type != "cuda":
        started = time.perf_counter()
        run()
        return time.perf_counter() - started
    began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    with torch.cuda.device(device):
        began.record()
        run()
        ended.record()
    ended.synchronize()
    return began.elapsed_time(ended) / 1000


class ThroughputMeter:
    """Speed between two reports, without what comes between them, such as validation.

    Args:
        tokens: a step's, of all ranks.
    """

    def __init__(
        self, model: GPT, tokens: int, length: int, device: torch.device, dtype: str, ranks: int
    ) -> None:
        self.tokens, self.share = tokens, flops(model, length) / (ranks * peak(device, dtype))
        self.since, self.started = 0, time.monotonic()

    def start(self, step: int) -> None:
        """Count from here."""
        self.since, self.started = step, time.monotonic()

    def read(self, step: int) -> dict[str, float]:
        """To be called when the device is done with `step` steps."""
        speed = (step - self.since) * self.tokens / (time.monotonic() - self.started)
        return {"tokens_per_second": speed, "mfu": speed * self.share}
