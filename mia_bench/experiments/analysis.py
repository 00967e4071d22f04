"""From the records of an experiment to its answer: a line for each setting, and what became of each claim."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from mia_bench.api.metric import Direction, Quantity
from mia_bench.engine.grid import Cell, component_key
from mia_bench.errors import MiaBenchError
from mia_bench.experiments.definition import Claim, Experiment
from mia_bench.experiments.planning import Placed, Plan
from mia_bench.leaderboard.aggregate import Shown
from mia_bench.leaderboard.board import Board, build_board
from mia_bench.leaderboard.conditions import conditions
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
from mia_bench.track import Track, Variation

TRAINING = "train_accuracy"
"""The quantity that is measured on every training image."""

SMALL = 0.5
"""A difference too small for a claim, as a share of that which a board calls too small to matter: the effects
that claims are about are a few tenths of a bit here."""

Outcome = Literal["seen here", "not seen here", "unclear"]


@dataclass(frozen=True)
class Line:
    """A setting.

    Attributes:
        label: the defense with its place on the axis, the options that the experiment sets, and those that
            are not the track's.
        at: where it stands on the axis; None where it stands beside it.
        options: those that are neither the track's nor the axis, in words.
        accuracy, lost: of the target, and the difference from the baseline.
        leakage, more: by attack, and the differences from the baseline.
        beyond: by attack the difference from the undefended front at the same accuracy, where that is known.
    """

    key: ComponentKey
    label: str
    defense: str
    at: float | None
    options: str
    baseline: bool
    seeds: int
    accuracy: Shown | None
    lost: Effect | None
    leakage: Mapping[str, Shown]
    more: Mapping[str, Effect]
    beyond: Mapping[str, Effect]


@dataclass(frozen=True)
class Number:
    """A quantity of a target, and the difference from what it is compared with."""

    shown: Shown | None
    change: Effect | None


@dataclass(frozen=True)
class Judgement:
    """What became of a claim.

    Attributes:
        variant: where it was tested; for a trend, what was compared with what.
        settings: how many it is the mean over.
        missing: differences without a number, of one setting under one attack on one seed each; with any,
            the outcome is unclear.
        name, quantity: what it is about.
        effects: by attack the mean difference; by the empty word that of a quantity of the target.
        beyond: by attack the difference from the undefended front, at the settings' mean accuracy; without
            attacks where that is not known.
        accuracy: the mean difference of the accuracy.
        margins: differences too small to matter.
    """

    claim: Claim
    variant: str
    outcome: Outcome
    settings: int
    missing: int
    name: str
    quantity: Quantity
    effects: Mapping[str, Effect]
    beyond: Mapping[str, Effect]
    accuracy: Effect | None
    margins: Margins

    @property
    def costs(self) -> bool:
        """Whether what the claim says of leakage comes with a loss of accuracy beyond doubt."""
        return not self.claim.quantity and self.accuracy is not None and self.accuracy.interval()[1] < 0

    @property
    def verdict(self) -> str:
        """The outcome, with what lower accuracy has to do with it, or how small the difference is."""
        said = self.outcome.capitalize()
        if self.outcome == "not seen here":
            sign = direction(self.claim, self.quantity)
            most = max(_ends(effect, sign)[1] for effect in self.effects.values())
            if most < 0:
                return f"{said}, rather the opposite"
            return f"{said}, at most {rounded_up(most)} {self.margins.unit}".rstrip()
        if self.outcome == "unclear" or self.claim.says == "more" or not self.costs:
            return said
        under = [
            f"{_than(effect, self.quantity.better)} under {name}" for name, effect in self.beyond.items()
        ]
        if not under:
            return f"{said}, at a cost of accuracy; not compared with undefended targets of that accuracy"
        return f"{said}, at a cost of accuracy: undefended targets of that accuracy leak {', '.join(under)}"


def _than(effect: Effect, better: Direction) -> str:
    """What undefended targets leak in comparison, from the difference to them."""
    low, high = _ends(effect, -1 if better == "higher" else 1)
    return "less" if low > 0 else "more" if high < 0 else "perhaps less, perhaps more,"


def _ends(effect: Effect, sign: int) -> tuple[float, float]:
    """The interval of the effect times ``sign``."""
    low, high = sorted(sign * end for end in effect.interval())
    return low, high


def direction(claim: Claim, quantity: Quantity) -> int:
    """1 if the claim says that the quantity grows, -1 if it says that it falls."""
    said = 1 if claim.says == "more" else -1
    # More leakage is less of a quantity of which more is better for the defender.
    return -said if not claim.quantity and quantity.better == "higher" else said


@dataclass(frozen=True)
class Part:
    """What an experiment found in a variant of a track.

    Attributes:
        variant: its label; empty where the experiment has one variant.
        attacks: their labels, in the order of the experiment.
        first: the label of the experiment's first attack; empty where no record has it.
        numbers: by quantity and attack (empty for quantities of the target) those of each target's label.
        missing: cells without a finished record.
    """

    variant: str
    board: Board
    decided: Standings
    attacks: Mapping[str, SectionKey]
    first: str
    lines: tuple[Line, ...]
    numbers: Mapping[tuple[str, str], Mapping[str, Number]]
    missing: tuple[Cell, ...]

    @property
    def with_front(self) -> tuple[str, ...]:
        """The attacks under which some setting is compared with the undefended front."""
        return tuple(label for label in self.attacks if any(label in line.beyond for line in self.lines))

    @property
    def available_images(self) -> float | None:
        """Training images of a class that the track has, whatever the variant takes: the mean over classes.

        None where records don't say it.
        """
        for record in self.board.done:
            measured, classes = record.metrics.get(TRAINING), record.per_class.get(self.decided.accuracy)
            if measured and classes:
                return measured.n / len(classes)
        return None

    @property
    def leakage(self) -> Quantity:
        """The quantity of leakage."""
        return self.board.quantities[self.board.primary]

    @property
    def accuracy(self) -> Quantity:
        """That of utility."""
        return self.board.quantities[self.decided.accuracy]


@dataclass(frozen=True)
class Answer:
    """What an experiment found on a track.

    Attributes:
        parts: in each variant with numbers.
        tested: what became of the claims; a trend is there only where both its variants are.
        missing: how many cells have no finished record, or stand in a variant without a baseline.
    """

    track: Track
    parts: tuple[Part, ...]
    tested: tuple[Judgement, ...]
    missing: int

    @property
    def described(self) -> tuple[str, ...]:
        """The quantities of the tables."""
        return tuple(dict.fromkeys(name for name, _ in self.parts[0].numbers))

    @property
    def seeds(self) -> str:
        """How many seeds its settings have: ``3``, or ``2 to 3``."""
        counts = [line.seeds for part in self.parts for line in part.lines]
        return " to ".join(str(count) for count in sorted({min(counts), max(counts)}))


def records_of(
    plan: Plan,
    registry: Registry,
    track: Track,
    records: Iterable[Record],
    boards: Iterable[Record] = (),
) -> tuple[list[Record], list[Record]]:
    """The finished records of these cells, as they are stored: those that no board has, and those of boards.

    Of several of a cell one counts that has the protocol of most cells, and was computed under the conditions
    of most cells with that attack, as others are not compared with them; of these one of a board, else the
    newest. Records of other versions than are installed, of other variants of the track, and of models of the
    user's own, are left out.
    """
    wanted = {_cell_key(one.cell) for one in plan.cells}
    given = [(record, False) for record in records] + [(record, True) for record in boards]
    stored = [
        (record, on_board)
        for record, on_board in given
        if record.status == "done"
        and record.track.variant == track.variant
        and not record.defense.about.own_model
        and not outdated(record, track, registry)
    ]
    described = describe(registry, track, [record for record, _ in stored])
    found: dict[CellKey, list[tuple[Record, bool]]] = defaultdict(list)
    for one, record in zip(stored, described, strict=True):
        if (key := cell_key(record)) in wanted:
            found[key].append(one)
    protocol = _most(found.values(), lambda record: record.track.protocol)
    sections: dict[SectionKey, list[list[tuple[Record, bool]]]] = defaultdict(list)
    for key, same in found.items():
        sections[key[:2]].append([one for one in same if one[0].track.protocol == protocol])
    chosen = []
    for cells in sections.values():
        usual = _most(cells, conditions)
        chosen += [
            max(same, key=lambda one: (conditions(one[0]) == usual, one[1], one[0].provenance.finished))
            for same in filter(None, cells)
        ]
    own = [record for record, on_board in chosen if not on_board]
    return own, [record for record, on_board in chosen if on_board]


def _most(cells: Iterable[Sequence[tuple[Record, bool]]], told: Callable[[Record], Hashable]) -> Hashable:
    """What records of most cells tell.

    Of two with equally many what records of more cells of boards tell, then what the newest record does.
    """
    every: Counter[Hashable] = Counter()
    published: Counter[Hashable] = Counter()
    newest: dict[Hashable, str] = defaultdict(str)
    for same in cells:
        every.update({told(record) for record, _ in same})
        published.update({told(record) for record, on_board in same if on_board})
        for record, _ in same:
            newest[told(record)] = max(newest[told(record)], record.provenance.finished or "")
    return max(every, key=lambda one: (every[one], published[one], newest[one]), default=None)


def _cell_key(cell: Cell) -> CellKey:
    """What the cell shares with its records."""
    return component_key(cell.attack), component_key(cell.prior), component_key(cell.defense), cell.seed


def answer(
    experiment: Experiment,
    track: Track,
    plans: Sequence[Plan],
    registry: Registry,
    records: Iterable[Record],
) -> Answer | None:
    """What the records say; None where there is nothing to compare.

    Args:
        track: as it is installed.
        plans: the cells in each variant.

    Raises:
        MiaBenchError: the records can't be compared.
    """
    records = list(records)
    every = [
        _rows(experiment, variation, track, plan, registry, records)
        for variation, plan in zip(experiment.variations_on(track.name), plans, strict=True)
    ]
    found = [rows for rows in every if rows]
    if not found:
        return None
    parts = [_part(experiment, rows) for rows in found]
    tested = [one for rows in found for one in _tests(experiment, rows)]
    by_label = {rows.variant: rows for rows in found}
    first, last = map(by_label.get, experiment.trend_ends)
    if first and last:
        tested += _trends(experiment, first, last)
    silent = [plan for plan, rows in zip(plans, every, strict=True) if not rows]
    missing = sum(len(part.missing) for part in parts) + sum(len(plan.cells) for plan in silent)
    return Answer(track, tuple(parts), tuple(tested), missing)


def _rows(
    experiment: Experiment,
    variation: Variation,
    track: Track,
    plan: Plan,
    registry: Registry,
    records: Sequence[Record],
) -> _Rows | None:
    changed = variation.of(track)
    found, _ = records_of(plan, registry, changed, records)
    board = build_board(registry, changed, found)
    decided = standings(board, unpaired=False, own_targets=False)
    if not (board.primary and decided.accuracy):
        return None
    if experiment.compare == "targets" and not decided.baseline:
        return None
    there = {cell_key(record) for record in board.records}
    missing = tuple(one.cell for one in plan.cells if _cell_key(one.cell) not in there)
    return _Rows(experiment, variation.label, plan, board, decided, missing)


class _Rows:
    """Tables of class means by row: of a quantity of the target, or of one of reconstructions by attack.

    ``changes`` are less what they are compared with: the baseline's, or those under the first attack.
    """

    def __init__(
        self,
        experiment: Experiment,
        variant: str,
        plan: Plan,
        board: Board,
        decided: Standings,
        missing: tuple[Cell, ...],
    ) -> None:
        self.variant, self.plan, self.board, self.decided = variant, plan, board, decided
        self.missing = missing
        wanted = {_cell_key(one.cell)[:2]: one.words for one in plan.cells}
        labels = {section.key: wanted.get(section.key) or board.label(section) for section in board.sections}
        self.attacks: dict[str, SectionKey] = {labels[key]: key for key in wanted if key in labels}
        self.base = decided.baseline.key if decided.baseline else None
        self.of_attacks = experiment.compare == "attacks"
        self.first = next((_cell_key(one.cell)[:2] for one in plan.cells if one.first), None)
        self._under: dict[SectionKey | None, Sequence[Record]] = {None: board.done}
        self._under.update(group(board.done, section_key))
        self._tables: dict[tuple[str, SectionKey | None], dict[ComponentKey, Table]] = {}
        front = ("baseline", "front")
        self.undefended = [row.key for row in decided.rows if row.role in front]

    def under(self, name: str) -> dict[str, SectionKey | None]:
        """The attacks that a quantity is measured under, by label; one without a label for the target's.

        Raises:
            MiaBenchError: no metric gives it.
        """
        if name not in self.board.quantities:
            raise MiaBenchError(f"the experiment asks for {name!r}, which no metric gives")
        return dict(self.attacks) if name in self.board.of_attack else {"": None}

    def tables(self, name: str, attack: SectionKey | None) -> dict[ComponentKey, Table]:
        """The tables of a quantity."""
        if (name, attack) not in self._tables:
            rows = group(self._under.get(attack, ()), row_key)
            tables = {key: class_table(name, same) for key, same in rows.items()}
            self._tables[name, attack] = {key: table for key, table in tables.items() if table}
        return self._tables[name, attack]

    def changes(self, name: str, attack: SectionKey | None) -> dict[ComponentKey, Table]:
        """The tables less what they are compared with."""
        own = self.tables(name, attack)
        if self.of_attacks:
            compared = attack and self.first and attack != self.first
            other = self.tables(name, self.first) if compared else {}
            pairs = {key: table.minus(other[key]) for key, table in own.items() if key in other}
        else:
            base = own.get(self.base) if self.base else None
            pairs = {key: table.minus(base) for key, table in own.items() if base and key != self.base}
        return {key: table for key, table in pairs.items() if table}

    def effects(self, name: str, attack: SectionKey | None) -> dict[ComponentKey, Effect]:
        """The means of the changes; what seeds vary by is pooled over the rows."""
        tables = self.changes(name, attack)
        found = effects(list(tables.values()), share=self.is_share(name))
        return {key: effect for key, effect in zip(tables, found, strict=True) if effect}

    def is_share(self, name: str) -> bool:
        """Whether the quantity is a share."""
        return self.board.quantities[name].kind == "share"

    def front(self, attack: SectionKey) -> list[Point]:
        """The undefended rows under an attack."""
        right, leaked = self.tables(self.decided.accuracy, None), self.tables(self.board.primary, attack)
        return [Point(right[key], leaked[key]) for key in self.undefended if key in leaked and key in right]


def _part(experiment: Experiment, rows: _Rows) -> Part:
    lines = tuple(_lines(experiment, rows))
    show = experiment.show or (rows.decided.accuracy, rows.board.primary)
    return Part(
        rows.variant,
        rows.board,
        rows.decided,
        rows.attacks,
        next((label for label, key in rows.attacks.items() if key == rows.first), ""),
        lines,
        {key: found for name in show for key, found in _numbers(rows, name, lines)},
        rows.missing,
    )


def _numbers(
    rows: _Rows, name: str, lines: Sequence[Line]
) -> Iterator[tuple[tuple[str, str], dict[str, Number]]]:
    """A quantity of each line's target, under each attack if it is of reconstructions."""
    board = rows.board
    sections = {section.key: section.rows for section in board.sections}
    for label, attack in rows.under(name).items():
        shown = {row.key: row.metrics.get(name) for row in (sections[attack] if attack else board.utility)}
        changes = rows.effects(name, attack)
        yield (
            (name, label),
            {one.label: Number(shown.get(one.key), changes.get(one.key)) for one in lines},
        )


def _lines(experiment: Experiment, rows: _Rows) -> Iterator[Line]:
    """The settings along the axis, those beside it at the end."""
    board, decided = rows.board, rows.decided
    sections = {section.key: section for section in board.sections}
    shown = {
        label: {row.key: row.metrics[board.primary] for row in sections[key].rows}
        for label, key in rows.attacks.items()
    }
    more = {label: rows.effects(board.primary, attack) for label, attack in rows.attacks.items()}
    beyond = {label: _beyond_front(rows, attack) for label, attack in rows.attacks.items()}
    places = {_cell_key(one.cell)[2]: one for one in rows.plan.cells}
    order = {key: (one.at is None, one.at or 0.0, number) for number, (key, one) in enumerate(places.items())}
    for row in sorted((row for row in decided.rows if row.key in places), key=lambda row: order[row.key]):
        placed = places[row.key]
        options = placed.cell.defense.spec()["options"]
        named = {**row.changed, **{key: options[key] for key in placed.given}}
        others = {key: named[key] for key in sorted(named) if key != experiment.axis}
        yield Line(
            key=row.key,
            label=_label(row, experiment.axis, placed, others),
            defense=row.defense,
            at=placed.at,
            options=options_text(others),
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
    front, leaked = rows.front(attack), rows.tables(rows.board.primary, attack)
    right = rows.tables(rows.decided.accuracy, None)
    keys = [key for key in leaked if key in right and key not in rows.undefended]
    if len(front) < 2 or not keys:
        return {}
    found = beyond_front([Point(right[key], leaked[key]) for key in keys], front, _better(rows))
    return {key: effect for key, effect in zip(keys, found, strict=True) if effect}


def _better(rows: _Rows) -> Direction:
    return rows.board.quantities[rows.board.primary].better


def _label(row: Standing, axis: str, placed: Placed, others: Mapping[str, object]) -> str:
    on_axis = bool(axis) and placed.at is not None and row.role == "defense"
    words = [f"{axis}={placed.at:g}"] if on_axis else []
    return " ".join(filter(None, [row.defense, ", ".join(filter(None, [*words, options_text(others)]))]))


def _tests(experiment: Experiment, rows: _Rows) -> Iterator[Judgement]:
    """Of each claim the mean over the settings that it is about, each less what it is compared with."""
    claims = [claim for claim in experiment.claims if not claim.trend and _is_tried(claim, rows)]
    means = _mean_changes(rows, claims)
    lost = _mean_effects(rows, claims, rows.decided.accuracy, None)
    for claim, found, cost in zip(claims, means, lost, strict=True):
        name = claim.quantity or rows.board.primary
        attacks = _attacks(claim, rows, name)
        beyond = {}
        if not claim.quantity and experiment.compare == "targets":
            under = {label: attack for label, attack in attacks.items() if attack}
            front = {label: _beyond(claim, rows, attack) for label, attack in under.items()}
            beyond = {label: effect for label, effect in front.items() if effect}
        settings = {
            key for attack in attacks.values() for key in rows.changes(name, attack) if _is_meant(claim, key)
        }
        yield _judgement(claim, rows, rows.variant, found, len(settings), _missing(claim, rows), beyond, cost)


def _trends(experiment: Experiment, first: _Rows, last: _Rows) -> Iterator[Judgement]:
    """Of each claim about a trend the difference in the first variant less that in the last."""
    claims = [claim for claim in experiment.claims if claim.trend]
    for claim in claims:
        name = claim.quantity or first.board.primary
        found: dict[str, Effect] = {}
        for label, attack in _attacks(claim, first, name).items():
            here, there = (_mean(_of(claim, rows.changes(name, attack))) for rows in (first, last))
            table = here.minus(there) if here and there else None
            (effect,) = effects([table], share=first.is_share(name))
            found |= {label: effect} if effect else {}
        missing = _missing(claim, first) + _missing(claim, last)
        words = f"{first.variant} minus {last.variant}"
        yield _judgement(claim, first, words, found, 1, missing, {}, None)


def _judgement(
    claim: Claim,
    rows: _Rows,
    variant: str,
    found: Mapping[str, Effect],
    settings: int,
    missing: int,
    beyond: Mapping[str, Effect],
    accuracy: Effect | None,
) -> Judgement:
    name = claim.quantity or rows.board.primary
    quantity = rows.board.quantities[name]
    margins = Margins.of(quantity)
    margin = SMALL * margins.leakage
    outcome = "unclear" if missing else judged(list(found.values()), direction(claim, quantity), margin)
    return Judgement(
        claim, variant, outcome, settings, missing, name, quantity, found, beyond, accuracy, margins
    )


def _mean_changes(rows: _Rows, claims: Sequence[Claim]) -> list[dict[str, Effect]]:
    """Of each claim the mean change under each attack; pooled over the claims about one quantity."""
    found: list[dict[str, Effect]] = [{} for _ in claims]
    names = [claim.quantity or rows.board.primary for claim in claims]
    for name in dict.fromkeys(names):
        numbers = [number for number, other in enumerate(names) if other == name]
        for label, attack in rows.under(name).items():
            meant = [number for number in numbers if label in _attacks(claims[number], rows, name)]
            several = _mean_effects(rows, [claims[number] for number in meant], name, attack)
            for number, effect in zip(meant, several, strict=True):
                found[number] |= {label: effect} if effect else {}
    return found


def _mean_effects(
    rows: _Rows, claims: Sequence[Claim], name: str, attack: SectionKey | None
) -> list[Effect | None]:
    """Of each claim the mean change over its settings; that of one setting is the number of the table.

    What seeds vary by is pooled over the sets of settings, each counted once.
    """
    changes, own = rows.changes(name, attack), rows.effects(name, attack)
    meant = [tuple(key for key in changes if _is_meant(claim, key)) for claim in claims]
    several = list(dict.fromkeys(keys for keys in meant if len(keys) > 1))
    tables = [_mean([changes[key] for key in keys]) for keys in several]
    means = dict(zip(several, effects(tables, share=rows.is_share(name)), strict=True))
    return [own.get(keys[0]) if len(keys) == 1 else means.get(keys) for keys in meant]


def _attacks(claim: Claim, rows: _Rows, name: str) -> dict[str, SectionKey | None]:
    """The attacks that a claim is tested under, by label."""
    return {
        label: attack
        for label, attack in rows.under(name).items()
        if attack is None or _is_under(claim, attack[0])
    }


def _missing(claim: Claim, rows: _Rows) -> int:
    """How many differences that a claim is about have no number."""
    name = claim.quantity or rows.board.primary
    of_attack = name in rows.board.of_attack
    wanted = {
        ((attack, prior) if of_attack else None, row, seed)
        for attack, prior, row, seed in _cells(claim, rows)
        if not (rows.of_attacks and (attack, prior) == rows.first)
    }
    there = {
        (section, row, seed)
        for section in {section for section, _, _ in wanted}
        for row, table in rows.changes(name, section).items()
        for seed in table.seeds
    }
    return len(wanted - there) + _left_out(claim, rows)


def _is_tried(claim: Claim, rows: _Rows) -> bool:
    """Whether a claim is about something that is run on the track, or was to be."""
    return bool(_cells(claim, rows) or _left_out(claim, rows))


def _cells(claim: Claim, rows: _Rows) -> list[CellKey]:
    """The planned cells that a claim is about."""
    keys = [_cell_key(one.cell) for one in rows.plan.cells]
    return [key for key in keys if _is_meant(claim, key[2]) and _is_under(claim, key[0])]


def _left_out(claim: Claim, rows: _Rows) -> int:
    """How many settings that a claim is about can't be run."""
    given = [json.loads(one.options) for one in rows.plan.left_out if one.defense == claim.defense]
    return sum(all(one.get(name, value) == value for name, value in claim.options.items()) for one in given)


def _of(claim: Claim, tables: Mapping[ComponentKey, Table]) -> list[Table]:
    return [table for key, table in tables.items() if _is_meant(claim, key)]


def _is_under(claim: Claim, attack: ComponentKey) -> bool:
    """Whether a claim is tested under an attack."""
    name, options = attack[0], json.loads(attack[1])
    return (not claim.attacks or name in claim.attacks) and claim.attack.items() <= options.items()


def _is_meant(claim: Claim, key: ComponentKey) -> bool:
    """Whether a claim is about a row."""
    defense, options = key[0], json.loads(key[1])
    return defense == claim.defense and claim.options.items() <= options.items()


def _mean(tables: Sequence[Table]) -> Table | None:
    """The mean of tables, on the seeds that all of them have, with the conditions of the first."""
    seeds = [seed for seed in (tables[0].seeds if tables else ()) if all(seed in one.seeds for one in tables)]
    if not seeds:
        return None
    mean = np.mean([table.on(seeds) for table in tables], axis=0)
    return Table(tuple(seeds), mean, tables[0].cut(seeds).conditions)


def _beyond(claim: Claim, rows: _Rows, attack: SectionKey) -> Effect | None:
    """The leakage of a target that is drawn from the settings, less that of the front at its accuracy."""
    front = rows.front(attack)
    right = _mean(_of(claim, rows.tables(rows.decided.accuracy, None)))
    leaked = _mean(_of(claim, rows.tables(rows.board.primary, attack)))
    if len(front) < 2 or not right or not leaked:
        return None
    return beyond_front([Point(right, leaked)], front, _better(rows))[0]


def judged(found: Sequence[Effect], said: int, margin: float) -> Outcome:
    """What became of a claim.

    It is seen if under every attack the interval of the difference lies on the side that it says, however
    small the difference. It is not seen if under every attack the interval holds no difference of ``margin``
    or more on that side. One seed says nothing of another training: then it is unclear.

    Args:
        found: the difference under each attack.
        said: 1 if the claim says that the quantity grows, -1 if it says that it falls.
        margin: a difference too small to matter; 0 where none is known.
    """
    if not found or any(effect.seeds < 2 for effect in found):
        return "unclear"
    ends = [_ends(effect, said) for effect in found]
    if all(low > 0 for low, _ in ends):
        return "seen here"
    if all(high < margin or high < 0 for _, high in ends):
        return "not seen here"
    return "unclear"
