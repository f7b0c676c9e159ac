"""Stick-breaking against the paper's process, key by key. Tolerance 1e-12 in float64."""

import math

import pytest
import torch
from calls import SHAPE, assert_same_gradients, attention, attention_inputs, values
from torch import Tensor

from posbench.position.scheme import AttentionInputs
from posbench.schemes.stick_breaking import StickBreaking

TOKENS = 14


def stick(inputs: AttentionInputs, v: Tensor, remainder: bool) -> Tensor:
    rows = []
    for b in range(2):
        for h in range(SHAPE.n_heads):
            for i in range(TOKENS):
                remaining, out = torch.ones((), dtype=torch.float64), torch.zeros_like(v[b, h, 0])
                for j in reversed(range(i)):
                    share = 1 / (
                        1
                        + torch.exp(
                            -(inputs.q_BHTD[b, h, i] @ inputs.k_BHSD[b, h, j]) / math.sqrt(SHAPE.head_dim)
                        )
                    )
                    out = out + remaining * share * v[b, h, j]
                    remaining = remaining * (1 - share)
                rows.append(out + remaining * v[b, h, i] if remainder else out)
    return torch.stack(rows).view(2, SHAPE.n_heads, TOKENS, SHAPE.head_dim)


@pytest.mark.parametrize("remainder", [False, True])
def test_attention_equals_the_broken_stick(remainder: bool) -> None:
    inputs, v = attention_inputs(TOKENS), values(TOKENS)
    mine, expected = attention(StickBreaking(SHAPE, remainder), inputs, v), stick(inputs, v, remainder)
    torch.testing.assert_close(mine, expected, rtol=0, atol=1e-12)
    assert_same_gradients(mine, expected, [inputs.q_BHTD, inputs.k_BHSD, v], 1e-12)


def test_the_first_token_attends_to_nothing_but_the_remainder() -> None:
    inputs, v = attention_inputs(TOKENS), values(TOKENS)
    assert (attention(StickBreaking(SHAPE), inputs, v)[:, :, 0] == 0).all()
    torch.testing.assert_close(
        attention(StickBreaking(SHAPE, remainder=True), inputs, v)[:, :, 0], v[:, :, 0], rtol=0, atol=1e-12
    )
