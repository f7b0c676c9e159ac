"""Llama 4's temperature against transformers' Ministral 3 and a loop. Tolerance 1e-12; 1e-6 for float32 factors."""

import math

import pytest
import torch
from extended import SHAPE, Llama, attention, attention_inputs, by_pairs, context, rotary, values
from transformers.models.ministral3.modeling_ministral3 import get_llama_4_attn_scale

from posbench.errors import ConfigError, IncompatibleError
from posbench.extensions.log_n import LogNScaling
from posbench.extensions.temperature import Temperature
from posbench.schemes.alibi import ALiBi
from posbench.schemes.cope import CoPE
from posbench.schemes.tapa import TAPA


@pytest.mark.parametrize(("beta", "scale"), [(0.1, None), (0.5, 5)])
def test_factors_equal_transformers(beta: float, scale: int | None) -> None:
    expected = get_llama_4_attn_scale(torch.arange(100)[None], beta, scale or SHAPE.train_len)[0, 0, :, 0]
    found = Temperature(Llama(SHAPE), context(100), beta, scale).logit_scale(attention_inputs(100))
    assert found is not None
    torch.testing.assert_close(found, expected.double(), rtol=1e-6, atol=0)
    assert (found[: scale or SHAPE.train_len] == 1).all()


@pytest.mark.parametrize("first", [0, 21])
def test_attention_equals_a_loop(first: int) -> None:
    inputs, v = attention_inputs(40, start=first), values(40)
    expected = by_pairs(
        inputs, v, lambda h, q, k, i, j: (1 + 0.1 * math.log(1 + i // 16)) * rotary(q, k, i - j)
    )
    actual = attention(Temperature(Llama(SHAPE), context(40)), inputs, v)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-12)


def test_additive_terms_are_not_scaled() -> None:
    inputs, v = attention_inputs(40), values(40)

    def logit(h: int, q: torch.Tensor, k: torch.Tensor, i: int, j: int) -> float:
        scale = 1 + 0.1 * math.log(1 + i // 16)
        return scale * float(q @ k) / 8**0.5 - 2.0 ** (-4 * (h + 1)) * (i - j)

    actual = attention(Temperature(ALiBi(SHAPE), context(40)), inputs, v)
    torch.testing.assert_close(actual, by_pairs(inputs, v, logit), rtol=0, atol=1e-12)


def test_bad_settings() -> None:
    for beta in (-0.1, math.inf, math.nan):
        with pytest.raises(ConfigError, match=r"beta .* at least 0"):
            Temperature(Llama(SHAPE), context(64), beta)
    with pytest.raises(ConfigError, match=r"floor_scale 0: .*at least 1"):
        Temperature(Llama(SHAPE), context(64), floor_scale=0)


@pytest.mark.parametrize("extension", [Temperature, LogNScaling])
@pytest.mark.parametrize("scheme", [CoPE, TAPA])
def test_logits_that_decide_the_position_are_refused(extension: type, scheme: type) -> None:
    """Fault: a temperature also turned the phase of tapa and moved the positions of cope."""
    with pytest.raises(IncompatibleError, match="scalable logits"):
        extension(scheme(SHAPE), context(100))
