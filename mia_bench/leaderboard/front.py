"""The undefended front: what an undefended target leaks when it is as accurate as a defended one."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TypeVar

from mia_bench.api.metric import Direction
from mia_bench.leaderboard.tables import Table, common, effects
from mia_bench.statistics import Effect

Item = TypeVar("Item")


@dataclass(frozen=True)
class Point:
    """A row as utility and leakage."""

    accuracy: Table
    leakage: Table

    @property
    def place(self) -> tuple[float, float]:
        """Mean accuracy and mean leakage."""
        return float(self.accuracy.means.mean()), float(self.leakage.means.mean())

    def cut(self, seeds: Sequence[int]) -> Point:
        """The point on these seeds alone."""
        return Point(self.accuracy.cut(seeds), self.leakage.cut(seeds))

    def seeds_with(self, other: Point, *, beside: bool = False) -> tuple[int, ...]:
        """The seeds that both have, leakage and accuracy, as :meth:`Table.seeds_with` says."""
        right = self.accuracy.seeds_with(other.accuracy, beside=beside)
        leaked = self.leakage.seeds_with(other.leakage, beside=beside)
        return tuple(seed for seed in leaked if seed in right)


def front_of(points: Sequence[Point], better: Direction) -> list[Point]:
    """The points of the front, by accuracy.

    Args:
        points: undefended rows.
        better: which direction of the leakage is better for the defender.
    """
    return corners(points, lambda point: point.place, better)


def corners(
    points: Sequence[Item], placed: Callable[[Item], tuple[float, float]], better: Direction
) -> list[Item]:
    """The corners, by accuracy, of the convex hull below which no point lies.

    A coin tossed between two targets reaches, on average, every point of the line between them, so
    points above the hull are no front.

    Args:
        points: undefended rows.
        placed: accuracy and leakage of a point.
        better: which direction of the leakage is better for the defender.
    """
    sign = _sign(better)

    def place(point: Item) -> tuple[float, float]:
        accuracy, leakage = placed(point)
        return accuracy, sign * leakage

    hull: list[Item] = []
    for point in sorted(points, key=lambda one: (-place(one)[0], place(one)[1])):
        if hull and place(point)[1] >= place(hull[-1])[1]:
            continue  # less accurate, and leaks no less
        while len(hull) > 1 and _slope(*map(place, (hull[-2], point))) >= _slope(*map(place, hull[-2:])):
            hull.pop()
        hull.append(point)
    return hull[::-1]


def _slope(one: tuple[float, float], other: tuple[float, float]) -> float:
    return (one[1] - other[1]) / (one[0] - other[0])


def _sign(better: Direction) -> int:
    return -1 if better == "higher" else 1


def beyond_front(
    rows: Sequence[Point | None], undefended: Sequence[Point], better: Direction, *, beside: bool = False
) -> list[Effect | None]:
    """Of each row its leakage minus that of the front at the row's accuracy, on the same seeds.

    The seeds are those of :func:`common` of the row and the most accurate undefended row; undefended rows
    that lack one of them are left out of its front.

    Between two points the front is a straight line; beyond the most accurate one it goes on at its leakage.
    The errors of the row and of both points count, in leakage as in accuracy, to first order: if the row lies
    at the share ``w`` between points 0 and 1, and ``k`` is the slope between them, the difference is the mean
    of ``l - (1 - w) l0 - w l1 - k (a - (1 - w) a0 - w a1)`` over seeds and classes.

    None where there is no row or no front, and where the row is less accurate than the whole front and leaks
    less: then it is not known what is undefended and as accurate.

    Args:
        rows: what is compared.
        undefended: what the front is made of.
        better: which direction of the leakage is better for the defender.
        beside: compare with undefended rows of other conditions where too few seeds can be paired.
    """
    parts = [_against(row, undefended, better, beside) if row else (None, None) for row in rows]
    firsts, seconds = (effects([part[number] for part in parts]) for number in (0, 1))
    return [_sum(one, other) if one and other else one for one, other in zip(firsts, seconds, strict=True)]


def _against(
    row: Point, undefended: Sequence[Point], better: Direction, beside: bool
) -> tuple[Table | None, Table | None]:
    """Tables whose means add up to the difference; the second only where accuracy has other classes."""
    if not undefended:
        return None, None
    best = max(undefended, key=lambda point: point.place[0])
    seeds, paired = common(row, best, beside=beside)
    if not seeds:
        return None, None
    kept = [
        point.cut(seeds)
        for point in undefended
        if set(seeds) <= set(row.seeds_with(point, beside=not paired))
    ]
    row, front, sign = row.cut(seeds), front_of(kept, better), _sign(better)
    accuracy, leakage = row.place
    low, high = _neighbours(accuracy, front)
    if accuracy < low.place[0] and sign * leakage < sign * low.place[1]:
        return None, None
    tables = [table for point in (row, low, high) for table in (point.accuracy, point.leakage)]
    own, leaked, own0, leaked0, own1, leaked1 = (table.means for table in tables)
    if low is high:
        return Table(seeds, leaked - leaked0, paired=paired), None
    rise = (own1 - own0).mean()
    share, slope = (own - own0).mean() / rise, (leaked1 - leaked0).mean() / rise
    of_leakage = leaked - (1 - share) * leaked0 - share * leaked1
    of_accuracy = -slope * (own - (1 - share) * own0 - share * own1)
    if of_leakage.shape == of_accuracy.shape:
        return Table(seeds, of_leakage + of_accuracy, paired=paired), None
    return Table(seeds, of_leakage, paired=paired), Table(seeds, of_accuracy, paired=paired)


def _neighbours(accuracy: float, front: Sequence[Point]) -> tuple[Point, Point]:
    """The points between which the accuracy lies; twice the same beyond an end."""
    for low, high in pairwise(front):
        if low.place[0] <= accuracy < high.place[0]:
            return low, high
    end = front[0] if accuracy < front[0].place[0] else front[-1]
    return end, end


def _sum(one: Effect, other: Effect) -> Effect:
    """The sum of two effects that are taken to be independent, with Satterthwaite's degrees of freedom."""
    squares = one.error**2, other.error**2
    doubt = squares[0] ** 2 / one.freedom + squares[1] ** 2 / other.freedom
    freedom = sum(squares) ** 2 / doubt if doubt else min(one.freedom, other.freedom)
    return replace(
        one, value=one.value + other.value, error=math.hypot(one.error, other.error), freedom=freedom
    )
