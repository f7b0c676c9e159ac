"""FLOP counted by hand, peaks of data sheets, and the metrics that a training reports."""

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
    # Queries, keys, values and output projection: 4; the MLP: 8; three biases and two norms.
    block = 12 * 32**2 + 5 * 32
    weights = 2 * block + 32 + 50 * 32  # and the last norm and the head; the embedding is looked up
    assert throughput.flops_per_token(model(), 16) == 6 * weights + 12 * 2 * 32 * 16


def test_flops_are_those_of_nanogpt() -> None:
    """GPT-2 of 124M parameters at 1024 tokens, from nanoGPT's estimate_mfu: 6 N + 12 L H Q T, N without positions.

    nanoGPT ties its head to the embedding, so that the head is counted once in both.
    """
    with torch.device("meta"):
        gpt = GPT(Size(12, 768, 12), 50304, PositionScheme(), seed=0)
    n_params = 50304 * 768 + 12 * (12 * 768**2 + 2 * 768) + 768  # with bias=False; here, three biases a block
    expected = 6 * n_params + 12 * 12 * 12 * 64 * 1024
    assert throughput.flops_per_token(gpt, 1024) == pytest.approx(expected, rel=5e-4)


def test_flops_are_those_that_torch_counts() -> None:
    """Torch counts products of matrices alone, and no gradient of the token ids."""
    made, length = model(), 16
    counter = FlopCounterMode(display=False)
    with counter:
        hidden, _ = made(torch.randint(50, (1, length)), kernel=KernelDispatcher("dense"))
        made.head(hidden).sum().backward()
    # `dense` recomputes its logits in the backward pass.
    assert counter.get_total_flops() == pytest.approx(
        length * throughput.flops_per_token(made, length), rel=0.15
    )


@pytest.mark.parametrize(
    ("name", "teraflops"),
    [
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA H200", 989),
        ("NVIDIA B200", 2250),
        ("NVIDIA GB200", 2500),
        ("NVIDIA L40S", 362),
        ("NVIDIA A40", 149.7),
        ("NVIDIA GeForce RTX 4090", 165.2),
    ],
)
def test_the_peak_of_a_device_is_that_of_its_data_sheet(name: str, teraflops: float) -> None:
    assert throughput.peak_flops(name) == teraflops * 1e12


def test_a_device_outside_the_table_has_no_mfu_and_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Fault: MFU was a share of a measured peak, which no other program reports."""
    assert throughput.peak_flops("Radeon VII") is None
    throughput._device_peak.cache_clear()
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Radeon VII")
    for _ in range(2):
        meter = throughput.ThroughputMeter(model(), 1000, 16, torch.device("cuda"), ranks=1)
    meter.start(0)
    assert set(meter.read(1)) == {"tokens_per_second"}
    assert [record.message for record in caplog.records] == [
        "Radeon VII: its peak FLOPS are not in posbench's table, so no MFU is reported"
    ]


def test_a_meter_measures_between_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throughput, "_device_peak", lambda device: 1e9)
    clock = iter([0.0, 10.0, 12.0, 100.0, 105.0])
    monkeypatch.setattr(throughput.time, "monotonic", lambda: next(clock))
    meter = throughput.ThroughputMeter(model(), 1000, 16, CPU, ranks=2)
    meter.start(5)
    share = throughput.flops_per_token(model(), 16) / 2e9
    assert meter.read(9) == {"tokens_per_second": 2000.0, "mfu": 2000 * share}
    meter.start(9)
    assert meter.read(10)["tokens_per_second"] == 200
    assert meter.total()["tokens_per_second"] == pytest.approx(5000 / 7)
    assert throughput.format_speed({"tokens_per_second": 2e3, "mfu": 0.412}) == ", 2,000 tokens/s, MFU 41.2%"


def test_training_reports_throughput_and_no_file_holds_it(tmp_path: Path, small_trainer) -> None:
    trainer, reported = small_trainer(tmp_path), []
    metadata = trainer.run(lambda step, metrics: reported.append(metrics))
    assert all(metrics["tokens_per_second"] > 0 for metrics in reported)
    assert all("mfu" not in metrics for metrics in reported)  # of a CPU, no data sheet is read
    assert trainer.speed["tokens_per_second"] > 0
    assert reported
    assert all("mfu" not in point and "tokens_per_second" not in point for point in metadata["log_history"])
