"""LongRoPE against transformers' `longrope`. Frequencies within 1e-6 (float32), attention within 1e-5."""

import math

import pytest
import torch
from extended import SHAPE, Llama, attention, attention_inputs, context, hugging_face, measured, values
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from posbench.errors import ConfigError, IncompatibleError
from posbench.extensions.longrope import LongRoPE
from posbench.extensions.ntk import NTK
from posbench.position.compose import Layered
from posbench.schemes.alibi import ALiBi
from posbench.schemes.nope import NoPE

LONG, SHORT = [1.0, 1.5, 2.75, 4.0], [1.0, 1.0, 1.25, 1.5]


@pytest.mark.parametrize("factor", [1.0, 4.0, 16.0])
@pytest.mark.parametrize("length", [12, 16, 17, 64])
def test_attention_equals_transformers(length: int, factor: float) -> None:
    """Short factors up to the training length and long ones past it, with the same temperature."""
    inputs, v = attention_inputs(length), values(length)
    reference = hugging_face("longrope", factor, long_factor=LONG, short_factor=SHORT)
    cos, sin = reference(inputs.q_BHTD, torch.arange(length)[None])
    q, k = apply_rotary_pos_emb(inputs.q_BHTD, inputs.k_BHSD, cos, sin)
    expected = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    scheme = LongRoPE(Llama(SHAPE), context(length), factor, LONG, SHORT)
    torch.testing.assert_close(attention(scheme, inputs, v), expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(measured(scheme), reference.inv_freq.double(), rtol=1e-6, atol=1e-9)
    assert scheme.qk_scale == pytest.approx(reference.attention_scaling**2, rel=1e-12)


def test_the_temperature_is_the_paper_s() -> None:
    """sqrt(1 + ln k / ln L) on queries and on keys."""
    assert LongRoPE(Llama(SHAPE), context(64)).qk_scale == 1 + math.log(4) / math.log(16)


def test_without_factors_equals_ntk() -> None:
    torch.testing.assert_close(
        measured(LongRoPE(Llama(SHAPE), context(64))),
        measured(NTK(Llama(SHAPE), context(64))),
        rtol=1e-12,
        atol=0,
    )
    assert torch.equal(measured(LongRoPE(Llama(SHAPE), context(16))), measured(Llama(SHAPE)))


def test_factors_of_the_text_that_is_read() -> None:
    """Fault: built for the training length, as in a folder without a declared length, it read every text with short_factor."""
    short, long = (LongRoPE(Llama(SHAPE), context(length), 4, LONG, SHORT) for length in (16, 64))
    for tokens, expected in ((16, SHORT), (17, LONG)):
        inputs = attention_inputs(tokens)
        transform = short.inv_freq_transform(inputs.geo)
        assert (1 / transform(torch.ones(4, dtype=torch.float64))).tolist() == pytest.approx(expected)
    assert long.inv_freq_transform(attention_inputs(9).geo) == long.scale_inv_freq, (
        "its declared length counts"
    )


def test_frequencies_are_counted_over_all_layers() -> None:
    layered = Layered(SHAPE, [NoPE(SHAPE), Llama(SHAPE)])
    assert LongRoPE(layered, context(64), 4, LONG).counts == {4}


def test_bad_settings() -> None:
    wrong = [
        [],
        [1.0],
        [1.0] * 3,
        [1.0] * 8,
        [1, 2, 3, 0],
        [1, 2, 3, -4],
        [1, 2, 3, math.inf],
        [1, 2, 3, math.nan],
        list("1234"),
        "1234",
        4,
    ]
    for given in wrong:
        with pytest.raises(ConfigError, match=r"^long_factor .* give 4 finite numbers above 0[^\n]*$"):
            LongRoPE(Llama(SHAPE), context(64), 4, given)  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match=r"^short_factor .* give 4 finite numbers above 0"):
            LongRoPE(Llama(SHAPE), context(64), 4, LONG, given)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="at least 1"):
        LongRoPE(Llama(SHAPE), context(64), 0.5)
    with pytest.raises(IncompatibleError, match="needs a scheme with inv_freq"):
        LongRoPE(ALiBi(SHAPE), context(64))
