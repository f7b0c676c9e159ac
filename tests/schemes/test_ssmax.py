"""SSMax against its definition, n^(s z_i) / sum n^(s z_j), row by row. Tolerance 1e-12 in float64."""

from dataclasses import replace

import pytest
import torch
from calls import SHAPE, assert_same_gradients, attention, attention_inputs, logits, values

from posbench.errors import ConfigError
from posbench.schemes.rope import RoPE
from posbench.schemes.ssmax import SSMax

ROPE = {"_target_": "posbench.schemes.rope.RoPE"}


@pytest.mark.parametrize("layer", [0, 1])
def test_attention_equals_powers_of_the_number_of_keys(layer: int) -> None:
    scheme = SSMax(SHAPE, ROPE).double()
    with torch.no_grad():
        scheme.s_LH.copy_(torch.rand(2, 4) + 0.1)
    inputs, v = attention_inputs(12, layer), values(12)
    z = logits(RoPE(SHAPE), inputs)
    rows = []
    for i in range(12):
        n = torch.tensor(i + 1.0, dtype=torch.float64)
        power = n ** (scheme.s_LH[layer][:, None] * z[:, :, i, : i + 1])
        rows.append(((power / power.sum(-1, keepdim=True))[..., None] * v[:, :, : i + 1]).sum(2))
    expected = torch.stack(rows, 2)
    mine = attention(scheme, inputs, v)
    torch.testing.assert_close(mine, expected, rtol=0, atol=1e-12)
    assert_same_gradients(mine, expected, [scheme.s_LH, inputs.q_BHTD, inputs.k_BHSD, v], 1e-11)


def test_the_initial_mean_scale_is_one() -> None:
    scale = SSMax(SHAPE, ROPE).logit_scale(attention_inputs(SHAPE.train_len))
    torch.testing.assert_close(scale.mean(-1), torch.ones(SHAPE.n_heads).double(), rtol=0, atol=1e-7)
    paper = SSMax(replace(SHAPE, train_len=1024), ROPE)
    assert round(float(paper.s_LH.detach()[0, 0]), 3) == pytest.approx(0.168, abs=1e-3)


def test_nested_scales_multiply() -> None:
    twice = SSMax(SHAPE, {"_target_": "posbench.schemes.ssmax.SSMax", "base_scheme": ROPE})
    inputs = attention_inputs()
    torch.testing.assert_close(twice.logit_scale(inputs), SSMax(SHAPE, ROPE).logit_scale(inputs) ** 2)


def test_bad_settings() -> None:
    with pytest.raises(ConfigError, match="at least 2 tokens"):
        SSMax(replace(SHAPE, train_len=1), ROPE)
