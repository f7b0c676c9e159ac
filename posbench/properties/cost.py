"""Time and memory of a forward pass relative to no scheme. Measured, so results differ between runs."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from posbench.benchmark.paired import time_paired
from posbench.model.gpt import GPT, Size, build_scheme
from posbench.position.scheme import PositionScheme

SIZE, VOCABULARY = Size(n_layers=2, d_model=64, n_heads=4), 50
LENGTH, BATCH = 256, 4
SECONDS = 0.5


def cost(settings: Mapping[str, Any], seconds: float = SECONDS) -> dict[str, float]:
    """Returns the time ratio with its 95% interval, and the peak memory in MiB, relative to no scheme.

    Args:
        settings: build settings of the scheme.
        seconds: duration of the timing.
    """
    ids = torch.randint(VOCABULARY, (BATCH, LENGTH), generator=torch.Generator().manual_seed(0))
    shape = SIZE.shape(LENGTH)
    ours, plain = (
        GPT(SIZE, VOCABULARY, scheme, seed=0).eval()
        for scheme in (build_scheme(dict(settings), shape, 0).eval(), PositionScheme())
    )
    with torch.inference_mode():
        ratio = time_paired(lambda: ours(ids), lambda: plain(ids), seconds)
        peaks = [_peak(model, ids) for model in (ours, plain)]
    return {
        "time_ratio": ratio.median,
        "time_low": ratio.low,
        "time_high": ratio.high,
        "milliseconds": ratio.ours,
        "milliseconds_without": ratio.theirs,
        "peak_mib": peaks[0],
        "peak_mib_without": peaks[1],
        "extra_mib": peaks[0] - peaks[1],
    }


def machine() -> str:
    """Returns a description of the machine and the model of the measurement."""
    return (
        f"one machine ({platform.machine()}, threads: {torch.get_num_threads()}, "
        f"torch {torch.__version__}), with {SIZE.n_layers} layers, width {SIZE.d_model}, {SIZE.n_heads} heads, "
        f"{BATCH} sequences of {LENGTH} tokens, float32, without gradients"
    )


def _peak(model: GPT, ids: torch.Tensor) -> float:
    """Returns the peak of memory allocated by torch during a forward pass, in MiB."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "9")  # no messages at start and stop
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as ran:
        model(ids)
    assert ran.profiler is not None
    assert ran.profiler.kineto_results is not None
    events = [one for one in ran.profiler.kineto_results.events() if one.name() == "[memory]"]
    allocated = peak = 0
    for event in sorted(events, key=lambda one: one.start_ns()):
        allocated += event.nbytes()
        peak = max(peak, allocated)
    return peak / 2**20
