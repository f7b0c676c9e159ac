"""Reads a long context in chunks, each with the question, and pools their predictions.

A chunk with the question fits in the training length and attends to no other chunk, so no position is extrapolated:
length extrapolation becomes a matter of pooling. Such parallel contexts are a baseline for context extensions. The
choice by entropy is NBCE's (see `nbce`); this is NBCE without its prior. Chunks are cut at arbitrary tokens, so that
text across a cut, such as a synthetic record, is complete in no chunk.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np

from posbench.errors import UndefinedError, unknown
from posbench.instantiate import register
from posbench.lm.interface import Generated, Prompt, Scores, VocabLogprobsLM

POOLINGS = ("min_entropy", "mean")
# Continuations decoded in parallel: each holds the keys and values of all chunks.
MAX_CONTINUATIONS = 8


@register("ensemble/chunks")
class ChunkEnsemble:
    """p(t) of the chunk whose distribution has the lowest entropy, or the mean of p(t) over all chunks.

    An LM around another LM, for scoring and greedy generation. With a single chunk it equals the inner LM.

    Args:
        inner: reads the chunks.
        bos: id that begins documents, or None. If a context begins with it, so does each of its chunks.
        pooling: "min_entropy", separately at each position and with ties to the first chunk, or "mean".

    Raises:
        ConfigError: for another pooling.
    """

    version: int = 3

    def __init__(self, inner: VocabLogprobsLM, bos: int | None, pooling: str = "min_entropy") -> None:
        if pooling not in POOLINGS:
            raise unknown("pooling", pooling, POOLINGS)
        self.inner, self.bos, self.pooling = inner, bos, pooling

    @property
    def train_len(self) -> int:
        """Training length of the inner LM in tokens."""
        return self.inner.train_len

    def pool(self, logprob_KRV: np.ndarray) -> np.ndarray:
        """Pools the (K, R, V) log-probabilities of K chunks at R positions into (R, V), in nats."""
        if self.pooling == "mean":
            return np.logaddexp.reduce(logprob_KRV, axis=0) - math.log(len(logprob_KRV))
        return min_entropy_logprobs(logprob_KRV)

    def chunk_prompts(self, prompt: Prompt) -> list[Prompt]:
        """Returns the prompt once for each chunk of its context, each with the question; chunk lengths differ by at most one token.

        Raises:
            UndefinedError: if the prompt without its context fills the training length.
        """
        context, template = prompt.context, replace(prompt, doc={}, candidate_ids=None)
        prefix = context[:1] if self.bos is not None and context[0] == self.bos else context[:0]
        end = len(context) - prompt.question_len
        body, question = context[len(prefix) : end], context[end:]
        room = self.train_len - replace(template, context=np.concatenate([prefix, question])).length
        if prompt.length <= self.train_len:
            return [template]
        if room < 1:
            raise UndefinedError(
                f"chunks of a context that is followed by {prompt.length - end} tokens: these leave none of "
                f"the training length {self.train_len}; choose a task with shorter questions"
            )
        chunks = np.array_split(body, math.ceil(len(body) / room))
        return [replace(template, context=np.concatenate([prefix, chunk, question])) for chunk in chunks]

    def loglikelihood(self, prompts: Iterable[Prompt]) -> Iterator[Scores]:
        """Computes the log-probabilities of the scored ids under the pooled distributions, in order."""
        for prompt in prompts:
            target_P = prompt.continuations[:, -prompt.n_scored :].ravel()
            logprob, greedy_ids, candidates, start = [], [], [], 0
            for block_KRV in self.inner.vocab_logprobs(self.chunk_prompts(prompt)):
                pooled_RV = self.pool(block_KRV)
                stop = start + len(pooled_RV)
                logprob.append(np.take_along_axis(pooled_RV, target_P[start:stop, None], 1)[:, 0])
                greedy_ids.append(pooled_RV.argmax(1))
                if prompt.candidate_ids is not None:
                    first = np.arange(start, stop) % prompt.n_scored == 0
                    candidates.append(pooled_RV[first][:, prompt.candidate_ids])
                start = stop
            shape = len(prompt.continuations), prompt.n_scored
            yield Scores(
                np.concatenate(logprob).reshape(shape),
                np.concatenate(greedy_ids).reshape(shape),
                np.concatenate(candidates) if candidates else None,
            )

    def generate(self, prompts: Iterable[Prompt]) -> Iterator[Generated]:
        """Generates ids greedily under the pooled distributions, in order; all chunks continue with the same ids."""
        for prompt in prompts:
            starts = range(0, len(prompt.continuations), MAX_CONTINUATIONS)
            parts = [prompt.continuations[start : start + MAX_CONTINUATIONS] for start in starts]
            yield Generated(
                np.concatenate([self.decode(replace(prompt, continuations=one)) for one in parts])
            )

    def decode(self, prompt: Prompt) -> np.ndarray:
        """Generates (N, max_new_tokens) ids, all continuations in parallel."""
        decoders = [self.inner.start_decoding(chunk) for chunk in self.chunk_prompts(prompt)]
        generated: list[np.ndarray] = []
        while True:
            pooled_NV = self.pool(np.stack([decoder.logprob() for decoder in decoders]))
            generated.append(pooled_NV.argmax(1))
            if len(generated) == prompt.max_new_tokens:
                return np.stack(generated, axis=1)
            for decoder in decoders:
                decoder.append(generated[-1])


def min_entropy_logprobs(logprob_KRV: np.ndarray) -> np.ndarray:
    """Selects the distribution of lowest entropy at each position: (K, R, V) to (R, V)."""
    # Clipped because 0 * -inf is nan.
    entropy_KR = -(np.exp(logprob_KRV) * np.clip(logprob_KRV, -100, 0)).sum(-1)
    return logprob_KRV[entropy_KR.argmin(0), np.arange(logprob_KRV.shape[1])]
