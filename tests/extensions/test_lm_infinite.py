"""LM-Infinite against loops over its definition and the two branches of the authors' code. Tolerance 1e-12."""

import math

import pytest
import torch
from extended import SHAPE, Llama, alibi, attention, attention_inputs, by_pairs, context, rotary, values

from posbench.errors import ConfigError, IncompatibleError
from posbench.extensions.lm_infinite import LMInfinite
from posbench.extensions.window import Window
from posbench.schemes.alibi import ALiBi
from posbench.schemes.learned import Learned
from posbench.schemes.nope import NoPE


@pytest.mark.parametrize("first", [0, 21])
@pytest.mark.parametrize(
    ("sinks", "window"), [(4, 6), (1, 1), (4, 1), (2, 20), (4, 23), (4, 24), (0, 5), (30, 5)]
)
def test_equals_its_definition(sinks: int, window: int, first: int) -> None:
    inputs, v = attention_inputs(24, start=first), values(24)
    expected = by_pairs(
        inputs,
        v,
        lambda h, q, k, i, j: rotary(q, k, min(i - j, window)),
        visible=lambda i, j: i - j < window or j < sinks,
    )
    actual = attention(LMInfinite(Llama(SHAPE), context(24), sinks, window), inputs, v)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-12)


def test_equals_a_local_and_a_stationary_branch() -> None:
    """The authors' code: beyond the window, queries rotated to the ceiling meet keys that are not rotated."""
    sinks = local = 5
    inputs, v = attention_inputs(24), values(24)
    q, k = Llama(SHAPE).qk(inputs)
    index = torch.arange(24)
    ceiling = type(inputs)(
        0,
        inputs.geo.with_positions(torch.full_like(index, local), torch.zeros_like(index)),
        inputs.x_BTW,
        inputs.x_BSW,
        inputs.q_BHTD,
        inputs.k_BHSD,
    )
    stationary_q, stationary_k = Llama(SHAPE).qk(ceiling)
    torch.testing.assert_close(stationary_k, inputs.k_BHSD, rtol=0, atol=0)
    far = torch.ones(24, 24).triu(-local + 1).logical_not()
    near = ~far & (index[:, None] >= index)
    far[:, sinks:] = False
    logits = torch.where(near, q @ k.transpose(-1, -2), stationary_q @ stationary_k.transpose(-1, -2))
    logits = (logits / math.sqrt(8)).masked_fill(~(near | far), -torch.inf)
    actual = attention(LMInfinite(Llama(SHAPE), context(24), sinks, local), inputs, v)
    torch.testing.assert_close(actual, logits.softmax(-1) @ v, rtol=0, atol=1e-12)


def test_a_bias_has_a_ceiling_too() -> None:
    inputs, v = attention_inputs(24), values(24)
    expected = by_pairs(
        inputs,
        v,
        lambda h, q, k, i, j: alibi(h, q, k, min(i - j, 5)),
        visible=lambda i, j: i - j < 5 or j < 3,
    )
    actual = attention(LMInfinite(ALiBi(SHAPE), context(24), 3, 5), inputs, v)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-12)


def test_without_first_tokens_it_is_a_window() -> None:
    inputs, v = attention_inputs(24), values(24)
    assert torch.equal(
        attention(LMInfinite(Llama(SHAPE), context(24), 0, 6), inputs, v),
        attention(Window(Llama(SHAPE), context(24), 6), inputs, v),
    )


def test_without_positions_it_is_a_mask() -> None:
    inputs, v = attention_inputs(24), values(24)
    expected = by_pairs(
        inputs, v, lambda h, q, k, i, j: float(q @ k) / 8**0.5, visible=lambda i, j: i - j < 6 or j < 4
    )
    actual = attention(LMInfinite(NoPE(SHAPE), context(24), 4, 6), inputs, v)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-12)


def test_window_and_ceiling_are_the_training_length() -> None:
    scheme = LMInfinite(Llama(SHAPE), context(64))
    assert (scheme.num_sink_tokens, scheme.window) == (10, 16)


def test_bad_settings() -> None:
    """Fault: the error advised null, which this setting does not accept."""
    with pytest.raises(
        ConfigError, match=r"num_sink_tokens -1: give a whole number of tokens of at least 0$"
    ):
        LMInfinite(Llama(SHAPE), context(64), -1)
    with pytest.raises(ConfigError, match=r"window 0: .* at least 1, or null"):
        LMInfinite(Llama(SHAPE), context(64), 4, 0)
    with pytest.raises(IncompatibleError, match="depends on absolute positions"):
        LMInfinite(Learned(SHAPE), context(64))
