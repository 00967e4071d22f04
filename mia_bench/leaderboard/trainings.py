"""Which attacks on a row met the same training of the target.

A training's numbers depend on the processor, and a store may have been lost: an attack that is added later
may meet another training of the same target with the same seed. What was measured on the target tells.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from mia_bench.leaderboard.aggregate import Quantities
from mia_bench.leaderboard.board import Board
from mia_bench.leaderboard.conditions import conditions
from mia_bench.leaderboard.grouping import by_seed, group, row_key, section_key
from mia_bench.leaderboard.reruns import same_conditions
from mia_bench.record import Record
from mia_bench.recorded_options import row_label

TOLERANCE = 1e-6
"""By how much numbers of one training may differ, relative to the number and absolute."""


def met_by(attack: Sequence[Record], row: Sequence[Record], quantities: Quantities) -> list[Record]:
    """The records of a row that share the training of the target with those of an attack.

    All of them, also of seeds that the attack lacks, where no two attacks met different trainings.

    Args:
        attack: records of the row; without any all are returned.
        row: finished records.
        quantities: those with the role ``utility`` or ``selection`` tell trainings from each other.
    """
    trainings = {seed: _trainings(same, quantities) for seed, same in by_seed(row).items()}
    if not attack or all(len(found) == 1 for found in trainings.values()):
        return list(row)
    keys = {record.key for record in attack}
    every = itertools.chain.from_iterable(trainings.values())
    return [record for one in every if any(r.key in keys for r in one) for record in one]


def several_trainings(board: Board) -> list[str]:
    """A line for each row of which attacks met different trainings of the target with one seed.

    It says which attacks met the same one.
    """
    labels = {section.key: board.label(section) for section in board.sections}
    lines = []
    for row, found in _rows(board.done, board.quantities):
        seeds: dict[str, list[int]] = defaultdict(list)
        for seed, trainings in found:
            named = [sorted({labels[section_key(record)] for record in one}) for one in trainings]
            named.sort(key=lambda one: (-len(one), one))
            seeds["; another by ".join(map(", ".join, named))].append(seed)
        for attacks, them in seeds.items():
            lines.append(f"{_on(row, them)}: one training of the target was attacked by {attacks}")
    return lines


def not_reproduced(records: Iterable[Record], quantities: Quantities) -> list[str]:
    """A line for each row with different trainings of one seed that ought to be the same."""
    lines = []
    for row, found in _rows((record for record in records if record.status == "done"), quantities):
        seeds = [
            seed
            for seed, trainings in found
            if any(
                same_conditions(record, other)
                for one, two in itertools.combinations(trainings, 2)
                for record, other in itertools.product(one, two)
            )
        ]
        if seeds:
            lines.append(
                f"{_on(row, seeds)}: attacks met different trainings of the target though conditions and "
                "processor are the same; run these cells again in one store"
            )
    return lines


def _rows(
    records: Iterable[Record], quantities: Quantities
) -> Iterator[tuple[str, list[tuple[int, list[list[Record]]]]]]:
    """Of each row its name, and the seeds with several trainings; attacks that are references left out."""
    attacked = (record for record in records if not record.attack.about.reference)
    for same in group(attacked, lambda record: (row_key(record), record.track.variant or "")).values():
        found = ((seed, _trainings(one, quantities)) for seed, one in by_seed(same).items())
        several = [(seed, trainings) for seed, trainings in found if len(trainings) > 1]
        first = same[0]
        variant = f", {first.track.variant}" if first.track.variant else ""
        yield row_label(first.defense.name, first.defense.changed) + variant, several


def _on(row: str, seeds: Sequence[int]) -> str:
    return f"{row}, {'seeds' if len(seeds) > 1 else 'seed'} {', '.join(map(str, seeds))}"


def _trainings(records: Iterable[Record], quantities: Quantities) -> list[list[Record]]:
    """The records of a row with one seed by the training that they met."""
    names = [name for name, quantity in quantities.items() if quantity.role in ("utility", "selection")]
    found: list[list[Record]] = []
    # Those without numbers last: they go with the others of their conditions.
    for record in sorted(records, key=lambda one: not any(map(one.metrics.get, names))):
        one = next((one for one in found if all(_alike(record, other, names) for other in one)), None)
        if one is None:
            found.append(one := [])
        one.append(record)
    return found


def _alike(record: Record, other: Record, names: Iterable[str]) -> bool:
    """Whether nothing that was measured on the targets of both tells them from each other."""
    pairs: list[tuple[float, float]] = []
    for name in names:
        if (one := record.metrics.get(name)) and (two := other.metrics.get(name)):
            pairs += [(one.value, two.value)]
            pairs += zip(record.per_class.get(name, ()), other.per_class.get(name, ()), strict=False)
    if not pairs:
        return conditions(record) == conditions(other)
    return all(math.isclose(one, two, rel_tol=TOLERANCE, abs_tol=TOLERANCE) for one, two in pairs)
