"""Synthetic algorithmic sequences: symbols, a separator, and the same symbols again, copied or reversed.

Kazemnejad et al. The Impact of Positional Encoding on Length Generalization in Transformers. NeurIPS 2023,
section 3. arXiv:2305.19466. `bos x_1 .. x_n separator y_1 .. y_n end`, one example a sequence,
filled up with `end` tokens that do not count. Deviations: symbols are single reserved ids, drawn from the keys
with repetition, in place of words of the paper's tokenizer, and nothing but the answer counts.
"""

from __future__ import annotations

import numpy as np

from posbench.data.vocabulary import Vocabulary
from posbench.errors import LengthError

RULES = ("copy", "reverse")
# bos, separator, and at least one symbol read twice: `end` is only predicted.
SHORTEST = 4
SYMBOLS = 32


def num_symbols(length: int) -> int:
    """n of the sequence that is read as exactly `length` tokens: bos, n symbols, separator, n symbols.

    Raises:
        LengthError: if the length is odd or under 4.
    """
    if length < SHORTEST or length % 2:
        raise LengthError(
            f"copy or reverse in {length} tokens: the symbols stand there twice beside two marks; choose an "
            f"even length of {SHORTEST} or more"
        )
    return (length - 2) // 2


def example(rng: np.random.Generator, vocabulary: Vocabulary, rule: str, count: int) -> np.ndarray:
    """(2 * count + 3,) ids; the last count + 1, the answer and its end, are to be predicted.

    The two first values of the vocabulary are the separator and the end.
    """
    separator, end = vocabulary.value_ids[:2]
    symbols = rng.choice(vocabulary.key_ids[:SYMBOLS], count)
    answer = symbols[::-1] if rule == "reverse" else symbols
    return np.concatenate([[vocabulary.bos], symbols, [separator], answer, [end]])


def training_sequence(
    rng: np.random.Generator, vocabulary: Vocabulary, rule: str, length: int, query_fraction: float
) -> tuple[np.ndarray, np.ndarray]:
    """(length + 1,) ids and as many booleans: which of them count in the loss as targets.

    A share `query_fraction` has as many symbols as fit; the numbers of the others are uniform from one to that.
    """
    most = num_symbols(length)
    count = most if rng.random() < query_fraction else int(rng.integers(1, most + 1))
    made = example(rng, vocabulary, rule, count)
    ids = np.full(length + 1, made[-1])
    ids[: len(made)] = made
    loss_mask = np.zeros(length + 1, bool)
    loss_mask[count + 2 : len(made)] = True
    return ids, loss_mask
