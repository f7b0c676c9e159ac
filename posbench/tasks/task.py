"""Base class of tasks: prompts of an exact length, and metrics of a model's answers to them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from posbench.data.corpus import Corpus
from posbench.lm.interface import Prompt


@dataclass(frozen=True)
class MetricValue:
    """A metric summed over `n` items; its value is `value_sum / n`. Field names are columns of the results.

    Attributes:
        metric: name.
        value_sum: sum over the items.
        n: number of items: tokens, questions or prompts.
        unit: of one item: "nats", "bytes", "fraction" (0 to 1) or "rank" (1 is best).
        doc_id: document or context that the items come from.
        example: index of that document or context in the evaluation.
        position: token position or index of a record or passage, as the task documents.
        depth: relative position in the context, 0 (start) to 1 (end).
        layer, head: indices, for metrics of attention.
    """

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
    """Base class of all tasks.

    Class docstrings of tasks list their metrics with unit and range; ranges are those of `value_sum / n`.

    Attributes:
        task, protocol, variant: columns of the results.
        metric, unit: primary metric; also the one in the row of a cell without results, such as an undefined length.
        version: incremented when prompts or metrics change; part of a cell's identity.
        output_type: method of `LM` that answers the prompts: "loglikelihood", "generate" or "attention_weights".
        supports_ensembles: whether prompts mark their question (`Prompt.question_len`), which an ensemble repeats.
        check_all_prompts: creates all prompts when a sweep is planned, and not only the first, because a length that is
            possible for one prompt may be too short for another.
        required_synthetic_task: `train.synthetic_task` with which a model must have been trained; "" for any model.
    """

    task: ClassVar[str]
    protocol: ClassVar[str]
    metric: str
    unit: ClassVar[str]
    version: int = 1
    output_type: str = "loglikelihood"
    variant: str = ""
    supports_ensembles: bool = True
    required_synthetic_task: str = ""
    check_all_prompts: bool = False

    def prompts(self, length: int, corpus: Corpus, train_len: int, seed: int) -> Iterator[Prompt]:
        """Yields prompts of exactly `length` tokens (`Prompt.length`); a task with shorter prompts states it in its docstring.

        Args:
            length: tokens.
            corpus: test text, tokenizer and vocabulary.
            train_len: training length of the model in tokens.
            seed: of all random draws.

        Raises:
            LengthError: if the corpus or the form of the task does not allow the length.
        """
        raise NotImplementedError

    def process_results(self, prompt: Prompt, scores: Any) -> Iterator[MetricValue]:
        """Computes the metrics of one prompt.

        Args:
            scores: the answer of the model: `Scores`, `Generated` or `AttentionWeights`, by `output_type`.
        """
        raise NotImplementedError

    def process_all_results(self, answered: Iterable[tuple[Prompt, Any]]) -> Iterator[MetricValue]:
        """Computes the metrics of all prompts of a cell, in order; overridden by tasks that compare prompts.

        Args:
            answered: each prompt with the answer of the model.
        """
        for prompt, scores in answered:
            yield from self.process_results(prompt, scores)

    def begin_with(self, prompt: Prompt, bos: int) -> Prompt:
        """Returns a prompt as pretrained models read it: of the same length, with `bos` in place of its first id.

        That id is never scored. Windows into the middle of a document have no bos of their own, and how many there are
        depends on the length.
        """
        context = prompt.context.copy()
        context[0] = bos
        return replace(prompt, context=context)

    def fixed_lengths(self, corpus: Corpus) -> list[int]:
        """Returns the lengths in tokens that follow from the task's settings, such as a number of records.

        They replace the lengths of the evaluation. Empty for a task of any length.
        """
        return []

    def lengths_to_run(self, lengths: list[int], prefix_stable: bool, train_len: int) -> list[int]:
        """Returns the lengths that need forward passes of their own.

        Args:
            lengths: requested lengths in tokens.
            prefix_stable: whether the model computes the same for a prefix whatever follows it.
            train_len: training length of the model in tokens.
        """
        return lengths
