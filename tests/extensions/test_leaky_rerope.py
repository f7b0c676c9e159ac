"""Leaky ReRoPE against loops over its definition. Tolerance 1e-12 in float64."""

import math

import pytest
import torch
from extended import SHAPE, Llama, alibi, attention, attention_inputs, by_pairs, context, rotary, values

from posbench.errors import ConfigError, IncompatibleError
from posbench.extensions.leaky_rerope import LeakyReRoPE
from posbench.extensions.pi import PositionInterpolation
from posbench.extensions.rerope import ReRoPE
from posbench.schemes.alibi import ALiBi
from posbench.schemes.kerple_log import KerpleLog
from posbench.schemes.learned import Learned
from posbench.schemes.nope import NoPE
from posbench.schemes.t5 import T5Bias


def leaky(n: int, window: int, k: float) -> float:
    return n if n < window else window + (n - window) / k


@pytest.mark.parametrize("first", [0, 21])
@pytest.mark.parametrize("k", [1, 2.5, 16])
@pytest.mark.parametrize("window", [1, 5, 8, 23, 24, 100])
def test_equals_its_definition(window: int, k: float, first: int) -> None:
    inputs, v = attention_inputs(24, start=first), values(24)
    expected = by_pairs(inputs, v, lambda h, q, key, i, j: rotary(q, key, leaky(i - j, window, k)))
    actual = attention(LeakyReRoPE(Llama(SHAPE), context(24), window, k), inputs, v)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-12)


def test_biases_of_the_distance_are_leaky() -> None:
    inputs, v = attention_inputs(24), values(24)
    expected = by_pairs(inputs, v, lambda h, q, k, i, j: alibi(h, q, k, leaky(i - j, 5, 3)))
    actual = attention(LeakyReRoPE(ALiBi(SHAPE), context(24), 5, 3), inputs, v)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-12)
    torch.manual_seed(0)
    kerple = KerpleLog(SHAPE).double()
    p, a = kerple.p_H.clamp(min=0.01).tolist(), kerple.a_H.clamp(min=0.01).tolist()
    expected = by_pairs(
        inputs,
        v,
        lambda h, q, k, i, j: float(q @ k) / 8**0.5 - p[h] * math.log(1 + a[h] * leaky(i - j, 5, 3)),
    )
    with torch.no_grad():
        actual = attention(LeakyReRoPE(kerple, context(24), 5, 3), inputs, v)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-12)


def test_tables_of_whole_distances_round_down() -> None:
    inputs, v = attention_inputs(24), values(24)
    inner = T5Bias(SHAPE, num_buckets=8, max_distance=9).double()
    bias = inner.bias(torch.arange(24)).tolist()
    expected = by_pairs(
        inputs, v, lambda h, q, k, i, j: float(q @ k) / 8**0.5 + bias[h][int(leaky(i - j, 5, 3) + 1e-9)]
    )
    actual = attention(LeakyReRoPE(inner, context(24), 5, 3), inputs, v)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-12)


def test_its_limits_are_rerope_and_interpolation() -> None:
    inputs, v = attention_inputs(24), values(24)
    rectified = attention(ReRoPE(Llama(SHAPE), context(24), 5), inputs, v)
    stiff = attention(LeakyReRoPE(Llama(SHAPE), context(24), 5, 1e12), inputs, v)
    torch.testing.assert_close(stiff, rectified, rtol=0, atol=1e-9)
    # With w = 1, distances are those of interpolation by k plus 1 - 1 / k.
    inputs = attention_inputs(24)
    far = LeakyReRoPE(ALiBi(SHAPE), context(24), 1, 3).far_positions(inputs.geo)
    found = inputs.geo.with_positions(*far).distance()
    squeezed = PositionInterpolation(ALiBi(SHAPE), context(24), 3).assign_positions(inputs.geo).distance()
    torch.testing.assert_close(found, squeezed + 2 / 3, rtol=0, atol=1e-12)


@pytest.mark.parametrize("length", [16, 17, 40, 1000])
def test_auto_reaches_the_longest_trained_distance(length: int) -> None:
    scheme = LeakyReRoPE(Llama(SHAPE), context(length))
    assert scheme.window == 8
    assert leaky(length - 1, 8, scheme.factor) == pytest.approx(15, abs=1e-9)
    assert scheme.traits.prefix_stable is False
    assert LeakyReRoPE(Llama(SHAPE), context(length), factor=2).traits.prefix_stable


def test_bad_settings() -> None:
    for window in (0, -1, 0.5, "8"):
        with pytest.raises(ConfigError, match="whole number of tokens of at least 1"):
            LeakyReRoPE(Llama(SHAPE), context(64), window)  # type: ignore[arg-type]
    for factor in (0.5, 0, float("nan"), "double"):
        with pytest.raises(ConfigError, match="at least 1, or auto"):
            LeakyReRoPE(Llama(SHAPE), context(64), 8, factor)
    with pytest.raises(ConfigError, match="at most 14, or a factor"):
        LeakyReRoPE(Llama(SHAPE), context(64), 15)
    with pytest.raises(IncompatibleError, match="needs a scheme with positions"):
        LeakyReRoPE(NoPE(SHAPE), context(64))
    with pytest.raises(IncompatibleError, match="depends on absolute positions"):
        LeakyReRoPE(Learned(SHAPE), context(64))
