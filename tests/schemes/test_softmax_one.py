"""Softmax-one against GPT-OSS with sinks of 0 (1e-12) and x-transformers' zero key (1e-6: float32)."""

from types import SimpleNamespace

import pytest
import torch
from calls import SHAPE, assert_same_gradients, attention, attention_inputs, causal, values
from torch.nn.functional import scaled_dot_product_attention
from transformers.models.gpt_oss.modeling_gpt_oss import eager_attention_forward
from x_transformers.attend import Attend

from posbench.position.compose import Stack
from posbench.schemes.rope import RoPE
from posbench.schemes.softmax_one import SoftmaxOne


def test_equals_gpt_oss_with_sinks_of_zero() -> None:
    inputs, v = attention_inputs(), values()
    module = SimpleNamespace(num_key_value_groups=1, sinks=torch.zeros(SHAPE.n_heads), training=False)
    expected, _ = eager_attention_forward(
        module, inputs.q_BHTD, inputs.k_BHSD, v, causal(20)[None, None], SHAPE.head_dim**-0.5
    )
    mine = attention(SoftmaxOne(SHAPE), inputs, v)
    torch.testing.assert_close(mine, expected.transpose(1, 2), rtol=0, atol=1e-12)
    assert_same_gradients(mine, expected.transpose(1, 2), [inputs.q_BHTD, inputs.k_BHSD, v], 1e-12)
    with torch.inference_mode():  # another kernel
        torch.testing.assert_close(attention(SoftmaxOne(SHAPE), inputs, v), mine, rtol=0, atol=1e-12)


def test_equals_the_zero_key_of_x_transformers() -> None:
    inputs, v = attention_inputs(dtype=torch.float32), values(dtype=torch.float32)
    theirs = Attend(heads=SHAPE.n_heads, add_zero_kv=True, causal=True, dropout=0.0)
    expected = theirs(inputs.q_BHTD, inputs.k_BHSD, v)[0]
    torch.testing.assert_close(attention(SoftmaxOne(SHAPE), inputs, v), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("shift", [-1000.0, 0.0, 1000.0])
def test_large_logits_of_either_sign_are_stable(shift: float) -> None:
    """With logits of -1000 the output is 0, with logits of 1000 it is that of a plain softmax."""
    inputs, v = attention_inputs(), values()
    k = inputs.k_BHSD.detach() * 0 + shift
    one = type(inputs)(0, inputs.geo, inputs.x_BTW, inputs.x_BSW, torch.ones_like(k), k)
    out = attention(SoftmaxOne(SHAPE), one, v)
    plain = scaled_dot_product_attention(one.q_BHTD, k, v, is_causal=True)
    share = {-1000.0: torch.zeros(20), 0.0: 1 - 1 / (torch.arange(20) + 2), 1000.0: torch.ones(20)}[shift]
    torch.testing.assert_close(out, plain * share[:, None].double(), rtol=0, atol=1e-7)


def test_stacked_on_rope_only_the_denominator_changes() -> None:
    inputs, v = attention_inputs(), values()
    stacked = attention(Stack(SHAPE, [RoPE(SHAPE), SoftmaxOne(SHAPE)]), inputs, v)
    rotated = attention(RoPE(SHAPE), inputs, v)
    share = stacked / rotated
    torch.testing.assert_close(share, share[..., :1].expand_as(share), rtol=1e-9, atol=0)
    assert (share < 1).all()
