"""Verdicts by rule, and the undefended front they are held against."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from mia_bench.leaderboard.conditions import Conditions
from mia_bench.leaderboard.front import Point, beyond_front, front_of
from mia_bench.leaderboard.tables import Table, effects
from mia_bench.leaderboard.verdicts import (
    BASELINE,
    BEATS,
    MORE_THAN,
    NOT_BEYOND,
    NOT_SHOWN,
    WORSE,
    Comparison,
    Margins,
    Verdict,
    decide,
    verdicts,
)
from mia_bench.statistics import Effect, crossed_means

BITS = Margins(0.5, "bits")


def effect(value: float, error: float = 0.05, seeds: int = 5) -> Effect:
    return Effect(value, error, 60.0, seeds, 60)


def judge(comparison: Comparison, better="lower", margins: Margins = BITS) -> Verdict:
    return verdicts({"row": comparison}, better, margins)["row"]


@pytest.mark.parametrize(
    ("leakage", "accuracy", "front", "text"),
    [
        (-1.0, 0.0, None, "leaks less"),
        (-1.0, -0.019, None, "leaks less"),  # the lower limit is -.029
        (-1.0, -0.021, None, "leaks less, at a cost; not compared with the undefended front"),
        (-1.0, None, -0.2, "leaks less, cost not tested; beats the undefended front"),
        (-1.0, -0.1, -0.2, "leaks less, at a cost; beats the undefended front"),
        (-1.0, -0.1, -0.05, "leaks less, at a cost; not shown to beat the undefended front"),
        (-1.0, -0.1, 0.4, "leaks less, at a cost; leaks more than the undefended front"),
        (-1.0, -0.015, -0.4, "leaks less; beats the undefended front"),
        (-1.0, -0.015, -0.05, "leaks less; not shown to beat the undefended front"),
        (0.0, -0.2, 0.4, "no difference beyond 0.11 bits; leaks more than the undefended front"),
        (0.0, -0.2, 0.05, "no difference beyond 0.11 bits"),
        (-0.4, None, 0.4, "leaks less, cost not tested; leaks more than the undefended front"),
        (1.0, -0.2, 1.4, "leaks more"),
        (1.0, 0.1, None, "leaks more"),
        (0.0, -0.2, None, "no difference beyond 0.11 bits"),
        (0.09, 0.0, None, "no difference beyond 0.2 bits"),
        (-0.11, 0.0, None, "leaks less"),
    ],
)
def test_the_rules(leakage, accuracy, front, text) -> None:
    found = judge(
        Comparison(
            effect(leakage),
            None if accuracy is None else effect(accuracy, 0.005),
            None if front is None else effect(front),
        )
    )
    assert found.text == text
    assert found.flags == ()
    mirrored = judge(
        Comparison(
            effect(-leakage),
            None if accuracy is None else effect(accuracy, 0.005),
            None if front is None else effect(-front),
        ),
        "higher",
    )
    assert mirrored == found


def test_a_cost_that_was_not_shown_is_said_to_be_unclear() -> None:
    found = judge(Comparison(effect(-1.0), effect(-0.01, 0.02)))
    assert found.text == "leaks less, cost unclear; not compared with the undefended front"


def test_a_wide_interval_leaves_it_unclear() -> None:
    assert judge(Comparison(effect(-0.2, 0.2))).text == "unclear"
    assert judge(Comparison(effect(0.0)), margins=Margins()).text == "unclear"
    assert judge(Comparison(effect(0.0, 0.01)), margins=Margins(0.05)).text == "no difference beyond 0.021"
    assert judge(Comparison(effect(0.0, 0.0))).text == "no difference beyond 0 bits"


def test_no_difference_is_two_one_sided_tests() -> None:
    """At 2.5 % each, so that the interval on the page tells it."""
    rng = np.random.default_rng(0)
    for scale in np.linspace(0.5, 3, 40):
        sample = rng.normal(0.1, scale, 25)
        found = Effect(float(sample.mean()), float(stats.sem(sample)), 24, 5, 25)
        below = stats.ttest_1samp(sample, 0.5, alternative="less").pvalue
        above = stats.ttest_1samp(sample, -0.5, alternative="greater").pvalue
        verdict = decide(Comparison(found), 1.0, "lower", BITS)
        assert (verdict.kind == "no difference") == (max(below, above) < 0.025)


def test_flags_say_why_a_verdict_may_not_hold() -> None:
    found = judge(Comparison(effect(-1, seeds=4), flags=("randomised",)))
    assert found.flags == ("few seeds", "randomised")


def test_a_difference_must_hold_among_all_comparisons() -> None:
    weak = Comparison(effect(-0.12))  # p = .02
    assert judge(weak).kind == "leaks less, at a cost"
    rows = {"weak": weak, "none": Comparison(effect(0.0)), "other": Comparison(effect(0.02))}
    found = verdicts(rows, "lower", BITS)
    assert found["weak"].text == "no difference beyond 0.23 bits"
    assert list(found) == ["weak", "none", "other"]
    assert verdicts({}, "lower", BITS) == {}


def test_differences_from_the_front_must_hold_among_those_that_give_accuracy() -> None:
    def row(front: float, accuracy: float) -> Comparison:
        return Comparison(effect(-1.0), effect(accuracy, 0.005), effect(front))

    weak = row(-0.12, -0.1)  # p = .02
    assert judge(weak).front == BEATS
    others = {"strong": row(-0.4, -0.1), "even": row(0.02, -0.1), "equal": row(0.01, -0.1)}
    found = verdicts({"weak": weak, **others}, "lower", BITS)
    assert [one.front for one in found.values()] == [NOT_SHOWN, BEATS, NOT_SHOWN, NOT_SHOWN]
    alone = Comparison(effect(-1.0), effect(0.1, 0.005))
    found = verdicts({"weak": weak, "more accurate": alone}, "lower", BITS)
    assert [one.front for one in found.values()] == [BEATS, ""]
    assert judge(row(0.4, -0.1)).front == WORSE


def test_a_row_beats_its_architecture_where_that_holds_among_all_that_have_one() -> None:
    def row(architecture: float) -> Comparison:
        return Comparison(effect(-1.0), effect(0.0, 0.005), architecture=effect(architecture))

    weak = row(-0.12)  # p = .02
    assert NOT_BEYOND not in judge(weak).flags
    assert judge(row(0.4)).flags == (MORE_THAN,)
    assert judge(row(0.02)).flags == (NOT_BEYOND,)
    others = {"strong": row(-0.4), "even": row(0.02), "equal": row(0.01)}
    unchanged = {"unchanged": Comparison(effect(-1.0), effect(0.0, 0.005))}
    found = verdicts({"weak": weak, **others, **unchanged}, "lower", BITS)
    assert [NOT_BEYOND in one.flags for one in found.values()] == [True, False, True, True, False]
    higher = verdicts({"turned": Comparison(effect(1.0), architecture=effect(0.4))}, "higher", BITS)
    assert NOT_BEYOND not in higher["turned"].flags
    assert judge(Comparison(effect(0.0), architecture=effect(0.0))).flags == ()
    assert judge(Comparison(effect(1.0), architecture=effect(0.0))).flags == ()
    assert judge(Comparison(effect(0.0), architecture=effect(0.4))).flags == (MORE_THAN,)
    assert judge(Comparison(effect(1.0), architecture=effect(0.4))).flags == (MORE_THAN,)


def test_the_baseline_never_wins() -> None:
    assert BASELINE.text == "baseline"


# --- the undefended front ---------------------------------------------------------------------


def point(accuracy: float, leakage: float, seed: int = 0, noise: float = 0.0, seeds: int = 1) -> Point:
    rng = np.random.default_rng(seed)
    shape = (seeds, 60)
    right, leaked = (rng.normal(size=shape) * noise for _ in range(2))
    names = tuple(range(seeds))
    return Point(
        Table(names, accuracy + right - right.mean()), Table(names, leakage + leaked - leaked.mean())
    )


def places(points: list[Point]) -> list[tuple[float, float]]:
    return [tuple(np.round(one.place, 6)) for one in points]


def test_the_front_is_the_hull_of_what_is_accurate_and_leaks_little() -> None:
    points = [(0.9, 5), (0.88, 4.9), (0.8, 3), (0.7, 3.5), (0.6, 2.8), (0.5, 2), (0.9, 5.5), (0.85, 4.5)]
    assert places(front_of([point(*one) for one in points], "lower")) == [(0.5, 2), (0.8, 3), (0.9, 5)]
    mirrored = front_of([point(a, -leak) for a, leak in points], "higher")
    assert places(mirrored) == [(0.5, -2), (0.8, -3), (0.9, -5)]
    assert front_of([], "lower") == []


def test_rows_are_compared_with_the_front_at_their_accuracy() -> None:
    front = front_of([point(0.5, 2, 1, 0.1), point(0.8, 3, 2, 0.1), point(0.9, 5, 3, 0.1)], "lower")
    rows = [(0.85, 3.5), (0.65, 2.5), (0.95, 4), (0.8, 2), (0.4, 2.2), (0.4, 1.8)]
    found = beyond_front([*(point(*row, 9, 0.1) for row in rows), None], front, "lower")
    assert [one and round(one.value, 6) for one in found] == [-0.5, 0.0, -1, -1, 0.2, None, None]
    assert beyond_front([point(0.9, 5)], [], "lower") == [None]
    assert beyond_front([], front, "lower") == []
    mirrored = [Point(one.accuracy, Table(one.leakage.seeds, -one.leakage.means)) for one in front]
    row = point(0.4, -1.8, 9, 0.1)
    assert beyond_front([row], mirrored, "higher") == [None]


def test_the_error_of_the_front_counts_in_both_directions() -> None:
    """Against the jackknife: one class after the other is left out everywhere."""
    low, high, row = point(0.5, 2, 1, 0.3), point(0.9, 5, 2, 0.3), point(0.7, 3, 3, 0.3)

    def distance(kept: np.ndarray) -> float:
        (a0, l0), (a1, l1), (a, leaked) = (
            (one.accuracy.means[:, kept].mean(), one.leakage.means[:, kept].mean())
            for one in (low, high, row)
        )
        return leaked - np.interp(a, [a0, a1], [l0, l1])

    left = [distance(np.arange(60) != number) for number in range(60)]
    jackknife = math.sqrt(59 / 60 * np.square(np.array(left) - np.mean(left)).sum())
    [found] = beyond_front([row], [low, high], "lower")
    assert found is not None
    assert found.error == pytest.approx(jackknife, rel=0.03)
    # Accuracy of other classes than leakage: the same, but for what both have in common.
    other = [Point(Table(p.accuracy.seeds, p.accuracy.means[:, :50]), p.leakage) for p in (low, high, row)]
    [apart] = beyond_front(other[2:], other[:2], "lower")
    assert apart is not None
    assert apart.error == pytest.approx(found.error, rel=0.3)


def test_seeds_that_some_point_lacks_do_not_count() -> None:
    low, high, row = point(0.5, 2, 1, 0.1, 3), point(0.9, 5, 2, 0.1, 2), point(0.7, 3, 3, 0.1, 3)
    [found] = beyond_front([row], [low, high], "lower")
    assert found is not None
    assert found.seeds == 2


def test_the_front_has_the_conditions_of_the_row() -> None:
    def under(one: Point, machine: str) -> Point:
        there = (frozenset({Conditions(machine, 1, "")}),) * 3
        return Point(*(Table(t.seeds, t.means, there) for t in (one.accuracy, one.leakage)))

    low, high, row = (under(point(*p, 0.1, 3), "cpu") for p in ((0.5, 2, 1), (0.9, 5, 2), (0.7, 3, 3)))
    [here] = beyond_front([row], [low, high], "lower")
    assert here is not None
    assert here.value == pytest.approx(3 - 3.5, abs=0.1)
    # Less accurate than what is left of the front, and leaks less.
    assert beyond_front([row], [under(low, "cuda"), high], "lower") == [None]
    assert beyond_front([row], [under(low, "cuda"), under(high, "cuda")], "lower") == [None]


def test_the_front_of_a_row_that_is_not_paired_has_all_corners() -> None:
    def under(capability: str, *points: tuple[float, float, float], attacks: str = "") -> list[Point]:
        found = frozenset({Conditions("cpu", 1, capability)})
        every = found | {Conditions("cpu", 1, attacks)} if attacks else found
        made = [point(*p, 0.1, 3) for p in points]
        return [
            Point(
                Table(p.accuracy.seeds, p.accuracy.means, (every,) * 3),
                Table(p.leakage.seeds, p.leakage.means, (found,) * 3),
            )
            for p in made
        ]

    front = under("AVX2", (0.5, 2, 1), (0.9, 5, 2))
    corner = under("AVX512", (0.65, 2.5, 4))
    row = under("AVX512", (0.7, 3.2, 3))
    assert beyond_front(row, front + corner, "lower") == [None]
    [found] = beyond_front(row, front + corner, "lower", beside=True)
    assert found is not None
    assert found.value == pytest.approx(3.2 - 3, abs=0.1)  # between the corner and the most accurate
    # Accuracy has the conditions of all attacks on a row, leakage those of one.
    [found] = beyond_front(
        under("AVX512", (0.7, 3.2, 3), attacks="AVX2"),
        under("AVX2", (0.5, 2, 1), (0.9, 5, 2), attacks="AVX512"),
        "lower",
        beside=True,
    )
    assert found is not None
    assert found.value == pytest.approx(3.2 - 3.5, abs=0.1)


def test_conditions_in_common_are_enough_for_what_no_attack_changes() -> None:
    means = np.ones((1, 3))
    cpu, cuda = (Conditions(device, 1, "") for device in ("cpu", "cuda"))
    one, two = frozenset({cpu}), frozenset({cpu, cuda})
    table = Table((0,), means, (one,))
    assert table.minus(Table((0,), means, (two,))) is not None
    assert table.minus(Table((0,), means, (frozenset({cuda}),))) is None
    assert table.minus(Table((0,), means)) is None


# --- tables of class means ------------------------------------------------------------------------


def test_shares_that_are_all_the_same_have_the_interval_of_so_many_classes() -> None:
    zero = Table((0, 1, 2), np.zeros((3, 60)))
    [found] = effects([zero], share=True)
    assert found is not None
    exact = stats.binomtest(0, 60).proportion_ci(0.95, method="exact").high
    assert found.interval() == pytest.approx((-exact, exact))
    assert effects([zero]) == [Effect(0, 0, 59, 3, 60)]
    assert effects([None, Table((0,), np.ones((1, 1)))]) == [None, None]


def test_variances_are_pooled_over_rows_of_the_same_seeds() -> None:
    rng = np.random.default_rng(0)
    tables = [Table((0, 1, 2), rng.normal(size=(3, 20))) for _ in range(3)]
    other = Table((0, 1, 3), rng.normal(size=(3, 20)))
    apart = Table((0, 1, 2), 5 * rng.normal(size=(3, 1)) + rng.normal(size=(3, 20)), paired=False)
    assert effects([*tables, apart])[:3] == crossed_means([t.means for t in tables])
    assert effects([*tables, apart])[3:] == crossed_means([apart.means])
    assert effects([*tables, other]) == [
        *crossed_means([t.means for t in tables]),
        *crossed_means([other.means]),
    ]


def test_differences_are_on_common_seeds_and_classes() -> None:
    one, other = Table((0, 2), np.array([[1.0, 2], [3, 4]])), Table((1, 2), np.array([[5.0, 6], [7, 9]]))
    found = one.minus(other)
    assert found is not None
    assert found.seeds == (2,)
    assert found.means.tolist() == [[-4, -5]]
    assert one.minus(Table((1,), np.ones((1, 2)))) is None
    assert one.minus(Table((0,), np.ones((1, 3)))) is None
