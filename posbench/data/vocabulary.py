"""Which ids a model knows: the tokenizer's, then one that begins a document, then keys and values.

A pretrained model knows its tokenizer's alone: one of those begins a document, and there are no keys and values.
"""

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
    own_bos: int | None = None  # one of the text's ids, where the model has its own

    def __post_init__(self) -> None:
        if min(self.keys, self.values) < 2 and (self.keys, self.values) != (0, 0):
            raise ConfigError(
                f"data.keys={self.keys}, data.values={self.values}: retrieval needs at least 2 of each; 0 of both "
                "is a vocabulary without"
            )

    @property
    def bos(self) -> int:
        return self.text_size if self.own_bos is None else self.own_bos

    @property
    def reserved(self) -> int:
        """The first id behind the text's and the bos."""
        return self.text_size + (self.own_bos is None)

    @property
    def key_ids(self) -> np.ndarray:
        return self.reserved + np.arange(self.keys)

    @property
    def value_ids(self) -> np.ndarray:
        return self.reserved + self.keys + np.arange(self.values)

    @property
    def size(self) -> int:
        return self.reserved + self.keys + self.values
