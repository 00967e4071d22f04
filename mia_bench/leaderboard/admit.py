"""Which records can share a board, and why others are refused."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Sequence

from mia_bench.leaderboard.described import CELL_KINDS
from mia_bench.leaderboard.grouping import CellKey, cell_key, group
from mia_bench.provenance import code_differs
from mia_bench.record import RECORD_SCHEMA, ComponentRef, Record
from mia_bench.track import Track


def name_record(record: Record) -> str:
    """The record in words, for messages."""
    return f"record {record.key} ({name_cell(record)})"


def name_cell(record: Record) -> str:
    """``bido × ppa, seed 0``."""
    return f"{record.defense.name} × {record.attack.name}, seed {record.seed}"


def refusals(track: Track, records: Iterable[Record]) -> list[str]:
    """Why these records can't share a board: one line for each reason, empty when they can."""
    ordered = sorted(records, key=lambda record: record.key)
    lines = [f"{name_record(record)}: {reason}" for record in ordered if (reason := _unfit(track, record))]
    return lines or [
        *_different_data(track, ordered),
        *_different_protocols(ordered),
        *_same_cell_twice(ordered),
        *_different_versions(ordered),
    ]


def _unfit(track: Track, record: Record) -> str:
    """Why a record can't be on the board of ``track``, whatever the others are."""
    if record.schema_ != RECORD_SCHEMA:
        return f"schema {record.schema_} is not known (this is {RECORD_SCHEMA})"
    if record.track.name != track.name:
        return f"it belongs to the track {record.track.name!r}, not {track.name!r}"
    if record.track.version != track.version:
        return (
            f"version {record.track.version} of the track, the board is of version {track.version}; "
            "run the cell again and remove this record"
        )
    if record.status == "interrupted":
        return "it was interrupted; run the cell again"
    expected = track.data.fingerprint
    if expected and record.track.data != expected:
        return f"made from other data (fingerprint {record.track.data or 'none'}, the track's is {expected})"
    return ""


def _different_data(track: Track, records: Sequence[Record]) -> list[str]:
    if track.data.fingerprint or not records:
        return []
    first = records[0]
    others = {r.track.data: r for r in reversed(records) if r.track.data != first.track.data}
    return [
        f"{name_record(first)} and {name_record(other)} are made from different data (fingerprints "
        f"{first.track.data or 'none'} and {data or 'none'}); keep those of one"
        for data, other in sorted(others.items())
    ]


def _different_protocols(records: Sequence[Record]) -> list[str]:
    done = (record for record in records if record.status == "done")
    groups = group(done, lambda record: record.track.protocol)
    if len(groups) < 2:
        return []
    words = [
        f"{protocol or 'none'} ({len(same)} records, the newest of "
        f"{max(record.provenance.finished for record in same)})"
        for protocol, same in groups.items()
    ]
    return [
        "the records were measured by different protocols (another version of the data set, a network, "
        f"a judge or its weights, or a metric): {', '.join(sorted(words))}; keep those of one"
    ]


def _same_cell_twice(records: Sequence[Record]) -> list[str]:
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


def _different_versions(records: Sequence[Record]) -> list[str]:
    seen: dict[tuple[str, str], Record] = {}
    lines = {}
    for record in records:
        for kind in CELL_KINDS:
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


def _version(component: ComponentRef) -> str:
    return f"{component.distribution} {component.version}"


def mixed_code(records: Iterable[Record]) -> list[str]:
    """A line for each component that was run with different code under one version."""
    codes: dict[tuple[str, str, str], set[str]] = defaultdict(set)
    for record in records:
        for kind in CELL_KINDS:
            component: ComponentRef = getattr(record, kind)
            codes[kind, component.name, component.version].add(component.about.code)
    return [
        f"the code of {kind} {name!r} changed between records of its version {version}: raise the "
        "version, and run again"
        for (kind, name, version), found in codes.items()
        if any(code_differs(one, other) for one, other in itertools.combinations(found, 2))
    ]
