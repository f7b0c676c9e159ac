"""Multi-query associative recall (MQAR): pairs of a key and a value, and later each key again, as a query.

Arora, Eyuboglu, et al. Zoology: Measuring and Improving Recall in Efficient Language Models. ICLR 2024. arXiv:2312.04927;
the layout is that of zoology/data/multiquery_ar.py in HazyResearch/zoology with `random_non_queries=False`: the pairs
come first, each key is queried once at an even distance after them, gaps follow a power law, and all other positions
hold one blank id. The value is the target at the query and is not in the input. Deviation: the blank is bos.

`mqar_spread` is a layout of this package, in which the rest is running text and pairs lie anywhere in it; the gap of
each query is measured from its own pair.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from posbench.data.vocabulary import Vocabulary
from posbench.errors import LengthError

LAYOUTS = ("mqar", "mqar_spread")
# 4 pairs in 64 tokens, 8 in 128, 16 in 256: figure 2 of the paper.
TOKENS_PER_PAIR = 16
POWER = 0.01  # the probability of a gap g is proportional to g ** (POWER - 1)


@dataclass(frozen=True, eq=False)
class MqarSequence:
    """A sequence of L tokens with P queries.

    Attributes:
        ids: (L,) ids.
        queries: (P,) index in `ids` of each query, in the order of the pairs.
        pairs: (P,) index in `ids` of the key of each pair.
        values: (P,) ids of the values, the targets at the queries.
    """

    ids: np.ndarray
    queries: np.ndarray
    pairs: np.ndarray
    values: np.ndarray


def num_pairs(length: int, num_keys: int, num_values: int, pairs: int = 0) -> int:
    """Returns the number of pairs in `length` tokens: `pairs`, or for 0 one for every 16 tokens.

    Raises:
        LengthError: if the length is odd, or pairs and queries do not fit, or there are too few keys or values.
    """
    count = pairs or length // TOKENS_PER_PAIR
    symbols = min(num_keys, num_values)
    if length % 2 or count < 1 or 4 * count > length:
        raise LengthError(
            f"mqar with {count} pairs in {length} tokens: choose an even length of at least "
            f"{max(4 * count, TOKENS_PER_PAIR if not pairs else 4)}"
        )
    if count > symbols:
        raise LengthError(
            f"mqar with {count} pairs in {length} tokens: data.num_keys {num_keys} and data.num_values {num_values} allow "
            f"{symbols}; raise them (which makes other models), or choose a shorter length"
        )
    return count


def sequence(
    rng: np.random.Generator, vocabulary: Vocabulary, layout: str, length: int, count: int, text: np.ndarray
) -> MqarSequence:
    """Returns a sequence with `count` pairs of distinct keys and distinct values.

    Args:
        layout: one of LAYOUTS.
        text: at least `length` ids of running text, which only `mqar_spread` uses.
    """
    keys = rng.choice(vocabulary.key_ids, count, replace=False)
    values = rng.choice(vocabulary.value_ids, count, replace=False)
    slots = length // 2  # of two tokens
    if layout == "mqar":
        ids = np.full(length, vocabulary.bos, np.int64)
        pair_slots = np.arange(count)
        query_slots = count + rng.choice(slots - count, count, replace=False, p=power_law(slots - count))
    else:
        ids = text[:length].astype(np.int64)
        pair_slots, query_slots = spread(rng, slots, count)
    ids[2 * pair_slots], ids[2 * pair_slots + 1] = keys, values
    ids[2 * query_slots] = keys
    return MqarSequence(ids, 2 * query_slots, 2 * pair_slots, values)


def spread(rng: np.random.Generator, slots: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns (count,) slots of the pairs, ascending, and (count,) slots of their queries, each after its pair."""
    # The last `count` slots stay free of pairs, so that every query finds a place.
    pairs = np.sort(rng.choice(slots - count, count, replace=False))
    free = np.ones(slots, bool)
    free[pairs] = False
    queries = np.empty(count, np.int64)
    for index in rng.permutation(count):
        (later,) = np.nonzero(free[pairs[index] + 1 :])
        weight = power_law(slots)[later]
        queries[index] = pairs[index] + 1 + rng.choice(later, p=weight / weight.sum())
        free[queries[index]] = False
    return pairs, queries


def power_law(size: int) -> np.ndarray:
    """(size,) float64 probabilities of the gaps 1 .. size."""
    weight = np.arange(1, size + 1) ** (POWER - 1)
    return weight / weight.sum()


def training_sequence(
    rng: np.random.Generator, vocabulary: Vocabulary, layout: str, length: int, text: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns (length + 1,) ids, booleans and targets; the loss is on the values, which are targets and no inputs."""
    count = num_pairs(length, vocabulary.num_keys, vocabulary.num_values)
    made = sequence(rng, vocabulary, layout, length, count, text)
    ids = np.append(made.ids, vocabulary.bos)
    targets, loss_mask = ids.copy(), np.zeros(length + 1, bool)
    targets[made.queries + 1] = made.values
    loss_mask[made.queries + 1] = True
    return ids, loss_mask, targets
