"""Passkey retrieval: a number hidden at a given depth of irrelevant text.

Mohtashami, Jaggi. Landmark Attention. NeurIPS 2023, section 4.2. arXiv:2305.16300; the wording is that of
llama/run_test.py in epfml/landmark-attention. Deviations:

- Lengths are exact in tokens, since the filler before and after the number is cut between ids.
- Depths are evenly spaced, not random.
- Numbers have a fixed number of digits, and of tokens.
- A number counts as retrieved if all of its ids have the highest logit, not if it is the first number of a generated
  answer.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from posbench.data.corpus import Corpus
from posbench.errors import ConfigError, LengthError, unknown
from posbench.instantiate import register
from posbench.lm.interface import Prompt, Scores
from posbench.tasks.fixed_token_strings import FixedTokenCount
from posbench.tasks.prompting import encode_text, filler_text, require_positive
from posbench.tasks.task import MetricValue, Task

TASK = (
    "There is an important info hidden inside a lot of irrelevant text. Find it and memorize them. "
    "I will quiz you about the important information there.\n"
)
SENTENCES = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again. "
BEFORE, BETWEEN, AFTER = "\nThe pass key is", ". Remember it.", " is the pass key.\n"
QUESTION = "\nWhat is the pass key? The pass key is"
FILLERS = ("sentences", "corpus")
MAX_DIGITS = 18  # of an int64


@register("task/passkey")
class Passkey(Task):
    """Exact match and log-probability of a number hidden in filler text.

    Prompts: instructions, filler, the sentence with the number, filler, the question; the answer is the number.

    Metrics, for each text and depth; `position` is the token at which the sentence with the number begins, `depth` the
    share of the filler before it:
        exact_match (fraction, 0 or 1): all ids of the number have the highest logit.
        logprob (nats, at most 0): log-probability of the number, the sum over its ids.
        chance (fraction, 0 to 1): exact match of a number drawn at random, with as many digits.

    Args:
        num_examples: number of texts; each hides one number, at every depth.
        num_depths: number of depths, evenly spaced from the start to the end of the filler.
        num_digits: digits of the number, 1 to 18; the first is never 0.
        filler: "sentences", the paper's five sentences repeated, or "corpus", running text of the test split.
    """

    task = "passkey"
    protocol = "passkey"
    metric = "exact_match"
    unit = "fraction"

    def __init__(
        self, num_examples: int, num_depths: int, num_digits: int = 5, filler: str = "sentences"
    ) -> None:
        require_positive("passkey", num_examples=num_examples, num_depths=num_depths, num_digits=num_digits)
        if num_digits > MAX_DIGITS:
            raise ConfigError(f"passkey num_digits {num_digits}: give 1 to {MAX_DIGITS}")
        if filler not in FILLERS:
            raise unknown("filler of passkey", filler, FILLERS)
        self.num_examples, self.num_depths, self.num_digits, self.filler = (
            num_examples,
            num_depths,
            num_digits,
            filler,
        )
        self.variant = "" if filler == "sentences" else f"filler={filler}"

    def number(self, rng: np.random.Generator) -> str:
        """Draws a number; the space before it is included because most tokenizers merge it with the first digits."""
        return f" {int(rng.integers(10 ** (self.num_digits - 1), 10**self.num_digits))}"

    def prompts(self, length: int, corpus: Corpus, train_len: int, seed: int) -> Iterator[Prompt]:
        numbers = FixedTokenCount(corpus.tokenizer, self.number, "pass keys")
        task, before, between, after, question = (
            encode_text(corpus, text) for text in (TASK, BEFORE, BETWEEN, AFTER, QUESTION)
        )
        fixed = [task, before, between, after, question]
        # One bos; the number occurs three times, and its last id is never read.
        min_length = 1 + sum(map(len, fixed)) + 3 * numbers.n_tokens - 1
        n_filler = length - min_length
        if n_filler < 0:
            raise LengthError(
                f"passkey at {length} tokens: its instructions, number and question take {min_length} under tokenizer "
                f"{corpus.tokenizer.name!r}; choose a length of {min_length} or more"
            )
        sentences = encode_text(corpus, SENTENCES)
        for example in range(self.num_examples):
            rng = np.random.default_rng([seed, length, example])
            _, (number,) = numbers.sample(rng, 1)
            statement = np.concatenate([before, number, between, number, after])
            text = filler_text(corpus, rng, n_filler) if self.filler == "corpus" else None
            for index in range(self.num_depths):
                depth = index / max(1, self.num_depths - 1)
                n_first = round(depth * n_filler)
                # The paper's sentences restart after the number; running text continues.
                first, second = (
                    (text[:n_first], text[n_first:])
                    if text is not None
                    else (np.resize(sentences, n_first), np.resize(sentences, n_filler - n_first))
                )
                context = np.concatenate([[corpus.vocabulary.bos], task, first, statement, second, question])
                doc = {"example": example, "position": 1 + len(task) + n_first, "depth": depth}
                yield Prompt(
                    context.astype(np.int64), number[None], len(number), doc, question_len=len(question)
                )

    def process_results(self, prompt: Prompt, scores: Scores) -> Iterator[MetricValue]:
        example, position, depth = (prompt.doc[name] for name in ("example", "position", "depth"))
        location = (f"text-{example}", example, position, depth)
        match = bool((scores.greedy_ids[0] == prompt.continuations[0]).all())
        yield MetricValue("exact_match", float(match), 1, "fraction", *location)
        yield MetricValue("logprob", float(scores.logprob[0].sum()), 1, "nats", *location)
        yield MetricValue("chance", 1 / (9 * 10 ** (self.num_digits - 1)), 1, "fraction", *location)
