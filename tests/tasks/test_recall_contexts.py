"""Contexts of records are equal in all tasks, and unchanged since results were published."""

import hashlib

import numpy as np
import pytest
from prose import Prose, prose

from posbench.data.shard import Shard
from posbench.errors import ConfigError, LengthError
from posbench.tasks.attention import KeyValueAttention
from posbench.tasks.key_value import KeyValue
from posbench.tasks.mqar import MQAR
from posbench.tasks.multi_value import MultiValue
from posbench.tasks.position_resolution import PositionResolution
from posbench.tasks.task import Task


def digest(task: Task) -> str:
    found = hashlib.sha256()
    for length in (32, 97):
        for seed in (0, 5):
            for prompt in task.prompts(length, prose(), 64, seed):
                for ids in (prompt.context, prompt.continuations):
                    found.update(f"{ids.dtype} {ids.shape}".encode() + ids.tobytes())
    return found.hexdigest()[:16]


# Published results of the current task versions were measured on these prompts.
@pytest.mark.parametrize(
    ("task", "expected"),
    [
        (KeyValue(3), "bb60a1eb92f3ee50"),
        (KeyValue(3, query_aware=True), "16a09e73460bbb10"),
        (PositionResolution(3), "09743a7740b25a38"),
        (KeyValueAttention(3, num_questions=4), "1e69c7b0b0ef7f83"),
    ],
    ids=["key_value", "query_aware", "position_resolution", "attention"],
)
def test_prompts_are_the_same_to_the_last_bit(task, expected):
    assert digest(task) == expected


def test_all_tasks_share_their_contexts():
    tasks = (KeyValue(3), PositionResolution(3), KeyValueAttention(3, 4))
    for prompts in zip(*(task.prompts(64, prose(), 64, 0) for task in tasks), strict=True):
        assert all(np.array_equal(prompt.context, prompts[0].context) for prompt in prompts)


@pytest.mark.parametrize(
    ("task", "settings", "message"),
    [
        (KeyValue, {"num_contexts": 0}, "key_value with num_contexts=0"),
        (PositionResolution, {"num_contexts": -1}, "position_resolution with num_contexts=-1"),
        (KeyValueAttention, {"num_contexts": 1, "num_questions": 0}, "attention with num_questions=0"),
    ],
)
def test_counts_below_one_are_errors(task, settings, message):
    with pytest.raises(ConfigError, match=f"{message}: give at least 1"):
        task(**settings)


class Short(Prose):
    """A corpus with a test split of 40 tokens."""

    @property
    def evaluated(self) -> Shard:
        return Shard("test", np.arange(40), np.array([0, 40]), ["d0"])


@pytest.mark.parametrize(
    "task", [KeyValue(3), MQAR(3, "mqar_spread"), MultiValue(3, "symbols", "corpus", 128)]
)
def test_a_short_test_split_is_an_error(task):
    """Fault: prompts were shorter than the length in their rows, or an IndexError."""
    corpus = Short(prose().tokenizer)
    with pytest.raises(LengthError, match="the test split of prose has 40; choose a shorter length"):
        list(task.prompts(64, corpus, 64, 0))
