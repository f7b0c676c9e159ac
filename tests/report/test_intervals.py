"""Intervals in comparison with scipy, resampling, examples by hand and simulations of their coverage."""

import math

import numpy as np
import pytest
import scipy.stats

from posbench.results.statistics import (
    MIN_CLUSTERS,
    MIN_SEEDS,
    cluster_error,
    interval,
    paired_interval,
    t_multiples,
    two_level,
)


def over_seeds(values):
    """The interval of values of one cluster, each of a seed."""
    return interval(values, np.ones(len(values)), range(len(values)), np.zeros(len(values)))


def over_clusters(sums, counts):
    """The interval of clusters of one seed."""
    return interval(sums, counts, np.zeros(len(sums)), range(len(sums)))


def paired_over_clusters(a, b):
    return paired_interval(a, b, np.zeros(len(a[0])), range(len(a[0])))


def test_student_interval_equals_scipy():
    values = [2.31, 2.28, 2.40]
    found = over_seeds(values)
    low, high = scipy.stats.t.interval(0.95, 2, np.mean(values), scipy.stats.sem(values))
    assert (found.low, found.high) == pytest.approx((low, high))
    assert found.p_value == pytest.approx(scipy.stats.ttest_1samp(values, 0).pvalue)
    assert found.method == "95% Student's t over 3 seeds"


def test_few_seeds_and_clusters_have_no_interval():
    """Two seeds were drawn as a 95% interval of t(1), and four contexts as one of t(3)."""
    for seeds in range(1, MIN_SEEDS + 1):
        for clusters in (1, 4, MIN_CLUSTERS - 1, MIN_CLUSTERS):
            place = np.arange(seeds * clusters)
            found = interval(place + 1.0, np.ones(len(place)), place // clusters, place % clusters)
            assert found.estimate == pytest.approx(np.mean(place + 1.0))
            enough = {
                (True, False): "cluster t adjusted for skewness",
                (False, True): "Student's t over 3 seeds",
                (True, True): "two-level t over 3 seeds",
                (False, False): "",
            }[clusters >= MIN_CLUSTERS, seeds >= MIN_SEEDS]
            assert found.method.removeprefix("95% ") == enough
            assert math.isnan(found.low) == math.isnan(found.p_value) == (not enough)


@pytest.mark.parametrize("n", [8, 40, 3000])
def test_p_value_without_spread(n):
    """p was 0 for any number of equal values but 0, two of them included."""
    for value in (0.5, 0.1 + 0.2):  # a sum of the latter leaves rounding errors
        b = 7 * np.arange(1.0, n + 1), np.arange(1.0, n + 1)
        paired = paired_over_clusters((b[0] + value * b[1], b[1]), b)
        for found in (over_seeds([value] * n), over_clusters([value] * n, [1] * n), paired):
            assert found.p_value == pytest.approx(2.0 ** (1 - min(n, 1000)), rel=1e-9)
            assert found.low == pytest.approx(found.high)
    assert over_seeds([0.0] * n).p_value == over_clusters([0.0] * n, [1] * n).p_value == 1


def test_no_p_value_underflows_to_0():
    """The tail of 3,000 clusters that agree to a thousandth is below the smallest number."""
    values = 1 + 1e-3 * np.random.default_rng(0).standard_normal(3000)
    assert 0 < over_clusters(values, np.ones(3000)).p_value < 1e-300


@pytest.mark.parametrize("seeds", [1, 3])
@pytest.mark.parametrize("clusters", [8, 30])
def test_p_value_is_1_minus_level_where_the_interval_ends_at_zero(seeds, clusters):
    generator = np.random.default_rng(clusters)
    place = np.arange(seeds * clusters)
    values = generator.exponential(size=len(place)) + generator.normal(size=seeds)[place // clusters]
    names = np.ones(len(place)), place // clusters, place % clusters
    found = interval(values, *names)
    for end in (found.low, found.high):
        assert interval(values - end, *names).p_value == pytest.approx(0.05)


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


@pytest.mark.parametrize("clusters", [8, 25])
def test_error_is_that_of_the_cluster_bootstrap(documents, clusters):
    """The closed form replaces resampling: exactly so for means, to first order in 1 / C for ratios."""
    sums, counts = (values[:clusters] for values in documents)
    other = counts[::-1] * 1.1
    found = over_clusters(sums, counts)
    assert found.estimate == pytest.approx(sums.sum() / counts.sum())
    assert abs(found.estimate - np.mean(sums / counts)) > 1e-3

    def error(interval, influence):
        below, above = t_multiples(influence)
        assert interval.high - interval.estimate == pytest.approx(above * cluster_error(influence))
        return (interval.high - interval.low) / (below + above)

    mean = over_clusters(sums, np.ones(clusters))
    centred = (sums - sums.mean()) / clusters
    by_resampling = resampled(clusters, lambda draws: draws @ sums / clusters)
    assert error(mean, centred) == pytest.approx(by_resampling, rel=0.01)
    one = (sums - found.estimate * counts) / counts.sum()
    by_resampling = resampled(clusters, lambda draws: (draws @ sums) / (draws @ counts))
    assert error(found, one) == pytest.approx(by_resampling, rel=0.5 / clusters)
    paired = paired_over_clusters((sums, counts), (counts, other))
    two = one - (counts - counts.sum() / other.sum() * other) / other.sum()
    by_resampling = resampled(
        clusters, lambda draws: (draws @ sums) / (draws @ counts) - (draws @ counts) / (draws @ other)
    )
    assert error(paired, two) == pytest.approx(by_resampling, rel=2 / clusters)


def test_pairing_removes_the_difficulty_of_documents(documents):
    sums, counts = documents
    noise = np.random.default_rng(5).normal(0.02, 0.01, len(counts)) * counts
    paired = paired_over_clusters((sums + noise, counts), (sums, counts))
    assert paired.estimate == pytest.approx(noise.sum() / counts.sum())
    alone = over_clusters(sums, counts)
    assert paired.high - paired.low < 0.2 * (alone.high - alone.low)
    assert paired.low > 0
    assert paired.p_value < 0.01
    same = paired_over_clusters((sums, counts), (sums, counts))
    assert (same.low, same.high, same.p_value) == (0, 0, 1)


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
    for row in range(3 if clusters >= MIN_CLUSTERS else 0):
        found = two_level(estimate[row : row + 1], influence[row : row + 1])
        assert (found.low <= truth <= found.high) == bool(
            coverage(estimate[row : row + 1], influence[row : row + 1], truth)
        )


# Shares of the variance of a mean by its sources: seeds, clusters, and both together.
SHARES = {
    "seeds": (1, 0, 0),
    "mostly seeds": (0.8, 0.2, 0),
    "seeds and clusters": (0.5, 0.5, 0),
    "clusters": (0, 1, 0),
    "pairs of both": (0, 0, 1),
    "all": (1 / 3, 1 / 3, 1 / 3),
    "few seeds": (0.02, 0.9, 0.08),
}


@pytest.mark.parametrize("seeds", [3, 5, 8])
@pytest.mark.parametrize("clusters", [8, 64])
@pytest.mark.parametrize("shares", SHARES)
def test_coverage_of_seeds_and_clusters(shares, clusters, seeds):
    """Student's t over the seeds covered 91% with equal shares, and 57% where documents vary most: it ignored them."""
    of_seeds, of_clusters, of_pairs = SHARES[shares]
    generator, draws = np.random.default_rng(seeds * clusters), 4000
    y_RSC = math.sqrt(of_seeds * seeds) * generator.standard_normal((draws, seeds, 1))
    y_RSC = y_RSC + math.sqrt(of_clusters * clusters) * generator.standard_normal((draws, 1, clusters))
    y_RSC = y_RSC + math.sqrt(of_pairs * seeds * clusters) * generator.standard_normal(
        (draws, seeds, clusters)
    )
    estimate_RS = y_RSC.mean(-1)
    influence_RSC = (y_RSC - estimate_RS[..., None]) / clusters
    found = [two_level(*one) for one in zip(estimate_RS, influence_RSC, strict=True)]
    assert 0.935 <= np.mean([one.low <= 0 <= one.high for one in found]) <= 0.975


def answers(right_SC):
    """The interval of (S, C) answers, right or wrong, of S trainings to the same C questions."""
    seed, question = np.indices(right_SC.shape).reshape(2, -1)
    return interval(right_SC.ravel(), np.ones(right_SC.size), seed, question)


def test_seeds_that_are_equal_by_chance_have_an_interval():
    """Fault: three seeds with one different wrong answer of 20 each had the interval .95 [.95, .95], and p = .25."""
    right = np.ones((3, 20))
    right[range(3), [2, 7, 11]] = 0
    found = answers(right)
    assert found.estimate == pytest.approx(0.95)
    assert found.low < 0.92
    assert found.high > 0.97
    assert found.p_value < 1e-10
    # The variance over questions is 0 too: each is missed by one seed.
    found = answers(1.0 - np.eye(3)[:, np.arange(30) % 3])
    assert found.estimate == pytest.approx(2 / 3)
    assert found.low < 0.6
    assert found.high > 0.73
    for equal in (1.0, 0.3):  # no variation at all: as before
        found = answers(np.full((3, 20), equal))
        assert found.low == pytest.approx(equal) == found.high
        assert found.p_value == 0.25


@pytest.mark.parametrize("seeds", [3, 5, 8])
@pytest.mark.parametrize(("clusters", "accuracy"), [(16, 0.5), (16, 0.8), (64, 0.5), (64, 0.8), (64, 0.95)])
def test_coverage_of_accuracies(clusters, accuracy, seeds):
    """Fault: for an accuracy of .95 and 3 seeds, coverage was 85 to 87% with 16 questions and 93% with 64."""
    generator = np.random.default_rng(seeds * clusters)
    right_RSC = (generator.random((4000, seeds, clusters)) < accuracy).astype(float)
    estimate_RS = right_RSC.mean(-1)
    influence_RSC = (right_RSC - estimate_RS[..., None]) / clusters
    found = [two_level(*one) for one in zip(estimate_RS, influence_RSC, strict=True)]
    assert 0.94 <= np.mean([one.low <= accuracy <= one.high for one in found]) <= 0.98


def test_seeds_with_clusters_of_their_own_are_independent_values():
    """Clusters inside seeds (nested) leave the spread of the seeds, which contains theirs."""
    seeds, clusters = 5, 16
    generator = np.random.default_rng(0)
    place = np.arange(seeds * clusters)
    values = generator.standard_normal(len(place)) + generator.standard_normal(seeds)[place // clusters]
    found = interval(values, np.ones(len(place)), place // clusters, place)
    means = values.reshape(seeds, clusters).mean(1)
    low, high = scipy.stats.t.interval(0.95, seeds - 1, means.mean(), scipy.stats.sem(means))
    assert (found.low, found.high) == pytest.approx((low, high))


@pytest.mark.parametrize("seeds", [3, 5])
def test_coverage_over_seeds(seeds):
    generator = np.random.default_rng(seeds)
    found = [over_seeds(generator.normal(1.0, 0.1, seeds)) for _ in range(4_000)]
    assert 0.94 <= np.mean([one.low <= 1.0 <= one.high for one in found]) <= 0.96
