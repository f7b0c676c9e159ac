"""Position Interpolation against transformers' `linear`. Frequencies within 1e-7, attention within 1e-5 (float32)."""

import pytest
import torch
from extended import (
    SHAPE,
    Llama,
    alibi,
    attention,
    attention_inputs,
    by_pairs,
    context,
    hugging_face,
    measured,
    rotary,
    values,
)
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from posbench.errors import ConfigError, IncompatibleError, UndefinedError
from posbench.extensions.pi import PositionInterpolation
from posbench.position.geometry import Geometry
from posbench.schemes.alibi import ALiBi
from posbench.schemes.learned import Learned
from posbench.schemes.nope import NoPE
from posbench.schemes.t5 import T5Bias


@pytest.mark.parametrize("factor", [1.5, 2, 8])
def test_equals_transformers(factor: float) -> None:
    scheme = PositionInterpolation(Llama(SHAPE), context(64), factor)
    reference = hugging_face("linear", factor)
    torch.testing.assert_close(measured(scheme), reference.inv_freq.double(), rtol=0, atol=1e-7)

    inputs, v = attention_inputs(64), values(64)
    q, k = apply_rotary_pos_emb(
        inputs.q_BHTD, inputs.k_BHSD, *reference(inputs.q_BHTD, torch.arange(64)[None])
    )
    expected = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    torch.testing.assert_close(attention(scheme, inputs, v), expected, rtol=0, atol=1e-5)


def test_equals_rotation_by_fractions_of_the_distance() -> None:
    inputs, v = attention_inputs(24), values(24)
    expected = by_pairs(inputs, v, lambda h, q, k, i, j: rotary(q, k, (i - j) / 3))
    actual = attention(PositionInterpolation(Llama(SHAPE), context(24), 3), inputs, v)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-12)


def test_a_bias_interpolates_too() -> None:
    inputs, v = attention_inputs(24), values(24)
    expected = by_pairs(inputs, v, lambda h, q, k, i, j: alibi(h, q, k, (i - j) / 3))
    actual = attention(PositionInterpolation(ALiBi(SHAPE), context(24), 3), inputs, v)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-12)


def test_whole_distances_are_floored() -> None:
    inputs, v = attention_inputs(24), values(24)
    inner = T5Bias(SHAPE, num_buckets=8, max_distance=9).double()
    bias = inner.bias(torch.arange(24)).tolist()
    expected = by_pairs(inputs, v, lambda h, q, k, i, j: float(q @ k) / 8**0.5 + bias[h][(i - j) // 3])
    actual = attention(PositionInterpolation(inner, context(24), 3), inputs, v)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-12)


def test_auto_is_the_evaluated_length_over_the_training_length() -> None:
    assert PositionInterpolation(Llama(SHAPE), context(56)).factor == 3.5
    assert PositionInterpolation(Llama(SHAPE), context(8)).factor == 1
    assert not PositionInterpolation(Llama(SHAPE), context(56)).traits.prefix_stable
    assert PositionInterpolation(Llama(SHAPE), context(56), 3.5).traits.prefix_stable


def test_a_learned_table_reaches_factor_times_its_length() -> None:
    inner = Learned(SHAPE)
    for length in (17, 23, 37, 64, 100, 1000):  # L * (length / L) does not always round to length
        scheme = PositionInterpolation(inner, context(length))
        scheme.check(length)
        x_BTW = torch.zeros(1, length, SHAPE.d_model)
        assert (
            scheme.embed(x_BTW, scheme.assign_positions(Geometry.from_range(0, length)), 0).isfinite().all()
        )
        with pytest.raises(UndefinedError):
            scheme.check(length + length // SHAPE.train_len + 1)


def test_the_interpolated_geometry_is_cached() -> None:
    scheme, geo = PositionInterpolation(Llama(SHAPE), context(64)), Geometry.from_range(0, 64)
    assert scheme.assign_positions(geo) is scheme.assign_positions(geo)


def test_bad_settings() -> None:
    for factor in (0.5, 0, -1, float("nan"), float("inf"), "double"):
        with pytest.raises(ConfigError, match="at least 1, or auto"):
            PositionInterpolation(Llama(SHAPE), context(64), factor)
    with pytest.raises(IncompatibleError, match="needs a scheme with positions"):
        PositionInterpolation(NoPE(SHAPE), context(64))


def test_a_table_that_interpolates_is_compressed_once() -> None:
    """Fault: positions were divided by the factor, and the rows spread over the declared length once more."""
    table = Learned(SHAPE, out_of_range="interpolate")
    length = 2 * SHAPE.train_len
    extended = PositionInterpolation(table, context(length), factor=2.0)
    geo = extended.assign_positions(Geometry.from_range(0, length))
    rows = table.rows_at(geo, geo.q_pos_T)
    torch.testing.assert_close(rows[::2], table.row_NW)
    torch.testing.assert_close(rows[1:-1:2], (table.row_NW[:-1] + table.row_NW[1:]) / 2)
