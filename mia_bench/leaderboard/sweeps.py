"""The outcome of a sweep, from its records: rows of utility and leakage, and their figure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from mia_bench.errors import MiaBenchError
from mia_bench.leaderboard.aggregate import Missing, Row, Shown, make_rows
from mia_bench.leaderboard.board import Board
from mia_bench.leaderboard.drawing import front
from mia_bench.leaderboard.figures import Axis, Point, Series, scatter
from mia_bench.leaderboard.folds import boards_of
from mia_bench.leaderboard.grouping import ComponentKey, group, row_key, section_key
from mia_bench.leaderboard.tuning import Candidate, Chosen, choose
from mia_bench.leaderboard.words import with_sign
from mia_bench.record import Record
from mia_bench.recorded_options import differing, options_text, row_label
from mia_bench.registry import Registry
from mia_bench.statistics import Estimate
from mia_bench.track import Track

Role = Literal["defense", "undefended", "front"]
"""``front``: the undefended target and those with fewer epochs or images; ``undefended``: other baselines."""


_ROLES: tuple[Role, ...] = ("defense", "undefended", "front")


@dataclass(frozen=True)
class Swept:
    """One setting.

    Attributes:
        options: those that are not the track's or that the sweep varies.
        accuracy, leakage: over the seeds; leakage under the strongest of the attacks.
        attack: that attack, with its options that are not the track's.
        chosen: the losses of accuracy at which the rule chooses this setting.
        tried: what the rule makes of the setting; None where it does not apply.
    """

    defense: str
    options: Mapping[str, Any]
    role: Role
    accuracy: Shown
    leakage: Shown
    attack: str
    chosen: tuple[float, ...] = ()
    tried: Candidate | None = None

    @property
    def label(self) -> str:
        """``mid beta=0.01``."""
        return row_label(self.defense, self.options)


@dataclass(frozen=True)
class Sweep:
    """All settings of a sweep.

    Attributes:
        accuracy, leakage: the quantities.
        rows: defenses by name, then the undefended ones; the settings of each in the order of the records.
        further: by defense the settings to try next, where a chosen one is at the edge of those tried.
    """

    accuracy: Axis
    leakage: Axis
    rows: tuple[Swept, ...]
    further: Mapping[str, tuple[Mapping[str, Any], ...]]


def outcome(registry: Registry, track: Track, records: Iterable[Record]) -> Sweep | None:
    """What came out of a sweep; None where there is no number of accuracy or leakage.

    The accuracy is that on validation images, where the track has some: settings are chosen by it, together
    with that in the further folds that records are of.

    Raises:
        MiaBenchError: the records can't be compared.
    """
    given = list(records)
    board, *folds = boards_of(registry, track, given)
    roles = ("selection", "utility")
    wanted = (
        name
        for role in roles
        for name, quantity in board.quantities.items()
        if quantity.role == role
        and quantity.better != "lower"
        and quantity.kind == "share"
        and _measured(board, name)
    )
    accuracy = next(wanted, "")
    if not (accuracy and board.primary):
        return None
    rows = group(board.records, row_key)
    leakages = _leakages(board, accuracy, rows)
    tuned = _choices(board, registry, folds)
    place = {record.key: number for number, record in enumerate(given)}
    keys = sorted(rows, key=lambda key: min(place[record.key] for record in rows[key]))
    swept = [_swept(accuracy, board, rows[key], leakages[key], tuned) for key in keys]
    swept.sort(key=lambda row: (_ROLES.index(row.role), row.defense))
    return Sweep(
        Axis(accuracy, replace(board.quantities[accuracy], better="higher")),
        Axis(board.primary, board.quantities[board.primary]),
        tuple(swept),
        {one.defense: one.further for one in tuned if one.further},
    )


def _measured(board: Board, name: str) -> bool:
    return any(record.metrics.get(name) for record in board.records)


_Rows = Mapping[ComponentKey, Sequence[Record]]


def _leakages(board: Board, accuracy: str, rows: _Rows) -> dict[ComponentKey, dict[str, Row]]:
    """Of each setting, by attack, its row on all seeds; without those that lack a seed."""
    quantities = {name: board.quantities[name] for name in (accuracy, board.primary)}
    found: dict[ComponentKey, dict[str, Row]] = {key: {} for key in rows}
    for same in group(board.records, section_key).values():
        settings = group((record for record in same if record.status == "done"), row_key)
        complete = {key: s for key, s in settings.items() if {r.seed for r in s} == set(board.seeds)}
        made = make_rows(list(complete.values()), quantities)
        for key, row in zip(complete, made, strict=True):
            found[key][_attack_label(board, same[0])] = row
    return found


def _attack_label(board: Board, record: Record) -> str:
    words = options_text(record.attack.changed)
    usual = board.track.prior_of(record.attack.name)
    prior = "" if record.prior.name == usual else f" with {record.prior.name}"
    return record.attack.name + (f" ({words})" if words else "") + prior


def _choices(board: Board, registry: Registry, folds: Sequence[Board]) -> tuple[Chosen, ...]:
    """What the rule chooses; nothing where it does not apply to these attacks."""
    try:
        tuned = choose(board, registry, folds)
    except MiaBenchError:
        return ()
    return tuned.choices if tuned else ()


def _swept(
    accuracy: str,
    board: Board,
    records: Sequence[Record],
    rows: Mapping[str, Row],
    tuned: Sequence[Chosen],
) -> Swept:
    defense, quantity = records[0].defense, board.quantities[board.primary]
    every = [one.defense for one in board.records if one.defense.name == defense.name]
    varied = differing(defense.options, [one.options for one in every if not one.about.baseline])
    values = {label: value for label, row in rows.items() if (value := row.value(board.primary)) is not None}
    attack = max(values, key=lambda label: quantity.sort_key(round(values[label], 9)), default="")
    reasons = sorted({record.reason or record.status for record in records if record.status != "done"})
    missing = Missing(reasons[0] if reasons else "not run on every seed")
    front = defense.about.front or (defense.about.baseline and not defense.about.changed)
    role: Role = "front" if front else "undefended" if defense.about.baseline else "defense"
    own = [one for one in tuned if one.defense == defense.name]
    candidates = (candidate for one in own for candidate in one.tried if candidate.options == defense.options)
    tried = next(candidates, None)
    chosen = [choice.loss for one in own for choice in one.choices if choice.setting is tried]
    shown = rows.get(attack) or next(iter(rows.values()), None)
    return Swept(
        defense.name,
        {key: defense.options[key] for key in sorted({*defense.about.changed, *varied})},
        role,
        shown.metrics[accuracy] if shown else missing,
        rows[attack].metrics[board.primary] if attack else missing,
        attack,
        tuple(chosen),
        tried,
    )


def rows_of(sweep: Sweep) -> list[dict[str, str]]:
    """The rows of the table."""
    found = []
    for row in sweep.rows:
        reason = next((one.reason for one in (row.accuracy, row.leakage) if isinstance(one, Missing)), "")
        reason = reason or (row.tried.reason if row.tried else "")
        chosen = ", ".join(f"{100 * loss:g}" for loss in row.chosen)
        found.append(
            {
                "setting": row.label,
                sweep.accuracy.title: _accuracy(sweep.accuracy, row),
                "Δ (points)": _change(row.tried),
                sweep.leakage.title: _number(sweep.leakage, row.leakage),
                "under": row.attack,
                "chosen at": f"{chosen} point{'' if chosen == '1' else 's'}" if chosen else "",
                "reason": reason,
            }
        )
    empty = [name for name in ("Δ (points)", "chosen at", "reason") if not any(row[name] for row in found)]
    return [{name: cell for name, cell in row.items() if name not in empty} for row in found]


def _accuracy(axis: Axis, row: Swept) -> str:
    """The accuracy with its interval; without one where it is the mean over folds."""
    if row.tried and row.tried.accuracy is not None and row.tried.folds > 1:
        return axis.quantity.format(row.tried.accuracy)
    return _number(axis, row.accuracy)


def _change(tried: Candidate | None) -> str:
    """The difference in accuracy that the rule goes by, and of how many folds it is."""
    if tried is None or tried.loss is None:
        return ""
    folds = f" ({tried.folds} folds)" if tried.folds > 1 else ""
    return with_sign(-100 * tried.loss, 1) + folds


def _number(axis: Axis, shown: Shown) -> str:
    if not isinstance(shown, Estimate):
        return "–"
    value, *ends = (
        axis.quantity.format(number) for number in (shown.value, shown.low, shown.high) if number is not None
    )
    return f"{value} [{', '.join(ends)}]" if ends else value


def figure(sweep: Sweep) -> str:
    """Utility against leakage as SVG, the undefended front as a line; empty without points."""
    series = []
    names = sorted({row.defense for row in sweep.rows if row.role == "defense"})
    for name in names:
        rows = [row for row in sweep.rows if row.role == "defense" and row.defense == name]
        series.append(Series(_points(rows), names.index(name)))
    series.append(Series(_points([row for row in sweep.rows if row.role == "undefended"])))
    undefended = _points([row for row in sweep.rows if row.role == "front"])
    series = [one for one in series if one.points]
    series += front(undefended, sweep.leakage.quantity, "undefended front")
    return scatter(series, [], sweep.accuracy, sweep.leakage) if series else ""


def _points(rows: Sequence[Swept]) -> tuple[Point, ...]:
    return tuple(
        Point(row.label, row.accuracy, row.leakage)
        for row in rows
        if isinstance(row.accuracy, Estimate) and isinstance(row.leakage, Estimate)
    )
