"""The interface between tasks and models: token ids in; log-probabilities, generated ids or attention weights out.

As in lm-evaluation-harness, a task names the type of its requests in `output_type`, which is a method of `LM`:

- `loglikelihood`: log-probabilities of the last ids of each continuation under teacher forcing;
- `generate`: greedy decoding after each continuation;
- `attention_weights`: attention weights of the last token that is read.

Requests hold token ids and not text, so that lengths are exact. Shapes: C context tokens, N continuations of S
tokens each, A scored tokens, M candidates, V ids of the vocabulary. Log-probabilities are float64 nats.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np


@dataclass(frozen=True, eq=False)
class Prompt:
    """A request: one context and the continuations that share it.

    Attributes:
        context: (C,) integer ids, C >= 1.
        continuations: (N, S) integer ids; each row follows the context, independently of the other rows.
        n_scored: A, the number of ids scored at the end of each continuation, 1 to S; 0 for generation.
        doc: data of the task, returned to it with the answer; models ignore it.
        max_new_tokens: number of ids generated after each continuation; 0 for scoring.
        candidate_ids: (M,) integer ids scored as alternatives to the first scored id of every continuation.
        question_len: number of ids at the end of the context that belong to the question, which an ensemble repeats
            after each chunk.
        extension_length: length in tokens that an extension is built for; None is the length of the cell.
    """

    context: np.ndarray
    continuations: np.ndarray
    n_scored: int
    doc: dict[str, Any] = field(default_factory=dict)
    max_new_tokens: int = 0
    candidate_ids: np.ndarray | None = None
    question_len: int = 0
    extension_length: int | None = None

    @property
    def length(self) -> int:
        """Tokens that the model reads, C + S + max_new_tokens - 1: the last token is only predicted."""
        return len(self.context) + self.continuations.shape[1] + self.max_new_tokens - 1


@dataclass(frozen=True, eq=False)
class Scores:
    """Answer to `loglikelihood` for one prompt.

    Attributes:
        logprob: (N, A) float64 nats of each scored id, given all ids before it.
        greedy_ids: (N, A) int64 ids with the highest logit. Greedy decoding reproduces a row's scored ids if and
            only if all of its greedy ids equal them.
        candidate_logprobs: (N, M) float64 nats of the prompt's candidates at the first scored position; None for a
            prompt without candidates.
    """

    logprob: np.ndarray
    greedy_ids: np.ndarray
    candidate_logprobs: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class Generated:
    """Answer to `generate` for one prompt.

    Attributes:
        ids: (N, max_new_tokens) int64 ids of greedy decoding. Generation never stops early; tasks truncate.
    """

    ids: np.ndarray


@dataclass(frozen=True, eq=False)
class AttentionWeights:
    """Answer to `attention_weights` for one prompt.

    Attributes:
        weight_NLHS: (N, layers, heads, `Prompt.length`) float64 weights of the last token read in each
            continuation, over all tokens read. They sum to 1, or to less under a scheme that lets a query attend
            to nothing.
    """

    weight_NLHS: np.ndarray


class LM(Protocol):
    """A model under test. Answers come in the order of the prompts, as an iterator.

    Attributes:
        train_len: training length in tokens.
    """

    train_len: int

    def loglikelihood(self, prompts: Iterable[Prompt]) -> Iterator[Scores]:
        """Computes the log-probabilities of the last `n_scored` ids of each continuation.

        Raises:
            UndefinedError: if the model is not defined at the prompts' length.
        """
        ...

    def generate(self, prompts: Iterable[Prompt]) -> Iterator[Generated]:
        """Generates `max_new_tokens` ids greedily after each continuation.

        Raises:
            UndefinedError: if the model is not defined at the prompts' length.
        """
        ...

    def attention_weights(self, prompts: Iterable[Prompt]) -> Iterator[AttentionWeights]:
        """Computes the attention weights of the last token read, which predicts the last id of each continuation.

        Raises:
            UndefinedError: if the model is not defined at the prompts' length, or its attention has no weights.
            IncompatibleError: if the implementation does not expose attention weights.
        """
        ...


class DecodingState(Protocol):
    """Decoding of all continuations of one prompt in parallel, with the next ids chosen by the caller."""

    def logprob(self) -> np.ndarray:
        """(N, V) float64 nats of the next id of each continuation."""
        ...

    def append(self, ids: np.ndarray) -> None:
        """Appends one id to each continuation; `ids` is (N,)."""
        ...


class VocabLogprobsLM(Protocol):
    """A model that exposes full next-token distributions, as ensembles need; here contexts may be empty.

    Attributes:
        train_len: training length in tokens.
    """

    train_len: int

    def vocab_logprobs(self, prompts: Sequence[Prompt]) -> Iterator[np.ndarray]:
        """Computes the distributions at the scored positions of K prompts, in blocks that bound memory.

        Args:
            prompts: K prompts whose continuations have one shape (N, S) and one `n_scored`; contexts may differ.

        Yields:
            (K, R, V) float64 nats of R consecutive scored positions, out of N * A in row-major order.
        """
        ...

    def start_decoding(self, prompt: Prompt) -> DecodingState:
        """Reads a prompt and returns the state from which its continuations are decoded."""
        ...
