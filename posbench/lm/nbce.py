"""NBCE: a context in chunks, pooled as a naive Bayes classifier would, against what is said without context.

Su Jianlin. Naive Bayes-based Context Extension. 2023. https://kexue.fm/archives/9617; its code is test.py of
https://github.com/bojone/NBCE. Deviations: nothing is cut by default, since what the code's top_p=0.95 cuts
has probability 0, which a loss cannot bear; its bonus of 0.1 nats for the chunk that was chosen a token
before is left out, so that every position is pooled by itself; its chunks are documents, ours equal parts of
one context; a context without bos leaves nothing but the question, whose first id is then read, not
predicted, and where that is scored too the last id of the context stays.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from posbench.errors import ConfigError
from posbench.instantiate import register
from posbench.lm.chunks import ChunkEnsemble, min_entropy_logprobs
from posbench.lm.interface import Prompt, VocabLogprobsLM


@register("ensemble/nbce")
class NBCE(ChunkEnsemble):
    """log p(t) = (1 + beta) log p(t | pooled chunk) - beta log p(t | no context), normalised.

    Where the prior has cut a token the pooled chunk's own value stays.

    Args:
        beta: weight of the prior; with pooling mean, beta of one less than the number of chunks is naive
            Bayes. It weighs also where there is a single chunk.
        pooling: min_entropy, the chunk of lowest entropy, or mean, the mean of the chunks' log-probabilities.
        top_p: of every distribution only the likeliest ids that together reach this are kept.
    """

    def __init__(
        self,
        inner: VocabLogprobsLM,
        bos: int | None,
        beta: float = 0.25,
        pooling: str = "min_entropy",
        top_p: float = 1.0,
    ) -> None:
        super().__init__(inner, bos, pooling)
        if not beta >= 0 or not 0 < top_p <= 1:
            raise ConfigError(
                f"NBCE with beta {beta} and top_p {top_p}: give beta of at least 0 and top_p above 0 up to 1"
            )
        self.beta, self.top_p = beta, top_p

    def chunk_prompts(self, prompt: Prompt) -> list[Prompt]:
        """The chunks, and last the prompt without context."""
        chunks = super().chunk_prompts(prompt)
        front = prompt.context[:1] if prompt.context[0] == self.bos else prompt.context[:0]
        if not len(front) and prompt.n_scored == prompt.continuations.shape[1]:
            front = prompt.context[-1:]
        return [*chunks, replace(chunks[0], context=front)]

    def pool(self, logprob_KRV: np.ndarray) -> np.ndarray:
        """(R, V) nats from those of the chunks and, last, those without context."""
        logprob_KRV = nucleus(logprob_KRV, self.top_p)
        chunks_KRV, prior_RV = logprob_KRV[:-1], logprob_KRV[-1]
        pooled_RV = min_entropy_logprobs(chunks_KRV) if self.pooling == "min_entropy" else chunks_KRV.mean(0)
        known = np.maximum(prior_RV, -100)  # any number where it is not taken
        merged_RV = np.where(prior_RV > -100, (1 + self.beta) * pooled_RV - self.beta * known, pooled_RV)
        return merged_RV - np.logaddexp.reduce(merged_RV, axis=-1, keepdims=True)


def nucleus(logprob: np.ndarray, top_p: float) -> np.ndarray:
    """(.., V): -inf for what the likelier ids make up top_p without."""
    if top_p == 1:
        return logprob
    order = np.argsort(-logprob, axis=-1, kind="stable")
    ranked = np.take_along_axis(logprob, order, -1)
    before = np.exp(ranked).cumsum(-1) - np.exp(ranked)
    kept = np.where(before < top_p, ranked, -np.inf)
    found = np.empty_like(logprob)
    np.put_along_axis(found, order, kept, -1)
    return found
