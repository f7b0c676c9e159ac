"""Attention in key-value retrieval: entropy, attention sinks, distances and the answer.

Explains the results of `key_value`: the contexts are the same, and the weights are those of the key in the question,
from which the value is predicted. The first tokens as attention sinks, four of them: Xiao et al. Efficient Streaming
Language Models with Attention Sinks. ICLR 2024. arXiv:2309.17453.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from posbench.data.associative_recall import questions
from posbench.data.corpus import Corpus
from posbench.instantiate import register
from posbench.lm.interface import AttentionWeights, Prompt
from posbench.tasks.prompting import require_positive
from posbench.tasks.recall_contexts import recall_contexts
from posbench.tasks.task import MetricValue, Task

SINK_TOKENS = 4


@register("task/attention")
class KeyValueAttention(Task):
    """Entropy and shares of attention by layer and head.

    Prompts: the contexts of `key_value` with some of its questions.

    Metrics, for each context, layer and head, averaged over questions:
        attention_entropy (nats, 0 to ln(`length` + 1)): entropy of the weights; weight that is missing to 1 counts as
            one more token.
        sink_attention (fraction, 0 to 1): weight on the first four tokens.
        last_quarter_attention (fraction, 0 to 1): weight on the last quarter of all tokens.
        attention_at_distance (fraction, 0 to 1): weight on tokens at distances of 0, 1, 2 to 3, 4 to 7 and so on;
            `position` is the exclusive end of these ranges in tokens: 1, 2, 4, 8 and so on.
        answer_attention (fraction, 0 to 1): weight on the value in the context, for each question; `position` is the
            index of the record, `depth` its relative position.

    Args:
        num_contexts: number of contexts, the first of those of `key_value`.
        num_questions: number of questions for each context, evenly spaced over its records.
    """

    task = "attention"
    protocol = "synthetic_records"
    metric = "attention_entropy"
    unit = "nats"
    output_type = "attention_weights"

    def __init__(self, num_contexts: int, num_questions: int) -> None:
        require_positive("attention", num_contexts=num_contexts, num_questions=num_questions)
        self.num_contexts, self.num_questions = num_contexts, num_questions

    def prompts(self, length: int, corpus: Corpus, train_len: int, seed: int) -> Iterator[Prompt]:
        for index, context in enumerate(recall_contexts(corpus, self.num_contexts, length, seed)):
            count = len(context.key_ids)
            records = np.unique(np.linspace(0, count - 1, min(count, self.num_questions)).round().astype(int))
            doc = {
                "context": index,
                "records": records,
                "depth": records / max(1, count - 1),
                "gold_index": context.offsets[records] + 1,
            }
            yield Prompt(context.ids.astype(np.int64), questions(context)[records].astype(np.int64), 1, doc)

    def process_results(self, prompt: Prompt, attention: AttentionWeights) -> Iterator[MetricValue]:
        weight_NLHS, index = attention.weight_NLHS, prompt.doc["context"]
        count, _, _, tokens = weight_NLHS.shape
        name, records, depths = f"context-{index}", prompt.doc["records"], prompt.doc["depth"]
        bucket_S = buckets(tokens)
        starts = np.flatnonzero(np.diff(bucket_S, prepend=-1))
        sums = {
            "attention_entropy": entropy(weight_NLHS),
            "sink_attention": weight_NLHS[..., :SINK_TOKENS].sum(-1),
            "last_quarter_attention": weight_NLHS[..., tokens - tokens // 4 :].sum(-1),
        }
        by_bucket_LHB = np.add.reduceat(weight_NLHS.sum(0), starts, axis=-1)
        gold_NLH = weight_NLHS[np.arange(count), :, :, prompt.doc["gold_index"]]
        for layer, head in np.ndindex(*weight_NLHS.shape[1:3]):
            of_head = {"layer": layer, "head": head}
            for metric, value_NLH in sums.items():
                total = float(value_NLH[:, layer, head].sum())
                unit = "nats" if metric == "attention_entropy" else "fraction"
                yield MetricValue(metric, total, count, unit, name, index, **of_head)
            for end, share in zip(2 ** bucket_S[starts], by_bucket_LHB[layer, head], strict=True):
                yield MetricValue(
                    "attention_at_distance", float(share), count, "fraction", name, index, int(end), **of_head
                )
            for record, depth, share in zip(records, depths, gold_NLH[:, layer, head], strict=True):
                location = (name, index, int(record), float(depth))
                yield MetricValue("answer_attention", float(share), 1, "fraction", *location, **of_head)


def buckets(tokens: int) -> np.ndarray:
    """(S,) int64 bucket of each token's distance to the last: 0 for distance 0, n for 2^(n-1) to 2^n - 1."""
    # The exponent of frexp is exact: n for integers from 2^(n-1) to 2^n - 1.
    return np.frexp(np.arange(tokens - 1, -1, -1))[1].astype(np.int64)


def entropy(weight: np.ndarray) -> np.ndarray:
    """Entropy over the last axis in nats; weight that is missing to 1 counts as one more outcome."""
    missing = np.clip(1 - weight.sum(-1, keepdims=True), 0, None)
    probability = np.concatenate([weight, missing], -1)
    return -(probability * np.log(np.where(probability > 0, probability, 1))).sum(-1)
