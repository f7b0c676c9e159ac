"""Hard-ALiBi against masks drawn as in the authors' code. Tolerance 1e-12 in float64."""

import pytest
import torch
from calls import SHAPE, attention, attention_inputs, values

from posbench.errors import ConfigError
from posbench.schemes.hard_alibi import HardALiBi

TOKENS = 20


@pytest.mark.parametrize("masked", [1, 2, 3])
def test_attention_equals_masks_by_diagonals(masked: int) -> None:
    inputs, v = attention_inputs(TOKENS), values(TOKENS)
    seen = torch.ones(SHAPE.n_heads, TOKENS, TOKENS, dtype=torch.bool).tril()
    for head in range(masked):
        seen[head] = False
        for below in range(head + 1):
            seen[head, range(below, TOKENS), range(TOKENS - below)] = True
    expected = torch.nn.functional.scaled_dot_product_attention(
        inputs.q_BHTD, inputs.k_BHSD, v, attn_mask=seen
    )
    mine = attention(HardALiBi(SHAPE, masked), inputs, v)
    torch.testing.assert_close(mine, expected, rtol=0, atol=1e-12)
    assert torch.equal(mine[:, 0], v[:, 0])


def test_half_of_the_heads_by_default() -> None:
    assert HardALiBi(SHAPE).reach_H.tolist() == [1, 2, torch.inf, torch.inf]


@pytest.mark.parametrize("masked", [0, 4])
def test_bad_settings(masked: int) -> None:
    with pytest.raises(ConfigError, match="give at least 1 and fewer than all"):
        HardALiBi(SHAPE, masked)
