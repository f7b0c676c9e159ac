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
    """Ids [0, text_size) are text; bos follows, then the keys, then the values of synthetic records.

    Keys and values lie above the text's ids, so that no text holds one by chance. With an own bos there is nothing
    above: they are tokens from the middle of the vocabulary, where neither bytes nor marks stand, and text may hold
    one. The tokenizer's fingerprint is part of it: a model fits a corpus exactly when their vocabularies are equal.
    """

    tokenizer: str
    text_size: int
    keys: int = 88
    values: int = 16
    own_bos: int | None = None  # one of the text's ids, where the model has its own

    def __post_init__(self) -> None:
        if self.keys < 2 or self.values < 2:
            raise ConfigError(
                f"data.keys={self.keys}, data.values={self.values}: retrieval needs at least 2 of each"
            )
        if self.own_bos is not None and 2 * self._symbols >= self.text_size:
            raise ConfigError(
                f"data.keys={self.keys}, data.values={self.values}: more than half of this model's {self.text_size} "
                "tokens; choose fewer of them"
            )

    @property
    def bos(self) -> int:
        return self.text_size if self.own_bos is None else self.own_bos

    @property
    def key_ids(self) -> np.ndarray:
        return self._symbol_ids[: self.keys]

    @property
    def value_ids(self) -> np.ndarray:
        return self._symbol_ids[self.keys :]

    @property
    def size(self) -> int:
        return self.text_size if self.own_bos is not None else self.text_size + 1 + self._symbols

    @property
    def _symbols(self) -> int:
        return self.keys + self.values

    @cached_property
    def _symbol_ids(self) -> np.ndarray:
        if self.own_bos is None:
            return self.text_size + 1 + np.arange(self._symbols)
        middle = np.linspace(self.text_size // 4, 3 * self.text_size // 4, self._symbols + 1, dtype=np.int64)
        ordinary = middle[middle != self.own_bos][: self._symbols]
        return np.random.default_rng(0).permutation(ordinary)  # or values would all lie behind the keys
