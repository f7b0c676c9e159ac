"""Law of devices: every variant computes on the device of its model.

Constants of schemes are plain tensors, not buffers, so that `model.to` does not move them.
"""

import pytest
import torch
from variants import Variant, each_variant, run, tokens


@each_variant
def test_no_tensor_stays_on_the_cpu(variant: Variant) -> None:
    """On the meta device, which mixes with no other device and fails on any synchronization."""
    subject = run(variant)
    subject.model.to("meta")
    ids = tokens(2, subject.length).to("meta")
    hidden = subject(ids)
    assert hidden.device.type == "meta"
    assert hidden.shape == (2, subject.length, 32)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@each_variant
def test_gpu_equals_cpu(variant: Variant) -> None:
    """In float64, with and without gradients: 1e-9."""
    subject = run(variant)
    ids = tokens(2, subject.length)
    expected = subject(ids).detach()
    subject.model.to("cuda")
    for gradients in (True, False):
        with torch.set_grad_enabled(gradients):
            torch.testing.assert_close(subject(ids.cuda()).detach().cpu(), expected, rtol=0, atol=1e-9)
