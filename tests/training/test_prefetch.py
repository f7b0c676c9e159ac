"""Prefetching: the same items in the same order, errors raised by `get`, and no thread left over."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from posbench.training.prefetch import Prefetcher
from posbench.training.trainer import Trainer, TrainingInterrupted


def threads() -> int:
    return sum(thread.name.startswith("prefetch") for thread in threading.enumerate())


def test_each_item_is_made_once_and_none_beyond_the_last() -> None:
    made: list[int] = []

    def make(index: int) -> int:
        made.append(index)
        return index**2

    prefetcher = Prefetcher(make, stop=5, depth=2)
    assert [prefetcher.get(index) for index in range(5)] == [0, 1, 4, 9, 16]
    assert made == [0, 1, 2, 3, 4]
    prefetcher.close()
    assert threads() == 0


def test_indices_in_any_order() -> None:
    prefetcher = Prefetcher(lambda index: index, stop=10, depth=3)
    assert [prefetcher.get(index) for index in (4, 0, 9, 5, 5, 12)] == [4, 0, 9, 5, 5, 12]
    prefetcher.close()
    assert prefetcher.get(3) == 3
    prefetcher.close()


def test_an_error_is_raised_for_its_own_index() -> None:
    def make(index: int) -> int:
        if index == 2:
            raise ValueError("two")
        return index

    prefetcher = Prefetcher(make, stop=4, depth=2)
    assert [prefetcher.get(0), prefetcher.get(1)] == [0, 1]
    with pytest.raises(ValueError, match="two"):
        prefetcher.get(2)
    assert prefetcher.get(3) == 3
    prefetcher.close()


@pytest.fixture
def trainer(small_trainer: Callable[..., Trainer]) -> Callable[..., Trainer]:
    def make(folder: Path, depth: int, **train: object) -> Trainer:
        made = small_trainer(folder, **train)
        made.prefetcher.depth = depth
        return made

    return make


@pytest.mark.parametrize("synthetic_task", ["associative_recall", "repeated"])
def test_training_is_the_same_with_and_without_prefetching(
    tmp_path: Path, trainer, synthetic_task: str
) -> None:
    first, other = (trainer(tmp_path / str(depth), depth, synthetic_task=synthetic_task) for depth in (0, 2))
    assert first.run()["log_history"] == other.run()["log_history"]
    assert threads() == 0


def test_no_thread_is_left_after_a_stop_or_an_error(tmp_path: Path, trainer) -> None:
    steps = iter(range(100))
    with pytest.raises(TrainingInterrupted):
        trainer(tmp_path / "stopped", 2).run(stop=lambda: next(steps) >= 3)
    assert threads() == 0

    def report(step: int, metrics: dict[str, float]) -> None:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        trainer(tmp_path / "failed", 2).run(report)
    assert threads() == 0
