"""Rows beside each other: their order, and their differences to the baseline, class by class."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from mia_bench.leaderboard.aggregate import Quantities, Row
from mia_bench.record import Record
from mia_bench.recorded_options import options_text
from mia_bench.statistics import paired_difference


@dataclass(frozen=True)
class Paired:
    """Mean difference on the same seeds and classes, with an interval for others of both."""

    mean: float
    low: float
    high: float
    seeds: tuple[int, ...]


@dataclass(frozen=True)
class Difference:
    """A row minus the baseline on the same seeds; None where no seed has both."""

    defense: str
    options: str
    metrics: Mapping[str, Paired | None]


def paired(name: str, records: Sequence[Record], baseline: Sequence[Record]) -> Paired | None:
    """The difference to the baseline, class by class, on the seeds that both have."""
    own, others = (
        {record.seed: record.per_class[name] for record in side if name in record.per_class}
        for side in (records, baseline)
    )
    seeds = tuple(sorted(own.keys() & others.keys()))
    if not seeds:
        return None
    found = paired_difference(
        {seed: [a - b for a, b in zip(own[seed], others[seed], strict=True)] for seed in seeds}
    )
    return Paired(found.value, *found.interval, seeds)


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
    found = []
    for records in rows:
        by_name = {name: paired(name, records, baseline) for name in names}
        if records is not baseline and any(by_name.values()):
            defense = records[0].defense
            found.append(Difference(defense.name, options_text(defense.options), by_name))

    def key(difference: Difference) -> tuple[float, str, str]:
        name, first = next((name, one) for name, one in difference.metrics.items() if one)
        return quantities[name].sort_key(first.mean), difference.defense, difference.options

    return sorted(found, key=key)
