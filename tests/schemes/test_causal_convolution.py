"""The convolution over the last tokens, beside torch's own."""

import pytest
import torch
import torch.nn.functional as F

from posbench.position.causal_convolution import causal_convolution


@pytest.mark.parametrize("tokens", [1, 3, 9])
@pytest.mark.parametrize("taps", [1, 4])
def test_it_is_torchs_depthwise_convolution_with_its_gradients(tokens, taps):
    draw = torch.Generator().manual_seed(0)
    x_BGSD = torch.randn(2, 3, tokens, 5, generator=draw, dtype=torch.float64, requires_grad=True)
    weight_CN = torch.randn(20, taps, generator=draw, dtype=torch.float64, requires_grad=True)
    channels_BCS = F.pad(x_BGSD.mT.flatten(1, 2), (taps - 1, 0))
    expected = F.conv1d(channels_BCS, weight_CN[:15, None], groups=15).unflatten(1, (3, 5)).mT
    found = causal_convolution(x_BGSD, weight_CN)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-13)
    given = torch.randn(expected.shape, generator=draw, dtype=torch.float64)
    ours, theirs = (torch.autograd.grad(one, [x_BGSD, weight_CN], given) for one in (found, expected))
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=0, atol=1e-12)
