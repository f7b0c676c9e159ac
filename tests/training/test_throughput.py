"""FLOP counted by hand, a peak measured quickly and once, and the metrics that a training reports."""

import time
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from posbench.kernels.dispatcher import KernelDispatcher
from posbench.model.gpt import GPT, Size
from posbench.position.scheme import PositionScheme
from posbench.training import throughput

CPU = torch.device("cpu")


def model(layers: int = 2) -> GPT:
    return GPT(Size(layers, 32, 4), 50, PositionScheme(), seed=0)


def test_flops_by_hand() -> None:
    block = 12 * 32**2  # queries, keys, values and output projection: 4; the MLP: 8
    attended = 2 * 32 * (16 + 1) / 2  # a product with each visible key and value
    assert throughput.flops(model(), 16) == 6 * (2 * (block + attended) + 50 * 32)


def test_flops_are_those_that_torch_counts() -> None:
    """Torch counts the whole square of attention logits, and no gradient of the token ids."""
    made, length = model(), 16
    counter = FlopCounterMode(display=False)
    with counter:
        hidden, _ = made(torch.randint(50, (1, length)), kernel=KernelDispatcher("dense"))
        made.head(hidden).sum().backward()
    block = 2 * 3 * (2 * 32 * (length - 1) / 2)  # the half that causality masks
    expected = length * (throughput.flops(made, length) + 2 * block)
    assert counter.get_total_flops() == pytest.approx(expected, rel=0.15)  # `dense` recomputes its logits


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_peak_is_measured_quickly_and_once(dtype: str) -> None:
    throughput.peak.cache_clear()
    started = time.monotonic()
    first = throughput.peak(CPU, dtype)
    assert time.monotonic() - started < 3  # 0.1 s on an idle machine
    assert throughput.peak(CPU, dtype) == first > 1e8


def test_a_meter_measures_between_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throughput, "peak", lambda device, dtype: 1e9)
    clock = iter([0.0, 10.0, 12.0, 100.0, 105.0])
    monkeypatch.setattr(throughput.time, "monotonic", lambda: next(clock))
    meter = throughput.ThroughputMeter(model(), 1000, 16, CPU, "float32", ranks=2)
    meter.start(5)
    share = throughput.flops(model(), 16) / 2e9
    assert meter.read(9) == {"tokens_per_second": 2000.0, "mfu": 2000 * share}
    meter.start(9)
    assert meter.read(10)["tokens_per_second"] == 200


def test_training_reports_throughput_and_no_file_holds_it(tmp_path: Path, small_trainer) -> None:
    trainer, reported = small_trainer(tmp_path), []
    metadata = trainer.run(lambda step, metrics: reported.append(metrics))
    assert all(metrics["mfu"] > 0 for metrics in reported)
    assert reported
    assert all("mfu" not in point and "tokens_per_second" not in point for point in metadata["log_history"])
