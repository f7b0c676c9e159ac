"""The part of the GPU check that runs without a GPU: unfused FlexAttention, values without gradients."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import Tensor

from posbench.benchmark import gpu_check
from posbench.benchmark.gpu_check import (
    CheckResult,
    SchemeVariant,
    compared,
    computed,
    table,
    variants,
    verdict,
)
from posbench.commands import run
from posbench.config import hydra_app
from posbench.kernels.dense import dense
from posbench.kernels.flex import flex
from posbench.position.call import AttentionCall

pytestmark = pytest.mark.slow


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """The command with a short training."""
    monkeypatch.setattr(gpu_check, "STEPS", 10)
    monkeypatch.setitem(gpu_check.SETTINGS, "trained", ["rope"])
    return lambda *arguments: run(["gpu-check", *arguments])


def test_without_a_gpu_it_fails_in_one_line(
    command: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    """Fault: a check that checked nothing had the status of one that passed."""
    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    assert command() == 2
    assert capsys.readouterr().err.startswith("error: no CUDA device here, so nothing is checked")


def test_it_lists_every_scheme_and_every_extension() -> None:
    found = variants()
    assert [one.scheme for one in found if not one.extension] == list(hydra_app.load_group("scheme"))
    assert {one.extension for one in found} - {""} == set(hydra_app.load_group("extension")) - {"none"}
    assert SchemeVariant("rope", "yarn") in found
    assert SchemeVariant("alibi", "yarn") not in found


def test_the_report(
    command: Callable[..., int],
    tmp_path: Path,
    cache: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    options = ["--device", "cpu", "--results", str(tmp_path), "--cache", str(cache)]
    assert command(*options, "--only", "deberta", "rerope") == 0
    frame = pd.read_csv(tmp_path / "report.csv")
    assert frame["variant"].tolist() == [
        *["deberta"] * 2,
        *["rope + rerope"] * 2,
        *["alibi + rerope"] * 2,
        "training rope, 10 steps",
    ]
    assert frame["dtype"].tolist()[:2] == ["float32", "bfloat16"]
    assert set(frame["kernel"][:6]) == {"flex unfused"}
    assert set(frame["status"]) == {"ok"}
    assert 0 < frame["max error of values"][0] < 1e-4
    assert frame["max error of gradients"].isna().all()
    assert "Tolerances: float32 0.0001 of values" in (tmp_path / "report.md").read_text()
    monkeypatch.setattr(gpu_check, "trainings", lambda *_: [])
    assert command(*options, "--only", "nope", "rope", "--max-minutes", "0") == 0
    output = capsys.readouterr().out
    assert "no time for" in output
    assert "--only nope rope" in output
    assert "Not checked for lack of time: nope, rope" in (tmp_path / "report.md").read_text()
    assert command("--device", "cpu", "--only", "rop") == 2
    assert command(*options, "--workers", "-1") == 2
    assert "--workers -1" in capsys.readouterr().err


def test_processes_share_the_work(
    command: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_check, "trainings", lambda *_: [])
    options = ["--device", "cpu", "--results", str(tmp_path), "--workers", "2"]
    assert command(*options, "--only", "nope", "deberta") == 0
    frame = pd.read_csv(tmp_path / "report.csv")
    assert frame["variant"].tolist() == ["deberta", "deberta", "nope", "nope"]
    assert set(frame["status"]) == {"ok"}


def test_a_wrong_kernel_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(call: AttentionCall, compiled: bool) -> tuple[Tensor, Tensor | None]:
        out, lse = flex(call, compiled)
        return 1.1 * out, lse

    def broken(call: AttentionCall, compiled: bool) -> tuple[Tensor, Tensor | None]:
        raise RuntimeError("no such\nkernel")

    monkeypatch.setattr(gpu_check, "flex", wrong)
    found = compared(SchemeVariant("nope"), "float32", "cpu")
    assert found.status == "FAILED: values off by more than 0.0001"
    assert "FAILED" in table([found])["status"].item()
    monkeypatch.setattr(gpu_check, "flex", broken)
    assert compared(SchemeVariant("nope"), "float32", "cpu").status == "FAILED: RuntimeError: no such"


def test_no_gradient_is_zero_but_for_rounding() -> None:
    """bam starts with a bias that is the same for all keys: rounding was compared with rounding, and failed on a GPU."""
    model, length = SchemeVariant("bam").made("cpu")
    gradients = computed(model, dense, length, "float32", backward=True)[1]
    assert min(float(one.abs().max()) for one in gradients) > 1e-3


def test_the_verdict() -> None:
    assert verdict("float32", 1e-5, 1e-4) == "ok"
    assert "values" in verdict("float32", float("nan"), None)
    assert "gradients" in verdict("bfloat16", 1e-3, 0.3)
    assert list(CheckResult.__annotations__)[:2] == ["variant", "dtype"]
