"""A task makes prompts of an exact length and measures scores; it knows no model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from posbench.data.corpus import Corpus
from posbench.subjects.subject import Prompt, Scores


@dataclass(frozen=True)
class Measure:
    """One number; the field names are columns of a row."""

    metric: str
    value: float
    n: int
    unit: str
    document: str
    example: int
    position: int | None = None
    depth: float | None = None


class Task:
    """The base of all tasks.

    Class attributes:
        task, protocol, variant: columns of the rows.
        metric, unit: of the row that stands for a cell without numbers, such as an undefined one.
        version: raised whenever prompts or measures change; part of a cell's identity.
        asks: the method of a subject that answers the prompts.
    """

    task: ClassVar[str]
    protocol: ClassVar[str]
    metric: ClassVar[str]
    unit: ClassVar[str]
    version: ClassVar[int] = 1
    asks: ClassVar[str] = "score"
    variant: str = ""
    # Whether rows at the training length decide if rows at other lengths may be concluded from.
    gated: ClassVar[bool] = False

    def prompts(self, length: int, corpus: Corpus, train_len: int, seed: int) -> Iterator[Prompt]:
        """Prompts that are read as exactly `length` tokens.

        Raises:
            LengthError: if the corpus or the task's form does not allow the length.
        """
        raise NotImplementedError

    def measure(self, prompt: Prompt, scores: Scores) -> Iterator[Measure]:
        """A pure function of a prompt and what the subject answered."""
        raise NotImplementedError

    def own_lengths(self, corpus: Corpus) -> list[int]:
        """Lengths in tokens that follow from the task's own settings, such as a number of records.

        Where there are any, they take the place of the lengths that an evaluation asks for.
        """
        return []

    def lengths(self, lengths: list[int], prefix_stable: bool) -> list[int]:
        """The lengths that need a pass of their own, out of those asked for."""
        return lengths
