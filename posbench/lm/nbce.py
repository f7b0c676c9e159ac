"""NBCE: chunks pooled as in naive Bayes, with the prediction without context as prior.

Su Jianlin. Naive Bayes-based Context Extension. 2023. https://kexue.fm/archives/9617; code: test.py of
https://github.com/bojone/NBCE. Deviations:

- By default no distribution is truncated: the code's top_p=0.95 gives all other ids probability 0, an infinite loss.
- The code adds a bonus of 0.1 nats to the chunk chosen for the previous token; here positions are pooled independently.
- Its chunks are documents; here they are equal parts of one context.
- Without a bos and a marked question there is nothing to read before a continuation. Its first id is then read and not
  predicted; if that id is scored, the last id of the context stays.
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

    An id that top_p removes from the prior keeps the log-probability of the pooled chunk. With pooling "mean", an id that
    top_p removes from one chunk has probability 0. Where this removes every id, chunks are pooled without top_p.

    Args:
        beta: weight of the prior, at least 0; applied to a single chunk too. With pooling "mean", the number of chunks
            minus one gives naive Bayes.
        pooling: "min_entropy", the chunk whose distribution has the lowest entropy, or "mean", the mean of the chunks'
            log-probabilities.
        top_p: probability mass kept of every distribution, above 0 up to 1: the most likely ids that reach it.

    Raises:
        ConfigError: for settings outside these ranges.
    """

    version = 4

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
                f"NBCE with beta {beta} and top_p {top_p}: give a beta of at least 0 and a top_p above 0, up to 1"
            )
        self.beta, self.top_p = beta, top_p

    def chunk_prompts(self, prompt: Prompt) -> list[Prompt]:
        """Returns the prompt for each chunk of its context and, last, with the question alone."""
        chunks, context = super().chunk_prompts(prompt), prompt.context
        prefix = context[:1] if context[0] == self.bos else context[:0]
        prior = np.concatenate([prefix, context[len(context) - prompt.question_len :]])
        if not len(prior) and prompt.n_scored == prompt.continuations.shape[1]:
            prior = context[-1:]
        return [*chunks, replace(chunks[0], context=prior)]

    def pool(self, logprob_KRV: np.ndarray) -> np.ndarray:
        """Pools (K, R, V) log-probabilities, the last of them those without context, into (R, V), in nats."""
        likely_KRV = nucleus(logprob_KRV, self.top_p)
        chunks_KRV, prior_RV = likely_KRV[:-1], likely_KRV[-1]
        if self.pooling == "min_entropy":
            pooled_RV = min_entropy_logprobs(chunks_KRV)
        else:
            pooled_RV = chunks_KRV.mean(0)
            removed_R = np.isneginf(pooled_RV).all(-1)
            pooled_RV[removed_R] = logprob_KRV[:-1, removed_R].mean(0)
        finite_RV = np.maximum(prior_RV, -100)  # avoids inf - inf, which `where` would evaluate
        posterior_RV = np.where(
            prior_RV > -100, (1 + self.beta) * pooled_RV - self.beta * finite_RV, pooled_RV
        )
        return posterior_RV - np.logaddexp.reduce(posterior_RV, axis=-1, keepdims=True)


def nucleus(logprob: np.ndarray, top_p: float) -> np.ndarray:
    """Masks ids outside the top-p nucleus of (.., V) log-probabilities with -inf."""
    if top_p == 1:
        return logprob
    order = np.argsort(-logprob, axis=-1, kind="stable")
    ranked = np.take_along_axis(logprob, order, -1)
    mass_before = np.exp(ranked).cumsum(-1) - np.exp(ranked)
    masked = np.empty_like(logprob)
    np.put_along_axis(masked, order, np.where(mass_before < top_p, ranked, -np.inf), -1)
    return masked
