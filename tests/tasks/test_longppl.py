"""LongPPL: equal targets in all contexts, and key tokens by the paper's two thresholds."""

import numpy as np
import pytest
from test_tasks import Text

from posbench.errors import ConfigError, LengthError
from posbench.lm.interface import Scores
from posbench.tasks.longppl import LongPPL

TRAIN_LEN, MAX_CONTEXT = 16, 64


@pytest.mark.parametrize("length", [16, 64])
def test_all_contexts_have_the_same_targets(length):
    prompts = list(LongPPL(MAX_CONTEXT, 100).prompts(length, Text(), TRAIN_LEN, 0))
    assert len(prompts) == 3 * 5
    for long, trained, short in zip(prompts[:5], prompts[5:10], prompts[10:], strict=True):
        assert (long.length, trained.length) == (length, TRAIN_LEN)
        assert len(short.context) == TRAIN_LEN // 4
        assert long.continuations.shape == (1, TRAIN_LEN // 4)
        for other in (trained, short):
            assert np.array_equal(long.continuations, other.continuations)
            assert np.array_equal(long.context[-len(other.context) :], other.context)
            assert long.doc["doc_id"] == other.doc["doc_id"]


def test_every_target_has_the_short_context():
    """Fault: the first target had one token of short context, the others those between, at most a quarter in all."""
    for given, expected in ((None, TRAIN_LEN // 4), (7, 7)):
        prompts = list(LongPPL(MAX_CONTEXT, 1, given).prompts(16, Text(), TRAIN_LEN, 0))
        assert len(prompts[-1].context) == expected


def test_key_tokens_are_those_of_the_extension_at_the_training_length():
    """Fault: with a factor that follows the length, every length of a curve had key tokens of its own."""
    prompts = list(LongPPL(MAX_CONTEXT, 100).prompts(64, Text(), TRAIN_LEN, 0))
    assert [one.extension_length for one in prompts] == [None] * 5 + [TRAIN_LEN] * 10


def test_key_tokens_gain_from_context_and_are_likely_at_the_training_length():
    task = LongPPL(MAX_CONTEXT, 1)
    prompts = list(task.prompts(32, Text(), TRAIN_LEN, 0))
    # Gain 2.5 and loss 0.5: a key token. Not: gain 1.5; gain 3 with loss 2.5; negative gain.
    trained = np.array([[-0.5, -0.5, -2.5, -1.0]])
    short = np.array([[-3.0, -2.0, -5.5, -0.5]])
    long = np.array([[-7.0, -1.0, -1.0, -1.0]])  # the key token's loss rises to 7 nats
    answered = zip(prompts, [Scores(one, one) for one in (long, trained, short)], strict=True)
    found = {one.metric: (one.value_sum, one.n) for one in task.process_all_results(answered)}
    assert found["key_token_fraction"] == (1, 4)
    assert found["key_token_nll"] == (7.0, 1)
    assert found["nll"] == (10.0, 4)
    assert found["bytes"] == (8, 4)


def test_without_key_tokens_their_loss_is_missing():
    task = LongPPL(MAX_CONTEXT, 1)
    same = Scores(np.full((1, 4), -1.0), np.zeros((1, 4)))
    prompts = list(task.prompts(32, Text(), TRAIN_LEN, 0))
    found = {
        one.metric: one.value_sum for one in task.process_all_results(zip(prompts, [same] * 3, strict=True))
    }
    assert found["key_token_fraction"] == 0
    assert "key_token_nll" not in found


def test_invalid_lengths_and_settings():
    with pytest.raises(LengthError, match=r"16 \(the training length\) or more"):
        next(LongPPL(MAX_CONTEXT, 1).prompts(8, Text(), TRAIN_LEN, 0))
    with pytest.raises(LengthError, match=r"short_context_len from 1 to 8 \(half of it\)"):
        next(LongPPL(MAX_CONTEXT, 1, 9).prompts(16, Text(), TRAIN_LEN, 0))
    with pytest.raises(ConfigError, match="max_loss above 0"):
        LongPPL(MAX_CONTEXT, 1, max_loss=0.0)
