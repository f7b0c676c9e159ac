"""DeBERTa against transformers' DebertaV2, clipped and in buckets. Tolerance 1e-6 (its scale is float32); equal buckets."""

import math
from dataclasses import replace

import pytest
import torch
from calls import SHAPE, assert_same_gradients, attention, attention_inputs, logits, values
from torch import Tensor
from transformers import DebertaV2Config
from transformers.models.deberta_v2.modeling_deberta_v2 import (
    DisentangledSelfAttention,
    make_log_bucket_position,
)

from posbench.errors import ConfigError
from posbench.schemes.deberta import DeBERTa

CLIP = 5
EXACT = {"rtol": 0, "atol": 1e-12}


def deberta(clip: int = CLIP, buckets: int | None = None, p2c_rows: str = "paper") -> DeBERTa:
    torch.manual_seed(0)
    return DeBERTa(SHAPE, clip, buckets, p2c_rows).double()


def transformers_bias(scheme: DeBERTa, layer: int, kind: str, q: Tensor, k: Tensor) -> Tensor:
    """Returns one of its two biases, scaled by 1/sqrt(3D), for all pairs of positions, (B, H, T, T)."""
    config = DebertaV2Config(
        hidden_size=SHAPE.d_model,
        num_attention_heads=SHAPE.n_heads,
        relative_attention=True,
        max_relative_positions=scheme.max_relative_positions,
        position_buckets=scheme.position_buckets or -1,
        pos_att_type=[kind],
    )
    theirs = DisentangledSelfAttention(config).double().eval()
    span, rows = scheme.span, scheme.row_NW
    # Their table has both directions; the rows that a causal model does not read are random.
    both = torch.cat((torch.randn_like(rows), rows)) if len(rows) == span else rows
    if kind == "p2c" and scheme.paper:
        return pair_by_pair(scheme, layer, k, rows)
    project = scheme.key_LWHD if kind == "c2p" else scheme.query_LWHD
    module = theirs.pos_key_proj if kind == "c2p" else theirs.pos_query_proj
    del module._parameters["weight"]
    module.weight = project[layer].flatten(1).T
    torch.nn.init.zeros_(module.bias)
    bias = theirs.disentangled_attention_bias(q.flatten(0, 1), k.flatten(0, 1), None, both, 3)
    return bias.view(*q.shape[:3], -1)


def pair_by_pair(scheme: DeBERTa, layer: int, k: Tensor, rows: Tensor) -> Tensor:
    """The last term of equation 4 with delta(j, i) of equation 3, pair by pair."""
    table = torch.einsum("nw,whd->hnd", rows, scheme.query_LWHD[layer])
    tokens, span = k.shape[2], scheme.span
    out = []
    for i in range(tokens):
        for j in range(tokens):
            if scheme.position_buckets is None:
                apart = j - i
            else:
                apart = int(
                    make_log_bucket_position(
                        torch.tensor(j - i), scheme.position_buckets, scheme.max_relative_positions
                    )
                )
            delta = 0 if apart <= -span else 2 * span - 1 if apart >= span else apart + span
            out.append((k[:, :, j] * table[:, delta]).sum(-1) / math.sqrt(3 * SHAPE.head_dim))
    return torch.stack(out, -1).unflatten(-1, (tokens, tokens))


@pytest.mark.parametrize("p2c_rows", ["paper", "code"])
@pytest.mark.parametrize(("clip", "buckets"), [(CLIP, None), (40, None), (12, 6), (30, 8)])
@pytest.mark.parametrize("layer", [0, 1])
def test_equals_transformers(clip: int, buckets: int | None, p2c_rows: str, layer: int) -> None:
    """Both biases and the scale; the paper's rows of position-to-content, which transformers lacks, pair by pair."""
    scheme, inputs, v = deberta(clip, buckets, p2c_rows), attention_inputs(20, layer), values()
    q, k = inputs.q_BHTD, inputs.k_BHSD
    bias = sum(transformers_bias(scheme, layer, kind, q, k) for kind in ("c2p", "p2c"))
    expected = (q @ k.mT / math.sqrt(3 * SHAPE.head_dim) + bias).masked_fill(
        ~inputs.geo.visible(), -torch.inf
    )
    mine = logits(scheme, inputs)
    visible = inputs.geo.visible()
    torch.testing.assert_close(mine[..., visible], expected[..., visible], rtol=0, atol=1e-6)
    out, theirs = attention(scheme, inputs, v), expected.softmax(-1) @ v
    torch.testing.assert_close(out, theirs, rtol=0, atol=1e-6)
    leaves = [scheme.row_NW, scheme.key_LWHD, scheme.query_LWHD, q, k, v]
    assert_same_gradients(out, theirs, leaves, 1e-5)


@pytest.mark.parametrize(("buckets", "clip"), [(32, 128), (256, 512), (8, 20), (7, 50)])
def test_buckets_are_those_transformers_bias(buckets: int, clip: int) -> None:
    distance = torch.arange(5000)
    theirs = make_log_bucket_position(distance, buckets, clip).long()
    assert torch.equal(DeBERTa(SHAPE, clip, buckets).row(distance), theirs)


def test_the_paper_and_the_code_read_different_rows() -> None:
    """With the same weights they agree at distance 0 only."""
    paper, code, inputs = deberta(), deberta(p2c_rows="code"), attention_inputs(12)
    with torch.no_grad():
        code.row_NW.copy_(paper.row_NW[CLIP:])
        code.key_LWHD.copy_(paper.key_LWHD)
        code.query_LWHD.copy_(paper.query_LWHD)
    apart = (logits(paper, inputs) - logits(code, inputs)).abs()
    assert apart.diagonal(dim1=-2, dim2=-1).max() < 1e-12
    assert apart[..., torch.ones(12, 12).tril(-1).bool()].min() > 0


def test_fractional_distances_use_the_row_of_their_integer_part() -> None:
    thirds = torch.arange(600).double() / 3
    assert deberta().row(thirds[301] - thirds[301 - 7 : 302]).tolist() == [2, 2, 1, 1, 1, 0, 0, 0]


def test_only_queries_are_divided_by_the_root_of_three() -> None:
    inputs = attention_inputs()
    q, k = deberta().qk(replace(inputs))
    torch.testing.assert_close(q * math.sqrt(3), inputs.q_BHTD, **EXACT)
    assert k is inputs.k_BHSD


def test_bad_settings() -> None:
    for clip, buckets in ((1, None), (0, None), (128, 3), (16, 30), (16, 0)):
        with pytest.raises(
            ConfigError,
            match=rf"deberta max_relative_positions {clip}, position_buckets {buckets}: give max_relative_positions",
        ):
            DeBERTa(SHAPE, clip, buckets)
    with pytest.raises(ConfigError, match=r"'papers'.*did you mean 'paper'"):
        DeBERTa(SHAPE, p2c_rows="papers")
