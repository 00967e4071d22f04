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

from mia_bench.leaderboard.board import VALIDATION, Board, by_row, combine, is_baseline
from mia_bench.record import Record
from mia_bench.registry import Registry
from mia_bench.results import changed_options
from mia_bench.statistics import Estimate

MARGIN = 0.03
"""How far a chosen setting's validation accuracy may be below the undefended target's."""


@dataclass(frozen=True)
class Setting:
    """One setting of a defense, over the tuning seeds; None where it has no number."""

    options: Mapping[str, Any]
    accuracy: float | None
    leakage: float | None


@dataclass(frozen=True)
class Chosen:
    """The settings tried of one defense, and the one chosen of them.

    Attributes:
        tried: in the order of their options.
        near: whether the chosen one's accuracy is within :data:`MARGIN`.
    """

    defense: str
    tried: tuple[Setting, ...]
    chosen: Setting
    near: bool


@dataclass(frozen=True)
class Tuning:
    """A sweep and what it chose.

    Attributes:
        attack: the attack under which the leakage was measured, with the track's options.
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

    The attack is the one with the track's options under which most settings were tried.
    """
    by_attack: dict[str, list[Record]] = defaultdict(list)
    for record in board.records:
        parts = [("attack", record.attack), ("prior", record.prior)]
        if not any(changed_options(registry, board.track, kind, part) for kind, part in parts):
            by_attack[record.attack.name].append(record)
    if not by_attack:
        return None
    attack, records = max(by_attack.items(), key=lambda item: (len(by_row(item[1])), item[0]))
    undefended: list[Record] = []
    defenses: dict[str, list[Setting]] = defaultdict(list)
    for (name, _), group in by_row(records).items():
        if not is_baseline(registry, name):
            defenses[name].append(_setting(group, board.primary))
        elif not changed_options(registry, board.track, "defense", group[0].defense):
            undefended = group
    accuracy = _value(undefended, VALIDATION) if undefended else None
    choices = tuple(
        choice
        for name, settings in sorted(defenses.items())
        if accuracy is not None and (choice := _choose(name, settings, accuracy)) is not None
    )
    if accuracy is None or not choices:
        return None
    seeds = tuple(sorted({record.seed for record in records}))
    return Tuning(attack, board.primary, seeds, accuracy, choices)


def _choose(defense: str, settings: Sequence[Setting], accuracy: float) -> Chosen | None:
    finished = [s for s in settings if s.accuracy is not None and s.leakage is not None]
    if not finished:
        return None
    near = [s for s in finished if s.accuracy is not None and s.accuracy >= accuracy - MARGIN]
    if near:
        chosen = min(near, key=lambda s: (s.leakage, -(s.accuracy or 0)))
    else:
        chosen = max(finished, key=lambda s: (s.accuracy, -(s.leakage or 0)))
    return Chosen(defense, tuple(settings), chosen, bool(near))


def _setting(records: Sequence[Record], metric: str) -> Setting:
    options = records[0].defense.options
    if any(record.status != "done" for record in records):
        return Setting(options, None, None)
    return Setting(options, _value(records, VALIDATION), _value(records, metric))


def _value(records: Sequence[Record], name: str) -> float | None:
    shown = combine(name, records)
    return shown.value if isinstance(shown, Estimate) else None
