"""Evolutionary search of LongRoPE's factors: mutations and crossovers of the best candidates so far.

Ding et al. LongRoPE: Extending LLM Context Window Beyond 2 Million Tokens. 2024, section 3.2 and algorithm 1.
arXiv:2402.13753. Factors lie on a grid of 0.01 between 1 and 1.25 k, and do not fall from a frequency to the next
slower one. The operations are those of evolution/ in github.com/microsoft/LongRoPE.
Deviations: without a search of how many first tokens are not interpolated; the sizes are settings.

The search is a function of its settings and of the losses, so that an interrupted one continues from the losses alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from posbench.config.search import SearchSettings

Factors = tuple[float, ...]

STEP = 0.01
MARGIN = 1.25  # of the largest factor over k
TRIES = 100  # of a mutation or crossover, to find a candidate that is new


def on_grid(factors: Sequence[float], largest: float) -> Factors:
    """Returns factors rounded to the grid, from 1 to `largest`, none below the one before it."""
    rounded = (min(max(round(factor / STEP) * STEP, 1.0), largest) for factor in factors)
    return tuple(round(float(factor), 2) for factor in np.maximum.accumulate([*rounded]))


def search(
    starts: Sequence[Sequence[float]], k: float, loss: Callable[[Factors], float], settings: SearchSettings
) -> tuple[Factors, float]:
    """Returns the factors with the lowest loss, and that loss.

    Args:
        starts: factors of known methods, from the fastest frequency.
        k: multiple of the training length.
        loss: called once for each candidate.
    """
    largest = round(MARGIN * k, 2)
    losses: dict[Factors, float] = {}

    def measure(candidate: Factors) -> None:
        if candidate not in losses:
            losses[candidate] = loss(candidate)

    first = list(dict.fromkeys(on_grid(start, largest) for start in starts))
    for candidate in first:
        measure(candidate)
    rng = np.random.default_rng([settings.seed, 0])
    for index in range(settings.population - len(first)):
        measure(mutate(first[index % len(first)], largest, settings.mutation_rate, losses, rng))
    for iteration in range(settings.iterations):
        rng = np.random.default_rng([settings.seed, 1 + iteration])
        parents = sorted(losses, key=lambda one: (losses[one], one))[: settings.parents]
        for _ in range(settings.mutations):
            parent = parents[rng.integers(len(parents))]
            measure(mutate(parent, largest, settings.mutation_rate, losses, rng))
        for _ in range(settings.crossovers if len(parents) > 1 else 0):
            one, other = (parents[index] for index in sorted(rng.choice(len(parents), 2, replace=False)))
            child = cross(one, other, losses, rng)
            measure(child or mutate(one, largest, settings.mutation_rate, losses, rng))
    best = min(losses, key=lambda one: (losses[one], one))
    return best, losses[best]


def mutate(
    parent: Factors, largest: float, rate: float, known: dict[Factors, float], rng: np.random.Generator
) -> Factors:
    """Returns a candidate with some factors drawn anew, each between its neighbours; the last try if none is new."""
    child = parent
    for _ in range(TRIES):
        drawn = list(parent)
        for index in range(len(drawn)):
            if rng.random() < rate:
                low = drawn[index - 1] if index else 1.0
                high = drawn[index + 1] if index + 1 < len(drawn) else largest
                drawn[index] = low + STEP * rng.integers(round((high - low) / STEP) + 1)
        child = on_grid(drawn, largest)
        if child not in known:
            break
    return child


def cross(
    one: Factors, other: Factors, known: dict[Factors, float], rng: np.random.Generator
) -> Factors | None:
    """Returns a new candidate with each factor from one of two parents; None if none was found that does not fall."""
    for _ in range(TRIES):
        child = tuple(
            a if keep else b for a, b, keep in zip(one, other, rng.random(len(one)) < 0.5, strict=True)
        )
        if child not in known and all(np.diff(child) >= 0):
            return child
    return None
