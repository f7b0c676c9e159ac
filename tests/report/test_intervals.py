"""Intervals in comparison with scipy, examples by hand and small simulations."""

import math

import numpy as np
import pytest
import scipy.stats

from posbench.results.statistics import (
    _quantiles,
    cluster_bootstrap,
    holm,
    paired_cluster_bootstrap,
    t_interval,
)


def test_student_interval_equals_scipy():
    values = [2.31, 2.28, 2.40]
    found = t_interval(values)
    low, high = scipy.stats.t.interval(0.95, 2, np.mean(values), scipy.stats.sem(values))
    assert (found.low, found.high) == pytest.approx((low, high))
    assert found.p_value == pytest.approx(scipy.stats.ttest_1samp(values, 0).pvalue)
    assert found.method == "95% Student's t over 3 seeds"


def test_one_seed_has_no_interval():
    found = t_interval([2.3])
    assert found.estimate == 2.3
    assert math.isnan(found.low)
    assert not found.method


def test_p_value_without_variance():
    assert t_interval([0.0, 0.0, 0.0]).p_value == 1.0
    assert t_interval([0.5, 0.5, 0.5]).p_value == 0.0


@pytest.fixture
def documents():
    """Losses of documents of different lengths: the ratio of sums differs from the mean of ratios."""
    generator = np.random.default_rng(3)
    counts = generator.integers(10, 400, size=25).astype(float)
    return counts * generator.normal(1.5, 0.3, 25), counts


def test_cluster_bootstrap_is_token_weighted_and_equals_scipy(documents):
    sums, counts = documents
    found = cluster_bootstrap(sums, counts)
    assert found.estimate == pytest.approx(sums.sum() / counts.sum())
    assert abs(found.estimate - np.mean(sums / counts)) > 1e-3
    reference = scipy.stats.bootstrap(
        documents,
        lambda s, c, axis=-1: s.sum(axis) / c.sum(axis),
        paired=True,
        vectorized=True,
        method="percentile",
        n_resamples=20_000,
        rng=0,
    ).confidence_interval
    width = reference.high - reference.low
    assert found.low == pytest.approx(reference.low, abs=0.06 * width)
    assert found.high == pytest.approx(reference.high, abs=0.06 * width)


def test_quantiles_equal_numpy():
    generator = np.random.default_rng(1)
    for values in (generator.normal(size=2000), generator.integers(0, 9, 1997) / 8, np.array([3.0, 1.0])):
        for at in ([0.025, 0.975], [0.05, 0.5]):
            np.testing.assert_array_equal(_quantiles(values, at), np.quantile(values, at))
    assert np.isnan(_quantiles(np.array([1.0, np.nan]), [0.5])).all()


def test_bootstrap_is_seeded(documents):
    assert cluster_bootstrap(*documents) == cluster_bootstrap(*documents)
    assert cluster_bootstrap(*documents) != cluster_bootstrap(*documents, seed=1)


def test_pairing_removes_the_difficulty_of_documents(documents):
    sums, counts = documents
    noise = np.random.default_rng(5).normal(0.02, 0.01, len(counts)) * counts
    paired = paired_cluster_bootstrap((sums + noise, counts), (sums, counts))
    assert paired.estimate == pytest.approx(noise.sum() / counts.sum())
    alone = cluster_bootstrap(sums, counts)
    assert paired.high - paired.low < 0.2 * (alone.high - alone.low)
    assert paired.low > 0
    assert paired.p_value < 0.01
    same = paired_cluster_bootstrap((sums, counts), (sums, counts))
    assert (same.low, same.high, same.p_value) == (0, 0, 1)


def test_holm_by_hand():
    # Sorted: .005 * 4, .01 * 3, .03 * 2, .04 * 1, then the running maximum.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


@pytest.mark.parametrize(("draw", "least"), [("seeds", 0.91), ("clusters", 0.88)])
def test_intervals_cover_the_truth(draw, least):
    """Most of 300 intervals at 95% cover the true value; the percentile bootstrap is a little narrow."""
    generator = np.random.default_rng(11)
    covered = 0
    for _ in range(300):
        if draw == "seeds":
            found = t_interval(generator.normal(1.0, 0.1, 3))
        else:
            counts = generator.integers(20, 100, 30).astype(float)
            found = cluster_bootstrap(counts * generator.normal(1.0, 0.2, 30), counts)
        covered += found.low <= 1.0 <= found.high
    assert least <= covered / 300 <= 0.99
