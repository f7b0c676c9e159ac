"""Log-n attention against SSMax's closed form, pair by pair, and Su's printed scale. Tolerance 1e-12 in float64.

No library has it; Su prints the scale log n / log 512.
"""

import math

import pytest
import torch
from calls import SHAPE, assert_same_gradients, attention, attention_inputs, values

from posbench.errors import ConfigError
from posbench.schemes.log_n import LogNAttention


@pytest.mark.parametrize("base", [None, 512])
def test_equals_the_formula_pair_by_pair(base: int | None) -> None:
    """Weights are proportional to (i + 1)^(q . k / (sqrt(D) ln b)), without a scale or a softmax."""
    inputs, v = attention_inputs(), values()
    rows = []
    for i in range(20):
        products = (inputs.q_BHTD[:, :, i : i + 1] * inputs.k_BHSD[:, :, : i + 1]).sum(-1)
        power = products / (math.sqrt(SHAPE.head_dim) * math.log(base or SHAPE.train_len))
        weight = torch.tensor(i + 1.0, dtype=torch.float64) ** power
        rows.append((weight / weight.sum(-1, keepdim=True))[..., None].mul(v[:, :, : i + 1]).sum(2))
    expected = torch.stack(rows, 2)
    mine = attention(LogNAttention(SHAPE, base), inputs, v)
    torch.testing.assert_close(mine, expected, rtol=0, atol=1e-12)
    assert_same_gradients(mine, expected, [inputs.q_BHTD, inputs.k_BHSD, v], 1e-12)


def test_the_scale_is_one_at_the_base_and_grows() -> None:
    scale_T = LogNAttention(SHAPE).logit_scale(attention_inputs(64))
    assert float(scale_T[15]) == 1
    assert float(scale_T[63]) == pytest.approx(1.5)
    assert float(LogNAttention(SHAPE, 512).logit_scale(attention_inputs(64))[63]) == pytest.approx(2 / 3)


def test_bad_settings() -> None:
    for base in (1, 0, -5):
        with pytest.raises(ConfigError, match="at least 2 tokens"):
            LogNAttention(SHAPE, base)
