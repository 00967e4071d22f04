"""Rows beside each other: their order, and their differences to the baseline, class by class."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from mia_bench.api.metric import Quantity
from mia_bench.leaderboard.aggregate import Quantities, Row
from mia_bench.leaderboard.tables import class_table, effects
from mia_bench.record import Record
from mia_bench.recorded_options import options_text
from mia_bench.statistics import Effect


@dataclass(frozen=True)
class FromBaseline:
    """Mean difference from the baseline on the same seeds and classes.

    Attributes:
        paired: whether both were computed under the same conditions.
    """

    effect: Effect
    seeds: tuple[int, ...]
    paired: bool = True

    @property
    def mean(self) -> float:
        """The difference."""
        return self.effect.value

    @property
    def low(self) -> float:
        """Lower end of the 95 % interval."""
        return self.effect.interval()[0]

    @property
    def high(self) -> float:
        """Upper end of the 95 % interval."""
        return self.effect.interval()[1]


@dataclass(frozen=True)
class Difference:
    """A row minus the baseline on the same seeds; None where no seed has both."""

    defense: str
    options: str
    metrics: Mapping[str, FromBaseline | None]


def from_baseline(
    name: str, quantity: Quantity, rows: Sequence[Sequence[Record]], baseline: Sequence[Record]
) -> list[FromBaseline | None]:
    """Of each row the difference to the baseline, on the seeds that both have; None where there are none.

    What seeds vary by is pooled over the rows, separately over those of other conditions than the baseline.
    """
    base = class_table(name, baseline)
    tables = [
        table.minus(base, beside=True) if base and (table := class_table(name, records)) else None
        for records in rows
    ]
    return [
        FromBaseline(effect, table.seeds, table.paired) if table and effect else None
        for table, effect in zip(tables, effects(tables, share=quantity.kind == "share"), strict=True)
    ]


def best_first(rows: Iterable[Row], names: Sequence[str], quantities: Quantities) -> list[Row]:
    """Rows ordered by the quantities ``names``, best defended first; rows without the first last."""

    def key(row: Row) -> tuple[list[tuple[bool, float]], str, str]:
        found = [(quantities[name], row.value(name)) for name in names]
        return [(v is None, 0.0 if v is None else q.sort_key(v)) for q, v in found], row.defense, row.options

    return sorted(rows, key=key)


def differences(
    rows: Iterable[Sequence[Record]], baseline: Sequence[Record], names: Sequence[str], quantities: Quantities
) -> list[Difference]:
    """Of each row the differences in the quantities ``names``, best defended first."""
    rows = list(rows)
    by_name = {name: from_baseline(name, quantities[name], rows, baseline) for name in names}
    found = []
    for number, records in enumerate(rows):
        metrics = {name: by_name[name][number] for name in names}
        if records is not baseline and any(metrics.values()):
            defense = records[0].defense
            found.append(Difference(defense.name, options_text(defense.options), metrics))

    def key(difference: Difference) -> tuple[float, str, str]:
        name, first = next((name, one) for name, one in difference.metrics.items() if one)
        return quantities[name].sort_key(first.mean), difference.defense, difference.options

    return sorted(found, key=key)
