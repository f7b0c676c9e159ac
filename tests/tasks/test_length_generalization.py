"""Rules of arXiv:2410.02140 by loops over their definition, and ranges of lengths."""

import collections

import numpy as np
import pytest
from test_tasks import Text

from posbench.config.train import SYNTHETIC_TASKS, WITH_TWO_FORMS
from posbench.data import algorithmic, synthetic
from posbench.data.batches import Batches
from posbench.data.shard import Shard
from posbench.data.vocabulary import Vocabulary
from posbench.errors import ConfigError, LengthError
from posbench.lm.interface import Scores
from posbench.tasks.length_generalization import LengthGeneralization

VOCABULARY = Vocabulary("bytes", 256, num_keys=150, num_values=2)
SEPARATOR, END = VOCABULARY.value_ids
RANGES = [[0, 5], [6, 10]]


class Numbers(Text):
    vocabulary = VOCABULARY


def expected(rule: str, symbols: list[int]) -> list[int]:
    """The answer, from the definition of the rule."""
    counts = collections.Counter(symbols).most_common()
    if rule == "parity":
        return [3 if sum(symbols) % 2 else 2]
    if "majority" in rule:
        assert len(counts) == 1 or counts[0][1] > counts[1][1], "a draw has no answer"
        return [counts[0][0]]
    return {"sort": sorted(symbols), "reverse": symbols[::-1]}.get(rule, symbols)


@pytest.mark.parametrize("rule", algorithmic.RULES)
def test_answers_follow_from_the_symbols(rule):
    rng = np.random.default_rng(0)
    for count in [algorithmic.min_symbols(rule), 1, 2, 7, 50, 149, 150]:
        ids = algorithmic.example(rng, VOCABULARY, rule, count)
        assert ids[0] == VOCABULARY.bos
        assert (ids[count + 1], ids[-1]) == (SEPARATOR, END)
        symbols, answer = (
            (part - VOCABULARY.key_ids[0]).tolist() for part in (ids[1 : count + 1], ids[count + 2 : -1])
        )
        assert answer == expected(rule, symbols)
        if rule in ("sort", "unique_copy"):
            assert len(set(symbols)) == count
        limit = {"repeated_copy": 2, "binary_majority": 2, "parity": 2, "majority": 26}.get(rule, 150)
        assert max(symbols, default=0) < limit


@pytest.mark.parametrize(
    ("rule", "values"), [("binary_majority", {0, 1, 2, 4, 5, 6}), ("parity", set(range(7)))]
)
def test_the_number_of_bits_is_uniform(rule, values):
    """Independent bits would make long sequences all alike, with about as many ones as zeros."""
    rng = np.random.default_rng(1)
    ones = [int(algorithmic.RULES[rule](rng, 6, 150)[0].sum()) for _ in range(3000)]
    shares = {value: ones.count(value) / 3000 for value in set(ones)}
    assert set(shares) == values
    assert all(abs(share - 1 / len(values)) < 0.03 for share in shares.values())


@pytest.mark.parametrize("rule", ["unique_copy", "parity"])
def test_training_draws_the_number_of_symbols_uniformly(rule):
    shard = Shard("train", np.arange(500) % 200, np.array([0, 500]), ["text"])
    batch = Batches(shard, VOCABULARY, 12, 2000, 1.0, 0.0, 0, rule).get_batch(0)
    counts = (batch.ids == SEPARATOR).argmax(1) - 1
    least = algorithmic.min_symbols(rule)
    assert set(counts) == set(range(least, 6))
    assert np.bincount(counts, minlength=6)[least:].min() > 2000 / 6 * 0.8
    answer = counts if rule == "unique_copy" else 1
    assert (batch.loss_mask.sum(1) == answer + 1).all()


@pytest.mark.parametrize("rule", ["unique_copy", "majority", "parity"])
def test_prompts_of_a_range_are_uniform_in_it_and_in_order(rule):
    task = LengthGeneralization(rule, 300, RANGES)
    assert task.fixed_lengths(Numbers()) == [12, 22]
    for length, (least, most) in zip([12, 22], RANGES, strict=True):
        prompts = list(task.prompts(length, Numbers(), 12, 0))
        counts = [len(prompt.context) - 2 for prompt in prompts]
        assert counts == sorted(counts)
        assert set(counts) == set(range(max(least, algorithmic.min_symbols(rule)), most + 1))
        assert all(prompt.length <= length for prompt in prompts)
        assert max(prompt.length for prompt in prompts) == (length if rule == "unique_copy" else most + 3)
        again = list(task.prompts(length, Numbers(), 12, 0))
        assert all(np.array_equal(a.context, b.context) for a, b in zip(prompts, again, strict=True))


def test_a_score_needs_the_whole_answer_and_its_end():
    task = LengthGeneralization("majority", 2, RANGES)
    prompt = next(task.prompts(22, Numbers(), 12, 0))
    for wrong, score in (([], 1.0), ([0], 0.0), ([1], 0.0)):
        greedy = prompt.continuations.copy()
        greedy[0, wrong] += 1
        metrics = {one.metric: one for one in task.process_results(prompt, Scores(np.zeros((1, 2)), greedy))}
        assert metrics["exact_match"].value_sum == score
        assert metrics["symbol_accuracy"].n == 1


@pytest.mark.parametrize(
    ("ranges", "message"),
    [
        ([], "give one or more"),
        ([[5, 1]], "smallest and the largest"),
        ([[1, 2, 3]], "smallest and the largest"),
        ([[0, 0]], "smallest and the largest"),
        ([[1, 5], [3, 5]], "different numbers"),
    ],
)
def test_bad_ranges(ranges, message):
    with pytest.raises(ConfigError, match=message):
        LengthGeneralization("sort", 1, ranges)


def test_other_lengths_and_too_few_numbers():
    task = LengthGeneralization("sort", 1, [[1, 100]])
    with pytest.raises(LengthError, match="its ranges take 202"):
        next(task.prompts(102, Numbers(), 12, 0))
    with pytest.raises(LengthError, match=r"data\.num_keys is 88: raise it to"):
        next(LengthGeneralization("sort", 1, [[99, 100]]).prompts(202, Text(), 12, 0))
    with pytest.raises(LengthError, match=r"unique_copy of 100 symbols needs 100 different ones"):
        synthetic.check_synthetic_task("unique_copy", 202, 88, 16, 0.0)
    with pytest.raises(LengthError, match="parity of 1 symbols needs 4"):
        synthetic.check_synthetic_task("parity", 4, 2, 16, 0.0)


@pytest.mark.parametrize("kind", SYNTHETIC_TASKS)
def test_every_kind_of_synthetic_sequence_has_its_length(kind):
    shard = Shard("train", np.arange(900) % 200, np.array([0, 900]), ["text"])
    vocabulary = Vocabulary("bytes", 256, 150, 20)
    synthetic.check_synthetic_task(kind, 64, 150, 20, 0.1)
    batch = Batches(shard, vocabulary, 64, 8, 0.5, 0.1, 0, kind).get_batch(0)
    assert batch.ids.shape == (8, 65)
    assert batch.targets.shape == batch.loss_mask.shape == (8, 64)
    assert batch.loss_mask.any(1).all()
    assert batch.ids.min() >= 0
    assert max(batch.ids.max(), batch.targets.max()) < vocabulary.vocab_size
    text = slice(4, 8)
    assert np.array_equal(batch.targets[text], batch.ids[text, 1:])
    assert np.array_equal(batch.rows(text).targets, batch.targets[text])


@pytest.mark.parametrize("kind", SYNTHETIC_TASKS)
def test_query_fraction_changes_kinds_with_two_forms_alone(kind):
    """Fault: train.query_fraction=0.5 beside mqar was accepted, and trained another model id on the same sequences."""
    shard = Shard("train", np.arange(900) % 200, np.array([0, 900]), ["text"])
    vocabulary = Vocabulary("bytes", 256, 150, 20)
    first, second = (Batches(shard, vocabulary, 64, 8, 1.0, share, 0, kind).get_batch(0) for share in (0, 1))
    assert np.array_equal(first.ids, second.ids) == (kind not in WITH_TWO_FORMS)
