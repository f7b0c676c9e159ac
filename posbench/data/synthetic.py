"""The kinds of synthetic training sequences, by name."""

from __future__ import annotations

import numpy as np

from posbench.config.train import SYNTHETIC_TASKS
from posbench.data import algorithmic, associative_recall, flip_flop, mqar, repeated, ruler
from posbench.data.vocabulary import Vocabulary
from posbench.errors import LengthError, unknown


def check_synthetic_task(
    kind: str, length: int, num_keys: int, num_values: int, query_fraction: float
) -> None:
    """Checks that synthetic sequences of a kind can have exactly `length` tokens.

    Raises:
        ConfigError: if there is no such kind.
        LengthError: if the kind does not allow the length.
    """
    if kind not in SYNTHETIC_TASKS:
        raise unknown("train.synthetic_task", kind, SYNTHETIC_TASKS)
    if kind == "associative_recall":
        if query_fraction:
            associative_recall.num_records(length, num_keys)
        elif length < associative_recall.RECORD_TOKENS:
            raise LengthError(
                f"records in {length} tokens: choose a training length of {associative_recall.RECORD_TOKENS} or more"
            )
    elif kind in associative_recall.QUESTION_KINDS:
        associative_recall.num_records_with_questions(length, num_keys)
    elif kind == "repeated":
        repeated.period_range(length)
    elif kind in algorithmic.RULES:
        algorithmic.check_symbols(kind, algorithmic.num_symbols(length), num_keys)
    elif kind in mqar.LAYOUTS:
        mqar.num_pairs(length, num_keys, num_values)
    elif kind == "flip_flop":
        flip_flop.check_length(length, num_keys)
    elif kind in ruler.KINDS:
        ruler.check_length(kind, length, num_keys, num_values)


def sequence(
    kind: str,
    rng: np.random.Generator,
    vocabulary: Vocabulary,
    text: np.ndarray,
    length: int,
    query_fraction: float,
) -> tuple[np.ndarray, ...]:
    """Returns (length + 1,) ids, the loss mask over them and, where they differ from the ids, the targets.

    Args:
        text: (length + 1,) ids of running text.
        query_fraction: probability of the evaluated form, for kinds that have another one too.
    """
    if kind == "associative_recall":
        return associative_recall.training_sequence(rng, vocabulary, text, length, query_fraction)
    if kind in associative_recall.QUESTION_KINDS:
        return associative_recall.question_sequence(rng, vocabulary, kind, text, length)
    if kind == "repeated":
        ids = repeated.training_sequence(rng, text, length, query_fraction)
        return ids, np.ones(len(ids), bool)
    if kind in mqar.LAYOUTS:
        return mqar.training_sequence(rng, vocabulary, kind, length, text)
    if kind == "flip_flop":
        return flip_flop.sequence(rng, vocabulary, length, flip_flop.TRAIN_IGNORE)
    if kind in ruler.KINDS:
        return ruler.training_sequence(rng, vocabulary, kind, length, text)
    return algorithmic.training_sequence(rng, vocabulary, kind, length, query_fraction)
