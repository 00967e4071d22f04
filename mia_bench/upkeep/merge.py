"""Adding what comes from elsewhere to a store."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

from mia_bench import jsonfile
from mia_bench.errors import CorruptArtifact, StoreError, UsageError
from mia_bench.origin import StageId
from mia_bench.record import MetricValue, Record
from mia_bench.store import META, TENSORS, VERSION, Store
from mia_bench.upkeep.contents import Contents, total_size
from mia_bench.upkeep.incoming import Incoming, Source, incoming, pieces

_NUMBERS = ("metrics", "per_class", "class_counts", "per_image")


@dataclass
class Merged:
    """What was added to a store.

    Attributes:
        artifacts: that were not there, or damaged.
        repaired: those of them that were damaged.
        records: that were not there, or had no numbers.
        size: bytes of the artifacts' tensors.
        present: how many artifacts and records were there already.
        differences: lines on records, and on artifacts, of one key with different content.
        damaged: lines on what could not be taken.
    """

    artifacts: list[StageId] = field(default_factory=list)
    repaired: list[StageId] = field(default_factory=list)
    records: list[str] = field(default_factory=list)
    size: int = 0
    present: int = 0
    differences: list[str] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)


class OtherStore:
    """A store whose content is added to another; it is only read, each artifact is checked as it is copied.

    Raises:
        UsageError: there is no store.
    """

    def __init__(self, folder: Path) -> None:
        if not (folder / VERSION).exists():
            raise UsageError(f"{folder} is no store")
        self._contents = Contents(Store(folder))
        self.damaged: list[str] = []

    @property
    def size(self) -> int:
        """The size of its artifacts and records."""
        return total_size(self._contents.artifacts, self._contents.records)

    def check(self, advance: Callable[[int], Any]) -> None:
        """Nothing is to be checked as a whole."""

    def artifacts(self) -> Iterator[Incoming]:
        """Its artifacts; those whose notes are damaged are left out and named."""
        for one in self._contents.artifacts:
            folder = self._contents.store.folder(*one.id)
            try:
                if one.problem:
                    raise CorruptArtifact(*one.id, one.problem)
                meta = jsonfile.read_file(folder / META, jsonfile.LARGEST)
                yield incoming(one.id, meta, partial(pieces, folder / TENSORS))
            except (CorruptArtifact, OSError, ValueError) as error:
                self.damaged.append(str(error))

    def records(self) -> Iterator[Record]:
        """Its valid records; the others are named."""
        for file in self._contents.records:
            path = self._contents.store.record_path(file.track, file.key)
            record = self._contents.store.record(file.track, file.key)
            if record:
                yield record
            else:
                self.damaged.append(f"the record {path} is damaged")


def merge(
    source: Source,
    store: Store,
    advance: Callable[[int], Any],
    *,
    artifacts: bool = True,
    dry_run: bool = False,
) -> Merged:
    """Add the artifacts, then the records, of a source that was checked to a store.

    Stopped, it leaves whole artifacts; the next call goes on.

    Args:
        source, store: from where, to where.
        advance: called with numbers of bytes.
        artifacts: add artifacts, not records alone.
        dry_run: only say what would be added.

    Raises:
        StoreError: the store is full or not writable, or something can't be read.
    """
    merged = Merged()
    if artifacts and not dry_run:
        _require_room(source, store)
    for one in source.artifacts() if artifacts else ():
        _add_artifact(store, one, merged, dry_run)
        advance(one.size)
    for record in source.records():
        _add_record(store, record, merged, dry_run)
    merged.damaged += source.damaged
    return merged


def _require_room(source: Source, store: Store) -> None:
    """Find out before anything is written that the disk is too small.

    Raises:
        StoreError: it is.
    """
    needed = sum(one.size for one in source.artifacts() if not store.has(*one.stage))
    source.damaged.clear()  # it is said when they are added
    free = shutil.disk_usage(store.root).free
    if needed > free:
        raise StoreError(f"the store {store.root} has {free} bytes free, {needed} are needed")


def _add_artifact(store: Store, one: Incoming, merged: Merged, dry_run: bool) -> None:
    state = _compared(store, one)
    if state == "other":
        merged.differences.append(
            f"the {one.stage[0]} artifact {one.stage[1]} was computed twice with different results; "
            "the one in the store stays"
        )
    if state in ("same", "other"):
        merged.present += 1
        return
    if not dry_run:
        try:
            store.adopt(*one.stage, one.meta, one.tensors(), damaged=state == "damaged")
        except CorruptArtifact as error:
            merged.damaged.append(str(error))
            return
    merged.artifacts.append(one.stage)
    merged.size += one.size
    if state == "damaged":
        merged.repaired.append(one.stage)


def _compared(store: Store, one: Incoming) -> Literal["absent", "same", "other", "damaged"]:
    """What the store has in place of an artifact."""
    folder = store.folder(*one.stage)
    if not os.path.lexists(folder):
        return "absent"
    try:
        store.verify(*one.stage)
        content = jsonfile.read_object(folder / META)
        return "same" if content["files"][TENSORS]["sha256"] == one.sha256 else "other"
    except CorruptArtifact:
        return "damaged"


def _add_record(store: Store, record: Record, merged: Merged, dry_run: bool) -> None:
    here = store.record(record.track.name, record.key)
    if here and (here.status == "done" or record.status != "done"):
        merged.present += 1
        if here.status == record.status == "done" and (told := _difference(here, record)):
            merged.differences.append(told)
        return
    merged.records.append(record.key)
    if not dry_run:
        store.write_record(record)


def _difference(here: Record, there: Record) -> str:
    """How the numbers of two records of one key differ; empty if they do not."""
    ours, theirs = here.to_json(), there.to_json()
    if all(ours[name] == theirs[name] for name in _NUMBERS):
        return ""
    names = sorted(here.metrics.keys() | there.metrics.keys())
    changed = []
    for name in names:
        one, other = here.metrics.get(name), there.metrics.get(name)
        if one != other:
            whole = bool(one and other and one.value == other.value)
            values = [_told(value, whole) for value in (one, other)]
            changed.append(f"{name} {values[0]}, there {values[1]}")
    shown = "; ".join(changed[:3]) or "in single classes or images"
    more = f" and {len(changed) - 3} more" if changed[3:] else ""
    return f"the record {here.key} differs from the one in the store, which stays: here {shown}{more}"


def _told(metric: MetricValue | None, whole: bool) -> str:
    """A number of a record; ``whole``: with its interval."""
    if metric is None:
        return "none"
    if not whole or metric.low is None or metric.high is None:
        return f"{metric.value:.6g}"
    return f"{metric.value:.6g} [{metric.low:.6g}, {metric.high:.6g}]"
