"""From the records of an experiment to its answer: a line for each setting, and what became of each claim."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from mia_bench.api.metric import Direction, Quantity
from mia_bench.engine.grid import Cell, component_key
from mia_bench.experiments.definition import Claim, Experiment
from mia_bench.experiments.planning import Placed, Plan
from mia_bench.leaderboard.aggregate import Shown
from mia_bench.leaderboard.board import Board, build_board
from mia_bench.leaderboard.described import describe
from mia_bench.leaderboard.front import Point, beyond_front
from mia_bench.leaderboard.grouping import (
    CellKey,
    ComponentKey,
    SectionKey,
    cell_key,
    group,
    row_key,
    section_key,
)
from mia_bench.leaderboard.standings import Standing, Standings, standings
from mia_bench.leaderboard.submission import outdated
from mia_bench.leaderboard.tables import Table, class_table, effects
from mia_bench.leaderboard.verdicts import Margins, rounded_up
from mia_bench.record import Record
from mia_bench.recorded_options import options_text
from mia_bench.registry import Registry
from mia_bench.statistics import Effect
from mia_bench.track import Track

Outcome = Literal["seen here", "not seen here", "unclear"]


@dataclass(frozen=True)
class Line:
    """A setting.

    Attributes:
        label: the defense with its place on the axis and its options that are not the track's.
        at: where it stands on the axis; None where it stands beside it.
        variant: its options that are neither the track's nor the axis, in words.
        accuracy, lost: of the target, and the difference from the baseline.
        leakage, more: by attack, and the differences from the baseline.
        beyond: by attack the difference from the undefended front at the same accuracy, where that is known.
    """

    label: str
    defense: str
    at: float | None
    variant: str
    baseline: bool
    seeds: int
    accuracy: Shown | None
    lost: Effect | None
    leakage: Mapping[str, Shown]
    more: Mapping[str, Effect]
    beyond: Mapping[str, Effect]


@dataclass(frozen=True)
class Judgement:
    """What became of a claim.

    Attributes:
        settings: how many it is the mean over.
        missing: differences from the baseline without a number, of one setting under one attack on one seed
            each; with any, the outcome is unclear.
        leakage: by attack the mean difference from the baseline.
        beyond: by attack the difference from the undefended front, at the settings' mean accuracy; without
            attacks where that is not known.
        accuracy: the mean difference of the accuracy.
        better: which direction of the leakage is better for the defender.
        margins: differences too small to matter.
    """

    claim: Claim
    outcome: Outcome
    settings: int
    missing: int
    leakage: Mapping[str, Effect]
    beyond: Mapping[str, Effect]
    accuracy: Effect | None
    better: Direction
    margins: Margins

    @property
    def costs(self) -> bool:
        """Whether accuracy is lost beyond doubt."""
        return self.accuracy is not None and self.accuracy.interval()[1] < 0

    @property
    def verdict(self) -> str:
        """The outcome, with what lower accuracy has to do with it, or how small the difference is."""
        said = self.outcome.capitalize()
        if self.outcome == "not seen here":
            widest = max(abs(end) for effect in self.leakage.values() for end in effect.interval())
            if widest >= self.margins.leakage:
                return f"{said}, rather the opposite"
            return f"{said}, no difference beyond {rounded_up(widest)} {self.margins.unit}".rstrip()
        if self.outcome == "unclear" or self.claim.leakage == "more" or not self.costs:
            return said
        under = [f"{_than(effect, self.better)} under {label}" for label, effect in self.beyond.items()]
        told = f": undefended targets of that accuracy leak {', '.join(under)}" if under else ""
        return f"{said}, at a cost of accuracy{told}"


def _than(effect: Effect, better: Direction) -> str:
    """What undefended targets leak in comparison, from the difference to them."""
    low, high = sorted(-end if better == "higher" else end for end in effect.interval())
    return "less" if low > 0 else "more" if high < 0 else "about as much"


@dataclass(frozen=True)
class Answer:
    """What an experiment found on a track.

    Attributes:
        attacks: their labels, in the order of the experiment.
        missing: cells without a finished record.
    """

    track: Track
    board: Board
    decided: Standings
    attacks: tuple[str, ...]
    lines: tuple[Line, ...]
    tested: tuple[Judgement, ...]
    missing: tuple[Cell, ...]

    @property
    def leakage(self) -> Quantity:
        """The quantity of leakage."""
        return self.board.quantities[self.board.primary]

    @property
    def accuracy(self) -> Quantity:
        """That of utility."""
        return self.board.quantities[self.decided.accuracy]


def records_of(
    plan: Plan, registry: Registry, track: Track, records: Iterable[Record]
) -> dict[CellKey, Record]:
    """Of the records the finished ones of these cells, as they are stored; of several the newest.

    Records of other versions than are installed, and of models of the user's own, are left out.
    """
    wanted = {_cell_key(one.cell) for one in plan.cells}
    stored = [
        record
        for record in records
        if record.status == "done"
        and not record.defense.about.own_model
        and not outdated(record, track, registry)
    ]
    found: dict[CellKey, Record] = {}
    for record, described in zip(stored, describe(registry, track, stored), strict=True):
        key = cell_key(described)
        before = found.get(key)
        if key in wanted and (not before or record.provenance.finished > before.provenance.finished):
            found[key] = record
    return found


def _cell_key(cell: Cell) -> CellKey:
    """What the cell shares with its records."""
    return component_key(cell.attack), component_key(cell.prior), component_key(cell.defense), cell.seed


def answer(
    experiment: Experiment, plan: Plan, registry: Registry, track: Track, records: Iterable[Record]
) -> Answer | None:
    """What the records say; None where there is no number of the undefended target.

    Raises:
        MiaBenchError: the records can't be compared.
    """
    found = records_of(plan, registry, track, records)
    board = build_board(registry, track, found.values())
    decided = standings(board)
    if not (board.primary and decided.accuracy and decided.baseline):
        return None
    labels = {section.key: board.label(section) for section in board.sections}
    wanted: dict[SectionKey, None] = dict.fromkeys(_cell_key(one.cell)[:2] for one in plan.cells)
    attacks = {labels[key]: key for key in wanted if key in labels}
    rows = _Rows(board, decided, attacks.values())
    return Answer(
        track,
        board,
        decided,
        tuple(attacks),
        tuple(_lines(experiment, plan, rows, attacks)),
        tuple(_tests(experiment, plan, rows, attacks)),
        tuple(one.cell for one in plan.cells if _cell_key(one.cell) not in found),
    )


class _Rows:
    """Tables of class means by row, under each attack; ``more`` and ``lost`` are less the baseline."""

    def __init__(self, board: Board, decided: Standings, attacks: Iterable[SectionKey]) -> None:
        assert decided.baseline is not None
        self.board, self.decided, self.base = board, decided, decided.baseline.key
        self.share = board.quantities[board.primary].kind == "share"
        under = group(board.done, section_key)
        self.leakage = {attack: _by_row(board.primary, under[attack]) for attack in attacks}
        self.accuracy = _by_row(decided.accuracy, board.done)
        self.more = {attack: self._less_base(tables) for attack, tables in self.leakage.items()}
        self.lost = self._less_base(self.accuracy)
        front = ("baseline", "front")
        self.undefended = [row.key for row in decided.rows if row.role in front]

    def _less_base(self, tables: Mapping[ComponentKey, Table]) -> dict[ComponentKey, Table]:
        """The differences of the rows from the baseline."""
        base = tables.get(self.base)
        found = {key: table.minus(base) for key, table in tables.items() if base and key != self.base}
        return {key: table for key, table in found.items() if table}

    def front(self, attack: SectionKey) -> list[Point]:
        """The undefended rows under an attack."""
        leaked = self.leakage[attack]
        both = [key for key in self.undefended if key in leaked and key in self.accuracy]
        return [Point(self.accuracy[key], leaked[key]) for key in both]


def _by_row(name: str, records: Iterable[Record]) -> dict[ComponentKey, Table]:
    tables = {key: class_table(name, same) for key, same in group(records, row_key).items()}
    return {key: table for key, table in tables.items() if table}


def _lines(
    experiment: Experiment, plan: Plan, rows: _Rows, attacks: Mapping[str, SectionKey]
) -> Iterator[Line]:
    """The settings along the axis, those beside it at the end."""
    board, decided = rows.board, rows.decided
    sections = {section.key: section for section in board.sections}
    shown = {
        label: {row.key: row.metrics[board.primary] for row in sections[key].rows}
        for label, key in attacks.items()
    }
    more: dict[str, dict[ComponentKey, Effect]] = {}
    for label, attack in attacks.items():
        tables = rows.more[attack]
        found = zip(tables, effects(list(tables.values()), share=rows.share), strict=True)
        more[label] = {key: effect for key, effect in found if effect}
    beyond = {label: _beyond_front(rows, attack) for label, attack in attacks.items()}
    places = {_cell_key(one.cell)[2]: one for one in plan.cells}
    order = {key: (one.at is None, one.at or 0.0, number) for number, (key, one) in enumerate(places.items())}
    for row in sorted((row for row in decided.rows if row.key in places), key=lambda row: order[row.key]):
        others = {key: value for key, value in row.changed.items() if key != experiment.axis}
        yield Line(
            label=_label(row, experiment.axis, places[row.key], others),
            defense=row.defense,
            at=places[row.key].at,
            variant=options_text(others),
            baseline=row is decided.baseline,
            seeds=len(row.seeds),
            accuracy=row.accuracy,
            lost=row.accuracy_difference,
            leakage={label: found[row.key] for label, found in shown.items() if row.key in found},
            more={label: found[row.key] for label, found in more.items() if row.key in found},
            beyond={label: found[row.key] for label, found in beyond.items() if row.key in found},
        )


def _beyond_front(rows: _Rows, attack: SectionKey) -> dict[ComponentKey, Effect]:
    """Of each defended row its leakage less that of the undefended front at its accuracy."""
    front, leaked = rows.front(attack), rows.leakage[attack]
    keys = [key for key in leaked if key in rows.accuracy and key not in rows.undefended]
    if len(front) < 2 or not keys:
        return {}
    better = rows.board.quantities[rows.board.primary].better
    found = beyond_front([Point(rows.accuracy[key], leaked[key]) for key in keys], front, better)
    return {key: effect for key, effect in zip(keys, found, strict=True) if effect}


def _label(row: Standing, axis: str, placed: Placed, others: Mapping[str, object]) -> str:
    on_axis = placed.at is not None and row.role == "defense"
    words = [f"{axis}={placed.at:g}"] if on_axis else []
    return " ".join(filter(None, [row.defense, ", ".join(filter(None, [*words, options_text(others)]))]))


def _tests(
    experiment: Experiment, plan: Plan, rows: _Rows, attacks: Mapping[str, SectionKey]
) -> Iterator[Judgement]:
    """Of each claim the mean over the defense's settings, each less the baseline, compared with 0."""
    claims, decided = experiment.claims, rows.decided
    quantity = rows.board.quantities[rows.board.primary]
    leaked = {
        label: _means([_of(claim, rows.more[attack]) for claim in claims], rows.share)
        for label, attack in attacks.items()
    }
    accuracies = _means([_of(claim, rows.lost) for claim in claims], True)
    for number, claim in enumerate(claims):
        leakage = {label: effect for label, found in leaked.items() if (effect := found[number])}
        cells = [one.cell for one in plan.cells if _is_meant(claim, component_key(one.cell.defense))]
        missing = sum(not _has(rows, cell) for cell in cells)
        missing += sum(one.defense == claim.defense for one in plan.left_out)
        said = -1 if (claim.leakage == "more") == (quantity.better == "higher") else 1
        outcome = "unclear" if missing else judged(list(leakage.values()), said, decided.margins.leakage)
        settings = {key for tables in rows.more.values() for key in tables if _is_meant(claim, key)}
        beyond = {
            label: effect
            for label, attack in attacks.items()
            if (effect := _beyond(claim, rows, attack, quantity))
        }
        yield Judgement(
            claim,
            outcome,
            len(settings),
            missing,
            leakage,
            beyond,
            accuracies[number],
            quantity.better,
            decided.margins,
        )


def _has(rows: _Rows, cell: Cell) -> bool:
    """Whether the difference of a cell from the baseline has a number."""
    attack, prior, row, seed = _cell_key(cell)
    table = rows.more.get((attack, prior), {}).get(row)
    return table is not None and seed in table.seeds


def _of(claim: Claim, tables: Mapping[ComponentKey, Table]) -> list[Table]:
    return [table for key, table in tables.items() if _is_meant(claim, key)]


def _is_meant(claim: Claim, key: ComponentKey) -> bool:
    """Whether a claim is about a row."""
    defense, options = key[0], json.loads(key[1])
    return defense == claim.defense and claim.options.items() <= options.items()


def _means(groups: Iterable[Sequence[Table]], share: bool) -> list[Effect | None]:
    """The mean of each group of tables; what seeds vary by is pooled over the groups."""
    return effects([_mean(tables) for tables in groups], share=share)


def _mean(tables: Sequence[Table]) -> Table | None:
    """The mean of tables, on the seeds that all of them have, with the conditions of the first."""
    seeds = [seed for seed in (tables[0].seeds if tables else ()) if all(seed in one.seeds for one in tables)]
    if not seeds:
        return None
    mean = np.mean([table.on(seeds) for table in tables], axis=0)
    return Table(tuple(seeds), mean, tables[0].cut(seeds).conditions)


def _beyond(claim: Claim, rows: _Rows, attack: SectionKey, quantity: Quantity) -> Effect | None:
    """The leakage of a target that is drawn from the settings, less that of the front at its accuracy."""
    front = rows.front(attack)
    right, leaked = _mean(_of(claim, rows.accuracy)), _mean(_of(claim, rows.leakage[attack]))
    if len(front) < 2 or not right or not leaked:
        return None
    return beyond_front([Point(right, leaked)], front, quantity.better)[0]


def judged(found: Sequence[Effect], said: int, margin: float) -> Outcome:
    """What became of a claim.

    It is seen if under every attack the interval of the difference lies on the side that it says, however
    small the difference. It is not seen if under every attack the interval lies on the other side, or holds
    only differences below ``margin``. One seed says nothing of another training: then it is unclear.

    Args:
        found: the difference under each attack.
        said: 1 if the claim says that the quantity grows, -1 if it says that it falls.
        margin: a difference too small to matter; 0 where none is known.
    """
    if not found or any(effect.seeds < 2 for effect in found):
        return "unclear"
    ends = [sorted(said * end for end in effect.interval()) for effect in found]
    if all(low > 0 for low, _ in ends):
        return "seen here"
    if all(high < 0 or max(-low, high) < margin for low, high in ends):
        return "not seen here"
    return "unclear"
