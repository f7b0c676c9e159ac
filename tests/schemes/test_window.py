"""The trained window against Mistral in transformers. Tolerance 1e-12 in float64; masks equal."""

import pytest
import torch
from calls import SHAPE, assert_same_gradients, attention, attention_inputs, values
from torch.nn.functional import scaled_dot_product_attention
from transformers import MistralConfig
from transformers.masking_utils import create_sliding_window_causal_mask

from posbench.errors import ConfigError
from posbench.schemes.window import Window


def mistral(window: int, tokens: int) -> torch.Tensor:
    """(1, 1, T, T) booleans: what a query may see."""
    config = MistralConfig(sliding_window=window, attn_implementation="sdpa")
    mask = create_sliding_window_causal_mask(
        config=config,
        inputs_embeds=torch.zeros(1, tokens, 8),
        attention_mask=torch.ones(1, tokens, dtype=torch.long),
        past_key_values=None,
        position_ids=torch.arange(tokens)[None],
    )
    assert mask is not None
    return mask


@pytest.mark.parametrize("window", [1, 5, 16])
def test_equals_mistral(window: int) -> None:
    at, v = attention_inputs(), values()
    visible = mistral(window, 20)
    assert int(visible[0, 0, -1].sum()) == window
    expected = scaled_dot_product_attention(at.q_BHTD, at.k_BHSD, v, attn_mask=visible)
    mine = attention(Window(SHAPE, window), at, v)
    torch.testing.assert_close(mine, expected, rtol=0, atol=1e-12)
    leaves = [v] if window == 1 else [at.q_BHTD, at.k_BHSD, v]  # a weight of 1 moves with nothing
    assert_same_gradients(mine, expected, leaves, 1e-12)


def test_half_of_the_training_length_by_default_and_no_mask_within() -> None:
    assert Window(SHAPE).window == 8
    assert Window(SHAPE).mask(attention_inputs(8)) is None


def test_bad_settings() -> None:
    for window in (0, -1, SHAPE.train_len + 1):
        with pytest.raises(ConfigError, match=rf"window {window}: give 1 to 16 tokens"):
            Window(SHAPE, window)
