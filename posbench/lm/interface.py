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
        suffixes: (N, S) ids that continue the context, each on its own.
        answer: how many ids at the end of each suffix are scored, 1 to S; 0 where answers are generated.
        facts: what the task wants to know again when it measures.
        new: how many ids are generated after each suffix; 0 where answers are scored.
        candidates: (V,) ids whose log-probability is wanted as well, in place of the answer's first.
    """

    context: np.ndarray
    suffixes: np.ndarray
    answer: int
    facts: dict[str, Any] = field(default_factory=dict)
    new: int = 0
    candidates: np.ndarray | None = None

    @property
    def length(self) -> int:
        """Tokens that the model reads: all but the last, which is only predicted."""
        return len(self.context) + self.suffixes.shape[1] + self.new - 1


@dataclass(frozen=True, eq=False)
class Scores:
    """Of one prompt's answers, under teacher forcing.

    Attributes:
        logprob: (N, A) float64 nats of each answer id.
        top: (N, A) ids with the highest logit; greedy decoding gives the answer exactly where all are equal
            to it.
        candidates: (N, V) float64 nats of the prompt's candidates at the answer's first place; None where it
            has none.
    """

    logprob: np.ndarray
    top: np.ndarray
    candidates: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class Generated:
    """What greedy decoding appends to each suffix of one prompt.

    Attributes:
        ids: (N, new) ids; a task cuts them where its answer ends.
    """

    ids: np.ndarray


@dataclass(frozen=True, eq=False)
class Attention:
    """What the last token read of each suffix of one prompt attends to.

    Attributes:
        weight_NLHS: (N, L, H, S) float64 shares by layer, head and token read. Where a scheme lets a query attend
            to nothing they sum to less than one.
    """

    weight_NLHS: np.ndarray


class Subject(Protocol):
    """A model under test. A task names, in `asks`, the method that answers its prompts."""

    train_len: int

    def score(self, prompts: Iterable[Prompt]) -> Iterator[Scores]:
        """Scores of each prompt, in order.

        Raises:
            UndefinedError: if the model has no answer at the prompts' length by definition.
        """
        ...

    def generate(self, prompts: Iterable[Prompt]) -> Iterator[Generated]:
        """Greedy continuations of each prompt's suffixes, in order; raises as `score` does."""
        ...

    def attention(self, prompts: Iterable[Prompt]) -> Iterator[Attention]:
        """Attention weights of each prompt, in order; raises as `score` does, and where there are no weights."""
        ...


class Decoder(Protocol):
    """The suffixes of one prompt, continued token by token together."""

    def logprob(self) -> np.ndarray:
        """(N, V) float64 nats of the next id of each."""
        ...

    def append(self, ids: np.ndarray) -> None:
        """Continue each by one of (N,) ids."""
        ...


class Reader(Protocol):
    """A subject that tells whole distributions, which ensembles need; a context may be empty here."""

    train_len: int

    def distributions(self, prompts: Sequence[Prompt]) -> Iterator[np.ndarray]:
        """(K, R, V) float64 nats of what stands at the answers of K prompts, R positions at a time.

        The prompts have suffixes and answers of one shape; the N x A positions of those come in order, as
        many at a time as memory is meant to hold.
        """
        ...

    def decoder(self, prompt: Prompt) -> Decoder:
        """The suffixes of a prompt, to be continued."""
        ...
