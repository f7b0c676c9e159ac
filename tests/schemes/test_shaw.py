"""Shaw against Wav2Vec2-BERT (keys) and the paper's sums over pairs (keys and values). Tolerance 1e-12."""

import math
from dataclasses import replace

import pytest
import torch
from calls import SHAPE, assert_same_gradients, attention, attention_inputs, causal, logits, values
from transformers import Wav2Vec2BertConfig
from transformers.models.wav2vec2_bert.modeling_wav2vec2_bert import Wav2Vec2BertSelfAttention

from posbench.errors import ConfigError
from posbench.schemes.shaw import Shaw

CLIP = 5


def shaw() -> Shaw:
    torch.manual_seed(0)
    return Shaw(SHAPE, max_relative_position=CLIP).double()


def test_keys_equal_wav2vec2_bert() -> None:
    scheme = shaw()
    config = Wav2Vec2BertConfig(
        hidden_size=SHAPE.d_model,
        num_attention_heads=SHAPE.n_heads,
        position_embeddings_type="relative_key",
        left_max_position_embeddings=CLIP,
        right_max_position_embeddings=0,
        attention_dropout=0.0,
        attn_implementation="eager",
    )
    theirs = Wav2Vec2BertSelfAttention(config).double().eval()
    # Its rows go from the farthest key to the query itself.
    theirs.distance_embedding.weight = torch.nn.Parameter(scheme.key_LKD[0].detach().flip(0))
    x_BTW = torch.randn(2, 12, SHAPE.d_model, dtype=torch.float64)
    _, weights = theirs(x_BTW, causal(12)[None, None], output_attentions=True)
    q, k = (
        part(x_BTW).unflatten(-1, (SHAPE.n_heads, -1)).transpose(1, 2)
        for part in (theirs.linear_q, theirs.linear_k)
    )
    mine = logits(scheme, replace(attention_inputs(12), q_BHTD=q, k_BHSD=k)).softmax(-1)
    torch.testing.assert_close(mine, weights, rtol=0, atol=1e-12)


@pytest.mark.parametrize("layer", [0, 1])
def test_attention_equals_the_paper_s_equations(layer: int) -> None:
    """Equations 3 and 4, with the clipping of section 3.2."""
    scheme = shaw()
    inputs, v = attention_inputs(12, layer), values(12)
    key_KD, value_KD = scheme.key_LKD[layer], scheme.value_LKD[layer]
    rows = []
    for b in range(2):
        for h in range(SHAPE.n_heads):
            for i in range(12):
                e = [
                    inputs.q_BHTD[b, h, i]
                    @ (inputs.k_BHSD[b, h, j] + key_KD[min(i - j, CLIP)])
                    / math.sqrt(SHAPE.head_dim)
                    for j in range(i + 1)
                ]
                alpha = torch.stack(e).softmax(0)
                rows.append(sum(alpha[j] * (v[b, h, j] + value_KD[min(i - j, CLIP)]) for j in range(i + 1)))
    expected = torch.stack(rows).view(2, SHAPE.n_heads, 12, SHAPE.head_dim)
    mine = attention(scheme, inputs, v)
    torch.testing.assert_close(mine, expected, rtol=0, atol=1e-12)
    assert_same_gradients(
        mine, expected, [scheme.key_LKD, scheme.value_LKD, inputs.q_BHTD, inputs.k_BHSD, v], 1e-12
    )


def test_tables_are_shared_by_heads_and_not_by_layers() -> None:
    assert [tuple(p.shape) for p in shaw().parameters()] == [(2, CLIP + 1, 8), (2, CLIP + 1, 8)]


def test_fractional_distances_use_the_row_of_their_integer_part() -> None:
    thirds = torch.arange(600).double() / 3
    assert shaw().row(thirds[301] - thirds[301 - 13 : 302]).tolist() == [
        4,
        4,
        3,
        3,
        3,
        2,
        2,
        2,
        1,
        1,
        1,
        0,
        0,
        0,
    ]


def test_bad_settings() -> None:
    for clip in (0, -1):
        with pytest.raises(ConfigError, match="at least 1 token"):
            Shaw(SHAPE, clip)
