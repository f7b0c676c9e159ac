"""Log-n scaling against loops over its formula. Tolerance 1e-12 in float64."""

import math

import pytest
import torch
from extended import SHAPE, Llama, attention, attention_inputs, by_pairs, context, rotary, values

from posbench.errors import ConfigError
from posbench.extensions.log_n import LogNScaling
from posbench.extensions.yarn import YaRN
from posbench.schemes.alibi import ALiBi


@pytest.mark.parametrize("log_base", [None, 4])
@pytest.mark.parametrize("first", [0, 21])
def test_equals_the_formula(first: int, log_base: int | None) -> None:
    inputs, v = attention_inputs(24, start=first), values(24)
    base = log_base or SHAPE.train_len
    expected = by_pairs(
        inputs, v, lambda h, q, k, i, j: max(1.0, math.log(i + 1, base)) * rotary(q, k, i - j)
    )
    actual = attention(LogNScaling(Llama(SHAPE), context(24), log_base), inputs, v)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-12)


def test_additive_terms_are_not_scaled() -> None:
    inputs, v = attention_inputs(24), values(24)
    expected = by_pairs(
        inputs,
        v,
        lambda h, q, k, i, j: (
            max(1.0, math.log(i + 1, 16)) * float(q @ k) / 8**0.5 - 2.0 ** (-4 * (h + 1)) * (i - j)
        ),
    )
    torch.testing.assert_close(
        attention(LogNScaling(ALiBi(SHAPE), context(24)), inputs, v), expected, rtol=0, atol=1e-12
    )


def test_nothing_changes_up_to_the_training_length() -> None:
    scale = LogNScaling(Llama(SHAPE), context(64)).logit_scale(attention_inputs(64))
    assert scale is not None
    assert (scale[:16] == 1).all()
    assert (scale[16:] > 1).all()
    assert float(scale[63]) == pytest.approx(1.5)  # log_16 64


def test_logit_scales_multiply() -> None:
    yarn = YaRN(Llama(SHAPE), context(64), 4)
    both = LogNScaling(yarn, context(64)).logit_scale(attention_inputs(64))
    assert both is not None
    assert float(both[63]) == pytest.approx(1.5 * yarn.qk_scale)


def test_bad_settings() -> None:
    for log_base in (1, 0, -3, 2.5):
        with pytest.raises(ConfigError, match=r"log_base .* at least 2"):
            LogNScaling(Llama(SHAPE), context(64), log_base)  # type: ignore[arg-type]
