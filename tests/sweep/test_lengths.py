"""Multiples of the training length in tokens."""

import pytest

from posbench.config.lengths import tokens_at
from posbench.config.schema import EvaluationSettings
from posbench.data.synthetic import check_synthetic_task
from posbench.errors import LengthError
from posbench.plan.plan import evaluated_lengths


@pytest.mark.parametrize("train_len", [10, 50, 90, 250, 1010])
def test_tenths_of_a_multiple_of_ten_are_whole(train_len: int) -> None:
    """Fault: 1.1 times 50 tokens was refused, since the product of the floats is 55.00000000000001."""
    for tenths in range(1, 100):
        assert tokens_at(tenths / 10, train_len) == tenths * train_len // 10


def test_lengths_of_an_evaluation() -> None:
    assert evaluated_lengths(EvaluationSettings(length_multiples=[1.1], lengths=[70]), 50, "x") == [55, 70]
    with pytest.raises(LengthError, match=r"1\.5 times the training length 5 is not a whole number"):
        evaluated_lengths(EvaluationSettings(length_multiples=[1.5]), 5, "x")


def test_a_training_length_without_room_for_a_record_is_refused() -> None:
    """Fault: a traceback of the random generator for two tokens."""
    with pytest.raises(LengthError, match="choose a training length of 3 or more"):
        check_synthetic_task("associative_recall", 2, 88, 16, 0.0)
