"""Many comparisons at once."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import TypeVar

from mia_bench.statistics.crossed import Effect

Name = TypeVar("Name", bound=Hashable)


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values adjusted to their number, in the same order.

    Rejecting those below a level keeps the chance of any wrong rejection below it, whatever the dependence
    (Holm, *Scandinavian Journal of Statistics* 6, 1979).
    """
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = largest
    return adjusted


def adjusted_p_values(effects: Mapping[Name, Effect]) -> dict[Name, float]:
    """The p-values of effects by name, adjusted by :func:`holm`."""
    return dict(zip(effects, holm([effect.p_value() for effect in effects.values()]), strict=True))
