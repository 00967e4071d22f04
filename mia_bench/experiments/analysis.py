"""From the records of an experiment to its answer: a line for each setting, and what became of each claim."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from mia_bench.api.metric import Quantity
from mia_bench.components import ConfiguredComponent
from mia_bench.engine.grid import Cell
from mia_bench.experiments.definition import Claim, Experiment
from mia_bench.experiments.planning import Placed
from mia_bench.leaderboard.aggregate import Shown
from mia_bench.leaderboard.board import Board, build_board
from mia_bench.leaderboard.described import describe
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
from mia_bench.leaderboard.tables import Table, class_table, effects
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
        label: the defense with the options that are not the track's.
        at: where it stands on the axis.
        variant: its options that are neither the track's nor the axis, in words.
        accuracy, lost: of the target, and the difference from the baseline.
        leakage, more: by attack, and the differences from the baseline.
    """

    label: str
    at: float
    variant: str
    baseline: bool
    seeds: int
    accuracy: Shown | None
    lost: Effect | None
    leakage: Mapping[str, Shown]
    more: Mapping[str, Effect]


@dataclass(frozen=True)
class Tested:
    """What became of a claim.

    Attributes:
        settings: how many it was averaged over.
        missing: cells of the defense or the baseline without numbers; with any, the outcome is unclear.
        leakage: by attack the mean difference from the baseline.
        accuracy: that of the accuracy.
    """

    claim: Claim
    outcome: Outcome
    settings: int
    missing: int
    leakage: Mapping[str, Effect]
    accuracy: Effect | None


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
    tested: tuple[Tested, ...]
    missing: tuple[Cell, ...]

    @property
    def leakage(self) -> Quantity:
        """The quantity of leakage."""
        return self.board.quantities[self.board.primary]

    @property
    def accuracy(self) -> Quantity:
        """That of utility."""
        return self.board.quantities[self.decided.accuracy]


def key_of(cell: Cell) -> CellKey:
    """What the cell shares with its records."""
    return _key(cell.attack), _key(cell.prior), _key(cell.defense), cell.seed


def _key(part: ConfiguredComponent) -> ComponentKey:
    return part.name, json.dumps(part.spec()["options"], sort_keys=True)


def records_of(
    cells: Iterable[Placed], registry: Registry, track: Track, records: Iterable[Record]
) -> dict[CellKey, Record]:
    """Of the records those of these cells, as they are stored; of several the newest."""
    wanted = {key_of(one.cell) for one in cells}
    stored = [
        record for record in records if record.status == "done" and record.track.version == track.version
    ]
    found: dict[CellKey, Record] = {}
    for record, described in zip(stored, describe(registry, track, stored), strict=True):
        key = cell_key(described)
        before = found.get(key)
        if key in wanted and (not before or record.provenance.finished > before.provenance.finished):
            found[key] = record
    return found


def answer(
    experiment: Experiment,
    cells: Sequence[Placed],
    registry: Registry,
    track: Track,
    records: Iterable[Record],
) -> Answer | None:
    """What the records say; None where there is no number of the undefended target.

    Raises:
        MiaBenchError: the records can't be compared.
    """
    found = records_of(cells, registry, track, records)
    if not found:
        return None
    board = build_board(registry, track, found.values())
    decided = standings(board)
    if not (board.primary and decided.accuracy and decided.baseline):
        return None
    sections = {section.key: section for section in board.sections}
    keys: dict[SectionKey, None] = dict.fromkeys(key_of(one.cell)[:2] for one in cells)
    attacks = {board.label(sections[key]): key for key in keys if key in sections}
    differences = _differences(board, decided, attacks.values())
    places = {key_of(one.cell)[2]: one for one in cells}
    shown = {
        label: {row.key: row.metrics[board.primary] for row in sections[key].rows}
        for label, key in attacks.items()
    }
    missing = tuple(one.cell for one in cells if key_of(one.cell) not in found)
    lines = [
        Line(
            label=_label(row, experiment.axis, places[row.key].at),
            at=places[row.key].at,
            variant=options_text({k: v for k, v in row.changed.items() if k != experiment.axis}),
            baseline=row is decided.baseline,
            seeds=len(row.seeds),
            accuracy=row.accuracy,
            lost=row.accuracy_difference,
            leakage={label: found[row.key] for label, found in shown.items() if row.key in found},
            more={
                label: effect
                for label, key in attacks.items()
                if (effect := differences.leakage[key].get(row.key))
            },
        )
        for row in decided.rows
        if row.key in places
    ]
    return Answer(
        track,
        board,
        decided,
        tuple(attacks),
        tuple(sorted(lines, key=lambda line: (line.at, line.label))),
        tuple(_tests(experiment, differences, attacks, decided, missing)),
        missing,
    )


def _label(row: Standing, axis: str, at: float) -> str:
    """The defense with its place on the axis, and its further options that are not the track's."""
    others = options_text({key: value for key, value in row.changed.items() if key != axis})
    own = "" if row.role == "baseline" else f"{axis}={at:g}"
    return f"{row.defense} {', '.join(filter(None, [own, others]))}".strip()


@dataclass(frozen=True)
class _Differences:
    """Tables of differences from the baseline, by row.

    Attributes:
        leakage: by attack the effects.
        leakage_tables, accuracy_tables: what they are the means of.
    """

    leakage: Mapping[SectionKey, Mapping[ComponentKey, Effect]]
    leakage_tables: Mapping[SectionKey, Mapping[ComponentKey, Table]]
    accuracy_tables: Mapping[ComponentKey, Table]


def _differences(board: Board, decided: Standings, attacks: Iterable[SectionKey]) -> _Differences:
    assert decided.baseline is not None
    base, share = decided.baseline.key, board.quantities[board.primary].kind == "share"
    under = group(board.done, section_key)
    tables = {attack: _minus_base(board.primary, under[attack], base) for attack in attacks}
    return _Differences(
        {attack: _effects(found, share) for attack, found in tables.items()},
        tables,
        _minus_base(decided.accuracy, board.done, base),
    )


def _minus_base(name: str, records: Iterable[Record], base: ComponentKey) -> dict[ComponentKey, Table]:
    rows = {key: class_table(name, same) for key, same in group(records, row_key).items()}
    baseline = rows.pop(base, None)
    if baseline is None:
        return {}
    found = {key: table.minus(baseline) for key, table in rows.items() if table}
    return {key: table for key, table in found.items() if table}


def _effects(tables: Mapping[ComponentKey, Table], share: bool) -> dict[ComponentKey, Effect]:
    found = zip(tables, effects(list(tables.values()), share=share), strict=True)
    return {key: effect for key, effect in found if effect}


def _tests(
    experiment: Experiment,
    differences: _Differences,
    attacks: Mapping[str, SectionKey],
    decided: Standings,
    missing: Sequence[Cell],
) -> Iterator[Tested]:
    """Of each claim the mean over the defense's settings, each less the baseline, compared with 0."""
    claims, board, base = experiment.claims, decided.board, decided.baseline
    assert base is not None
    quantity = board.quantities[board.primary]
    leaked = {
        label: _means(claims, differences.leakage_tables[attack], quantity.kind == "share")
        for label, attack in attacks.items()
    }
    accuracies = _means(claims, differences.accuracy_tables, True)
    for number, claim in enumerate(claims):
        leakage = {label: effect for label, found in leaked.items() if (effect := found[number])}
        settings = {key for tables in differences.leakage_tables.values() for key in _of(claim, tables)}
        lacking = sum(cell.defense.name in (claim.defense, base.defense) for cell in missing)
        said = -1 if (claim.leakage == "more") == (quantity.better == "higher") else 1
        outcome = "unclear" if lacking else judged(list(leakage.values()), said, decided.margins.leakage)
        yield Tested(claim, outcome, len(settings), lacking, leakage, accuracies[number])


def _of(claim: Claim, tables: Mapping[ComponentKey, Table]) -> dict[ComponentKey, Table]:
    return {key: table for key, table in tables.items() if key[0] == claim.defense}


def _means(claims: Iterable[Claim], tables: Mapping[ComponentKey, Table], share: bool) -> list[Effect | None]:
    """Of each claim the mean over its settings; what seeds vary by is pooled over the claims."""
    return effects([_mean(list(_of(claim, tables).values())) for claim in claims], share=share)


def _mean(tables: Sequence[Table]) -> Table | None:
    """The mean of tables, on the seeds that all of them have."""
    seeds = [seed for seed in (tables[0].seeds if tables else ()) if all(seed in one.seeds for one in tables)]
    return Table(tuple(seeds), np.mean([table.on(seeds) for table in tables], axis=0)) if seeds else None


def judged(found: Sequence[Effect], said: int, margin: float) -> Outcome:
    """What became of a claim.

    It is seen if under every attack the interval of the difference lies on the side that it says; it is not
    if under every attack the interval lies on the other side, or within ``margin`` of 0.

    Args:
        found: the difference under each attack.
        said: 1 if the claim says that the quantity grows, -1 if it says that it falls.
        margin: a difference too small to matter; 0 where none is known.
    """
    ends = [sorted(said * end for end in effect.interval()) for effect in found]
    if ends and all(low > 0 for low, _ in ends):
        return "seen here"
    if ends and all(high < 0 or max(-low, high) < margin for low, high in ends):
        return "not seen here"
    return "unclear"
