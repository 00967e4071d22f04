"""How a track's settings of the defenses were chosen: from the records of a sweep, by one rule.

Of the settings whose validation accuracy is at most :data:`MARGIN` below the undefended target's the one
that leaks least is chosen; where there is none, the one whose validation accuracy is highest. Seeds and
images of the sweep are none that a board shows.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mia_bench.api.metric import Quantity
from mia_bench.errors import MiaBenchError
from mia_bench.leaderboard.aggregate import combine
from mia_bench.leaderboard.board import Board
from mia_bench.leaderboard.described import changed, is_baseline, reference_kind
from mia_bench.leaderboard.grouping import group, row_key
from mia_bench.record import Record
from mia_bench.registry import Registry
from mia_bench.statistics import Estimate

MARGIN = 0.03
"""How far a chosen setting's validation accuracy may be below the undefended target's."""


@dataclass(frozen=True)
class Candidate:
    """Options of a defense that were tried, over the tuning seeds; None where a seed has no number."""

    options: Mapping[str, Any]
    accuracy: float | None
    leakage: float | None

    @property
    def finished(self) -> bool:
        """Whether it can be chosen."""
        return self.accuracy is not None and self.leakage is not None


@dataclass(frozen=True)
class Chosen:
    """The candidates of one defense, and the one chosen of them.

    Attributes:
        tried: in the order of their options.
        setting: None where no setting finished.
        near: whether its accuracy is within :data:`MARGIN`.
    """

    defense: str
    tried: tuple[Candidate, ...]
    setting: Candidate | None
    near: bool


@dataclass(frozen=True)
class Tuning:
    """A sweep and what it chose.

    Attributes:
        attack: the attack under which the leakage was measured, with the track's options and prior.
        metric: the quantity of leakage.
        selection: the quantity of accuracy, on images that no board uses.
        accuracy: of the undefended target.
    """

    attack: str
    metric: str
    selection: str
    seeds: tuple[int, ...]
    accuracy: float
    choices: tuple[Chosen, ...]


def choose(board: Board, registry: Registry) -> Tuning | None:
    """What the sweep on ``board`` chose; None where it tried no defense.

    Raises:
        MiaBenchError: the sweep's records don't allow a choice; says why.
    """
    track = board.track
    if all(is_baseline(registry, record) for record in board.records):
        return None
    usual = [record for record in board.records if _is_usual(board, registry, record)]
    tried = [record for record in usual if not is_baseline(registry, record)]
    attacks = {record.attack.name for record in tried}
    if len(attacks) != 1:
        found = ", ".join(sorted(attacks)) or "none"
        raise MiaBenchError(
            f"track {track.name!r}: the settings of a sweep are compared under one attack with the "
            f"track's options and prior; found: {found}"
        )
    [attack] = attacks
    undefended = [
        record
        for record in usual
        if record.attack.name == attack
        and is_baseline(registry, record)
        and not changed(registry, track, "defense", record.defense)
    ]
    selection = next((n for n, q in board.quantities.items() if q.role == "selection"), "")
    if not (selection and board.primary):
        raise MiaBenchError(
            f"track {track.name!r}: its metrics give no quantity to choose settings by (one with the role "
            "'selection', one of leakage)"
        )
    accuracy = _value(board, selection, undefended) if undefended else None
    if accuracy is None:
        raise MiaBenchError(f"track {track.name!r}: the sweep has no undefended target with a {selection}")
    seeds = tuple(sorted({record.seed for record in undefended}))
    candidates: dict[str, list[Candidate]] = defaultdict(list)
    for (name, _), same in group(tried, row_key).items():
        candidates[name].append(_candidate(board, same, seeds, selection))
    leakage = board.quantities[board.primary]
    choices = tuple(_choose(*item, accuracy, leakage) for item in sorted(candidates.items()))
    return Tuning(attack, board.primary, selection, seeds, accuracy, choices)


def _is_usual(board: Board, registry: Registry, record: Record) -> bool:
    """Whether attack and prior are as the track has them, and the attack is no reference."""
    track = board.track
    return (
        record.prior.name == track.prior_of(record.attack.name)
        and not changed(registry, track, "attack", record.attack)
        and not changed(registry, track, "prior", record.prior)
        and not reference_kind(registry, record)
    )


def _choose(defense: str, tried: Sequence[Candidate], accuracy: float, leakage: Quantity) -> Chosen:
    lowest = accuracy - MARGIN - 1e-9  # a difference of exactly so many images is within
    finished = [
        (leakage.sort_key(one.leakage), -one.accuracy, number)
        for number, one in enumerate(tried)
        if one.accuracy is not None and one.leakage is not None
    ]
    if not finished:
        return Chosen(defense, tuple(tried), None, near=False)
    near = [ranked for ranked in finished if -ranked[1] >= lowest]
    nearest = min(finished, key=lambda ranked: (ranked[1], ranked[0], ranked[2]))
    best = min(near) if near else nearest
    return Chosen(defense, tuple(tried), tried[best[2]], bool(near))


def _candidate(board: Board, records: Sequence[Record], seeds: Sequence[int], selection: str) -> Candidate:
    """Over exactly ``seeds``: a candidate that lacks one can't be compared with the others."""
    options = records[0].defense.options
    done = [record for record in records if record.status == "done" and record.seed in seeds]
    if {record.seed for record in done} != set(seeds):
        return Candidate(options, None, None)
    return Candidate(options, _value(board, selection, done), _value(board, board.primary, done))


def _value(board: Board, name: str, records: Sequence[Record]) -> float | None:
    shown = combine(name, board.quantities[name], records)
    return shown.value if isinstance(shown, Estimate) else None
