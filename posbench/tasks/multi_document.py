"""Question answering over many passages, one with the answer ("lost in the middle").

Liu et al. Lost in the Middle. TACL 2024, section 2. arXiv:2307.03172; the wording of the prompts is that of
prompts/qa.prompt, qa_with_query_aware_contextualization.prompt and closedbook_qa.prompt in
nelson-liu/lost-in-the-middle, the metric its best_subspan_em on an answer's first line. Deviations:

- All prompts with one number of passages have one length, that of the longest of them: running text before the
  instructions fills the others.
- If a file has too few passages for a question, gold passages of other questions without an answer to it are added; they
  are easier to distinguish than retrieved ones. Passages of the file that it marks as having an answer are left out.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np

from posbench.data.corpus import Corpus
from posbench.errors import ConfigError, LengthError
from posbench.instantiate import register
from posbench.lm.interface import Generated, Prompt
from posbench.tasks.passages import best_subspan_em, distractors, load_questions
from posbench.tasks.prompting import (
    decode_until_special,
    encode_text,
    evenly_spaced,
    generation_prompt,
    leading_filler,
    require_positive,
)
from posbench.tasks.task import MetricValue, Task

INSTRUCTIONS = (
    "Write a high-quality answer for the given question using only the provided search results "
    "(some of which might be irrelevant).\n\n"
)
VARIANTS = {0: "closed_book", 1: "oracle"}
_warn_once = cache(logging.getLogger(__name__).warning)


@register("task/multi_document")
class MultiDocument(Task):
    """Accuracy of generated answers by the position of the gold passage.

    Prompts: filler, instructions, passages and a question; the answer is generated. A length in tokens is that of the
    longest prompt with one of `num_documents`, generated tokens included. Questions and passages depend on the file
    alone; the seed of the evaluation draws the filler.

    Metric, for each question and position of the gold passage; `position` is its index, `depth` its relative position:
        substring_match (fraction, 0 or 1): the first line of the answer contains an accepted answer.

    Args:
        path: jsonl or jsonl.gz file of questions (see `passages`); its bytes are part of a cell's identity.
        num_documents: numbers of passages, at least 2 each; 10, 20 and 30 in the paper. Or [1], the gold passage alone
            (variant "oracle"), or [0], no passage (variant "closed_book").
        num_positions: number of positions of the gold passage, evenly spaced from the first to the last; 3, 5 and 7 for
            10, 20 and 30 passages in the paper.
        num_examples: number of questions.
        query_aware: also puts the question before the passages.
        max_new_tokens: number of tokens generated; 100 in the paper.

    Raises:
        ConfigError: for settings outside these ranges, or more examples than questions in the file.
        DataError: if the file cannot be read, has another format, or too few passages.
    """

    version = 2  # passages of the file that contain the letters of an answer are kept
    task = "multi_document"
    protocol = "passages"
    metric = "substring_match"
    unit = "fraction"
    output_type = "generate"

    def __init__(
        self,
        path: str,
        num_documents: list[int],
        num_positions: int,
        num_examples: int,
        query_aware: bool = False,
        max_new_tokens: int = 100,
    ) -> None:
        require_positive(
            "multi_document",
            num_positions=num_positions,
            num_examples=num_examples,
            max_new_tokens=max_new_tokens,
        )
        self.num_documents = sorted(set(num_documents))
        if (
            not self.num_documents
            or self.num_documents[0] < 0
            or (len(self.num_documents) > 1 and self.num_documents[0] < 2)
        ):
            raise ConfigError(
                f"multi_document with num_documents={list(num_documents)}: give numbers of 2 or more, or [1] (oracle) or [0] "
                "(closed book) alone"
            )
        if query_aware and self.num_documents == [0]:
            raise ConfigError(
                "multi_document, closed book, has no passages to put a question before: unset query_aware"
            )
        if not path:
            raise ConfigError(
                "multi_document needs path: a jsonl or jsonl.gz file of questions with passages"
            )
        self.questions, file_hash = load_questions(Path(path).expanduser())
        self.version = type(self).version + file_hash
        n_others = self.num_documents[-1] - 1
        n_short = sum(len(one.others) < n_others for one in self.questions)
        if n_short:
            _warn_once(
                f"{path}: {n_short} of {len(self.questions)} questions have fewer than {n_others} passages without an "
                "answer; gold passages of other questions, which are easier to distinguish, are added to them"
            )
        if num_examples > len(self.questions):
            raise ConfigError(
                f"multi_document with num_examples={num_examples}: {path} holds {len(self.questions)} questions; choose fewer"
            )
        self.question_indices = np.random.default_rng(0).permutation(len(self.questions))[:num_examples]
        self.num_positions, self.query_aware, self.max_new_tokens = num_positions, query_aware, max_new_tokens
        names = [VARIANTS.get(self.num_documents[0], ""), "query_aware" if query_aware else ""]
        self.variant = "-".join(name for name in names if name)

    def fixed_lengths(self, corpus: Corpus) -> list[int]:
        return list(self.counts(corpus))

    def counts(self, corpus: Corpus) -> dict[int, int]:
        """Returns the number of passages for each length in tokens; lengths increase strictly."""
        counts: dict[int, int] = {}
        for count in self.num_documents:
            longest = max(
                len(self.prompt_ids(corpus, index, count, 0)) for index in self.question_indices.tolist()
            )
            # One bos; the last generated token is never read.
            counts[max([1 + longest + self.max_new_tokens - 1, *(length + 1 for length in counts)])] = count
        return counts

    def prompts(self, length: int, corpus: Corpus, train_len: int, seed: int) -> Iterator[Prompt]:
        counts = self.counts(corpus)
        if length not in counts:
            lengths = ", ".join(map(str, counts))
            raise LengthError(
                f"multi_document at {length} tokens: its num_documents={self.num_documents} take {lengths} under tokenizer "
                f"{corpus.tokenizer.name!r}; choose num_documents, and lengths follow"
            )
        count = counts[length]
        for example, index in enumerate(self.question_indices.tolist()):
            rng = np.random.default_rng([seed, length, example])
            n_ids = len(self.prompt_ids(corpus, index, count, 0))
            lead = leading_filler(corpus, rng, length - self.max_new_tokens - n_ids)
            n_question = len(self.question_ids(corpus, index, count))
            for gold in evenly_spaced(max(1, count), self.num_positions).tolist():
                ids = np.concatenate(
                    [[corpus.vocabulary.bos], lead, self.prompt_ids(corpus, index, count, gold)]
                )
                doc = {
                    "corpus": corpus,
                    "example": example,
                    "question": index,
                    "gold": gold if count else None,
                    "depth": gold / max(1, count - 1) if count else None,
                }
                yield generation_prompt(ids[:-n_question], ids[-n_question:], doc, self.max_new_tokens)

    def prompt_ids(self, corpus: Corpus, index: int, count: int, gold: int) -> np.ndarray:
        """Ids of the paper's prompt; their number does not depend on the position `gold` of the gold passage."""
        question, ask = self.questions[index], self.question_ids(corpus, index, count)
        if not count:
            return ask
        passages = distractors(self.questions, index, count - 1, np.random.default_rng([index, count]))
        passages.insert(gold, question.gold)
        before = f"Question: {question.text}\n\n" if self.query_aware else ""
        pieces = [INSTRUCTIONS + before]
        for number, passage in enumerate(passages, 1):
            pieces += [f"Document [{number}](Title:", f" {passage.title}) {passage.text}\n"]
        return np.concatenate([*(encode_text(corpus, piece) for piece in pieces), ask])

    def question_ids(self, corpus: Corpus, index: int, count: int) -> np.ndarray:
        """Ids of the question after `count` passages."""
        ask = f"Question: {self.questions[index].text}\nAnswer:"
        return encode_text(corpus, "\n" + ask if count else ask)

    def process_results(self, prompt: Prompt, generated: Generated) -> Iterator[MetricValue]:
        example, question, gold, depth = (
            prompt.doc[name] for name in ("example", "question", "gold", "depth")
        )
        # Only the first line, as in the paper: a model that copies its context would copy the answer too.
        answer = decode_until_special(prompt.doc["corpus"], generated.ids[0]).split("\n")[0].strip()
        match = best_subspan_em(answer, self.questions[question].answers)
        yield MetricValue(
            self.metric, float(match), 1, self.unit, f"question-{question}", example, gold, depth
        )
