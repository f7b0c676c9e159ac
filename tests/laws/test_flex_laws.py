"""FlexAttention runs what it says it runs: unfused, on the CPU, against the specification."""

import pytest
import torch
from torch import Tensor
from variants import ALONE, EXTENDED, Variant, run, tokens

from posbench.kernels.dense import dense
from posbench.kernels.flex import flex, why_never_supported
from posbench.position.call import AttentionCall

# The unfused form takes a second a call; a GPU runs all of them fused (test_device_laws).
FEW = ALONE + [variant for variant in EXTENDED if variant.scheme in ("rope", "alibi")]


@pytest.mark.parametrize("variant", FEW, ids=str)
@torch.no_grad()
def test_flex_is_the_specification(variant: Variant) -> None:
    """In float32, with gathers, masks and log-sum-exps as they are on a GPU; what it refuses goes to dense."""
    subject = run(variant)
    subject.model.float()

    def kernel(call: AttentionCall) -> tuple[Tensor, Tensor | None]:
        return dense(call) if why_never_supported(call) else flex(call, compiled=False)

    ids = tokens(2, subject.length)
    torch.testing.assert_close(subject(ids, kernel), subject(ids, dense), rtol=0, atol=2e-4)
