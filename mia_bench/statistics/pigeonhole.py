"""The pigeonhole bootstrap, for statistics that are no means.

Owen, *The pigeonhole bootstrap*, Annals of Applied Statistics 1, 2007.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from mia_bench.api.metric import Array
from mia_bench.statistics.estimate import RESAMPLES

Counts: TypeAlias = npt.NDArray[np.int32]


def pigeonhole_median(seeds: Sequence[Sequence[Sequence[float]]], *, seed: int = 0) -> tuple[float, float]:
    """95 % percentile interval of the mean over seeds of the median over samples.

    Seeds are resampled, and independently of them classes, with all their samples.

    Args:
        seeds: for each seed the samples of each class; every seed has the same classes.
        seed: of the random numbers.

    Raises:
        ValueError: the seeds have different numbers of classes, or there are no samples.
    """
    if len({len(classes) for classes in seeds}) != 1 or not all(any(classes) for classes in seeds):
        raise ValueError("every seed needs samples of the same classes")
    drawn = np.ascontiguousarray(_times_drawn(len(seeds[0]), seed).T)
    medians = np.stack([_weighted_median(samples, drawn) for samples in seeds], axis=1)
    of_seeds = _times_drawn(len(seeds), seed + 1)
    low, high = np.quantile((medians * of_seeds).sum(1) / len(seeds), (0.025, 0.975))
    return float(low), float(high)


@cache
def _times_drawn(size: int, seed: int) -> Counts:
    """``(RESAMPLES, size)``: how often each of ``size`` things is drawn in ``size`` draws."""
    return np.random.default_rng(seed).multinomial(size, np.full(size, 1 / size), RESAMPLES).astype(np.int32)


def _weighted_median(classes: Sequence[Sequence[float]], drawn: Counts) -> Array:
    """The median ``(R,)`` of the samples when each class is there as often as ``drawn`` ``(C, R)`` says."""
    values = np.array([value for samples in classes for value in samples], dtype=np.float64)
    owners = np.repeat(np.arange(len(classes)), [len(samples) for samples in classes])
    order = np.argsort(values, kind="stable")
    values = values[order]
    totals = drawn[owners[order]]
    for before, here in pairwise(totals):  # running sums; np.cumsum takes three times as long
        here += before
    number = totals[-1]
    lower, upper = (_first_reaching(totals, bound) for bound in ((number + 1) // 2, number // 2 + 1))
    medians: Array = (values[lower] + values[upper]) / 2
    return medians


def _first_reaching(totals: Counts, bounds: Counts) -> npt.NDArray[np.intp]:
    """The first row of ``totals`` ``(S, R)``, which rise, of at least the bound, or the last; by column."""
    columns = np.arange(len(bounds))
    low, high = np.zeros(len(bounds), np.intp), np.full(len(bounds), len(totals) - 1)
    for _ in range(len(totals).bit_length()):
        middle = (low + high) // 2
        reached = totals[middle, columns] >= bounds
        low, high = np.where(reached, low, np.minimum(middle + 1, high)), np.where(reached, middle, high)
    return low
