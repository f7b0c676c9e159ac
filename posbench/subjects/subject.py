"""What tasks see of a model: prompts in, log-probabilities of their answers out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
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
    """

    context: np.ndarray
    suffixes: np.ndarray
    answer: int
    facts: dict[str, Any] = field(default_factory=dict)
    new: int = 0

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
    """

    logprob: np.ndarray
    top: np.ndarray


@dataclass(frozen=True, eq=False)
class Generated:
    """What greedy decoding appends to each suffix of one prompt.

    Attributes:
        ids: (N, new) ids; a task cuts them where its answer ends.
    """

    ids: np.ndarray


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
