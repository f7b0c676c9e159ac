"""Differential attention against transformers' DiffLlama. Tolerance 1e-6: its lambda is computed in float32."""

from dataclasses import replace

import pytest
import torch
from calls import SHAPE, assert_same_gradients, attention_inputs, causal
from transformers import DiffLlamaConfig
from transformers.models.diffllama.modeling_diffllama import DiffLlamaAttention, DiffLlamaRotaryEmbedding

from posbench.errors import ConfigError
from posbench.kernels.dispatcher import KernelDispatcher
from posbench.schemes.differential import Differential

TOKENS = 20
ROPE = {"_target_": "posbench.schemes.rope.RoPE", "interleaved": False}


@pytest.mark.parametrize("layer", [0, 1])
def test_attention_equals_diffllama(layer: int) -> None:
    torch.manual_seed(0)
    config = DiffLlamaConfig(
        hidden_size=SHAPE.d_model,
        num_attention_heads=SHAPE.n_heads,
        num_key_value_heads=SHAPE.n_heads,
        head_dim=SHAPE.head_dim,
        attn_implementation="eager",
    )
    theirs = DiffLlamaAttention(config, layer).double()
    scheme = Differential(SHAPE, ROPE).double()
    with torch.no_grad():
        scheme.lambda_L4D.normal_(std=0.3)
        for name, row in zip(("q1", "k1", "q2", "k2"), scheme.lambda_L4D[layer], strict=True):
            getattr(theirs, f"lambda_{name}").copy_(row)
    x_BTW = torch.randn(2, TOKENS, SHAPE.d_model, dtype=torch.float64, requires_grad=True)
    rotation = DiffLlamaRotaryEmbedding(config)(x_BTW, torch.arange(TOKENS)[None])
    expected, _ = theirs(x_BTW, rotation, causal(TOKENS)[None, None])
    q, k, v = (
        part(x_BTW).unflatten(-1, (SHAPE.n_heads, -1)).transpose(1, 2)
        for part in (theirs.q_proj, theirs.k_proj, theirs.v_proj)
    )
    inputs = replace(attention_inputs(TOKENS, layer), q_BHTD=q, k_BHSD=k)
    out_BHTD = scheme.attention(inputs, v, KernelDispatcher("auto"))
    mine = theirs.o_proj(out_BHTD.transpose(1, 2).flatten(-2))
    torch.testing.assert_close(mine, expected, rtol=0, atol=1e-6)
    assert_same_gradients(mine, expected, [x_BTW], 1e-5)


def test_an_odd_number_of_heads_forms_no_pairs() -> None:
    with pytest.raises(ConfigError, match="give an even number"):
        Differential(replace(SHAPE, n_heads=3), ROPE)


@pytest.mark.parametrize("base", ["linear_attention.LinearAttention", "kda.KDA", "differential.Differential"])
def test_a_base_without_softmax_attention_is_refused(base: str) -> None:
    """Fault: the base was dropped, and the model was that of nope to the bit."""
    settings = {"_target_": f"posbench.schemes.{base}"}
    if base.endswith("Differential"):
        settings["base_scheme"] = ROPE
    with pytest.raises(
        ConfigError, match="replaces softmax attention, which would ignore attention of Differential"
    ):
        Differential(SHAPE, settings)
