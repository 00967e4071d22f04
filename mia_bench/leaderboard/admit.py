"""Which records can share a board, and why others are refused."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

from mia_bench.leaderboard.grouping import cell_key, group
from mia_bench.provenance import code_differs
from mia_bench.record import Record
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
        *_mixed("the records are made from different data", ordered, lambda record: record.track.data),
        *_mixed(
            "the records were measured by different protocols (another version of the data set, of a network "
            "or its weights, or of a metric)",
            (record for record in ordered if record.status == "done"),
            lambda record: record.track.protocol,
        ),
        *_same_cell_twice(ordered),
        *_different_versions(ordered),
    ]


def _unfit(track: Track, record: Record) -> str:
    """Why a record can't be on the board of ``track``, whatever the others are."""
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


def _mixed(what: str, records: Iterable[Record], read: Callable[[Record], str]) -> list[str]:
    """A line where ``records`` don't agree in something that all rows of a board share."""
    groups = group(records, read)
    words = [
        f"{found or 'none'} ({len(same)} records, such as {name_record(same[0])}, the newest of "
        f"{max(record.provenance.finished for record in same)})"
        for found, same in groups.items()
    ]
    return [f"{what}: {', '.join(words)}; keep those of one"] if len(groups) > 1 else []


def _same_cell_twice(records: Sequence[Record]) -> list[str]:
    lines = []
    for first, *others in group(records, cell_key).values():
        for other in others:
            older = min(first, other, key=lambda one: one.provenance.finished)
            lines.append(
                f"{name_record(first)} and {name_record(other)} are the same cell twice (an older "
                f"version of a component?); remove results/{older.track.name}/{older.key}.json, the older"
            )
    return lines


def _different_versions(records: Sequence[Record]) -> list[str]:
    seen: dict[tuple[str, str], tuple[Record, str]] = {}
    lines = {}
    for record in records:
        for kind, component in record.components.items():
            version = f"{component.distribution} {component.version}"
            first, known = seen.setdefault((kind, component.name), (record, version))
            if version != known:
                lines[kind, component.name, version] = (
                    f"{name_record(first)} and {name_record(record)} hold different versions of the "
                    f"{kind} {component.name!r} ({known}, {version}); remove those of one"
                )
    return list(lines.values())


def doubts(records: Sequence[Record]) -> list[str]:
    """Why the numbers of these records may not be what they seem; they can be on a board nevertheless.

    A line for each component that was run with different code under one version, and for each record that
    was made from a changed checkout.
    """
    codes: dict[tuple[str, str, str], set[str]] = defaultdict(set)
    for record in records:
        for kind, component in record.components.items():
            codes[kind, component.name, component.version].add(component.about.code)
    mixed = [
        f"the code of {kind} {name!r} changed between records of its version {version}: raise the "
        "version, and run again"
        for (kind, name, version), found in codes.items()
        if any(code_differs(one, other) for one, other in itertools.combinations(found, 2))
    ]
    return mixed + [
        f"{name_record(record)}: made from a changed checkout ({record.provenance.git})"
        for record in records
        if "-dirty" in (record.provenance.git or "")
    ]
