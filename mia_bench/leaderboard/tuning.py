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

from mia_bench.errors import MiaBenchError
from mia_bench.leaderboard.board import (
    VALIDATION,
    Board,
    by_row,
    changed,
    combine,
    is_baseline,
    reference_kind,
)
from mia_bench.record import Record
from mia_bench.registry import Registry
from mia_bench.statistics import Estimate

MARGIN = 0.03
"""How far a chosen setting's validation accuracy may be below the undefended target's."""


@dataclass(frozen=True)
class Setting:
    """One setting of a defense over the tuning seeds; None where a seed has no number."""

    options: Mapping[str, Any]
    accuracy: float | None
    leakage: float | None

    @property
    def finished(self) -> bool:
        """Whether it can be chosen."""
        return self.accuracy is not None and self.leakage is not None


@dataclass(frozen=True)
class Chosen:
    """The settings tried of one defense, and the one chosen of them.

    Attributes:
        tried: in the order of their options.
        setting: None where no setting finished.
        near: whether its accuracy is within :data:`MARGIN`.
    """

    defense: str
    tried: tuple[Setting, ...]
    setting: Setting | None
    near: bool


@dataclass(frozen=True)
class Tuning:
    """A sweep and what it chose.

    Attributes:
        attack: the attack under which the leakage was measured, with the track's options and prior.
        metric: the measure of leakage.
        accuracy: validation accuracy of the undefended target.
    """

    attack: str
    metric: str
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
    accuracy = _value(undefended, VALIDATION) if undefended else None
    if accuracy is None:
        raise MiaBenchError(
            f"track {track.name!r}: the sweep has no undefended target with a {VALIDATION}"
        )
    seeds = tuple(sorted({record.seed for record in undefended}))
    defenses: dict[str, list[Setting]] = defaultdict(list)
    for (name, _), group in by_row(tried).items():
        defenses[name].append(_setting(group, seeds, board.primary))
    choices = tuple(_choose(*item, accuracy) for item in sorted(defenses.items()))
    return Tuning(attack, board.primary, seeds, accuracy, choices)


def _is_usual(board: Board, registry: Registry, record: Record) -> bool:
    """Whether attack and prior are as the track has them, and the attack is no reference."""
    track = board.track
    return (
        record.prior.name == track.prior_of(record.attack.name)
        and not changed(registry, track, "attack", record.attack)
        and not changed(registry, track, "prior", record.prior)
        and not reference_kind(registry, record)
    )


def _choose(defense: str, tried: Sequence[Setting], accuracy: float) -> Chosen:
    lowest = accuracy - MARGIN - 1e-9  # a difference of exactly so many images is within
    finished = [
        (setting.accuracy, setting.leakage, number)
        for number, setting in enumerate(tried)
        if setting.accuracy is not None and setting.leakage is not None
    ]
    near = [(leakage, -share, number) for share, leakage, number in finished if share >= lowest]
    nearest = [(-share, leakage, number) for share, leakage, number in finished]
    if not finished:
        return Chosen(defense, tuple(tried), None, near=False)
    return Chosen(defense, tuple(tried), tried[min(near or nearest)[2]], bool(near))


def _setting(records: Sequence[Record], seeds: Sequence[int], metric: str) -> Setting:
    """Over exactly ``seeds``: a setting that lacks one can't be compared with the others."""
    options = records[0].defense.options
    done = [record for record in records if record.status == "done" and record.seed in seeds]
    if {record.seed for record in done} != set(seeds):
        return Setting(options, None, None)
    return Setting(options, _value(done, VALIDATION), _value(done, metric))


def _value(records: Sequence[Record], name: str) -> float | None:
    shown = combine(name, records)
    return shown.value if isinstance(shown, Estimate) else None
