"""SWAN against its description, token by token. Tolerance 1e-12 in float64."""

import math
from dataclasses import replace

import pytest
import torch
from calls import SHAPE, assert_same_gradients, attention, attention_inputs, values

from posbench.errors import ConfigError
from posbench.schemes.rope import RoPE
from posbench.schemes.swan import SWAN

ROPE = {"_target_": "posbench.schemes.rope.RoPE"}
DEEP = replace(SHAPE, n_layers=8)


@pytest.mark.parametrize("layer", range(8))
def test_attention_equals_the_description(layer: int) -> None:
    inputs, v = attention_inputs(40, layer), values(40)
    full = layer in (3, 7)
    q, k = (inputs.q_BHTD, inputs.k_BHSD) if full else RoPE(SHAPE).qk(inputs)
    rows = []
    for i in range(40):
        first = 0 if full else max(0, i - 4)
        scale = max(1.0, math.log(i + 1) / math.log(16)) if full else 1.0
        logit = scale * torch.einsum("bhd,bhsd->bhs", q[:, :, i], k[:, :, first : i + 1]) / math.sqrt(8)
        rows.append(torch.einsum("bhs,bhsd->bhd", logit.softmax(-1), v[:, :, first : i + 1]))
    expected = torch.stack(rows, 2)
    mine = attention(SWAN(DEEP, ROPE, window=5), inputs, v)
    torch.testing.assert_close(mine, expected, rtol=0, atol=1e-12)
    assert_same_gradients(mine, expected, [inputs.q_BHTD, inputs.k_BHSD, v], 1e-12)


def test_within_the_training_length_it_is_not_scaled() -> None:
    scale = SWAN(SHAPE, ROPE).logit_scale(attention_inputs(16, layer=1))
    assert torch.equal(scale, torch.ones(16).double())


@pytest.mark.parametrize("setting", [{"window": 0}, {"window": 17}, {"no_rope_layer_interval": 1}])
def test_bad_settings(setting: dict) -> None:
    with pytest.raises(ConfigError, match="give"):
        SWAN(SHAPE, ROPE, **setting)
