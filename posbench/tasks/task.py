"""A task makes prompts of an exact length and measures scores; it knows no model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from posbench.data.corpus import Corpus
from posbench.lm.interface import Prompt


@dataclass(frozen=True)
class MetricValue:
    """One number; the field names are columns of a row."""

    metric: str
    value_sum: float
    n: int
    unit: str
    doc_id: str
    example: int
    position: int | None = None
    depth: float | None = None
    layer: int | None = None
    head: int | None = None


class Task:
    """The base of all tasks.

    Class attributes:
        task, protocol, variant: columns of the rows.
        metric, unit: of the row that stands for a cell without numbers, such as an undefined one.
        version: raised whenever prompts or measures change; part of a cell's identity.
        output_type: the method of an LM that answers the prompts.
    """

    task: ClassVar[str]
    protocol: ClassVar[str]
    metric: str
    unit: ClassVar[str]
    version: int = 1
    output_type: str = "loglikelihood"
    variant: str = ""
    # The synthetic sequences of which a model must have been trained to be asked at all; '' for any model.
    required_synthetic_task: str = ""

    def prompts(self, length: int, corpus: Corpus, train_len: int, seed: int) -> Iterator[Prompt]:
        """Prompts that are read as exactly `length` tokens.

        Raises:
            LengthError: if the corpus or the task's form does not allow the length.
        """
        raise NotImplementedError

    def process_results(self, prompt: Prompt, scores: Any) -> Iterator[MetricValue]:
        """A pure function of a prompt and what the LM answered: Scores, or Generated where `output_type` says so."""
        raise NotImplementedError

    def process_all_results(self, answered: Iterable[tuple[Prompt, Any]]) -> Iterator[MetricValue]:
        """Those of all prompts of a cell, in order; a task whose prompts belong together overrides it."""
        for prompt, scores in answered:
            yield from self.process_results(prompt, scores)

    def fixed_lengths(self, corpus: Corpus) -> list[int]:
        """Lengths in tokens that follow from the task's own settings, such as a number of records.

        Where there are any, they take the place of the lengths that an evaluation asks for.
        """
        return []

    def lengths_to_run(self, lengths: list[int], prefix_stable: bool) -> list[int]:
        """The lengths that need a pass of their own, out of those asked for."""
        return lengths
