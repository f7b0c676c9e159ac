"""Which ids a model knows: the tokenizer's, then one that begins a document, then keys and values.

A pretrained model knows its tokenizer's alone: one of those begins a document, and ordinary ones are its keys and
values.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from posbench.errors import ConfigError


@dataclass(frozen=True)
class Vocabulary:
    """Ids [0, tokenizer_vocab_size) are text; bos follows, then the keys, then the values of synthetic records.

    Keys and values lie above the text's ids, so that no text holds one by chance. With an own bos there is nothing
    above: they are tokens from the middle of the vocabulary, where neither bytes nor marks stand, and text may hold
    one. The tokenizer's fingerprint is part of it: a model fits a corpus exactly when their vocabularies are equal.
    """

    tokenizer: str
    tokenizer_vocab_size: int
    num_keys: int = 88
    num_values: int = 16
    own_bos: int | None = None  # one of the text's ids, where the model has its own

    def __post_init__(self) -> None:
        if self.num_keys < 2 or self.num_values < 2:
            raise ConfigError(
                f"data.num_keys={self.num_keys}, data.num_values={self.num_values}: retrieval needs at least 2 of each"
            )
        if self.own_bos is not None and 2 * self._symbols >= self.tokenizer_vocab_size:
            raise ConfigError(
                f"data.num_keys={self.num_keys}, data.num_values={self.num_values}: more than half of this model's {self.tokenizer_vocab_size} "
                "tokens; choose fewer of them"
            )

    @property
    def bos(self) -> int:
        return self.tokenizer_vocab_size if self.own_bos is None else self.own_bos

    @property
    def key_ids(self) -> np.ndarray:
        return self._symbol_ids[: self.num_keys]

    @property
    def value_ids(self) -> np.ndarray:
        return self._symbol_ids[self.num_keys :]

    @property
    def vocab_size(self) -> int:
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
        return np.random.default_rng(0).permutation(ordinary)  # or values would all lie behind the keys
