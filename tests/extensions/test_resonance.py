"""Resonance RoPE: exact repetition of rotations, and rounded wavelengths of transformers' YaRN. Tolerance 1e-12."""

import math
from typing import Any

import pytest
import torch
from extended import Llama, context, hugging_face, measured

from posbench.errors import ConfigError
from posbench.extensions.resonance import Resonance
from posbench.position.geometry import Geometry
from posbench.position.scheme import AttentionInputs, ModelShape

SHAPE = ModelShape(1, 1, 64, 64, 128)


def test_wavelengths_are_the_nearest_whole_numbers() -> None:
    found = 2 * math.pi / measured(Resonance(Llama(SHAPE), context(256, SHAPE)), SHAPE)
    expected = [round(2 * math.pi * 10000.0 ** (2 * m / 64)) for m in range(32)]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-9, atol=0)


def test_with_yarn_those_of_yarn_are_rounded() -> None:
    found = 2 * math.pi / measured(Resonance(Llama(SHAPE), context(512, SHAPE), "auto"), SHAPE)
    yarn = 2 * math.pi / hugging_face("yarn", 4.0, SHAPE).inv_freq.double()
    clear = (yarn - yarn.floor() - 0.5).abs() > 1e-4 * yarn  # transformers' frequencies are float32
    assert clear.sum() > 10
    torch.testing.assert_close(found[clear], yarn[clear].round(), rtol=1e-9, atol=0)
    torch.testing.assert_close(found, yarn, rtol=0.1, atol=0)
    assert Resonance(Llama(SHAPE), context(512, SHAPE), "auto").qk_scale == (0.1 * math.log(4) + 1) ** 2


def test_rotations_repeat_exactly() -> None:
    """Resonance: past the first wavelength a dimension holds only values that it had before."""
    tokens = 200
    x = torch.ones(1, 1, tokens, 64, dtype=torch.float64)
    scheme = Resonance(Llama(SHAPE), context(tokens, SHAPE))
    stream = torch.zeros(1, tokens, 64, dtype=torch.float64)
    rotated = scheme.qk(AttentionInputs(0, Geometry.from_range(0, tokens), stream, stream, x, x))[0][0, 0]
    for m in range(12):
        wavelength = round(2 * math.pi * 10000.0 ** (2 * m / 64))
        torch.testing.assert_close(rotated[wavelength:, m], rotated[:-wavelength, m], rtol=0, atol=1e-11)


def test_frequencies_of_zero_stay_zero() -> None:
    scheme = Resonance(Llama(SHAPE), context(256, SHAPE))
    assert scheme.scale_inv_freq(torch.tensor([1.0, 0.0], dtype=torch.float64))[1] == 0


@pytest.mark.parametrize("factor", [1.0, 4.0])
def test_without_rounding_it_is_yarn(factor: float) -> None:
    found = measured(Resonance(Llama(SHAPE), context(512, SHAPE), factor, integer_wavelengths=False), SHAPE)
    expected = hugging_face("yarn", factor, SHAPE).inv_freq.double()
    torch.testing.assert_close(found, expected, rtol=2e-5, atol=1e-7)


@pytest.mark.parametrize("given", [{"beta_fast": 0.5}, {"temperature": -1.0}, {"ramp": "dims"}])
def test_errors_name_the_extension(given: dict[str, Any]) -> None:
    """Fault: error messages of resonance had the name yarn."""
    with pytest.raises(ConfigError, match=f"Resonance.*{next(iter(given.values()))}"):
        Resonance(Llama(SHAPE), context(256, SHAPE), **given)
