"""Key-value retrieval ("lost in the middle") of UUIDs in a JSON object, as in its paper.

Liu et al. Lost in the Middle. TACL 2024, section 4. arXiv:2307.03172; the wording of the prompts is that of
prompts/kv_retrieval.prompt and kv_retrieval_with_query_aware_contextualization.prompt in
nelson-liu/lost-in-the-middle. Deviations:

- Lengths are exact in tokens: all UUIDs have the same number of tokens (the tokenizer's most frequent one), prompts
  are joined from ids, and running text before the instructions fills what no further record fits into.
- The paper moves one gold record through each context; here the questions are about different records of one context
  and share its prefill.
- By default answers are scored and not generated: the opening quote is given, and a value is an exact match if all of
  its ids have the highest logit, as greedy decoding would generate it.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import numpy as np

from posbench.data.corpus import Corpus
from posbench.data.tokenizer import Tokenizer
from posbench.errors import ConfigError, LengthError
from posbench.instantiate import register
from posbench.lm.interface import Generated, Prompt, Scores
from posbench.tasks.fixed_token_strings import FixedTokenCount
from posbench.tasks.prompting import (
    decode_until_special,
    encode_text,
    evenly_spaced,
    gold_rank,
    leading_filler,
    require_positive,
)
from posbench.tasks.task import MetricValue, Task

INSTRUCTIONS = "Extract the value corresponding to the specified key in the JSON object below.\n\n"
BEFORE_KEY, AFTER_KEY = 'Key: "', '"\nCorresponding value:'
DATA = "JSON data:\n"
CHANCE = 2.0**-122  # a version 4 UUID has 122 random bits
MAX_NEW_TOKENS = 100  # ids generated for an answer, as in the paper


def random_uuid(rng: np.random.Generator) -> str:
    """Draws a version 4 UUID."""
    return str(uuid.UUID(bytes=rng.bytes(16), version=4))


@register("task/key_value_uuid")
class KeyValueUuid(Task):
    """Exact match of a record's value, given its key.

    Prompts: filler, instructions, a JSON object of random UUIDs, and the question for one key; the answer is its value.

    Metrics, for each question; `position` is the index of the record, `depth` its relative position:
        exact_match (fraction, 0 or 1): all ids of the value have the highest logit, given the opening quote.
        logprob (nats, at most 0): log-probability of the value, the sum over its ids.
        rank (rank, at least 1), reciprocal_rank (fraction, 0 to 1): rank of the value's log-probability among all
            values of the context, ties counting half, and 1 / rank; with `rank_all_values`.
        substring_match (fraction, 0 or 1): the generated answer contains the value, in any case; the paper's metric. In
            place of the metrics above, with `generate`.
    Metrics, for each context, averaged over questions:
        predicted_in_context (fraction, 0 to 1): generated answers that contain any value; with `generate`.
        chance (fraction, 0 to 1): probability of a random UUID.
        random_in_context (fraction, 0 to 1): accuracy of the value of a record drawn at random.

    Args:
        num_contexts: number of JSON objects; 500 in the paper.
        num_positions: number of questions for each context, about records evenly spaced from the first to the last;
            4, 5 and 7 for 75, 140 and 300 records in the paper.
        num_keys: numbers of records, at least 2 each, from which lengths follow. If empty, lengths are given and hold
            as many records as fit.
        query_aware: also puts the question before the records; each question is then a prompt of its own.
        rank_all_values: scores every value of the context for each question.
        generate: decodes answers greedily, as in the paper, instead of scoring them.
    """

    task = "key_value"
    protocol = "json_uuid"
    unit = "fraction"

    def __init__(
        self,
        num_contexts: int,
        num_positions: int,
        num_keys: list[int] | None = None,
        query_aware: bool = False,
        rank_all_values: bool = False,
        generate: bool = False,
    ) -> None:
        require_positive("key_value_uuid", num_contexts=num_contexts, num_positions=num_positions)
        if any(count < 2 for count in num_keys or []):
            raise ConfigError(f"key_value_uuid with num_keys={num_keys}: give at least 2 records each")
        if rank_all_values and generate:
            raise ConfigError(
                "key_value_uuid with rank_all_values and generate: a rank needs scores; set one of them"
            )
        self.num_contexts, self.num_positions, self.num_keys = (
            num_contexts,
            num_positions,
            list(num_keys or []),
        )
        self.query_aware, self.rank_all_values, self.generate = query_aware, rank_all_values, generate
        self.variant = "query_aware" if query_aware else ""
        self.output_type = "generate" if generate else "loglikelihood"
        self.metric = "substring_match" if generate else "exact_match"
        self.version = type(self).version + int(generate)  # 2 of generation: room for 100 tokens

    def fixed_lengths(self, corpus: Corpus) -> list[int]:
        template = PromptTemplate(corpus, self.query_aware, self.generate)
        return [template.length(count) for count in self.num_keys]

    def prompts(self, length: int, corpus: Corpus, train_len: int, seed: int) -> Iterator[Prompt]:
        template = PromptTemplate(corpus, self.query_aware, self.generate)
        count = template.num_records(length)
        records = evenly_spaced(count, self.num_positions)
        for index in range(self.num_contexts):
            rng = np.random.default_rng([seed, length, index])
            _, keys_RK = template.uuids.sample(rng, count)
            values, values_RV = template.uuids.sample(rng, count)
            json_ids = template.records.ids(keys_RK, values_RV)
            lead = np.concatenate(
                [[corpus.vocabulary.bos], leading_filler(corpus, rng, length - template.length(count))]
            )
            doc: dict[str, Any] = {"context": index, "count": count, "corpus": corpus, "values": values}
            for own in records[:, None] if self.query_aware else [records]:
                context = np.concatenate(
                    [lead, template.head(keys_RK[own[0]]), json_ids, template.before_key]
                )
                continuations = [
                    template.question(keys_RK[record], value)
                    for record in own
                    for value in (values_RV if self.rank_all_values else values_RV[[record]])
                ]
                n_scored, max_new_tokens = (
                    (0, MAX_NEW_TOKENS) if self.generate else (template.uuids.n_tokens, 0)
                )
                yield Prompt(
                    context,
                    np.stack(continuations),
                    n_scored,
                    doc | {"records": own},
                    max_new_tokens,
                    question_len=len(template.before_key),
                )

    def process_results(self, prompt: Prompt, scores: Scores | Generated) -> Iterator[MetricValue]:
        records, index = prompt.doc["records"], prompt.doc["context"]
        count, name = prompt.doc["count"], f"context-{index}"
        locations = [(name, index, record, record / (count - 1)) for record in records.tolist()]
        if isinstance(scores, Generated):
            values = [value.lower() for value in prompt.doc["values"]]
            texts = [decode_until_special(prompt.doc["corpus"], ids).lower() for ids in scores.ids]
            for text, location in zip(texts, locations, strict=True):
                match = values[location[2]] in text
                yield MetricValue("substring_match", float(match), 1, "fraction", *location)
            in_context = sum(any(value in text for value in values) for text in texts)
            yield MetricValue(
                "predicted_in_context", float(in_context), len(records), "fraction", name, index
            )
        else:
            yield from self.process_scores(prompt, scores, locations)
        yield MetricValue("chance", CHANCE * len(records), len(records), "fraction", name, index)
        yield MetricValue("random_in_context", len(records) / count, len(records), "fraction", name, index)

    def process_scores(self, prompt: Prompt, scores: Scores, locations: list[tuple]) -> Iterator[MetricValue]:
        """Computes the metrics of each question from the scores of its value, or of all values of the context."""
        shape = len(locations), -1  # questions, values scored for each
        logprob_QV = scores.logprob.sum(1).reshape(shape)
        targets = prompt.continuations[:, -prompt.n_scored :]
        match_QV = (scores.greedy_ids == targets).all(1).reshape(shape)
        for row, location in enumerate(locations):
            gold = location[2] if self.rank_all_values else 0
            yield MetricValue("exact_match", float(match_QV[row, gold]), 1, "fraction", *location)
            yield MetricValue("logprob", float(logprob_QV[row, gold]), 1, "nats", *location)
            if self.rank_all_values:
                rank = gold_rank(logprob_QV[row], np.arange(logprob_QV.shape[1]) == gold)
                yield MetricValue("rank", rank, 1, "rank", *location)
                yield MetricValue("reciprocal_rank", 1 / rank, 1, "fraction", *location)


class PromptTemplate:
    """The paper's prompt as pieces of ids, each encoded independently.

    Attributes:
        uuids: draws UUIDs of one token count.
        records: encodes the JSON object.
        before_key: ids between the JSON object and the key of the question.
    """

    def __init__(self, corpus: Corpus, query_aware: bool, generate: bool) -> None:
        self.uuids = FixedTokenCount(corpus.tokenizer, random_uuid, "UUIDs")
        self.records = JsonRecords(corpus.tokenizer)
        self.query_aware, self.generate, self.name = query_aware, generate, corpus.tokenizer.name
        head = [INSTRUCTIONS + BEFORE_KEY, '"\n\n' + DATA] if query_aware else [INSTRUCTIONS, DATA]
        pieces = [*head, "\n\n" + BEFORE_KEY, AFTER_KEY, ' "']
        self.first, self.second, self.before_key, self.after_key, self.quote = (
            encode_text(corpus, piece) for piece in pieces
        )

    def head(self, key_K: np.ndarray) -> np.ndarray:
        """Ids of the instructions before the JSON object; if query-aware, with the question for a key."""
        return np.concatenate([self.first, *([key_K] if self.query_aware else []), self.second])

    def question(self, key_K: np.ndarray, value_V: np.ndarray) -> np.ndarray:
        """Ids of the question from its key on, followed by the scored value unless answers are generated."""
        answer = [] if self.generate else [self.quote, value_V]
        return np.concatenate([key_K, self.after_key, *answer])

    def length(self, count: int) -> int:
        """Returns the length in tokens of a prompt with `count` records and no filler (`Prompt.length`)."""
        key = np.zeros(self.uuids.n_tokens, np.int64)
        fixed = 1 + len(self.head(key)) + len(self.before_key) + len(self.question(key, key))
        records = self.records.num_tokens(count, 2 * len(key))
        return fixed + records + (MAX_NEW_TOKENS if self.generate else 0) - 1

    def num_records(self, length: int) -> int:
        """Returns the largest number of records that fit in `length` tokens.

        Raises:
            LengthError: if it is below 2.
        """
        min_length, record = self.length(2), self.length(3) - self.length(2)
        if length < min_length:
            raise LengthError(
                f"key_value_uuid at {length} tokens: its instructions, question and two records take {min_length} under "
                f"tokenizer {self.name!r}; choose a length of {min_length} or more"
            )
        return 2 + (length - min_length) // record


class JsonRecords:
    """Encodes a JSON object as the paper prints it, one record in each line: {"key": "value",\\n "key": "value"}."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        encoded = [tokenizer.encode(text).astype(np.int64) for text in ('{"', ' "', '": "', '",\n', '"}')]
        self.first, self.open, self.middle, self.close, self.last = encoded

    def ids(self, keys_RK: np.ndarray, values_RV: np.ndarray) -> np.ndarray:
        """(T,) ids of the object of R records, from the ids of their keys and values."""
        pieces = []
        for record, (key, value) in enumerate(zip(keys_RK, values_RV, strict=True)):
            pieces += [self.open if record else self.first, key, self.middle, value, self.close]
        return np.concatenate([*pieces[:-1], self.last])

    def num_tokens(self, count: int, tokens_per_record: int) -> int:
        """Returns the length of an object of `count` records; a key and its value have `tokens_per_record` tokens."""
        between = (count - 1) * (len(self.close) + len(self.open))
        return len(self.first) + len(self.last) + between + count * (tokens_per_record + len(self.middle))
