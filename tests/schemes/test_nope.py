"""NoPE against the layers of SmolLM3 without positions. Tolerance 1e-6: its softmax is in float32."""

from dataclasses import replace

import torch
from calls import SHAPE, assert_same_gradients, attention, attention_inputs, causal, logits, values
from transformers import SmolLM3Config
from transformers.models.smollm3.modeling_smollm3 import SmolLM3Attention

from posbench.kernels.dense import dense
from posbench.position.call import AttentionCall
from posbench.position.geometry import Geometry
from posbench.schemes.nope import NoPE


def test_equals_a_layer_of_smollm3_without_positions() -> None:
    config = SmolLM3Config(
        hidden_size=SHAPE.d_model,
        num_attention_heads=SHAPE.n_heads,
        num_key_value_heads=SHAPE.n_heads,
        num_hidden_layers=1,
        no_rope_layers=[0],
        attn_implementation="eager",
    )
    theirs = SmolLM3Attention(config, 0).double()
    x_BTW = torch.randn(2, 12, SHAPE.d_model, dtype=torch.float64, requires_grad=True)
    nonsense = torch.full((2, 12, SHAPE.head_dim), torch.nan, dtype=torch.float64)
    expected, _ = theirs(x_BTW, (nonsense, nonsense), causal(12)[None, None])

    q, k, v = (
        part(x_BTW).unflatten(-1, (SHAPE.n_heads, -1)).transpose(1, 2)
        for part in (theirs.q_proj, theirs.k_proj, theirs.v_proj)
    )
    mixed = attention(NoPE(SHAPE), replace(attention_inputs(12), q_BHTD=q, k_BHSD=k), v)
    out = theirs.o_proj(mixed.transpose(1, 2).flatten(-2))
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-6)
    assert_same_gradients(out, expected, [x_BTW, theirs.q_proj.weight], 1e-6)


def test_logits_are_the_scaled_products_alone() -> None:
    inputs = attention_inputs()
    expected = torch.einsum("bhtd,bhsd->bhts", inputs.q_BHTD, inputs.k_BHSD) / SHAPE.head_dim**0.5 + causal(
        20
    )
    torch.testing.assert_close(logits(NoPE(SHAPE), inputs), expected, rtol=0, atol=1e-12)


def test_without_the_causal_mask_it_is_permutation_equivariant() -> None:
    inputs, v = attention_inputs(), values()
    # Queries at the last index see every key.
    last = torch.full((20,), 19)
    geo = Geometry(last, torch.arange(20), last, torch.arange(20), 20, None)
    order = torch.randperm(20, generator=torch.Generator().manual_seed(1))

    def attended(permutation: torch.Tensor) -> torch.Tensor:
        q, k, rows = (x[:, :, permutation] for x in (inputs.q_BHTD, inputs.k_BHSD, v))
        return dense(AttentionCall(q, k, rows, 1.0, geo))[0]

    torch.testing.assert_close(attended(order), attended(torch.arange(20))[:, :, order], rtol=0, atol=1e-12)
