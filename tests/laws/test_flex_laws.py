"""Law of FlexAttention: every call that it supports equals `dense`.

Tests on the CPU run its unfused form, so that its score_mods and block masks are checked without a GPU.
"""

import pytest
import torch
from torch import Tensor
from variants import ALONE, EXTENDED, Variant, run, tokens

from posbench.kernels.dense import dense
from posbench.kernels.flex import flex, why_never_supported
from posbench.position.call import AttentionCall

# The unfused form takes a second per call; test_device_laws runs all variants fused on a GPU.
SUBSET = ALONE + [variant for variant in EXTENDED if variant.scheme in ("rope", "alibi")]


@pytest.mark.parametrize("variant", SUBSET, ids=str)
@torch.no_grad()
def test_flex_equals_dense(variant: Variant) -> None:
    """In float32, with the gathers, masks and log-sum-exps of a GPU; unsupported calls run on `dense`."""
    subject = run(variant)
    subject.model.float()

    def kernel(call: AttentionCall) -> tuple[Tensor, Tensor | None]:
        return dense(call) if why_never_supported(call) else flex(call, compiled=False)

    ids = tokens(2, subject.length)
    torch.testing.assert_close(subject(ids, kernel), subject(ids, dense), rtol=0, atol=2e-4)
