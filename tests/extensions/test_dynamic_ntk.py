"""Dynamic NTK against transformers' `dynamic`. Frequencies within 1e-6 (float32), attention within 1e-5."""

import pytest
import torch
from extended import SHAPE, Llama, attention, attention_inputs, context, hugging_face, measured, values
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from posbench.errors import ConfigError, IncompatibleError
from posbench.extensions.dynamic_ntk import DynamicNTK
from posbench.extensions.ntk import NTK
from posbench.position.geometry import Geometry
from posbench.schemes.alibi import ALiBi


@pytest.mark.parametrize("factor", [1.0, 2.0, 4.0])
@pytest.mark.parametrize("length", [8, 16, 17, 40, 64])
def test_attention_equals_transformers(length: int, factor: float) -> None:
    inputs, v = attention_inputs(length), values(length)
    cos, sin = hugging_face("dynamic", factor)(inputs.q_BHTD, torch.arange(length)[None])
    q, k = apply_rotary_pos_emb(inputs.q_BHTD, inputs.k_BHSD, cos, sin)
    expected = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    actual = attention(DynamicNTK(Llama(SHAPE), context(64), factor), inputs, v)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("factor", "k"), [(1.0, 4.0), (4.0, 13.0)])
def test_the_factor_is_not_the_ratio_of_the_lengths(factor: float, k: float) -> None:
    """At four times the training length, factor 1 scales by 4 and factor 4 by 4^2 - 4 + 1."""
    inputs, v = attention_inputs(64), values(64)
    torch.testing.assert_close(
        attention(DynamicNTK(Llama(SHAPE), context(64), factor), inputs, v),
        attention(NTK(Llama(SHAPE), context(64), k), inputs, v),
        rtol=0,
        atol=1e-12,
    )


def test_the_length_is_the_declared_one() -> None:
    """Not the evaluated length of the context: a prefix is rotated as the whole declared sequence is."""
    scheme = DynamicNTK(Llama(SHAPE), context(1000))
    short, long = Geometry.from_range(0, 20), Geometry.from_range(0, 20, length=64)
    alike = NTK(Llama(SHAPE), context(64), 20 / 16), NTK(Llama(SHAPE), context(64), 64 / 16)
    for geo, static in zip((short, long), alike, strict=True):
        inputs = attention_inputs(20)
        here = type(inputs)(0, geo, inputs.x_BTW, inputs.x_BSW, inputs.q_BHTD, inputs.k_BHSD)
        for actual, reference in zip(scheme.qk(here), static.qk(here), strict=True):
            torch.testing.assert_close(actual, reference, rtol=0, atol=1e-12)
    assert not scheme.traits.prefix_stable


def test_nothing_changes_up_to_the_training_length() -> None:
    assert torch.equal(measured(DynamicNTK(Llama(SHAPE), context(16), 4.0)), measured(Llama(SHAPE)))


def test_angles_are_computed_once_per_length() -> None:
    scheme, inputs = DynamicNTK(Llama(SHAPE), context(64)), attention_inputs(40)
    scheme.qk(inputs)
    held = len(inputs.geo._memo)
    assert held > 0
    scheme.qk(inputs)
    assert len(inputs.geo._memo) == held


def test_bad_settings() -> None:
    for factor in (0.5, 0.0, float("nan")):
        with pytest.raises(ConfigError, match="at least 1"):
            DynamicNTK(Llama(SHAPE), context(64), factor)
    with pytest.raises(ConfigError, match=r"original_max_position_embeddings 0: .* at least 1"):
        DynamicNTK(Llama(SHAPE), context(64), original_max_position_embeddings=0)
    with pytest.raises(IncompatibleError, match="needs a scheme with inv_freq"):
        DynamicNTK(ALiBi(SHAPE), context(64))
