"""NTK-aware scaling against transformers' `dynamic` and x-transformers. Frequencies within 1e-6 (float32)."""

import pytest
import torch
from extended import SHAPE, Llama, attention, attention_inputs, context, hugging_face, measured, values
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb
from x_transformers.x_transformers import RotaryEmbedding

from posbench.errors import ConfigError, IncompatibleError
from posbench.extensions.ntk import NTK
from posbench.position.rotary import compute_inv_freq
from posbench.position.scheme import ModelShape
from posbench.schemes.alibi import ALiBi
from posbench.schemes.partial_rope import PartialRoPE

WIDE = ModelShape(n_layers=1, n_heads=1, head_dim=64, d_model=64, train_len=128)


@pytest.mark.parametrize("factor", [1.0, 2.0, 3.5, 8.0])
@pytest.mark.parametrize("base", [10000.0, 500.0])
@pytest.mark.parametrize("shape", [SHAPE, WIDE])
def test_frequencies_equal_x_transformers(shape: ModelShape, base: float, factor: float) -> None:
    reference = RotaryEmbedding(shape.head_dim, base=base, base_rescale_factor=factor).inv_freq.double()
    scheme = NTK(Llama(shape, base), context(64, shape), factor)
    torch.testing.assert_close(measured(scheme, shape), reference, rtol=1e-5, atol=1e-6)


def test_auto_equals_transformers_dynamic() -> None:
    """transformers' factor 1 at length k * L is the static factor k; its factor k would be k^2 - k + 1 there."""
    inputs, v = attention_inputs(56), values(56)
    cos, sin = hugging_face("dynamic", 1.0)(inputs.q_BHTD, torch.arange(56)[None])
    q, k = apply_rotary_pos_emb(inputs.q_BHTD, inputs.k_BHSD, cos, sin)
    expected = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    actual = attention(NTK(Llama(SHAPE), context(56)), inputs, v)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5)
    assert not NTK(Llama(SHAPE), context(56)).traits.prefix_stable


def test_the_fastest_and_the_slowest_frequency() -> None:
    """bloc97 keeps the fastest and divides the slowest by exactly k; Su divides it by k^(1 - 2 / d)."""
    inv_freq_M = compute_inv_freq(8, 10000.0)
    bloc97, su = (
        NTK(Llama(SHAPE), context(64), 4, exponent).scale_inv_freq(inv_freq_M) / inv_freq_M
        for exponent in ("bloc97", "su")
    )
    assert [float(bloc97[0]), float(bloc97[-1])] == [1, 0.25]
    assert float(su[0]) == 1
    assert float(su[-1]) == pytest.approx(4 ** (-1 + 2 / 8), rel=1e-14)


def test_su_multiplies_rope_theta_by_k() -> None:
    scheme = NTK(Llama(SHAPE, 10000.0), context(64), 4, "su")
    torch.testing.assert_close(measured(scheme), compute_inv_freq(8, 40000.0), rtol=1e-12, atol=0)


def test_frequency_scalings_compose() -> None:
    twice = NTK(NTK(Llama(SHAPE), context(64), 2), context(64), 3)
    torch.testing.assert_close(
        measured(twice), measured(NTK(Llama(SHAPE), context(64), 6)), rtol=1e-12, atol=0
    )


def test_bad_settings() -> None:
    with pytest.raises(ConfigError, match=r"exponent of ntk 'bloc98'.*did you mean 'bloc97'"):
        NTK(Llama(SHAPE), context(64), 4, "bloc98")
    with pytest.raises(ConfigError, match="at least 1"):
        NTK(Llama(SHAPE), context(64), 0.9)
    with pytest.raises(IncompatibleError, match="needs a scheme with inv_freq"):
        NTK(ALiBi(SHAPE), context(64))
    pair = ModelShape(1, 8, 2, 16, 16)
    with pytest.raises(IncompatibleError, match="at least 4 dimensions rotate"):
        NTK(Llama(pair), context(64, pair))
    half = ModelShape(1, 4, 4, 16, 16)
    with pytest.raises(IncompatibleError, match="PartialRoPE has one"):
        NTK(PartialRoPE(half, 0.5), context(64, half))
