"""Base of RULER's tasks: needles in text and a question with several answers, as symbols or as words.

Hsieh et al. RULER. COLM 2024. arXiv:2404.06654; the wording of prompts, numbers of needles and the score
(`string_match_all`: the share of the answers that the generated text contains) are those of NVIDIA/RULER. The symbols
are those of `data.ruler`. Deviations of the words:

- Lengths are exact in tokens: keys, variables and values have the same number of tokens each, and filler is cut between
  ids. Needles lie at random places of the filler, on lines of their own.
- Running text of the corpus stands for the essays. Filler of sentences is one line, in which needles may cut a sentence;
  RULER has lines of five sentences with needles between them. Keys are of 270 pairs of words.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import numpy as np

from posbench.data import ruler
from posbench.data.corpus import Corpus
from posbench.errors import ConfigError, LengthError, unknown
from posbench.lm.interface import Generated, Prompt
from posbench.tasks.fixed_token_strings import FixedTokenCount
from posbench.tasks.passkey import FILLERS, SENTENCES
from posbench.tasks.prompting import (
    decode_until_special,
    encode_text,
    evaluated_window,
    filler_text,
    generation_prompt,
    require_positive,
)
from posbench.tasks.task import MetricValue, Task

Strings = dict[str, FixedTokenCount]
FORMS = ("symbols", "words")
COUNT = ruler.COUNT


def random_number(rng: np.random.Generator, digits: int) -> str:
    """Draws a number whose first digit is not 0."""
    return f" {int(rng.integers(10 ** (digits - 1), 10**digits))}"


def distinct(strings: FixedTokenCount, rng: np.random.Generator, count: int) -> tuple[list[str], np.ndarray]:
    """Returns `count` different strings and their (count, n_tokens) ids."""
    while True:
        texts, ids = strings.sample(rng, count)
        if len(set(texts)) == count:
            return texts, ids


def join(corpus: Corpus, *pieces: str | np.ndarray) -> np.ndarray:
    """Returns the ids of pieces of text, some of which are ids already."""
    return np.concatenate(
        [encode_text(corpus, piece) if isinstance(piece, str) else piece for piece in pieces]
    )


class RulerTask(Task):
    """Recall of several answers.

    Prompts: filler with needles at random places, and a question; the model generates the answers.

    Metric, for each prompt:
        recall (fraction, 0 to 1): answers that the generated text contains.

    Args:
        num_examples: number of prompts.
        form: "symbols", evaluated for models trained with the same `train.synthetic_task`, or "words".
        filler: of the words: "sentences", RULER's five sentences repeated, or "corpus", running text.
        max_new_tokens: tokens generated in words; symbols take one for each answer.

    Attributes:
        words_settings: filler and max_new_tokens of the yaml, the only ones that are allowed with symbols.
    """

    protocol = "ruler"
    metric = "recall"
    unit = "fraction"
    output_type = "generate"
    words_settings: ClassVar[dict[str, Any]] = {"filler": "corpus", "max_new_tokens": 128}
    draws: ClassVar[dict[str, Callable[[np.random.Generator], str]]] = {}  # what to draw, by a plural noun

    def __init__(self, num_examples: int, form: str, filler: str, max_new_tokens: int) -> None:
        require_positive(self.task, num_examples=num_examples, max_new_tokens=max_new_tokens)
        if form not in FORMS:
            raise unknown(f"form of {self.task}", form, FORMS)
        if filler not in FILLERS:
            raise unknown(f"filler of {self.task}", filler, FILLERS)
        for name, value in (("filler", filler), ("max_new_tokens", max_new_tokens)):
            if form == "symbols" and value != self.words_settings[name]:
                raise ConfigError(
                    f"{self.task} with form=symbols: {name}={value} changes nothing: remove it, or give form=words"
                )
        self.num_examples, self.form, self.filler = num_examples, form, filler
        self.max_new_tokens = max_new_tokens
        self.variant = form if form == "symbols" else f"words-{filler}"
        self.required_synthetic_task = self.task if form == "symbols" else ""

    def prompts(self, length: int, corpus: Corpus, train_len: int, seed: int) -> Iterator[Prompt]:
        strings = {
            name: FixedTokenCount(corpus.tokenizer, draw, name)
            for name, draw in self.draws.items()
            if self.form == "words"
        }
        for index in range(self.num_examples):
            # The last entry separates these draws from those of training, so that no training sequence recurs.
            rng = np.random.default_rng([seed, length, index, 1])
            if self.form == "symbols":
                yield self.symbols(index, length, corpus, rng)
            else:
                yield self.words(index, length, corpus, rng, strings)

    def symbols(self, index: int, length: int, corpus: Corpus, rng: np.random.Generator) -> Prompt:
        """Returns a prompt of symbols."""
        vocabulary = corpus.vocabulary
        ruler.check_length(self.task, length, vocabulary.num_keys, vocabulary.num_values)
        text = evaluated_window(corpus, rng, length)
        ids, question, answers = ruler.example(rng, vocabulary, self.task, length, text)
        doc = {"example": index, "answers": answers.tolist()}
        return generation_prompt(ids, question, doc, len(answers))

    def words(
        self, index: int, length: int, corpus: Corpus, rng: np.random.Generator, strings: Strings
    ) -> Prompt:
        """Returns a prompt of words."""
        before, needles, after, answers = self.texts(rng, corpus, strings)
        line = encode_text(corpus, "\n")
        placed = [np.concatenate([line, needle, line]) for needle in needles]
        fixed = 1 + len(before) + sum(map(len, placed)) + len(after) + self.max_new_tokens - 1
        if length < fixed:
            raise LengthError(
                f"{self.task} at {length} tokens: its instructions, needles, question and {self.max_new_tokens} generated tokens take "
                f"{fixed} under tokenizer {corpus.tokenizer.name!r}; choose a length of {fixed} or more"
            )
        n_filler = length - fixed
        if self.filler == "corpus":
            filler = filler_text(corpus, rng, n_filler)
        else:
            filler = np.resize(encode_text(corpus, SENTENCES), n_filler)
        cuts = np.sort(rng.integers(n_filler + 1, size=len(placed)))
        parts = [part for pair in zip(np.split(filler, cuts), [*placed, []], strict=True) for part in pair]
        ids = np.concatenate([[corpus.vocabulary.bos], before, *parts]).astype(np.int64)
        doc = {"example": index, "answers": answers, "corpus": corpus}
        return generation_prompt(ids, after, doc, self.max_new_tokens)

    def texts(
        self, rng: np.random.Generator, corpus: Corpus, strings: Strings
    ) -> tuple[np.ndarray, list[np.ndarray], np.ndarray, list[str]]:
        """Draws ids of the instructions, of each needle and of the question, and the answers, as texts."""
        raise NotImplementedError

    def process_results(self, prompt: Prompt, generated: Generated) -> Iterator[MetricValue]:
        index, answers = prompt.doc["example"], prompt.doc["answers"]
        if self.form == "symbols":
            found = sum(answer in generated.ids[0] for answer in answers)
        else:
            text = decode_until_special(prompt.doc["corpus"], generated.ids[0]).lower()
            found = sum(answer.strip().lower() in text for answer in answers)
        yield MetricValue("recall", float(found), len(answers), "fraction", f"text-{index}", index)
