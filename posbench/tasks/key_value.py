"""Key-value retrieval ("lost in the middle") on synthetic records, for small models.

Liu et al. Lost in the Middle. TACL 2024, section 4. arXiv:2307.03172. Deviations, for models too small to read JSON:
keys and values are single reserved ids (see `data.associative_recall`); there is a question for every record of a
context, and all of them share one prefill. `key_value_uuid` has the paper's prompt.
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

QUERY_AWARE_LENGTH = 15  # tokens from which every length has room for the key before the records


@register("task/key_value")
class KeyValue(Task):
    """Exact match, log-probability and rank of a record's value, given its key.

    Prompts: running text, records of a key, its value and the key again, then the key of a record; the answer is its
    value.

    Metrics, for each record; `position` is its index in the context, `depth` its relative position:
        exact_match (fraction, 0 or 1): the value has the highest logit.
        logprob (nats, at most 0): log-probability of the value.
        rank (rank, at least 1): rank of the value's log-probability among the distinct values of the context; ties
            count half.
        reciprocal_rank (fraction, 0 to 1): 1 / rank.
    Metrics, for each context, averaged over records:
        predicted_in_context (fraction, 0 to 1): predictions that are some value of the context.
        chance (fraction, 0 to 1): accuracy of a value drawn at random from all values of the vocabulary.
        random_in_context (fraction, 0 to 1): expected accuracy of the value of a record drawn at random.

    Args:
        num_contexts: number of contexts.
        query_aware: also puts the key before the records, in place of the last token of the text. Each question is
            then a prompt of its own; records and questions stay the same.
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
        for index, context in enumerate(recall_contexts(corpus, self.num_contexts, length, seed)):
            ids, question_RS = context.ids.astype(np.int64), questions(context).astype(np.int64)
            doc = {"context": index, "values": context.value_ids, "choices": corpus.vocabulary.num_values}
            candidates = np.unique(context.value_ids).astype(np.int64)
            if not self.query_aware:
                doc["records"] = np.arange(len(question_RS))
                yield Prompt(ids, question_RS, 1, doc, candidate_ids=candidates)
                continue
            last_text_token = int(context.offsets[0]) - 1
            if last_text_token < 1:
                raise LengthError(
                    f"key_value, query-aware, at {length} tokens: its {len(question_RS)} records leave no room for the "
                    f"key before them; choose {QUERY_AWARE_LENGTH} or more"
                )
            for record, question in enumerate(question_RS):
                aware = ids.copy()
                aware[last_text_token] = question[0]
                own_doc = doc | {"records": np.array([record])}
                yield Prompt(aware, question[None], 1, own_doc, candidate_ids=candidates)

    def process_results(self, prompt: Prompt, scores: Scores) -> Iterator[MetricValue]:
        values, index, records = (prompt.doc[name] for name in ("values", "context", "records"))
        name, count = f"context-{index}", len(records)
        greedy, logprob = scores.greedy_ids[:, 0], scores.logprob[:, 0]
        for row, record in enumerate(records.tolist()):
            location = (name, index, record, record / max(1, len(values) - 1))
            yield MetricValue("exact_match", float(greedy[row] == values[record]), 1, "fraction", *location)
            yield MetricValue("logprob", float(logprob[row]), 1, "nats", *location)
            if scores.candidate_logprobs is not None and prompt.candidate_ids is not None:
                rank = gold_rank(scores.candidate_logprobs[row], prompt.candidate_ids == values[record])
                yield MetricValue("rank", rank, 1, "rank", *location)
                yield MetricValue("reciprocal_rank", 1 / rank, 1, "fraction", *location)
        in_context = float(np.isin(greedy, values).sum())
        same_value = (values[records][:, None] == values[None]).mean(1)
        yield MetricValue("predicted_in_context", in_context, count, "fraction", name, index)
        yield MetricValue("chance", count / prompt.doc["choices"], count, "fraction", name, index)
        yield MetricValue("random_in_context", float(same_value.sum()), count, "fraction", name, index)
