"""LongPPL: the same targets under two contexts, and the tokens that profit by the paper's two thresholds."""

import numpy as np
import pytest
from test_tasks import Text

from posbench.errors import ConfigError, LengthError
from posbench.lm.interface import Scores
from posbench.tasks.longppl import LongPPL

TRAIN_LEN, HORIZON = 16, 64


@pytest.mark.parametrize("length", [16, 64])
def test_all_contexts_have_the_same_targets(length):
    prompts = list(LongPPL(HORIZON, 100).prompts(length, Text(), TRAIN_LEN, 0))
    assert len(prompts) == 3 * 5
    for long, home, short in zip(prompts[:5], prompts[5:10], prompts[10:], strict=True):
        assert (long.length, home.length, short.length) == (length, TRAIN_LEN, TRAIN_LEN // 4)
        assert long.continuations.shape == (1, TRAIN_LEN // 4)
        for other in (home, short):
            assert np.array_equal(long.continuations, other.continuations)
            assert np.array_equal(long.context[-len(other.context) :], other.context)
            assert long.doc["doc_id"] == other.doc["doc_id"]


def test_key_tokens_gain_and_are_likely_where_the_model_was_trained():
    task = LongPPL(HORIZON, 1)
    prompts = list(task.prompts(32, Text(), TRAIN_LEN, 0))
    # Gains 2.5 at 0.5 nats: key. Gains 1.5: not. Gains 3 at 2.5 nats: not. Loses: not.
    home = np.array([[-0.5, -0.5, -2.5, -1.0]])
    short = np.array([[-3.0, -2.0, -5.5, -0.5]])
    long = np.array([[-7.0, -1.0, -1.0, -1.0]])  # what was known is lost
    answered = zip(prompts, [Scores(one, one) for one in (long, home, short)], strict=True)
    found = {one.metric: (one.value_sum, one.n) for one in task.process_all_results(answered)}
    assert found["key_token_fraction"] == (1, 4)
    assert found["key_token_nll"] == (7.0, 1)
    assert found["nll"] == (10.0, 4)
    assert found["bytes"] == (8, 4)


def test_without_a_key_token_there_is_no_loss_of_them():
    task = LongPPL(HORIZON, 1)
    same = Scores(np.full((1, 4), -1.0), np.zeros((1, 4)))
    prompts = list(task.prompts(32, Text(), TRAIN_LEN, 0))
    found = {
        one.metric: one.value_sum for one in task.process_all_results(zip(prompts, [same] * 3, strict=True))
    }
    assert found["key_token_fraction"] == 0
    assert "key_token_nll" not in found


def test_what_cannot_be():
    with pytest.raises(LengthError, match=r"16 \(the training length\) or more"):
        next(LongPPL(HORIZON, 1).prompts(8, Text(), TRAIN_LEN, 0))
    with pytest.raises(ConfigError, match="max_loss above 0"):
        LongPPL(HORIZON, 1, max_loss=0.0)
