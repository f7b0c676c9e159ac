"""Gated attention against Qwen3-Next's layer. Tolerance 1e-6, also of gradients: its norms run in float32."""

import pytest
import torch
from calls import SHAPE, assert_same_gradients, attention, attention_inputs, causal, values
from transformers import Qwen3NextConfig
from transformers.models.qwen3_next.modeling_qwen3_next import Qwen3NextAttention

from posbench.kernels.dispatcher import KernelDispatcher
from posbench.model.architecture import Architecture
from posbench.model.attention import Attention
from posbench.position.geometry import Geometry
from posbench.schemes.gated_attention import GatedAttention

TOKENS, HEADS, DIM, WIDTH = 20, SHAPE.n_heads, SHAPE.head_dim, SHAPE.d_model
NOPE = {"_target_": "posbench.schemes.nope.NoPE"}


@pytest.mark.parametrize("layer", [0, 1])
def test_a_layer_equals_qwen3_next(layer: int) -> None:
    torch.manual_seed(0)
    config = Qwen3NextConfig(
        hidden_size=WIDTH,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS,
        head_dim=DIM,
        attn_implementation="eager",
    )
    theirs = Qwen3NextAttention(config, layer).double()
    architecture = Architecture(2, WIDTH, HEADS, HEADS, DIM, WIDTH, qkv_bias=False, qk_norm="head")
    mine, scheme = Attention(architecture, layer).double(), GatedAttention(SHAPE, NOPE).double()
    query_and_gate = theirs.q_proj.weight.unflatten(0, (HEADS, 2, DIM))
    with torch.no_grad():
        query, gate = query_and_gate.unbind(1)
        mine.qkv.weight.copy_(torch.cat((query.flatten(0, 1), theirs.k_proj.weight, theirs.v_proj.weight)))
        mine.out.weight.copy_(theirs.o_proj.weight)
        scheme.weight_LGW[layer] = gate.flatten(0, 1)
    x_BTW = torch.randn(2, TOKENS, WIDTH, dtype=torch.float64, requires_grad=True)
    unrotated = torch.ones(1, TOKENS, DIM).double(), torch.zeros(1, TOKENS, DIM).double()
    expected, _ = theirs(x_BTW, unrotated, causal(TOKENS)[None, None])
    geo = Geometry.from_range(0, TOKENS)
    found, _ = mine(x_BTW, scheme, geo, KernelDispatcher("dense"))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    assert_same_gradients(found, expected, [x_BTW], 1e-6)
    (ours,) = torch.autograd.grad(found.sum(), [scheme.weight_LGW], retain_graph=True)
    (fused,) = torch.autograd.grad(expected.sum(), [theirs.q_proj.weight])
    other = fused.unflatten(0, (HEADS, 2, DIM))[:, 1].flatten(0, 1)
    torch.testing.assert_close(ours[layer], other, rtol=0, atol=1e-6)


def test_a_gate_for_each_head_is_one_for_all_its_elements() -> None:
    headwise, elementwise = GatedAttention(SHAPE, NOPE, "headwise"), GatedAttention(SHAPE, NOPE)
    assert headwise.weight_LGW.shape == (2, HEADS, WIDTH)
    with torch.no_grad():
        elementwise.weight_LGW.copy_(headwise.weight_LGW.repeat_interleave(DIM, 1))
    inputs, v = attention_inputs(), values()
    out, x_BTW = attention(headwise, inputs, v), inputs.x_BTW
    assert x_BTW is not None
    torch.testing.assert_close(
        headwise.double().attention_output(out, x_BTW, 1),
        elementwise.double().attention_output(out, x_BTW, 1),
        rtol=0,
        atol=1e-12,
    )
