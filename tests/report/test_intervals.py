"""Intervals in comparison with scipy, resampling, examples by hand and simulations of their coverage."""

import math

import numpy as np
import pytest
import scipy.stats

from posbench.results import statistics
from posbench.results.statistics import (
    cluster_error,
    cluster_interval,
    holm,
    paired_cluster_interval,
    t_interval,
    t_multiples,
)


def test_student_interval_equals_scipy():
    values = [2.31, 2.28, 2.40]
    found = t_interval(values)
    low, high = scipy.stats.t.interval(0.95, 2, np.mean(values), scipy.stats.sem(values))
    assert (found.low, found.high) == pytest.approx((low, high))
    assert found.p_value == pytest.approx(scipy.stats.ttest_1samp(values, 0).pvalue)
    assert found.method == "95% Student's t over 3 seeds"


@pytest.mark.parametrize(
    "found",
    [t_interval([2.3]), cluster_interval([4.6], [2]), paired_cluster_interval(([5.6], [2]), ([1.0], [2]))],
)
def test_one_seed_or_cluster_has_no_interval(found):
    assert found.estimate == pytest.approx(2.3)
    assert math.isnan(found.low)
    assert math.isnan(found.p_value)
    assert not found.method


@pytest.mark.parametrize("n", [2, 3, 40, 3000])
def test_p_value_without_spread(n):
    """p was 0 for any number of equal values but 0, two of them included."""
    for value in (0.5, 0.1 + 0.2):  # a sum of the latter leaves rounding errors
        b = 7 * np.arange(1.0, n + 1), np.arange(1.0, n + 1)
        paired = paired_cluster_interval((b[0] + value * b[1], b[1]), b)
        for found in (t_interval([value] * n), cluster_interval([value] * n, [1] * n), paired):
            assert found.p_value == pytest.approx(2.0 ** (1 - min(n, 1000)), rel=1e-9)
            assert found.low == pytest.approx(found.high)
    assert t_interval([0.0] * n).p_value == cluster_interval([0.0] * n, [1] * n).p_value == 1


def test_p_value_of_two_clusters():
    found = cluster_interval([1.0, 3.0], [1, 1])
    assert found.p_value == pytest.approx(scipy.stats.ttest_1samp([1.0, 3.0], 0).pvalue)
    assert (found.low, found.high) == pytest.approx(scipy.stats.t.interval(0.95, 1, 2.0, 1.0))


@pytest.mark.parametrize("clusters", [2, 3, 5, 30])
def test_p_value_is_1_minus_level_where_the_interval_ends_at_zero(clusters):
    values = np.random.default_rng(clusters).exponential(size=clusters)
    found = cluster_interval(values, np.ones(clusters))
    for end in (found.low, found.high):
        assert cluster_interval(values - end, np.ones(clusters)).p_value == pytest.approx(0.05)


@pytest.fixture
def documents():
    """Losses of documents of different lengths: the ratio of sums differs from the mean of ratios."""
    generator = np.random.default_rng(3)
    counts = generator.integers(10, 400, size=25).astype(float)
    return counts * generator.normal(1.5, 0.3, 25), counts


def resampled(clusters, estimate, draws=50_000):
    """Returns the standard deviation of an estimate over resampled clusters."""
    generator = np.random.default_rng(0)
    draws_RC = generator.multinomial(clusters, np.full(clusters, 1 / clusters), size=draws).astype(float)
    return float(estimate(draws_RC).std()) * math.sqrt(clusters / (clusters - 1))


@pytest.mark.parametrize("clusters", [3, 8, 25])
def test_error_is_that_of_the_cluster_bootstrap(documents, clusters):
    """The closed form replaces resampling: exactly so for means, to first order in 1 / C for ratios."""
    sums, counts = (values[:clusters] for values in documents)
    other = counts[::-1] * 1.1
    found = cluster_interval(sums, counts)
    assert found.estimate == pytest.approx(sums.sum() / counts.sum())
    assert abs(found.estimate - np.mean(sums / counts)) > 1e-3

    def error(interval, influence):
        below, above = t_multiples(influence)
        assert interval.high - interval.estimate == pytest.approx(above * cluster_error(influence))
        return (interval.high - interval.low) / (below + above)

    mean = cluster_interval(sums, np.ones(clusters))
    centred = (sums - sums.mean()) / clusters
    by_resampling = resampled(clusters, lambda draws: draws @ sums / clusters)
    assert error(mean, centred) == pytest.approx(by_resampling, rel=0.01)
    if clusters < 8:
        return  # too few for the ratio of documents of 10 to 400 tokens
    one = (sums - found.estimate * counts) / counts.sum()
    by_resampling = resampled(clusters, lambda draws: (draws @ sums) / (draws @ counts))
    assert error(found, one) == pytest.approx(by_resampling, rel=0.5 / clusters)
    paired = paired_cluster_interval((sums, counts), (counts, other))
    two = one - (counts - counts.sum() / other.sum() * other) / other.sum()
    by_resampling = resampled(
        clusters, lambda draws: (draws @ sums) / (draws @ counts) - (draws @ counts) / (draws @ other)
    )
    assert error(paired, two) == pytest.approx(by_resampling, rel=2 / clusters)


def test_pairing_removes_the_difficulty_of_documents(documents):
    sums, counts = documents
    noise = np.random.default_rng(5).normal(0.02, 0.01, len(counts)) * counts
    paired = paired_cluster_interval((sums + noise, counts), (sums, counts))
    assert paired.estimate == pytest.approx(noise.sum() / counts.sum())
    alone = cluster_interval(sums, counts)
    assert paired.high - paired.low < 0.2 * (alone.high - alone.low)
    assert paired.low > 0
    assert paired.p_value < 0.01
    same = paired_cluster_interval((sums, counts), (sums, counts))
    assert (same.low, same.high, same.p_value) == (0, 0, 1)


def test_holm_by_hand():
    # Sorted: .005 * 4, .01 * 3, .03 * 2, .04 * 1, then the running maximum.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


DRAWS = 30_000  # intervals of each simulation, so that a coverage has a standard error of 0.13%
CLUSTERS = [3, 4, 8, 16, 32, 64]
# Clusters of mean 0, and the least and largest coverage.
DISTRIBUTIONS = {
    "normal": (lambda generator, size: generator.standard_normal(size), 0.94, 0.96),
    "exponential": (lambda generator, size: generator.standard_exponential(size) - 1, 0.92, 0.97),
    "negative exponential": (lambda generator, size: 1 - generator.standard_exponential(size), 0.92, 0.97),
    "log-normal": (
        lambda generator, size: generator.lognormal(0.0, 0.5, size) - math.exp(0.125),
        0.92,
        0.97,
    ),
}


def coverage(estimate, influence, truth=0.0):
    """Returns the fraction of intervals around (R,) estimates, with (R, C) influences, that contain the truth."""
    below, above = t_multiples(influence)
    error = cluster_error(influence)
    return float(np.mean((estimate - below * error <= truth) & (truth <= estimate + above * error)))


def influence_of_ratio(sums, counts):
    ratio, total = sums.sum(-1) / counts.sum(-1), counts.sum(-1, keepdims=True)
    return ratio, (sums - ratio[:, None] * counts) / total


@pytest.mark.parametrize("clusters", CLUSTERS)
@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_coverage_of_means(name, clusters):
    """The percentile bootstrap covered 74% with 3 normal clusters, 77 with 4, 89 with 8, and less if skewed."""
    draw, least, most = DISTRIBUTIONS[name]
    values = draw(np.random.default_rng(clusters), (DRAWS, clusters))
    mean = values.mean(-1)
    assert least <= coverage(mean, (values - mean[:, None]) / clusters) <= most


@pytest.mark.parametrize("clusters", CLUSTERS)
@pytest.mark.parametrize("kind", ["ratio", "paired difference"])
def test_coverage_of_ratios_and_paired_differences(kind, clusters):
    """Documents of 20 to 100 tokens, whose mean loss is noisier the fewer they are."""
    generator = np.random.default_rng(clusters)
    size = (DRAWS, clusters)
    counts = generator.integers(20, 101, size).astype(float)
    sums = counts * 2.0 + np.sqrt(counts) * generator.standard_normal(size)
    estimate, influence = influence_of_ratio(sums, counts)
    truth = 2.0
    if kind == "paired difference":
        hard = counts * generator.standard_exponential(size)  # difficulty that both share
        other = counts * 1.7 + np.sqrt(counts) * generator.standard_normal(size)
        (a, of_a), (b, of_b) = (influence_of_ratio(part + hard, counts) for part in (sums, other))
        estimate, influence, truth = a - b, of_a - of_b, 0.3
    assert 0.94 <= coverage(estimate, influence, truth) <= 0.96
    for row in range(3):
        found = statistics._over_clusters(float(estimate[row]), influence[row])
        assert (found.low <= truth <= found.high) == bool(
            coverage(estimate[row : row + 1], influence[row : row + 1], truth)
        )


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_coverage_over_seeds(seeds):
    generator = np.random.default_rng(seeds)
    found = [t_interval(generator.normal(1.0, 0.1, seeds)) for _ in range(10_000)]
    assert 0.94 <= np.mean([one.low <= 1.0 <= one.high for one in found]) <= 0.96
