"""Transformer-XL against transformers' XLNet. Tolerance 1e-12 in float64; 1e-5 for its float32 table."""

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
    with torch.no_grad():  # larger than at initialization
        scheme.u_HD.normal_()
        scheme.v_HD.normal_()
    return scheme


def xlnet(scheme: TransformerXL, layer: int, q: Tensor, k: Tensor, v: Tensor, table_RW: Tensor) -> Tensor:
    """Returns the output of XLNetRelativeAttention.rel_attn_core, (B, H, T, D)."""
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
    """Returns XLNet's table of distances T .. -T + 1, sines before cosines, in float64."""
    distance = torch.arange(TOKENS, -TOKENS, -1.0, dtype=torch.float64)
    inverse = 10000.0 ** (-torch.arange(0, SHAPE.d_model, 2.0, dtype=torch.float64) / SHAPE.d_model)
    return XLNetModel.positional_embedding(distance, inverse)[:, 0]


@pytest.mark.parametrize("layer", [0, 1])
def test_equals_xlnet(layer: int) -> None:
    scheme, inputs, v = transformer_xl(), attention_inputs(TOKENS, layer), values(TOKENS)
    expected = xlnet(scheme, layer, inputs.q_BHTD, inputs.k_BHSD, v, exact_table())
    mine = attention(scheme, inputs, v)
    torch.testing.assert_close(mine, expected, rtol=0, atol=1e-12)
    leaves = [scheme.key_LWHD, scheme.u_HD, scheme.v_HD, inputs.q_BHTD, inputs.k_BHSD, v]
    assert_same_gradients(mine, expected, leaves, 1e-12)


def test_the_table_is_xlnet_s() -> None:
    model = XLNetModel(
        XLNetConfig(vocab_size=9, d_model=SHAPE.d_model, n_layer=1, n_head=SHAPE.n_heads, d_inner=8)
    )
    table = model.relative_positional_encoding(TOKENS, TOKENS)[:, 0]
    torch.testing.assert_close(table.double(), exact_table(), rtol=0, atol=1e-5)


def test_angle_addition_equals_the_vectors_of_distances() -> None:
    scheme, inputs = transformer_xl(), attention_inputs(TOKENS)
    moved = type(inputs)(
        0,
        inputs.geo.with_positions(inputs.geo.q_pos_T, inputs.geo.k_pos_S),
        inputs.x_BTW,
        inputs.x_BSW,
        inputs.q_BHTD,
        inputs.k_BHSD,
    )
    visible = inputs.geo.visible()
    one, other = (logits(scheme, each)[..., visible] for each in (inputs, moved))
    torch.testing.assert_close(one, other, rtol=0, atol=1e-12)
    assert_same_gradients(one, other, [scheme.key_LWHD, scheme.v_HD, inputs.q_BHTD], 1e-11)


def test_fractional_distances() -> None:
    """The sinusoids at half the distances are those of half the frequencies."""
    scheme, inputs = transformer_xl(), attention_inputs(TOKENS)
    halves = inputs.geo.with_positions(inputs.geo.q_pos_T / 2, inputs.geo.k_pos_S / 2)
    mine = logits(scheme, type(inputs)(0, halves, inputs.x_BTW, inputs.x_BSW, inputs.q_BHTD, inputs.k_BHSD))
    slower = transformer_xl()
    slower.inv_freq_M = scheme.inv_freq_M / 2
    visible = inputs.geo.visible()
    torch.testing.assert_close(mine[..., visible], logits(slower, inputs)[..., visible], rtol=0, atol=1e-12)


def test_layers_have_own_key_matrices_and_share_u_and_v() -> None:
    shapes = [tuple(p.shape) for p in TransformerXL(SHAPE).parameters()]
    assert shapes == [(2, 32, 4, 8), (4, 8), (4, 8)]


def test_bad_settings() -> None:
    with pytest.raises(ConfigError, match="the width is 9"):
        TransformerXL(ModelShape(1, 1, 9, 9, 16))
    for base in (1.0, 0.0):
        with pytest.raises(ConfigError, match="above 1"):
            TransformerXL(SHAPE, base)
