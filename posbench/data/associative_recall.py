"""Synthetic associative recall: records `K V K`, a key, its value, and the key again as an echo.

A small model that is trained on text alone never learns to look up a key, so a part of its training data is records.
The echo is in the loss: to predict it, the model must repeat the key before the value, which trains the
previous-token head that a lookup requires.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from posbench.data.vocabulary import Vocabulary
from posbench.errors import LengthError

# Tokens of context for each record of the evaluated form: three of the record; a seventh of the context is filler text.
TOKENS_PER_RECORD = 3.5
RECORD_TOKENS = 3  # key, value, key
# Tokens of two records and a question.
MIN_LENGTH = 8
# Kinds of training sequences with several questions: about any records, or about the first and the last quarter only.
QUESTION_KINDS = ("recall_questions", "recall_questions_at_ends")


@dataclass(frozen=True, eq=False)
class RecallContext:
    """A context of the evaluated form: bos, text, and records of distinct keys, which a question follows.

    Attributes:
        ids: (C,) ids before the question.
        key_ids, value_ids: (R,) ids of the keys and values, in the order of the records.
        offsets: (R,) index in `ids` of the first token of each record.
    """

    ids: np.ndarray
    key_ids: np.ndarray
    value_ids: np.ndarray
    offsets: np.ndarray


def num_records(length: int, num_keys: int) -> int:
    """Returns the number of records in a prompt of `length` tokens, including the question."""
    records = int(length / TOKENS_PER_RECORD)
    if length < MIN_LENGTH or records > num_keys:
        max_length = math.ceil((num_keys + 1) * TOKENS_PER_RECORD) - 1
        raise LengthError(
            f"records in {length} tokens: {num_keys} distinct keys allow {MIN_LENGTH} to {max_length}; choose "
            "another length, or raise data.num_keys (which makes other models)"
        )
    return records


def make_context(
    rng: np.random.Generator,
    vocabulary: Vocabulary,
    text: np.ndarray,
    length: int,
) -> RecallContext:
    """Returns a context that has `length` tokens with its question `K`; the answer `V` follows.

    Args:
        text: at least `length` ids of running text, as filler.
    """
    count = num_records(length, vocabulary.num_keys)
    key_ids = rng.permutation(vocabulary.key_ids)[:count]
    value_ids = rng.choice(vocabulary.value_ids, count)
    filler = length - 2 - 3 * count
    rows = np.stack([key_ids, value_ids, key_ids], 1)
    ids = np.concatenate([[vocabulary.bos], text[:filler], rows.ravel()])
    return RecallContext(ids, key_ids, value_ids, 1 + filler + 3 * np.arange(count))


def questions(context: RecallContext) -> np.ndarray:
    """Returns (R, 2) ids, the key and value of each record: the key continues the context, the value is scored."""
    return np.stack([context.key_ids, context.value_ids], 1)


def training_sequence(
    rng: np.random.Generator, vocabulary: Vocabulary, text: np.ndarray, length: int, query_fraction: float
) -> tuple[np.ndarray, np.ndarray]:
    """Returns (length + 1,) ids and (length + 1,) booleans, true for the targets that are in the loss.

    With probability `query_fraction` the sequence has the evaluated form: distinct keys and one question at its end.
    Otherwise the keys are drawn from a pool of m, where m is log-uniform from 2 to the number of records: small pools
    repeat keys often, so that the lookup is learned, and large ones train it at the evaluated difficulty. The loss is on
    the values of keys that have occurred before, and on the echoes.
    """
    loss_mask = np.zeros(length + 1, bool)
    if rng.random() < query_fraction:
        context = make_context(rng, vocabulary, text, length)
        gold = int(rng.integers(len(context.key_ids)))
        loss_mask[context.offsets + 2] = True
        loss_mask[-1] = True
        return np.concatenate([context.ids, questions(context)[gold]]), loss_mask
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


def num_records_with_questions(length: int, num_keys: int) -> int:
    """Returns the number of records in a training sequence that has about half as many questions.

    Raises:
        LengthError: if `length` tokens hold fewer than four records, or more records than there are keys.
    """
    records = length // 4
    if not 4 <= records <= num_keys:
        raise LengthError(
            f"records and questions in {length} tokens: {num_keys} distinct keys allow 16 to {4 * num_keys + 3}; choose "
            "another length, or raise data.num_keys (which makes other models)"
        )
    return records


def question_sequence(
    rng: np.random.Generator, vocabulary: Vocabulary, kind: str, text: np.ndarray, length: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns (length + 1,) ids and loss mask of a sequence of records followed by questions `K V` in random order.

    Each question is about another record: any record, or with `recall_questions_at_ends` one of the first or the last
    quarter, so that training has no question about the records between them. The loss covers answers and echoes.
    """
    count = num_records_with_questions(length, vocabulary.num_keys)
    key_ids = rng.permutation(vocabulary.key_ids)[:count]
    value_ids = rng.choice(vocabulary.value_ids, count)
    quarter, records = count // 4, np.arange(count)
    at_ends = np.concatenate([records[:quarter], records[-quarter:]])
    gold = rng.permutation(at_ends if kind == "recall_questions_at_ends" else records)[: 2 * quarter]
    filler = length - 3 * count - 4 * quarter
    rows = np.stack([key_ids, value_ids, key_ids], 1)
    asked = np.stack([key_ids[gold], value_ids[gold]], 1)
    ids = np.concatenate([[vocabulary.bos], text[:filler], rows.ravel(), asked.ravel()])
    loss_mask = np.zeros(length + 1, bool)
    loss_mask[3 + filler : 3 + filler + 3 * count : 3] = True
    loss_mask[length + 2 - 4 * quarter :: 2] = True
    return ids, loss_mask
