"""From the records of several seeds to one row."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import TypeAlias

import numpy as np

from mia_bench.api.metric import Quantity
from mia_bench.leaderboard.grouping import ComponentKey, by_seed, row_key
from mia_bench.leaderboard.tables import Table, class_table, effects
from mia_bench.record import Record
from mia_bench.recorded_options import options_text
from mia_bench.statistics import (
    Effect,
    Estimate,
    Samples,
    below_median,
    bounded_interval,
    combine_seeds,
    design_effect,
    median_interval,
    proportion_interval,
)

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
        key: the defense with its options; None where the row is of none.
        cost: mean over the seeds of each cost that was recorded.
        label: what stands before the name: ``floor``, say; empty for ordinary rows.
    """

    defense: str
    options: str
    seeds: tuple[int, ...]
    metrics: Mapping[str, Shown]
    cost: Mapping[str, float] = field(default_factory=dict)
    label: str = ""
    key: ComponentKey | None = None

    def value(self, name: str) -> float | None:
        """The quantity's value, None where it is missing."""
        found = self.metrics.get(name)
        return found.value if isinstance(found, Estimate) else None


def make_row(records: Sequence[Record], quantities: Quantities, label: str = "") -> Row:
    """The row of one setting of a defense, by itself."""
    return make_rows([records], quantities, label)[0]


def make_rows(rows: Sequence[Sequence[Record]], quantities: Quantities, label: str = "") -> list[Row]:
    """The rows of settings of defenses; what seeds vary by is pooled over them."""
    found: list[dict[str, Shown]] = [{} for _ in rows]
    for name, quantity in quantities.items():
        for metrics, one in zip(found, combine(name, quantity, rows), strict=True):
            metrics[name] = one
    return [_row(records, metrics, label) for records, metrics in zip(rows, found, strict=True)]


def _row(records: Sequence[Record], metrics: Mapping[str, Shown], label: str) -> Row:
    defense = records[0].defense
    costs = {
        name: [cost for record in records if (cost := getattr(record.cost, name)) is not None]
        for name in ("train_seconds", "invert_seconds", "target_queries")
    }
    return Row(
        defense.name,
        options_text(defense.options),
        tuple(by_seed(records)),
        metrics,
        {name: float(np.mean(found)) for name, found in costs.items() if found},
        label,
        row_key(records[0]),
    )


def combine(name: str, quantity: Quantity, rows: Sequence[Sequence[Record]]) -> list[Shown]:
    """A quantity of each row over its seeds, with the interval that :func:`shown` leaves it.

    The interval rests on class means or on single images where all seeds of a row have them; else those of
    the cells are combined. A seed that lacks the quantity makes the whole missing: leaving the seed out
    would choose among seeds.
    """
    samples = [_samples(quantity, records) if quantity.kind == "rank" else None for records in rows]
    tables = [_table(name, *row) for row in zip(rows, samples, strict=True)]
    found = list(zip((_over_seeds(name, records) for records in rows), effects(tables), strict=True))
    known = [(effect, one.n) for one, effect in found if effect and isinstance(one, Estimate)]
    designs = _designs(known) if quantity.kind == "share" else {}
    most = _most(name, quantity, rows)
    made = []
    for (one, effect), images in zip(found, samples, strict=True):
        ends = None
        if effect and isinstance(one, Estimate) and effect.seeds > 1:
            design = designs.get((effect.seeds, effect.classes), math.inf)
            ends = _interval(quantity, effect, images, most, one.n, design)
        made.append(_shown(quantity, one, ends))
    return made


def _designs(shares: Iterable[tuple[Effect, int]]) -> dict[tuple[int, int], float]:
    """The design effect of the shares of as many seeds and classes, each given with its number of samples."""
    sizes = defaultdict(list)
    for effect, n in shares:
        sizes[effect.seeds, effect.classes].append((effect, n))
    return {size: design_effect(same) for size, same in sizes.items()}


def _table(name: str, records: Sequence[Record], samples: Samples | None) -> Table | None:
    """What the interval rests on; None where a seed lacks it."""
    seeds = tuple(by_seed(records))
    if samples:
        return Table(seeds, below_median(samples))
    table = class_table(name, records)
    return table if table and table.seeds == seeds else None


def _over_seeds(name: str, records: Sequence[Record]) -> Shown:
    """The mean, with the interval that follows from those of the cells."""
    estimates, reasons = [], {}
    for seed, same in by_seed(records).items():
        if found := measured(name, same):
            estimates.append(found)
        else:
            given = [r.notes.get(name, "no reason recorded") for r in same if name in r.metrics]
            reasons[seed] = given[0] if given else "these records do not report it"
    if not reasons:
        return combine_seeds(estimates)
    if not estimates and len(set(reasons.values())) == 1:
        return Missing(next(iter(reasons.values())))
    return Missing("; ".join(f"seed {seed}: {reason}" for seed, reason in reasons.items()))


def _interval(
    quantity: Quantity, effect: Effect, samples: Samples | None, most: float, n: int, design: float
) -> tuple[float, float]:
    """The interval of several seeds.

    Args:
        most: the largest value that the quantity can have.
        n: the number of its samples.
        design: the design effect of the shares of its section.
    """
    if samples:
        return median_interval(samples, effect)
    if quantity.kind == "share":
        return proportion_interval(effect, n, design)
    if most < math.inf:
        return bounded_interval(effect, quantity.bounds[0], most)
    return effect.interval()


def _most(name: str, quantity: Quantity, rows: Sequence[Sequence[Record]]) -> float:
    """The largest value that a quantity can have: of bits log2 of the gallery's size, which ranks tell."""
    for record in chain.from_iterable(rows):
        metric, classes = record.metrics.get(name), record.per_image.get(quantity.ranks, ())
        ranks = [rank for images in classes for rank in images]
        if metric and ranks and min(ranks) >= 1:
            return metric.value + float(np.log2(ranks).mean())
    return quantity.bounds[1]


def _shown(quantity: Quantity, mean: Shown, ends: tuple[float, float] | None) -> Shown:
    if isinstance(mean, Missing):
        return mean
    if ends:
        # Records round class means; the mean of medians can be outside the interval of the median of all.
        mean = replace(mean, low=min(ends[0], mean.value), high=max(ends[1], mean.value))
    return shown(quantity, mean)


def _samples(quantity: Quantity, records: Sequence[Record]) -> Samples | None:
    """The images; None where a seed or a class lacks them."""
    found = [
        next((r.per_image[quantity.per_image] for r in same if quantity.per_image in r.per_image), None)
        for same in by_seed(records).values()
    ]
    complete = [classes for classes in found if classes and all(classes)]
    same = len({len(classes) for classes in complete}) == 1
    return complete if same and len(complete) == len(found) else None


def measured(name: str, records: Sequence[Record]) -> Estimate | None:
    """A quantity that is the same in all ``records`` that have it; the mean where trainings differ."""
    found = [metric for record in records if (metric := record.metrics.get(name))]
    if not found:
        return None
    value = _mean([one.value for one in found])
    lows = [one.low for one in found if one.low is not None]
    highs = [one.high for one in found if one.high is not None]
    n = max(one.n for one in found)
    if len(lows) < len(found) or len(highs) < len(found):
        return Estimate(value, None, None, n)
    return Estimate(value, _mean(lows), _mean(highs), n)


def _mean(values: Sequence[float]) -> float:
    """The mean of numbers that are mostly one and the same."""
    return values[0] if min(values) == max(values) else float(np.mean(values))


def shown(quantity: Quantity, estimate: Estimate) -> Estimate:
    """The interval cut at the values that the quantity can have; without one where the quantity has none.

    Records from before a quantity lost its interval still hold one.
    """
    if not quantity.interval or estimate.low is None or estimate.high is None:
        return estimate.without_interval()
    lowest, highest = quantity.bounds
    return replace(estimate, low=max(estimate.low, lowest), high=min(estimate.high, highest))
