"""Each row of a board under the strongest attack found on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from mia_bench.leaderboard.aggregate import Shown, combine
from mia_bench.leaderboard.board import Board, Section
from mia_bench.leaderboard.grouping import ComponentKey, SectionKey, group, row_key, section_key
from mia_bench.leaderboard.strongest import section_of
from mia_bench.leaderboard.tables import Table, class_table
from mia_bench.leaderboard.trainings import met_by
from mia_bench.record import About, Record
from mia_bench.strength import Strongest


@dataclass(frozen=True)
class Attack:
    """What one attack recovers of a row.

    Attributes:
        section: of the board.
        leakage: the board's first quantity, with its interval.
        strength: the more it recovers, the larger, whatever the quantity.
    """

    section: Section
    leakage: Shown | None
    strength: float


@dataclass(frozen=True)
class Attacked:
    """A row under its strongest attack.

    Attributes:
        records: all that finished.
        found: the attacks compared on other seeds than the board's; None where none were.
        attacks: those on the board's seeds, without references.
        attack: the strongest; None where none finished.
        known: whether it was chosen on other seeds.
        weaker: whether the row is undefended, should be shown under the baseline's attack, and lacks it: it
            looks better than it is.
        under: the records under that attack.
        leaked: the class means of the board's first quantity under that attack.
        right: those of the accuracy of the targets; None where it is no share, as what a loss of it costs is
            not known.
        accuracy: of the targets; None where the track measures none.
    """

    key: ComponentKey
    records: Sequence[Record]
    found: Strongest | None
    attacks: tuple[Attack, ...]
    attack: Attack | None = None
    known: bool = False
    weaker: bool = False
    under: tuple[Record, ...] = ()
    leaked: Table | None = None
    right: Table | None = None
    accuracy: Shown | None = None

    @property
    def about(self) -> About:
        """What the defense says of itself."""
        return self.records[0].defense.about

    @property
    def defends(self) -> bool:
        """Whether the row is not of an undefended target."""
        return not self.about.baseline

    @property
    def absent(self) -> bool:
        """Whether an attack was chosen on other seeds that the board has no records of."""
        return bool(self.defends and self.found and self.found.chosen and not self.known)


def attacked(
    board: Board, found: Mapping[ComponentKey, Strongest], *, own_targets: bool = True
) -> dict[ComponentKey, Attacked]:
    """The rows of ``board``, each under its strongest attack.

    That is the one chosen on other seeds. Where that is not known, or the board lacks it, it is the one under
    which the row leaks most on the board. Undefended rows that not the whole set was tried on are attacked as
    the baseline is, where they were.

    Args:
        found: of each row the attacks compared on other seeds.
        own_targets: where attacks met different trainings of a row's target, its accuracy is of those that
            the strongest attack met, as is what it recovers; else the mean over all.
    """
    rows = {
        key: _strongest(Attacked(key, same, found.get(key), _attacks(board, key)))
        for key, same in group(board.done, row_key).items()
    }
    base = next((rows[key] for key in rows if key in board.baselines), None)
    if base:
        rows = {key: _as_baseline(row, base) for key, row in rows.items()}
    cells = group(board.done, lambda record: (section_key(record), row_key(record)))
    under = {key: cells[row.attack.section.key, key] if row.attack else [] for key, row in rows.items()}
    met = {
        key: met_by(under[key], row.records, board.quantities) if own_targets else row.records
        for key, row in rows.items()
    }
    useful = board.quantities.get(board.accuracy)
    accuracy = combine(board.accuracy, useful, list(met.values())) if useful else [None] * len(rows)
    return {
        key: replace(
            row,
            under=tuple(under[key]),
            leaked=class_table(board.primary, under[key]),
            right=class_table(board.accuracy, met[key]) if useful and useful.kind == "share" else None,
            accuracy=shown,
        )
        for (key, row), shown in zip(rows.items(), accuracy, strict=True)
    }


def _attacks(board: Board, key: ComponentKey) -> tuple[Attack, ...]:
    """The attacks on a row that have the board's first quantity; without references."""
    quantity = board.quantities.get(board.primary)
    if quantity is None:
        return ()
    return tuple(
        Attack(section, row.metrics[board.primary], quantity.sort_key(value))
        for section in board.sections
        for row in section.rows
        if not section.reference and row.key == key and (value := row.value(board.primary)) is not None
    )


def _strongest(row: Attacked) -> Attacked:
    chosen = section_of(row.found.chosen) if row.found and row.found.chosen else None
    if attack := _under(row, chosen):
        return replace(row, attack=attack, known=True)
    return replace(row, attack=max(row.attacks, key=lambda one: one.strength, default=None))


def _as_baseline(row: Attacked, base: Attacked) -> Attacked:
    if row.defends or (row.found and not row.found.untried):
        return row
    if base.attack and (attack := _under(row, base.attack.section.key)):
        return replace(row, attack=attack, known=base.known)
    return replace(row, weaker=True)


def _under(row: Attacked, section: SectionKey | None) -> Attack | None:
    return next((one for one in row.attacks if one.section.key == section), None)
