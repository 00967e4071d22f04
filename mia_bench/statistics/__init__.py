"""Intervals of cells, rows and differences; docs/statistics.md explains the methods."""

from mia_bench.statistics.crossed import Effect, crossed_means, proportion_interval, weighted
from mia_bench.statistics.estimate import (
    RESAMPLES,
    Estimate,
    class_means,
    combine_seeds,
    estimate,
    point_estimate,
)
from mia_bench.statistics.letters import compact_letters
from mia_bench.statistics.multiple import adjusted_p_values, holm
from mia_bench.statistics.pigeonhole import pigeonhole_median

__all__ = [
    "RESAMPLES",
    "Effect",
    "Estimate",
    "adjusted_p_values",
    "class_means",
    "combine_seeds",
    "compact_letters",
    "crossed_means",
    "estimate",
    "holm",
    "pigeonhole_median",
    "point_estimate",
    "proportion_interval",
    "weighted",
]
