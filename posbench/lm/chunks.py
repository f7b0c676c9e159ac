"""A long context read in chunks, each with the question by itself; one distribution is made of all of theirs.

No chunk is longer than the model was trained for and none sees another, so nothing extrapolates: what past
the training length is a question of positions becomes one of how to pool. The parallel contexts that
context extensions are compared with; the choice by entropy is NBCE's (see `nbce`), and this is NBCE without
its prior. Chunks are cut by tokens alone: what stands across a cut, such as a synthetic record, is whole in
no chunk.
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
# Continuations that are continued together: each holds the keys and values of its chunks.
TOGETHER = 8


@register("ensemble/chunks")
class ChunkEnsemble:
    """p(t) is that of the chunk whose distribution has the lowest entropy, or the mean over the chunks.

    An LM around an LM, for scores and for greedy generation. With one chunk it is the model itself.

    Args:
        inner: what reads each chunk.
        bos: the id that begins a document: a context that starts with it lends it to every chunk.
        pooling: min_entropy (of each position by itself; of equal ones the first chunk) or mean.
    """

    version: int = 1

    def __init__(self, inner: VocabLogprobsLM, bos: int | None, pooling: str = "min_entropy") -> None:
        if pooling not in POOLINGS:
            raise unknown("pooling", pooling, POOLINGS)
        self.inner, self.bos, self.pooling = inner, bos, pooling

    @property
    def train_len(self) -> int:
        """Tokens."""
        return self.inner.train_len

    def pool(self, logprob_KRV: np.ndarray) -> np.ndarray:
        """(R, V) nats from those of each of K readings."""
        if self.pooling == "mean":
            return np.logaddexp.reduce(logprob_KRV, axis=0) - math.log(len(logprob_KRV))
        return min_entropy_logprobs(logprob_KRV)

    def chunk_prompts(self, prompt: Prompt) -> list[Prompt]:
        """The prompt over each chunk of its context; chunks differ in length by one token at most.

        Raises:
            UndefinedError: if the continuation alone fills the training length.
        """
        context, bare = prompt.context, replace(prompt, doc={}, candidate_ids=None)
        front = context[:1] if self.bos is not None and context[0] == self.bos else context[:0]
        body = context[len(front) :]
        room = self.train_len - replace(bare, context=front).length
        if prompt.length <= self.train_len:
            return [bare]
        if room < 1:
            raise UndefinedError(
                f"chunks of a context before {prompt.length - len(context)} tokens that are not context: they "
                f"leave none of the training length {self.train_len}; choose a task with shorter questions"
            )
        chunks = np.array_split(body, math.ceil(len(body) / room))
        return [replace(bare, context=np.concatenate([front, chunk])) for chunk in chunks]

    def loglikelihood(self, prompts: Iterable[Prompt]) -> Iterator[Scores]:
        """Scores of each prompt under the pooled distribution, in order."""
        for prompt in prompts:
            target_P = prompt.continuations[:, -prompt.n_scored :].ravel()
            logprob, greedy_ids, listed, start = [], [], [], 0
            for block_KRV in self.inner.vocab_logprobs(self.chunk_prompts(prompt)):
                pooled_RV = self.pool(block_KRV)
                stop = start + len(pooled_RV)
                logprob.append(np.take_along_axis(pooled_RV, target_P[start:stop, None], 1)[:, 0])
                greedy_ids.append(pooled_RV.argmax(1))
                if prompt.candidate_ids is not None:
                    first = np.arange(start, stop) % prompt.n_scored == 0
                    listed.append(pooled_RV[first][:, prompt.candidate_ids])
                start = stop
            shape = len(prompt.continuations), prompt.n_scored
            yield Scores(
                np.concatenate(logprob).reshape(shape),
                np.concatenate(greedy_ids).reshape(shape),
                np.concatenate(listed) if listed else None,
            )

    def generate(self, prompts: Iterable[Prompt]) -> Iterator[Generated]:
        """Greedily generated ids under the pooled distribution: every reading goes on with the same ids."""
        for prompt in prompts:
            yield Generated(np.concatenate([self.continued(part) for part in parts(prompt)]))

    def continued(self, prompt: Prompt) -> np.ndarray:
        """(N, max_new_tokens) ids."""
        decoders = [self.inner.start_decoding(reading) for reading in self.chunk_prompts(prompt)]
        found: list[np.ndarray] = []
        while True:
            pooled_NV = self.pool(np.stack([decoder.logprob() for decoder in decoders]))
            found.append(pooled_NV.argmax(1))
            if len(found) == prompt.max_new_tokens:
                return np.stack(found, axis=1)
            for decoder in decoders:
                decoder.append(found[-1])


def min_entropy_logprobs(logprob_KRV: np.ndarray) -> np.ndarray:
    """(R, V): of each position the distribution of lowest entropy."""
    # What was cut has a logarithm of -inf, and 0 times that is no number.
    entropy_KR = -(np.exp(logprob_KRV) * np.clip(logprob_KRV, -100, 0)).sum(-1)
    return logprob_KRV[entropy_KR.argmin(0), np.arange(logprob_KRV.shape[1])]


def parts(prompt: Prompt) -> Iterator[Prompt]:
    """A prompt with a few of its continuations at a time."""
    for start in range(0, len(prompt.continuations), TOGETHER):
        yield replace(prompt, continuations=prompt.continuations[start : start + TOGETHER])
