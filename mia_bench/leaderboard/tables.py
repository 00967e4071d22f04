"""Tables of class means, one row for each seed, from records."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, Self, TypeVar

import numpy as np

from mia_bench.api.metric import Array
from mia_bench.leaderboard.conditions import Conditions, conditions
from mia_bench.leaderboard.grouping import by_seed
from mia_bench.record import Record
from mia_bench.statistics import Effect, crossed_means, proportion_interval, weighted


@dataclass(frozen=True)
class Table:
    """Means of classes for each seed; the mean of all is the mean over samples.

    Attributes:
        means: ``(S, C)``; where classes have unequal numbers of samples, see
            :func:`mia_bench.statistics.weighted`.
        conditions: what each seed was computed under; empty where that is not known.
        paired: of differences, whether both were computed under the same conditions.
    """

    seeds: tuple[int, ...]
    means: Array
    conditions: tuple[frozenset[Conditions], ...] = ()
    paired: bool = True

    def on(self, seeds: Sequence[int]) -> Array:
        """The rows of these seeds."""
        return self.means[[self.seeds.index(seed) for seed in seeds]]

    def cut(self, seeds: Sequence[int]) -> Table:
        """The table of these seeds alone."""
        under = dict(zip(self.seeds, self.conditions, strict=False))
        known = tuple(under[seed] for seed in seeds if seed in under)
        return replace(self, seeds=tuple(seeds), means=self.on(seeds), conditions=known)

    def seeds_with(self, other: Table, *, beside: bool = False) -> tuple[int, ...]:
        """The seeds that both have under the same conditions.

        What does not depend on the attack has those of all attacks; one in common is enough.

        Args:
            beside: also those of other conditions on the same kind of device.
        """

        def fit(one: frozenset[Conditions], two: frozenset[Conditions]) -> bool:
            if not beside:
                return one == two or bool(one & two)
            return not {found.device for found in one}.isdisjoint(found.device for found in two)

        nothing = frozenset[Conditions]()
        mine, theirs = (dict(zip(table.seeds, table.conditions, strict=False)) for table in (self, other))
        both = (seed for seed in self.seeds if seed in other.seeds)
        return tuple(seed for seed in both if fit(mine.get(seed, nothing), theirs.get(seed, nothing)))

    def minus(self, other: Table, *, beside: bool = False) -> Table | None:
        """The differences on the seeds of :func:`common`; None without any, or where the classes differ."""
        seeds, paired = common(self, other, beside=beside)
        if not seeds or self.means.shape[1] != other.means.shape[1]:
            return None
        return Table(seeds, self.on(seeds) - other.on(seeds), paired=paired)


class _Seeded(Protocol):
    def seeds_with(self, other: Self, *, beside: bool = False) -> tuple[int, ...]: ...


Rows = TypeVar("Rows", bound=_Seeded)

Name = TypeVar("Name")


def common(one: Rows, other: Rows, *, beside: bool) -> tuple[tuple[int, ...], bool]:
    """The seeds on which two rows are compared, and whether they are paired.

    Rounding makes trainings under other conditions diverge as another seed does: differences on such seeds
    vary as those of two independent sets of seeds, and only what classes vary by cancels out of them.

    Args:
        beside: take the seeds of other conditions, too, where fewer than two can be paired.
    """
    seeds = one.seeds_with(other)
    if beside and len(seeds) < 2 and len(every := one.seeds_with(other, beside=True)) > len(seeds):
        return every, False
    return seeds, True


def class_table(name: str, records: Sequence[Record]) -> Table | None:
    """The class means of a quantity on the seeds that have them; None where none has.

    Of what does not depend on the attack the records of a seed hold the same means, unless attacks met
    different trainings; then these are averaged over the attacks.
    """
    rows = {
        seed: found
        for seed, same in by_seed(records).items()
        if (found := [record.per_class[name] for record in same if name in record.per_class])
    }
    if len({len(means) for found in rows.values() for means in found}) != 1:
        return None
    means = np.array([np.mean(found, axis=0) for found in rows.values()], dtype=np.float64)
    made = by_seed(records)
    counts = [_counts(name, made[seed]) for seed in rows]
    if any(counts):
        means = weighted(means, [one or [1] * means.shape[1] for one in counts])
    under = tuple(frozenset(conditions(record) for record in made[seed]) for seed in rows)
    return Table(tuple(rows), means, under)


def _counts(name: str, records: Sequence[Record]) -> Sequence[int]:
    """The samples of each class; empty where they are equal."""
    return next((record.class_counts[name] for record in records if name in record.class_counts), ())


def effects(tables: Sequence[Table | None], *, share: bool = False) -> list[Effect | None]:
    """The mean of each table.

    What seeds vary by is pooled over tables on the same seeds, separately for paired and unpaired ones.

    None where there is no table, or a table of one number.

    Args:
        share: the entries are shares or differences of shares. Where all are equal they show no spread, and
            the error is that of an exact interval for as many classes without an exception.
    """
    groups = defaultdict(list)
    for number, table in enumerate(tables):
        if table is not None and table.means.size > 1:
            groups[table.seeds, table.paired].append(number)
    found: list[Effect | None] = [None] * len(tables)
    for numbers in groups.values():
        means = [table.means for number in numbers if (table := tables[number])]
        for number, effect in zip(numbers, crossed_means(means), strict=True):
            found[number] = _exact(effect) if share and not effect.error else effect
    return found


def named_effects(tables: Mapping[Name, Table | None], *, share: bool = False) -> dict[Name, Effect]:
    """The :func:`effects` by name; without those that are None."""
    found = zip(tables, effects(list(tables.values()), share=share), strict=True)
    return {name: effect for name, effect in found if effect}


def _exact(effect: Effect) -> Effect:
    """With the error of which the interval is as wide as that of no exception in as many classes."""
    _, margin = proportion_interval(replace(effect, value=0.0), effect.classes)
    return replace(effect, error=margin / replace(effect, value=0.0, error=1.0).interval()[1])
