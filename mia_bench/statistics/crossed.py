"""Means over seeds and classes, both random: crossed random effects.

A table ``(S, C)`` holds the mean of each class (column) for each seed (row). Its model is::

    y[s, c] = mean + a[s] + b[c] + e[s, c]

with independent effects of the seed, of the class, and of both together (which holds the sampling of
images). The standard error of the mean is for other seeds *and* other classes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from etils.epy import lazy_imports

from mia_bench.api.metric import Array

with lazy_imports():
    from scipy import special

OUTLYING = 0.01
"""A row whose seeds differ so much that chance does it in fewer sections than this is not pooled."""

SHARED = 1 / 8
"""Correlation between the mean squares of two rows, which lowers the degrees of freedom of their mean.

It is 0 for rows that have nothing in common and about 1/4 for differences from one baseline."""

AGREEMENT = 1 / 4
"""At most this share is taken from the variance of a mean whose seeds agree better than by chance.

Where seeds make no difference they do so in more than half of the cases: if nothing were taken, the variance
would be too large on average. All of it would be too much, as the mean square of a few seeds is hardly known:
nothing is taken where it has four degrees of freedom or fewer, and the whole share from eight on. The numbers
are those with which the intervals of ``docs/simulate_intervals.py`` hold as often as they should."""

_ROUNDING = 1e-12
"""What is left of a table, as a share of its largest entry, that is but rounding."""

_NORMAL = NormalDist().inv_cdf(0.975)


@dataclass(frozen=True)
class Effect:
    """A mean over seeds and classes, or a difference of two, with what its intervals follow from.

    Attributes:
        value: the mean.
        error: its standard error, for other seeds and other classes.
        freedom: degrees of freedom of the standard error.
        seeds: how many it rests on; with one, ``error`` is for other classes only.
        classes: how many it rests on.
    """

    value: float
    error: float
    freedom: float
    seeds: int
    classes: int

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Both ends of the interval that holds the true value with probability ``level``."""
        half = float(special.stdtrit(self.freedom, (1 + level) / 2)) * self.error
        return self.value - half, self.value + half

    @property
    def bound(self) -> float:
        """What the true value's size does not exceed: the end of the 95 % interval that is farther from 0."""
        return max(map(abs, self.interval()))

    def p_value(self, null: float = 0.0) -> float:
        """Two-sided p-value of the hypothesis that the true value is ``null``."""
        distance = abs(self.value - null)
        if distance == 0:
            return 1.0
        return 2 * float(special.stdtr(self.freedom, -distance / self.error)) if self.error else 0.0


@dataclass(frozen=True)
class _Squares:
    """Mean squares of a table.

    Attributes:
        seeds: ``(S,)`` mean of each seed minus the mean of all.
        by_class, rest: mean squares of the classes and of what is left.
    """

    mean: float
    seeds: Array
    by_class: float
    rest: float
    classes: int

    @property
    def by_seed(self) -> float:
        """Mean square of the seeds."""
        return self.classes * float(np.square(self.seeds).sum()) / (len(self.seeds) - 1)

    @property
    def ratio(self) -> float:
        """Mean square of the seeds over that of what is left; 1 where seeds make no difference."""
        return self.by_seed / self.rest


def _squares(table: Array) -> _Squares:
    seeds, classes = table.shape
    mean = float(table.mean())
    by_seed, by_class = table.mean(1) - mean, table.mean(0) - mean
    rest = table - mean - by_seed[:, None] - by_class
    for left in (by_seed, by_class, rest):
        left[np.abs(left) < _ROUNDING * np.abs(table).max()] = 0
    return _Squares(
        mean,
        by_seed,
        seeds * float(np.square(by_class).sum()) / (classes - 1),
        float(np.square(rest).sum()) / ((seeds - 1) * (classes - 1)),
        classes,
    )


def crossed_means(tables: Sequence[Array]) -> list[Effect]:
    """The mean of each table ``(S, C)``, whose rows are the same seeds in all of them.

    The variance of a mean is ``(MS_seed + MS_class - MS_rest) / (S C)``, its degrees of freedom are
    Satterthwaite's (*Biometrics Bulletin* 2, 1946). ``MS_seed`` may be below ``MS_rest``; see
    :data:`AGREEMENT`. With few seeds ``MS_seed`` is hardly known, so it is
    pooled over the tables: they share the ratio ``MS_seed / MS_rest``, a pure number, so that a row near the
    floor, where nothing varies, is not given the variance of the others. A table whose seeds differ by far
    more than the others' keeps its own.

    With one seed the error is that of the classes alone; with one class, that of the seeds alone.

    Raises:
        ValueError: different numbers of seeds, or one seed and one class.
    """
    if len({len(table) for table in tables}) > 1:
        raise ValueError("the tables have different numbers of seeds")
    crossed = {number: _squares(table) for number, table in enumerate(tables) if min(table.shape) > 1}
    pooled = _pooled({number: one for number, one in crossed.items() if one.rest > 0})
    own = {number: (one.by_seed, len(one.seeds) - 1.0) for number, one in crossed.items()}
    by_seed = own | {n: (ratio * crossed[n].rest, freedom) for n, (ratio, freedom) in pooled.items()}
    return [
        _crossed(crossed[number], *by_seed[number]) if number in crossed else _one_way(table)
        for number, table in enumerate(tables)
    ]


def _one_way(table: Array) -> Effect:
    """The mean of one row or one column of numbers."""
    seeds, classes = table.shape
    if table.size < 2:
        raise ValueError("one seed and one class have no interval")
    spread = float(table.std(ddof=1))
    error = spread / math.sqrt(table.size) if spread > _ROUNDING * np.abs(table).max() else 0.0
    return Effect(float(table.mean()), error, table.size - 1, seeds, classes)


def _crossed(table: _Squares, by_seed: float, freedom: float) -> Effect:
    """The mean of a table.

    Args:
        by_seed: what the mean square of the seeds is taken to be; where it is not above that of the rest,
            seeds make no difference, and the degrees of freedom are those of the classes.
        freedom: its degrees of freedom.
    """
    seeds, classes = len(table.seeds), table.classes
    by_class, rest = table.by_class, table.rest
    share = AGREEMENT * min(max(freedom / 4 - 1, 0.0), 1.0)
    variance = by_class + max(by_seed - rest, -share * min(by_class, rest))
    left = classes - 1.0
    if by_seed > rest:
        doubt = by_seed**2 / freedom + (by_class**2 + rest**2 / (seeds - 1)) / (classes - 1)
        # The subtraction can leave less than any of the parts have.
        left = max(variance**2 / doubt, min(freedom, classes - 1.0))
    error = math.sqrt(variance / (seeds * classes))
    return Effect(table.mean, error, left, seeds, classes)


def _pooled(tables: Mapping[int, _Squares]) -> dict[int, tuple[float, float]]:
    """For each table the ratio of mean squares to use, and its degrees of freedom."""
    kept, found = dict(tables), {}
    while len(kept) > 1:
        number, most = max(kept.items(), key=lambda item: item[1].ratio)
        others = [one for other, one in kept.items() if other != number]
        ratio, freedom = _pool(others)
        own = len(most.seeds) - 1
        if special.fdtrc(own, freedom, most.ratio / max(ratio, 1.0)) > OUTLYING / len(kept):
            break
        found[number] = (most.ratio, float(own))
        del kept[number]
    return {**found, **dict.fromkeys(kept, _pool(list(kept.values())))} if kept else found


def _pool(tables: Sequence[_Squares]) -> tuple[float, float]:
    """Mean ratio of mean squares, and its degrees of freedom."""
    rows, own = len(tables), len(tables[0].seeds) - 1
    return sum(one.ratio for one in tables) / rows, rows * own / (1 + (rows - 1) * SHARED)


def weighted(table: Array, counts: Sequence[int] | Sequence[Sequence[int]]) -> Array:
    """A table ``(S, C)`` of which the plain mean of each row is the mean over the row's samples.

    ``counts`` ``(C,)`` or ``(S, C)`` are the samples of each class.

    The mean over samples is a ratio, that of the sum over samples to their number. The entries are its
    linearised residuals (Särndal, Swensson, Wretman, *Model Assisted Survey Sampling*, section 5.5), moved to
    the mean of the row. A class that weighs more draws this mean nearer to itself, so that residuals are too
    small. They are enlarged so that the variance of the mean is estimated without bias where all classes vary
    alike (as by Bell and McCaffrey, *Survey Methodology* 28, 2002).
    """
    weights = np.asarray(counts, dtype=np.float64)
    weights /= weights.mean(axis=-1, keepdims=True)
    mean = float((table * weights).mean())
    moved = weights * (table - mean) + mean
    by_seed: Array = moved.mean(axis=1, keepdims=True)
    squares, cubes = (np.power(weights, power).mean(axis=-1, keepdims=True) for power in (2, 3))
    classes = table.shape[1]
    left = (classes - 2 * cubes / squares + squares) / max(classes - 1, 1)
    enlarged = np.divide(moved - by_seed, np.sqrt(left), where=left > 0, out=np.zeros_like(moved))
    return np.asarray(by_seed + enlarged, dtype=np.float64)


def bounded_interval(effect: Effect, least: float, most: float) -> tuple[float, float]:
    """95 % interval of a mean of numbers between two bounds, not symmetrical near either.

    It is that of the logit of the mean's place between them, whose error follows by the delta method: near a
    bound means are skewed, and an interval to both sides alike holds the true one too seldom.
    """
    place = (effect.value - least) / (most - least)
    if not (effect.error and 0 < place < 1):
        return effect.interval()
    half = (effect.interval()[1] - effect.value) / (most - least) / (place * (1 - place))
    ends = special.expit(special.logit(place) + np.array([-half, half]))
    low, high = least + (most - least) * ends
    return float(low), float(high)


def design_effect(shares: Iterable[tuple[Effect, int]]) -> float:
    """By what factor the variance of shares is above that of as many independent samples.

    Kish, *Survey Sampling*, 1965, section 8.2; that of several shares together, at least 1. Infinite where
    none of them varies.

    Args:
        shares: each with the number of its samples.
    """
    varied = [(effect, n) for effect, n in shares if effect.error]
    independent = sum(effect.value * (1 - effect.value) for effect, _ in varied)
    found = sum(effect.error**2 * n for effect, n in varied)
    return max(found / independent, 1.0) if independent > 0 else math.inf


def proportion_interval(effect: Effect, n: int, design: float = math.inf) -> tuple[float, float]:
    """95 % interval of a share, not symmetrical near 0 and 1.

    It is that of Clopper and Pearson (1934) for as many independent samples as would have the same standard
    error, corrected for the degrees of freedom (Korn and Graubard, *Survey Methodology* 24, 1998). A share of
    0 or 1 has no spread: then it has the design effect of others, or every class is a sample if that makes
    more.

    Args:
        effect: the share.
        n: the number of samples it rests on, at most which many are effective.
        design: the :func:`design_effect` of other shares of its section.
    """
    share = effect.value
    if 0 < share < 1:
        effective = float(n)
        if effect.error:
            effective = min(n, share * (1 - share) / effect.error**2 * _students(effect.freedom))
    else:
        effective = max(n / design * _students(effect.classes - 1.0), float(effect.classes))
    hits = share * effective
    low = float(special.betaincinv(hits, effective - hits + 1, 0.025)) if share > 0 else 0.0
    high = float(special.betaincinv(hits + 1, effective - hits, 0.975)) if share < 1 else 1.0
    return low, high


def _students(freedom: float) -> float:
    """By what factor fewer samples are effective where the variance has few degrees of freedom."""
    return (_NORMAL / float(special.stdtrit(freedom, 0.975))) ** 2 if freedom else 0.0
