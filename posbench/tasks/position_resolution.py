"""Resolution of neighbouring positions: a forced choice between distances of one and two.

A task of this package, for how densely interpolated positions can lie before a model confuses them. In records
`K V K`, each key precedes its own value by one token, and the repetition of the key precedes the next record's value by
two. A model that cannot distinguish these distances retrieves both values for the key.
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
    """Preference, given a record's key, for its own value over that of the next record.

    Chen et al. (arXiv:2306.15595, section 2.3) bound the error of interpolated attention scores; this task measures
    whether a model still distinguishes the positions.

    Prompts: the contexts of `key_value`, then the key of a record; both values are scored. The last record is left out,
    and those whose value equals the next one; a context without other records has no prompt.

    Metrics, for each record; `position` is its index in the context, `depth` its relative position:
        position_accuracy (fraction, 0 or 1): its own value has the higher log-probability; ties, common in low precision, count half.
        log_likelihood_ratio (nats): difference of the two log-probabilities.
    Metric, for each context:
        chance (fraction): 1/2.

    Args:
        num_contexts: number of contexts.
    """

    task = "position_resolution"
    protocol = "synthetic_records"
    version = 2
    metric = "position_accuracy"
    unit = "fraction"

    def __init__(self, num_contexts: int) -> None:
        require_positive("position_resolution", num_contexts=num_contexts)
        self.num_contexts = num_contexts

    def prompts(self, length: int, corpus: Corpus, train_len: int, seed: int) -> Iterator[Prompt]:
        found = False
        for index, context in enumerate(recall_contexts(corpus, self.num_contexts, length, seed)):
            own, following = context.value_ids[:-1], context.value_ids[1:]
            records = np.flatnonzero(own != following)
            if not len(records):
                continue
            found = True
            key_R = context.key_ids[records]
            pairs = np.stack([np.stack([key_R, value[records]], 1) for value in (own, following)], 1)
            doc = {"context": index, "records": records, "count": len(context.key_ids)}
            yield Prompt(context.ids.astype(np.int64), pairs.reshape(-1, 2).astype(np.int64), 1, doc)
        if not found:
            raise LengthError(
                f"position_resolution at {length} tokens: no context has two neighbouring values that differ; choose a "
                "longer length"
            )

    def process_results(self, prompt: Prompt, scores: Scores) -> Iterator[MetricValue]:
        index, last = prompt.doc["context"], max(1, prompt.doc["count"] - 1)
        name = f"context-{index}"
        own_R, following_R = scores.logprob[:, 0].reshape(-1, 2).T
        for record, ratio in zip(prompt.doc["records"].tolist(), (own_R - following_R).tolist(), strict=True):
            location = (name, index, record, record / last)
            yield MetricValue("position_accuracy", 0.5 * float(np.sign(ratio) + 1), 1, "fraction", *location)
            yield MetricValue("log_likelihood_ratio", ratio, 1, "nats", *location)
        yield MetricValue("chance", len(own_R) / 2, len(own_R), "fraction", name, index)
