"""From the records of several seeds to one row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import numpy as np

from mia_bench.api.metric import Quantity
from mia_bench.leaderboard.grouping import by_seed
from mia_bench.record import Record
from mia_bench.recorded_options import options_text
from mia_bench.statistics import Estimate, combine_seeds

FEW_SEEDS = 3
"""Rows with fewer seeds than this are marked."""

Quantities: TypeAlias = Mapping[str, Quantity]
"""By name, in the order of columns."""


@dataclass(frozen=True)
class Missing:
    """A quantity that has no value in a row, and why."""

    reason: str


Shown: TypeAlias = Estimate | Missing


@dataclass(frozen=True)
class Row:
    """A defense with its options, over seeds.

    Attributes:
        options: all of them, ``key=value, …``; the same wherever the page is built.
        cost: mean over the seeds of each cost that was recorded.
        label: what stands before the name: ``floor``, say; empty for ordinary rows.
    """

    defense: str
    options: str
    seeds: tuple[int, ...]
    metrics: Mapping[str, Shown]
    cost: Mapping[str, float] = field(default_factory=dict)
    label: str = ""

    def value(self, name: str) -> float | None:
        """The quantity's value, None where it is missing."""
        found = self.metrics.get(name)
        return found.value if isinstance(found, Estimate) else None


def make_row(records: Sequence[Record], quantities: Quantities, label: str = "") -> Row:
    """The row of one setting of a defense."""
    defense = records[0].defense
    costs = {
        name: [cost for record in records if (cost := getattr(record.cost, name)) is not None]
        for name in ("train_seconds", "invert_seconds", "target_queries")
    }
    return Row(
        defense.name,
        options_text(defense.options),
        tuple(by_seed(records)),
        {name: combine(name, quantity, records) for name, quantity in quantities.items()},
        {name: float(np.mean(found)) for name, found in costs.items() if found},
        label,
    )


def combine(name: str, quantity: Quantity, records: Sequence[Record]) -> Shown:
    """A quantity over the seeds of ``records``, with the interval that :func:`shown` leaves it.

    A seed that lacks it makes the whole missing: leaving the seed out would choose among seeds.
    """
    estimates, reasons = [], {}
    for seed, same in by_seed(records).items():
        if found := measured(name, same):
            estimates.append(found)
        else:
            given = [r.notes.get(name, "no reason recorded") for r in same if name in r.metrics]
            reasons[seed] = given[0] if given else "not measured for this row"
    if not reasons:
        return shown(quantity, combine_seeds(estimates))
    if not estimates and len(set(reasons.values())) == 1:
        return Missing(next(iter(reasons.values())))
    return Missing("; ".join(f"seed {seed}: {reason}" for seed, reason in reasons.items()))


def measured(name: str, records: Sequence[Record]) -> Estimate | None:
    """A quantity that is the same in all ``records`` that have it: they differ by rounding only."""
    found = [metric for record in records if (metric := record.metrics.get(name))]
    if not found:
        return None
    value = float(np.mean([one.value for one in found]))
    lows = [one.low for one in found if one.low is not None]
    highs = [one.high for one in found if one.high is not None]
    n = max(one.n for one in found)
    if len(lows) < len(found) or len(highs) < len(found):
        return Estimate(value, None, None, n)
    return Estimate(value, float(np.mean(lows)), float(np.mean(highs)), n)


def shown(quantity: Quantity, estimate: Estimate) -> Estimate:
    """The interval cut at the values that the quantity can have; without one where the quantity has none.

    Records from before a quantity lost its interval still hold one.
    """
    if not quantity.interval or estimate.low is None or estimate.high is None:
        return estimate.without_interval()
    lowest, highest = quantity.bounds
    return replace(estimate, low=max(estimate.low, lowest), high=min(estimate.high, highest))
