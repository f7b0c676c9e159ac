"""Key-value retrieval ("lost in the middle") on synthetic records, for models too small to read JSON.

Liu et al. Lost in the Middle. TACL 2024, section 4. arXiv:2307.03172. Keys and values are single reserved
ids; every record of a context is asked for, and all questions share one pass over it. Query-aware, the key
also stands before the records, where a model sees it as one more echo; the paper's prompt is in
key_value_uuid.py.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from posbench.data.associative_recall import questions
from posbench.data.corpus import Corpus
from posbench.errors import LengthError
from posbench.instantiate import register
from posbench.lm.interface import Prompt, Scores
from posbench.tasks.prompting import gold_rank, require_positive
from posbench.tasks.recall_contexts import recall_contexts
from posbench.tasks.task import MetricValue, Task


@register("task/key_value")
class KeyValue(Task):
    """Exact match, log-probability and rank of the value, by the record's place.

    The rank is the value's among the distinct values of its context, by log-probability; 1 is the first, and
    a tie counts half. Beside them, by question: `predicted_in_context`, the share of answers that are some value of the
    context; `chance`, one over the number of values; `random_in_context`, the expected accuracy of naming the
    value of a record drawn at random.

    Args:
        num_contexts: how many contexts; each is asked for all of its records.
        query_aware: whether the key that is asked for also stands before the records, in place of the last
            token of the text there. Records and questions are the same ones; each question has a pass of its
            own.
    """

    task = "key_value"
    protocol = "synthetic_records"
    metric = "exact_match"
    unit = "fraction"
    version = 2

    def __init__(self, num_contexts: int, query_aware: bool = False) -> None:
        require_positive("key_value", num_contexts=num_contexts)
        self.num_contexts, self.query_aware = num_contexts, query_aware
        self.variant = "query_aware" if query_aware else ""

    def prompts(self, length: int, corpus: Corpus, train_len: int, seed: int) -> Iterator[Prompt]:
        for index, made in enumerate(recall_contexts(corpus, self.num_contexts, length, seed)):
            ids, asked = made.ids.astype(np.int64), questions(made).astype(np.int64)
            doc = {"context": index, "values": made.value_ids, "choices": corpus.vocabulary.num_values}
            candidates = np.unique(made.value_ids).astype(np.int64)
            if not self.query_aware:
                every = doc | {"records": np.arange(len(asked))}
                yield Prompt(ids, asked, 1, every, candidate_ids=candidates)
                continue
            before = int(made.offsets[0]) - 1
            if before < 1:
                raise LengthError(
                    f"key_value, query-aware, at {length} tokens: its {len(asked)} records leave no place for the "
                    f"key before them; choose {length + 1} or more"
                )
            for record, question in enumerate(asked):
                aware = ids.copy()
                aware[before] = question[0]
                only = doc | {"records": np.array([record])}
                yield Prompt(aware, question[None], 1, only, candidate_ids=candidates)

    def process_results(self, prompt: Prompt, scores: Scores) -> Iterator[MetricValue]:
        values, index, records = (prompt.doc[name] for name in ("values", "context", "records"))
        name, asked = f"context-{index}", len(records)
        greedy, logprob = scores.greedy_ids[:, 0], scores.logprob[:, 0]
        for row, record in enumerate(records.tolist()):
            place = (name, index, record, record / max(1, len(values) - 1))
            yield MetricValue("exact_match", float(greedy[row] == values[record]), 1, "fraction", *place)
            yield MetricValue("logprob", float(logprob[row]), 1, "nats", *place)
            if scores.candidate_logprobs is not None and prompt.candidate_ids is not None:
                rank = gold_rank(scores.candidate_logprobs[row], prompt.candidate_ids == values[record])
                yield MetricValue("rank", rank, 1, "rank", *place)
                yield MetricValue("reciprocal_rank", 1 / rank, 1, "fraction", *place)
        # Values are sums over the questions, as in every row.
        in_context = float(np.isin(greedy, values).sum())
        same = (values[records][:, None] == values[None]).mean(1)
        yield MetricValue("predicted_in_context", in_context, asked, "fraction", name, index)
        yield MetricValue("chance", asked / prompt.doc["choices"], asked, "fraction", name, index)
        yield MetricValue("random_in_context", float(same.sum()), asked, "fraction", name, index)
