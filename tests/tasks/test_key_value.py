"""Key-value retrieval on synthetic records: ranks against a sort, query-aware prompts against plain ones."""

from contextlib import nullcontext

import numpy as np
import pytest
from prose import prose, whole

from posbench.data.vocabulary import Vocabulary
from posbench.errors import LengthError
from posbench.kernels.dispatcher import Recording
from posbench.lm.interface import Prompt, Scores
from posbench.lm.native import CheckpointSubject
from posbench.model.gpt import GPT, Size, build_scheme
from posbench.tasks.key_value import KeyValue
from posbench.tasks.prompting import places, rank_of

LENGTH = 64


def prompts(query_aware: bool = False, contexts: int = 2, length: int = LENGTH) -> list[Prompt]:
    return list(KeyValue(contexts, query_aware).prompts(length, prose(), LENGTH, 0))


def test_the_rank_is_the_place_in_a_sorted_list():
    rng = np.random.default_rng(0)
    for _ in range(20):
        logprob = rng.normal(size=9)
        gold = int(rng.integers(9))
        place = 1 + list(np.argsort(-logprob)).index(gold)
        assert rank_of(logprob, np.arange(9) == gold) == place
    assert rank_of(np.array([-1.0, -1.0, -2.0]), np.array([True, False, False])) == 1.5


def test_places_are_those_of_the_paper():
    assert places(140, 5).tolist() == [0, 34, 69, 104, 139]
    assert places(75, 4).tolist() == [0, 24, 49, 74]
    assert places(300, 7).tolist() == [0, 49, 99, 149, 199, 249, 299]
    assert places(20, 5).tolist() == [0, 4, 9, 14, 19]
    assert places(30, 7).tolist() == [0, 4, 9, 14, 19, 24, 29]
    assert places(3, 5).tolist() == [0, 1, 2]
    assert places(1, 5).tolist() == [0]


def test_the_gold_value_is_ranked_among_the_distinct_values_of_its_context():
    (prompt, *_) = prompts()
    values = prompt.facts["values"]
    assert prompt.candidates.tolist() == sorted(set(values.tolist()))
    count = len(prompt.candidates)
    # By id, the highest first: the rank of a value is how many distinct ones are above it, and one.
    candidates = np.broadcast_to(np.arange(count, dtype=float), (len(values), count))
    scores = Scores(np.zeros((len(values), 1)), values[:, None], candidates)
    found = [one for one in KeyValue(1).measure(prompt, scores) if one.metric == "rank"]
    expected = [1 + sum(other > value for other in set(values.tolist())) for value in values]
    assert [one.value for one in found] == expected
    reciprocal = [one for one in KeyValue(1).measure(prompt, scores) if one.metric == "reciprocal_rank"]
    assert [one.value for one in reciprocal] == [1 / rank for rank in expected]
    assert [one.depth for one in found] == [i / (len(values) - 1) for i in range(len(values))]


def test_query_aware_puts_the_key_before_the_same_records():
    assert KeyValue(1, True).variant == "query_aware"
    assert KeyValue(1).variant == ""
    plain, aware = prompts()[0], prompts(query_aware=True)
    count = len(plain.suffixes)
    assert len(aware) == 2 * count
    for record, prompt in enumerate(aware[:count]):
        assert prompt.length == plain.length == LENGTH
        assert prompt.suffixes.tolist() == [plain.suffixes[record].tolist()]
        before = len(plain.context) - 3 * count - 1
        key = plain.suffixes[record, 0]
        assert prompt.context[before] == key
        assert np.delete(prompt.context, before).tolist() == np.delete(plain.context, before).tolist()
        assert plain.context[before] < prose().tokenizer.size  # what gives way is text


def test_query_aware_measures_sum_to_those_of_the_context():
    task = KeyValue(1)
    plain, aware = prompts(contexts=1)[0], prompts(query_aware=True, contexts=1)
    values = plain.facts["values"]
    top = values.copy()
    top[[0, 3]] = 5
    top[1] = values[values != values[1]][0]
    candidates = np.random.default_rng(0).normal(size=(len(values), len(plain.candidates)))
    together = list(task.measure(plain, Scores(-np.ones((len(values), 1)), top[:, None], candidates)))
    apart = [
        one
        for row, prompt in enumerate(aware)
        for one in task.measure(prompt, Scores(-np.ones((1, 1)), top[row, None, None], candidates[row][None]))
    ]
    for metric in (
        "exact_match",
        "logprob",
        "rank",
        "reciprocal_rank",
        "in_context",
        "chance",
        "context_guess",
    ):
        sums = [
            (
                sum(one.value for one in each if one.metric == metric),
                sum(one.n for one in each if one.metric == metric),
            )
            for each in (together, apart)
        ]
        assert sums[0] == pytest.approx(sums[1])
        assert sums[0][1] == len(values)
    places_of = [[one.position for one in each if one.metric == "rank"] for each in (together, apart)]
    assert places_of[0] == places_of[1]


def test_a_length_without_room_for_the_key_before_is_named():
    assert prompts(length=8)
    with pytest.raises(LengthError, match=r"query-aware, at 8 tokens.*choose 9 or more"):
        prompts(query_aware=True, length=8)
    assert prompts(query_aware=True, length=9)[0].length == 9


def test_a_pretrained_models_symbols_are_ordinary_tokens(monkeypatch):
    corpus = prose()
    own = Vocabulary("theirs", 4000, 88, 16, own_bos=2000)
    monkeypatch.setattr(type(corpus), "vocabulary", own)
    prompt = next(KeyValue(1).prompts(LENGTH, corpus, LENGTH, 0))
    records = prompt.context[-3 * len(prompt.suffixes) :].reshape(-1, 3)
    assert np.isin(records[:, [0, 2]], own.key_ids).all()
    assert np.isin(records[:, 1], own.value_ids).all()
    assert prompt.context[0] == 2000
    assert prompt.context.max() < own.size == 4000


@pytest.fixture(scope="module")
def subject() -> CheckpointSubject:
    scheme = {"_target_": "posbench.schemes.rope.RoPE"}
    size = Size(2, 32, 2, 2)
    model = GPT(size, prose().vocabulary.size, build_scheme(scheme, size.shape(LENGTH), 0), 0)
    return CheckpointSubject(model, model.scheme, LENGTH, Recording("auto"), nullcontext(), 700)


@pytest.mark.parametrize("query_aware", [False, True])
def test_a_checkpoint_scores_candidates_as_it_scores_answers(subject, query_aware):
    """Each candidate as the answer of a prompt of its own has the log-probability that it has as a candidate."""
    asked = prompts(query_aware)
    for prompt, scores in zip(asked, subject.score(asked), strict=True):
        assert scores.candidates.shape == (len(prompt.suffixes), len(prompt.candidates))
        for row in range(0, len(prompt.suffixes), 7):
            for place, candidate in enumerate(prompt.candidates[::5]):
                ids = whole(prompt, row)[None].copy()
                ids[:, -1] = candidate
                (alone,) = subject.score([Prompt(ids[0, :-1], ids[:, -1:], 1)])
                assert alone.candidates is None
                assert scores.candidates[row, 5 * place] == pytest.approx(alone.logprob[0, 0], abs=1e-5)
