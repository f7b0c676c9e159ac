"""Random strings that all have the same number of tokens, so that the prompts of a length share one shape."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from posbench.data.tokenizer import Tokenizer
from posbench.errors import DataError

PROBES = 512
# Of the probes, so many must have the most frequent number of tokens: else drawing would take forever.
COMMON = 8


class FixedTokenCount:
    """Strings with the number of tokens that is the most frequent one under a tokenizer; others are drawn again.

    Attributes:
        n_tokens: that number. It depends on the tokenizer alone and on no seed, so that lengths do not either.

    Args:
        draw: a string from a generator.
        what: names the strings in an error.

    Raises:
        DataError: if the tokenizer does not give a string back exactly, or if its numbers of tokens differ too
            much to have a common one.
    """

    def __init__(self, tokenizer: Tokenizer, draw: Callable[[np.random.Generator], str], what: str) -> None:
        self.tokenizer, self.draw, self.what = tokenizer, draw, what
        probes = self.encoded(np.random.default_rng(0), PROBES)
        counts = np.bincount([len(ids) for _, ids in probes])
        self.n_tokens = int(counts.argmax())
        if counts.max() < COMMON:
            raise DataError(
                f"{what} have no common number of tokens under tokenizer {tokenizer.name!r} ({self.n_tokens}, the most "
                f"frequent, in {counts.max()} of {PROBES}): choose another tokenizer, such as data.tokenizer.kind=bytes"
            )

    def sample(self, rng: np.random.Generator, count: int) -> tuple[list[str], np.ndarray]:
        """`count` strings, and their (count, n_tokens) int64 ids."""
        found: list[tuple[str, np.ndarray]] = []
        while len(found) < count:
            found += [pair for pair in self.encoded(rng, count) if len(pair[1]) == self.n_tokens]
        texts, ids = zip(*found[:count], strict=True)
        return list(texts), np.stack(ids).astype(np.int64)

    def encoded(self, rng: np.random.Generator, count: int) -> list[tuple[str, np.ndarray]]:
        texts = [self.draw(rng) for _ in range(count)]
        pairs = list(zip(texts, self.tokenizer.encode_all(texts), strict=True))
        for text, ids in pairs:
            if (back := self.tokenizer.decode(ids)) != text:
                raise DataError(
                    f"{self.what} are not exact under tokenizer {self.tokenizer.name!r}: {text!r} comes back as "
                    f"{back!r}; choose one that keeps text, such as data.tokenizer.kind=bytes"
                )
        return pairs
