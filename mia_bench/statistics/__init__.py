"""Intervals of cells, rows and differences; docs/statistics.md explains the methods."""

from mia_bench.statistics.crossed import (
    Effect,
    bounded_interval,
    crossed_means,
    design_effect,
    proportion_interval,
    weighted,
)
from mia_bench.statistics.estimate import (
    RESAMPLES,
    Estimate,
    class_means,
    combine_seeds,
    estimate,
    point_estimate,
)
from mia_bench.statistics.letters import compact_letters
from mia_bench.statistics.medians import Samples, below_median, median_interval
from mia_bench.statistics.multiple import adjusted_p_values, holm

__all__ = [
    "RESAMPLES",
    "Effect",
    "Estimate",
    "Samples",
    "adjusted_p_values",
    "below_median",
    "bounded_interval",
    "class_means",
    "combine_seeds",
    "compact_letters",
    "crossed_means",
    "design_effect",
    "estimate",
    "holm",
    "median_interval",
    "point_estimate",
    "proportion_interval",
    "weighted",
]
