"""BAM against the formula of the authors' code, pair by pair. Tolerance 1e-12 in float64, also of gradients."""

import math

import torch
from calls import SHAPE, assert_same_gradients, attention, attention_inputs, logits, values

from posbench.position.alibi_slopes import alibi_slopes
from posbench.schemes.alibi import ALiBi
from posbench.schemes.bam import BAM
from posbench.schemes.nope import NoPE

TOKENS = 20


def test_attention_equals_a_loop() -> None:
    torch.manual_seed(0)
    scheme = BAM(SHAPE).double()
    with torch.no_grad():
        scheme.shape_LH.copy_(
            torch.tensor([-0.3, 0.4, 1.0, 1.7]) + 0.1 * torch.arange(SHAPE.n_layers)[:, None]
        )
        scheme.log_scale_LH.normal_()
    inputs, v = attention_inputs(TOKENS, 1), values(TOKENS)
    heads = []
    for h in range(SHAPE.n_heads):
        rows = []
        for i in range(TOKENS):
            content = (
                inputs.k_BHSD[:, h, : i + 1] @ inputs.q_BHTD[:, h, i, :, None] / math.sqrt(SHAPE.head_dim)
            )
            prior = torch.stack(
                [
                    -((abs(j - i) + 1e-5) ** scheme.shape_LH[1, h]) * scheme.log_scale_LH[1, h].exp()
                    for j in range(i + 1)
                ]
            )
            rows.append(((content[..., 0] + prior).softmax(-1)[..., None] * v[:, h, : i + 1]).sum(1))
        heads.append(torch.stack(rows, 1))
    mine, expected = attention(scheme, inputs, v), torch.stack(heads, 1)
    torch.testing.assert_close(mine, expected, rtol=0, atol=1e-12)
    leaves = [scheme.shape_LH, scheme.log_scale_LH, inputs.q_BHTD, inputs.k_BHSD, v]
    assert_same_gradients(mine, expected, leaves, 1e-12)


def test_it_starts_uniform() -> None:
    """Fault: it started as ALiBi, with one prior for all layers, as an earlier version of the authors' code did."""
    inputs = attention_inputs(TOKENS)
    mine, plain = (logits(scheme, inputs).softmax(-1) for scheme in (BAM(SHAPE).double(), NoPE(SHAPE)))
    torch.testing.assert_close(mine, plain, rtol=0, atol=1e-12)


def test_it_contains_alibi() -> None:
    """Except for the 1e-5 tokens by which distances are longer."""
    scheme, inputs = BAM(SHAPE).double(), attention_inputs(TOKENS)
    with torch.no_grad():
        scheme.shape_LH.fill_(1.0)
        scheme.log_scale_LH.copy_(alibi_slopes(SHAPE.n_heads).log())
    torch.testing.assert_close(logits(scheme, inputs), logits(ALiBi(SHAPE), inputs), rtol=0, atol=1e-5)
