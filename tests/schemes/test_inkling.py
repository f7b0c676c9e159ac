"""Inkling against transformers' InklingRelativeLogits. Tolerance 1e-12 in float64, also of gradients."""

import pytest
import torch
from calls import SHAPE, assert_same_gradients, attention, attention_inputs, causal, values
from transformers.models.inkling.modeling_inkling import InklingRelativeLogits

from posbench.errors import ConfigError
from posbench.schemes.inkling import Inkling

TOKENS = 20


@pytest.mark.parametrize("extent", [1, 5, 16])
def test_attention_equals_transformers(extent: int) -> None:
    torch.manual_seed(0)
    scheme = Inkling(SHAPE, d_rel=3, rel_extent=extent).double()
    with torch.no_grad():
        for parameter in scheme.parameters():
            parameter.normal_()
    inputs, v = attention_inputs(TOKENS, 1), values(TOKENS)
    theirs = InklingRelativeLogits(3, extent).double()
    del theirs.proj
    theirs.proj = scheme.profile_LRN[1]  # type: ignore[assignment]
    relative = (inputs.x_BTW @ scheme.weight_LRW[1].T).unflatten(-1, (SHAPE.n_heads, 3))
    positions = torch.arange(TOKENS)
    bias = theirs(relative, positions, positions) + causal(TOKENS)
    expected = torch.nn.functional.scaled_dot_product_attention(
        inputs.q_BHTD, inputs.k_BHSD, v, attn_mask=bias
    )
    mine = attention(scheme, inputs, v)
    torch.testing.assert_close(mine, expected, rtol=0, atol=1e-12)
    leaves = [scheme.weight_LRW, scheme.profile_LRN, inputs.q_BHTD, inputs.k_BHSD, v]
    assert_same_gradients(mine, expected, leaves, 1e-12)


def test_the_extent_defaults_to_the_training_length() -> None:
    assert Inkling(SHAPE).profile_LRN.shape == (2, 16, 16)


@pytest.mark.parametrize("setting", [{"d_rel": 0}, {"rel_extent": 0}, {"rel_extent": 17}])
def test_bad_settings(setting: dict) -> None:
    with pytest.raises(ConfigError, match="give at least 1"):
        Inkling(SHAPE, **setting)
