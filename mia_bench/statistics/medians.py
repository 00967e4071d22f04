"""Intervals of medians over seeds and classes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import TypeAlias

import numpy as np

from mia_bench.api.metric import Array
from mia_bench.statistics.crossed import Effect, weighted

Samples: TypeAlias = Sequence[Sequence[Sequence[float]]]
"""For each seed the samples of each class; every seed has the same classes."""


def below_median(seeds: Samples) -> Array:
    """The table ``(S, C)`` of the shares of a class's samples that lie below the median of all samples.

    Samples that equal the median count half. The mean of the table is the mean over samples.

    Raises:
        ValueError: the seeds have different numbers of classes, or a class has no samples.
    """
    numbers = {len(classes) for classes in seeds}
    if len(numbers) != 1 or 0 in numbers or not all(map(len, chain.from_iterable(seeds))):
        raise ValueError("every seed needs samples of the same classes")
    samples = _pooled(seeds)
    below = np.heaviside(np.median(samples) - samples, 0.5)
    counts = np.array([list(map(len, classes)) for classes in seeds])
    firsts = np.cumsum(counts) - counts.ravel()
    return weighted(np.add.reduceat(below, firsts).reshape(counts.shape) / counts, counts.tolist())


def median_interval(seeds: Samples, below: Effect) -> tuple[float, float]:
    """95 % interval of the median.

    A median is where half of the samples lie below. How well that share is known for other seeds and other
    classes says between which quantiles of the samples the median lies (Woodruff, *Journal of the American
    Statistical Association* 47, 1952).

    Args:
        below: the mean of the table of :func:`below_median`.
    """
    low, high = below.interval()
    half = (high - low) / 2
    ends = np.quantile(_pooled(seeds), np.clip((0.5 - half, 0.5 + half), 0, 1))
    return float(ends[0]), float(ends[1])


def _pooled(seeds: Samples) -> Array:
    return np.array(list(chain.from_iterable(chain.from_iterable(seeds))), dtype=np.float64)
