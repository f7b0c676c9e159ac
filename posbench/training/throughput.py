"""Throughput and model FLOP utilisation, relative to the measured, not the advertised, peak of the device."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache

import torch

from posbench.model.gpt import GPT

# Rows and columns of the square matrices whose product measures the peak, and the time limit for it in seconds.
EDGE = {"cuda": 8192, "cpu": 512}
SECONDS = 0.1


def flops(model: GPT, length: int) -> float:
    """Returns the FLOP of a training step per token, at sequences of `length` tokens: three times the forward pass.

    Each weight of a matrix is one multiplication and one addition; so is each dimension of queries and values for every
    visible key, half of the sequence on average. The scheme's own computation and its masks are not counted, so that
    all schemes of one size have the same count.
    """
    weights = model.head.weight.numel() + sum(parameter.numel() for parameter, _ in model.matrix_parameters())
    config = model.architecture
    attended = config.n_layers * config.n_heads * config.head_dim * (length + 1) / 2
    return 3 * 2 * (weights + 2 * attended)


@cache
def peak(device: torch.device, dtype: str) -> float:
    """Measures FLOP per second: the fastest of several products of large matrices, once per process."""
    edge = EDGE[device.type]
    left, right = (torch.randn(edge, edge, device=device).to(getattr(torch, dtype)) for _ in range(2))
    out = torch.empty_like(left)
    best, started = float("inf"), time.monotonic()
    for repeat in range(100):  # the first is a warmup
        seconds = _seconds(lambda: torch.mm(left, right, out=out), device)
        best = min(best, seconds) if repeat else best
        if repeat > 1 and time.monotonic() - started > SECONDS:
            break
    return 2 * edge**3 / best


def _seconds(run: Callable[[], object], device: torch.device) -> float:
    if device.type != "cuda":
        started = time.perf_counter()
        run()
        return time.perf_counter() - started
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    with torch.cuda.device(device):
        start.record()
        run()
        end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1000


class ThroughputMeter:
    """Throughput between `start` and `read`, so that validation and checkpoints can be left out.

    Args:
        tokens: tokens of a step, on all ranks together.
        length: tokens of a sequence.
        ranks: number of devices that share a step.
    """

    def __init__(
        self, model: GPT, tokens: int, length: int, device: torch.device, dtype: str, ranks: int
    ) -> None:
        self.tokens = tokens
        self.peak_seconds_per_token = flops(model, length) / (ranks * peak(device, dtype))
        self.first_step, self.started = 0, time.monotonic()

    def start(self, step: int) -> None:
        """Starts the measurement after `step` steps."""
        self.first_step, self.started = step, time.monotonic()

    def read(self, step: int) -> dict[str, float]:
        """Returns tokens per second and MFU since `start`; the device must have finished `step` steps."""
        speed = (step - self.first_step) * self.tokens / (time.monotonic() - self.started)
        return {"tokens_per_second": speed, "mfu": speed * self.peak_seconds_per_token}
