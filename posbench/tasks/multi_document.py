"""Question answering over many passages, of which one has the answer, by its place ("lost in the middle").

Liu et al. Lost in the Middle. TACL 2024, section 2. arXiv:2307.03172; the wording of the prompts is that of
prompts/qa.prompt, qa_with_query_aware_contextualization.prompt and closedbook_qa.prompt in
nelson-liu/lost-in-the-middle, the metric its best_subspan_em on an answer's first line. Deviations:

- The prompts of a number of passages have one exact length, that of the longest among them: the others have
  running text before the instructions.
- Where a file has too few passages without an answer for a question, gold passages of other questions
  complete them; they are easier than retrieved ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from posbench.data.corpus import Corpus
from posbench.errors import ConfigError, LengthError
from posbench.instantiate import register
from posbench.lm.interface import Generated, Prompt
from posbench.tasks.passages import Passage, best_subspan_em, distractors, load_questions
from posbench.tasks.prompting import (
    decode_until_special,
    encode_text,
    evenly_spaced,
    leading_filler,
    require_positive,
)
from posbench.tasks.task import MetricValue, Task

INSTRUCTIONS = (
    "Write a high-quality answer for the given question using only the provided search results "
    "(some of which might be irrelevant).\n\n"
)
ALONE = {0: "closed_book", 1: "oracle"}


@register("task/multi_document")
class MultiDocument(Task):
    """Share of greedy answers whose first line contains a right one (`substring_match`), by the gold passage's place.

    Which questions and passages are drawn is a function of the file alone; the evaluation's seed draws the
    running text. Lengths in tokens follow from `num_documents`, the questions and the tokenizer: the longest prompt
    of a number of documents, with the tokens that are generated.

    Args:
        path: a jsonl or jsonl.gz file of questions; what it holds is part of a cell's identity.
        num_documents: numbers of passages, the paper's 10, 20 and 30; or [1], the gold one alone (variant "oracle"),
            or [0], none (variant "closed_book").
        num_positions: how many places of the gold passage, evenly from the first to the last; 3, 5 and 7 are the
            paper's for 10, 20 and 30.
        num_examples: how many questions.
        query_aware: whether the question also stands before the passages.
        max_new_tokens: how many tokens are generated.

    Raises:
        DataError: if the file has another shape, or too few questions or passages.
    """

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
        max_new_tokens: int = 32,
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
            raise ConfigError("multi_document, closed book, has nothing to ask before: unset query_aware")
        if not path:
            raise ConfigError(
                "multi_document needs path: a jsonl or jsonl.gz file of questions with passages"
            )
        self.questions, bytes_of_file = load_questions(Path(path).expanduser())
        self.version = type(self).version + bytes_of_file
        if num_examples > len(self.questions):
            raise ConfigError(
                f"multi_document with num_examples={num_examples}: {path} holds {len(self.questions)} questions; choose fewer"
            )
        self.asked = np.random.default_rng(0).permutation(len(self.questions))[:num_examples]
        self.num_positions, self.query_aware, self.max_new_tokens = num_positions, query_aware, max_new_tokens
        names = [ALONE.get(self.num_documents[0], ""), "query_aware" if query_aware else ""]
        self.variant = "-".join(name for name in names if name)

    def fixed_lengths(self, corpus: Corpus) -> list[int]:
        return list(self.counts(corpus))

    def counts(self, corpus: Corpus) -> dict[int, int]:
        """The number of passages of each length in tokens; lengths rise strictly."""
        found: dict[int, int] = {}
        for count in self.num_documents:
            longest = max(len(self.prompt_ids(corpus, index, count, 0)) for index in self.asked.tolist())
            # bos before them; of what is generated, the last is not read.
            found[max([1 + longest + self.max_new_tokens - 1, *(length + 1 for length in found)])] = count
        return found

    def prompts(self, length: int, corpus: Corpus, train_len: int, seed: int) -> Iterator[Prompt]:
        counts = self.counts(corpus)
        if length not in counts:
            own = ", ".join(map(str, counts))
            raise LengthError(
                f"multi_document at {length} tokens: its num_documents={self.num_documents} take {own} under tokenizer "
                f"{corpus.tokenizer.name!r}; choose num_documents, and lengths follow"
            )
        count = counts[length]
        for example, index in enumerate(self.asked.tolist()):
            rng = np.random.default_rng([seed, length, example])
            text = self.prompt_ids(corpus, index, count, 0)
            lead = leading_filler(corpus, rng, length - self.max_new_tokens - len(text))
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
                yield Prompt(ids[:-1], ids[None, -1:], 0, doc, self.max_new_tokens)

    def prompt_ids(self, corpus: Corpus, index: int, count: int, gold: int) -> np.ndarray:
        """The paper's prompt as ids; how many there are does not depend on the gold passage's place."""
        question = self.questions[index]
        ask = f"Question: {question.text}\nAnswer:"
        if not count:
            return encode_text(corpus, ask)
        passages = distractors(self.questions, index, count - 1, np.random.default_rng([index, count]))
        passages.insert(gold, question.gold)
        first = f"Question: {question.text}\n\n" if self.query_aware else ""
        pieces = [INSTRUCTIONS + first]
        for number, passage in enumerate(passages, 1):
            pieces += [f"Document [{number}](Title:", told(passage)]
        return np.concatenate([encode_text(corpus, piece) for piece in [*pieces, "\n" + ask]])

    def process_results(self, prompt: Prompt, generated: Generated) -> Iterator[MetricValue]:
        example, question, gold, depth = (
            prompt.doc[name] for name in ("example", "question", "gold", "depth")
        )
        # Beyond the first line a model could copy its whole context, which holds the answer.
        answer = decode_until_special(prompt.doc["corpus"], generated.ids[0]).split("\n")[0].strip()
        hit = best_subspan_em(answer, self.questions[question].answers)
        yield MetricValue(self.metric, float(hit), 1, self.unit, f"question-{question}", example, gold, depth)


def told(passage: Passage) -> str:
    """A passage as the paper prints it, after its number."""
    return f" {passage.title}) {passage.text}\n"
