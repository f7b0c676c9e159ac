"""The evolutionary search on losses with a known minimum: it finds it, within the paper's bounds, as seeded."""

from pathlib import Path

import numpy as np
import pytest

from posbench.config.search import SearchSettings
from posbench.errors import ConfigError, DataError
from posbench.evaluation.evolution import Factors, mutate, on_grid, search
from posbench.evaluation.search import Losses

K, TARGET = 4.0, (1.0, 1.3, 2.1, 3.4, 4.6)
STARTS = [[K] * 5, [K ** (m / 4) for m in range(5)], [1.0, 1.0, 2.5, 4.0, 4.0]]


def distance(factors: Factors) -> float:
    return float(np.square(np.subtract(factors, TARGET)).sum())


@pytest.mark.parametrize("seed", range(3))
def test_it_approaches_a_known_minimum(seed: int) -> None:
    """From the best start, 0.91 away, to a tenth of that with the paper's sizes."""
    settings = SearchSettings(
        population=64, parents=32, mutations=16, crossovers=16, iterations=40, seed=seed
    )
    best, loss = search(STARTS, K, distance, settings)
    assert distance(best) == loss < 0.1 * min(distance(on_grid(start, 5.0)) for start in STARTS)


def test_candidates_are_new_ordered_and_within_the_bounds() -> None:
    tried: list[Factors] = []

    def record(factors: Factors) -> float:
        tried.append(factors)
        return distance(factors)

    settings = SearchSettings()
    search(STARTS, K, record, settings)
    assert len(tried) == len(set(tried)) == 16 + 8 * 16
    for factors in tried:
        assert list(factors) == sorted(factors)
        assert factors[0] >= 1
        assert factors[-1] <= 1.25 * K
        assert all(abs(100 * factor - round(100 * factor)) < 1e-9 for factor in factors)


def test_it_is_a_function_of_the_seed_and_continues_with_more_iterations() -> None:
    """A longer search begins with the candidates of a shorter one, so that known losses continue it."""

    def tried(**given: int) -> list[Factors]:
        found: list[Factors] = []
        search(STARTS, K, lambda one: found.append(one) or distance(one), SearchSettings(**given))
        return found

    assert tried(iterations=5)[: len(tried(iterations=2))] == tried(iterations=2)
    assert tried(seed=1) != tried(seed=0)


def test_a_space_without_new_candidates_ends() -> None:
    """At k = 1 and one frequency there are 26 candidates: mutations return known ones in place of an endless loop."""
    calls: list[Factors] = []
    search([[1.0]], 1.0, lambda one: calls.append(one) or sum(one), SearchSettings(iterations=20))
    assert len(calls) == len(set(calls)) <= 26
    rng = np.random.default_rng(0)
    assert mutate((1.0,), 1.0, 0.3, {(1.0,): 0.0}, rng) == (1.0,)


def test_a_continued_search_keeps_the_losses_of_its_file(tmp_path: Path) -> None:
    """Fault: no test noticed that they were measured again, since a measurement gives the same loss."""
    path = tmp_path / "candidates.json"
    first = Losses(path, "a search")
    assert [first.get(factors, distance) for factors in (TARGET, (1.0,) * 5)] == [0.0, distance((1.0,) * 5)]
    other = Losses(path, "a search")
    assert other.get(TARGET, lambda factors: 7.0) == 0.0
    assert other.get((2.0,) * 5, lambda factors: 7.0) == 7.0
    again = Losses(path, "a search")
    assert again.losses == {TARGET: 0.0, (1.0,) * 5: distance((1.0,) * 5), (2.0,) * 5: 7.0}
    with pytest.raises(ConfigError, match="of another model"):
        Losses(path, "another search")


@pytest.mark.parametrize("text", ["", "{}", '{"id": "a search"}', '{"id": "a search", "candidates": [[1]]}'])
def test_a_damaged_file_is_one_line(tmp_path: Path, text: str) -> None:
    """Fault: a traceback."""
    (tmp_path / "candidates.json").write_text(text)
    with pytest.raises(DataError, match=r"candidates\.json is damaged .*: remove it"):
        Losses(tmp_path / "candidates.json", "a search")
