"""Tables of class means, one row for each seed, from records."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mia_bench.api.metric import Array
from mia_bench.leaderboard.grouping import by_seed
from mia_bench.record import Record
from mia_bench.statistics import Effect, crossed_means


@dataclass(frozen=True)
class Table:
    """Means of classes for each seed; the mean of all is the mean over samples.

    Attributes:
        means: ``(S, C)``; where classes have unequal numbers of samples, see
            :func:`mia_bench.statistics.weighted`.
    """

    seeds: tuple[int, ...]
    means: Array

    def on(self, seeds: Sequence[int]) -> Array:
        """The rows of these seeds."""
        return self.means[[self.seeds.index(seed) for seed in seeds]]

    def minus(self, other: Table) -> Table | None:
        """The differences on the seeds that both have; None where there are none, or the classes differ."""
        seeds = tuple(seed for seed in self.seeds if seed in other.seeds)
        if not seeds or self.means.shape[1] != other.means.shape[1]:
            return None
        return Table(seeds, self.on(seeds) - other.on(seeds))


def class_table(name: str, records: Sequence[Record]) -> Table | None:
    """The class means of a quantity on the seeds that have them; None where none has.

    Records of a seed that differ in the attack hold the same means of what does not depend on it.
    """
    rows = {
        seed: found
        for seed, same in by_seed(records).items()
        if (found := [record.per_class[name] for record in same if name in record.per_class])
    }
    if len({len(means) for found in rows.values() for means in found}) != 1:
        return None
    means = np.array([np.mean(found, axis=0) for found in rows.values()], dtype=np.float64)
    return Table(tuple(rows), means)


def effects(tables: Sequence[Table | None]) -> list[Effect | None]:
    """The mean of each table; what seeds vary by is pooled over tables on the same seeds.

    None where there is no table, or a table of one number.
    """
    groups = defaultdict(list)
    for number, table in enumerate(tables):
        if table is not None and table.means.size > 1:
            groups[table.seeds].append(number)
    found: list[Effect | None] = [None] * len(tables)
    for numbers in groups.values():
        means = [table.means for number in numbers if (table := tables[number])]
        for number, effect in zip(numbers, crossed_means(means), strict=True):
            found[number] = effect
    return found
