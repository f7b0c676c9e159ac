"""Batches and synthetic records: pure functions of seed and step, and their loss mask."""

import numpy as np
import pytest

from posbench.data.associative_recall import (
    QUESTION_KINDS,
    make_context,
    num_records,
    num_records_with_questions,
    question_sequence,
    questions,
    training_sequence,
)
from posbench.data.batches import Batches
from posbench.data.shard import Shard
from posbench.data.vocabulary import Vocabulary
from posbench.errors import LengthError

VOCABULARY = Vocabulary("bytes", 256)
TEXT = np.arange(5000) % 200
SHARD = Shard("train", TEXT.astype(np.uint16), np.array([0, 5000]), ["text"])


def batches(seed: int = 0, synthetic_fraction: float = 0.5, length: int = 64) -> Batches:
    return Batches(SHARD, VOCABULARY, length, 16, synthetic_fraction, 0.25, seed)


def test_a_batch_depends_on_seed_and_step_alone():
    first = batches().get_batch(7)
    batches().get_batch(3)
    again = batches().get_batch(7)
    assert np.array_equal(first.ids, again.ids)
    assert np.array_equal(first.loss_mask, again.loss_mask)
    assert not np.array_equal(first.ids, batches().get_batch(8).ids)
    assert not np.array_equal(first.ids, batches(seed=1).get_batch(7).ids)


def test_the_fraction_of_records():
    ids = batches(synthetic_fraction=0.25).get_batch(0).ids
    assert ids.shape == (16, 65)
    assert (ids >= VOCABULARY.bos).any(1).sum() == 4
    assert (batches(synthetic_fraction=0.0).get_batch(0).ids < 200).all()
    assert batches(synthetic_fraction=0.0).get_batch(0).loss_mask.all()


def test_text_is_a_window_of_the_shard():
    for row in batches(synthetic_fraction=0.0).get_batch(0).ids:
        assert np.array_equal(row, (row[0] + np.arange(65)) % 200)


@pytest.mark.parametrize("query_fraction", [0.0, 1.0])
@pytest.mark.parametrize("length", [8, 64, 100])
def test_the_loss_is_on_predictable_targets(query_fraction, length):
    keys, values = set(VOCABULARY.key_ids), set(VOCABULARY.value_ids)
    for seed in range(20):
        rng = np.random.default_rng(seed)
        ids, loss_mask = training_sequence(rng, VOCABULARY, TEXT, length, query_fraction)
        assert ids.shape == loss_mask.shape == (length + 1,)
        known: dict[int, int] = {}
        for position in range(1, length + 1):
            if ids[position] in values:
                key = int(ids[position - 1])
                assert key in keys
                assert known.get(key, ids[position]) == ids[position]  # one value a key
                assert loss_mask[position] == (key in known)
                known[key] = int(ids[position])
            elif loss_mask[position]:  # an echo of the key two positions before
                assert ids[position] == ids[position - 2]
                assert ids[position - 1] in values
        assert loss_mask.any()


@pytest.mark.parametrize("length", [8, 64, 128, 256, 309])
def test_a_context_has_exactly_its_length(length):
    context = make_context(np.random.default_rng(0), VOCABULARY, TEXT, length)
    suffixes = questions(context)
    assert len(context.ids) + suffixes.shape[1] - 1 == length
    assert len(set(context.key_ids)) == len(context.key_ids) == num_records(length, 88)
    assert np.array_equal(context.ids[context.offsets], context.key_ids)
    assert np.array_equal(context.ids[context.offsets + 1], context.value_ids)
    assert np.array_equal(context.ids[context.offsets + 2], context.key_ids)
    assert np.array_equal(suffixes, np.stack([context.key_ids, context.value_ids], 1))
    assert context.ids[0] == VOCABULARY.bos


@pytest.mark.parametrize("length", [7, 312, 4096])
def test_lengths_that_records_do_not_allow(length):
    with pytest.raises(LengthError, match=r"8 to 311.*data\.num_keys"):
        num_records(length, 88)
    assert num_records(311, 88) == 88


@pytest.mark.parametrize("kind", QUESTION_KINDS)
@pytest.mark.parametrize("length", [16, 64, 99])
def test_questions_are_about_distinct_records(kind: str, length: int) -> None:
    """The loss covers echoes and answers. At the ends means the first and the last quarter of the records only."""
    count = num_records_with_questions(length, VOCABULARY.num_keys)
    quarter = count // 4
    for seed in range(20):
        ids, loss_mask = question_sequence(np.random.default_rng(seed), VOCABULARY, kind, TEXT, length)
        assert ids.shape == loss_mask.shape == (length + 1,)
        asked = ids[-4 * quarter :].reshape(-1, 2)
        records = ids[-4 * quarter - 3 * count : -4 * quarter].reshape(-1, 3)
        assert len(set(records[:, 0])) == count
        assert np.array_equal(records[:, 0], records[:, 2])
        index = [records[:, 0].tolist().index(key) for key in asked[:, 0]]
        assert np.array_equal(records[index, 1], asked[:, 1])
        assert len(set(index)) == 2 * quarter
        if kind == "recall_questions_at_ends":
            assert set(index) == {*range(quarter), *range(count - quarter, count)}
        scored = np.zeros(length + 1, bool)
        scored[-4 * quarter :].reshape(-1, 2)[:, 1] = True
        scored[-4 * quarter - 3 * count : -4 * quarter].reshape(-1, 3)[:, 2] = True
        assert np.array_equal(loss_mask, scored)


def test_questions_about_any_record_cover_all_records() -> None:
    count, found = num_records_with_questions(64, 88), set()
    for seed in range(50):
        ids, _ = question_sequence(np.random.default_rng(seed), VOCABULARY, QUESTION_KINDS[0], TEXT, 64)
        keys = ids[-16 - 3 * count : -16 : 3].tolist()
        found |= {keys.index(key) for key in ids[-16::2]}
    assert found == set(range(count))


@pytest.mark.parametrize("length", [15, 356])
def test_lengths_that_records_with_questions_do_not_allow(length: int) -> None:
    with pytest.raises(LengthError, match=r"16 to 355.*data\.num_keys"):
        num_records_with_questions(length, 88)
