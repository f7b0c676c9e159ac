"""Key-value retrieval on synthetic records: ranks against sorting, query-aware prompts against plain ones."""

from contextlib import nullcontext

import numpy as np
import pytest
from prose import prose, whole

from posbench.data.vocabulary import Vocabulary
from posbench.errors import LengthError
from posbench.kernels.dispatcher import KernelDispatcher
from posbench.lm.interface import Prompt, Scores
from posbench.lm.native import NativeLM
from posbench.model.gpt import GPT, Size, build_scheme
from posbench.tasks.key_value import KeyValue
from posbench.tasks.prompting import evenly_spaced, gold_rank

LENGTH = 64


def prompts(query_aware: bool = False, num_contexts: int = 2, length: int = LENGTH) -> list[Prompt]:
    return list(KeyValue(num_contexts, query_aware).prompts(length, prose(), LENGTH, 0))


def test_the_rank_is_the_index_in_a_sorted_list():
    rng = np.random.default_rng(0)
    for _ in range(20):
        logprob = rng.normal(size=9)
        gold = int(rng.integers(9))
        rank = 1 + list(np.argsort(-logprob)).index(gold)
        assert gold_rank(logprob, np.arange(9) == gold) == rank
    assert gold_rank(np.array([-1.0, -1.0, -2.0]), np.array([True, False, False])) == 1.5


def test_evenly_spaced_positions_are_those_of_the_paper():
    assert evenly_spaced(140, 5).tolist() == [0, 34, 69, 104, 139]
    assert evenly_spaced(75, 4).tolist() == [0, 24, 49, 74]
    assert evenly_spaced(300, 7).tolist() == [0, 49, 99, 149, 199, 249, 299]
    assert evenly_spaced(20, 5).tolist() == [0, 4, 9, 14, 19]
    assert evenly_spaced(30, 7).tolist() == [0, 4, 9, 14, 19, 24, 29]
    assert evenly_spaced(3, 5).tolist() == [0, 1, 2]
    assert evenly_spaced(1, 5).tolist() == [0]


def test_the_gold_value_is_ranked_among_the_distinct_values_of_its_context():
    (prompt, *_) = prompts()
    values = prompt.doc["values"]
    assert prompt.candidate_ids.tolist() == sorted(set(values.tolist()))
    count = len(prompt.candidate_ids)
    # Log-probability increases with the id, so the rank of a value is 1 plus the number of larger distinct values.
    candidates = np.broadcast_to(np.arange(count, dtype=float), (len(values), count))
    scores = Scores(np.zeros((len(values), 1)), values[:, None], candidates)
    found = [one for one in KeyValue(1).process_results(prompt, scores) if one.metric == "rank"]
    expected = [1 + sum(other > value for other in set(values.tolist())) for value in values]
    assert [one.value_sum for one in found] == expected
    reciprocal = [
        one for one in KeyValue(1).process_results(prompt, scores) if one.metric == "reciprocal_rank"
    ]
    assert [one.value_sum for one in reciprocal] == [1 / rank for rank in expected]
    assert [one.depth for one in found] == [i / (len(values) - 1) for i in range(len(values))]


def test_query_aware_puts_the_key_before_the_same_records():
    assert KeyValue(1, True).variant == "query_aware"
    assert KeyValue(1).variant == ""
    plain, aware = prompts()[0], prompts(query_aware=True)
    count = len(plain.continuations)
    assert len(aware) == 2 * count
    for record, prompt in enumerate(aware[:count]):
        assert prompt.length == plain.length == LENGTH
        assert prompt.continuations.tolist() == [plain.continuations[record].tolist()]
        before = len(plain.context) - 3 * count - 1
        key = plain.continuations[record, 0]
        assert prompt.context[before] == key
        assert np.delete(prompt.context, before).tolist() == np.delete(plain.context, before).tolist()
        assert plain.context[before] < prose().tokenizer.vocab_size  # a token of text is replaced


def test_query_aware_metrics_sum_to_those_of_the_plain_context():
    task = KeyValue(1)
    plain, aware = prompts(num_contexts=1)[0], prompts(query_aware=True, num_contexts=1)
    values = plain.doc["values"]
    greedy = values.copy()
    greedy[[0, 3]] = 5
    greedy[1] = values[values != values[1]][0]
    candidates = np.random.default_rng(0).normal(size=(len(values), len(plain.candidate_ids)))
    together = list(
        task.process_results(plain, Scores(-np.ones((len(values), 1)), greedy[:, None], candidates))
    )
    apart = [
        one
        for row, prompt in enumerate(aware)
        for one in task.process_results(
            prompt, Scores(-np.ones((1, 1)), greedy[row, None, None], candidates[row][None])
        )
    ]
    for metric in (
        "exact_match",
        "logprob",
        "rank",
        "reciprocal_rank",
        "predicted_in_context",
        "chance",
        "random_in_context",
    ):
        sums = [
            (
                sum(one.value_sum for one in each if one.metric == metric),
                sum(one.n for one in each if one.metric == metric),
            )
            for each in (together, apart)
        ]
        assert sums[0] == pytest.approx(sums[1])
        assert sums[0][1] == len(values)
    positions = [[one.position for one in each if one.metric == "rank"] for each in (together, apart)]
    assert positions[0] == positions[1]


def test_a_length_without_room_for_the_key_is_an_error():
    """Fault: the error advised a length of 12 or more, but 14 tokens are not possible either."""
    for length in (8, 11, 14):
        assert prompts(length=length)
        with pytest.raises(LengthError, match=rf"query-aware, at {length} tokens.*choose 15 or more"):
            prompts(query_aware=True, length=length)
    for length in range(15, 60):
        assert prompts(query_aware=True, length=length)[0].length == length


def test_keys_and_values_of_a_pretrained_model_are_ordinary_tokens(monkeypatch):
    corpus = prose()
    own = Vocabulary("theirs", 4000, 88, 16, own_bos=2000)
    monkeypatch.setattr(type(corpus), "vocabulary", own)
    prompt = next(KeyValue(1).prompts(LENGTH, corpus, LENGTH, 0))
    records = prompt.context[-3 * len(prompt.continuations) :].reshape(-1, 3)
    assert np.isin(records[:, [0, 2]], own.key_ids).all()
    assert np.isin(records[:, 1], own.value_ids).all()
    assert prompt.context[0] == 2000
    assert prompt.context.max() < own.vocab_size == 4000


@pytest.fixture(scope="module")
def lm() -> NativeLM:
    scheme = {"_target_": "posbench.schemes.rope.RoPE"}
    size = Size(2, 32, 2, 2)
    model = GPT(size, prose().vocabulary.vocab_size, build_scheme(scheme, size.shape(LENGTH), 0), 0)
    return NativeLM(model, LENGTH, KernelDispatcher("auto"), nullcontext, 700)


@pytest.mark.parametrize("query_aware", [False, True])
def test_candidates_are_scored_like_answers(lm, query_aware):
    """A candidate has the log-probability that it has as the answer of a separate prompt."""
    requests = prompts(query_aware)
    for prompt, scores in zip(requests, lm.loglikelihood(requests), strict=True):
        assert scores.candidate_logprobs.shape == (len(prompt.continuations), len(prompt.candidate_ids))
        for row in range(0, len(prompt.continuations), 7):
            for i, candidate in enumerate(prompt.candidate_ids[::5]):
                ids = whole(prompt, row)[None].copy()
                ids[:, -1] = candidate
                (alone,) = lm.loglikelihood([Prompt(ids[0, :-1], ids[:, -1:], 1)])
                assert alone.candidate_logprobs is None
                assert scores.candidate_logprobs[row, 5 * i] == pytest.approx(alone.logprob[0, 0], abs=1e-5)
