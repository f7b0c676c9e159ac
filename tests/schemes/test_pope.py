"""PoPE against x-transformers (tolerance 1e-5: float32) and the paper's sum of cosines (1e-12)."""

import math

import torch
from calls import SHAPE, assert_same_gradients, attention_inputs, logits
from x_transformers.x_transformers import PolarEmbedding, apply_polar_pos_emb

from posbench.schemes.pope import PoPE


def pope() -> PoPE:
    torch.manual_seed(0)
    scheme = PoPE(SHAPE).double()
    with torch.no_grad():
        scheme.delta_HD.uniform_(-2 * math.pi, 0.0)
    return scheme


def test_logits_equal_x_transformers() -> None:
    inputs, scheme = attention_inputs(40), pope()
    theirs = PolarEmbedding(SHAPE.head_dim, SHAPE.n_heads)
    theirs.learned_bias = torch.nn.Parameter(scheme.delta_HD.detach()[:, None].float())
    freqs, bias = theirs(torch.arange(40))
    q, k = apply_polar_pos_emb(inputs.q_BHTD, freqs), apply_polar_pos_emb(inputs.k_BHSD, freqs + bias)
    expected = q @ k.transpose(-1, -2) * SHAPE.head_dim**-0.5
    seen = inputs.geo.visible()
    torch.testing.assert_close(logits(scheme, inputs)[..., seen], expected[..., seen], rtol=0, atol=1e-5)


def test_logits_equal_the_sum_of_cosines() -> None:
    inputs, scheme = attention_inputs(12), pope()
    dims = torch.arange(SHAPE.head_dim, dtype=torch.float64)
    theta = 10000 ** (-dims / SHAPE.head_dim)
    mine, size_q, size_k = (
        logits(scheme, inputs),
        torch.log1p(inputs.q_BHTD.exp()),
        torch.log1p(inputs.k_BHSD.exp()),
    )
    rows = []
    for i in range(12):
        for j in range(i + 1):
            wave = torch.cos((i - j) * theta - scheme.delta_HD)
            rows.append((size_q[:, :, i] * size_k[:, :, j] * wave).sum(-1) / math.sqrt(SHAPE.head_dim))
    expected = torch.stack(rows, -1)
    seen = mine[..., inputs.geo.visible()]
    torch.testing.assert_close(seen, expected, rtol=0, atol=1e-12)
    assert_same_gradients(seen, expected, [scheme.delta_HD, inputs.q_BHTD, inputs.k_BHSD], 1e-11)


def test_phases_are_clamped_and_can_return() -> None:
    scheme, inputs = PoPE(SHAPE).double(), attention_inputs()
    with torch.no_grad():
        scheme.delta_HD.fill_(3.0)
    k = scheme.qk(inputs)[1]
    scheme.delta_HD.data.zero_()
    torch.testing.assert_close(k, scheme.qk(inputs)[1], rtol=0, atol=1e-12)
    k.square().sum().backward()
    scheme.delta_HD.data.fill_(3.0)
    logits(scheme, inputs)[..., 5, 2].sum().backward()
    assert (scheme.delta_HD.grad != 0).all()
