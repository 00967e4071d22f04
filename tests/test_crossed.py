"""Means over seeds and classes against restricted maximum likelihood, SciPy, and simulation."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import optimize, special, stats

from mia_bench.statistics import (
    Effect,
    below_median,
    bounded_interval,
    crossed,
    crossed_means,
    design_effect,
    median_interval,
    proportion_interval,
    weighted,
)

sys.path.insert(0, str(Path(__file__).parent.parent / "docs"))

import simulate_intervals


def table(seeds: int, classes: int, of_seed: float, of_class: float, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    made = rng.normal(size=(seeds, 1)) * of_seed + rng.normal(size=classes) * of_class
    return made + rng.normal(size=(seeds, classes))


def reml_error(values: np.ndarray) -> float:
    """Standard error of the mean under restricted maximum likelihood, maximised numerically."""
    seeds, classes = values.shape
    same_seed = np.kron(np.eye(seeds), np.ones((classes, classes)))
    same_class = np.kron(np.ones((seeds, seeds)), np.eye(classes))
    ones, y = np.ones(values.size), values.ravel()

    def covariance(logs: np.ndarray) -> np.ndarray:
        of_seed, of_class, rest = np.exp(logs)
        return of_seed * same_seed + of_class * same_class + rest * np.eye(values.size)

    def loss(logs: np.ndarray) -> float:
        v = covariance(logs)
        inverse = np.linalg.inv(v)
        information = ones @ inverse @ ones
        left = y - ones @ inverse @ y / information
        return float(np.linalg.slogdet(v)[1] + math.log(information) + left @ inverse @ left)

    found = optimize.minimize(
        loss, np.zeros(3), method="Nelder-Mead", options={"xatol": 1e-7, "fatol": 1e-11}
    )
    return float((ones @ np.linalg.inv(covariance(found.x)) @ ones) ** -0.5)


def test_the_error_of_a_mean_is_that_of_restricted_maximum_likelihood() -> None:
    values = table(4, 6, 1.0, 1.5, seed=1)
    [found] = crossed_means([values])
    assert found.value == pytest.approx(values.mean())
    assert found.error == pytest.approx(reml_error(values), rel=1e-4)
    assert (found.seeds, found.classes) == (4, 6)


def test_degrees_of_freedom_are_satterthwaites() -> None:
    values = table(4, 6, 1.0, 1.5, seed=1)
    by_seed, by_class = values.mean(1), values.mean(0)
    squares = [6 * by_seed.var(ddof=1), 4 * by_class.var(ddof=1)]
    rest = values - by_seed[:, None] - by_class + values.mean()
    squares.append((rest**2).sum() / 15)
    expected = (squares[0] + squares[1] - squares[2]) ** 2 / (
        squares[0] ** 2 / 3 + squares[1] ** 2 / 5 + squares[2] ** 2 / 15
    )
    [found] = crossed_means([values])
    assert found.freedom == pytest.approx(expected)
    assert found.error**2 == pytest.approx((squares[0] + squares[1] - squares[2]) / 24)


@pytest.mark.parametrize("seeds", [1, 3])
def test_seeds_that_agree_leave_the_t_interval_over_classes(seeds: int) -> None:
    classes = np.random.default_rng(2).exponential(size=30)
    [found] = crossed_means([np.tile(classes, (seeds, 1))])
    expected = stats.ttest_1samp(classes, 0.5)
    assert found.interval() == pytest.approx(tuple(expected.confidence_interval(0.95)))
    assert found.interval(0.9) == pytest.approx(tuple(expected.confidence_interval(0.9)))
    assert found.p_value(0.5) == pytest.approx(expected.pvalue)


def test_one_class_leaves_the_t_interval_over_seeds() -> None:
    seeds = np.array([1.0, 2.0, 4.0])
    [found] = crossed_means([seeds[:, None]])
    expected = stats.ttest_1samp(seeds, 0).confidence_interval(0.95)
    assert found.interval() == pytest.approx(tuple(expected))
    with pytest.raises(ValueError, match="no interval"):
        crossed_means([np.ones((1, 1))])
    with pytest.raises(ValueError, match="numbers of seeds"):
        crossed_means([np.ones((2, 3)), np.ones((3, 3))])


def test_classes_that_agree_leave_the_t_interval_over_seeds() -> None:
    """All classes of a seed are equal: what is left is exactly 0, or rounding."""
    seeds = np.array([0.1, 0.2, 0.4])
    [found] = crossed_means([np.tile(seeds[:, None], (1, 7)) + np.linspace(0, 1, 7)])
    [alone] = crossed_means([np.tile(seeds[:, None], (1, 7))])
    expected = stats.ttest_1samp(seeds, 0)
    assert alone.interval() == pytest.approx(tuple(expected.confidence_interval(0.95)))
    assert found.error > alone.error


def test_nothing_that_varies_has_no_error() -> None:
    [found] = crossed_means([np.zeros((3, 5))])
    assert (found.value, found.error) == (0, 0)
    assert found.interval() == (0, 0)
    assert (found.p_value(), found.p_value(0.1)) == (1, 0)


@pytest.mark.parametrize("shape", [(5, 12), (1, 12), (5, 1)])
def test_rounding_is_no_spread(shape: tuple[int, int]) -> None:
    """Of 0.9 - 0.8 in every class the last digits of the mean differ."""
    [found] = crossed_means([np.full(shape, 0.9) - np.full(shape, 0.8)])
    assert (found.value, found.error) == (pytest.approx(0.1), 0.0)


def test_seed_variance_is_pooled_as_a_ratio() -> None:
    """A row in other units, or nearer to the floor, changes nothing for the others."""
    tables = [table(3, 40, 0.5, 0.5, seed) for seed in range(6)]
    together = crossed_means(tables)
    scaled = crossed_means([tables[0] / 1000, *tables[1:]])
    for one, other in zip(together[1:], scaled[1:], strict=True):
        assert (one.error, one.freedom) == pytest.approx((other.error, other.freedom))
    assert scaled[0].error == pytest.approx(together[0].error / 1000)
    alone = [crossed_means([one])[0] for one in tables]
    assert np.std([one.error for one in together]) < np.std([one.error for one in alone]) / 2


def test_pooled_rows_add_freedom_as_far_as_they_are_independent() -> None:
    """With so many classes that only seeds matter."""
    tables = [table(5, 2000, 1.0, 0.0, seed) for seed in range(7)]
    alone, together = crossed_means(tables[:1])[0], crossed_means(tables)[0]
    assert alone.freedom == pytest.approx(4, rel=0.01)
    assert together.freedom == pytest.approx(7 * 4 / (1 + 6 / 8), rel=0.01)


def test_a_row_whose_seeds_differ_far_more_keeps_its_own_variance() -> None:
    tables = [table(5, 40, 0.0, 0.5, seed) for seed in range(7)]
    broken = tables[0] + np.array([0, 0, 0, 0, 9.0])[:, None]
    without = crossed_means(tables[1:])
    found = crossed_means([broken, *tables[1:]])
    assert [one.error for one in found[1:]] == pytest.approx([one.error for one in without])
    assert found[0].error == pytest.approx(crossed_means([broken])[0].error)


def least_error(values: np.ndarray, share: float = 0.25) -> float:
    """The standard error of the mean where seeds agree altogether, and a share is taken away."""
    rest = values - values.mean(1, keepdims=True) - values.mean(0) + values.mean()
    by_class = len(values) * values.mean(0).var(ddof=1)
    square = float(np.square(rest).sum()) / ((len(values) - 1) * (values.shape[1] - 1))
    return math.sqrt((by_class - min(by_class, square) * share) / values.size)


def test_seeds_that_agree_better_than_by_chance_narrow_the_interval_a_little() -> None:
    values = table(9, 40, 0.0, 0.5, seed=1)  # 8 degrees of freedom
    level = values - values.mean(1, keepdims=True)
    [found] = crossed_means([level])
    assert found.error == pytest.approx(least_error(level))
    assert found.freedom == 39
    rest = level - level.mean(0)
    square = float(np.square(rest).sum()) / (8 * 39)
    by_seed = np.arange(-4.0, 5)[:, None] / math.sqrt(7.5) * math.sqrt(0.9 * square / 40)
    [nearly] = crossed_means([level + by_seed])
    by_class = 9 * level.mean(0).var(ddof=1)
    assert nearly.error == pytest.approx(math.sqrt((by_class - 0.1 * square) / 360))


@pytest.mark.parametrize(("share", "ratio"), [(0.0, 1.16), (0.25, 1.08)])
def test_the_variance_of_means_has_less_bias_where_more_is_taken_away(
    monkeypatch: pytest.MonkeyPatch, share: float, ratio: float
) -> None:
    """Seeds make no difference here."""
    monkeypatch.setattr(crossed, "AGREEMENT", share)
    drawn = [
        effect
        for seed in range(400)
        for effect in crossed_means([table(3, 20, 0.0, 0.3, 10 * seed + row) for row in range(7)])
    ]
    true = (0.3**2 + 1 / 3) / 20  # classes and the rest
    assert np.mean([one.error**2 for one in drawn]) / true == pytest.approx(ratio, abs=0.03)


@pytest.mark.parametrize(("rows", "seeds", "share"), [(1, 3, 0.0), (2, 2, 0.0), (1, 7, 0.125), (7, 3, 0.25)])
def test_less_is_taken_away_where_the_mean_square_of_seeds_is_hardly_known(
    rows: int, seeds: int, share: float
) -> None:
    """It has 2, 1.8, 6 and 8 degrees of freedom."""
    made = [table(seeds, 40, 0.0, 0.5, row) for row in range(rows)]
    level = [one - one.mean(1, keepdims=True) for one in made]
    for one, found in zip(level, crossed_means(level), strict=True):
        assert found.error == pytest.approx(least_error(one, share))


def test_rows_whose_seeds_agree_by_chance_make_no_other_row_an_outlier() -> None:
    """Their seeds agree more than chance has it, which says nothing of how far those of others may differ."""
    noise = [table(5, 40, 0.0, 0.5, seed) for seed in range(7)]
    level = [one - one.mean(1)[:, None] for one in noise]
    shift = np.array([-1, -0.5, 0, 0.5, 1])[:, None]
    moved = level[0] + 0.3 * shift
    found = crossed_means([moved, *level[1:]])
    [alone] = crossed_means([moved])
    assert alone.error > found[0].error == pytest.approx(least_error(moved))


def test_a_mean_has_no_fewer_degrees_of_freedom_than_its_parts() -> None:
    """What seeds and classes add nearly cancels what both together take away."""
    values = table(5, 10, 0.0, 0.0, seed=8)
    rest = values - values.mean(1)[:, None] - values.mean(0) + values.mean()
    square = float((rest**2).sum()) / 36
    seeds = np.array([-2.0, -1, 0, 1, 2])[:, None] / math.sqrt(2.5)  # of variance 1
    made = rest + math.sqrt(1.05 * square / 10) * seeds
    [found] = crossed_means([made])
    assert found.error == pytest.approx(math.sqrt(0.05 * square / 50))
    assert found.freedom == 4


def test_unequal_classes_keep_the_mean_over_samples() -> None:
    rng = np.random.default_rng(3)
    counts = rng.integers(1, 20, 50)
    samples = [rng.normal(size=(2, count)) + rng.normal() for count in counts]
    means = np.stack([one.mean(1) for one in samples], axis=1)
    made = weighted(means, counts.tolist())
    pooled = np.concatenate(samples, axis=1)
    assert made.mean() == pytest.approx(pooled.mean())
    assert made.mean(1) == pytest.approx(pooled.mean(1))
    [found] = crossed_means([made[:1]])
    # The jackknife of the ratio, leaving out one class after the other.
    sums = samples_of_first = [one[0].sum() for one in samples]
    left = [(sum(sums) - s) / (counts.sum() - n) for s, n in zip(samples_of_first, counts, strict=True)]
    jackknife = math.sqrt(49 / 50 * np.square(np.array(left) - np.mean(left)).sum())
    assert found.error == pytest.approx(jackknife, rel=0.05)
    assert weighted(means, [4] * 50) == pytest.approx(means)


@pytest.mark.parametrize("counts", [[1, 1, 1, 1], [1, 2, 3, 10], [1, 5, 40, 2, 2, 9]])
def test_the_variance_of_unequal_classes_is_estimated_without_bias(counts: list[int]) -> None:
    """The table depends linearly on independent class means, so that expected squares are traces."""
    classes, weights = len(counts), np.array(counts) / np.mean(counts)
    rows = np.array([weighted(one[None], counts)[0] for one in np.eye(classes)])
    left = rows - rows.mean(1, keepdims=True)
    estimated = np.square(left).sum() / (classes - 1) / classes
    assert estimated == pytest.approx(np.square(weights / classes).sum())


def test_one_class_stays_as_it_is_whatever_its_weight() -> None:
    assert weighted(np.array([[0.25], [0.5]]), [7]).tolist() == [[0.25], [0.5]]


def test_each_seed_has_counts_of_its_own() -> None:
    made = weighted(np.array([[0.0, 1.0], [0.0, 1.0]]), [[1, 1], [3, 1]])
    assert made.mean(1).tolist() == [0.5, 0.25]


def test_a_share_has_the_exact_interval_of_as_many_independent_samples() -> None:
    effect = Effect(0.04, math.sqrt(0.04 * 0.96 / 200), math.inf, 3, 60)
    exact = stats.binomtest(8, 200).proportion_ci(0.95, method="exact")
    assert proportion_interval(effect, 10_000) == pytest.approx((exact.low, exact.high))
    assert proportion_interval(effect, 10_000)[0] > 0
    fewer = stats.binomtest(4, 100).proportion_ci(0.95, method="exact")
    assert proportion_interval(effect, 100) == pytest.approx((fewer.low, fewer.high))
    for share in (0, 1):
        none = stats.binomtest(60 * share, 60).proportion_ci(0.95, method="exact")
        assert proportion_interval(Effect(share, 0, 59, 3, 60), 900) == pytest.approx((none.low, none.high))
        assert proportion_interval(Effect(share, 0, 59, 3, 60), 900, 20.0) == pytest.approx(
            (none.low, none.high)
        )
        students = (stats.norm.ppf(0.975) / stats.t.ppf(0.975, 59)) ** 2
        wanted = 0.025 ** (1 / (900 / 4 * students))
        ends = (0, 1 - wanted) if share == 0 else (wanted, 1)
        assert proportion_interval(Effect(share, 0, 59, 3, 60), 900, 4.0) == pytest.approx(ends)
    certain = Effect(0.5, 0, 59, 3, 60)
    assert proportion_interval(certain, 100) == pytest.approx(
        tuple(stats.binomtest(50, 100).proportion_ci(0.95, method="exact"))
    )


def test_the_interval_of_a_share_is_the_wider_the_fewer_degrees_of_freedom() -> None:
    error, share = 0.05, 0.3
    students = stats.norm.ppf(0.975) / stats.t.ppf(0.975, 6)
    effective = share * (1 - share) / error**2 * students**2
    hits = share * effective
    wanted = (
        stats.beta.ppf(0.025, hits, effective - hits + 1),
        stats.beta.ppf(0.975, hits + 1, effective - hits),
    )
    found = proportion_interval(Effect(share, error, 6.0, 3, 60), 10_000)
    assert found == pytest.approx(wanted)
    sure = proportion_interval(Effect(share, error, math.inf, 3, 60), 10_000)
    assert found[0] < sure[0] < sure[1] < found[1]


def test_the_design_effect_is_how_much_more_shares_vary_than_independent_samples() -> None:
    independent = Effect(0.2, math.sqrt(0.2 * 0.8 / 100), 50, 3, 60)
    assert design_effect([(independent, 100)]) == pytest.approx(1)
    assert design_effect([(independent, 400)]) == pytest.approx(4)
    assert design_effect([(independent, 20)]) == 1
    wider = Effect(0.5, 2 * math.sqrt(0.25 / 100), 50, 3, 60)
    both = (0.16 + 4 * 0.25) / (0.16 + 0.25)
    assert design_effect([(independent, 100), (wider, 100)]) == pytest.approx(both)
    none = Effect(0, 0, 59, 3, 60)
    assert design_effect([(none, 100), (wider, 100)]) == pytest.approx(4)
    assert design_effect([(none, 100)]) == design_effect([]) == math.inf


def test_the_interval_of_a_bounded_mean_is_that_of_its_logit() -> None:
    """Halfway between the bounds it is that of Student, nearly; near a bound it stays inside."""
    effect = Effect(5.0, 0.1, 40.0, 3, 60)
    assert bounded_interval(effect, 0, 10) == pytest.approx(effect.interval(), abs=1e-3)
    near = Effect(9.6, 0.3, 40.0, 3, 60)
    low, high = bounded_interval(near, 0, 10)
    assert 9.6 - low > high - 9.6 > 0
    assert high < 10 < near.interval()[1]
    step = 1e-6  # the error of the logit, by finite differences
    slope = (special.logit(0.96 + step) - special.logit(0.96 - step)) / (2 * step)
    half = near.interval()[1] - 9.6
    assert special.logit(high / 10) - special.logit(0.96) == pytest.approx(slope * half / 10, rel=1e-6)
    assert special.logit(0.96) - special.logit(low / 10) == pytest.approx(slope * half / 10, rel=1e-6)
    moved = Effect(19.6, 0.3, 40.0, 3, 60)
    assert bounded_interval(moved, 10, 20) == pytest.approx((low + 10, high + 10))
    for value in (0.0, 10.0):
        assert bounded_interval(Effect(value, 0, 40, 3, 60), 0, 10) == (value, value)


def test_exact_intervals_of_independent_samples_are_those_of_clopper_and_pearson(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(simulate_intervals, "LOGITS", (0.0, 0.0, 0.0))
    monkeypatch.setattr(simulate_intervals, "REAL_CLASSES", 10)
    coverage, widths = simulate_intervals.exact_intervals((0.1, 0.5), 1, 5)
    hits = np.arange(41)
    ends = [stats.binomtest(k, 40).proportion_ci(0.95, method="exact") for k in hits]
    for share, held, width in zip((0.1, 0.5), coverage, widths, strict=True):
        likely = stats.binom.pmf(hits, 40, share)
        assert width == pytest.approx(likely @ [one.high - one.low for one in ends], rel=0.03)
        assert held == pytest.approx(likely @ [one.low <= share <= one.high for one in ends], abs=0.015)


def of_median(seeds: list[list[list[float]]]) -> tuple[float, float]:
    [effect] = crossed_means([below_median(seeds)])
    return median_interval(seeds, effect)


def test_the_median_of_independent_samples_has_the_interval_of_order_statistics() -> None:
    """One sample a class, one seed: the exact interval inverts the sign test."""
    samples = np.random.default_rng(4).normal(size=2001)
    exact = stats.quantile_test(samples, p=0.5).confidence_interval(0.95)
    low, high = of_median([[[one] for one in samples.tolist()]])
    ranks = np.searchsorted(np.sort(samples), [exact.low, low, exact.high, high])
    assert ranks[1] == pytest.approx(ranks[0], abs=2)
    assert ranks[3] == pytest.approx(ranks[2], abs=2)


def test_the_shares_below_the_median_count_ties_half_and_classes_by_their_samples() -> None:
    seeds = [[[1.0, 2.0], [3.0]], [[3.0, 4.0], [5.0]]]
    shares = weighted(np.array([[1.0, 0.5], [0.25, 0.0]]), [2, 1])
    assert below_median(seeds) == pytest.approx(shares)
    assert below_median(seeds).mean() == pytest.approx(0.5)


def test_samples_that_are_all_equal_are_the_median() -> None:
    assert of_median([[[4.0], [4.0]], [[4.0], [4.0]]]) == (4.0, 4.0)


@pytest.mark.parametrize("wrong", [[], [[], []], [[[1.0]], [[1.0], [2.0]]], [[[]]]])
def test_medians_need_samples_of_the_same_classes(wrong: list[list[list[float]]]) -> None:
    with pytest.raises(ValueError, match="same classes"):
        below_median(wrong)


@pytest.mark.parametrize(
    ("scenario", "seeds", "classes", "sections"),
    [
        (simulate_intervals.differences(0.03, 0.7), 3, 60, 400),
        (simulate_intervals.differences(0.005, 0.1), 10, 20, 400),
        (simulate_intervals.differences(0.03, 0.7), 5, 158, 250),
        (simulate_intervals.unequal_classes(), 5, 60, 250),
        (simulate_intervals.unequal_classes(), 3, 5, 800),
        (simulate_intervals.bits(3.5), 10, 5, 400),
        (simulate_intervals.bits(0.5), 5, 5, 400),
        (simulate_intervals.differences(0.005, 0.1), 3, 5, 1500),
        (simulate_intervals.medians(), 10, 5, 300),
        (simulate_intervals.medians(), 3, 60, 100),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_intervals_hold_the_true_value_as_often_as_they_say(
    scenario: simulate_intervals.Scenario, seeds: int, classes: int, sections: int
) -> None:
    """The short form of ``docs/simulate_intervals.py``."""
    found = simulate_intervals.simulate(scenario, seeds, classes, sections)
    assert 0.93 <= found.coverage <= 0.97
    assert 0.85 <= found.width <= 1.15
