"""Key-value retrieval of UUIDs: the paper's prompt character by character, its data, exact lengths, metrics."""

import gzip
import json
import re

import numpy as np
import pytest
from prose import Prose, confident_scores, generated_text, prose, sample, whole

from posbench.data.tokenizer import Bytes
from posbench.errors import ConfigError, DataError, LengthError
from posbench.lm.interface import Scores
from posbench.tasks.fixed_token_strings import FixedTokenCount
from posbench.tasks.key_value_uuid import JsonRecords, KeyValueUuid, random_uuid

UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
TOKENIZERS = ["bytes", "bpe"]


def prompts(task: KeyValueUuid, length: int, corpus: Prose, seed: int = 0):
    return list(task.prompts(length, corpus, 64, seed))


def printed(records: list[tuple[str, str]]) -> str:
    """The JSON object as the paper's code prints it."""
    return json.dumps(dict(records), separators=(",\n ", ": "))


def expected(records: list[tuple[str, str]], key: str, query_aware: bool) -> str:
    """The paper's two prompts."""
    ask = f'Key: "{key}"\n'
    return (
        "Extract the value corresponding to the specified key in the JSON object below.\n\n"
        + (ask + "\n" if query_aware else "")
        + f"JSON data:\n{printed(records)}\n\n{ask}Corresponding value:"
    )


def records_of(text: str) -> list[tuple[str, str]]:
    return list(json.loads(text[text.index("{") : text.index("}") + 1]).items())


@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize("query_aware", [False, True])
@pytest.mark.parametrize("generate", [False, True])
def test_prompts_equal_the_papers_and_have_the_exact_length(kind, query_aware, generate):
    corpus = prose(kind)
    task = KeyValueUuid(2, 3, [4, 9], query_aware, generate=generate)
    lengths = task.fixed_lengths(corpus)
    for count, length in zip([4, 9], lengths, strict=True):
        made = prompts(task, length, corpus)
        assert len(made) == (6 if query_aware else 2)
        for prompt in made:
            assert prompt.length == length
            for row, record in enumerate(prompt.doc["records"]):
                text = corpus.text(whole(prompt, row))
                records = records_of(text)
                assert len(records) == count
                key, value = records[record]
                answer = "" if generate else f' "{value}'
                assert text == expected(records, key, query_aware) + answer
                assert all(UUID.fullmatch(one) for pair in records for one in pair)


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_any_length_is_exact_by_filler_before_the_instructions(kind):
    corpus = prose(kind)
    task = KeyValueUuid(1, 2)
    assert task.fixed_lengths(corpus) == []
    base = KeyValueUuid(1, 2, [5]).fixed_lengths(corpus)[0]
    counts = set()
    for length in range(base, base + 100, 7):
        (prompt,) = prompts(task, length, corpus)
        assert prompt.length == length
        text = corpus.text(whole(prompt))
        records = records_of(text)
        counts.add(len(records))
        assert text.endswith(expected(records, records[0][0], False) + f' "{records[0][1]}')
        assert (length == base) == text.startswith("Extract")
    assert min(counts) == 5
    assert len(counts) > 1  # room for one more record is used


def test_prompts_depend_on_the_seed_alone():
    corpus, task = prose(), KeyValueUuid(1, 2)
    one, same, other = (whole(prompts(task, 700, corpus, seed)[0]) for seed in (0, 0, 1))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


def test_the_json_of_the_papers_data_is_encoded_as_printed():
    path = sample("kv-retrieval-75_keys.first-100.jsonl.gz")
    with gzip.open(path, "rt") as file:
        rows = [json.loads(line) for line in file]
    encode, made = Bytes().encode, JsonRecords(Bytes())
    for row in rows[:10]:
        records = [tuple(pair) for pair in row["ordered_kv_records"]]
        keys, values = (np.stack([encode(pair[i]) for pair in records]).astype(np.int64) for i in (0, 1))
        block = made.ids(keys, values)
        assert Bytes().decode(block) == printed(records)
        assert len(block) == made.num_tokens(75, 72)
        assert all(UUID.fullmatch(one) for pair in records for one in pair)  # version 4, as drawn here
    assert {len(row["ordered_kv_records"]) for row in rows} == {75}


def test_metrics_by_record():
    corpus = prose()
    task = KeyValueUuid(1, 3, [5])
    (prompt,) = prompts(task, task.fixed_lengths(corpus)[0], corpus)
    measures = list(task.process_results(prompt, confident_scores(prompt, wrong=(1,))))
    matches = [one for one in measures if one.metric == "exact_match"]
    assert [(one.position, one.depth, one.value_sum) for one in matches] == [
        (0, 0.0, 1.0),
        (2, 0.5, 0.0),
        (4, 1.0, 1.0),
    ]
    logprob = [one.value_sum for one in measures if one.metric == "logprob"]
    assert logprob == pytest.approx([-3.6, -5 * 36, -3.6])  # sums over the 36 bytes of a UUID
    sums = {one.metric: (one.value_sum, one.n) for one in measures if one.n == 3}
    assert sums["random_in_context"] == (3 / 5, 3)
    assert sums["chance"] == (3 * 2.0**-122, 3)
    assert not [one for one in measures if "rank" in one.metric]


@pytest.mark.parametrize("query_aware", [False, True])
def test_the_rank_is_among_all_values_of_the_context(query_aware):
    corpus = prose()
    task = KeyValueUuid(1, 2, [6], query_aware, rank_all_values=True)
    made = prompts(task, task.fixed_lengths(corpus)[0], corpus)
    values = made[0].doc["values"]
    found = []
    for prompt in made:
        records = prompt.doc["records"]
        assert len(prompt.continuations) == 6 * len(records)
        texts = [corpus.text(ids[-prompt.n_scored :]) for ids in prompt.continuations]
        assert texts == values * len(records)
        # Values of later records are more likely.
        logprob = (
            np.tile(np.arange(6.0) - 10, len(records))[:, None]
            * np.ones((1, prompt.n_scored))
            / prompt.n_scored
        )
        greedy = prompt.continuations[:, -prompt.n_scored :]
        found += list(task.process_results(prompt, Scores(logprob, greedy)))
    assert [(m.position, m.value_sum) for m in found if m.metric == "rank"] == [(0, 6.0), (5, 1.0)]
    assert [m.value_sum for m in found if m.metric == "logprob"] == pytest.approx([-10.0, -5.0])
    assert [m.value_sum for m in found if m.metric == "exact_match"] == [1.0, 1.0]


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_a_generated_answer_matches_if_it_contains_the_value(kind):
    corpus = prose(kind)
    task = KeyValueUuid(1, 3, [4], generate=True)
    assert (task.output_type, task.metric) == ("generate", "substring_match")
    (prompt,) = prompts(task, task.fixed_lengths(corpus)[0], corpus)
    values, records = prompt.doc["values"], prompt.doc["records"]
    assert prompt.n_scored == 0
    assert prompt.max_new_tokens > len(corpus.tokenizer.encode(f' "{values[0]}'))
    answers = [f' "{values[records[0]].upper()}', f' "{values[records[0]]}"', " I do not know"]
    measures = list(task.process_results(prompt, generated_text(prompt, corpus, lambda row: answers[row])))
    assert [m.value_sum for m in measures if m.metric == "substring_match"] == [1.0, 0.0, 0.0]
    assert [m.value_sum for m in measures if m.metric == "predicted_in_context"] == [2.0]


class Folding(Bytes):
    """Changes the case of a letter when decoding."""

    name = "folding"

    def decode(self, ids):
        return super().decode(ids).replace("a", "A")


class Ragged(Bytes):
    """Token counts vary: the bytes of a text and a number of padding ids that depends on it."""

    name = "ragged"

    def encode_all(self, texts):
        return [np.concatenate([self.encode(one), np.zeros(int(one[:3], 16), np.uint8)]) for one in texts]

    def decode(self, ids):
        return super().decode(ids[:36])


def test_a_lossy_tokenizer_is_an_error():
    corpus = Prose(Folding())
    with pytest.raises(DataError, match=r"UUIDs are not exact under tokenizer 'folding'.*comes back as"):
        prompts(KeyValueUuid(1, 2), 700, corpus)


def test_a_tokenizer_without_a_common_token_count_is_an_error():
    with pytest.raises(DataError, match=r"no common number of tokens under tokenizer 'ragged'"):
        FixedTokenCount(Ragged(), random_uuid, "UUIDs")


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_the_error_for_a_short_length_names_the_shortest_possible(kind):
    corpus, task = prose(kind), KeyValueUuid(1, 2)
    with pytest.raises(LengthError) as caught:
        prompts(task, 60, corpus)
    least = int(re.search(r"choose a length of (\d+) or more", str(caught.value))[1])
    assert prompts(task, least, corpus)[0].length == least
    with pytest.raises(LengthError, match=f"take {least} under tokenizer"):
        prompts(task, least - 1, corpus)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_contexts": 0, "num_positions": 1}, "num_contexts=0: give at least 1"),
        ({"num_contexts": 1, "num_positions": 1, "num_keys": [1]}, "at least 2 records"),
        (
            {"num_contexts": 1, "num_positions": 1, "rank_all_values": True, "generate": True},
            "set one of them",
        ),
    ],
)
def test_invalid_settings(settings, message):
    with pytest.raises(ConfigError, match=message):
        KeyValueUuid(**settings)
