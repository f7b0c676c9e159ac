"""DroPE against a rotation with cosines 1 and sines 0, as in the authors' code, and against a model without positions.

Attention and hidden states within 1e-12 in float64.
"""

from collections.abc import Callable

import pytest
import torch
from extended import Llama, attention, attention_inputs, by_pairs, context, rotary, values
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from posbench.errors import ConfigError, IncompatibleError, LengthError
from posbench.extensions.drope import DroPE
from posbench.model.gpt import GPT, Size
from posbench.position.extension import ExtensionContext
from posbench.position.scheme import ModelShape, PositionScheme
from posbench.schemes.alibi import ALiBi
from posbench.schemes.learned import Learned
from posbench.schemes.nope import NoPE
from posbench.schemes.rope import RoPE

SIZE = Size(n_layers=2, d_model=16, n_heads=2)
SHAPE = SIZE.shape(16)


def test_equals_a_rotation_by_angle_zero() -> None:
    inputs, v = attention_inputs(24), values(24)
    one, zero = torch.ones(2, 24, 8), torch.zeros(2, 24, 8)
    q, k = apply_rotary_pos_emb(inputs.q_BHTD, inputs.k_BHSD, one, zero)
    expected = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    torch.testing.assert_close(
        attention(DroPE(Llama(SHAPE), context(24)), inputs, v), expected, rtol=0, atol=1e-12
    )


@pytest.mark.parametrize("scheme", [RoPE, Llama, ALiBi])
def test_equals_nope_with_the_same_weights(scheme: Callable[[ModelShape], PositionScheme]) -> None:
    """Both models have the same seed, and weights outside the scheme do not depend on it."""
    model, bare = GPT(SIZE, 50, scheme(SHAPE), 0).double(), GPT(SIZE, 50, NoPE(SHAPE), 0).double()
    ids = torch.randint(50, (2, 56))
    dropped = model.with_scheme(DroPE(model.scheme, ExtensionContext(SHAPE, 56)))(ids)[0]
    torch.testing.assert_close(dropped, bare(ids)[0], rtol=0, atol=1e-12)


def test_dropped_positions_allow_any_length() -> None:
    class Short(RoPE):
        def check(self, length: int) -> None:
            if length > 16:
                raise LengthError("at most 16 tokens")

    DroPE(Short(SHAPE), context(64)).check(1000)
    with pytest.raises(LengthError):
        DroPE(Short(SHAPE), context(64), 0.5).check(1000)


def test_a_scale_between_0_and_1_is_interpolation() -> None:
    inputs, v = attention_inputs(24), values(24)
    expected = by_pairs(inputs, v, lambda h, q, k, i, j: rotary(q, k, 0.25 * (i - j)))
    torch.testing.assert_close(
        attention(DroPE(Llama(SHAPE), context(24), 0.25), inputs, v), expected, rtol=0, atol=1e-12
    )


def test_bad_settings() -> None:
    for position_scale in (-0.1, 1.5, float("nan")):
        with pytest.raises(ConfigError, match=r"from 0 \(drop\) to 1"):
            DroPE(Llama(SHAPE), context(64), position_scale)
    with pytest.raises(IncompatibleError, match="needs a scheme with positions"):
        DroPE(NoPE(SHAPE), context(64))
    with pytest.raises(IncompatibleError, match="depends on absolute positions"):
        DroPE(Learned(SHAPE), context(64))
