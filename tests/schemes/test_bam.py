"""BAM against the formula of the authors' code, pair by pair. Tolerance 1e-12 in float64, also of gradients."""

import math

import torch
from calls import SHAPE, assert_same_gradients, attention, attention_inputs, logits, values

from posbench.schemes.alibi import ALiBi
from posbench.schemes.bam import BAM

TOKENS = 20


def test_attention_equals_a_loop() -> None:
    torch.manual_seed(0)
    scheme = BAM(SHAPE).double()
    with torch.no_grad():
        scheme.shape_H.copy_(torch.tensor([-0.3, 0.4, 1.0, 1.7]))
        scheme.log_scale_H.normal_()
    inputs, v = attention_inputs(TOKENS), values(TOKENS)
    heads = []
    for h in range(SHAPE.n_heads):
        rows = []
        for i in range(TOKENS):
            content = (
                inputs.k_BHSD[:, h, : i + 1] @ inputs.q_BHTD[:, h, i, :, None] / math.sqrt(SHAPE.head_dim)
            )
            prior = torch.stack(
                [
                    -((abs(j - i) + 1e-5) ** scheme.shape_H[h]) * scheme.log_scale_H[h].exp()
                    for j in range(i + 1)
                ]
            )
            rows.append(((content[..., 0] + prior).softmax(-1)[..., None] * v[:, h, : i + 1]).sum(1))
        heads.append(torch.stack(rows, 1))
    mine, expected = attention(scheme, inputs, v), torch.stack(heads, 1)
    torch.testing.assert_close(mine, expected, rtol=0, atol=1e-12)
    leaves = [scheme.shape_H, scheme.log_scale_H, inputs.q_BHTD, inputs.k_BHSD, v]
    assert_same_gradients(mine, expected, leaves, 1e-12)


def test_it_starts_as_alibi() -> None:
    """Except for the 1e-5 tokens by which distances are longer."""
    inputs = attention_inputs(TOKENS)
    torch.testing.assert_close(
        logits(BAM(SHAPE).double(), inputs), logits(ALiBi(SHAPE), inputs), rtol=0, atol=1e-5
    )
