"""Cable against the formula of its authors' code, written as a loop over pairs. Tolerance 1e-12 in float64."""

import math

import pytest
import torch
from calls import SHAPE, assert_same_gradients, attention, attention_inputs, values
from torch import Tensor

from posbench.position.scheme import AttentionInputs
from posbench.schemes.cable import Cable

TOKENS = 12


def loop(scheme: Cable, inputs: AttentionInputs, v: Tensor, scale: float) -> Tensor:
    rows = []
    for b in range(2):
        for h in range(SHAPE.n_heads):
            step = torch.log1p(
                torch.exp(
                    inputs.x_BSW[b] @ scheme.weight_LHW[inputs.layer, h] + scheme.bias_LH[inputs.layer, h]
                )
            )
            for i in range(TOKENS):
                logits = [
                    inputs.q_BHTD[b, h, i] @ inputs.k_BHSD[b, h, j] * scale
                    - sum(step[n] for n in range(j + 1, i + 1))
                    for j in range(i + 1)
                ]
                rows.append(torch.stack(logits).softmax(0) @ v[b, h, : i + 1])
    return torch.stack(rows).view(2, SHAPE.n_heads, TOKENS, SHAPE.head_dim)


@pytest.mark.parametrize("scaled", [False, True])
def test_attention_equals_the_sums(scaled: bool) -> None:
    torch.manual_seed(0)
    scheme = Cable(SHAPE, scaled).double()
    with torch.no_grad():
        for parameter in scheme.parameters():
            parameter.normal_()
    inputs, v = attention_inputs(TOKENS, 1), values(TOKENS)
    expected = loop(scheme, inputs, v, 1 / math.sqrt(SHAPE.head_dim) if scaled else 1.0)
    mine = attention(scheme, inputs, v)
    torch.testing.assert_close(mine, expected, rtol=0, atol=1e-12)
    assert_same_gradients(
        mine, expected, [scheme.weight_LHW, scheme.bias_LH, inputs.q_BHTD, inputs.k_BHSD, v], 1e-11
    )
