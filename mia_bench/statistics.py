"""Intervals: bootstrap over classes within a seed, and the spread across seeds.

A class is the unit that generalises (another set of people), so whole classes are resampled, with
all their samples. Across seeds the board needs an interval for the mean over retrained targets:
see :func:`combine_seeds`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mia_bench.api.metric import Measurement

RESAMPLES = 1000

# 97.5 % points of Student's t with 1, 2, 3 … degrees of freedom; the normal's beyond the table.
_STUDENT = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228,
    2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086,
)  # fmt: skip


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval and how many samples it rests on."""

    value: float
    low: float
    high: float
    n: int


def estimate(measurement: Measurement, *, seed: int = 0) -> Estimate:
    """The statistic and its percentile interval over :data:`RESAMPLES` resamplings of classes.

    With one class there is nothing to resample and the samples are resampled instead.
    """
    values, groups = measurement.values, measurement.groups
    members = [np.flatnonzero(groups == g) for g in np.unique(groups)]
    if len(members) == 1:
        members = [np.array([i]) for i in range(len(values))]
    rng = np.random.default_rng(seed)
    picks = rng.integers(0, len(members), size=(RESAMPLES, len(members)))
    statistics = [
        measurement.statistic(values[np.concatenate([members[i] for i in pick])]) for pick in picks
    ]
    low, high = np.quantile(statistics, [0.025, 0.975])
    return Estimate(float(measurement.statistic(values)), float(low), float(high), len(values))


def student_t(degrees: int) -> float:
    """The two-sided 95 % point of Student's t distribution."""
    return _STUDENT[degrees - 1] if degrees <= len(_STUDENT) else 1.96


def combine_seeds(seeds: Sequence[Estimate]) -> Estimate:
    """Mean over seeds, with an interval for other seeds *and* other classes.

    Two sources of error are added in quadrature: the spread across seeds, Student's
    ``t · s / √S`` on S seeds, and the mean half-width of the class bootstraps, which does not shrink
    with seeds because all seeds share their classes. The second already holds part of the first's
    noise, so the interval is on the wide side. Each side keeps its own width, so a proportion's
    interval stays as skewed as its bootstraps say. With one seed it is that seed's own interval.
    """
    if not seeds:
        raise ValueError("no seeds to combine")
    values = np.array([s.value for s in seeds])
    mean = float(values.mean())
    spread = 0.0
    if len(values) > 1:
        spread = student_t(len(values) - 1) * float(values.std(ddof=1)) / math.sqrt(len(values))
    below = float(np.mean([s.value - s.low for s in seeds]))
    above = float(np.mean([s.high - s.value for s in seeds]))
    return Estimate(
        mean,
        mean - math.hypot(spread, below),
        mean + math.hypot(spread, above),
        sum(s.n for s in seeds),
    )
