"""STRING against a loop over its formula and the matrix of the paper's figure 5. Tolerance 1e-12."""

import pytest
import torch
from extended import SHAPE, Llama, alibi, attention, attention_inputs, by_pairs, context, rotary, values

from posbench.errors import ConfigError, IncompatibleError
from posbench.extensions.string import STRING
from posbench.position.geometry import Geometry
from posbench.schemes.alibi import ALiBi
from posbench.schemes.learned import Learned
from posbench.schemes.nope import NoPE


def shifted(i: int, j: int, offset: int, local: int) -> int:
    return i - j if i - j < offset else i - j - offset + local


@pytest.mark.parametrize("first", [0, 21])
@pytest.mark.parametrize(("offset", "local"), [(5, 1), (8, 2), (8, 0), (8, 8), (23, 3), (100, 4)])
def test_equals_its_formula(offset: int, local: int, first: int) -> None:
    inputs, v = attention_inputs(24, start=first), values(24)
    expected = by_pairs(inputs, v, lambda h, q, k, i, j: rotary(q, k, shifted(i, j, offset, local)))
    actual = attention(STRING(Llama(SHAPE), context(24), offset, local), inputs, v)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-12)


def test_the_matrix_of_figure_5() -> None:
    """L = 9: positions 6, 7 and 8 are removed, 0 to 5 are shifted by 3, and a constant W is added from there on."""
    geo = Geometry.from_range(0, 9)
    scheme = STRING(Llama(SHAPE), context(9), 3, 2)
    far = scheme.far_regions(geo)[0].geo
    distance = far.q_pos_T[:, None] - far.k_pos_S
    assert distance[8, :6].tolist() == [7, 6, 5, 4, 3, 2]
    assert distance[3, 0] == 2


def test_biases_of_the_distance_are_shifted() -> None:
    inputs, v = attention_inputs(24), values(24)
    expected = by_pairs(inputs, v, lambda h, q, k, i, j: alibi(h, q, k, shifted(i, j, 5, 1)))
    actual = attention(STRING(ALiBi(SHAPE), context(24), 5, 1), inputs, v)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-12)


def test_defaults_are_the_authors() -> None:
    """A third of the training length and 128 tokens; less than 128 where a third has less than 512."""
    shape = type(SHAPE)(1, 1, 8, 8, 131072)
    scheme = STRING(Llama(shape), context(131072, shape))
    assert (scheme.window, scheme.local_window) == (43690, 128)
    small = STRING(Llama(SHAPE), context(64))
    assert (small.window, small.local_window) == (5, 1)


def test_bad_settings() -> None:
    with pytest.raises(ConfigError, match=r"shifted_offset 0: .*at least 1"):
        STRING(Llama(SHAPE), context(64), 0)
    with pytest.raises(ConfigError, match=r"local_window -1: .*at least 0"):
        STRING(Llama(SHAPE), context(64), 4, -1)
    with pytest.raises(ConfigError, match=r"local_window 5: give at most shifted_offset, 4 tokens"):
        STRING(Llama(SHAPE), context(64), 4, 5)
    with pytest.raises(IncompatibleError, match="needs a scheme with positions"):
        STRING(NoPE(SHAPE), context(64))
    with pytest.raises(IncompatibleError, match="depends on absolute positions"):
        STRING(Learned(SHAPE), context(64))
