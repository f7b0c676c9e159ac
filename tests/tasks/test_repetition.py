"""Repetition: both variants share their first period, and the tokens after it are scored separately."""

import numpy as np
import pytest
from test_tasks import Text

from posbench.data.batches import Batches
from posbench.data.shard import Shard
from posbench.data.synthetic import check_synthetic_task
from posbench.data.vocabulary import Vocabulary
from posbench.errors import ConfigError, LengthError
from posbench.lm.interface import Scores
from posbench.tasks.repetition import Repetition

TRAIN_LEN, MAX_CONTEXT = 16, 64


def prompts(variant, length, period=None):
    return list(Repetition(variant, MAX_CONTEXT, 100, period).prompts(length, Text(), TRAIN_LEN, 0))


@pytest.mark.parametrize("length", [16, 24, 64])
@pytest.mark.parametrize(("given", "period"), [(None, 8), (5, 5)])
def test_repeated_text_is_the_first_period_of_natural_text(length, given, period):
    pairs = list(zip(prompts("natural", length, given), prompts("repeated", length, given), strict=True))
    assert len(pairs) == 5
    for natural, repeated in pairs:
        assert natural.length == repeated.length == length
        assert natural.doc["doc_id"] == repeated.doc["doc_id"]
        (text,), (tiled,) = natural.continuations, repeated.continuations
        assert np.array_equal(natural.context, repeated.context)
        assert np.array_equal(text, natural.context[0] + 1 + np.arange(length))  # consecutive tokens
        for i in range(length):
            assert tiled[i] == text[i % period]


def test_metrics_after_the_first_period_are_separate():
    task = Repetition("repeated", MAX_CONTEXT, 1)
    (prompt,) = task.prompts(20, Text(), TRAIN_LEN, 0)
    greedy = prompt.continuations.copy()
    greedy[0, [0, 3, 8, 19]] += 1  # two wrong in the first period of 8, two after it
    found = {one.metric: one for one in task.process_results(prompt, Scores(-np.arange(20.0)[None], greedy))}
    assert (found["token_accuracy"].value_sum, found["token_accuracy"].n) == (10, 12)
    assert (found["first_period_token_accuracy"].value_sum, found["first_period_token_accuracy"].n) == (6, 8)
    assert found["first_period_nll"].value_sum == sum(range(8))
    assert found["nll"].value_sum == sum(range(8, 20))


def test_a_given_period_is_part_of_the_variant():
    assert Repetition("natural", 8, 1).variant == "natural"
    assert Repetition("repeated", 8, 1, 4).variant == "repeated_every_4"


def test_invalid_lengths_and_settings():
    with pytest.raises(LengthError, match="nothing follows the first 8"):
        prompts("repeated", 8)
    with pytest.raises(ConfigError, match="natural or repeated"):
        Repetition("both", 8, 1)
    with pytest.raises(ConfigError, match="at least 1"):
        Repetition("repeated", 8, 1, 0)


def test_training_text_repeats_within_the_training_length():
    shard = Shard("train", np.arange(500) % 251, np.array([0, 500]), ["text"])
    made = Batches(shard, Vocabulary("bytes", 256), 64, 40, 0.5, 0.25, 0, "repeated").get_batch(1)
    assert made.loss_mask.all()
    found = []
    for ids in made.ids[:20]:
        found.append(next(p for p in range(1, 64) if (ids[1 + p :] == ids[1:-p]).all()))
        assert np.array_equal(np.diff(ids[: found[-1] + 1]) % 251, np.ones(found[-1]))
    assert max(found) == 32
    assert 4 <= min(found) < 16
    with pytest.raises(LengthError, match="8 or more"):
        check_synthetic_task("repeated", 7, 88, 16, 0.0)
