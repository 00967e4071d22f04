"""The strongest attack found against each row, chosen on the tuning seeds, which no board shows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mia_bench.leaderboard.board import Board
from mia_bench.leaderboard.grouping import ComponentKey, group, row_key, section_key
from mia_bench.record import Record
from mia_bench.strength import Candidate, Strongest, compare
from mia_bench.track import StandardAttack


def strongest(sweep: Board, board: Board | None = None) -> dict[ComponentKey, Strongest]:
    """Of each row (:func:`~mia_bench.leaderboard.grouping.row_key`) of a sweep the attacks, compared.

    The candidates are the track's standard set, so that every defense is given the same budget; on a track
    without one, the attacks as the track has them. A row that is missing was not tuned against: only the
    default attack is known of it.

    Args:
        sweep: the board of the tuning records.
        board: that of the track; records of other versions of its components do not count, and without those
            of the baseline none does.
    """
    if not sweep.primary:
        return {}
    attacks = list(attack_set(sweep))
    shown = {name: version for record in (board.done if board else ()) for name, version in _versions(record)}
    known = [
        record
        for record in sweep.records
        if attack_of(record, sweep, attacks)
        and all(shown.get(name, version) == version for name, version in _versions(record))
    ]
    if sweep.baselines and not any(row_key(record) in sweep.baselines for record in known):
        return {}
    rows = group(known, row_key)
    found: dict[ComponentKey, Strongest] = {}
    # The baseline first: the other rows are compared with it.
    for row in sorted(rows, key=lambda key: key not in sweep.baselines):
        seeds = tuning_seeds(sweep, rows[row])
        if not seeds:
            continue
        tried = [(one, [r for r in rows[row] if attack_of(r, sweep, attacks) is one]) for one in attacks]
        baseline = next((found[key] for key in sorted(sweep.baselines) if key in found), None)
        found[row] = compare(tried, seeds, sweep.primary, sweep.quantities[sweep.primary], baseline)
    return found


def _versions(record: Record) -> list[tuple[tuple[str, str], tuple[str, str]]]:
    """Of each component, by kind and name, the version and the distribution."""
    return [((kind, one.name), (one.version, one.distribution)) for kind, one in record.components.items()]


@dataclass(frozen=True)
class Compared:
    """A row of the table of a sweep's page: the attacks on one setting of a defense.

    Attributes:
        options: those that are not the track's.
        values: the leakage under each attack of the set, in its order; None where it has no number.
    """

    defense: str
    options: Mapping[str, Any]
    values: tuple[float | None, ...]
    strongest: Strongest


def comparisons(sweep: Board) -> list[Compared]:
    """The rows on which more than one attack was tried, the baselines first."""
    attacks = list(attack_set(sweep))
    rows = []
    for one in strongest(sweep).values():
        values = tuple(found.leakage if (found := one.of(attack)) else None for attack in attacks)
        if sum(value is not None for value in values) > 1:
            defense = next(r.defense for c in one.candidates for r in c.records)
            changed = dict(sorted(defense.changed.items()))
            rows.append((not defense.about.baseline, Compared(defense.name, changed, values, one)))
    return [row for _, row in sorted(rows, key=lambda row: row[0])]


def section_of(candidate: Candidate) -> tuple[ComponentKey, ComponentKey] | None:
    """The section of a board where the attack is shown; None where the attack was not run."""
    return section_key(candidate.records[0]) if candidate.records else None


def attack_set(sweep: Board) -> Iterator[StandardAttack]:
    """The attacks that rows are compared under."""
    if sweep.track.standard:
        yield from sweep.track.standard.attacks
        return
    for name in sorted({record.attack.name for record in sweep.records} - sweep.reference_kinds.keys()):
        yield StandardAttack(name=name, default=True)


def attack_of(record: Record, sweep: Board, attacks: Sequence[StandardAttack]) -> StandardAttack | None:
    """The attack of the set that the record is of, if any."""
    return next((one for one in attacks if _is(one, record, sweep)), None)


def _is(one: StandardAttack, record: Record, sweep: Board) -> bool:
    attack, prior = record.attack, record.prior
    changed = {key: attack.options.get(key) for key in {*attack.about.changed, *one.options}}
    meant = (one.name, one.prior or sweep.track.prior_of(one.name))
    return (attack.name, prior.name) == meant and changed == one.options and not prior.about.changed


def tuning_seeds(sweep: Board, records: Sequence[Record]) -> tuple[int, ...]:
    """The tuning seeds on which a row has numbers."""
    standard = sweep.track.standard
    seeds = {record.seed for record in records if record.status == "done"}
    return tuple(sorted(seeds & set(standard.seeds) if standard else seeds))
