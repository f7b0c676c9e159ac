"""Longformer against the pairs that transformers' encoder attends to. Tolerance 1e-5: theirs is float32.

LongformerSelfAttention is two-sided, so the pairs of its sliding window and its global columns are compared in the
lower triangle.
"""

import pytest
import torch
from calls import SHAPE, assert_same_gradients, attention, attention_inputs, values
from transformers import LongformerConfig
from transformers.models.longformer.modeling_longformer import LongformerSelfAttention

from posbench.errors import ConfigError
from posbench.schemes.longformer import Longformer


def seen_by_transformers(window: int, num_global_tokens: int, tokens: int) -> torch.Tensor:
    """Returns the pairs with weight in LongformerSelfAttention, which sees w tokens on either side; (T, T) booleans."""
    config = LongformerConfig(
        hidden_size=8, num_attention_heads=1, attention_window=[2 * window], attention_probs_dropout_prob=0.0
    )
    layer = LongformerSelfAttention(config, 0).eval()
    mask = torch.zeros(1, tokens)
    mask[:, :num_global_tokens] = 1
    is_global = mask > 0
    with torch.no_grad():
        # One value is changed at a time: an output that changes has weight on it. Local and global rows use one value map.
        layer.value_global.load_state_dict(layer.value.state_dict())
        hidden = torch.randn(1, tokens, 8)
        outputs = []
        for changed in (None, *range(tokens)):
            hook = None
            if changed is not None:

                def add(module, args, out, index=changed):  # type: ignore[no-untyped-def]
                    bumped = out.clone()
                    bumped[index if out.shape[0] == tokens else (slice(None), index)] += 10.0
                    return bumped

                hook = [m.register_forward_hook(add) for m in (layer.value, layer.value_global)]
            out = layer(
                hidden,
                attention_mask=mask,
                is_index_masked=torch.zeros(1, tokens, dtype=torch.bool),
                is_index_global_attn=is_global,
                is_global_attn=True,
            )[0]
            outputs.append(out[0])
            for one in hook or []:
                one.remove()
    base = outputs[0]
    return torch.stack([(out - base).abs().amax(-1) > 1e-5 for out in outputs[1:]], 1)


@pytest.mark.parametrize(("window", "num_global_tokens"), [(4, 1), (2, 3)])
def test_sees_the_lower_triangle_of_what_transformers_sees(window: int, num_global_tokens: int) -> None:
    tokens = 16  # a multiple of their window
    inputs = attention_inputs(tokens)
    mask = Longformer(SHAPE, window + 1, num_global_tokens).mask(
        inputs
    )  # theirs does not count the query itself
    assert mask is not None
    theirs = seen_by_transformers(window, num_global_tokens, tokens).tril()
    assert torch.equal(inputs.geo.visible((mask,)), theirs)


def test_attention_equals_a_loop_over_pairs() -> None:
    inputs, v = attention_inputs(), values()
    rows = []
    for i in range(20):
        keys = [j for j in range(i + 1) if i - j < 4 or j < 2]
        weight = (inputs.q_BHTD[:, :, i, None] * inputs.k_BHSD[:, :, keys]).sum(-1) / SHAPE.head_dim**0.5
        rows.append((weight.softmax(-1)[..., None] * v[:, :, keys]).sum(2))
    expected = torch.stack(rows, 2)
    mine = attention(Longformer(SHAPE, 4, 2), inputs, v)
    torch.testing.assert_close(mine, expected, rtol=0, atol=1e-12)
    assert_same_gradients(mine, expected, [inputs.q_BHTD, inputs.k_BHSD, v], 1e-12)


def test_bad_settings() -> None:
    for window in (0, SHAPE.train_len + 1):
        with pytest.raises(ConfigError, match=rf"window {window}: give at least 1 token and at most .*, 16"):
            Longformer(SHAPE, window)
    for count in (0, SHAPE.train_len + 1):
        with pytest.raises(ConfigError, match=rf"num_global_tokens {count}: give 1 to 16"):
            Longformer(SHAPE, 4, count)
