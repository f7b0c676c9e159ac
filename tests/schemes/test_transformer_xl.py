"""Transformer-XL against XLNet's attention in transformers. Tolerance 1e-12 in float64; 1e-5 with its own float32 table."""

import pytest
import torch
from calls import SHAPE, assert_same_gradients, attention, attention_inputs, logits, values
from torch import Tensor
from transformers import XLNetConfig
from transformers.models.xlnet.modeling_xlnet import XLNetModel, XLNetRelativeAttention

from posbench.errors import ConfigError
from posbench.position.scheme import ModelShape
from posbench.schemes.transformer_xl import TransformerXL

TOKENS = 20


def transformer_xl(base: float = 10000.0) -> TransformerXL:
    torch.manual_seed(0)
    scheme = TransformerXL(SHAPE, base).double()
    with torch.no_grad():  # large enough to be seen
        scheme.u_HD.normal_()
        scheme.v_HD.normal_()
    return scheme


def xlnet(scheme: TransformerXL, layer: int, q: Tensor, k: Tensor, v: Tensor, table_RW: Tensor) -> Tensor:
    """(B, H, T, D) by XLNetRelativeAttention.rel_attn_core."""
    config = XLNetConfig(d_model=SHAPE.d_model, n_head=SHAPE.n_heads, dropout=0.0)
    theirs = XLNetRelativeAttention(config).double().eval()
    for name, given in (("r_w_bias", scheme.u_HD), ("r_r_bias", scheme.v_HD)):
        del theirs._parameters[name]
        setattr(theirs, name, given)
    k_head_r = torch.einsum("ibh,hnd->ibnd", table_RW[:, None].expand(-1, 2, -1), scheme.key_LWHD[layer])
    mask = torch.ones(TOKENS, TOKENS, dtype=torch.float64).triu(1)[:, :, None, None]
    heads = (x.permute(2, 0, 1, 3) for x in (q, k, v))
    return theirs.rel_attn_core(*heads, k_head_r, attn_mask=mask).permute(1, 2, 0, 3)


def exact_table() -> Tensor:
    """Their table of distances T .. -T + 1, sines before cosines, in float64."""
    distance = torch.arange(TOKENS, -TOKENS, -1.0, dtype=torch.float64)
    inverse = 10000.0 ** (-torch.arange(0, SHAPE.d_model, 2.0, dtype=torch.float64) / SHAPE.d_model)
    return XLNetModel.positional_embedding(distance, inverse)[:, 0]


@pytest.mark.parametrize("layer", [0, 1])
def test_equals_xlnet(layer: int) -> None:
    scheme, at, v = transformer_xl(), attention_inputs(TOKENS, layer), values(TOKENS)
    expected = xlnet(scheme, layer, at.q_BHTD, at.k_BHSD, v, exact_table())
    mine = attention(scheme, at, v)
    torch.testing.assert_close(mine, expected, rtol=0, atol=1e-12)
    leaves = [scheme.key_LWHD, scheme.u_HD, scheme.v_HD, at.q_BHTD, at.k_BHSD, v]
    assert_same_gradients(mine, expected, leaves, 1e-12)


def test_its_table_is_xlnet_s_own() -> None:
    model = XLNetModel(
        XLNetConfig(vocab_size=9, d_model=SHAPE.d_model, n_layer=1, n_head=SHAPE.n_heads, d_inner=8)
    )
    table = model.relative_positional_encoding(TOKENS, TOKENS)[:, 0]
    torch.testing.assert_close(table.double(), exact_table(), rtol=0, atol=1e-5)


def test_angle_addition_equals_the_vectors_of_distances() -> None:
    scheme, at = transformer_xl(), attention_inputs(TOKENS)
    moved = type(at)(
        0, at.geo.with_positions(at.geo.q_pos_T, at.geo.k_pos_S), at.x_BTW, at.x_BSW, at.q_BHTD, at.k_BHSD
    )
    visible = at.geo.visible()
    one, other = (logits(scheme, each)[..., visible] for each in (at, moved))
    torch.testing.assert_close(one, other, rtol=0, atol=1e-12)
    assert_same_gradients(one, other, [scheme.key_LWHD, scheme.v_HD, at.q_BHTD], 1e-11)


def test_fractional_distances_are_between_whole_ones() -> None:
    """At half the distances the sinusoids are those of half the frequencies."""
    scheme, at = transformer_xl(), attention_inputs(TOKENS)
    halves = at.geo.with_positions(at.geo.q_pos_T / 2, at.geo.k_pos_S / 2)
    mine = logits(scheme, type(at)(0, halves, at.x_BTW, at.x_BSW, at.q_BHTD, at.k_BHSD))
    slower = transformer_xl()
    slower.inv_freq_M = scheme.inv_freq_M / 2
    visible = at.geo.visible()
    torch.testing.assert_close(mine[..., visible], logits(slower, at)[..., visible], rtol=0, atol=1e-12)


def test_key_matrices_belong_to_layers_and_u_and_v_to_all() -> None:
    shapes = [tuple(p.shape) for p in TransformerXL(SHAPE).parameters()]
    assert shapes == [(2, 32, 4, 8), (4, 8), (4, 8)]


def test_bad_settings() -> None:
    with pytest.raises(ConfigError, match="the width is 9"):
        TransformerXL(ModelShape(1, 1, 9, 9, 16))
    for base in (1.0, 0.0):
        with pytest.raises(ConfigError, match="above 1"):
            TransformerXL(SHAPE, base)
