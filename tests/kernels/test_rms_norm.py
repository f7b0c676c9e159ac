"""RMSNorm on the CPU against torch's, values and gradients. Torch wrote out ten passes, 5% of a training step."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from posbench.kernels.cpu.rms_norm import RMSNorm, rms_norm

EPS = 1e-6


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-5)])
@pytest.mark.parametrize("shape", [(3, 5, 32), (2, 3, 5, 16), (1, 7)])
def test_equals_torch(shape: tuple[int, ...], dtype: torch.dtype, tolerance: float) -> None:
    torch.manual_seed(0)
    x = (
        3 + torch.randn(shape, dtype=dtype)
    ).requires_grad_()  # rows with a mean, which LayerNorm would remove
    weight = torch.randn(shape[-1], dtype=dtype, requires_grad=True)
    probe = torch.randn(shape, dtype=dtype)
    found, expected = rms_norm(x, weight, EPS), F.rms_norm(x, weight.shape, weight, EPS)
    torch.testing.assert_close(found, expected, rtol=0, atol=tolerance)
    pairs = [torch.autograd.grad((out * probe).sum(), (x, weight)) for out in (found, expected)]
    for one, other in zip(*pairs, strict=True):
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


def test_strided_inputs_and_single_gradients() -> None:
    x = torch.randn(2, 4, 6, dtype=torch.float64).transpose(0, 1).requires_grad_()
    weight = torch.randn(6, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: rms_norm(x, weight, EPS), x)
    assert torch.autograd.gradcheck(lambda w: rms_norm(x.detach(), w, EPS), weight.requires_grad_())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_other_precisions_are_torchs_own(dtype: torch.dtype) -> None:
    norm = RMSNorm(8, eps=EPS).to(dtype)
    x = torch.randn(3, 8).to(dtype)
    assert torch.equal(norm(x), F.rms_norm(x, (8,), norm.weight, EPS))


def test_under_autocast_the_gradient_stays_float32() -> None:
    weight = torch.randn(64, requires_grad=True)
    x = torch.randn(9, 64, requires_grad=True)

    def gradients(autocast: bool) -> tuple[Tensor, ...]:
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            return torch.autograd.grad(rms_norm(x, weight, EPS).square().sum(), (x, weight))

    for one, other in zip(gradients(True), gradients(False), strict=True):
        assert torch.equal(one, other)
