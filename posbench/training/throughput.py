"""Throughput and model FLOP utilisation (MFU), as nanoGPT and torchtitan define it, so that it can be compared."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Mapping
from functools import cache

import torch

from posbench.model.gpt import GPT

# FLOP per second of dense bfloat16 matrix products with accumulation in float32, by words in the name of the
# device; the first match counts. Those of A100, H100, H200 and L40S agree with the tables of other projects (torchtitan,
# Lightning), which cite NVIDIA's data sheets; the others have not been compared.
PEAK_FLOPS = {
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "H200": 989e12,
    "H800": 989e12,
    "GH200": 989e12,
    "B200": 2250e12,
    "GB200": 2500e12,
    "A100": 312e12,
    "A800": 312e12,
    "A40": 149.7e12,
    "A30": 165e12,
    "A10": 125e12,
    "L40S": 362e12,
    "L40": 181e12,
    "L4": 121e12,
    "RTX 6000 Ada": 364e12,
    "RTX A6000": 154.8e12,
    "RTX 5090": 209.5e12,
    "RTX 4090": 165.2e12,
    "RTX 3090": 71e12,
    "MI300X": 1307e12,
    "MI250X": 191.5e12,  # one of its two dies, which is one device
}
_log = logging.getLogger(__name__)


def flops_per_token(model: GPT, length: int) -> float:
    """Returns the FLOP of a training step per token at sequences of `length` tokens, 6 N + 12 L H Q T.

    N counts the parameters without the tables that are only looked up; L layers, H heads of Q dimensions, T tokens. The
    half of attention that causality hides is counted, as in nanoGPT (estimate_mfu) and torchtitan. The parameters of the
    scheme are not counted, so that all schemes of one size have the same number.
    """
    looked_up = {id(model.embedding.weight)} - {
        id(model.head.weight)
    }  # a tied head multiplies by the embedding
    left_out = looked_up | {id(parameter) for parameter in model.scheme.parameters()}
    weights = sum(one.numel() for one in model.parameters() if id(one) not in left_out)
    shape = model.architecture
    return 6 * weights + 12 * shape.n_layers * shape.n_heads * shape.head_dim * length


def peak_flops(name: str) -> float | None:
    """Returns the peak of a device by its name, or None if it is not known."""
    return next(
        (peak for words, peak in PEAK_FLOPS.items() if re.search(rf"\b{words}\b", name, re.IGNORECASE)), None
    )


@cache
def _device_peak(device: torch.device) -> float | None:
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    if (peak := peak_flops(name)) is None:
        _log.warning("%s: its peak FLOPS are not in posbench's table, so no MFU is reported", name)
    return peak


def format_speed(metrics: Mapping[str, float]) -> str:
    """Returns the throughput among metrics in words, after a comma, and the MFU where it is known."""
    mfu = f", MFU {metrics['mfu']:.1%}" if "mfu" in metrics else ""
    return f", {metrics['tokens_per_second']:,.0f} tokens/s{mfu}" if "tokens_per_second" in metrics else ""


class ThroughputMeter:
    """Throughput between `start` and `read`, so that validation can be left out; checkpoints between them count.

    Args:
        tokens: tokens of a step, on all ranks together.
        length: tokens of a sequence.
        ranks: number of devices that share a step.
    """

    def __init__(self, model: GPT, tokens: int, length: int, device: torch.device, ranks: int) -> None:
        self.tokens = tokens
        peak = _device_peak(device)
        self.mfu_per_speed = flops_per_token(model, length) / (ranks * peak) if peak else None
        self.first_step, self.started = 0, time.monotonic()
        self.total_steps, self.total_seconds = 0, 0.0

    def start(self, step: int) -> None:
        """Starts the measurement after `step` steps."""
        self.first_step, self.started = step, time.monotonic()

    def read(self, step: int) -> dict[str, float]:
        """Returns tokens per second and, where the peak is known, MFU since `start`; the device must have finished."""
        steps, seconds = step - self.first_step, time.monotonic() - self.started
        self.total_steps += steps
        self.total_seconds += seconds
        return self._speed(steps, seconds)

    def total(self) -> dict[str, float]:
        """Returns the same over all measurements."""
        return self._speed(self.total_steps, self.total_seconds) if self.total_steps else {}

    def _speed(self, steps: int, seconds: float) -> dict[str, float]:
        speed = steps * self.tokens / seconds
        mfu = {} if self.mfu_per_speed is None else {"mfu": speed * self.mfu_per_speed}
        return {"tokens_per_second": speed, **mfu}
