"""RePo against transformers' rotation at its positions. Tolerance 1e-12 in float64, also of gradients."""

import math

import torch
from calls import SHAPE, assert_same_gradients, attention, attention_inputs, causal, values
from torch import nn
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from posbench.schemes.repo import RePo

TOKENS = 12


def test_attention_equals_rope_at_positions_by_head() -> None:
    torch.manual_seed(0)
    scheme = RePo(SHAPE, rope_theta=100.0, interleaved=False).double()
    units = SHAPE.d_model // 8
    gate, content = (nn.Linear(SHAPE.d_model, units, bias=False).double() for _ in "gc")
    final = nn.Linear(units, SHAPE.n_heads, bias=False).double()
    with torch.no_grad():
        final.weight.mul_(20)
        for mine, theirs in zip(
            (scheme.gate_LUW, scheme.content_LUW, scheme.final_LHU), (gate, content, final), strict=True
        ):
            mine[1] = theirs.weight
    inputs, v = attention_inputs(TOKENS, 1), values(TOKENS)
    x = inputs.x_BSW
    position = final(torch.nn.functional.silu(gate(x)) * content(x)).transpose(1, 2)
    assert position.std() > 1
    freq = 1 / 100 ** (torch.arange(0, SHAPE.head_dim, 2).double() / SHAPE.head_dim)
    angle = torch.cat([position[..., None] * freq] * 2, -1)
    q, k = zip(
        *(
            apply_rotary_pos_emb(
                inputs.q_BHTD[:, h : h + 1], inputs.k_BHSD[:, h : h + 1], angle[:, h].cos(), angle[:, h].sin()
            )
            for h in range(SHAPE.n_heads)
        ),
        strict=True,
    )
    logits = torch.cat(q, 1) @ torch.cat(k, 1).mT / math.sqrt(SHAPE.head_dim)
    expected = (logits + causal(TOKENS)).softmax(-1) @ v
    found = attention(scheme, inputs, v)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    assert_same_gradients(found, expected, [inputs.q_BHTD, inputs.k_BHSD, v], 1e-12)
    ours = torch.autograd.grad(found.square().sum(), [scheme.gate_LUW, scheme.final_LHU])
    other = torch.autograd.grad(expected.square().sum(), [gate.weight, final.weight])
    for one, reference in zip(ours, other, strict=True):
        torch.testing.assert_close(one[1], reference, rtol=0, atol=1e-10)
