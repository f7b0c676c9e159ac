"""A scheme computes where its model is: no constant stays behind on the CPU."""

import pytest
import torch
from variants import Variant, each_variant, run, tokens


@each_variant
def test_nothing_stays_on_the_cpu(variant: Variant) -> None:
    """On the meta device, which every machine has, which mixes with no other, and which no program can wait for."""
    subject = run(variant)
    subject.model.to("meta")
    ids = tokens(2, subject.length).to("meta")
    hidden = subject(ids)
    assert hidden.device.type == "meta"
    assert hidden.shape == (2, subject.length, 32)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@each_variant
def test_a_gpu_computes_the_same(variant: Variant) -> None:
    """In float64, with gradients and without: 1e-9."""
    subject = run(variant)
    ids = tokens(2, subject.length)
    expected = subject(ids).detach()
    subject.model.to("cuda")
    for gradients in (True, False):
        with torch.set_grad_enabled(gradients):
            torch.testing.assert_close(subject(ids.cuda()).detach().cpu(), expected, rtol=0, atol=1e-9)
