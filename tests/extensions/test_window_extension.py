"""Sliding window against transformers' mask. Masks equal, attention within 1e-12 in float64."""

import pytest
import torch
from extended import SHAPE, Llama, attention, attention_inputs, by_pairs, context, rotary, values
from transformers.masking_utils import sdpa_mask, sliding_window_causal_mask_function

from posbench.errors import ConfigError
from posbench.extensions.window import Window


@pytest.mark.parametrize("window", [1, 3, 16, 23])
def test_mask_equals_transformers(window: int) -> None:
    scheme = Window(Llama(SHAPE), context(24), window)
    mask = scheme.mask(attention_inputs(24))
    assert mask is not None
    reference = sdpa_mask(
        batch_size=1,
        q_length=24,
        kv_length=24,
        mask_function=sliding_window_causal_mask_function(window),
        allow_is_causal_skip=False,
    )
    assert torch.equal(attention_inputs(24).geo.visible((mask,)), reference[0, 0])


@pytest.mark.parametrize("first", [0, 21])
@pytest.mark.parametrize("window", [1, 3, 16])
def test_attention_equals_a_loop_over_the_window(window: int, first: int) -> None:
    inputs, v = attention_inputs(24, start=first), values(24)
    expected = by_pairs(
        inputs, v, lambda h, q, k, i, j: rotary(q, k, i - j), visible=lambda i, j: i - j < window
    )
    actual = attention(Window(Llama(SHAPE), context(24), window), inputs, v)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-12)


def test_a_window_of_one_attends_to_the_token_alone() -> None:
    inputs, v = attention_inputs(24), values(24)
    torch.testing.assert_close(
        attention(Window(Llama(SHAPE), context(24), 1), inputs, v), v, rtol=0, atol=1e-12
    )


def test_by_default_the_window_is_the_training_length() -> None:
    scheme = Window(Llama(SHAPE), context(64))
    assert scheme.window == 16
    assert scheme.mask(attention_inputs(16)) is None
    assert scheme.mask(attention_inputs(17)) is not None


def test_bad_settings() -> None:
    for window in (0, -4, 1.5, True):
        with pytest.raises(ConfigError, match="whole number of tokens of at least 1"):
            Window(Llama(SHAPE), context(64), window)  # type: ignore[arg-type]
