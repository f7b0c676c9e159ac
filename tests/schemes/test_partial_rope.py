"""Partial RoPE against GPT-NeoX (half-split) and GPT-J (interleaved). Tolerance 1e-5: they rotate in float32."""

import pytest
import torch
from calls import SHAPE, assert_same_gradients, attention_inputs
from transformers import GPTNeoXConfig
from transformers.models.gpt_neox import modeling_gpt_neox as neox
from transformers.models.gptj import modeling_gptj as gptj

from posbench.errors import ConfigError
from posbench.schemes.partial_rope import PartialRoPE


@pytest.mark.parametrize("fraction", [0.25, 0.5, 1.0])
def test_half_split_equals_gpt_neox(fraction: float) -> None:
    inputs = attention_inputs(40)
    config = GPTNeoXConfig(
        hidden_size=SHAPE.d_model,
        num_attention_heads=SHAPE.n_heads,
        rope_parameters={"rope_type": "default", "rope_theta": 500.0, "partial_rotary_factor": fraction},
    )
    cos, sin = neox.GPTNeoXRotaryEmbedding(config)(inputs.q_BHTD, torch.arange(40)[None])
    theirs = neox.apply_rotary_pos_emb(inputs.q_BHTD, inputs.k_BHSD, cos, sin)
    scheme = PartialRoPE(SHAPE, fraction, rope_theta=500.0, interleaved=False)
    for mine, expected, x in zip(scheme.qk(inputs), theirs, (inputs.q_BHTD, inputs.k_BHSD), strict=True):
        torch.testing.assert_close(mine, expected, rtol=0, atol=1e-5)
        assert_same_gradients(mine, expected, [x], 1e-5)


def test_interleaved_equals_gptj() -> None:
    inputs = attention_inputs(40)
    sin, cos = gptj.create_sinusoidal_positions(40, 4).double()[None].chunk(2, -1)
    mine = PartialRoPE(SHAPE, 0.5).qk(inputs)[0]
    rotated = gptj.apply_rotary_pos_emb(inputs.q_BHTD[..., :4].transpose(1, 2), sin, cos).transpose(1, 2)
    torch.testing.assert_close(mine, torch.cat((rotated, inputs.q_BHTD[..., 4:]), -1), rtol=0, atol=1e-5)


@pytest.mark.parametrize("fraction", [0.0, -0.5, 1.1, 0.1, 0.4])
def test_bad_settings(fraction: float) -> None:
    with pytest.raises(ConfigError, match="an even number of dimensions"):
        PartialRoPE(SHAPE, fraction)
