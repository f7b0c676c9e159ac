"""Natural text against the same text repeated: whether what is far back is still copied.

Su, https://kexue.fm/archives/9603 and 9708: a scheme or extension that keeps global dependence does better on
repeated text than on natural text of the same length; one that has become local does not. Deviations: his test set
holds some samples that are repeated, with a period that is not given; here every sample of the variant `repeated`
is, with one period, and the first period, in which nothing is copied, is scored by itself.
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
    """A stretch of text as it is, or its first `period` tokens over and over, read as `length` tokens.

    Measures, by stretch: `token_accuracy`, how many of the targets after the first period are the first choice, and `nll`,
    their nats; `first_period_token_accuracy` and `first_period_nll`, the same of the first period, which both variants share.

    Args:
        variant: natural or repeated.
        period: tokens; None is half the training length, so that what is copied lies at a distance that was
            trained. A period over the training length asks for what a window cannot see; it is in the variant.
        max_context, num_examples: see Perplexity.
    """

    task = "repetition"
    protocol = "teacher_forced"
    metric = "token_accuracy"
    unit = "fraction"

    def __init__(self, variant: str, max_context: int, num_examples: int, period: int | None = None) -> None:
        super().__init__(max_context, num_examples)
        if variant not in VARIANTS:
            raise ConfigError(f"repetition variant {variant!r}: give {' or '.join(VARIANTS)}")
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
        hits, nll = scores.greedy_ids[0] == prompt.continuations[0], -scores.logprob[0]
        for prefix, part in (("", slice(period, None)), ("first_period_", slice(period))):
            count = len(hits[part])
            yield MetricValue(
                f"{prefix}token_accuracy", float(hits[part].sum()), count, "fraction", doc_id, example
            )
            yield MetricValue(f"{prefix}nll", float(nll[part].sum()), count, "nats", doc_id, example)
