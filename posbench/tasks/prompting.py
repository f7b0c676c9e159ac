"""Helpers of retrieval tasks: positions of questions, ranks, filler text, and ids from text and back."""

from __future__ import annotations

from typing import Any

import numpy as np

from posbench.data.corpus import Corpus
from posbench.errors import ConfigError, LengthError
from posbench.lm.interface import Prompt


def evenly_spaced(count: int, num_positions: int) -> np.ndarray:
    """(min(count, num_positions),) int64 indices from 0 to count - 1, evenly spaced and rounded down.

    These are the positions of Liu et al. (arXiv:2307.03172), such as 0, 34, 69, 104, 139 for 5 of 140.
    """
    steps = min(count, num_positions)
    return np.arange(steps, dtype=np.int64) * (count - 1) // max(1, steps - 1)


def require_positive(task: str, **settings: int) -> None:
    """Raises ConfigError unless every setting is 1 or more."""
    for name, value in settings.items():
        if value < 1:
            raise ConfigError(f"{task} with {name}={value}: give at least 1")


def gold_rank(logprob_V: np.ndarray, gold_V: np.ndarray) -> float:
    """Returns the rank of the gold candidate by log-probability, from 1; ties, common in low precision, count half.

    Args:
        logprob_V: (V,) log-probabilities of the candidates.
        gold_V: (V,) booleans, True for the gold candidate.
    """
    gold = logprob_V[gold_V][0]
    return float(1 + (logprob_V > gold).sum() + ((logprob_V == gold).sum() - 1) / 2)


def filler_text(corpus: Corpus, rng: np.random.Generator, tokens: int) -> np.ndarray:
    """(tokens,) int64 ids of running text from a random start in the evaluated split, without bos ids.

    Raises:
        LengthError: if the split has fewer tokens.
    """
    shard = corpus.evaluated
    ids = shard.tokens
    if len(ids) - len(shard) < tokens:
        raise LengthError(
            f"running text of {tokens} tokens: the {corpus.evaluated_split} split of {corpus.name} has {len(ids) - len(shard)}; "
            "choose a shorter length, or a larger corpus"
        )
    start = int(rng.integers(max(1, len(ids) - tokens - len(shard))))
    # One more token for each document, since its bos is removed. The same id can occur inside a text.
    text = ids[start : start + tokens + len(shard)]
    bos_indices = shard.starts[:-1] - start
    bos_indices = bos_indices[(bos_indices >= 0) & (bos_indices < len(text))]
    return np.delete(text, bos_indices)[:tokens].astype(np.int64)


def evaluated_window(corpus: Corpus, rng: np.random.Generator, tokens: int) -> np.ndarray:
    """(tokens,) ids from a random start in the evaluated split, bos ids of documents included.

    Raises:
        LengthError: if the split has fewer tokens.
    """
    ids = corpus.evaluated.tokens
    if len(ids) < tokens:
        raise LengthError(
            f"running text of {tokens} tokens: the {corpus.evaluated_split} split of {corpus.name} has {len(ids)}; "
            "choose a shorter length, or a larger corpus"
        )
    start = int(rng.integers(max(1, len(ids) - tokens)))
    return ids[start : start + tokens]


def encode_text(corpus: Corpus, text: str) -> np.ndarray:
    """(T,) int64 ids of a piece of text. Prompts are joined from ids, so that pieces are tokenized independently."""
    return corpus.tokenizer.encode(text).astype(np.int64)


def generation_prompt(
    ids: np.ndarray, question: np.ndarray, doc: dict[str, Any], max_new_tokens: int
) -> Prompt:
    """Returns the prompt of ids and a question, of at least one id, after which an answer is generated."""
    context = np.concatenate([ids, question[:-1]]).astype(np.int64)
    last = np.asarray(question[None, -1:], np.int64)
    return Prompt(context, last, 0, doc, max_new_tokens, question_len=len(question) - 1)


def leading_filler(corpus: Corpus, rng: np.random.Generator, tokens: int) -> np.ndarray:
    """(tokens,) int64 ids of filler before instructions: running text and, if it fits, an empty line."""
    empty_line = encode_text(corpus, "\n\n")
    if tokens < len(empty_line):
        return filler_text(corpus, rng, tokens)
    return np.concatenate([filler_text(corpus, rng, tokens - len(empty_line)), empty_line])


def decode_until_special(corpus: Corpus, ids: np.ndarray) -> str:
    """Decodes generated ids up to the first bos, eos or reserved id."""
    ends = np.isin(ids, [corpus.vocabulary.bos, *corpus.vocabulary.eos_ids])
    special = np.flatnonzero((ids >= corpus.tokenizer.vocab_size) | ends)
    return corpus.tokenizer.decode(ids[: special[0]] if len(special) else ids)
