"""HWFA against the description of kexue.fm/archives/9603 and 9731, token by token. Tolerance 1e-12 in float64."""

import math
from dataclasses import replace

import pytest
import torch
from calls import SHAPE, assert_same_gradients, attention, attention_inputs, values

from posbench.errors import ConfigError
from posbench.schemes.hwfa import HWFA
from posbench.schemes.rope import RoPE

ROPE = {"_target_": "posbench.schemes.rope.RoPE"}
DEEP = replace(SHAPE, n_layers=4)


@pytest.mark.parametrize("layer", range(4))
def test_attention_equals_the_description(layer: int) -> None:
    inputs, v = attention_inputs(40, layer), values(40)
    last = layer == 3
    q, k = (inputs.q_BHTD, inputs.k_BHSD) if last else RoPE(SHAPE).qk(inputs)
    rows = []
    for i in range(40):
        first = 0 if last else max(0, i - 4)
        scale = math.log(i + 1) / math.log(16) if last else 1.0
        logit = scale * torch.einsum("bhd,bhsd->bhs", q[:, :, i], k[:, :, first : i + 1]) / math.sqrt(8)
        rows.append(torch.einsum("bhs,bhsd->bhd", logit.softmax(-1), v[:, :, first : i + 1]))
    expected = torch.stack(rows, 2)
    mine = attention(HWFA(DEEP, ROPE, window=5), inputs, v)
    torch.testing.assert_close(mine, expected, rtol=0, atol=1e-12)
    assert_same_gradients(mine, expected, [inputs.q_BHTD, inputs.k_BHSD, v], 1e-12)


@pytest.mark.parametrize(
    ("layers", "train_len", "window"), [(24, 512, 17), (2, 16, 12), (3, 64, 24), (4, 16, 4)]
)
def test_default_windows_reach_three_quarters_of_the_training_length(
    layers: int, train_len: int, window: int
) -> None:
    scheme = HWFA(replace(SHAPE, n_layers=layers, train_len=train_len), ROPE)
    assert scheme.window == window
    assert (window - 1) * (layers - 1) + 1 <= 3 * train_len / 4 < window * (layers - 1) + 1


def test_bad_settings() -> None:
    for shape, window in ((SHAPE, 0), (SHAPE, 17), (replace(SHAPE, n_layers=1), None)):
        with pytest.raises(ConfigError, match="give"):
            HWFA(shape, ROPE, window)
