"""Perplexity protocols and key-value retrieval: scored targets, lengths of prompts and metrics."""

from dataclasses import dataclass

import numpy as np
import pytest

from posbench.data.shard import Shard
from posbench.data.vocabulary import Vocabulary
from posbench.errors import LengthError
from posbench.lm.interface import Scores
from posbench.tasks.fixed_targets import FixedTargets
from posbench.tasks.key_value import KeyValue
from posbench.tasks.non_overlapping import NonOverlapping
from posbench.tasks.prefix import Prefix, bucket_ends
from posbench.tasks.sliding import Sliding

TRAIN_LEN, MAX_CONTEXT = 16, 64


@dataclass
class Text:
    """A corpus in which token t of document d has the id 1000 d + t."""

    name = "numbers"
    vocabulary = Vocabulary("numbers", 10_000)
    evaluated_split = "test"

    @property
    def evaluated(self) -> Shard:
        return self.split("test")

    def split(self, name: str) -> Shard:
        assert name == "test"
        lengths = [40, 65, 200, 70]
        tokens = np.concatenate([1000 * document + np.arange(n) for document, n in enumerate(lengths)])
        return Shard("test", tokens, np.cumsum([0, *lengths]), [f"d{i}" for i in range(4)])

    def byte_lengths(self, ids: np.ndarray) -> np.ndarray:
        return np.where(ids % 1000, 2, 0)


def scored(task, length):
    """(prompt, target ids) of all prompts."""
    return [
        (prompt, prompt.continuations[0, -prompt.n_scored :])
        for prompt in task.prompts(length, Text(), TRAIN_LEN, 0)
    ]


def targets(task, length):
    return sorted(int(one) for _, ids in scored(task, length) for one in ids)


@pytest.mark.parametrize("length", [16, 32, 64])
def test_fixed_targets_are_the_same_at_every_length(length):
    task = FixedTargets(MAX_CONTEXT, 100)
    assert targets(task, length) == targets(task, 64)
    for prompt, ids in scored(task, length):
        assert len(ids) == TRAIN_LEN // 4
        assert prompt.length == length
        read = np.concatenate([prompt.context, prompt.continuations[0]])
        assert np.array_equal(read, read[0] + np.arange(length + 1))  # consecutive tokens of one document
        assert (read[-1] % 1000) % 65 == 64  # up to the end of a segment
    assert len(scored(task, length)) == 1 + 3 + 1  # documents of 65, 200 and 70 tokens


@pytest.mark.parametrize("length", [16, 32, 64])
def test_non_overlapping_windows_score_every_target_once(length):
    task = NonOverlapping(MAX_CONTEXT, 100)
    found = targets(task, length)
    assert found == targets(task, 64)
    assert len(found) == len(set(found)) == 5 * 64
    assert all(prompt.length == length == prompt.n_scored for prompt, _ in scored(task, length))


@pytest.mark.parametrize("stride", [4, 16])
@pytest.mark.parametrize("length", [16, 24, 32])
def test_sliding_windows_score_every_target_once_with_their_context(length, stride):
    task = Sliding(MAX_CONTEXT, 100, stride)
    assert targets(task, length) == targets(NonOverlapping(MAX_CONTEXT, 100), 64)
    for prompt, ids in scored(task, length):
        assert prompt.length == length
        first = prompt.context[0] % 1000 % 65 == 0
        assert first or len(ids) <= stride
    assert task.variant == f"stride={stride}"


@pytest.mark.parametrize("length", [16, 24, 64])
def test_prefix_sums_by_bucket(length):
    task = Prefix(MAX_CONTEXT, 100)
    for prompt, ids in scored(task, length):
        assert prompt.context[0] % 1000 == 0
        assert len(ids) == length == prompt.length
        logprob = -np.arange(1.0, length + 1)[None]
        measures = list(task.process_results(prompt, Scores(logprob, ids[None])))
        nll = [one for one in measures if one.metric == "nll"]
        assert sum(one.n for one in nll) == length
        assert sum(one.value_sum for one in nll) == length * (length + 1) / 2
        assert [one.position for one in nll] == list(bucket_ends(length, TRAIN_LEN))
        # Fault: no test noticed one byte for each token, here of two.
        size = [(one.position, one.value_sum, one.n) for one in measures if one.metric == "bytes"]
        assert size == [(one.position, 2 * one.n, one.n) for one in nll]
        first = nll[0]
        assert first.value_sum == sum(range(1, first.n + 1))
    assert task.lengths_to_run([16, 32], True, TRAIN_LEN) == [32]
    assert task.lengths_to_run([16, 32], False, TRAIN_LEN) == [16, 32]
    # Fault: lengths that reports do not cut from the longest pass were left out in silence.
    assert task.lengths_to_run([8, 16, 40, 48, 64], True, 16) == [8, 40, 48, 64]


def test_buckets_end_at_doublings_of_the_training_length():
    for train_len in (4, 16, 64, 100, 512):
        ends = bucket_ends(16 * train_len, train_len)
        assert {train_len, 2 * train_len, 4 * train_len, 8 * train_len, 16 * train_len} <= set(ends)
        assert len(ends) < 60
        assert (np.diff(ends) > 0).all()


def test_nll_and_bytes_are_sums_over_targets():
    task = FixedTargets(MAX_CONTEXT, 1)
    ((prompt, ids),) = scored(task, 32)
    nll, size = task.process_results(prompt, Scores(np.full((1, 4), -0.5), ids[None]))
    assert (nll.metric, nll.value_sum, nll.n) == ("nll", 2.0, 4)
    assert (size.metric, size.value_sum, size.n) == ("bytes", 8.0, 4)


@pytest.mark.parametrize(
    ("task", "length", "message"),
    [
        (FixedTargets(64, 1), 3, "4 targets"),
        (FixedTargets(64, 1), 65, "max_context is 64"),
        (FixedTargets(500, 1), 500, "longest possible length is 199"),
        (NonOverlapping(64, 1), 24, "divisor"),
        (Sliding(64, 1, 32), 16, "stride up to 16"),
        # Fault: at the longest length a segment was one window, and the stride changed nothing.
        (Sliding(64, 1, 32), 64, "give max_context=128 or more"),
        (KeyValue(1), 7, "distinct keys"),
    ],
)
def test_impossible_lengths(task, length, message):
    with pytest.raises(LengthError, match=message):
        next(task.prompts(length, Text(), TRAIN_LEN, 0))


def test_key_value_metrics_of_known_predictions():
    task = KeyValue(3)
    prompts = list(task.prompts(64, Text(), TRAIN_LEN, 0))
    assert len(prompts) == 3
    prompt = prompts[1]
    gold = prompt.continuations[:, 1].copy()
    greedy = gold.copy()
    greedy[0] = 5  # a wrong id of text
    greedy[1] = gold[gold != gold[1]][0]  # a wrong value of the context
    logprob = np.linspace(-3, -0.1, 18)
    measures = list(task.process_results(prompt, Scores(logprob[:, None], greedy[:, None])))
    # Fault: no test noticed log-probabilities of the opposite sign.
    assert [one.value_sum for one in measures if one.metric == "logprob"] == logprob.tolist()
    matches = [one for one in measures if one.metric == "exact_match"]
    assert [one.value_sum for one in matches] == [0.0, 0.0] + [1.0] * 16
    assert [one.depth for one in matches] == [i / 17 for i in range(18)]
    sums = {one.metric: one.value_sum for one in measures if one.n == 18}
    assert sums["predicted_in_context"] == 17
    assert sums["chance"] == 18 / 16
    expected = sum(np.mean(gold == value) for value in gold)
    assert sums["random_in_context"] == pytest.approx(expected)
