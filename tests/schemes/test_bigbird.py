"""BigBird against the paper's text, block by block; attention against a loop over pairs, 1e-12 in float64.

The random blocks of transformers' BigBird, an encoder, depend on NumPy's global state, so its masks cannot be equal.
Each row is compared with the paper's appendix D, and the distribution of the draws is tested.
"""

from math import comb, sqrt

import pytest
import torch
from calls import SHAPE, assert_same_gradients, attention, attention_inputs, values

from posbench.errors import ConfigError
from posbench.schemes.bigbird import BigBird


def rows(scheme: BigBird, blocks: int) -> list[set[int]]:
    """Returns the key blocks that each query block sees, after asserting that all tokens of a block see the same."""
    size = scheme.block_size
    index = torch.arange(blocks * size)
    seen = scheme.blocks(index[:, None], index[None]) & (index[None] // size <= index[:, None] // size)
    by_block = seen.view(blocks, size, blocks, size)
    assert torch.equal(by_block.all(3).all(1), by_block.any(3).any(1))
    return [set(torch.nonzero(row).flatten().tolist()) for row in by_block.any(3).any(1)]


@pytest.mark.parametrize(
    ("block", "num_global_blocks", "num_random_blocks"), [(1, 1, 3), (4, 2, 2), (3, 0, 1), (2, 1, 0)]
)
def test_a_row_is_its_neighbours_the_global_blocks_and_distinct_random_ones(
    block: int, num_global_blocks: int, num_random_blocks: int
) -> None:
    scheme = BigBird(SHAPE, block, num_global_blocks, num_random_blocks)
    for query, seen in enumerate(rows(scheme, 30)):
        neighbours = {query, max(0, query - 1)}
        first = set(range(min(num_global_blocks, query + 1)))
        others = set(range(query + 1)) - neighbours - first
        assert neighbours | first <= seen
        drawn = seen - neighbours - first
        assert drawn <= others
        assert len(drawn) == min(num_random_blocks, len(others))


def test_random_blocks_are_drawn_uniformly() -> None:
    """Over 400 seeds block 20 draws each of its 18 candidates equally often, within 4.5 standard deviations."""
    counts = torch.zeros(21)
    for seed in range(400):
        for key in rows(BigBird(SHAPE, 1, 1, 3, seed), 21)[20] - {0, 19, 20}:
            counts[key] += 1
    share = 3 / 18
    assert comb(18, 3) > 400
    assert int(counts.sum()) == 1200
    deviation = (counts[1:19] - 400 * share).abs() / sqrt(400 * share * (1 - share))
    assert deviation.max() < 4.5


def test_the_draw_is_a_function_of_the_pair_alone() -> None:
    scheme = BigBird(SHAPE, 2)
    index = torch.arange(120)
    whole = scheme.blocks(index[:, None], index[None])
    assert torch.equal(scheme.blocks(index[100:, None], index[None]), whole[100:])
    assert not torch.equal(BigBird(SHAPE, 2, seed=1).blocks(index[:, None], index[None]).tril(), whole.tril())


def test_attention_equals_a_loop_over_pairs() -> None:
    scheme = BigBird(SHAPE, 2, 1, 1)
    inputs, v = attention_inputs(), values()
    seen = rows(scheme, 10)
    out = []
    for i in range(20):
        keys = [j for j in range(i + 1) if j // 2 in seen[i // 2]]
        weight = (inputs.q_BHTD[:, :, i, None] * inputs.k_BHSD[:, :, keys]).sum(-1) / SHAPE.head_dim**0.5
        out.append((weight.softmax(-1)[..., None] * v[:, :, keys]).sum(2))
    expected = torch.stack(out, 2)
    mine = attention(scheme, inputs, v)
    torch.testing.assert_close(mine, expected, rtol=0, atol=1e-12)
    assert_same_gradients(mine, expected, [inputs.q_BHTD, inputs.k_BHSD, v], 1e-12)


def test_bad_settings() -> None:
    for block in (0, SHAPE.train_len + 1):
        with pytest.raises(
            ConfigError, match=rf"block_size {block}: give at least 1 token and at most .*, 16"
        ):
            BigBird(SHAPE, block)
    for name in ("num_global_blocks", "num_random_blocks", "seed"):
        with pytest.raises(ConfigError, match=rf"bigbird {name} -1: give 0"):
            BigBird(SHAPE, **{name: -1})
