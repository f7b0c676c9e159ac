"""MQAR: the layout of Zoology position by position, and pairs spread through text."""

import numpy as np
import pytest
from test_tasks import Text

from posbench.data import mqar, synthetic
from posbench.data.batches import Batches
from posbench.data.shard import Shard
from posbench.data.vocabulary import Vocabulary
from posbench.errors import ConfigError, LengthError
from posbench.lm.interface import Scores
from posbench.tasks.mqar import MQAR
from posbench.training.loss_module import collate

VOCABULARY = Vocabulary("bytes", 256, num_keys=4095, num_values=4096)


class Large(Text):
    vocabulary = VOCABULARY


def sequence(layout: str, length: int = 64, seed: int = 0) -> mqar.MqarSequence:
    count = mqar.num_pairs(length, 4095, 4096)
    text = np.arange(length) % 200
    return mqar.sequence(np.random.default_rng(seed), VOCABULARY, layout, length, count, text)


def test_zoologys_layout():
    """Four pairs first, then each key once at an even place, and the blank everywhere else."""
    made = sequence("mqar")
    ids = made.ids.tolist()
    keys, values = ids[0:8:2], ids[1:8:2]
    assert len(set(keys)) == len(set(values)) == 4
    assert set(keys) <= set(VOCABULARY.key_ids)
    assert set(values) <= set(VOCABULARY.value_ids)
    assert values == made.values.tolist()
    rest = {place: ids[place] for place in range(8, 64) if ids[place] != VOCABULARY.bos}
    assert sorted(rest.values()) == sorted(keys)
    assert all(place % 2 == 0 for place in rest)
    assert [ids[place] for place in made.queries] == keys
    assert made.queries.min() >= 8


def test_gaps_follow_the_power_law():
    """With one pair, the gap g has the probability g ** -0.99 over its sum."""
    drawn = []
    rng = np.random.default_rng(3)
    for _ in range(3000):
        made = mqar.sequence(rng, VOCABULARY, "mqar", 16, 1, np.zeros(16))
        drawn.append(int(made.queries[0] - 2) // 2 + 1)
    expected = np.arange(1, 8) ** -0.99
    expected /= expected.sum()
    np.testing.assert_allclose(np.bincount(drawn, minlength=8)[1:] / 3000, expected, atol=0.03)


@pytest.mark.parametrize("length", [16, 64, 256])
def test_spread_pairs_precede_their_queries_in_text(length):
    for seed in range(20):
        made = sequence("mqar_spread", length, seed)
        assert (made.queries > made.pairs).all()
        assert np.array_equal(made.ids[made.queries], made.ids[made.pairs])
        assert np.array_equal(made.ids[made.pairs + 1], made.values)
        used = np.concatenate([made.pairs, made.pairs + 1, made.queries])
        assert len(set(used)) == 3 * len(made.pairs)
        rest = np.setdiff1d(np.arange(length), used)
        assert np.array_equal(made.ids[rest], rest % 200)


@pytest.mark.parametrize("layout", mqar.LAYOUTS)
def test_values_are_targets_and_not_inputs(layout):
    """Targets were the ids shifted by one, so that a sequence had to contain its answers."""
    shard = Shard("train", np.arange(900) % 200, np.array([0, 900]), ["text"])
    batch = Batches(shard, VOCABULARY, 64, 6, 1.0, 0.0, 0, layout).get_batch(0)
    inputs, index, target = (tensor.numpy() for tensor in collate(batch))
    assert len(target) == 6 * 4
    for place, value in zip(index, target, strict=True):
        row, column = divmod(int(place), 64)
        (pair,) = (inputs[row, :column] == inputs[row, column]).nonzero()
        assert inputs[row, pair[0] + 1] == value
        assert value not in inputs[row, column:]


@pytest.mark.parametrize("layout", mqar.LAYOUTS)
@pytest.mark.parametrize("num_pairs", [None, 4])
def test_prompts_and_metrics(layout, num_pairs):
    task = MQAR(3, layout, num_pairs)
    prompts = list(task.prompts(128, Large(), 64, 0))
    assert len(prompts) == 3
    for prompt in prompts:
        assert prompt.length == prompt.n_scored == 128
        made = prompt.doc["sequence"]
        count = num_pairs or 8
        assert len(made.values) == count
        greedy = np.zeros((1, 128), np.int64)
        greedy[0, made.queries[1:]] = made.values[1:]
        measures = list(task.process_results(prompt, Scores(np.zeros((1, 128)), greedy)))
        assert [one.value_sum for one in measures if one.metric == "exact_match"] == [0.0] + [1.0] * (
            count - 1
        )
        depths = [one.depth for one in measures if one.metric == "exact_match"]
        # Fault: depth was the place in the sequence, so that all pairs lay in the first tenth.
        assert depths == pytest.approx(np.linspace(0, 1, count))
        of_sequence = {one.metric: (one.value_sum, one.n) for one in measures if one.metric != "exact_match"}
        # Fault: no test noticed a chance of one in the number of keys, 4095, or another sum for values of the sequence.
        assert of_sequence == {
            "predicted_in_context": (count - 1, count),
            "chance": (count / 4096, count),
            "random_in_context": (1, count),
        }


@pytest.mark.parametrize("layout", mqar.LAYOUTS)
def test_a_bos_goes_before_the_sequence(layout):
    """Fault: the bos of pretrained models overwrote the key of the first pair, whose query had no answer."""
    task = MQAR(3, layout)
    for prompt in task.prompts(64, Large(), 64, 0):
        opened = task.begin_with(prompt, 7)
        before, made = prompt.doc["sequence"], opened.doc["sequence"]
        assert opened.length == opened.n_scored == 64
        read = np.append(opened.context, opened.continuations[0])
        assert read[0] == 7
        assert np.array_equal(read[1:64], before.ids[:63])
        assert np.array_equal(read[made.pairs], before.ids[before.pairs])
        assert np.array_equal(read[made.queries], before.ids[before.queries])


def test_bad_settings_and_lengths():
    with pytest.raises(ConfigError, match="mqar, mqar_spread"):
        MQAR(1, "zoology")
    with pytest.raises(ConfigError, match="num_pairs=0"):
        MQAR(1, "mqar", 0)
    for length, pairs in ((63, 0), (14, 0), (64, 17)):
        with pytest.raises(LengthError, match="choose an even length of at least"):
            mqar.num_pairs(length, 4095, 4096, pairs)
    with pytest.raises(LengthError, match=r"data\.num_values 16 allow 16"):
        synthetic.check_synthetic_task("mqar", 512, 88, 16, 0.0)
