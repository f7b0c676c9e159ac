"""The sliding window against transformers' Mistral. Equal masks; tolerance 1e-12 in float64."""

import pytest
import torch
from calls import SHAPE, assert_same_gradients, attention, attention_inputs, values
from torch.nn.functional import scaled_dot_product_attention
from transformers import MistralConfig
from transformers.masking_utils import create_sliding_window_causal_mask

from posbench.errors import ConfigError
from posbench.schemes.window import Window


def mistral(window: int, tokens: int) -> torch.Tensor:
    """Returns Mistral's mask, (1, 1, T, T) booleans."""
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
    inputs, v = attention_inputs(), values()
    visible = mistral(window, 20)
    assert int(visible[0, 0, -1].sum()) == window
    expected = scaled_dot_product_attention(inputs.q_BHTD, inputs.k_BHSD, v, attn_mask=visible)
    mine = attention(Window(SHAPE, window), inputs, v)
    torch.testing.assert_close(mine, expected, rtol=0, atol=1e-12)
    leaves = (
        [v] if window == 1 else [inputs.q_BHTD, inputs.k_BHSD, v]
    )  # a weight of 1 depends on no query or key
    assert_same_gradients(mine, expected, leaves, 1e-12)


def test_the_default_is_half_of_the_training_length_without_a_mask_within_it() -> None:
    assert Window(SHAPE).window == 8
    assert Window(SHAPE).mask(attention_inputs(8)) is None


def test_bad_settings() -> None:
    for window in (0, -1, SHAPE.train_len + 1):
        with pytest.raises(ConfigError, match=rf"window {window}: give at least 1 token and at most .*, 16"):
            Window(SHAPE, window)
