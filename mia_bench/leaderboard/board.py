"""From records to a board: what is refused, how seeds are combined, how rows are ordered.

Pure functions of records, track and registry; the order of the records never matters.
"""

from __future__ import annotations

import itertools
import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from mia_bench.api.metric import AttackMetric, Direction, Metric, TargetMetric
from mia_bench.engine.code import HOST, differs
from mia_bench.errors import MiaBenchError
from mia_bench.record import RECORD_SCHEMA, About, ComponentRef, MetricValue, Record
from mia_bench.registry import Registry
from mia_bench.results import changed_options, metric_names, options_text
from mia_bench.statistics import Estimate, combine_seeds, paired_difference
from mia_bench.track import Track

FEW_SEEDS = 3
"""Rows with fewer seeds than this are marked."""

PRIMARY = ("id_gallery_acc1", "id_acc1")
"""An independent judge's metrics: the first that a board has orders its tables."""

SECONDARY = "attack_acc1"
"""The metric that orders rows whose primary one is equal, or a board that has none of those."""

UTILITY = ("test_accuracy", "train_accuracy", "ece")
LEAKAGE = (
    "attack_acc1",
    "attack_acc5",
    "delta_eval",
    "id_acc1",
    "id_acc5",
    "id_gallery_acc1",
    "id_median_rank",
    "target_confidence",
)
CEILING = "_ceiling"
"""``<metric>_ceiling`` is what held-out real images reach in ``<metric>``."""

VERIFICATION = "verification_accuracy"

VALIDATION = "validation_accuracy"
"""What settings are chosen by; no measure of utility, so boards leave it to the tuning."""

Kind = Literal["share", "rank", "amount", "other"]

_SHARES = frozenset(
    (
        *UTILITY,
        VALIDATION,
        "attack_acc1",
        "attack_acc5",
        "target_confidence",
        "precision",
        "recall",
        "coverage",
        "knowledge_extraction_train",
        "knowledge_extraction_test",
        "id_acc1",
        "id_acc5",
        "id_gallery_acc1",
        VERIFICATION,
    )
)
_AMOUNTS = frozenset(("delta_eval", "delta_face", "fid", "density", "epsilon"))
_LIMITS: dict[Kind, tuple[float, float]] = {
    "share": (0.0, 1.0),
    "rank": (1.0, math.inf),
    "amount": (0.0, math.inf),
    "other": (-math.inf, math.inf),
}


@dataclass(frozen=True)
class Missing:
    """A metric that has no value in a row, and why."""

    reason: str


Shown = Estimate | Missing


@dataclass(frozen=True)
class Row:
    """A defense with its options, over seeds.

    Attributes:
        label: what stands before the name: ``floor``, say; empty for ordinary rows.
        options: all of them, ``key=value, …``; the same wherever the page is built.
        cost: mean over the seeds of each cost that was recorded.
    """

    defense: str
    options: str
    seeds: tuple[int, ...]
    metrics: Mapping[str, Shown]
    cost: Mapping[str, float] = field(default_factory=dict)
    label: str = ""

    @property
    def few_seeds(self) -> bool:
        """True when the row rests on fewer than :data:`FEW_SEEDS` seeds."""
        return len(self.seeds) < FEW_SEEDS

    def value(self, name: str) -> float | None:
        """The metric's value, None where it is missing."""
        shown = self.metrics.get(name)
        return shown.value if isinstance(shown, Estimate) else None


@dataclass(frozen=True)
class Paired:
    """Mean difference on the same seeds and classes, with an interval for others of both."""

    mean: float
    low: float
    high: float
    seeds: tuple[int, ...]


@dataclass(frozen=True)
class Difference:
    """A row minus the baseline on the same seeds; None where no seed has both."""

    defense: str
    options: str
    metrics: Mapping[str, Paired | None]


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
        primary: the metric that orders the tables.
        paired: the metrics compared with the baseline seed by seed.
        methods: what the components say of themselves, by kind and name.
    """

    track: Track
    records: tuple[Record, ...]
    directions: Mapping[str, Direction]
    descriptions: Mapping[str, str]
    utility: tuple[Row, ...]
    utility_metrics: tuple[str, ...]
    leakage_metrics: tuple[str, ...]
    further_metrics: tuple[str, ...]
    primary: str
    paired: tuple[str, ...]
    methods: Mapping[tuple[str, str], About]
    sections: tuple[Section, ...]
    verification: Estimate | None
    seeds: tuple[int, ...]
    versions: Mapping[str, tuple[str, ...]]
    finished: str


def kind_of(name: str) -> Kind:
    """What sort of number a metric is: it bounds intervals and sets the decimals."""
    name = name.removesuffix(CEILING)
    if name in _SHARES:
        return "share"
    if name.endswith("_rank"):
        return "rank"
    return "amount" if name in _AMOUNTS else "other"


def clamp(name: str, estimate: Estimate) -> Estimate:
    """Keep the interval within the values the metric can have."""
    lowest, highest = _LIMITS[kind_of(name)]
    return Estimate(
        estimate.value, max(estimate.low, lowest), min(estimate.high, highest), estimate.n
    )


# --- what is refused -------------------------------------------------------------------------


def name_record(record: Record) -> str:
    """The record in words, for messages."""
    return f"record {record.key} ({name_cell(record)})"


def name_cell(record: Record) -> str:
    """``bido × ppa, seed 0``."""
    return f"{record.defense.name} × {record.attack.name}, seed {record.seed}"


def refusals(track: Track, records: Iterable[Record]) -> list[str]:
    """Why these records can't share a board: one line for each reason, empty when they can."""
    ordered = sorted(records, key=lambda record: record.key)
    lines = [line for record in ordered for line in _refuse_one(track, record)]
    if lines:
        return lines
    return (
        _refuse_data(track, ordered)
        + _refuse_protocols(ordered)
        + _refuse_twice(ordered)
        + _refuse_versions(ordered)
    )


def _refuse_one(track: Track, record: Record) -> list[str]:
    name = name_record(record)
    if record.schema_ != RECORD_SCHEMA:
        return [f"{name}: schema {record.schema_} is not known (this is {RECORD_SCHEMA})"]
    if record.track.name != track.name:
        return [f"{name}: it belongs to the track {record.track.name!r}, not {track.name!r}"]
    if record.track.version != track.version:
        return [
            f"{name}: version {record.track.version} of the track, the board is of version "
            f"{track.version}; run the cell again and remove this record"
        ]
    if record.status == "interrupted":
        return [f"{name}: it was interrupted; run the cell again"]
    expected = track.data.fingerprint
    if expected and record.track.data != expected:
        return [
            f"{name}: made from other data (fingerprint {record.track.data or 'none'}, the track's "
            f"is {expected})"
        ]
    return []


def _refuse_data(track: Track, records: Sequence[Record]) -> list[str]:
    if track.data.fingerprint or not records:
        return []
    first = records[0]
    others = {r.track.data: r for r in reversed(records) if r.track.data != first.track.data}
    return [
        f"{name_record(first)} and {name_record(other)} are made from different data (fingerprints "
        f"{first.track.data or 'none'} and {data or 'none'}); keep those of one"
        for data, other in sorted(others.items())
    ]


def _refuse_protocols(records: Sequence[Record]) -> list[str]:
    groups: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        if record.status == "done":
            groups[record.track.protocol].append(record)
    if len(groups) < 2:
        return []
    words = [
        f"{protocol or 'none'} ({len(group)} records, the newest of "
        f"{max(record.provenance.finished for record in group)})"
        for protocol, group in groups.items()
    ]
    return [
        "the records were measured by different protocols (another version of the data set, a network, "
        f"a judge or its weights, or a metric): {', '.join(sorted(words))}; keep those of one"
    ]


def _refuse_twice(records: Sequence[Record]) -> list[str]:
    seen: dict[CellKey, Record] = {}
    lines = []
    for record in records:
        first = seen.setdefault(cell_key(record), record)
        if first is not record:
            older = min(first, record, key=lambda one: one.provenance.finished)
            lines.append(
                f"{name_record(first)} and {name_record(record)} are the same cell twice (an older "
                f"version of a component?); remove results/{older.track.name}/{older.key}.json, the older"
            )
    return lines


def _refuse_versions(records: Sequence[Record]) -> list[str]:
    seen: dict[tuple[str, str], Record] = {}
    lines = {}
    for record in records:
        for kind in ("defense", "prior", "attack"):
            component: ComponentRef = getattr(record, kind)
            first = seen.setdefault((kind, component.name), record)
            known: ComponentRef = getattr(first, kind)
            one, other = _version(known), _version(component)
            if one != other:
                lines[kind, component.name, other] = (
                    f"{name_record(first)} and {name_record(record)} hold different versions of the "
                    f"{kind} {component.name!r} ({one}, {other}); remove those of one"
                )
    return list(lines.values())


def mixed_code(records: Iterable[Record]) -> list[str]:
    """A line for each component that was run with different code under one version."""
    codes: dict[tuple[str, str, str], set[str]] = defaultdict(set)
    for record in records:
        for kind in ("defense", "prior", "attack"):
            component: ComponentRef = getattr(record, kind)
            codes[kind, component.name, component.version].add(component.about.code)
    return [
        f"the code of {kind} {name!r} changed between records of its version {version}: raise the "
        "version, and run again"
        for (kind, name, version), found in codes.items()
        if any(differs(one, other) for one, other in itertools.combinations(found, 2))
    ]


def _version(component: ComponentRef) -> str:
    return f"{component.distribution} {component.version}"


def completed(registry: Registry, record: Record) -> Record:
    """The record with options that its components got later, at their defaults.

    A new option whose default keeps the old behaviour leaves the component's version as it is; rows from
    before and after must meet in one table.
    """
    changes = {}
    for kind in ("defense", "prior", "attack"):
        component: ComponentRef = getattr(record, kind)
        try:
            entry = registry.get(kind, component.name)
            if entry.identity()["version"] == component.version:
                options = entry.load().Options(**component.options)
                complete = options.model_dump(mode="json", exclude=set(options.places))
                changes[kind] = component.model_copy(update={"options": complete})
        except (MiaBenchError, ValueError):
            continue  # not installed, or not as it was: the record speaks for itself
    return record.model_copy(update=changes)


# --- grouping --------------------------------------------------------------------------------

_RowKey = tuple[str, str]
_SectionKey = tuple[str, str, str, str]
CellKey = tuple[_SectionKey, _RowKey, int]


def _canonical(options: Mapping[str, Any]) -> str:
    return json.dumps(options, sort_keys=True)


def _row_key(record: Record) -> _RowKey:
    return record.defense.name, _canonical(record.defense.options)


def _section_key(record: Record) -> _SectionKey:
    attack, prior = record.attack, record.prior
    return attack.name, _canonical(attack.options), prior.name, _canonical(prior.options)


def cell_key(record: Record) -> CellKey:
    """What is the same of all records of a cell, whatever the versions."""
    return _section_key(record), _row_key(record), record.seed


def by_row(records: Iterable[Record]) -> dict[_RowKey, list[Record]]:
    """The records of each setting of a defense."""
    rows = defaultdict(list)
    for record in records:
        rows[_row_key(record)].append(record)
    return dict(sorted(rows.items()))


def _by_seed(records: Iterable[Record]) -> dict[int, list[Record]]:
    seeds = defaultdict(list)
    for record in records:
        seeds[record.seed].append(record)
    return dict(sorted(seeds.items()))


# --- numbers ---------------------------------------------------------------------------------


def _average(values: Sequence[MetricValue]) -> Estimate:
    """One estimate from several measurements of the same thing (they differ by rounding only)."""
    return Estimate(
        float(np.mean([v.value for v in values])),
        float(np.mean([v.low for v in values])),
        float(np.mean([v.high for v in values])),
        max(v.n for v in values),
    )


def combine(name: str, records: Sequence[Record]) -> Shown:
    """A metric over the seeds of ``records``.

    A seed that lacks it makes the whole missing: leaving the seed out would choose among seeds.
    """
    estimates, reasons = [], {}
    for seed, same in _by_seed(records).items():
        found = [value for r in same if (value := r.metrics.get(name)) is not None]
        if found:
            estimates.append(_average(found))
        else:
            given = [r.notes.get(name, "no reason recorded") for r in same if name in r.metrics]
            reasons[seed] = given[0] if given else "not measured for this row"
    if not reasons:
        return clamp(name, combine_seeds(estimates))
    if not estimates and len(set(reasons.values())) == 1:
        return Missing(next(iter(reasons.values())))
    return Missing("; ".join(f"seed {seed}: {reason}" for seed, reason in reasons.items()))


def _cost(records: Sequence[Record]) -> dict[str, float]:
    costs: dict[str, float] = {}
    for name in ("train_seconds", "invert_seconds", "target_queries"):
        found = [v for r in records if (v := getattr(r.cost, name)) is not None]
        if found:
            costs[name] = float(np.mean(found))
    return costs


def _row(records: Sequence[Record], names: Iterable[str], label: str = "") -> Row:
    first = records[0]
    return Row(
        first.defense.name,
        options_text(first.defense.options),
        tuple(_by_seed(records)),
        {name: combine(name, records) for name in names},
        _cost(records),
        label,
    )


def _rank(row: Row, names: Sequence[str]) -> tuple[Any, ...]:
    """Best defended first, by the metrics ``names``; rows without the first last."""
    values = [row.value(name) for name in names]
    numbers = [part for v in values for part in (v is None, v or 0.0)]
    return (*numbers, row.defense, row.options)


def paired(name: str, records: Sequence[Record], baseline: Sequence[Record]) -> Paired | None:
    """The difference to the baseline, class by class, on the seeds that both have."""
    values = [
        {r.seed: np.array(r.per_class[name]) for r in side if name in r.per_class}
        for side in (records, baseline)
    ]
    seeds = tuple(sorted(values[0].keys() & values[1].keys()))
    if not seeds:
        return None
    found = paired_difference({seed: list(values[0][seed] - values[1][seed]) for seed in seeds})
    return Paired(found.value, found.low, found.high, seeds)


# --- the board -------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Plan:
    """Which metrics go where, and which components play a part."""

    utility: tuple[str, ...]
    leakage: tuple[str, ...]
    further: tuple[str, ...]
    paired: tuple[str, ...]
    references: Mapping[str, str]
    baselines: frozenset[_RowKey]


def build_board(registry: Registry, track: Track, records: Iterable[Record]) -> Board:
    """The board of ``track`` from its records.

    Raises:
        MiaBenchError: a record can't be on it; the message names the record and why.
    """
    ordered = sorted(records, key=lambda record: record.key)
    ordered = [completed(registry, record) for record in ordered]
    if lines := refusals(track, ordered):
        more = f" (and {len(lines) - 1} more)" if len(lines) > 1 else ""
        raise MiaBenchError(f"track {track.name!r}: {lines[0]}{more}")
    metrics: list[type[Metric]] = [registry.get("metric", name).load() for name in track.metrics]
    plan = _plan(registry, track, metrics, ordered)
    done = [record for record in ordered if record.status == "done"]
    settings = sorted(by_row(done).items(), key=lambda item: item[0] not in plan.baselines)
    verification = [v for r in done if (v := r.metrics.get(VERIFICATION)) is not None]
    return Board(
        track=track,
        records=tuple(ordered),
        directions={name: way for metric in metrics for name, way in metric.names.items()},
        descriptions={n: text for metric in metrics for n, text in metric.descriptions.items()},
        utility=tuple(_row(group, plan.utility) for _, group in settings),
        utility_metrics=plan.utility,
        leakage_metrics=plan.leakage,
        further_metrics=plan.further,
        primary=plan.paired[0],
        paired=plan.paired,
        methods=_methods(registry, ordered),
        sections=_sections(ordered, plan),
        verification=_average(verification) if verification else None,
        seeds=tuple(sorted({record.seed for record in ordered})),
        versions=_versions(ordered),
        finished=max((record.provenance.finished for record in ordered), default=""),
    )


def _plan(
    registry: Registry, track: Track, metrics: Sequence[type[Metric]], records: Sequence[Record]
) -> _Plan:
    present = metric_names(records)
    of_target = {name for m in metrics if issubclass(m, TargetMetric) for name in m.names}
    of_attack = {name for m in metrics if issubclass(m, AttackMetric) for name in m.names}
    leakage = [name for name in LEAKAGE if name in present]
    utility = [name for name in UTILITY if name in present]
    rest = [
        name
        for name in present
        if name not in (*leakage, *utility, VERIFICATION, VALIDATION) and not name.endswith(CEILING)
    ]
    # What no metric of the track declares was reported by a defense while it trained.
    utility += [name for name in rest if name in of_target or name not in of_attack]
    measured = {name for r in records for name, value in r.metrics.items() if value is not None}
    independent = [name for name in PRIMARY if name in measured]
    return _Plan(
        utility=tuple(utility),
        leakage=tuple(leakage),
        further=tuple(name for name in rest if name not in utility),
        paired=(*independent[:1], SECONDARY),
        references={r.attack.name: reference_kind(registry, r) for r in records},
        baselines=frozenset(
            _row_key(record)
            for record in records
            if is_baseline(registry, record)
            and not changed(registry, track, "defense", record.defense)
        ),
    )


def about(registry: Registry, kind: str, component: ComponentRef) -> About:
    """What a component says of itself: what its record has, so that pages are the same everywhere.

    Of what comes with mia-bench, and of records that say nothing, the class that is installed is asked.
    """
    said = component.about != About()
    if (said and component.distribution != HOST) or component.name not in registry.names(kind):
        return component.about
    cls = registry.get(kind, component.name).load()
    words = {
        name: str(getattr(cls, name, "")) for name in ("summary", "paper", "access", "reference")
    }
    return component.about.model_copy(
        update={**words, "baseline": bool(getattr(cls, "baseline", False))}
    )


def _methods(registry: Registry, records: Iterable[Record]) -> dict[tuple[str, str], About]:
    """Of each component what its newest record says."""
    newest = sorted(records, key=lambda record: record.provenance.finished)
    return {
        (kind, getattr(record, kind).name): about(registry, kind, getattr(record, kind))
        for kind in ("defense", "attack", "prior")
        for record in newest
    }


def changed(registry: Registry, track: Track, kind: str, component: ComponentRef) -> dict[str, Any]:
    """The options that are not the track's; by the record of a third-party component, if it says so."""
    if component.distribution != HOST and component.about != About():
        asked = component.about.changed
        return {key: value for key, value in component.options.items() if key in asked}
    return changed_options(registry, track, kind, component)


def is_baseline(registry: Registry, record: Record) -> bool:
    """Whether others are compared with its defense."""
    return about(registry, "defense", record.defense).baseline


def reference_kind(registry: Registry, record: Record) -> str:
    """What kind of reference its attack is, ``floor`` say; empty for a real attack."""
    return about(registry, "attack", record.attack).reference


def _sections(records: Sequence[Record], plan: _Plan) -> tuple[Section, ...]:
    groups: dict[_SectionKey, list[Record]] = defaultdict(list)
    for record in records:
        groups[_section_key(record)].append(record)
    # Real attacks first, then the references.
    ordered = sorted(groups.items(), key=lambda item: (plan.references[item[0][0]] != "", item[0]))
    floors = {
        key: _baseline(by_row(r for r in group if r.status == "done"), plan)
        for key, group in ordered
        if plan.references[key[0]]
    }
    sections = []
    for key, group in ordered:
        same_prior = [] if key in floors else [f for k, f in floors.items() if k[2:] == key[2:]]
        sections.append(_section(group, plan, [floor for floor in same_prior if floor]))
    return tuple(sections)


def _baseline(rows: Mapping[_RowKey, list[Record]], plan: _Plan) -> list[Record]:
    return next((group for key, group in rows.items() if key in plan.baselines), [])


def _section(records: Sequence[Record], plan: _Plan, floors: Sequence[Sequence[Record]]) -> Section:
    first = records[0]
    reference = plan.references[first.attack.name]
    names = plan.leakage + plan.further
    rows = by_row(record for record in records if record.status == "done")
    baseline = [] if reference else _baseline(rows, plan)
    return Section(
        attack=first.attack.name,
        attack_options=first.attack.options,
        prior=first.prior.name,
        prior_options=first.prior.options,
        reference=reference,
        ceiling=_ceiling([r for group in rows.values() for r in group], names),
        rows=tuple(
            sorted(
                (_row(group, names, reference) for group in rows.values()),
                key=lambda row: _rank(row, plan.paired),
            )
        ),
        floors=tuple(_floor(group, names, plan) for group in floors),
        baseline=_row(baseline, names) if baseline else None,
        differences=_differences(rows, baseline, plan.paired),
        unfinished=_unfinished(records),
    )


def _floor(records: Sequence[Record], names: Iterable[str], plan: _Plan) -> Row:
    attack = records[0].attack
    row = _row(records, names, f"{plan.references[attack.name]}: {attack.name}")
    # The defense plays no part in a floor; what sets it are the attack's options.
    return replace(row, options=options_text(attack.options))


def _ceiling(records: Sequence[Record], names: Iterable[str]) -> Row | None:
    """What held-out real images reach; it depends on no cell, so the cells' numbers are averaged."""
    found: dict[str, Shown] = {}
    for name in names:
        values = [v for r in records if (v := r.metrics.get(name + CEILING)) is not None]
        if values:
            found[name] = clamp(name, _average(values))
    return Row("", "", (), found, label="real held-out images") if found else None


def _differences(
    rows: Mapping[_RowKey, list[Record]], baseline: list[Record], names: Sequence[str]
) -> tuple[Difference, ...]:
    if not baseline:
        return ()
    found = []
    for group in rows.values():
        values = {name: paired(name, group, baseline) for name in names}
        if group is not baseline and any(values.values()):
            defense = group[0].defense
            found.append(Difference(defense.name, options_text(defense.options), values))

    def rank(difference: Difference) -> tuple[Any, ...]:
        first = next((d for name in names if (d := difference.metrics[name])), None)
        return (first.mean if first else 0.0, difference.defense, difference.options)

    return tuple(sorted(found, key=rank))


def _unfinished(records: Iterable[Record]) -> tuple[Unfinished, ...]:
    groups: dict[tuple[_RowKey, str, str], list[Record]] = defaultdict(list)
    for record in records:
        if record.status != "done":
            reason = record.reason or "no reason recorded"
            groups[_row_key(record), record.status, reason].append(record)
    return tuple(
        Unfinished(
            group[0].defense.name,
            options_text(group[0].defense.options),
            tuple(sorted(record.seed for record in group)),
            status,
            reason,
        )
        for (_, status, reason), group in sorted(groups.items())
    )


def _versions(records: Sequence[Record]) -> dict[str, tuple[str, ...]]:
    """The distinct versions found, the most frequent first."""
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for record in records:
        for name in ("mia_bench", "git", "python", "torch", "device", "platform"):
            found[name][getattr(record.provenance, name) or "unknown"] += 1
        for kind in ("defense", "prior", "attack"):
            component: ComponentRef = getattr(record, kind)
            found[kind][f"{component.name} {component.version} ({component.distribution})"] += 1
    return {
        name: tuple(value for value, _ in sorted(counts.items(), key=lambda i: (-i[1], i[0])))
        for name, counts in found.items()
    }
