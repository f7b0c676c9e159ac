"""Synthetic associative recall: records `K V K`, a key, its value, and the key again as an echo.

A small model trained on text alone never learns to look a key up, so part of its training is records. The
echo matters: counted in the loss it makes the model name the key that it has just read, which forms the
previous-token head that looking up needs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from posbench.data.vocabulary import Vocabulary
from posbench.errors import LengthError

# Tokens of context for each record of the evaluated form; records take three, text between them the rest.
TOKENS_PER_RECORD = 3.5
# Two records and a question.
SHORTEST = 8


@dataclass(frozen=True, eq=False)
class RecallContext:
    """The evaluated form: bos, text, records of distinct keys; then a question follows.

    Attributes:
        ids: (C,) everything before the question.
        key_ids, value_ids: (R,) in the order of the records.
        offsets: (R,) index in `ids` of each record's first token.
    """

    ids: np.ndarray
    key_ids: np.ndarray
    value_ids: np.ndarray
    offsets: np.ndarray


def num_records(length: int, num_keys: int) -> int:
    """How many records stand in a prompt that is read as `length` tokens, the question among them."""
    records = int(length / TOKENS_PER_RECORD)
    if length < SHORTEST or records > num_keys:
        longest = math.ceil((num_keys + 1) * TOKENS_PER_RECORD) - 1
        raise LengthError(
            f"records in {length} tokens: {num_keys} distinct keys allow {SHORTEST} to {longest}; choose "
            "another length, or raise data.num_keys (which makes other models)"
        )
    return records


def make_context(
    rng: np.random.Generator,
    vocabulary: Vocabulary,
    text: np.ndarray,
    length: int,
    records: int | None = None,
) -> RecallContext:
    """A context that is read as exactly `length` tokens with its question `K`; the answer `V` follows.

    Args:
        text: at least `length` ids of running text, the filler.
    """
    count = num_records(length, vocabulary.num_keys)
    key_ids = rng.permutation(vocabulary.key_ids)[:count]
    value_ids = rng.choice(vocabulary.value_ids, count)
    filler = length - 2 - 3 * count
    rows = np.stack([key_ids, value_ids, key_ids], 1)
    ids = np.concatenate([[vocabulary.bos], text[:filler], rows.ravel()])
    return RecallContext(ids, key_ids, value_ids, 1 + filler + 3 * np.arange(count))


def questions(made: RecallContext) -> np.ndarray:
    """(R, 2): for each record the suffix key, value; only the value is scored."""
    return np.stack([made.key_ids, made.value_ids], 1)


def training_sequence(
    rng: np.random.Generator, vocabulary: Vocabulary, text: np.ndarray, length: int, query_fraction: float
) -> tuple[np.ndarray, np.ndarray]:
    """(length + 1,) ids and as many booleans: which of them count in the loss as targets.

    A share `query_fraction` has the evaluated form, all keys distinct and one question at its end. The others draw
    their keys from a pool of m, m log-uniform from 2 to the number of records: small pools repeat often and
    give the signal, large ones the skill. What counts is the value of a key that has been seen, and the echo.
    """
    loss_mask = np.zeros(length + 1, bool)
    if rng.random() < query_fraction:
        made = make_context(rng, vocabulary, text, length)
        gold = int(rng.integers(len(made.key_ids)))
        loss_mask[made.offsets + 2] = True
        loss_mask[-1] = True
        return np.concatenate([made.ids, [made.key_ids[gold], made.value_ids[gold]]]), loss_mask
    count = length // 3
    pool = int(np.exp(rng.uniform(np.log(2), np.log(count + 1))))
    pool = min(pool, vocabulary.num_keys)
    pool_keys = rng.permutation(vocabulary.key_ids)[:pool]
    pool_values = rng.choice(vocabulary.value_ids, pool)
    drawn = rng.integers(pool, size=count)
    rows = np.stack([pool_keys[drawn], pool_values[drawn], pool_keys[drawn]], 1).ravel()
    ids = np.concatenate([[vocabulary.bos], rows, text[: length - 3 * count]])
    first = np.zeros(count, bool)
    first[np.unique(drawn, return_index=True)[1]] = True
    loss_mask[2 : 2 + 3 * count : 3] = ~first
    loss_mask[3 : 3 + 3 * count : 3] = True
    return ids, loss_mask
