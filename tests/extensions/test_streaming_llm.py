"""StreamingLLM against a cache that evicts and re-indexes token by token. Tolerance 1e-12 in float64."""

import math
from collections.abc import Callable

import pytest
import torch
from extended import SHAPE, Llama, alibi, attention, attention_inputs, by_pairs, context, rotary, values
from torch import Tensor

from posbench.errors import ConfigError, IncompatibleError
from posbench.extensions.streaming_llm import StreamingLLM
from posbench.extensions.window import Window
from posbench.position.scheme import AttentionInputs
from posbench.schemes.alibi import ALiBi
from posbench.schemes.learned import Learned
from posbench.schemes.nope import NoPE

Logit = Callable[[int, Tensor, Tensor, int], float]


def stream(inputs: AttentionInputs, v: Tensor, sinks: int, window: int, logit: Logit) -> Tensor:
    """Section 3.2: append a token, evict the oldest behind the sinks, number the cache from 0, attend."""
    out = torch.zeros_like(v)
    for b in range(len(v)):
        for h in range(v.shape[1]):
            cache: list[tuple[Tensor, Tensor]] = []
            for i in range(v.shape[2]):
                cache.append((inputs.k_BHSD[b, h, i], v[b, h, i]))
                if len(cache) > sinks + window:
                    del cache[sinks]
                here = len(cache) - 1
                weights = [
                    math.exp(logit(h, inputs.q_BHTD[b, h, i], k, here - place))
                    for place, (k, _) in enumerate(cache)
                ]
                for weight, (_, row) in zip(weights, cache, strict=True):
                    out[b, h, i] += weight / sum(weights) * row
    return out


@pytest.mark.parametrize(
    ("sinks", "window"), [(4, 6), (1, 1), (4, 1), (2, 20), (4, 19), (4, 20), (0, 5), (30, 5)]
)
def test_equals_a_rolling_cache(sinks: int, window: int) -> None:
    inputs, v = attention_inputs(24), values(24)
    expected = stream(inputs, v, sinks, window, lambda h, q, k, distance: rotary(q, k, distance))
    actual = attention(StreamingLLM(Llama(SHAPE), context(24), sinks, window), inputs, v)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-12)


def test_equals_a_rolling_cache_with_a_bias() -> None:
    inputs, v = attention_inputs(24), values(24)
    expected = stream(inputs, v, 3, 5, alibi)
    actual = attention(StreamingLLM(ALiBi(SHAPE), context(24), 3, 5), inputs, v)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-12)


def test_a_suffix_equals_the_rows_of_the_whole() -> None:
    whole, last, v = attention_inputs(24), attention_inputs(24, start=20), values(24)
    scheme = StreamingLLM(Llama(SHAPE), context(24), 4, 6)
    torch.testing.assert_close(
        attention(scheme, last, v), attention(scheme, whole, v)[:, :, 20:], rtol=0, atol=1e-12
    )


def test_without_positions_it_is_a_mask() -> None:
    inputs, v = attention_inputs(24), values(24)
    expected = by_pairs(
        inputs, v, lambda h, q, k, i, j: float(q @ k) / 8**0.5, visible=lambda i, j: i - j < 6 or j < 4
    )
    actual = attention(StreamingLLM(NoPE(SHAPE), context(24), 4, 6), inputs, v)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-12)


def test_without_sinks_it_is_a_window() -> None:
    inputs, v = attention_inputs(24), values(24)
    assert torch.equal(
        attention(StreamingLLM(Llama(SHAPE), context(24), 0, 6), inputs, v),
        attention(Window(Llama(SHAPE), context(24), 6), inputs, v),
    )


def test_by_default_the_cache_is_the_training_length() -> None:
    scheme = StreamingLLM(Llama(SHAPE), context(64))
    assert (scheme.num_sink_tokens, scheme.window) == (4, 12)


def test_bad_settings() -> None:
    """Fault: the error advised null, which this setting does not accept."""
    with pytest.raises(
        ConfigError, match=r"num_sink_tokens -1: give a whole number of tokens of at least 0$"
    ):
        StreamingLLM(Llama(SHAPE), context(64), -1)
    with pytest.raises(ConfigError, match=r"window 0: .* at least 1, or null"):
        StreamingLLM(Llama(SHAPE), context(64), 4, 0)
    with pytest.raises(IncompatibleError, match="depends on absolute positions"):
        StreamingLLM(Learned(SHAPE), context(64))
