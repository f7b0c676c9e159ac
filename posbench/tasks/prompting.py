"""Where retrieval asks, how a rank is counted, and what fills a context to its exact length."""

from __future__ import annotations

import numpy as np

from posbench.data.corpus import Corpus
from posbench.errors import ConfigError, LengthError


def evenly_spaced(count: int, asked: int) -> np.ndarray:
    """(min(count, asked),) int64 indices, evenly from the first to the last of `count` things.

    Rounded down, they are the positions of Liu et al.: 0, 34, 69, 104, 139 are 5 of 140.
    """
    steps = min(count, asked)
    return np.arange(steps, dtype=np.int64) * (count - 1) // max(1, steps - 1)


def require_positive(task: str, **settings: int) -> None:
    """Raises ConfigError unless every setting is 1 or more."""
    for name, value in settings.items():
        if value < 1:
            raise ConfigError(f"{task} with {name}={value}: give at least 1")


def gold_rank(logprob_V: np.ndarray, gold_V: np.ndarray) -> float:
    """The rank of the gold one by log-probability, 1 the first; a tie counts half, as in low precision many are."""
    gold = logprob_V[gold_V][0]
    return float(1 + (logprob_V > gold).sum() + ((logprob_V == gold).sum() - 1) / 2)


def filler_text(corpus: Corpus, rng: np.random.Generator, tokens: int) -> np.ndarray:
    """(tokens,) int64 ids of consecutive text of the test split, without what begins a document.

    Raises:
        LengthError: if the split holds less.
    """
    shard = corpus.split("test")
    whole = shard.tokens
    if len(whole) - len(shard) < tokens:
        raise LengthError(
            f"running text of {tokens} tokens: the test split of {corpus.name} has {len(whole) - len(shard)}; "
            "choose a shorter length, or a larger corpus"
        )
    start = int(rng.integers(max(1, len(whole) - tokens - len(shard))))
    # As many more as there are documents, so that their beginnings can be left out.
    text = whole[start : start + tokens + len(shard)]
    return text[text != corpus.vocabulary.bos][:tokens].astype(np.int64)


def encode_text(corpus: Corpus, text: str) -> np.ndarray:
    """(T,) int64 ids of text: prompts are joined as ids, never as text across a tokenizer's seam."""
    return corpus.tokenizer.encode(text).astype(np.int64)


def leading_filler(corpus: Corpus, rng: np.random.Generator, tokens: int) -> np.ndarray:
    """(tokens,) int64 ids to stand before instructions: running text and, where it fits, an empty line."""
    line = encode_text(corpus, "\n\n")
    if tokens < len(line):
        return filler_text(corpus, rng, tokens)
    return np.concatenate([filler_text(corpus, rng, tokens - len(line)), line])


def decode_until_special(corpus: Corpus, ids: np.ndarray) -> str:
    """What was generated, up to the first id that is no text or begins another one."""
    others = np.flatnonzero((ids >= corpus.tokenizer.vocab_size) | (ids == corpus.vocabulary.bos))
    return corpus.tokenizer.decode(ids[: others[0]] if len(others) else ids)
