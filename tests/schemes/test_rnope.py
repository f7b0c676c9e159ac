"""RNoPE against SmolLM3. Tolerance 1e-5: it rotates in float32."""

from dataclasses import replace

import pytest
import torch
from calls import SHAPE, attention, attention_inputs, causal, values
from transformers import SmolLM3Config
from transformers.models.smollm3.modeling_smollm3 import SmolLM3Attention, SmolLM3RotaryEmbedding

from posbench.errors import ConfigError
from posbench.schemes.rnope import RNoPE

ROPE = {"_target_": "posbench.schemes.rope.RoPE", "rope_theta": 500.0, "interleaved": False}
DEEP = replace(SHAPE, n_layers=6)


@pytest.mark.parametrize(("interval", "layer"), [(2, 0), (2, 1), (2, 4), (3, 1), (3, 2), (3, 5)])
def test_attention_equals_smollm3(interval: int, layer: int) -> None:
    config = SmolLM3Config(
        hidden_size=SHAPE.d_model,
        num_hidden_layers=6,
        num_attention_heads=SHAPE.n_heads,
        num_key_value_heads=SHAPE.n_heads,
        no_rope_layer_interval=interval,
        rope_parameters={"rope_type": "default", "rope_theta": 500.0},
        attn_implementation="eager",
        pad_token_id=0,
    )
    theirs = SmolLM3Attention(config, layer).double().eval()
    for projection in (theirs.q_proj, theirs.k_proj, theirs.v_proj, theirs.o_proj):
        torch.nn.init.normal_(projection.weight, std=0.3)
    x_BTW = torch.randn(2, 20, SHAPE.d_model, dtype=torch.float64)
    rotation = SmolLM3RotaryEmbedding(config)(x_BTW, torch.arange(20)[None])
    expected, _ = theirs(x_BTW, rotation, causal(20)[None, None])
    q, k, v = (
        part(x_BTW).unflatten(-1, (SHAPE.n_heads, -1)).transpose(1, 2)
        for part in (theirs.q_proj, theirs.k_proj, theirs.v_proj)
    )
    inputs = replace(attention_inputs(20, layer), q_BHTD=q, k_BHSD=k)
    mine = theirs.o_proj(attention(RNoPE(DEEP, ROPE, interval), inputs, v).transpose(1, 2).flatten(-2))
    torch.testing.assert_close(mine, expected, rtol=0, atol=1e-5)


def test_layers_differ() -> None:
    inputs, v = attention_inputs(), values()
    scheme = RNoPE(SHAPE, ROPE)
    rotated, plain = (attention(scheme, replace(inputs, layer=layer), v) for layer in (0, 1))
    assert (rotated - plain).abs().max() > 1e-3


def test_bad_settings() -> None:
    for shape, interval in ((SHAPE, 1), (SHAPE, 0), (replace(SHAPE, n_layers=1), 2)):
        with pytest.raises(ConfigError, match="at least 2 layers"):
            RNoPE(shape, ROPE, interval)
