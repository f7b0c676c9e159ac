"""Key-gated GRAPE-A against a loop on x-transformers' slopes. Tolerance 1e-12 in float64, also of gradients."""

import math

import torch
from calls import SHAPE, assert_same_gradients, attention, attention_inputs, values
from x_transformers.x_transformers import AlibiPositionalBias

from posbench.schemes.grape_a_key_gated import GrapeAKeyGated

TOKENS = 20


def test_attention_equals_a_loop() -> None:
    torch.manual_seed(0)
    scheme = GrapeAKeyGated(SHAPE).double()
    with torch.no_grad():
        for parameter in scheme.parameters():
            parameter.normal_()
    inputs, v = attention_inputs(TOKENS, 1), values(TOKENS)
    slopes = AlibiPositionalBias(SHAPE.n_heads, SHAPE.n_heads).slopes.flatten().tolist()
    q, k, dims = inputs.q_BHTD, inputs.k_BHSD, SHAPE.head_dim
    heads = []
    for h in range(SHAPE.n_heads):
        u = scheme.u_LHD[1, h] / scheme.u_LHD[1, h].norm()
        omega = slopes[h] * torch.log1p(torch.exp(scheme.omega_LH[1, h]))
        rows = []
        for i in range(TOKENS):
            logits = [
                (q[:, h, i] * k[:, h, j]).sum(-1) / math.sqrt(dims)
                - (i - j) * omega * torch.log1p(torch.exp(k[:, h, j] @ u / math.sqrt(dims)))
                for j in range(i + 1)
            ]
            rows.append((torch.stack(logits, -1).softmax(-1)[..., None] * v[:, h, : i + 1]).sum(1))
        heads.append(torch.stack(rows, 1))
    mine, expected = attention(scheme, inputs, v), torch.stack(heads, 1)
    torch.testing.assert_close(mine, expected, rtol=0, atol=1e-12)
    assert_same_gradients(mine, expected, [*scheme.parameters(), q, k, v], 1e-11)
