"""Intervals against closed forms and simulation."""

import numpy as np
import pytest

from mia_bench.api.metric import Measurement
from mia_bench.statistics import Estimate, combine_seeds, estimate, student_t


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


def test_student_t_equals_scipy() -> None:
    from scipy.stats import t

    for degrees in range(1, 21):
        assert student_t(degrees) == pytest.approx(t.ppf(0.975, degrees), abs=1e-3)


def test_one_seed_keeps_its_interval() -> None:
    one = Estimate(0.5, 0.4, 0.7, 10)
    assert combine_seeds([one]) == one


def test_seeds_add_their_spread_in_quadrature() -> None:
    seeds = [Estimate(v, v - 0.03, v + 0.06, 100) for v in (0.4, 0.5, 0.6)]
    found = combine_seeds(seeds)
    spread = 4.303 * 0.1 / np.sqrt(3)
    assert found.value == pytest.approx(0.5)
    assert found.low == pytest.approx(0.5 - np.hypot(spread, 0.03))
    assert found.high == pytest.approx(0.5 + np.hypot(spread, 0.06))
    assert found.n == 300


def test_no_seeds_is_an_error() -> None:
    with pytest.raises(ValueError, match="no seeds"):
        combine_seeds([])
