"""Which records can share a board, and why others are refused."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from operator import mul

from mia_bench.api.metric import Quantity
from mia_bench.leaderboard.described import UNDECLARED
from mia_bench.leaderboard.grouping import cell_key, group
from mia_bench.provenance import code_differs
from mia_bench.record import MetricValue, Record
from mia_bench.track import Track


def name_record(record: Record) -> str:
    """The record in words, for messages."""
    return f"record {record.key} ({name_cell(record)})"


def name_cell(record: Record) -> str:
    """``bido × ppa, seed 0``, with what was changed of its track."""
    variant = f", {record.track.variant}" if record.track.variant else ""
    return f"{record.defense.name} × {record.attack.name}, seed {record.seed}{variant}"


def refusals(track: Track, records: Iterable[Record], quantities: Mapping[str, Quantity]) -> list[str]:
    """Why these records can't share a board: one line for each reason, empty when they can.

    ``quantities`` are what is known of the numbers in them, by name.
    """
    ordered = sorted(records, key=lambda record: record.key)
    unfit = ((record, _unfit(track, record, quantities)) for record in ordered)
    lines = [f"{name_record(record)}: {reason}" for record, reason in unfit if reason]
    return lines or [
        *(line for what, read in _SHARED.items() for line in _mixed(what, ordered, read)),
        *_different_classes(ordered),
        *_same_cell_twice(ordered),
        *_different_versions(ordered),
    ]


def disagreements(records: Iterable[Record]) -> list[str]:
    """Where the records of several folds differ in what they share: data, protocol, versions of defenses."""
    ordered = sorted(records, key=lambda record: record.key)
    shared = [line for what, read in _SHARED.items() for line in _mixed(what, ordered, read)]
    return [*shared, *_different_versions(ordered, ("defense",))]


def misfits(
    track: Track, board: Sequence[Record], others: Iterable[Record], quantities: Mapping[str, Quantity]
) -> list[Record]:
    """Those of ``others``, cells that ``board`` does not have, which can't share a board with its records.

    Records that agree in what all rows share, and in the versions of their components, fit or misfit alike:
    one of each is tried, so that the work grows with the number of records and not with its square.
    """
    examples = list({_signature(record): record for record in board}.values())
    misfit: dict[tuple[str, ...], bool] = {}
    found = []
    for other in others:
        if _unfit(track, other, quantities):
            found.append(other)
            continue
        signature = _signature(other)
        if signature not in misfit:
            misfit[signature] = bool(refusals(track, [*examples, other], quantities))
        if misfit[signature]:
            found.append(other)
    return found


def misfit_folds(board: Sequence[Record], others: Iterable[Record]) -> list[Record]:
    """Those of ``others``, records of any fold, that differ from new ones in what all folds share."""
    examples = list({_signature(record): record for record in board}.values())
    version = examples[0].track.version
    return [other for other in others if other.track.version != version or disagreements([*examples, other])]


def _signature(record: Record) -> tuple[str, ...]:
    """What decides whether a record that is fit can be on a board."""
    parts = record.components.items()
    return (
        *(str(read(record)) for read in _SHARED.values()),
        *(f"{name} {len(means)}" for name, means in sorted(record.per_class.items())),
        *(f"{kind} {part.name} {part.distribution} {part.version}" for kind, part in parts),
    )


def _unfit(track: Track, record: Record, quantities: Mapping[str, Quantity]) -> str:
    """Why a record can't be on the board of ``track``, whatever the others are."""
    if record.track.name != track.name:
        return f"it belongs to the track {record.track.name!r}, not {track.name!r}"
    if record.track.version != track.version:
        return (
            f"version {record.track.version} of the track, the board is of version {track.version}; "
            "run the cell again and remove this record"
        )
    if record.track.variant != track.variant:
        return f"its track was changed ({record.track.variant or 'here, but not in this record'})"
    if record.status == "interrupted":
        return "it was interrupted; run the cell again"
    expected = track.data.fingerprint
    if expected and record.track.data != expected:
        return f"made from other data (fingerprint {record.track.data or 'none'}, the track's is {expected})"
    return next(_wrong_numbers(track, record, quantities), "")


def _wrong_numbers(track: Track, record: Record, quantities: Mapping[str, Quantity]) -> Iterator[str]:
    """What its numbers can't be; that they are finite and in their intervals is checked with the record."""
    for name, metric in record.metrics.items():
        least, most = quantities.get(name, UNDECLARED).bounds
        means = record.per_class.get(name, [])
        values = [*([metric.value] if metric else []), *means]
        if values and not (least <= min(values) and max(values) <= most):
            wrong = next(value for value in values if not least <= value <= most)
            yield f"{name} is {wrong}, it can only be from {least} to {most}"
        if means and metric:
            yield from _wrong_mean(name, metric, means, _counts(record, name, metric, track.images_per_class))
    if nothing := [name for name in record.per_class if record.metrics.get(name) is None]:
        yield f"there are means of classes of {nothing[0]}, but it has no value"
    # The target is measured on all private classes, as utility always is, reconstructions on those attacked.
    lengths: dict[bool, set[int]] = defaultdict(set)
    for name, means in record.per_class.items():
        lengths[name in quantities and quantities[name].role == "utility"].add(len(means))
    attacked = set(map(len, record.per_image.values())) or lengths[False] - lengths[True]
    if len(lengths[True]) > 1 or len(attacked) > 1 or lengths[False] - lengths[True] - attacked:
        yield "its quantities have means of different numbers of classes"


def _counts(record: Record, name: str, metric: MetricValue, each: int) -> Sequence[int]:
    """Samples of each class; empty where the record doesn't say, as those of schema 1 don't always."""
    if name in record.class_counts:
        return record.class_counts[name]
    classes = len(record.per_class[name])
    known = record.schema_ > 1 or metric.n == each * classes
    return [metric.n // classes] * classes if known else ()


def _wrong_mean(
    name: str, metric: MetricValue, means: Sequence[float], counts: Sequence[int]
) -> Iterator[str]:
    """Where the means of classes, each of so many samples, are not those of the value; both are rounded."""
    if counts and (len(counts) != len(means) or sum(counts) != metric.n):
        yield f"{name} rests on {metric.n} samples, its {len(means)} classes on {sum(counts)}"
        return
    low, high = min(means), max(means)
    margin = 1e-5 * max(1.0, -low, high)
    if counts:
        low = high = math.fsum(map(mul, counts, means)) / sum(counts)
    if not low - margin <= metric.value <= high + margin:
        mean = (
            f"the mean of its classes is {low}"
            if counts
            else f"the mean of its classes is from {low} to {high}"
        )
        yield f"{name} is {metric.value}, but {mean}"


def _protocol(record: Record) -> str | None:
    return record.track.protocol if record.status == "done" else None


_SHARED: Mapping[str, Callable[[Record], str | None]] = {
    "the records are made from different data": lambda record: record.track.data,
    "the records were measured by different protocols (another version of the track or a change of its file, "
    "another version of the data set, of a network or its weights, or of a metric)": _protocol,
}
"""What all rows of a board share, None where a record doesn't say it; and the words for where they do not."""


def _mixed(what: str, records: Iterable[Record], read: Callable[[Record], str | None]) -> list[str]:
    """A line where ``records`` don't agree in something that all rows of a board share."""
    groups = group((record for record in records if read(record) is not None), read)
    words = [
        f"{found or 'none'} ({len(same)} records, such as {name_record(same[0])}, the newest of "
        f"{max(record.provenance.finished for record in same)})"
        for found, same in groups.items()
    ]
    return [f"{what}: {', '.join(words)}; keep those of one"] if len(groups) > 1 else []


def _different_classes(records: Sequence[Record]) -> list[str]:
    """A line where quantities have means of another number of classes in some records; the first such one."""
    names = dict.fromkeys(name for record in records for name in record.per_class)
    words = "the records have different numbers of classes"
    lines = (_mixed(words, records, partial(_classes, name=name)) for name in names)
    return next(filter(None, lines), [])


def _classes(record: Record, name: str) -> str | None:
    return str(len(record.per_class[name])) if name in record.per_class else None


def _same_cell_twice(records: Sequence[Record]) -> list[str]:
    lines = []
    for first, *others in group(records, cell_key).values():
        for other in others:
            older = min(first, other, key=lambda one: one.provenance.finished)
            lines.append(
                f"{name_record(first)} and {name_record(other)} are the same cell twice (an older "
                f"version of a component?); remove the file of the older, {older.key}.json"
            )
    return lines


def _different_versions(
    records: Sequence[Record], kinds: Sequence[str] = ("defense", "attack", "prior")
) -> list[str]:
    seen: dict[tuple[str, str], tuple[Record, str]] = {}
    lines = {}
    for record in records:
        for kind, component in record.components.items():
            if kind not in kinds:
                continue
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

    A line for each component that was run with different code under one version, for each record that was
    made from a changed checkout, and for each of a model that was trained elsewhere.
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
    return (
        mixed
        + changed_checkouts(records)
        + [
            f"{name_record(record)}: of a model of somebody's own, which can't be trained again from it"
            for record in records
            if record.defense.about.own_model
        ]
    )


def changed_checkouts(records: Iterable[Record]) -> list[str]:
    """A line for each record that was made from a changed checkout, whose code nobody else has."""
    return [
        f"{name_record(record)}: made from a changed checkout ({record.provenance.git}): "
        "run it again in a clean one, with a new --store"
        for record in records
        if "-dirty" in (record.provenance.git or "")
    ]
