"""TUPE against the steps of the authors' code. Tolerance 1e-12 in float64.

guolinke/TUPE, fairseq/modules/transformer_sentence_encoder.py, is not a package: its steps are written out here for
the whole matrix, with its resets of the first row and column. T5's biases are those of transformers.
"""

import math

import pytest
import torch
from calls import SHAPE, assert_same_gradients, attention, attention_inputs, causal, values
from torch import Tensor
from transformers.models.t5.modeling_t5 import T5Attention

from posbench.errors import ConfigError, UndefinedError
from posbench.schemes.tupe import TUPE

LEN = SHAPE.train_len


def tupe(rel_pos_bias: bool, out_of_range: str = "undefined") -> TUPE:
    torch.manual_seed(0)
    scheme = TUPE(SHAPE, rel_pos_bias, num_buckets=8, max_distance=12, out_of_range=out_of_range).double()
    with torch.no_grad():
        scheme.theta_H.normal_()
    return scheme


def position_bias(scheme: TUPE, others_to_first: Tensor, first_to_others: Tensor) -> Tensor:
    """Returns (H, T, T) as their forward, with its additional first row of embeddings, which the resets overwrite."""
    norm = torch.nn.LayerNorm(SHAPE.d_model).double()
    weight = norm(torch.cat((torch.randn(1, SHAPE.d_model, dtype=torch.float64), scheme.row_NW)))
    pos_proj = torch.cat([p.flatten(1) for p in (scheme.query_WHD, scheme.key_WHD)], 1)
    pos_q, pos_k = (weight @ pos_proj).view(LEN + 1, 2, SHAPE.n_heads, -1).permute(1, 2, 0, 3)
    pos_q = pos_q * float(SHAPE.d_model / SHAPE.n_heads * 2) ** -0.5
    bias = torch.bmm(pos_q, pos_k.transpose(1, 2))[:, 1:, 1:].clone()
    if scheme.bias_KH is not None:
        position = torch.arange(LEN)
        bucket = T5Attention._relative_position_bucket(
            position - position[:, None], bidirectional=False, num_buckets=8, max_distance=12
        )
        bias = bias + scheme.bias_KH[bucket].permute(2, 0, 1)
    bias[:, :, 0] = others_to_first.view(-1, 1)
    bias[:, 0, :] = first_to_others.view(-1, 1)
    return bias


@pytest.mark.parametrize("rel_pos_bias", [False, True])
def test_equals_the_authors_steps(rel_pos_bias: bool) -> None:
    """For any logits of the first query: under a causal mask it sees itself only."""
    scheme, inputs, v = tupe(rel_pos_bias), attention_inputs(LEN), values(LEN)
    for first_to_others in (0.0, 7.0):
        bias = position_bias(scheme, scheme.theta_H, torch.full((SHAPE.n_heads,), first_to_others).double())
        content = inputs.q_BHTD @ inputs.k_BHSD.mT / math.sqrt(2 * SHAPE.head_dim)
        expected = (content + bias + causal(LEN)).softmax(-1) @ v
        mine = attention(scheme, inputs, v)
        torch.testing.assert_close(mine, expected, rtol=0, atol=1e-12)
        leaves = [*scheme.parameters(), inputs.q_BHTD, inputs.k_BHSD, v]
        assert_same_gradients(mine, expected, leaves, 1e-12)


def test_one_table_and_one_pair_of_projections_serve_all_layers() -> None:
    shapes = {name: tuple(p.shape) for name, p in tupe(True).named_parameters()}
    assert shapes == {
        "row_NW": (16, 32),
        "query_WHD": (32, 4, 8),
        "key_WHD": (32, 4, 8),
        "theta_H": (4,),
        "bias_KH": (8, 4),
    }
    assert "bias_KH" not in dict(tupe(False).named_parameters())


def test_past_its_length() -> None:
    with pytest.raises(UndefinedError, match=r"16 rows has no position 16"):
        tupe(True).check(LEN + 1)
    clamped = tupe(False, "clamp")
    clamped.check(LEN + 4)
    bias = clamped.attention_bias(attention_inputs(LEN + 4)).value(attention_inputs(LEN + 4).geo, slice(None))
    torch.testing.assert_close(bias[:, LEN:], bias[:, LEN - 1 : LEN].expand(-1, 4, -1), rtol=0, atol=1e-12)
    assert not tupe(False, "interpolate").traits.prefix_stable


def test_bad_settings() -> None:
    for buckets, max_distance in ((1, 128), (32, 16)):
        with pytest.raises(ConfigError, match="at least 2 buckets"):
            TUPE(SHAPE, True, buckets, max_distance)
    with pytest.raises(ConfigError, match=r"'clip'.*clamp, interpolate, undefined, wrap"):
        TUPE(SHAPE, out_of_range="clip")
