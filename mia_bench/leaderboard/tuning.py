"""How a track's settings of the defenses were chosen: from the records of a sweep, by one rule.

Of the settings whose validation accuracy is at most :data:`MARGIN` below the undefended target's, the one
that leaks least is chosen; where there is none, the one whose validation accuracy is highest. No board shows
a seed or an image of a sweep.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from mia_bench.api.metric import Quantity
from mia_bench.errors import MiaBenchError
from mia_bench.leaderboard.aggregate import make_row
from mia_bench.leaderboard.board import Board
from mia_bench.leaderboard.grouping import group, row_key
from mia_bench.record import Record

MARGIN = 0.03
"""How far a chosen setting's validation accuracy may be below the undefended target's."""


@dataclass(frozen=True)
class Candidate:
    """Options of a defense that were tried, over the tuning seeds; None where a seed has no number."""

    options: Mapping[str, Any]
    accuracy: float | None
    leakage: float | None


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


def choose(board: Board) -> Tuning | None:
    """What the sweep on ``board`` chose; None where it tried no defense.

    Raises:
        MiaBenchError: the sweep's records don't allow a choice; says why.
    """
    track = f"track {board.track.name!r}"
    if all(record.defense.about.baseline for record in board.records):
        return None
    usual = [record for record in board.records if _is_usual(board, record)]
    tried = [record for record in usual if not record.defense.about.baseline]
    attacks = sorted({record.attack.name for record in tried})
    if len(attacks) != 1:
        raise MiaBenchError(
            f"{track}: the settings of a sweep are compared under one attack with the track's options and "
            f"prior; found: {', '.join(attacks) or 'none'}"
        )
    [attack] = attacks
    undefended = [
        record for record in usual if record.attack.name == attack and row_key(record) in board.baselines
    ]
    selection = next((n for n, q in board.quantities.items() if q.role == "selection"), "")
    if not (selection and board.primary):
        raise MiaBenchError(
            f"{track}: its metrics give no quantity to choose settings by (one with the role 'selection', "
            "one of leakage)"
        )
    seeds = tuple(sorted({record.seed for record in undefended}))
    accuracy = _candidate(board, undefended, seeds, selection).accuracy if undefended else None
    if accuracy is None:
        raise MiaBenchError(f"{track}: the sweep has no undefended target with a {selection}")
    choices = []
    for defense, same in group(tried, lambda record: record.defense.name).items():
        rows = group(same, row_key).values()
        candidates = tuple(_candidate(board, row, seeds, selection) for row in rows)
        choices.append(_choose(defense, candidates, accuracy, board.quantities[board.primary]))
    return Tuning(attack, board.primary, selection, seeds, accuracy, tuple(choices))


def _is_usual(board: Board, record: Record) -> bool:
    """Whether attack and prior are as the track has them, and the attack is no reference."""
    attack, prior = record.attack, record.prior
    same = prior.name == board.track.prior_of(attack.name) and attack.name not in board.reference_kinds
    return same and not (attack.about.changed or prior.about.changed)


def _choose(defense: str, tried: tuple[Candidate, ...], accuracy: float, leakage: Quantity) -> Chosen:
    finished = [
        (leakage.sort_key(one.leakage), -one.accuracy, one)
        for one in tried
        if one.accuracy is not None and one.leakage is not None
    ]
    if not finished:
        return Chosen(defense, tried, None, near=False)
    lowest = accuracy - MARGIN - 1e-9  # a difference of exactly so many images is within
    near = [ranked for ranked in finished if -ranked[1] >= lowest]
    best = min(near, key=itemgetter(0, 1)) if near else min(finished, key=itemgetter(1, 0))
    return Chosen(defense, tried, best[2], bool(near))


def _candidate(board: Board, records: Sequence[Record], seeds: Sequence[int], selection: str) -> Candidate:
    """Over exactly ``seeds``: a candidate that lacks one can't be compared with the others."""
    options = records[0].defense.options
    done = [record for record in records if record.status == "done" and record.seed in seeds]
    if {record.seed for record in done} != set(seeds):
        return Candidate(options, None, None)
    row = make_row(done, {name: board.quantities[name] for name in (selection, board.primary)})
    return Candidate(options, row.value(selection), row.value(board.primary))
