"""Selective attention against x-transformers. Tolerance 1e-12 in float64, also of gradients."""

import math
from typing import Any

import pytest
import torch
from calls import SHAPE, assert_same_gradients, attention, attention_inputs, causal, logits, values
from x_transformers.attend import selective_attn

from posbench.errors import IncompatibleError
from posbench.extensions.ntk import NTK
from posbench.extensions.rerope import ReRoPE
from posbench.position.extension import ExtensionContext
from posbench.position.scheme import PositionScheme
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


def selected_from(scheme: PositionScheme) -> torch.Tensor:
    """Attention by x-transformers on the logits of a scheme."""
    inputs, v = attention_inputs(TOKENS), values(TOKENS)
    mask = scheme.mask(inputs)
    visible = inputs.geo.visible(() if mask is None else (mask,))
    return selective_attn(logits(scheme, inputs).masked_fill(~visible, -torch.inf)).softmax(-1) @ v


def test_frequencies_that_an_extension_scales_select_too() -> None:
    """Fault: the logits had the scaled frequencies, and the selection those of training."""
    context = ExtensionContext(SHAPE, 4 * SHAPE.train_len)
    extended = NTK(SelectiveAttention(SHAPE, ROPE), context, factor=4.0)
    mine = attention(extended, attention_inputs(TOKENS), values(TOKENS))
    expected = selected_from(NTK(RoPE(SHAPE), context, factor=4.0))
    torch.testing.assert_close(mine, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "base",
    [
        {"_target_": "posbench.schemes.alibi.ALiBi"},
        {"_target_": "posbench.schemes.log_n.LogNAttention"},
        {"_target_": "posbench.schemes.window.Window", "window": 5},
    ],
)
def test_bias_scale_and_mask_of_the_base_select_too(base: dict[str, Any]) -> None:
    """Fault: the selection was made of q . k alone."""
    scheme = SelectiveAttention(SHAPE, base)
    mine = attention(scheme, attention_inputs(TOKENS), values(TOKENS))
    expected = selected_from(scheme.members[0])
    torch.testing.assert_close(mine, expected, rtol=0, atol=1e-12)


def test_regions_with_positions_of_their_own_are_refused() -> None:
    """Fault: each region selected by its own positions, also for the pairs of the other one."""
    with pytest.raises(IncompatibleError, match="mergeable regions"):
        ReRoPE(SelectiveAttention(SHAPE, ROPE), ExtensionContext(SHAPE, 64))
