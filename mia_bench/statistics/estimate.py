"""The numbers of one cell: bootstrap over its classes.

A class is the unit that generalises (another set of people), so whole classes are resampled, with
all their samples.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from etils.epy import lazy_imports

from mia_bench.api.metric import Array, Measurement, mean

with lazy_imports():
    from scipy import special

Classes: TypeAlias = npt.NDArray[np.int64]

RESAMPLES = 1000

_NORMAL = NormalDist()


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval, if it has one, and how many samples it rests on."""

    value: float
    low: float | None
    high: float | None
    n: int

    @property
    def interval(self) -> tuple[float, float]:
        """Both ends; raise ValueError where there are none."""
        if self.low is None or self.high is None:
            raise ValueError("the number has no interval")
        return self.low, self.high

    @property
    def ends(self) -> tuple[float, float]:
        """Both ends; the value twice where there are none."""
        return (self.value, self.value) if self.low is None or self.high is None else self.interval

    @property
    def is_sound(self) -> bool:
        """Whether all that is there is finite, the value is in its interval, and it rests on samples."""
        low, high = self.ends
        return -math.inf < low <= self.value <= high < math.inf and self.n > 0

    def without_interval(self) -> Estimate:
        """The value alone."""
        return replace(self, low=None, high=None)


def point_estimate(measurement: Measurement) -> Estimate:
    """The statistic without an interval; the errors are those of :func:`estimate`."""
    values = measurement.values
    if not len(values):
        raise ValueError("no samples")
    return Estimate(_statistic(measurement), None, None, len(values))


def _statistic(measurement: Measurement) -> float:
    value = float(measurement.statistic(measurement.values))
    if not math.isfinite(value):
        raise ValueError(f"the value is {value}")
    return value


def estimate(measurement: Measurement, *, share: bool = False, seed: int = 0) -> Estimate:
    """The statistic and its interval over :data:`RESAMPLES` resamplings of classes.

    The interval is Efron's bias-corrected percentile interval (*The Jackknife, the Bootstrap and Other
    Resampling Plans*, SIAM 1982, section 10.7), cut to hold the value; without the correction the
    interval of a biased statistic such as the calibration error can miss it. Where every sample of a share
    is 0, or every one is 1, resampling shows no spread: the interval is then the exact one for as many
    classes without an exception (Clopper and Pearson 1934), in closed form. With one class there is nothing
    to resample and the samples are resampled instead.

    Args:
        share: whether the value is the share of samples that are 1.

    Raises:
        ValueError: there are no samples, or the statistic is not finite.
    """
    values = measurement.values
    if not len(values):
        raise ValueError("no samples")
    if share and values.ndim == 1 and (np.all(values == 0) or np.all(values == 1)):
        margin = 1 - 0.025 ** (1 / (int(_members(measurement).max()) + 1))
        low, high = (0.0, margin) if values[0] == 0 else (1 - margin, 1.0)
        return Estimate(float(values[0]), low, high, len(values))
    return _bootstrap(measurement, seed)


def _members(measurement: Measurement) -> Classes:
    """Which of the things to resample each sample belongs to, from 0."""
    _, members = np.unique(measurement.groups, return_inverse=True)
    return members if members.max() else np.arange(len(members))


def _bootstrap(measurement: Measurement, seed: int = 0) -> Estimate:
    """The statistic and its bias-corrected percentile interval."""
    value = _statistic(measurement)
    members = _members(measurement)
    classes = int(members.max()) + 1
    picks = np.random.default_rng(seed).integers(0, classes, size=(RESAMPLES, classes))
    resampled = _resampled(measurement, members, picks)
    below = np.mean(resampled < value) + np.mean(resampled == value) / 2
    edge = 0.5 / RESAMPLES
    bias = _NORMAL.inv_cdf(min(max(float(below), edge), 1 - edge))
    shares = [_NORMAL.cdf(2 * bias + side * _NORMAL.inv_cdf(0.975)) for side in (-1, 1)]
    low, high = map(float, np.quantile(resampled, shares))
    return Estimate(value, min(low, value), max(high, value), len(measurement.values))


def _resampled(measurement: Measurement, members: Classes, picks: Classes) -> Array:
    """The statistic of each resampling; ``picks`` ``(R, C)`` are the classes drawn."""
    values = measurement.values
    if measurement.statistic is mean and values.ndim == 1:
        sums = np.bincount(members, weights=values)
        counts = np.bincount(members)
        means: Array = sums[picks].sum(1) / counts[picks].sum(1)
        return means
    rows = [np.flatnonzero(members == number) for number in range(picks.shape[1])]
    return np.array([measurement.statistic(values[np.concatenate([rows[i] for i in p])]) for p in picks])


def combine_seeds(seeds: Sequence[Estimate]) -> Estimate:
    """Mean over seeds, with an interval for other seeds *and* other classes.

    Two sources of error are added in quadrature: the spread across seeds, Student's
    ``t · s / √S`` on S seeds, and the mean half-width of the class bootstraps, which does not shrink
    with seeds because all seeds share their classes. The second already holds part of the first's
    noise, so the interval is on the wide side. Each side keeps its own width, so a proportion's
    interval stays as skewed as its bootstraps say. With one seed it is that seed's own interval. Where a seed
    has no interval, the mean has none.
    """
    if not seeds:
        raise ValueError("no seeds to combine")
    values = np.array([s.value for s in seeds])
    # The mean of equal numbers can differ from them in the last bit.
    centre = float(values[0] if np.ptp(values) == 0 else values.mean())
    n = sum(s.n for s in seeds)
    if any(s.low is None or s.high is None for s in seeds):
        return Estimate(centre, None, None, n)
    lows, highs = zip(*(s.interval for s in seeds), strict=True)
    return _widened(centre, float(np.mean(values - lows)), float(np.mean(highs - values)), values, n)


def _widened(value: float, below: float, above: float, seeds: Array, n: int) -> Estimate:
    """Half-widths ``below`` and ``above`` the value with the spread of the ``seeds`` ``(S,)``."""
    spread = 0.0
    if len(seeds) > 1:
        student_t = float(special.stdtrit(len(seeds) - 1, 0.975))  # the two-sided 95 % point
        deviation = 0.0 if np.ptp(seeds) == 0 else float(seeds.std(ddof=1))
        spread = student_t * deviation / math.sqrt(len(seeds))
    return Estimate(value, value - math.hypot(spread, below), value + math.hypot(spread, above), n)


def class_means(measurement: Measurement) -> list[float]:
    """The mean of each class's samples ``(N,)``, in the order of the classes."""
    _, members = np.unique(measurement.groups, return_inverse=True)
    counts = np.bincount(members)
    return list(map(float, np.bincount(members, weights=measurement.values) / counts))
