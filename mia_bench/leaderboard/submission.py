"""New records for the folder of the boards: which are copied, and which they replace."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mia_bench.errors import MiaBenchError
from mia_bench.leaderboard import records
from mia_bench.leaderboard.admit import disagreements, misfit_folds, misfits, name_cell, name_record, refusals
from mia_bench.leaderboard.described import describe, known_quantities
from mia_bench.leaderboard.grouping import CellKey, cell_key, group
from mia_bench.record import Record
from mia_bench.registry import Registry
from mia_bench.track import Track, Variation, fold_of, load_track

SHOWN = 5  # cells that a message names

log = logging.getLogger(__name__)


@dataclass
class Submission:
    """What was done to the folder of the boards.

    Attributes:
        written: files that are new or changed.
        changed: of those that were there the old record and the new one.
        removed: files of records that others replaced.
    """

    written: list[Path] = field(default_factory=list)
    changed: dict[Path, tuple[Record, Record]] = field(default_factory=dict)
    removed: list[Path] = field(default_factory=list)


def submit(
    found: Iterable[Record],
    folder: Path,
    registry: Registry,
    *,
    finished_only: bool = False,
    replace: bool = False,
    least_seeds: int = 0,
) -> Submission:
    """Copy records into the folder of the boards.

    Records of a track's tuning seeds go to the folder ``tuning`` of the boards, the others to the boards;
    where that folder is named itself, the others are left out. Records of other folds are of sweeps only.
    Interrupted cells, probes, and cells of experiments that change the track are left out; with a warning,
    so are records of other versions than ``registry`` holds, of models of the user's own, all but the newest
    of a cell, and failures of a cell that has a finished record. A newer record replaces the folder's record
    of its cell.

    Args:
        found: the records, of one track or of several.
        folder: of the boards.
        registry: the tracks and components that are installed.
        finished_only: leave out cells without numbers too.
        replace: remove the records of the folder that can't share a board with these.
        least_seeds: leave out what has fewer finished seeds on a board, those of the folder included: an
            attack on a defense with all options. With 0 it may have none, where all cells failed.

    Raises:
        MiaBenchError: records can't share a board. Nothing is changed then.
    """
    published = ("done",) if finished_only else ("done", "failed", "skipped")
    given = [
        record
        for record in found
        if record.status in published
        and (not record.track.variant or fold_of(record.track.variant))
        and record.attack.about.reference != "probe"
    ]
    written: dict[Path, Record] = {}
    before: dict[Path, Record] = {}
    superseded: list[Path] = []
    for name, several in group(given, lambda record: record.track.name).items():
        for place, same in _by_place(name, several, folder, registry).items():
            # All paths before the first file is written: a name may be no file name.
            as_stored = {records.record_path(place, record): record for record in same}
            least = least_seeds if place.name != records.TUNING else 0
            there = records.load(place, name) if name in registry.names("track") else []
            before |= {records.record_path(place, record): record for record in there}
            copied, replaced = _plan(name, same, there, place, registry, replace=replace, least_seeds=least)
            paths = [records.record_path(place, record) for record in copied]
            written |= {path: as_stored[path] for path in paths}
            superseded += [records.record_path(place, record) for record in replaced]
    new = [path for path, record in written.items() if records.write(path, record.file_text())]
    return Submission(
        written=new,
        changed={path: (before[path], written[path]) for path in new if path in before},
        removed=[records.remove(path) for path in superseded],
    )


def _by_place(
    name: str, found: Sequence[Record], folder: Path, registry: Registry
) -> dict[Path, Sequence[Record]]:
    """The records by the folder they belong to: those of tuning seeds are no board's."""
    if name not in registry.names("track"):
        return {folder: found}
    seeds = load_track(registry, name).tuning_seeds
    tuning = [record for record in found if record.seed in seeds]
    others = [record for record in found if record.seed not in seeds]
    if folds := [record for record in others if record.track.variant]:
        log.warning("%d records of further folds are left out: their seeds are no tuning seeds", len(folds))
        others = [record for record in others if not record.track.variant]
    if folder.name == records.TUNING:
        if others:
            log.warning("%d records are left out: their seeds are no tuning seeds of %r", len(others), name)
        return {folder: tuning}
    places: dict[Path, Sequence[Record]] = {folder: others, folder / records.TUNING: tuning}
    return {place: same for place, same in places.items() if same}


def _plan(
    name: str,
    found: Sequence[Record],
    there: Sequence[Record],
    folder: Path,
    registry: Registry,
    *,
    replace: bool,
    least_seeds: int,
) -> tuple[list[Record], list[Record]]:
    """(records of the store to copy, records of the folder to remove) of one track."""
    if name not in registry.names("track"):
        log.warning("%d records are left out: no track is called %r", len(found), name)
        return [], []
    track, folds = load_track(registry, name), group(found, lambda record: record.track.variant)
    beside = group(there, lambda record: record.track.variant)
    parts = [
        _matched(
            Variation(fold=fold_of(variant)).of(track),
            folds.get(variant, []),
            beside.get(variant, []),
            registry,
            least_seeds,
        )
        for variant in dict.fromkeys([*folds, *beside])
    ]
    copied = [record for part in parts for record in part.copied]
    quantities = known_quantities(registry, track, [*found, *there])
    lines = [line for part in parts for line in refusals(part.track, part.copied, quantities)]
    if lines := lines or disagreements(copied):
        raise MiaBenchError(
            f"the records of track {name!r} can't share a board: {_cause(lines[0])}; install the plugins "
            "whose versions decide, or submit from a store without the others"
        )
    blocked: dict[str, tuple[Record, _Matched]] = {}
    for part in parts if copied else ():
        found_here = misfits(part.track, part.copied, part.kept, quantities) if part.copied else []
        blocked |= {old.key: (old, part) for old in [*found_here, *misfit_folds(copied, part.kept)]}
    if blocked and not replace:
        first, part = next(iter(blocked.values()))
        causes = disagreements([*copied, first])
        causes = causes or refusals(part.track, [*part.copied, first], quantities)
        cells = sorted(name_cell(old) for old, _ in blocked.values())
        raise MiaBenchError(
            f"{folder / records.RESULTS / name} has {len(cells)} more that can't stay beside these "
            f"({_cause(causes[0])}): {'; '.join(cells[:SHOWN])}"
            f"{'; …' if cells[SHOWN:] else ''}. Run these cells again and submit, or let --replace remove "
            "them"
        )
    failures = Counter(
        (record.status, record.reason or "no reason recorded") for record in copied if record.status != "done"
    )
    for (status, reason), count in failures.items():
        log.warning(
            "%d cells without numbers, shown on the page as %s (--finished-only leaves them out): %s",
            count,
            status,
            reason,
        )
    return copied, [
        *(old for part in parts for old in part.superseded),
        *(old for old, _ in blocked.values()),
    ]


@dataclass(frozen=True)
class _Matched:
    """Records of one fold, the usual or a further one, beside those of it that are there.

    Attributes:
        copied: those to write.
        superseded, kept: of those that are there.
    """

    track: Track
    copied: Sequence[Record]
    superseded: Sequence[Record]
    kept: Sequence[Record]


def _matched(
    track: Track, found: Sequence[Record], there: Sequence[Record], registry: Registry, least_seeds: int
) -> _Matched:
    """The newer record of each cell, and what becomes of those that are there."""
    chosen = _newest(describe(registry, track, _current(found, track, registry)))
    known = list(describe(registry, track, there))
    if few := _with_few_seeds(chosen.values(), known, least_seeds):
        log.warning("%d records are left out: fewer than %d seeds are finished", len(few), least_seeds)
        chosen = {key: record for key, record in chosen.items() if key not in few}
    superseded, kept = [], []
    for old in known:
        new = chosen.get(cell_key(old))
        if new is None:
            kept.append(old)
        elif _rank(old) > _rank(new):
            log.warning("%s is left out: a finished or newer one is there already", name_record(new))
            kept.append(old)
            del chosen[cell_key(old)]
        elif old.key != new.key:
            superseded.append(old)
    return _Matched(track, list(chosen.values()), superseded, kept)


def _with_few_seeds(chosen: Collection[Record], there: Iterable[Record], least: int) -> set[CellKey]:
    """Of the chosen records those of attacks on a defense with fewer finished seeds, with those there."""
    done = [record for record in (*chosen, *there) if record.status == "done"]
    seeds = Counter(key[:-1] for key in {cell_key(record) for record in done})
    return {key for key in map(cell_key, chosen) if seeds[key[:-1]] < least}


def _cause(line: str) -> str:
    """Why records are refused, without what a builder of the board should do."""
    return line.partition("; ")[0]


def _current(found: Iterable[Record], track: Track, registry: Registry) -> list[Record]:
    """Records of the versions that are installed, which others can run again."""
    reasons = [(record, _of_own_model(record) or outdated(record, track, registry)) for record in found]
    for reason, count in Counter(reason for _, reason in reasons if reason).items():
        log.warning("%d records are left out: %s", count, reason)
    return [record for record, reason in reasons if not reason]


def _of_own_model(record: Record) -> str:
    """Why a record of a model of the user's own is left out, or nothing."""
    if not record.defense.about.own_model:
        return ""
    return "they are of models of your own, which nobody can train again from their records"


def outdated(record: Record, track: Track, registry: Registry) -> str:
    """Which version of a record is older than what is installed, or nothing."""
    if track.version != record.track.version:
        return f"the track is at version {track.version}, they are of {record.track.version}"
    for kind, part in record.components.items():
        if part.name in registry.names(kind):
            version = registry.get(kind, part.name).identity()["version"]
            if version != part.version:
                return f"the {kind} {part.name!r} is at version {version}, they are of {part.version}"
    return ""


def _newest(found: Iterable[Record]) -> dict[CellKey, Record]:
    """The record of each cell: a finished one before a failure, then the newest."""
    chosen = {}
    for cell, same in group(found, cell_key).items():
        *others, chosen[cell] = sorted(same, key=_rank)
        for record in others:
            log.warning("%s is left out: another of the cell is finished or newer", name_record(record))
    return chosen


def _rank(record: Record) -> tuple[bool, str]:
    """The higher, the more a record is worth among those of its cell."""
    return record.status == "done", record.provenance.finished
