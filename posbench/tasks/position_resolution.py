"""Whether neighbouring positions can be told apart: a forced choice that only distance one against two decides.

Ours; for the question how densely interpolated positions can lie before they blur. (Chen et al., arXiv:2306.15595,
section 2.3, bound how far interpolated scores stray, not what they still tell apart.) In records `K V K` a key stands
one token before its own value, and its echo two tokens before the next record's. Asked for a key, a model that cannot
tell these two distances apart finds both values by the same key.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from posbench.data.corpus import Corpus
from posbench.errors import LengthError
from posbench.instantiate import register
from posbench.lm.interface import Prompt, Scores
from posbench.tasks.prompting import require_positive
from posbench.tasks.recall_contexts import recall_contexts
from posbench.tasks.task import MetricValue, Task


@register("task/position_resolution")
class PositionResolution(Task):
    """For each record but the last: is its value likelier than the next record's, given its key? Chance is 1/2.

    Records whose value is the next one's too are left out. The context is that of key-value retrieval.

    Measures, by record: `position_accuracy`, 1 where its own value is likelier; `log_likelihood_ratio`, by how many nats; and `chance`.

    Args:
        num_contexts: how many contexts; each is asked for all of its records.
    """

    task = "position_resolution"
    protocol = "synthetic_records"
    metric = "position_accuracy"
    unit = "fraction"

    def __init__(self, num_contexts: int) -> None:
        require_positive("position_resolution", num_contexts=num_contexts)
        self.num_contexts = num_contexts

    def prompts(self, length: int, corpus: Corpus, train_len: int, seed: int) -> Iterator[Prompt]:
        for index, made in enumerate(recall_contexts(corpus, self.num_contexts, length, seed)):
            own, other = made.value_ids[:-1], made.value_ids[1:]
            kept = np.flatnonzero(own != other)
            if not len(kept):
                raise LengthError(
                    f"position_resolution at {length} tokens: context {index} has no two neighbouring values that differ; "
                    "choose a longer length"
                )
            key_R = made.key_ids[kept]
            pairs = np.stack([np.stack([key_R, value[kept]], 1) for value in (own, other)], 1)
            doc = {"context": index, "records": kept, "count": len(made.key_ids)}
            yield Prompt(made.ids.astype(np.int64), pairs.reshape(-1, 2).astype(np.int64), 1, doc)

    def process_results(self, prompt: Prompt, scores: Scores) -> Iterator[MetricValue]:
        index, last = prompt.doc["context"], max(1, prompt.doc["count"] - 1)
        name = f"context-{index}"
        own_R, other_R = scores.logprob[:, 0].reshape(-1, 2).T
        for record, ratio in zip(prompt.doc["records"].tolist(), (own_R - other_R).tolist(), strict=True):
            depth = record / last
            yield MetricValue(
                "position_accuracy", float(ratio > 0), 1, "fraction", name, index, record, depth
            )
            yield MetricValue("log_likelihood_ratio", ratio, 1, "nats", name, index, record, depth)
        yield MetricValue("chance", len(own_R) / 2, len(own_R), "fraction", name, index)
