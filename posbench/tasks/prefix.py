"""Perplexity by position: the loss of documents from their first token on.

If the model computes the same for a prefix whatever follows it (`Traits.prefix_stable`), one pass at the longest length
gives the shorter lengths that are the training length times a power of two, at which reports cut it. Any other
length, and every length of any other model, has a pass of its own.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from posbench.data.corpus import Corpus
from posbench.instantiate import register
from posbench.lm.interface import Prompt, Scores
from posbench.tasks.perplexity import Perplexity
from posbench.tasks.task import MetricValue


@register("task/prefix")
class Prefix(Perplexity):
    """Loss of the first `length` targets of each document, in buckets of positions.

    Prompts: the first `length` + 1 tokens of documents with more than max_context tokens.
    Metrics: those of `Perplexity`, for each bucket. `position` is the END of the bucket in tokens, so that the loss at
    a length is the sum over the buckets up to it.
    Settings: see `Perplexity`.
    """

    protocol = "prefix"

    def starts(self, tokens: int) -> range:
        return range(1)

    def lengths_to_run(self, lengths: list[int], prefix_stable: bool, train_len: int) -> list[int]:
        cut = [train_len << doublings for doublings in range(32)] if prefix_stable else []
        return [length for length in lengths if length == max(lengths) or length not in cut]

    def prompts(self, length: int, corpus: Corpus, train_len: int, seed: int) -> Iterator[Prompt]:
        ends = bucket_ends(length, train_len)
        for doc_id, example, ids in self.segments(length, corpus, seed):
            prompt = self.prompt(corpus, ids[: length + 1], length, doc_id, example)
            prompt.doc["ends"] = ends
            yield prompt

    def process_results(self, prompt: Prompt, scores: Scores) -> Iterator[MetricValue]:
        ends = prompt.doc["ends"]
        starts = np.concatenate([[0], ends[:-1]])
        doc_id, example = prompt.doc["doc_id"], prompt.doc["example"]
        for metric, unit, values in (
            ("nll", "nats", -scores.logprob[0]),
            ("bytes", "bytes", prompt.doc["bytes"]),
        ):
            sums = np.add.reduceat(values, starts)
            for start, end, total in zip(starts, ends, sums, strict=True):
                yield MetricValue(
                    metric, float(total), int(end - start), unit, doc_id, example, position=int(end)
                )


def bucket_ends(length: int, train_len: int) -> np.ndarray:
    """Returns the ends of position buckets in tokens: eight up to the training length, then eight to each doubling."""
    eighths = np.arange(1, 9) / 8
    ends = [*(train_len * eighths)]
    while ends[-1] < length:
        ends += [*(ends[-1] * (1 + eighths))]
    rounded = np.unique(np.rint(ends).astype(int))
    return np.append(rounded[(rounded > 0) & (rounded < length)], length)
