"""The ids of a model: those of the tokenizer, then bos, then the keys and values of synthetic sequences.

A pretrained model has only the ids of its tokenizer: bos is one of them, and ordinary tokens serve as keys and values.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from posbench.errors import ConfigError


@dataclass(frozen=True)
class Vocabulary:
    """The ids of a model: [0, tokenizer_vocab_size) are text, then come bos, the keys and the values.

    Keys and values are above the ids of text, so that they do not occur in text. With `own_bos` they are tokens from
    the middle of the tokenizer's vocabulary, away from bytes and special tokens, and can occur in text. A model fits a
    corpus if and only if their vocabularies are equal, which includes the fingerprint of the tokenizer.

    Attributes:
        tokenizer: the fingerprint of the tokenizer.
        own_bos: the bos of a pretrained model, one of the tokenizer's ids; None for a new id.
        eos_ids: ids with which a pretrained model ends an answer.
    """

    tokenizer: str
    tokenizer_vocab_size: int
    num_keys: int = 88
    num_values: int = 16
    own_bos: int | None = None
    eos_ids: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.num_keys < 2 or self.num_values < 2:
            raise ConfigError(
                f"data.num_keys={self.num_keys}, data.num_values={self.num_values}: retrieval needs at least 2 of each"
            )
        if self.own_bos is not None:
            check_bos(self.own_bos, self.tokenizer_vocab_size)
        if self.own_bos is not None and 2 * self._symbols >= self.tokenizer_vocab_size:
            raise ConfigError(
                f"data.num_keys={self.num_keys}, data.num_values={self.num_values}: more than half of this model's {self.tokenizer_vocab_size} "
                "tokens; choose fewer of them"
            )

    @property
    def bos(self) -> int:
        """The id at the start of a document."""
        return self.tokenizer_vocab_size if self.own_bos is None else self.own_bos

    @property
    def key_ids(self) -> np.ndarray:
        """(num_keys,) ids of the keys."""
        return self._symbol_ids[: self.num_keys]

    @property
    def value_ids(self) -> np.ndarray:
        """(num_values,) ids of the values."""
        return self._symbol_ids[self.num_keys :]

    @property
    def vocab_size(self) -> int:
        """The number of ids that a model embeds."""
        return (
            self.tokenizer_vocab_size
            if self.own_bos is not None
            else self.tokenizer_vocab_size + 1 + self._symbols
        )

    @property
    def _symbols(self) -> int:
        return self.num_keys + self.num_values

    @cached_property
    def _symbol_ids(self) -> np.ndarray:
        if self.own_bos is None:
            return self.tokenizer_vocab_size + 1 + np.arange(self._symbols)
        middle = np.linspace(
            self.tokenizer_vocab_size // 4,
            3 * self.tokenizer_vocab_size // 4,
            self._symbols + 1,
            dtype=np.int64,
        )
        ordinary = middle[middle != self.own_bos][: self._symbols]
        return np.random.default_rng(0).permutation(ordinary)  # mixes keys and values


def check_bos(bos: int, tokenizer_vocab_size: int) -> None:
    """Raises ConfigError for an id at the start of a document that the tokenizer does not have."""
    if not 0 <= bos < tokenizer_vocab_size:
        raise ConfigError(
            f"data.bos {bos}: give an id of the tokenizer, 0 to {tokenizer_vocab_size - 1}, or null for a new one"
        )
