"""Why retrieval is as it is: what the question attends to in the contexts of key-value retrieval.

The contexts are those of `key_value`, and the weights are those of the token from which the value is predicted.
That the first tokens draw weight which is meant for nobody: Xiao et al. Efficient Streaming Language Models with
Attention Sinks. ICLR 2024. arXiv:2309.17453; four of them, as there.
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
    """Entropy and shares of attention by layer and head, summed over the questions of a context.

    `attention_entropy` in nats, what is attended to nowhere being one more place; the share of the `sink_attention`, the
    first four; of the `last_quarter_attention` of the context; by `attention_at_distance` in tokens, a row's position being the END of its
    bucket: 0, 1, 2 to 3, 4 to 7 and so on. By the record that is asked for as well: `answer_attention`, the share of the
    token that is the answer.

    Args:
        num_contexts: how many contexts, the first ones of `key_value`.
        num_questions: how many records of each are asked for, evenly spread over it.
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
        for index, made in enumerate(recall_contexts(corpus, self.num_contexts, length, seed)):
            count = len(made.key_ids)
            asked = np.unique(np.linspace(0, count - 1, min(count, self.num_questions)).round().astype(int))
            doc = {
                "context": index,
                "records": asked,
                "depth": asked / max(1, count - 1),
                "gold_index": made.offsets[asked] + 1,
            }
            yield Prompt(made.ids.astype(np.int64), questions(made)[asked].astype(np.int64), 1, doc)

    def process_results(self, prompt: Prompt, attention: AttentionWeights) -> Iterator[MetricValue]:
        weight_NLHS, index = attention.weight_NLHS, prompt.doc["context"]
        count, _, _, tokens = weight_NLHS.shape
        name, places = f"context-{index}", [prompt.doc[key] for key in ("records", "depth")]
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
            where = {"layer": layer, "head": head}
            for metric, value_NLH in sums.items():
                total, unit = (
                    value_NLH[:, layer, head].sum(),
                    "nats" if metric == "attention_entropy" else "fraction",
                )
                yield MetricValue(metric, float(total), count, unit, name, index, **where)
            for end, share in zip(2 ** bucket_S[starts], by_bucket_LHB[layer, head], strict=True):
                yield MetricValue(
                    "attention_at_distance", float(share), count, "fraction", name, index, int(end), **where
                )
            for record, depth, share in zip(*places, gold_NLH[:, layer, head], strict=True):
                yield MetricValue(
                    "answer_attention",
                    float(share),
                    1,
                    "fraction",
                    name,
                    index,
                    int(record),
                    float(depth),
                    **where,
                )


def buckets(tokens: int) -> np.ndarray:
    """(S,) int64 bucket of each token's distance to the last one: 0 for itself, n for 2^(n-1) .. 2^n - 1."""
    # The exponent of a whole number is that of the next power of two above it, exactly.
    return np.frexp(np.arange(tokens - 1, -1, -1))[1].astype(np.int64)


def entropy(weight: np.ndarray) -> np.ndarray:
    """Nats over the last axis; what is missing to 1 is one more place."""
    rest = np.clip(1 - weight.sum(-1, keepdims=True), 0, None)
    shares = np.concatenate([weight, rest], -1)
    return -(shares * np.log(np.where(shares > 0, shares, 1))).sum(-1)
