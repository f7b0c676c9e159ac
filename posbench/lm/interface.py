"""What tasks see of a model: prompts in, log-probabilities of their answers out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np


@dataclass(frozen=True, eq=False)
class Prompt:
    """A context and the questions that share it.

    Attributes:
        context: (C,) ids, at least one.
        continuations: (N, S) ids that continue the context, each on its own.
        n_scored: how many ids at the end of each continuation are scored, 1 to S; 0 where answers are generated.
        doc: what the task wants to know again when it measures.
        max_new_tokens: how many ids are generated after each continuation; 0 where answers are scored.
        candidate_ids: (V,) ids whose log-probability is wanted as well, in place of the answer's first.
    """

    context: np.ndarray
    continuations: np.ndarray
    n_scored: int
    doc: dict[str, Any] = field(default_factory=dict)
    max_new_tokens: int = 0
    candidate_ids: np.ndarray | None = None

    @property
    def length(self) -> int:
        """Tokens that the model reads: all but the last, which is only predicted."""
        return len(self.context) + self.continuations.shape[1] + self.max_new_tokens - 1


@dataclass(frozen=True, eq=False)
class Scores:
    """Of one prompt's answers, under teacher forcing.

    Attributes:
        logprob: (N, A) float64 nats of each answer id.
        greedy_ids: (N, A) ids with the highest logit; greedy decoding gives the answer exactly where all are equal
            to it.
        candidate_logprobs: (N, V) float64 nats of the prompt's candidate ids at the answer's first place; None where it
            has none.
    """

    logprob: np.ndarray
    greedy_ids: np.ndarray
    candidate_logprobs: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class Generated:
    """What greedy decoding appends to each continuation of one prompt.

    Attributes:
        ids: (N, max_new_tokens) ids; a task cuts them where its answer ends.
    """

    ids: np.ndarray


@dataclass(frozen=True, eq=False)
class AttentionWeights:
    """What the last token read of each continuation of one prompt attends to.

    Attributes:
        weight_NLHS: (N, L, H, S) float64 shares by layer, head and token read. Where a scheme lets a query attend
            to nothing they sum to less than one.
    """

    weight_NLHS: np.ndarray


class LM(Protocol):
    """A model under test. A task names, in `output_type`, the method that answers its prompts."""

    train_len: int

    def loglikelihood(self, prompts: Iterable[Prompt]) -> Iterator[Scores]:
        """Scores of each prompt, in order.

        Raises:
            UndefinedError: if the model has no answer at the prompts' length by definition.
        """
        ...

    def generate(self, prompts: Iterable[Prompt]) -> Iterator[Generated]:
        """Greedily generated ids after each prompt's continuations, in order; raises as `loglikelihood` does."""
        ...

    def attention_weights(self, prompts: Iterable[Prompt]) -> Iterator[AttentionWeights]:
        """Attention weights of each prompt, in order; raises as `loglikelihood` does, and where there are no weights."""
        ...


class DecodingState(Protocol):
    """The continuations of one prompt, continued token by token together."""

    def logprob(self) -> np.ndarray:
        """(N, V) float64 nats of the next id of each."""
        ...

    def append(self, ids: np.ndarray) -> None:
        """Continue each by one of (N,) ids."""
        ...


class VocabLogprobsLM(Protocol):
    """An LM that tells whole distributions, which ensembles need; a context may be empty here."""

    train_len: int

    def vocab_logprobs(self, prompts: Sequence[Prompt]) -> Iterator[np.ndarray]:
        """(K, R, V) float64 nats of what stands at the answers of K prompts, R positions at a time.

        The prompts have continuations and answers of one shape; the N x A positions of those come in order, as
        many at a time as memory is meant to hold.
        """
        ...

    def start_decoding(self, prompt: Prompt) -> DecodingState:
        """The continuations of a prompt, to be continued."""
        ...
