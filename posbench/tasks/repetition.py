"""Repeated text against natural text: a test for copying of distant tokens.

Su, https://kexue.fm/archives/9603 and 9708: a scheme or extension with global dependence predicts repeated text better
than natural text of the same length; one that has become local does not. Deviations: his test set has some repeated
samples, with a period that is not given; here all samples of the variant `repeated` are repeated, with one period, and
the first period, in which nothing can be copied, is scored separately.
"""

from __future__ import annotations

from collections.abc import Iterator

from posbench.data.corpus import Corpus
from posbench.data.repeated import tiled
from posbench.errors import ConfigError, LengthError
from posbench.instantiate import register
from posbench.lm.interface import Prompt, Scores
from posbench.tasks.perplexity import Perplexity
from posbench.tasks.task import MetricValue

VARIANTS = ("natural", "repeated")


@register("task/repetition")
class Repetition(Perplexity):
    """Accuracy and loss of all tokens of a segment, natural or repeated.

    Prompts: the first `length` + 1 tokens of each segment ("natural"), or its first token and the `period` tokens after
    it, repeated to the same length ("repeated").

    Metrics, for each segment:
        token_accuracy (fraction, 0 to 1): targets after the first period that have the highest logit.
        nll (nats, at least 0): negative log-likelihood of these targets.
        first_period_token_accuracy, first_period_nll: the same for the first period, equal in both variants.

    Args:
        variant: "natural" or "repeated".
        max_context, num_examples: see `Perplexity`.
        period: tokens, less than `length`; None is half the training length, a distance that occurs in training. A
            given period becomes part of the variant; one above the training length is beyond the reach of a window.
    """

    task = "repetition"
    protocol = "teacher_forced"
    metric = "token_accuracy"
    unit = "fraction"

    def __init__(self, variant: str, max_context: int, num_examples: int, period: int | None = None) -> None:
        super().__init__(max_context, num_examples)
        if variant not in VARIANTS:
            raise ConfigError(f"repetition with variant {variant!r}: give {' or '.join(VARIANTS)}")
        if period is not None and period < 1:
            raise ConfigError(f"repetition with a period of {period} tokens: give at least 1, or null")
        self.repeated, self.period = variant == "repeated", period
        self.variant = variant if period is None else f"{variant}_every_{period}"

    def prompts(self, length: int, corpus: Corpus, train_len: int, seed: int) -> Iterator[Prompt]:
        period = max(1, train_len // 2) if self.period is None else self.period
        if length <= period:
            raise LengthError(
                f"repetition at {length} tokens: nothing follows the first {period}; choose a longer length"
            )
        for doc_id, example, ids in self.segments(length, corpus, seed):
            text = tiled(ids, period, length) if self.repeated else ids[: length + 1]
            doc = {"doc_id": doc_id, "example": example, "period": period}
            yield Prompt(text[:1], text[None, 1:], length, doc)

    def process_results(self, prompt: Prompt, scores: Scores) -> Iterator[MetricValue]:
        doc_id, example, period = (prompt.doc[key] for key in ("doc_id", "example", "period"))
        correct, nll = scores.greedy_ids[0] == prompt.continuations[0], -scores.logprob[0]
        for prefix, part in (("", slice(period, None)), ("first_period_", slice(period))):
            count = len(correct[part])
            yield MetricValue(
                f"{prefix}token_accuracy", float(correct[part].sum()), count, "fraction", doc_id, example
            )
            yield MetricValue(f"{prefix}nll", float(nll[part].sum()), count, "nats", doc_id, example)
