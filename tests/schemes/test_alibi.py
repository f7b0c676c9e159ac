"""ALiBi against Bloom, MPT and x-transformers. Slopes within 1e-7 (theirs are float32), attention within 1e-6."""

import pytest
import torch
from calls import SHAPE, attention, attention_inputs, causal, values
from transformers.models.bloom.modeling_bloom import build_alibi_tensor
from transformers.models.mpt.modeling_mpt import build_mpt_alibi_tensor
from x_transformers.x_transformers import AlibiPositionalBias

from posbench.position.alibi_slopes import alibi_slopes
from posbench.schemes.alibi import ALiBi

HEADS = [1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 16, 20, 24, 32, 40, 48, 64, 71, 112, 128]


@pytest.mark.parametrize("heads", HEADS)
def test_slopes_are_bloom_s_and_mpt_s(heads: int) -> None:
    # Both add a constant to each row, which the softmax cancels: the difference between neighbouring keys is the slope.
    bloom = build_alibi_tensor(torch.ones(1, 3, dtype=torch.long), heads, torch.float32)
    mpt = build_mpt_alibi_tensor(heads, 3)
    for theirs in (bloom, mpt):
        step = (theirs[..., 1] - theirs[..., 0]).flatten().double()
        torch.testing.assert_close(alibi_slopes(heads), step, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("heads", HEADS)
def test_slopes_are_those_of_x_transformers(heads: int) -> None:
    theirs = AlibiPositionalBias(heads).slopes.flatten().double()
    torch.testing.assert_close(alibi_slopes(heads), theirs, rtol=1e-6, atol=1e-7)


def test_slopes_as_printed_in_the_paper() -> None:
    """Section 3: 8 heads have 1/2, 1/4, ... 1/256; 16 heads interleave their geometric means."""
    assert alibi_slopes(8).tolist() == [2.0**-h for h in range(1, 9)]
    torch.testing.assert_close(
        alibi_slopes(16), 2.0 ** (-torch.arange(1, 17, dtype=torch.float64) / 2), rtol=1e-15, atol=0
    )


def test_attention_equals_that_with_bloom_s_biases() -> None:
    inputs, v = attention_inputs(), values()
    bias = build_alibi_tensor(torch.ones(1, 20, dtype=torch.long), SHAPE.n_heads, torch.float32).double()
    expected = torch.nn.functional.scaled_dot_product_attention(
        inputs.q_BHTD, inputs.k_BHSD, v, attn_mask=bias[None] + causal(20)
    )
    torch.testing.assert_close(attention(ALiBi(SHAPE), inputs, v), expected, rtol=0, atol=1e-6)


def test_penalty_at_a_distance() -> None:
    """Nats at a distance that bfloat16 cannot represent."""
    assert ALiBi(SHAPE).penalty(torch.tensor(100001)).tolist() == [-100001 * 4.0**-h for h in range(1, 5)]
