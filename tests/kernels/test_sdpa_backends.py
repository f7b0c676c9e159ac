"""SDPAAutotuner times backends once per kind of call and keeps the fastest; tested with a fake clock."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch
from torch.nn.attention import SDPBackend

from posbench.kernels import sdpa_backends
from posbench.kernels.sdpa_backends import SDPAAutotuner, attention, call_kind, trial, tunable

FLASH, CUDNN, EFFICIENT = sdpa_backends.BACKENDS


class Clock:
    """Returns given seconds by backend, raises for other backends, and records which backends were entered."""

    def __init__(self, seconds: dict[SDPBackend, float]) -> None:
        self.by_backend, self.allowed, self.entered = seconds, [SDPBackend.MATH], list[SDPBackend]()

    @contextmanager
    def only(self, backend: SDPBackend) -> Iterator[None]:
        self.allowed.append(backend)
        self.entered.append(backend)
        yield
        self.allowed.pop()

    def seconds(self, work: Callable[[], object]) -> float:
        work()
        if self.allowed[-1] not in self.by_backend:
            raise RuntimeError("No available kernel. Aborting execution.")
        return self.by_backend[self.allowed[-1]]

    def autotuner(self) -> SDPAAutotuner:
        return SDPAAutotuner(seconds=self.seconds, only=self.only)


def call(
    autotuner: SDPAAutotuner, length: int = 10, batch: int = 2, gradients: bool = False, causal: bool = True
) -> None:
    q, k, v = torch.randn(3, batch, 4, length, 8, requires_grad=gradients).unbind()
    torch.testing.assert_close(autotuner(q, k, v, 0.5, causal), attention(q, k, v, 0.5, causal))


def test_backends_are_timed_once_and_the_fastest_kept(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock({FLASH: 2e-3, CUDNN: 1e-3})
    autotuner = clock.autotuner()
    with caplog.at_level(logging.INFO, sdpa_backends.__name__):
        call(autotuner)
        assert clock.entered == [FLASH, CUDNN, EFFICIENT, CUDNN]
        call(autotuner, length=16)  # the same power of two
        assert clock.entered[4:] == [CUDNN]
        assert list(autotuner.fastest.values()) == [CUDNN]
        call(autotuner, length=17)
        call(autotuner, batch=8)
        call(autotuner, gradients=True)
        call(autotuner, causal=False)
    assert len(autotuner.fastest) == len(caplog.messages) == 5
    assert "CUDNN_ATTENTION of FLASH_ATTENTION 2.000 ms, CUDNN_ATTENTION 1.000 ms" in caplog.messages[0]


def test_torch_chooses_if_no_backend_runs() -> None:
    clock = Clock({})
    autotuner = clock.autotuner()
    call(autotuner)
    call(autotuner)
    assert list(autotuner.fastest.values()) == [None]
    assert len(clock.entered) == len(sdpa_backends.BACKENDS)


def test_trial_leaves_no_gradient() -> None:
    q, k, v = (torch.randn(1, 2, 5, 4, requires_grad=True) for _ in range(3))
    trial(q, k, v, 0.5)()
    assert q.grad is k.grad is v.grad is None
    with torch.no_grad():
        assert call_kind(q, k, v)[-1] == "forward"
    assert call_kind(q, k, v)[-1] == "forward+backward"


def test_kind_has_the_dtype_of_autocast() -> None:
    q = torch.randn(1, 2, 5, 4)
    with torch.autocast("cpu", torch.bfloat16):
        assert call_kind(q, q, q)[0] == torch.bfloat16
    assert call_kind(q, q, q)[0] == torch.float32


def test_cpu_is_not_tunable() -> None:
    assert not tunable(torch.zeros(1))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_gpu_chooses_a_backend() -> None:
    autotuner = SDPAAutotuner()
    q, k, v = torch.randn(3, 2, 4, 256, 64, device="cuda", dtype=torch.bfloat16, requires_grad=True).unbind()
    out = autotuner(q, k, v, 0.125)
    out.sum().backward()
    (chosen,) = autotuner.fastest.values()
    assert chosen in sdpa_backends.BACKENDS
    torch.testing.assert_close(out, attention(q, k, v, 0.125), rtol=0, atol=2e-2)
