"""Synthetic algorithmic sequences: symbols, a separator, and an answer that a rule derives from the symbols.

`bos x_1 .. x_n separator answer end`, one example in a sequence, padded with `end` tokens that are not in the loss. A
sequence of L tokens has at most (L - 2) / 2 symbols under every rule, as copies need, so that all rules are trained and
evaluated at the same lengths; where the answer is one symbol, the rest is padding.

- copy, reverse: Kazemnejad et al. The Impact of Positional Encoding on Length Generalization in Transformers. NeurIPS
  2023, section 3. arXiv:2305.19466. Deviations: symbols are single reserved ids, drawn from the keys with repetition,
  in place of words of the paper's tokenizer, and there are 32 of them, not 100.
- The others: Huang et al. A Formal Framework for Understanding Length Generalization in Transformers. ICLR 2025,
  section 5. arXiv:2410.02140, as in algorithmic/language_modeling_train.py of lacoco-lab/length_generalization.
  Deviation: the vocabulary of the model has further ids.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from posbench.data.vocabulary import Vocabulary
from posbench.errors import LengthError

# bos, separator and one symbol, which is read twice; `end` is only predicted.
MIN_LENGTH = 4
SYMBOLS = 32  # different symbols of copy and reverse
LETTERS = 26  # different symbols of majority
# Symbols of parity: the two bits, and the two answers.
ZERO, ONE, EVEN, ODD = range(4)

# The (count,) symbols and the (A,) answer, as indices of keys, of a generator, a count, and the number of keys.
Rule = Callable[[np.random.Generator, int, int], tuple[np.ndarray, np.ndarray]]


def _copy(rng: np.random.Generator, count: int, num_keys: int) -> tuple[np.ndarray, np.ndarray]:
    symbols = rng.choice(min(SYMBOLS, num_keys), count)
    return symbols, symbols


def _reverse(rng: np.random.Generator, count: int, num_keys: int) -> tuple[np.ndarray, np.ndarray]:
    symbols, _ = _copy(rng, count, num_keys)
    return symbols, symbols[::-1]


def _unique_copy(rng: np.random.Generator, count: int, num_keys: int) -> tuple[np.ndarray, np.ndarray]:
    symbols = rng.permutation(num_keys)[:count]
    return symbols, symbols


def _sort(rng: np.random.Generator, count: int, num_keys: int) -> tuple[np.ndarray, np.ndarray]:
    symbols, _ = _unique_copy(rng, count, num_keys)
    return symbols, np.sort(symbols)


def _repeated_copy(rng: np.random.Generator, count: int, num_keys: int) -> tuple[np.ndarray, np.ndarray]:
    symbols = rng.integers(2, size=count)
    return symbols, symbols


def _binary_majority(rng: np.random.Generator, count: int, num_keys: int) -> tuple[np.ndarray, np.ndarray]:
    """The number of zeros is uniform over those that are no draw."""
    zeros = rng.choice([n for n in range(count + 1) if 2 * n != count])
    bits = rng.permutation(np.arange(count) >= zeros).astype(np.int64)
    return bits, np.array([int(2 * zeros < count)])


def _majority(rng: np.random.Generator, count: int, num_keys: int) -> tuple[np.ndarray, np.ndarray]:
    while True:
        symbols = rng.integers(min(LETTERS, num_keys), size=count)
        occurrences = np.bincount(symbols)
        (commonest,) = np.nonzero(occurrences == occurrences.max())
        if len(commonest) == 1:
            return symbols, commonest


def _parity(rng: np.random.Generator, count: int, num_keys: int) -> tuple[np.ndarray, np.ndarray]:
    """The number of ones is uniform."""
    ones = int(rng.integers(count + 1))
    bits = np.where(rng.permutation(count) < ones, ONE, ZERO)
    return bits, np.array([ODD if ones % 2 else EVEN])


RULES: dict[str, Rule] = {
    "copy": _copy,
    "reverse": _reverse,
    "unique_copy": _unique_copy,
    "repeated_copy": _repeated_copy,
    "sort": _sort,
    "binary_majority": _binary_majority,
    "majority": _majority,
    "parity": _parity,
}


def min_symbols(rule: str) -> int:
    """Returns the smallest number of symbols of a rule: no bits have a parity, but no majority."""
    return 0 if rule == "parity" else 1


def num_symbols(length: int) -> int:
    """Returns the number n of symbols of a sequence whose input is bos, n symbols, separator, n symbols.

    Args:
        length: tokens of the input.

    Raises:
        LengthError: if the length is odd or under 4.
    """
    if length < MIN_LENGTH or length % 2:
        raise LengthError(
            f"symbols and their answer in {length} tokens: the input has room for all symbols twice and two marks; "
            f"choose an even length of {MIN_LENGTH} or more"
        )
    return (length - 2) // 2


def check_symbols(rule: str, count: int, num_keys: int) -> None:
    """Raises LengthError if there are too few different symbols for `count` symbols of a rule."""
    needed = {"unique_copy": count, "sort": count, "parity": ODD + 1}.get(rule, 1)
    if needed > num_keys:
        raise LengthError(
            f"{rule} of {count} symbols needs {needed} different ones and data.num_keys is {num_keys}: raise it to "
            f"{needed} or more (which makes other models), or choose a shorter length"
        )


def example(rng: np.random.Generator, vocabulary: Vocabulary, rule: str, count: int) -> np.ndarray:
    """Returns (count + A + 3,) ids, of which those after the first count + 2, the answer and `end`, are to be predicted.

    The separator and `end` are the first two value ids of the vocabulary; symbols are keys.
    """
    check_symbols(rule, count, vocabulary.num_keys)
    separator, end = vocabulary.value_ids[:2]
    symbols, answer = RULES[rule](rng, count, vocabulary.num_keys)
    keys = vocabulary.key_ids
    return np.concatenate([[vocabulary.bos], keys[symbols], [separator], keys[answer], [end]])


def training_sequence(
    rng: np.random.Generator, vocabulary: Vocabulary, rule: str, length: int, query_fraction: float
) -> tuple[np.ndarray, np.ndarray]:
    """Returns (length + 1,) ids and (length + 1,) booleans, true for the targets that are in the loss.

    The number of symbols is the largest possible with probability `query_fraction`, else uniform from the smallest to
    that.
    """
    max_count = num_symbols(length)
    count = (
        max_count if rng.random() < query_fraction else int(rng.integers(min_symbols(rule), max_count + 1))
    )
    sequence = example(rng, vocabulary, rule, count)
    ids = np.full(length + 1, sequence[-1])
    ids[: len(sequence)] = sequence
    loss_mask = np.zeros(length + 1, bool)
    loss_mask[count + 2 : len(sequence)] = True
    return ids, loss_mask
