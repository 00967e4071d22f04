"""Which attacks on a row met the same training of the target.

A training's numbers depend on the processor, and a store may have been lost: an attack that is added later
may meet another training of the same target with the same seed. What was measured on the target tells.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mia_bench.leaderboard.aggregate import Quantities
from mia_bench.leaderboard.grouping import by_seed, group, row_key
from mia_bench.record import Record
from mia_bench.recorded_options import row_label


def of_one_training(row: Sequence[Record], quantities: Quantities, attack: Sequence[Record]) -> list[Record]:
    """The records of a row whose target is, for each seed, of one training.

    That is the training that ``attack`` met; for seeds that it lacks the one that most attacks met, or of
    several the first.

    Args:
        row: finished records.
        attack: those of them that are of one attack.
    """
    wanted = {record.key for record in attack}
    kept = []
    for same in by_seed(row).values():
        found = _trainings(same, quantities)
        kept += next((one for one in found if any(record.key in wanted for record in one)), found[0])
    return kept


def several_trainings(records: Iterable[Record], quantities: Quantities) -> list[str]:
    """A line for each row of which attacks met different trainings of the target with one seed.

    It says which attacks share one. Cells that were computed in one store do.
    """
    lines = []
    for same in group((record for record in records if record.status == "done"), row_key).values():
        row = row_label(same[0].defense.name, same[0].defense.changed)
        variant = f", {same[0].track.variant}" if same[0].track.variant else ""
        seeds: dict[str, list[int]] = {}
        for seed, one in by_seed(same).items():
            if len(found := _trainings(one, quantities)) > 1:
                seeds.setdefault("; ".join(map(_attacks, found)), []).append(seed)
        for attacks, them in seeds.items():
            word = "seeds" if len(them) > 1 else "seed"
            lines.append(
                f"{row}{variant}, {word} {', '.join(map(str, them))}: attacks met different trainings of the "
                f"target: {attacks}"
            )
    return lines


def _attacks(records: Sequence[Record]) -> str:
    return ", ".join(sorted({row_label(one.attack.name, one.attack.changed) for one in records}))


def _trainings(records: Iterable[Record], quantities: Quantities) -> list[list[Record]]:
    """The records of a row with one seed by the training that they met, those of most attacks first."""
    names = [name for name, quantity in quantities.items() if quantity.role in ("utility", "selection")]
    found: list[list[Record]] = []
    for record in sorted(records, key=lambda one: (one.provenance.finished, one.key)):
        same = (one for one in found if not any(_differ(record, other, names) for other in one))
        if (one := next(same, None)) is None:
            found.append(one := [])
        one.append(record)
    return sorted(found, key=lambda one: -len(one))


def _differ(record: Record, other: Record, names: Iterable[str]) -> bool:
    """Whether two records hold different values of a quantity."""
    both = ((record.metrics.get(name), other.metrics.get(name)) for name in names)
    return any(one and two and one.value != two.value for one, two in both)
