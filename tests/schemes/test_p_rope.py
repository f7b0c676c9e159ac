"""p-RoPE against the rope type "proportional" of transformers, half-split. Tolerance 1e-5: it rotates in float32."""

import pytest
import torch
from calls import SHAPE, assert_same_gradients, attention_inputs
from transformers import LlamaConfig
from transformers.models.llama import modeling_llama as llama

from posbench.errors import ConfigError
from posbench.schemes.p_rope import PRoPE
from posbench.schemes.rope import RoPE


@pytest.mark.parametrize("factor", [0.25, 0.5, 0.75, 1.0])
def test_half_split_equals_transformers(factor: float) -> None:
    inputs = attention_inputs(40)
    config = LlamaConfig(
        hidden_size=SHAPE.d_model,
        num_attention_heads=SHAPE.n_heads,
        rope_parameters={
            "rope_type": "proportional",
            "rope_theta": 500.0,
            "partial_rotary_factor": factor,
        },
    )
    cos, sin = llama.LlamaRotaryEmbedding(config)(inputs.q_BHTD, torch.arange(40)[None])
    theirs = llama.apply_rotary_pos_emb(inputs.q_BHTD, inputs.k_BHSD, cos, sin)
    scheme = PRoPE(SHAPE, factor, rope_theta=500.0, interleaved=False)
    for mine, expected, x in zip(scheme.qk(inputs), theirs, (inputs.q_BHTD, inputs.k_BHSD), strict=True):
        torch.testing.assert_close(mine, expected, rtol=0, atol=1e-5)
        assert_same_gradients(mine, expected, [x], 1e-5)


def test_pairs_rotate_as_in_rope_or_not_at_all() -> None:
    inputs = attention_inputs()
    mine, rope = PRoPE(SHAPE, 0.5).qk(inputs)[0], RoPE(SHAPE).qk(inputs)[0]
    assert torch.equal(mine[..., :4], rope[..., :4])
    assert torch.equal(mine[..., 4:], inputs.q_BHTD[..., 4:])


@pytest.mark.parametrize("factor", [0.0, -0.5, 1.1, 0.2, float("nan")])
def test_bad_settings(factor: float) -> None:
    with pytest.raises(ConfigError, match="give a part of the 4 frequencies"):
        PRoPE(SHAPE, factor)
