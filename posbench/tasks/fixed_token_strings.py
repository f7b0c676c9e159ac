"""Random strings with one fixed number of tokens, so that all prompts of a length have one shape."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from posbench.data.tokenizer import Tokenizer
from posbench.errors import DataError

PROBES = 512
# Smallest number of probes with the most frequent token count; below it rejection sampling would not end in time.
MIN_COMMON = 8


class FixedTokenCount:
    """Rejection sampling of random strings whose token count is the most frequent one under a tokenizer.

    Args:
        tokenizer: counts the tokens.
        draw: draws a string from a generator.
        description: plural noun for the strings in errors.

    Attributes:
        n_tokens: the token count. It depends on no seed, so that lengths of prompts do not either.

    Raises:
        DataError: if the tokenizer does not reproduce a string exactly, or token counts vary too much.
    """

    def __init__(
        self, tokenizer: Tokenizer, draw: Callable[[np.random.Generator], str], description: str
    ) -> None:
        self.tokenizer, self.draw, self.description = tokenizer, draw, description
        probes = self.encoded(np.random.default_rng(0), PROBES)
        counts = np.bincount([len(ids) for _, ids in probes])
        self.n_tokens = int(counts.argmax())
        if counts.max() < MIN_COMMON:
            raise DataError(
                f"{description} have no common number of tokens under tokenizer {tokenizer.name!r} ({self.n_tokens}, the most "
                f"frequent, in {counts.max()} of {PROBES}): choose another tokenizer, such as data.tokenizer.kind=bytes"
            )

    def sample(self, rng: np.random.Generator, count: int) -> tuple[list[str], np.ndarray]:
        """Returns `count` strings and their (count, n_tokens) int64 ids."""
        accepted: list[tuple[str, np.ndarray]] = []
        while len(accepted) < count:
            accepted += [pair for pair in self.encoded(rng, count) if len(pair[1]) == self.n_tokens]
        texts, ids = zip(*accepted[:count], strict=True)
        return list(texts), np.stack(ids).astype(np.int64)

    def encoded(self, rng: np.random.Generator, count: int) -> list[tuple[str, np.ndarray]]:
        """Draws `count` strings of any token count, with their ids."""
        texts = [self.draw(rng) for _ in range(count)]
        pairs = list(zip(texts, self.tokenizer.encode_all(texts), strict=True))
        for text, ids in pairs:
            if (decoded := self.tokenizer.decode(ids)) != text:
                raise DataError(
                    f"{self.description} are not exact under tokenizer {self.tokenizer.name!r}: {text!r} comes back as "
                    f"{decoded!r}; choose a lossless one, such as data.tokenizer.kind=bytes"
                )
        return pairs
