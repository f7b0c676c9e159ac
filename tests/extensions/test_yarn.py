"""YaRN against transformers (ramp of the code) and the definition in the paper. Frequencies within 1e-6 (float32)."""

import math

import pytest
import torch
from extended import SHAPE, Llama, attention, attention_inputs, context, hugging_face, measured, values
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from posbench.errors import ConfigError, IncompatibleError
from posbench.extensions.yarn import YaRN
from posbench.position.rotary import compute_inv_freq
from posbench.position.scheme import ModelShape
from posbench.schemes.kerple_log import KerpleLog


def head_shape(dims: int, train_len: int) -> ModelShape:
    return ModelShape(1, 1, dims, dims, train_len)


@pytest.mark.parametrize("factor", [1.0, 2.0, 3.5, 16.0])
@pytest.mark.parametrize("base", [10000.0, 500.0])
@pytest.mark.parametrize(("dims", "train_len"), [(8, 16), (16, 64), (64, 128), (64, 2048), (128, 4096)])
def test_dimensions_equal_transformers(dims: int, train_len: int, base: float, factor: float) -> None:
    shape = head_shape(dims, train_len)
    scheme = YaRN(Llama(shape, base), context(64, shape), factor)
    reference = hugging_face("yarn", factor, shape, base)
    torch.testing.assert_close(measured(scheme, shape), reference.inv_freq.double(), rtol=2e-5, atol=1e-7)
    assert scheme.qk_scale == pytest.approx(reference.attention_scaling**2, rel=1e-12)


@pytest.mark.parametrize(("dims", "base", "train_len"), [(64, 150000.0, 4096), (16, 500.0, 64)])
def test_fractional_dimensions_equal_transformers_without_truncation(
    dims: int, base: float, train_len: int
) -> None:
    """gpt-oss: the ramp starts and ends between two frequencies."""
    shape = head_shape(dims, train_len)
    scheme = YaRN(Llama(shape, base), context(64, shape), 32.0, "fractional_dimensions")
    reference = hugging_face("yarn", 32.0, shape, base, truncate=False).inv_freq.double()
    torch.testing.assert_close(measured(scheme, shape), reference, rtol=2e-5, atol=1e-7)
    whole = measured(YaRN(Llama(shape, base), context(64, shape), 32.0), shape)
    assert (whole / reference - 1).abs().max() > 1e-3


@pytest.mark.parametrize("factor", [1.0, 4.0])
def test_attention_equals_transformers(factor: float) -> None:
    inputs, v = attention_inputs(64), values(64)
    cos, sin = hugging_face("yarn", factor)(inputs.q_BHTD, torch.arange(64)[None])
    q, k = apply_rotary_pos_emb(inputs.q_BHTD, inputs.k_BHSD, cos, sin)
    expected = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    actual = attention(YaRN(Llama(SHAPE), context(64), factor), inputs, v)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("fast", "slow"), [(32.0, 1.0), (16.0, 2.0)])
@pytest.mark.parametrize("train_len", [16, 128, 2048])
def test_rotations_equal_the_paper(train_len: int, fast: float, slow: float) -> None:
    """Section 3.2, for each frequency: r is the number of rotations within the training length."""
    shape = head_shape(64, train_len)
    scheme = YaRN(Llama(shape), context(64, shape), 8, "rotations", beta_fast=fast, beta_slow=slow)
    expected = []
    for m in range(32):
        theta = 10000.0 ** (-2 * m / 64)
        r = train_len / (2 * math.pi / theta)
        gamma = 0.0 if r < slow else 1.0 if r > fast else (r - slow) / (fast - slow)
        expected.append((1 - gamma) * theta / 8 + gamma * theta)
    torch.testing.assert_close(
        measured(scheme, shape), torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=1e-15
    )


def test_the_two_ramps_differ_by_up_to_144_percent() -> None:
    shape = head_shape(64, 2048)
    inv_freq_M = compute_inv_freq(64, 10000.0)
    code, paper = (
        YaRN(Llama(shape), context(64, shape), 8, ramp).scale_inv_freq(inv_freq_M)
        for ramp in ("dimensions", "rotations")
    )
    assert float((code / paper).max()) == pytest.approx(2.44, abs=0.005)


def test_temperature_equals_the_paper_or_is_off() -> None:
    """Section 3.4: 1 / sqrt(t) = 0.1 ln s + 1, and logits are divided by t."""
    assert YaRN(Llama(SHAPE), context(64), 4).qk_scale == (0.1 * math.log(4) + 1) ** 2
    assert YaRN(Llama(SHAPE), context(64), 4, temperature=0.0).qk_scale == 1
    scale = YaRN(Llama(SHAPE), context(64), 4).logit_scale(attention_inputs(4))
    assert scale is not None
    assert float(scale) == (0.1 * math.log(4) + 1) ** 2


def test_bad_settings() -> None:
    with pytest.raises(
        ConfigError, match=r"ramp of YaRN 'dims'.*dimensions, fractional_dimensions, rotations"
    ):
        YaRN(Llama(SHAPE), context(64), 4, "dims")
    for fast, slow in ((1.0, 32.0), (1.0, 1.0), (32.0, 0.0)):
        with pytest.raises(ConfigError, match="beta_fast > beta_slow > 0"):
            YaRN(Llama(SHAPE), context(64), 4, beta_fast=fast, beta_slow=slow)
    with pytest.raises(ConfigError, match="0 is off"):
        YaRN(Llama(SHAPE), context(64), 4, temperature=-0.1)
    with pytest.raises(ConfigError, match="at least 1"):
        YaRN(Llama(SHAPE), context(64), 0)
    with pytest.raises(IncompatibleError, match="needs a scheme with inv_freq"):
        YaRN(KerpleLog(SHAPE), context(64))
