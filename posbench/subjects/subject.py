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
        answer: how many ids at the end of each suffix are scored, 1 to S.
        facts: what the task wants to know again when it measures.
    """

    context: np.ndarray
    suffixes: np.ndarray
    answer: int
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def length(self) -> int:
        """Tokens that the model reads: all but the last, which is only predicted."""
        return len(self.context) + self.suffixes.shape[1] - 1


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


class Subject(Protocol):
    """A model under test."""

    train_len: int

    def score(self, prompts: Iterable[Prompt]) -> Iterator[Scores]:
        """Scores of each prompt, in order.

        Raises:
            UndefinedError: if the model has no answer at the prompts' length by definition.
        """
        ...
