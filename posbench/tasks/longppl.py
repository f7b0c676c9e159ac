"""LongPPL: the perplexity of the tokens that profit from context, beside the average of all.

Fang et al. What is Wrong with Perplexity for Long-context Language Modeling? ICLR 2025, section 3.
arXiv:2410.23771; PKU-ML/LongPPL. A token is key if its log-probability is more than alpha = 2 nats higher under
a long context than under a short one, and above beta = -2 under the long one. Deviations: the paper's key tokens are
those of one fixed evaluator for all models, under 4096 to 5120 tokens and the whole text; here the model under test,
with its extension, finds its own, where it was trained: under a quarter of the training length and under all of it.
Under the evaluated length itself a model that breaks there would have its noise for key tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from posbench.data.corpus import Corpus
from posbench.errors import ConfigError, LengthError
from posbench.instantiate import register
from posbench.lm.interface import Prompt, Scores
from posbench.tasks.perplexity import Perplexity
from posbench.tasks.task import MetricValue


@register("task/longppl")
class LongPPL(Perplexity):
    """The last train_len / 4 targets of a stretch, read with `length` tokens up to them, with train_len, and few.

    Measures, by stretch: `nll` and `bytes` of all targets under `length` tokens; `key_token_fraction`, how many are key tokens;
    `key_token_nll`, the nats of those under `length` tokens, where there are any.

    Args:
        short_context_len: tokens of the short context, at least the targets; None is a quarter of the training length.
        min_context_gain, max_loss: nats; the paper's alpha and -beta.
        max_context, num_examples: see Perplexity.
    """

    task = "longppl"
    protocol = "key_tokens"

    def __init__(
        self,
        max_context: int,
        num_examples: int,
        short_context_len: int | None = None,
        min_context_gain: float = 2.0,
        max_loss: float = 2.0,
    ) -> None:
        super().__init__(max_context, num_examples)
        if min_context_gain < 0 or max_loss <= 0:
            raise ConfigError(
                f"key_tokens with min_context_gain {min_context_gain} and max_loss {max_loss}: give nats, max_loss above 0"
            )
        self.short_context_len = short_context_len
        self.min_context_gain, self.max_loss = min_context_gain, max_loss

    def prompts(self, length: int, corpus: Corpus, train_len: int, seed: int) -> Iterator[Prompt]:
        """Every stretch read with `length` tokens, then every one with train_len, then with the short context."""
        targets = max(1, train_len // 4)
        short = targets if self.short_context_len is None else self.short_context_len
        if not targets <= short < train_len <= length:
            raise LengthError(
                f"key_tokens at {length} tokens with a short context of {short}: give a length of {train_len} (the "
                f"training length) or more, and a short context from {targets} (a quarter of it) to {train_len - 1}"
            )
        segments = list(self.segments(length, corpus, seed))
        for read in (length, train_len, short):
            for doc_id, example, ids in segments:
                yield self.prompt(corpus, ids[-read - 1 :], targets, doc_id, example)

    def process_all_results(self, answered: Iterable[tuple[Prompt, Scores]]) -> Iterator[MetricValue]:
        """Of the evaluated length's prompts, each with the two others of the same stretch."""
        pairs = list(answered)
        count = len(pairs) // 3
        parts = [pairs[start : start + count] for start in (0, count, 2 * count)]
        for (prompt, scores), (_, home), (_, short) in zip(*parts, strict=True):
            yield from self.process_results(prompt, scores)
            doc_id, example = prompt.doc["doc_id"], prompt.doc["example"]
            key = (home.logprob - short.logprob > self.min_context_gain) & (home.logprob > -self.max_loss)
            keys = int(key.sum())
            yield MetricValue("key_token_fraction", float(keys), prompt.n_scored, "fraction", doc_id, example)
            if keys:
                yield MetricValue(
                    "key_token_nll", float(-scores.logprob[key].sum()), keys, "nats", doc_id, example
                )
