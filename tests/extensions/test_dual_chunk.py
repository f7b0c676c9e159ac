"""Dual chunk attention against loops over the paper's position indices. Tolerance 1e-12 in float64."""

import pytest
import torch
from extended import SHAPE, Llama, alibi, attention, attention_inputs, by_pairs, context, rotary, values

from posbench.errors import ConfigError, IncompatibleError
from posbench.extensions.dual_chunk import DualChunk
from posbench.schemes.alibi import ALiBi
from posbench.schemes.learned import Learned
from posbench.schemes.nope import NoPE
from posbench.schemes.t5 import T5Bias


def distance(i: int, j: int, s: int, c: int) -> int:
    """Sections 3.1 to 3.3: P_k for each chunk, and P_q within a chunk, to the chunk before and to earlier ones."""
    keys = list(range(s))
    intra = list(range(s))
    successive = [s + place if place < c - s else c - 1 for place in range(s)]
    inter = [c - 1] * s
    chunks = i // s - j // s
    queries = intra if chunks == 0 else successive if chunks == 1 else inter
    return queries[i % s] - keys[j % s]


@pytest.mark.parametrize("first", [0, 21])
@pytest.mark.parametrize(("chunk", "window"), [(6, 4), (12, 4), (5, 5), (1, 1), (3, 9), (23, 2), (24, 1)])
def test_equals_its_position_indices(chunk: int, window: int, first: int) -> None:
    inputs, v = attention_inputs(24, start=first), values(24)
    expected = by_pairs(inputs, v, lambda h, q, k, i, j: rotary(q, k, distance(i, j, chunk, chunk + window)))
    actual = attention(DualChunk(Llama(SHAPE), context(24), chunk, window), inputs, v)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-12)


def test_the_paper_s_example() -> None:
    """12 tokens in chunks of 6, training length 10: queries of the second chunk are at 6 7 8 9 9 9 for keys of the first."""
    assert [distance(i, 0, 6, 10) for i in range(6, 12)] == [6, 7, 8, 9, 9, 9]
    geo = attention_inputs(12).geo
    scheme = DualChunk(Llama(SHAPE), context(12), 6, 4)
    assert scheme.between_chunks(geo, successive=True).q_pos_T.tolist()[6:] == [6, 7, 8, 9, 9, 9]
    assert scheme.between_chunks(geo, successive=False).q_pos_T.tolist() == [9] * 12
    assert scheme.between_chunks(geo, successive=True).k_pos_S.tolist() == [0, 1, 2, 3, 4, 5] * 2


def test_equals_the_authors_code_with_a_window_larger_by_one() -> None:
    """ChunkLlama's positions: q_t, q_t + chunk_len clamped at chunk_size, and the last of these for earlier chunks."""
    chunk_size, local_window = 12, 3
    chunk_len = chunk_size - local_window
    q_t = torch.arange(chunk_len)
    qc_t = (q_t + chunk_len).clamp(max=chunk_size)

    def reference(i: int, j: int) -> int:
        chunks = i // chunk_len - j // chunk_len
        here = q_t[i % chunk_len] if chunks == 0 else qc_t[i % chunk_len] if chunks == 1 else qc_t[-1]
        return int(here) - j % chunk_len

    inputs, v = attention_inputs(40), values(40)
    expected = by_pairs(inputs, v, lambda h, q, k, i, j: rotary(q, k, reference(i, j)))
    actual = attention(DualChunk(Llama(SHAPE), context(40), chunk_len, local_window + 1), inputs, v)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-12)


def test_biases_of_the_distance_are_chunked() -> None:
    inputs, v = attention_inputs(24), values(24)
    expected = by_pairs(inputs, v, lambda h, q, k, i, j: alibi(h, q, k, distance(i, j, 6, 10)))
    actual = attention(DualChunk(ALiBi(SHAPE), context(24), 6, 4), inputs, v)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-12)
    t5 = T5Bias(SHAPE, num_buckets=8, max_distance=9).double()
    bias = t5.bias(torch.arange(24)).tolist()
    expected = by_pairs(
        inputs, v, lambda h, q, k, i, j: float(q @ k) / 8**0.5 + bias[h][distance(i, j, 6, 10)]
    )
    torch.testing.assert_close(
        attention(DualChunk(t5, context(24), 6, 4), inputs, v), expected, rtol=0, atol=1e-12
    )


def test_distances_stay_below_the_training_length_and_are_true_for_neighbours() -> None:
    scheme = DualChunk(Llama(SHAPE), context(64))
    assert (scheme.chunk_size, scheme.local_window) == (12, 4)
    for i in range(64):
        for j in range(i + 1):
            assert 0 <= distance(i, j, 12, 16) < 16
            if i - j < 4:
                assert distance(i, j, 12, 16) == i - j


def test_bad_settings() -> None:
    for chunk in (0, -1, 0.5):
        with pytest.raises(ConfigError, match=r"chunk_size .* at least 1"):
            DualChunk(Llama(SHAPE), context(64), chunk)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"local_window 0: .* at least 1"):
        DualChunk(Llama(SHAPE), context(64), 12, 0)
    with pytest.raises(IncompatibleError, match="needs a scheme with positions"):
        DualChunk(NoPE(SHAPE), context(64))
    with pytest.raises(IncompatibleError, match="depends on absolute positions"):
        DualChunk(Learned(SHAPE), context(64))
