"""Passkey retrieval: a number hidden at some depth of text that does not matter.

Mohtashami, Jaggi. Landmark Attention. NeurIPS 2023, section 4.2. arXiv:2305.16300; the wording is that of
llama/run_test.py in epfml/landmark-attention. Deviations: lengths are exact in tokens, since text before and
after the number is cut as ids; depths are even in place of random; keys have a fixed number of digits and the
same number of tokens; a key is right where all of its ids are the model's first choice, not where the first
number of a generated answer is.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from posbench.data.corpus import Corpus
from posbench.errors import LengthError, unknown
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


@register("task/passkey")
class Passkey(Task):
    """Exact match and log-probability (nats, the sum over its ids) of the number, by its depth.

    A row's position is where the sentence with the number begins, in tokens; `chance` is that of a number of
    as many digits, drawn at random.

    Args:
        num_examples: how many texts; in each the same number is hidden at every depth.
        num_depths: how many depths, evenly from the start of the filler to its end.
        num_digits: of the number; the first is never 0.
        filler: "sentences", the paper's five over and over, or "corpus", running text of the test split.
    """

    task = "passkey"
    protocol = "passkey"
    metric = "exact_match"
    unit = "fraction"

    def __init__(
        self, num_examples: int, num_depths: int, num_digits: int = 5, filler: str = "sentences"
    ) -> None:
        require_positive("passkey", num_examples=num_examples, num_depths=num_depths, num_digits=num_digits)
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
        """With the space before it, which most tokenizers join to its first digits."""
        return f" {int(rng.integers(10 ** (self.num_digits - 1), 10**self.num_digits))}"

    def prompts(self, length: int, corpus: Corpus, train_len: int, seed: int) -> Iterator[Prompt]:
        numbers = FixedTokenCount(corpus.tokenizer, self.number, "pass keys")
        task, before, between, after, question = (
            encode_text(corpus, text) for text in (TASK, BEFORE, BETWEEN, AFTER, QUESTION)
        )
        fixed = [task, before, between, after, question]
        # The last id of the answer is only predicted.
        least = 1 + sum(map(len, fixed)) + 3 * numbers.n_tokens - 1
        room = length - least
        if room < 0:
            raise LengthError(
                f"passkey at {length} tokens: its instructions, number and question take {least} under tokenizer "
                f"{corpus.tokenizer.name!r}; choose a length of {least} or more"
            )
        sentences = encode_text(corpus, SENTENCES)
        for example in range(self.num_examples):
            rng = np.random.default_rng([seed, length, example])
            _, (number,) = numbers.sample(rng, 1)
            told = np.concatenate([before, number, between, number, after])
            text = filler_text(corpus, rng, room) if self.filler == "corpus" else None
            for place in range(self.num_depths):
                depth = place / max(1, self.num_depths - 1)
                ahead = round(depth * room)
                # The paper's sentences start anew after the number; running text goes on.
                parts = (
                    (text[:ahead], text[ahead:])
                    if text is not None
                    else (np.resize(sentences, ahead), np.resize(sentences, room - ahead))
                )
                context = np.concatenate([[corpus.vocabulary.bos], task, parts[0], told, parts[1], question])
                doc = {"example": example, "position": 1 + len(task) + ahead, "depth": depth}
                yield Prompt(context.astype(np.int64), number[None], len(number), doc)

    def process_results(self, prompt: Prompt, scores: Scores) -> Iterator[MetricValue]:
        example, position, depth = (prompt.doc[name] for name in ("example", "position", "depth"))
        place = (f"text-{example}", example, position, depth)
        hit = bool((scores.greedy_ids[0] == prompt.continuations[0]).all())
        yield MetricValue("exact_match", float(hit), 1, "fraction", *place)
        yield MetricValue("logprob", float(scores.logprob[0].sum()), 1, "nats", *place)
        yield MetricValue("chance", 1 / (9 * 10 ** (self.num_digits - 1)), 1, "fraction", *place)
