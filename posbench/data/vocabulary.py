"""Which ids a model knows: the tokenizer's, then one that begins a document, then keys and values."""

from dataclasses import dataclass

import numpy as np

from posbench.errors import ConfigError


@dataclass(frozen=True)
class Vocabulary:
    """Ids [0, text_size) are text; bos follows, then the keys, then the values of synthetic records.

    Keys and values lie above the text's ids, so that no text holds one by chance. The tokenizer's fingerprint
    is part of it: a model fits a corpus exactly when their vocabularies are equal.
    """

    tokenizer: str
    text_size: int
    keys: int = 88
    values: int = 16

    def __post_init__(self) -> None:
        if self.keys < 2 or self.values < 2:
            raise ConfigError(
                f"data.keys={self.keys}, data.values={self.values}: retrieval needs at least 2 of each"
            )

    @property
    def bos(self) -> int:
        return self.text_size

    @property
    def key_ids(self) -> np.ndarray:
        return self.bos + 1 + np.arange(self.keys)

    @property
    def value_ids(self) -> np.ndarray:
        return self.bos + 1 + self.keys + np.arange(self.values)

    @property
    def size(self) -> int:
        return self.text_size + 1 + self.keys + self.values
