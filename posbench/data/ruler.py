"""Needles of symbols in running text, with a question that has several answers: RULER's tasks for small models.

Hsieh et al. RULER: What's the Real Context Size of Your Long-Context Language Models? COLM 2024. arXiv:2404.06654;
scripts/data/synthetic of NVIDIA/RULER. A needle is two ids, hidden at a random place of running text:

- multi_value: one key with four values; the question has the key, the answers are its values.
- multi_query: four keys with a value each; the question has all keys, the answers are their values.
- variable_tracking: a variable with a value, and four more variables, each with the one before it in place of a value;
  the question has the value, the answers are all five variables.

Deviations, for models too small to read sentences: keys, variables and values are single reserved ids, and answers are
trained in one order, that of the needles or, for multi_query, of the question. `tasks.ruler` also has the words.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from posbench.data.vocabulary import Vocabulary
from posbench.errors import LengthError

COUNT = 4  # values of a key, queried keys, or hops of a chain, as in RULER
KINDS = ("multi_value", "multi_query", "variable_tracking")


@dataclass(frozen=True, eq=False)
class Needles:
    """Needles and a question as ids.

    Attributes:
        needle_N2: (N, 2) ids of the needles, in the order of the text.
        question: (Q,) ids, the mark of a question first.
        answers: (A,) ids.
    """

    needle_N2: np.ndarray
    question: np.ndarray
    answers: np.ndarray


def draw(rng: np.random.Generator, vocabulary: Vocabulary, kind: str) -> Needles:
    """Draws the needles of a kind; the first value id marks the question and is never drawn."""
    mark = vocabulary.value_ids[:1]
    if kind == "variable_tracking":
        variables = rng.choice(vocabulary.key_ids, COUNT + 1, replace=False)
        value = rng.choice(vocabulary.value_ids[1:], 1)
        assigned = np.concatenate([value, variables[:-1]])
        return Needles(np.stack([variables, assigned], 1), np.concatenate([mark, value]), variables)
    values = rng.choice(vocabulary.value_ids[1:], COUNT, replace=False)
    if kind == "multi_value":
        key = rng.choice(vocabulary.key_ids, 1)
        return Needles(np.stack([key.repeat(COUNT), values], 1), np.concatenate([mark, key]), values)
    keys = rng.choice(vocabulary.key_ids, COUNT, replace=False)
    order = rng.permutation(COUNT)
    return Needles(np.stack([keys, values], 1), np.concatenate([mark, keys[order]]), values[order])


def check_length(kind: str, length: int, num_keys: int, num_values: int) -> None:
    """Raises LengthError if needles, question and answers do not fit in `length` tokens, or symbols are too few."""
    keys, values = {
        "multi_value": (1, COUNT + 1),
        "multi_query": (COUNT, COUNT + 1),
        "variable_tracking": (COUNT + 1, 2),
    }[kind]
    if num_keys < keys or num_values < values:
        raise LengthError(
            f"{kind} needs {keys} keys and {values} values, and data.num_keys is {num_keys}, data.num_values {num_values}: "
            "raise them (which makes other models)"
        )
    if length < min_length(kind):
        raise LengthError(
            f"{kind} in {length} tokens: its needles, question and answers take {min_length(kind)}; choose a length of "
            f"{min_length(kind)} or more"
        )


def min_length(kind: str) -> int:
    """Returns the tokens of a sequence without text: bos, needles, question and all answers but the last."""
    answers = COUNT + (kind == "variable_tracking")
    return 1 + 2 * answers + (COUNT + 1 if kind == "multi_query" else 2) + answers - 1


def example(
    rng: np.random.Generator, vocabulary: Vocabulary, kind: str, length: int, text: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns ids of bos and text with needles, the question, and the (A,) answers; without A - 1 of them, `length` ids.

    Args:
        text: at least `length` ids of running text.
    """
    needles = draw(rng, vocabulary, kind)
    n_text = length - min_length(kind)
    places = np.sort(rng.integers(n_text + 1, size=len(needles.needle_N2)))
    haystack = np.insert(text[:n_text].astype(np.int64), places.repeat(2), needles.needle_N2.ravel())
    return np.concatenate([[vocabulary.bos], haystack]), needles.question, needles.answers


def training_sequence(
    rng: np.random.Generator, vocabulary: Vocabulary, kind: str, length: int, text: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns (length + 1,) ids and (length + 1,) booleans, true for the answers."""
    ids = np.concatenate(example(rng, vocabulary, kind, length, text))
    answers = COUNT + (kind == "variable_tracking")
    return ids, np.arange(length + 1) > length - answers
