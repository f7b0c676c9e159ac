"""GRAPE-M against Llama's rotation with trained frequencies. Tolerance 1e-12, also of gradients."""

import pytest
import torch
from calls import SHAPE, assert_same_gradients, attention_inputs
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from posbench.errors import ConfigError
from posbench.schemes.grape_m import GrapeM
from posbench.schemes.rope import RoPE


@pytest.mark.parametrize("layer", [0, 1])
def test_half_split_equals_llama_s_rotation(layer: int) -> None:
    torch.manual_seed(0)
    inputs, scheme = (
        attention_inputs(40, layer),
        GrapeM(SHAPE, 500.0, log_freq_scale=4.0, interleaved=False).double(),
    )
    with torch.no_grad():
        scheme.log_LM.normal_()
    # The authors store the whole log frequency, times log_freq_scale.
    start = torch.log(500.0 ** (-torch.arange(0, 8, 2, dtype=torch.float64) / 8))
    frequency = torch.exp((4.0 * start + scheme.log_LM[layer]) / 4.0)
    angle = torch.arange(40).double()[:, None] * torch.cat((frequency, frequency))
    theirs = apply_rotary_pos_emb(inputs.q_BHTD, inputs.k_BHSD, angle.cos()[None], angle.sin()[None])
    for mine, expected, x in zip(scheme.qk(inputs), theirs, (inputs.q_BHTD, inputs.k_BHSD), strict=True):
        torch.testing.assert_close(mine, expected, rtol=0, atol=1e-12)
        assert_same_gradients(mine, expected, [x], 1e-12)
        mine_grad, expected_grad = (
            torch.autograd.grad((y * y.detach().roll(1, -1)).sum(), scheme.log_LM, retain_graph=True)[0]
            for y in (mine, expected)
        )
        assert mine_grad[layer].abs().max() > 0
        torch.testing.assert_close(mine_grad, expected_grad, rtol=1e-10, atol=1e-10)


def test_starts_as_rope() -> None:
    inputs = attention_inputs()
    for mine, rope in zip(GrapeM(SHAPE).qk(inputs), RoPE(SHAPE).qk(inputs), strict=True):
        torch.testing.assert_close(mine, rope, rtol=0, atol=1e-14)


@pytest.mark.parametrize("log_freq_scale", [0.0, -1.0])
def test_bad_settings(log_freq_scale: float) -> None:
    with pytest.raises(ConfigError, match="a number above 0"):
        GrapeM(SHAPE, log_freq_scale=log_freq_scale)
