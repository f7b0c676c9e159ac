"""Batches made ahead: the same ones in the same order, errors where they are asked for, and no thread left."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from posbench.training.prefetch import Ahead
from posbench.training.trainer import Stopped, Trainer


def threads() -> int:
    return sum(thread.name.startswith("ahead") for thread in threading.enumerate())


def test_each_is_made_once_and_not_beyond_the_last() -> None:
    made: list[int] = []

    def make(number: int) -> int:
        made.append(number)
        return number**2

    ahead = Ahead(make, stop=5, depth=2)
    assert [ahead.at(number) for number in range(5)] == [0, 1, 4, 9, 16]
    assert made == [0, 1, 2, 3, 4]
    ahead.close()
    assert threads() == 0


def test_any_number_may_be_asked_for_at_any_time() -> None:
    ahead = Ahead(lambda number: number, stop=10, depth=3)
    assert [ahead.at(number) for number in (4, 0, 9, 5, 5, 12)] == [4, 0, 9, 5, 5, 12]
    ahead.close()
    assert ahead.at(3) == 3
    ahead.close()


def test_an_error_is_raised_where_its_number_is_asked_for() -> None:
    def make(number: int) -> int:
        if number == 2:
            raise ValueError("two")
        return number

    ahead = Ahead(make, stop=4, depth=2)
    assert [ahead.at(0), ahead.at(1)] == [0, 1]
    with pytest.raises(ValueError, match="two"):
        ahead.at(2)
    assert ahead.at(3) == 3
    ahead.close()


@pytest.fixture
def trainer(small_trainer: Callable[..., Trainer]) -> Callable[..., Trainer]:
    def make(folder: Path, depth: int, **train: object) -> Trainer:
        made = small_trainer(folder, **train)
        made.ahead.depth = depth
        return made

    return make


@pytest.mark.parametrize("synthetic", ["records", "repeated"])
def test_training_is_the_same_with_and_without(tmp_path: Path, trainer, synthetic: str) -> None:
    first, other = (trainer(tmp_path / str(depth), depth, synthetic=synthetic) for depth in (0, 2))
    assert first.run()["curve"] == other.run()["curve"]
    assert threads() == 0


def test_no_thread_is_left_after_a_stop_or_an_error(tmp_path: Path, trainer) -> None:
    steps = iter(range(100))
    with pytest.raises(Stopped):
        trainer(tmp_path / "stopped", 2).run(stop=lambda: next(steps) >= 3)
    assert threads() == 0

    def report(step: int, metrics: dict[str, float]) -> None:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        trainer(tmp_path / "failed", 2).run(report)
    assert threads() == 0
