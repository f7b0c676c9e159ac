"""Llama 3.1 scaling against transformers' `llama3`. Frequencies within 1e-6 (float32), attention within 1e-5."""

import pytest
import torch
from extended import SHAPE, Llama, attention, attention_inputs, context, hugging_face, measured, values
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from posbench.errors import ConfigError, IncompatibleError
from posbench.extensions.llama3 import Llama3
from posbench.extensions.yarn import YaRN
from posbench.position.scheme import ModelShape
from posbench.schemes.alibi import ALiBi


@pytest.mark.parametrize("factor", [1.0, 3.5, 8.0])
@pytest.mark.parametrize(("low", "high"), [(1.0, 4.0), (2.0, 32.0)])
@pytest.mark.parametrize(
    ("dims", "train_len", "base"), [(8, 16, 10000.0), (64, 128, 500.0), (128, 8192, 5e5)]
)
def test_equals_transformers(
    dims: int, train_len: int, base: float, low: float, high: float, factor: float
) -> None:
    shape = ModelShape(1, 1, dims, dims, train_len)
    scheme = Llama3(Llama(shape, base), context(64, shape), factor, low, high)
    reference = hugging_face("llama3", factor, shape, base, low_freq_factor=low, high_freq_factor=high)
    torch.testing.assert_close(measured(scheme, shape), reference.inv_freq.double(), rtol=2e-5, atol=1e-9)
    assert reference.attention_scaling == 1


def test_attention_equals_transformers() -> None:
    inputs, v = attention_inputs(64), values(64)
    reference = hugging_face("llama3", 4.0, low_freq_factor=1.0, high_freq_factor=4.0)
    q, k = apply_rotary_pos_emb(
        inputs.q_BHTD, inputs.k_BHSD, *reference(inputs.q_BHTD, torch.arange(64)[None])
    )
    expected = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    torch.testing.assert_close(
        attention(Llama3(Llama(SHAPE), context(64)), inputs, v), expected, rtol=0, atol=1e-5
    )


def test_equals_the_ramp_of_yarn_s_paper_with_other_ends() -> None:
    shape = ModelShape(1, 1, 128, 128, 8192)
    yarn = YaRN(
        Llama(shape), context(64, shape), 8, "rotations", beta_fast=4.0, beta_slow=1.0, temperature=0.0
    )
    torch.testing.assert_close(
        measured(Llama3(Llama(shape), context(64, shape), 8), shape),
        measured(yarn, shape),
        rtol=1e-12,
        atol=0,
    )


def test_bad_settings() -> None:
    for low, high in ((4.0, 1.0), (1.0, 1.0), (0.0, 4.0)):
        with pytest.raises(ConfigError, match="high_freq_factor > low_freq_factor > 0"):
            Llama3(Llama(SHAPE), context(64), 4, low, high)
    with pytest.raises(ConfigError, match="at least 1"):
        Llama3(Llama(SHAPE), context(64), 0.5)
    with pytest.raises(IncompatibleError, match="needs a scheme with inv_freq"):
        Llama3(ALiBi(SHAPE), context(64))
