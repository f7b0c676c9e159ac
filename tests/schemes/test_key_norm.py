"""KeyNorm against cosines times the norm of the query, kexue.fm/archives/9859. Tolerance 1e-12 in float64."""

from dataclasses import replace

import torch
from calls import SHAPE, assert_same_gradients, attention_inputs, logits

from posbench.schemes.key_norm import KeyNorm
from posbench.schemes.rope import RoPE

ROPE = {"_target_": "posbench.schemes.rope.RoPE"}


def test_logits_are_the_query_s_norm_times_a_cosine() -> None:
    inputs = attention_inputs()
    q, k = RoPE(SHAPE).qk(inputs)
    cosine = torch.nn.functional.cosine_similarity(q[:, :, :, None], k[:, :, None], dim=-1)
    expected = q.norm(dim=-1, keepdim=True) * cosine
    seen = inputs.geo.visible()
    mine = logits(KeyNorm(SHAPE, ROPE), inputs)[..., seen]
    torch.testing.assert_close(mine, expected[..., seen], rtol=0, atol=1e-12)
    assert_same_gradients(mine, expected[..., seen], [inputs.q_BHTD, inputs.k_BHSD], 1e-11)


def test_the_norm_of_a_key_has_no_effect() -> None:
    inputs = attention_inputs()
    longer = replace(inputs, k_BHSD=inputs.k_BHSD * 7)
    torch.testing.assert_close(
        KeyNorm(SHAPE, ROPE).qk(longer)[1], KeyNorm(SHAPE, ROPE).qk(inputs)[1], rtol=0, atol=1e-12
    )


def test_normalized_keys_have_the_norm_of_random_keys() -> None:
    """The norm may replace 1/sqrt(D): D independent standard normal entries have a norm near sqrt(D)."""
    k = KeyNorm(SHAPE, ROPE).qk(attention_inputs())[1]
    torch.testing.assert_close(
        k.norm(dim=-1), torch.full(k.shape[:-1], SHAPE.head_dim**0.5).double(), rtol=0, atol=1e-6
    )
