"""Clipped RoPE against a loop over the authors' window, and attention by pairs of complex rotations. Tolerance 1e-12."""

import math

import pytest
import torch
from extended import SHAPE, Llama, attention, attention_inputs, by_pairs, context, measured, values

from posbench.errors import ConfigError, IncompatibleError
from posbench.extensions.clipped_rope import ClippedRoPE
from posbench.position.rotary import compute_inv_freq
from posbench.position.scheme import ModelShape
from posbench.schemes.kerple_log import KerpleLog


def clipped(inv_freq: list[float], clip_low_n: int) -> list[float]:
    """The last min(clip_low_n, M) frequencies times a window whose angles run from 0 to pi, both ends included."""
    clip = min(clip_low_n, len(inv_freq))
    kept = [1.0] * (len(inv_freq) - clip)
    kept += [0.5 * (1 + math.cos(math.pi * c / (clip - 1) if clip > 1 else 0.0)) for c in range(clip)]
    return [theta * window for theta, window in zip(inv_freq, kept, strict=True)]


@pytest.mark.parametrize("clip", [0, 1, 2, 20, 32, 100])
def test_frequencies_equal_the_window_of_the_authors(clip: int) -> None:
    shape = ModelShape(1, 1, 64, 64, 128)
    expected = clipped(compute_inv_freq(64, 10000.0).tolist(), clip)
    found = measured(ClippedRoPE(Llama(shape), context(256, shape), clip), shape)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=1e-15)
    assert clip < 2 or found[-1] == 0


def test_default_clips_periods_above_the_training_length() -> None:
    """Llama 3 at 8192 tokens: a period is above L from frequency 35 on, of 64 with base 500000."""
    shape = ModelShape(1, 1, 128, 128, 8192)
    inv_freq = compute_inv_freq(128, 500000.0).tolist()
    count = sum(2 * math.pi / theta > 8192 for theta in inv_freq)
    assert count == 29
    found = ClippedRoPE(Llama(shape, 500000.0), context(16384, shape)).scale_inv_freq(
        torch.tensor(inv_freq, dtype=torch.float64)
    )
    expected = torch.tensor(clipped(inv_freq, count), dtype=torch.float64)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-15)


def test_attention_equals_a_loop() -> None:
    inputs, v = attention_inputs(24), values(24)
    theta = clipped(compute_inv_freq(8, 10000.0).tolist(), 3)

    def logit(h: int, q: torch.Tensor, k: torch.Tensor, i: int, j: int) -> float:
        total = 0.0
        for m in range(4):
            turn = complex(math.cos((i - j) * theta[m]), math.sin((i - j) * theta[m]))
            total += (complex(q[m], q[m + 4]) * complex(k[m], k[m + 4]).conjugate() * turn).real
        return total / math.sqrt(8)

    actual = attention(ClippedRoPE(Llama(SHAPE), context(24), 3), inputs, v)
    torch.testing.assert_close(actual, by_pairs(inputs, v, logit), rtol=0, atol=1e-12)


def test_bad_settings() -> None:
    with pytest.raises(ConfigError, match=r"n_clipped -1.*at least 0, or null"):
        ClippedRoPE(Llama(SHAPE), context(64), -1)
    with pytest.raises(IncompatibleError, match="needs a scheme with inv_freq"):
        ClippedRoPE(KerpleLog(SHAPE), context(64))
