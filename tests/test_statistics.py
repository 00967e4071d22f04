"""Intervals against closed forms and simulation."""

import numpy as np
import pytest

from mia_bench.api.metric import Measurement
from mia_bench.statistics import (
    Estimate,
    class_means,
    combine_seeds,
    estimate,
    point_estimate,
)


def test_value_is_the_statistic_and_the_interval_holds_it() -> None:
    values = np.arange(20.0)
    found = estimate(Measurement(values, np.repeat(np.arange(5), 4)))
    assert found.value == 9.5
    assert found.low < 9.5 < found.high
    assert found.n == 20


def test_classes_are_resampled_whole() -> None:
    """All variation between classes: the interval is as wide as with one sample a class."""
    rng = np.random.default_rng(0)
    means = rng.normal(size=40)
    one = estimate(Measurement(means, np.arange(40)))
    ten = estimate(Measurement(np.repeat(means, 10), np.repeat(np.arange(40), 10)))
    assert ten.high - ten.low == pytest.approx(one.high - one.low, rel=0.15)


def test_width_agrees_with_the_normal_interval_of_class_means() -> None:
    rng = np.random.default_rng(1)
    means = rng.normal(size=200)
    found = estimate(Measurement(means, np.arange(200)))
    expected = 2 * 1.96 * means.std(ddof=1) / np.sqrt(200)
    assert found.high - found.low == pytest.approx(expected, rel=0.1)


def test_coverage_is_near_95_percent() -> None:
    rng = np.random.default_rng(2)
    hits = 0
    for trial in range(200):
        sample = rng.normal(loc=3.0, size=(30, 1)) + 0.5 * rng.normal(size=(30, 4))
        groups = np.repeat(np.arange(30), 4)
        found = estimate(Measurement(sample.ravel(), groups), seed=trial)
        hits += found.low <= 3.0 <= found.high
    assert 0.87 <= hits / 200 <= 0.99


def test_one_class_resamples_its_samples() -> None:
    found = estimate(Measurement(np.array([0.0, 1.0] * 50), np.zeros(100, dtype=int)))
    assert 0.35 < found.low < 0.5 < found.high < 0.65


def test_statistics_other_than_the_mean() -> None:
    values = np.array([1.0, 2.0, 3.0, 100.0, 200.0])
    found = estimate(Measurement(values, np.arange(5), lambda v: float(np.median(v))))
    assert found.value == 3.0


def test_same_evidence_same_interval() -> None:
    measurement = Measurement(np.random.default_rng(3).normal(size=50), np.arange(50))
    assert estimate(measurement) == estimate(measurement)


def test_one_seed_keeps_its_interval() -> None:
    one = Estimate(0.5, 0.4, 0.7, 10)
    assert combine_seeds([one]) == one


def test_seeds_add_their_spread_in_quadrature() -> None:
    seeds = [Estimate(v, v - 0.03, v + 0.06, 100) for v in (0.4, 0.5, 0.6)]
    found = combine_seeds(seeds)
    spread = 4.30265273 * 0.1 / np.sqrt(3)
    assert found.value == pytest.approx(0.5)
    assert found.low == pytest.approx(0.5 - np.hypot(spread, 0.03))
    assert found.high == pytest.approx(0.5 + np.hypot(spread, 0.06))
    assert found.n == 300


def test_a_number_without_an_interval_stays_without_over_seeds() -> None:
    alone = Estimate(0.5, None, None, 10)
    assert combine_seeds([alone]) == alone
    mixed = combine_seeds([alone, Estimate(0.7, 0.6, 0.8, 10)])
    assert mixed == Estimate(pytest.approx(0.6), None, None, 20)
    with pytest.raises(ValueError, match="no interval"):
        _ = mixed.interval
    assert Estimate(0.7, 0.6, 0.8, 10).without_interval() == Estimate(0.7, None, None, 10)


def test_a_point_estimate_is_the_statistic_alone() -> None:
    values = np.array([1.0, 2.0, 6.0])
    assert point_estimate(Measurement(values, np.arange(3))) == Estimate(3.0, None, None, 3)
    for bad in (np.array([]), np.array([np.nan])):
        with pytest.raises(ValueError, match=r"no samples|nan"):
            point_estimate(Measurement(bad, np.arange(len(bad))))


def test_no_seeds_is_an_error() -> None:
    with pytest.raises(ValueError, match="no seeds"):
        combine_seeds([])


def test_interval_equals_scipys_bias_corrected_bootstrap() -> None:
    from scipy.stats import bootstrap

    values = np.random.default_rng(4).exponential(size=60)
    found = estimate(Measurement(values, np.arange(60)))
    # SciPy has the accelerated form only; for the mean of many samples they are close.
    other = bootstrap((values,), np.mean, n_resamples=4000, method="BCa", rng=5)
    width = other.confidence_interval.high - other.confidence_interval.low
    assert found.low == pytest.approx(other.confidence_interval.low, abs=0.1 * width)
    assert found.high == pytest.approx(other.confidence_interval.high, abs=0.1 * width)


def test_resamplings_equal_to_the_statistic_count_half() -> None:
    """Of as many 1 as -1 a quarter of the resamplings have the mean 0; the interval must not lean."""
    from scipy.stats import bootstrap

    values = np.repeat([-1.0, 1.0], 5)
    found = estimate(Measurement(values, np.arange(10)))
    other = bootstrap((values,), np.mean, n_resamples=4000, method="BCa", rng=5).confidence_interval
    assert (found.low, found.high) == pytest.approx((other.low, other.high), abs=0.01)
    assert found.low == pytest.approx(-found.high, abs=0.01)


def test_mean_of_unequal_classes_is_resampled_as_the_general_statistic_is() -> None:
    rng = np.random.default_rng(6)
    groups = np.repeat(np.arange(12), rng.integers(1, 6, 12))
    values = rng.normal(size=len(groups))
    fast = estimate(Measurement(values, groups))
    slow = estimate(Measurement(values, groups, lambda v: float(v.mean())))
    assert (fast.value, fast.low, fast.high) == pytest.approx((slow.value, slow.low, slow.high))


def test_biased_statistic_keeps_its_value_inside() -> None:
    """Mean magnitude of group means: resampling adds noise and so raises it."""

    def magnitude(rows: np.ndarray) -> float:
        return float(np.abs(rows.mean(axis=0)).mean())

    rng = np.random.default_rng(7)
    for _ in range(20):
        rows = rng.normal(size=(40, 12))
        found = estimate(Measurement(rows, np.arange(40), magnitude))
        assert found.low <= found.value <= found.high
        plain = [magnitude(rows[rng.integers(0, 40, 40)]) for _ in range(100)]
        assert found.high < np.quantile(plain, 0.975)


@pytest.mark.parametrize(("value", "low", "high"), [(0.0, 0.0, 0.0596), (1.0, 0.9404, 1.0)])
def test_no_exception_in_sixty_classes_is_the_exact_interval(value, low, high) -> None:
    from scipy.stats import binomtest

    found = estimate(Measurement(np.full(240, value), np.repeat(np.arange(60), 4)), share=True)
    exact = binomtest(round(60 * value), 60).proportion_ci(0.95, method="exact")
    assert (found.low, found.high) == pytest.approx((exact.low, exact.high))
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-4)


def test_a_rank_that_is_1_for_all_is_no_share() -> None:
    found = estimate(Measurement(np.ones(40), np.repeat(np.arange(10), 4), lambda v: float(np.median(v))))
    assert (found.low, found.value, found.high) == (1.0, 1.0, 1.0)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_no_exception_among_many_classes_is_the_interval_of_clopper_and_pearson(value) -> None:
    from scipy.special import betaincinv

    for classes in range(2, 2001):
        found = estimate(Measurement(np.full(classes, value), np.arange(classes)), share=True)
        margin = float(betaincinv(1, classes, 0.975))
        low, high = (0.0, margin) if value == 0 else (1 - margin, 1.0)
        assert (found.low, found.high) == pytest.approx((low, high), rel=1e-12)


@pytest.mark.parametrize("values", [np.array([]), np.array([1.0, np.nan]), np.array([np.inf])])
def test_what_is_not_finite_is_no_estimate(values: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"no samples|the value is"):
        estimate(Measurement(values, np.arange(len(values))))


def test_means_of_classes() -> None:
    measurement = Measurement(np.array([1.0, 0.0, 3.0, 5.0, 4.0]), np.array([2, 2, 0, 0, 0]))
    assert class_means(measurement) == [4.0, 0.5]


def test_what_is_the_same_for_all_seeds_is_certain() -> None:
    number = 0.09459239680357542  # three of them have another mean, by rounding
    same = combine_seeds([Estimate(number, number, number, 1)] * 3)
    assert (same.value, same.low, same.high) == (number, number, number)
