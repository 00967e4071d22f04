"""From records to a board: which quantities are shown where, and the tables.

Pure functions of records, track and registry; the order of the records never matters.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mia_bench.api.metric import AttackMetric, Metric, Quantity
from mia_bench.errors import MiaBenchError
from mia_bench.leaderboard import described
from mia_bench.leaderboard.admit import refusals
from mia_bench.leaderboard.aggregate import Quantities, Row, Shown, average, clamp, make_row, values
from mia_bench.leaderboard.compare import Difference, best_first, differences
from mia_bench.leaderboard.described import CELL_KINDS
from mia_bench.leaderboard.grouping import RowKey, by_seed, group, row_key, section_key
from mia_bench.record import About, ComponentRef, Record
from mia_bench.recorded_options import options_text
from mia_bench.registry import Registry
from mia_bench.statistics import Estimate
from mia_bench.track import Track

UNDECLARED = Quantity("reported by the defense")
"""What is said of a number that no metric of the track and no built-in defense declares."""


@dataclass(frozen=True)
class Unfinished:
    """Cells without numbers: failed or skipped, with one reason."""

    defense: str
    options: str
    seeds: tuple[int, ...]
    status: str
    reason: str


@dataclass(frozen=True)
class Section:
    """One attack with its options and prior: a table whose rows can be compared.

    Attributes:
        reference: what kind of reference the attack is (``floor``), empty for real attacks.
        ceiling: held-out real images instead of reconstructions.
        rows: best defended first.
        floors: rows of reference attacks with the same prior, against the baseline.
        baseline: the row that ``differences`` are taken from; None for a reference attack, and where
            no cell of it finished.
    """

    attack: str
    attack_options: Mapping[str, Any]
    prior: str
    prior_options: Mapping[str, Any]
    reference: str
    ceiling: Row | None
    rows: tuple[Row, ...]
    floors: tuple[Row, ...]
    baseline: Row | None
    differences: tuple[Difference, ...]
    unfinished: tuple[Unfinished, ...]


@dataclass(frozen=True)
class Board:
    """Everything a page shows.

    Attributes:
        quantities: by name, of everything that is shown; first the declared ones in the order of the track's
            metrics.
        utility_metrics, leakage_metrics, further_metrics: names of the columns.
        primary: the quantity that orders the tables; empty where there is none.
        paired: the quantities compared with the baseline class by class.
        methods: what the components say of themselves, by kind and name.
        references: quantities that depend on no cell and are no ceiling of another.
    """

    track: Track
    records: tuple[Record, ...]
    quantities: Quantities
    utility: tuple[Row, ...]
    utility_metrics: tuple[str, ...]
    leakage_metrics: tuple[str, ...]
    further_metrics: tuple[str, ...]
    primary: str
    paired: tuple[str, ...]
    methods: Mapping[tuple[str, str], About]
    sections: tuple[Section, ...]
    references: Mapping[str, Estimate]
    seeds: tuple[int, ...]
    versions: Mapping[str, tuple[str, ...]]
    finished: str


@dataclass(frozen=True)
class _Plan:
    """Which quantities go where, and which components play a part.

    Attributes:
        ranked: the quantity that orders rows, and the one that breaks ties.
        references: what kind of reference each attack is.
    """

    utility: Quantities
    leakage: Quantities
    further: Quantities
    quantities: Quantities
    ranked: tuple[str, ...]
    references: Mapping[str, str]
    baselines: frozenset[RowKey]

    @property
    def paired(self) -> tuple[str, ...]:
        """What is compared class by class, of the quantities that order rows."""
        return tuple(name for name in self.ranked if self.quantities[name].paired)

    @property
    def of_attack(self) -> Quantities:
        """What a section shows."""
        return {**self.leakage, **self.further}


def build_board(registry: Registry, track: Track, records: Iterable[Record]) -> Board:
    """The board of ``track`` from its records.

    Raises:
        MiaBenchError: a record can't be on it; the message names the record and why.
    """
    ordered = sorted(records, key=lambda record: record.key)
    ordered = [described.completed(registry, record) for record in ordered]
    if lines := refusals(track, ordered):
        more = f" (and {len(lines) - 1} more)" if len(lines) > 1 else ""
        raise MiaBenchError(f"track {track.name!r}: {lines[0]}{more}")
    plan = _plan(registry, track, ordered)
    done = [record for record in ordered if record.status == "done"]
    settings = sorted(group(done, row_key).items(), key=lambda item: item[0] not in plan.baselines)
    ceilings = {quantity.ceiling for quantity in plan.quantities.values()}
    return Board(
        track=track,
        records=tuple(ordered),
        quantities=plan.quantities,
        utility=tuple(make_row(same, plan.utility) for _, same in settings),
        utility_metrics=tuple(plan.utility),
        leakage_metrics=tuple(plan.leakage),
        further_metrics=tuple(plan.further),
        primary=next(iter(plan.ranked), ""),
        paired=plan.paired,
        methods=_methods(registry, ordered),
        sections=_sections(ordered, plan),
        references={
            name: average(found)
            for name, quantity in plan.quantities.items()
            if quantity.role == "reference" and name not in ceilings and (found := values(name, done))
        },
        seeds=tuple(by_seed(ordered)),
        versions=_versions(ordered),
        finished=max((record.provenance.finished for record in ordered), default=""),
    )


def _plan(registry: Registry, track: Track, records: Sequence[Record]) -> _Plan:
    metrics: list[type[Metric]] = [registry.get("metric", name).load() for name in track.metrics]
    declared = {name: quantity for m in metrics for name, quantity in m.quantities.items()}
    of_attack = {n for m in metrics if issubclass(m, AttackMetric) for n in m.quantities}
    present = {name for record in records for name in record.metrics}
    reported = described.reports(registry, records)
    known = {**declared, **{n: q for n, q in reported.items() if n not in declared}}
    quantities = {**known, **dict.fromkeys(sorted(present - known.keys()), UNDECLARED)}
    columns = {
        name: quantity
        for name, quantity in quantities.items()
        if name in present and quantity.role not in ("reference", "selection")
    }
    leakage = {n: q for n, q in columns.items() if n in of_attack and q.role == "leakage"}
    return _Plan(
        utility={n: q for n, q in columns.items() if n not in of_attack},
        leakage=leakage,
        further={n: q for n, q in columns.items() if n in of_attack and n not in leakage},
        quantities=quantities,
        ranked=_ranked(track, declared, records),
        references={r.attack.name: described.reference_kind(registry, r) for r in records},
        baselines=frozenset(
            row_key(record)
            for record in records
            if described.is_baseline(registry, record)
            and not described.changed(registry, track, "defense", record.defense)
        ),
    )


def _ranked(track: Track, quantities: Quantities, records: Sequence[Record]) -> tuple[str, ...]:
    """The first quantity of the track's ranking that was measured, and the last, which breaks ties."""
    names = track.ranked_by or [
        name for name, quantity in quantities.items() if quantity.paired and quantity.role == "leakage"
    ]
    if unknown := [name for name in names if name not in quantities]:
        raise MiaBenchError(
            f"track {track.name!r}: it is ranked by {unknown[0]!r}, which none of its metrics gives"
        )
    measured = [name for name in names if values(name, records)]
    return tuple(dict.fromkeys([*measured[:1], *names[-1:]]))


def _methods(registry: Registry, records: Iterable[Record]) -> dict[tuple[str, str], About]:
    """Of each component what its newest record says."""
    newest = sorted(records, key=lambda record: record.provenance.finished)
    return {
        (kind, getattr(record, kind).name): described.about(registry, kind, getattr(record, kind))
        for kind in CELL_KINDS
        for record in newest
    }


def _sections(records: Sequence[Record], plan: _Plan) -> tuple[Section, ...]:
    # Real attacks first, then the references.
    groups = sorted(
        group(records, section_key).items(),
        key=lambda item: (plan.references[item[0][0]] != "", item[0]),
    )
    floors = {key: _baseline(_finished_rows(same), plan) for key, same in groups if plan.references[key[0]]}
    sections = []
    for key, same in groups:
        same_prior = [] if key in floors else [f for k, f in floors.items() if k[2:] == key[2:]]
        sections.append(_section(same, plan, [floor for floor in same_prior if floor]))
    return tuple(sections)


def _finished_rows(records: Iterable[Record]) -> dict[RowKey, list[Record]]:
    return group((record for record in records if record.status == "done"), row_key)


def _baseline(rows: Mapping[RowKey, list[Record]], plan: _Plan) -> list[Record]:
    return next((same for key, same in rows.items() if key in plan.baselines), [])


def _section(records: Sequence[Record], plan: _Plan, floors: Sequence[Sequence[Record]]) -> Section:
    first = records[0]
    reference = plan.references[first.attack.name]
    rows = _finished_rows(records)
    baseline = [] if reference else _baseline(rows, plan)
    made = (make_row(same, plan.of_attack, reference) for same in rows.values())
    return Section(
        attack=first.attack.name,
        attack_options=first.attack.options,
        prior=first.prior.name,
        prior_options=first.prior.options,
        reference=reference,
        ceiling=_ceiling([record for same in rows.values() for record in same], plan),
        rows=tuple(best_first(made, plan.ranked, plan.quantities)),
        floors=tuple(_floor(floor, plan) for floor in floors),
        baseline=make_row(baseline, plan.of_attack) if baseline else None,
        differences=tuple(differences(rows.values(), baseline, plan.paired, plan.quantities)),
        unfinished=_unfinished(records),
    )


def _floor(records: Sequence[Record], plan: _Plan) -> Row:
    attack = records[0].attack
    row = make_row(records, plan.of_attack, f"{plan.references[attack.name]}: {attack.name}")
    # The defense plays no part in a floor; what sets it are the attack's options.
    return replace(row, options=options_text(attack.options))


def _ceiling(records: Sequence[Record], plan: _Plan) -> Row | None:
    """What held-out real images reach; it depends on no cell, so the cells' numbers are averaged."""
    found: dict[str, Shown] = {
        name: clamp(quantity, average(measured))
        for name, quantity in plan.of_attack.items()
        if (measured := values(quantity.ceiling, records))
    }
    return Row("", "", (), found, label="real held-out images") if found else None


def _unfinished(records: Iterable[Record]) -> tuple[Unfinished, ...]:
    groups = group(
        (record for record in records if record.status != "done"),
        lambda record: (row_key(record), record.status, record.reason or "no reason recorded"),
    )
    return tuple(
        Unfinished(
            same[0].defense.name,
            options_text(same[0].defense.options),
            tuple(sorted(record.seed for record in same)),
            status,
            reason,
        )
        for (_, status, reason), same in groups.items()
    )


def _versions(records: Sequence[Record]) -> dict[str, tuple[str, ...]]:
    """The distinct versions found, the most frequent first."""
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for record in records:
        for name in ("mia_bench", "git", "python", "torch", "device", "platform"):
            found[name][getattr(record.provenance, name) or "unknown"] += 1
        for kind in CELL_KINDS:
            component: ComponentRef = getattr(record, kind)
            found[kind][f"{component.name} {component.version} ({component.distribution})"] += 1
    return {
        name: tuple(value for value, _ in sorted(counts.items(), key=lambda i: (-i[1], i[0])))
        for name, counts in found.items()
    }
