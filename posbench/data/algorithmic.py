"""Synthetic algorithmic sequences: symbols, a separator, and the same symbols again, copied or reversed.

Kazemnejad et al. The Impact of Positional Encoding on Length Generalization in Transformers. NeurIPS 2023,
section 3. arXiv:2305.19466. `bos x_1 .. x_n separator y_1 .. y_n end`, one example in a sequence, padded with `end`
tokens that are not in the loss. Deviations: symbols are single reserved ids, drawn from the keys with repetition, in
place of words of the paper's tokenizer, and only the answer is in the loss.
"""

from __future__ import annotations

import numpy as np

from posbench.data.vocabulary import Vocabulary
from posbench.errors import LengthError

RULES = ("copy", "reverse")
# bos, separator and one symbol, which is read twice; `end` is only predicted.
MIN_LENGTH = 4
SYMBOLS = 32  # different symbols


def num_symbols(length: int) -> int:
    """Returns the number n of symbols of a sequence whose input is bos, n symbols, separator, n symbols.

    Args:
        length: tokens of the input.

    Raises:
        LengthError: if the length is odd or under 4.
    """
    if length < MIN_LENGTH or length % 2:
        raise LengthError(
            f"copy or reverse in {length} tokens: the input has all symbols twice and two marks; choose an "
            f"even length of {MIN_LENGTH} or more"
        )
    return (length - 2) // 2


def example(rng: np.random.Generator, vocabulary: Vocabulary, rule: str, count: int) -> np.ndarray:
    """Returns (2 * count + 3,) ids, of which the last count + 1, the answer and `end`, are to be predicted.

    The separator and `end` are the first two value ids of the vocabulary.
    """
    separator, end = vocabulary.value_ids[:2]
    symbols = rng.choice(vocabulary.key_ids[:SYMBOLS], count)
    answer = symbols[::-1] if rule == "reverse" else symbols
    return np.concatenate([[vocabulary.bos], symbols, [separator], answer, [end]])


def training_sequence(
    rng: np.random.Generator, vocabulary: Vocabulary, rule: str, length: int, query_fraction: float
) -> tuple[np.ndarray, np.ndarray]:
    """Returns (length + 1,) ids and (length + 1,) booleans, true for the targets that are in the loss.

    The number of symbols is the largest possible with probability `query_fraction`, else uniform from one to that.
    """
    max_count = num_symbols(length)
    count = max_count if rng.random() < query_fraction else int(rng.integers(1, max_count + 1))
    sequence = example(rng, vocabulary, rule, count)
    ids = np.full(length + 1, sequence[-1])
    ids[: len(sequence)] = sequence
    loss_mask = np.zeros(length + 1, bool)
    loss_mask[count + 2 : len(sequence)] = True
    return ids, loss_mask
