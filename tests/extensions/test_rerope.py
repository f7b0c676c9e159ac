"""ReRoPE against loops over its definition. Tolerance 1e-12 in float64."""

import math

import pytest
import torch
from extended import SHAPE, Llama, alibi, attention, attention_inputs, by_pairs, context, rotary, values

from posbench.errors import ConfigError, IncompatibleError
from posbench.extensions.rerope import ReRoPE
from posbench.schemes.alibi import ALiBi
from posbench.schemes.kerple_log import KerpleLog
from posbench.schemes.learned import Learned
from posbench.schemes.nope import NoPE
from posbench.schemes.shaw import Shaw
from posbench.schemes.sinusoidal import Sinusoidal


@pytest.mark.parametrize("first", [0, 21])
@pytest.mark.parametrize("window", [1, 5, 8, 23, 24, 100])
def test_equals_its_definition(window: int, first: int) -> None:
    inputs, v = attention_inputs(24, start=first), values(24)
    expected = by_pairs(inputs, v, lambda h, q, k, i, j: rotary(q, k, min(i - j, window)))
    actual = attention(ReRoPE(Llama(SHAPE), context(24), window), inputs, v)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-12)


def test_biases_of_the_distance_are_rectified() -> None:
    inputs, v = attention_inputs(24), values(24)
    expected = by_pairs(inputs, v, lambda h, q, k, i, j: alibi(h, q, k, min(i - j, 5)))
    torch.testing.assert_close(
        attention(ReRoPE(ALiBi(SHAPE), context(24), 5), inputs, v), expected, rtol=0, atol=1e-12
    )
    torch.manual_seed(0)
    kerple = KerpleLog(SHAPE).double()
    p, a = kerple.p_H.clamp(min=0.01).tolist(), kerple.a_H.clamp(min=0.01).tolist()
    expected = by_pairs(
        inputs, v, lambda h, q, k, i, j: float(q @ k) / 8**0.5 - p[h] * math.log(1 + a[h] * min(i - j, 5))
    )
    with torch.no_grad():
        actual = attention(ReRoPE(kerple, context(24), 5), inputs, v)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-12)


def test_relative_values_are_rectified() -> None:
    """A window smaller than Shaw's maximum distance acts as that maximum."""
    torch.manual_seed(0)
    inner = Shaw(SHAPE, max_relative_position=16).double()
    clipped = Shaw(SHAPE, max_relative_position=5).double()
    with torch.no_grad():
        for wide, narrow in zip(inner.parameters(), clipped.parameters(), strict=True):
            narrow.copy_(wide[:, :6])
        inputs, v = attention_inputs(24), values(24)
        actual = attention(ReRoPE(inner, context(24), 5), inputs, v)
        torch.testing.assert_close(actual, attention(clipped, inputs, v), rtol=0, atol=1e-12)


def test_the_window_is_half_of_the_training_length() -> None:
    assert ReRoPE(Llama(SHAPE), context(64)).window == 8


def test_bad_settings() -> None:
    for window in (0, -1, 0.5, "8"):
        with pytest.raises(ConfigError, match="whole number of tokens of at least 1"):
            ReRoPE(Llama(SHAPE), context(64), window)  # type: ignore[arg-type]
    with pytest.raises(IncompatibleError, match="needs a scheme with positions"):
        ReRoPE(NoPE(SHAPE), context(64))
    for absolute in (Learned(SHAPE), Sinusoidal(SHAPE)):
        with pytest.raises(IncompatibleError, match="depends on absolute positions"):
            ReRoPE(absolute, context(64))
