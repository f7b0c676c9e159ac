"""Kernels by name: a kernel selected by name runs or raises, and the kernels that ran are recorded."""

from dataclasses import replace

import pytest
import torch
from cases import case

from posbench.errors import ConfigError, IncompatibleError
from posbench.kernels.dispatcher import KernelDispatcher


def test_auto_prefers_sdpa_on_the_cpu() -> None:
    kernel = KernelDispatcher("auto")
    assert kernel.ran == "none"
    kernel(case("table")[0])
    assert kernel.ran == "sdpa"
    kernel(case("table", relative_values=True)[0])
    assert kernel.ran == "dense+sdpa"


def test_dense_runs_dense() -> None:
    kernel = KernelDispatcher("dense")
    kernel(case("none")[0])
    assert kernel.ran == "dense"


@pytest.mark.parametrize(
    ("call", "why"),
    [
        (case("none", relative_values=True)[0], "values by pair"),
        (replace(case("none", geometry="suffix")[0], with_lse=True), "log-sum-exp"),
    ],
)
def test_sdpa_by_name_never_falls_back(call: object, why: str) -> None:
    with pytest.raises(IncompatibleError, match=why):
        KernelDispatcher("sdpa")(call)  # type: ignore[arg-type]


def test_unknown_kernel_suggests_a_close_name() -> None:
    with pytest.raises(ConfigError, match=r"'spda'.*dense.*did you mean 'sdpa'"):
        KernelDispatcher("spda")


def test_log_sum_exp_on_request() -> None:
    _, lse = KernelDispatcher("auto")(replace(case("none")[0], with_lse=True))
    assert lse is not None
    assert lse.dtype == torch.float64
