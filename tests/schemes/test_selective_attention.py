"""Selective attention against x-transformers. Tolerance 1e-12 in float64, also of gradients."""

import math

import torch
from calls import SHAPE, assert_same_gradients, attention, attention_inputs, causal, values
from x_transformers.attend import selective_attn

from posbench.schemes.rope import RoPE
from posbench.schemes.selective_attention import SelectiveAttention

TOKENS = 20
ROPE = {"_target_": "posbench.schemes.rope.RoPE"}


def test_attention_equals_x_transformers() -> None:
    inputs, v = attention_inputs(TOKENS), values(TOKENS)
    q, k = RoPE(SHAPE).qk(inputs)
    content = q @ k.mT / math.sqrt(SHAPE.head_dim) + causal(TOKENS)
    # Theirs leaves the last row's gate out by its index from the end; the first token is column -TOKENS of TOKENS.
    expected = selective_attn(content).softmax(-1) @ v
    mine = attention(SelectiveAttention(SHAPE, ROPE), inputs, v)
    torch.testing.assert_close(mine, expected, rtol=0, atol=1e-12)
    assert_same_gradients(mine, expected, [inputs.q_BHTD, inputs.k_BHSD, v], 1e-12)


def test_a_selected_token_is_lowered_for_later_tokens_only() -> None:
    """Token 2 selects token 1: its logit falls for token 3, not for token 2; token 0 is never lowered."""
    inputs = attention_inputs(4)
    with torch.no_grad():
        inputs.q_BHTD.zero_()
        inputs.k_BHSD.zero_()
        inputs.q_BHTD[:, 0, 2, 0], inputs.k_BHSD[:, 0, :2, 0] = 1.0, math.sqrt(SHAPE.head_dim)
    nope = {"_target_": "posbench.schemes.nope.NoPE"}
    bias = SelectiveAttention(SHAPE, nope).attention_bias(inputs)
    assert bias is not None
    expected = torch.zeros(4, 4, dtype=torch.float64)
    expected[3, 1] = -1
    torch.testing.assert_close(bias.value(inputs.geo, slice(None))[0, 0], expected)
