"""Key-value retrieval ("lost in the middle") as its paper has it: a JSON object of random UUIDs.

Liu et al. Lost in the Middle. TACL 2024, section 4. arXiv:2307.03172; the wording of the prompts is that of
prompts/kv_retrieval.prompt and kv_retrieval_with_query_aware_contextualization.prompt in
nelson-liu/lost-in-the-middle. Deviations:

- Lengths are exact in tokens: all UUIDs of a run have the same number of tokens (the tokenizer's most frequent
  one), prompts are joined as ids, and what remains after the last record that fits is running text before the
  instructions.
- The paper moves one gold record of each context; here each place holds another record, and all questions of
  a context share one pass over it.
- By default answers are scored and not generated: the opening quote is given, and the value is right where
  every id of it is the model's first choice, which is what greedy decoding would give.
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
ASK, ASKED = 'Key: "', '"\nCorresponding value:'
CHANCE = 2.0**-122  # of a random UUID: so many of its bits are random
SPARE = 16  # ids generated beyond the value's own: a quote, a word or two


def random_uuid(rng: np.random.Generator) -> str:
    return str(uuid.UUID(bytes=rng.bytes(16), version=4))


@register("task/key_value_uuid")
class KeyValueUuid(Task):
    """Exact match, log-probability and, where asked for, rank of the value, by the record's place.

    The log-probability is the sum over the value's ids in nats, given its opening quote. The rank is the
    value's among all values of its context, which have equally many tokens. Generated answers are right where
    they contain the value, whatever its case (`substring_match`, the paper's), and `predicted_in_context` is the share of
    those that contain any. `chance` is that of a random UUID, `random_in_context` that of a record drawn at random.

    Args:
        num_contexts: how many JSON objects; the paper has 500.
        num_positions: how many records of each are asked for, evenly from the first to the last. 4, 5 and 7 of 75,
            140 and 300 are the paper's.
        num_keys: numbers of records, from which lengths follow; none, and as many fit as a given length holds.
        query_aware: whether the key also stands before the records; each question then has a pass of its own.
        rank_all_values: whether every value of the context is scored for each question, which takes as many continuations.
        generate: whether answers are decoded greedily, as in the paper, in place of being scored.
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

    def fixed_lengths(self, corpus: Corpus) -> list[int]:
        frame = Frame(corpus, self.query_aware, self.generate)
        return [frame.length(count) for count in self.num_keys]

    def prompts(self, length: int, corpus: Corpus, train_len: int, seed: int) -> Iterator[Prompt]:
        frame = Frame(corpus, self.query_aware, self.generate)
        count = frame.num_records(length)
        asked = evenly_spaced(count, self.num_positions)
        for index in range(self.num_contexts):
            rng = np.random.default_rng([seed, length, index])
            _, keys_RK = frame.uuids.sample(rng, count)
            values, values_RV = frame.uuids.sample(rng, count)
            block = frame.block(keys_RK, values_RV)
            lead = np.concatenate(
                [[corpus.vocabulary.bos], leading_filler(corpus, rng, length - frame.length(count))]
            )
            doc: dict[str, Any] = {"context": index, "count": count, "corpus": corpus, "values": values}
            for some in asked[:, None] if self.query_aware else [asked]:
                context = np.concatenate([lead, frame.head(keys_RK[some[0]]), block, frame.ask])
                continuations = [
                    frame.question(keys_RK[record], value)
                    for record in some
                    for value in (values_RV if self.rank_all_values else values_RV[[record]])
                ]
                n_scored, max_new_tokens = (
                    (0, frame.max_new_tokens) if self.generate else (frame.uuids.n_tokens, 0)
                )
                yield Prompt(
                    context, np.stack(continuations), n_scored, doc | {"asked": some}, max_new_tokens
                )

    def process_results(self, prompt: Prompt, scores: Scores | Generated) -> Iterator[MetricValue]:
        asked, index = prompt.doc["asked"], prompt.doc["context"]
        count, name = prompt.doc["count"], f"context-{index}"
        rows = [(name, index, record, record / (count - 1)) for record in asked.tolist()]
        if isinstance(scores, Generated):
            values = [value.lower() for value in prompt.doc["values"]]
            texts = [decode_until_special(prompt.doc["corpus"], ids).lower() for ids in scores.ids]
            for text, place in zip(texts, rows, strict=True):
                yield MetricValue("substring_match", float(values[place[2]] in text), 1, "fraction", *place)
            some = sum(any(value in text for value in values) for text in texts)
            yield MetricValue("predicted_in_context", float(some), len(asked), "fraction", name, index)
        else:
            yield from self.scored(prompt, scores, rows)
        yield MetricValue("chance", CHANCE * len(asked), len(asked), "fraction", name, index)
        yield MetricValue("random_in_context", len(asked) / count, len(asked), "fraction", name, index)

    def scored(self, prompt: Prompt, scores: Scores, rows: list[tuple]) -> Iterator[MetricValue]:
        """Of each question, its own value among the values that were scored."""
        logprob_AC = scores.logprob.sum(1).reshape(len(rows), -1)
        hit_AC = (
            (scores.greedy_ids == prompt.continuations[:, -prompt.n_scored :]).all(1).reshape(len(rows), -1)
        )
        for row, place in enumerate(rows):
            gold = place[2] if self.rank_all_values else 0
            yield MetricValue("exact_match", float(hit_AC[row, gold]), 1, "fraction", *place)
            yield MetricValue("logprob", float(logprob_AC[row, gold]), 1, "nats", *place)
            if self.rank_all_values:
                rank = gold_rank(logprob_AC[row], np.arange(logprob_AC.shape[1]) == gold)
                yield MetricValue("rank", rank, 1, "rank", *place)
                yield MetricValue("reciprocal_rank", 1 / rank, 1, "fraction", *place)


class Frame:
    """The prompt in pieces of ids, each encoded on its own."""

    def __init__(self, corpus: Corpus, query_aware: bool, generate: bool) -> None:
        self.uuids = FixedTokenCount(corpus.tokenizer, random_uuid, "UUIDs")
        self.records = JsonRecords(corpus.tokenizer)
        self.query_aware, self.generate, self.name = query_aware, generate, corpus.tokenizer.name
        self.max_new_tokens = self.uuids.n_tokens + SPARE
        pieces = (INSTRUCTIONS, INSTRUCTIONS + ASK, '"\n\nJSON data:\n', "JSON data:\n", "\n\n" + ASK, ASKED)
        self.plain, self.aware, self.between, self.data, self.ask, self.asked = (
            encode_text(corpus, piece) for piece in pieces
        )
        self.quote = encode_text(corpus, ' "')

    def block(self, keys_RK: np.ndarray, values_RV: np.ndarray) -> np.ndarray:
        return self.records.block(keys_RK, values_RV)

    def head(self, key_K: np.ndarray) -> np.ndarray:
        """Everything up to the JSON object; query-aware with the key."""
        if self.query_aware:
            return np.concatenate([self.aware, key_K, self.between])
        return np.concatenate([self.plain, self.data])

    def question(self, key_K: np.ndarray, value_V: np.ndarray) -> np.ndarray:
        """The continuation that asks for a key, with the value that is scored unless answers are generated."""
        answer = [] if self.generate else [self.quote, value_V]
        return np.concatenate([key_K, self.asked, *answer])

    def length(self, count: int) -> int:
        """Tokens that are read of a prompt with so many records and no text before it."""
        key = np.zeros(self.uuids.n_tokens, np.int64)
        fixed = 1 + len(self.head(key)) + len(self.ask) + len(self.question(key, key))
        return (
            fixed
            + self.records.tokens(count, 2 * len(key))
            + (self.max_new_tokens if self.generate else 0)
            - 1
        )

    def num_records(self, length: int) -> int:
        """How many records a length holds."""
        least, record = self.length(2), self.length(3) - self.length(2)
        if length < least:
            raise LengthError(
                f"key_value_uuid at {length} tokens: its instructions, question and two records take {least} under "
                f"tokenizer {self.name!r}; choose a length of {least} or more"
            )
        return 2 + (length - least) // record


class JsonRecords:
    """A JSON object, a record a line, as the paper prints it: {"key": "value",\\n "key": "value"}."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        encoded = [tokenizer.encode(text).astype(np.int64) for text in ('{"', ' "', '": "', '",\n', '"}')]
        self.first, self.open, self.middle, self.close, self.last = encoded

    def block(self, keys_RK: np.ndarray, values_RV: np.ndarray) -> np.ndarray:
        pieces = []
        for record, (key, value) in enumerate(zip(keys_RK, values_RV, strict=True)):
            pieces += [self.open if record else self.first, key, self.middle, value, self.close]
        return np.concatenate([*pieces[:-1], self.last])

    def tokens(self, count: int, each: int) -> int:
        """Of `count` records whose key and value have `each` tokens together."""
        between = (count - 1) * (len(self.close) + len(self.open))
        return len(self.first) + len(self.last) + between + count * (each + len(self.middle))
