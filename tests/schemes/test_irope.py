"""iRoPE against Llama 4, in layers with RoPE and without. Tolerance 1e-5: theirs rotates in float32."""

from dataclasses import replace

import pytest
import torch
from calls import SHAPE, attention, attention_inputs
from transformers import Llama4TextConfig
from transformers.masking_utils import create_chunked_causal_mask
from transformers.models.llama4.modeling_llama4 import Llama4TextAttention, Llama4TextRotaryEmbedding

from posbench.errors import ConfigError
from posbench.schemes.irope import IRoPE

ROPE = {"_target_": "posbench.schemes.rope.RoPE", "rope_theta": 500.0}
DEEP = replace(SHAPE, n_layers=8)
TOKENS = 50


@pytest.mark.parametrize("layer", [0, 2, 3, 7])
def test_attention_equals_llama_4(layer: int) -> None:
    config = Llama4TextConfig(
        hidden_size=SHAPE.d_model,
        head_dim=SHAPE.head_dim,
        num_hidden_layers=8,
        num_attention_heads=SHAPE.n_heads,
        num_key_value_heads=SHAPE.n_heads,
        use_qk_norm=False,
        attention_chunk_size=16,
        floor_scale=16,
        attn_scale=0.3,
        rope_parameters={"rope_type": "default", "rope_theta": 500.0},
        attn_implementation="eager",
    )
    theirs = Llama4TextAttention(config, layer).eval()
    for projection in (theirs.q_proj, theirs.k_proj, theirs.v_proj, theirs.o_proj):
        torch.nn.init.normal_(projection.weight, std=0.3)
    x_BTW = torch.randn(2, TOKENS, SHAPE.d_model)
    rotation = Llama4TextRotaryEmbedding(config)(x_BTW, torch.arange(TOKENS)[None])
    masked = torch.full((1, 1, TOKENS, TOKENS), -torch.inf).triu(1)
    if config.layer_types[layer] == "chunked_attention":
        masked = create_chunked_causal_mask(
            config=config,
            inputs_embeds=x_BTW,
            attention_mask=None,
            past_key_values=None,
            position_ids=torch.arange(TOKENS)[None],
        )
    expected, _ = theirs(x_BTW, rotation, masked)
    q, k, v = (
        part(x_BTW).unflatten(-1, (SHAPE.n_heads, -1)).transpose(1, 2)
        for part in (theirs.q_proj, theirs.k_proj, theirs.v_proj)
    )
    inputs = replace(attention_inputs(TOKENS, layer, torch.float32), q_BHTD=q, k_BHSD=k)
    mine = theirs.o_proj(attention(IRoPE(DEEP, ROPE, attn_scale=0.3), inputs, v).transpose(1, 2).flatten(-2))
    torch.testing.assert_close(mine, expected, rtol=0, atol=1e-5)


def test_chunk_size_and_floor_scale_default_to_the_training_length() -> None:
    scheme = IRoPE(SHAPE, ROPE)
    assert (scheme.attention_chunk_size, scheme.floor_scale) == (16, 16)
    scale = scheme.logit_scale(attention_inputs(40, layer=1))
    expected = [1 + 0.1 * torch.tensor((i + 1) // 16).double().log1p() for i in range(40)]
    torch.testing.assert_close(scale, torch.stack(expected), rtol=0, atol=1e-14)
    assert scheme.mask(attention_inputs(16)) is None
    assert scheme.logit_scale(attention_inputs()) is None


@pytest.mark.parametrize(
    "setting",
    [
        {"attention_chunk_size": 0},
        {"attention_chunk_size": 17},
        {"floor_scale": 0},
        {"attn_scale": -0.1},
        {"no_rope_layer_interval": 1},
    ],
)
def test_bad_settings(setting: dict) -> None:
    with pytest.raises(ConfigError, match="give"):
        IRoPE(SHAPE, ROPE, **setting)
