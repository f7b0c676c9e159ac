"""LongPPL: perplexity of the tokens that gain from context, beside that of all tokens.

Fang et al. What is Wrong with Perplexity for Long-context Language Modeling? ICLR 2025, section 3.
arXiv:2410.23771; PKU-ML/LongPPL. A key token is one whose log-probability is more than alpha = 2 nats higher with a
long context than with a short one, and above beta = -2 nats with the long one. Deviations:

- The paper determines key tokens with one fixed evaluator for all models; here the model under test determines its own,
  with its extension as it is built for the training length, so that all lengths of a curve have the same key tokens.
- The paper compares contexts of 4096 to 5119 tokens with the whole text; here a quarter to half of the training length is
  compared with three quarters to all of it. At the evaluated length, the key tokens of a model that fails there would be
  noise.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from posbench.data.corpus import Corpus
from posbench.errors import ConfigError, LengthError
from posbench.instantiate import register
from posbench.lm.interface import Prompt, Scores
from posbench.tasks.perplexity import Perplexity
from posbench.tasks.task import MetricValue


@register("task/longppl")
class LongPPL(Perplexity):
    """Loss of key tokens among the last train_len / 4 tokens of each segment.

    Prompts: the last `length` + 1 tokens of every segment, then the last train_len + 1 tokens of every segment, then the
    targets and the short_context_len tokens before them; all three score the same targets.

    Metrics, for each segment:
        nll (nats, at least 0), bytes (bytes, at least 0): of all targets with `length` tokens; see `Perplexity`.
        key_token_fraction (fraction, 0 to 1): targets that are key tokens.
        key_token_nll (nats, at least 0): nll of the key tokens with `length` tokens; missing without key tokens.

    Args:
        max_context, num_examples: see `Perplexity`.
        short_context_len: tokens of the short context of the first target, 1 to train_len / 2; the others have those
            between as well. None is train_len / 4.
        min_context_gain: least gain of a key token from the long context in nats, at least 0; the paper's alpha.
        max_loss: largest loss of a key token with the long context in nats, above 0; the paper's -beta.
    """

    task = "longppl"
    protocol = "key_tokens"
    version = 3  # every target has the short context; before, the first one had a single token

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
                f"longppl with min_context_gain {min_context_gain} and max_loss {max_loss}: give nats, "
                "min_context_gain at least 0 and max_loss above 0"
            )
        self.short_context_len = short_context_len
        self.min_context_gain, self.max_loss = min_context_gain, max_loss

    def prompts(self, length: int, corpus: Corpus, train_len: int, seed: int) -> Iterator[Prompt]:
        targets = max(1, train_len // 4)
        short = targets if self.short_context_len is None else self.short_context_len
        if not 1 <= short <= max(1, train_len // 2) or not train_len <= length:
            raise LengthError(
                f"longppl at {length} tokens with a short_context_len of {short}: give a length of {train_len} (the "
                f"training length) or more, and a short_context_len from 1 to {max(1, train_len // 2)} (half of it)"
            )
        segments = list(self.segments(length, corpus, seed))
        sizes = (length + 1, None), (train_len + 1, train_len), (short + targets, train_len)
        for n_ids, extension_length in sizes:
            for doc_id, example, ids in segments:
                prompt = self.prompt(corpus, ids[-n_ids:], targets, doc_id, example)
                yield replace(prompt, extension_length=extension_length)

    def process_all_results(self, answered: Iterable[tuple[Prompt, Scores]]) -> Iterator[MetricValue]:
        """Computes the metrics of each segment from its three prompts."""
        pairs = list(answered)
        count = len(pairs) // 3
        parts = [pairs[start : start + count] for start in (0, count, 2 * count)]
        for (prompt, scores), (_, trained), (_, short) in zip(*parts, strict=True):
            yield from self.process_results(prompt, scores)
            doc_id, example = prompt.doc["doc_id"], prompt.doc["example"]
            gain = trained.logprob - short.logprob
            is_key = (gain > self.min_context_gain) & (trained.logprob > -self.max_loss)
            n_keys = int(is_key.sum())
            yield MetricValue(
                "key_token_fraction", float(n_keys), prompt.n_scored, "fraction", doc_id, example
            )
            if n_keys:
                nll = float(-scores.logprob[is_key].sum())
                yield MetricValue("key_token_nll", nll, n_keys, "nats", doc_id, example)
