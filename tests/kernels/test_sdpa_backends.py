"""Which fused attention runs: tried once a kind of call, the fastest kept; tested with a clock of its own."""

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
    """Seconds by backend; one that is not listed cannot run. Notes what was allowed when."""

    def __init__(self, seconds: dict[SDPBackend, float]) -> None:
        self.told, self.allowed, self.entered = seconds, [SDPBackend.MATH], list[SDPBackend]()

    @contextmanager
    def only(self, backend: SDPBackend) -> Iterator[None]:
        self.allowed.append(backend)
        self.entered.append(backend)
        yield
        self.allowed.pop()

    def seconds(self, work: Callable[[], object]) -> float:
        work()
        if self.allowed[-1] not in self.told:
            raise RuntimeError("No available kernel. Aborting execution.")
        return self.told[self.allowed[-1]]

    def choice(self) -> SDPAAutotuner:
        return SDPAAutotuner(seconds=self.seconds, only=self.only)


def call(
    choice: SDPAAutotuner, length: int = 10, batch: int = 2, gradients: bool = False, causal: bool = True
) -> None:
    q, k, v = torch.randn(3, batch, 4, length, 8, requires_grad=gradients).unbind()
    torch.testing.assert_close(choice(q, k, v, 0.5, causal), attention(q, k, v, 0.5, causal))


def test_the_fastest_is_tried_for_once_and_kept(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock({FLASH: 2e-3, CUDNN: 1e-3})
    choice = clock.choice()
    with caplog.at_level(logging.INFO, sdpa_backends.__name__):
        call(choice)
        assert clock.entered == [FLASH, CUDNN, EFFICIENT, CUDNN]
        call(choice, length=16)  # the same power of two
        assert clock.entered[4:] == [CUDNN]
        assert list(choice.fastest.values()) == [CUDNN]
        call(choice, length=17)
        call(choice, batch=8)
        call(choice, gradients=True)
        call(choice, causal=False)
    assert len(choice.fastest) == len(caplog.messages) == 5
    assert "CUDNN_ATTENTION of FLASH_ATTENTION 2.000 ms, CUDNN_ATTENTION 1.000 ms" in caplog.messages[0]


def test_where_none_can_run_torch_chooses() -> None:
    clock = Clock({})
    choice = clock.choice()
    call(choice)
    call(choice)
    assert list(choice.fastest.values()) == [None]
    assert len(clock.entered) == len(sdpa_backends.BACKENDS)


def test_a_trial_leaves_no_gradient_behind() -> None:
    q, k, v = (torch.randn(1, 2, 5, 4, requires_grad=True) for _ in range(3))
    trial(q, k, v, 0.5)()
    assert q.grad is k.grad is v.grad is None
    with torch.no_grad():
        assert call_kind(q, k, v)[-1] == "forward"
    assert call_kind(q, k, v)[-1] == "forward+backward"


def test_autocasts_precision_is_the_kind() -> None:
    q = torch.randn(1, 2, 5, 4)
    with torch.autocast("cpu", torch.bfloat16):
        assert call_kind(q, q, q)[0] == torch.bfloat16
    assert call_kind(q, q, q)[0] == torch.float32


def test_a_cpu_has_nothing_to_choose_from() -> None:
    assert not tunable(torch.zeros(1))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_chooses_one() -> None:
    choice = SDPAAutotuner()
    q, k, v = torch.randn(3, 2, 4, 256, 64, device="cuda", dtype=torch.bfloat16, requires_grad=True).unbind()
    out = choice(q, k, v, 0.125)
    out.sum().backward()
    (chosen,) = choice.fastest.values()
    assert chosen in sdpa_backends.BACKENDS
    torch.testing.assert_close(out, attention(q, k, v, 0.125), rtol=0, atol=2e-2)
