"""T5's buckets and biases against transformers. Equal buckets; tolerance 1e-12 in float64."""

import pytest
import torch
from calls import SHAPE, assert_same_gradients, attention, attention_inputs, causal, values
from transformers import T5Config
from transformers.models.t5.modeling_t5 import T5Attention

from posbench.errors import ConfigError
from posbench.position.relative_buckets import bucket
from posbench.schemes.t5 import T5Bias


@pytest.mark.parametrize(("buckets", "max_distance"), [(32, 128), (16, 128), (32, 200), (8, 20), (33, 100)])
def test_buckets_are_those_of_transformers(buckets: int, max_distance: int) -> None:
    distance = torch.arange(5000)
    theirs = T5Attention._relative_position_bucket(
        -distance, bidirectional=False, num_buckets=buckets, max_distance=max_distance
    )
    assert torch.equal(bucket(distance, buckets, max_distance), theirs)


@pytest.mark.parametrize(("buckets", "max_distance"), [(32, 128), (32, 256), (16, 64), (8, 64), (64, 1024)])
def test_boundaries_are_exact(buckets: int, max_distance: int) -> None:
    """In integers: bucket e + m starts where (n / e)^(b - e) >= (max / e)^m, with e = b / 2 exact buckets."""
    e = buckets // 2
    for n in range(max_distance + 10):
        if n < e:
            expected = n
        else:
            expected = max(
                e + m
                for m in range(buckets - e)
                if n ** (buckets - e) * e**m >= max_distance**m * e ** (buckets - e)
            )
        assert int(bucket(torch.tensor(n), buckets, max_distance)) == expected, n


def test_the_last_bucket_starts_at_113() -> None:
    assert bucket(torch.tensor([112, 113, 10**6]), 32, 128).tolist() == [30, 31, 31]


def test_fractional_distances_are_in_the_bucket_of_their_integer_part() -> None:
    distance = torch.arange(600)
    thirds = torch.arange(600).double() / 3
    for query in (599, 598, 101):  # differences of thirds are not exact integers
        fractional = thirds[query] - thirds[: query + 1]
        whole = (query - distance[: query + 1]) // 3
        assert torch.equal(bucket(fractional, 32, 128), bucket(whole, 32, 128))


def test_attention_equals_that_with_the_biases_of_transformers() -> None:
    scheme = T5Bias(SHAPE, num_buckets=8, max_distance=16).double()
    config = T5Config(
        d_model=SHAPE.d_model,
        d_kv=SHAPE.head_dim,
        num_heads=SHAPE.n_heads,
        relative_attention_num_buckets=8,
        relative_attention_max_distance=16,
        is_decoder=True,
    )
    theirs = T5Attention(config, has_relative_attention_bias=True, layer_idx=0).double()
    theirs.relative_attention_bias.weight = scheme.bias_KH
    inputs, v = attention_inputs(40), values(40)
    expected = torch.nn.functional.scaled_dot_product_attention(
        inputs.q_BHTD, inputs.k_BHSD, v, attn_mask=theirs.compute_bias(40, 40) + causal(40)
    )
    mine = attention(scheme, inputs, v)
    torch.testing.assert_close(mine, expected, rtol=0, atol=1e-12)
    assert_same_gradients(mine, expected, [scheme.bias_KH, inputs.q_BHTD, inputs.k_BHSD, v], 1e-12)


def test_one_table_serves_all_layers() -> None:
    assert [tuple(p.shape) for p in T5Bias(SHAPE).parameters()] == [(32, SHAPE.n_heads)]


@pytest.mark.parametrize(("buckets", "max_distance"), [(1, 128), (0, 128), (32, 16), (32, 0), (-4, 1)])
def test_bad_settings(buckets: int, max_distance: int) -> None:
    with pytest.raises(ConfigError, match="at least 2 buckets"):
        T5Bias(SHAPE, buckets, max_distance)
