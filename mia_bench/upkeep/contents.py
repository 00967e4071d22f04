"""What lies in a store, from names, sizes and ``meta.json`` alone: hashes are for ``verify``."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeAlias

import pydantic_core

from mia_bench import jsonfile
from mia_bench.errors import StoreError
from mia_bench.names import COMPONENT, KEY
from mia_bench.origin import NOTED, StageId, stage_id
from mia_bench.store import (
    ABSENT,
    ARTIFACTS,
    CHECKPOINTS,
    LOCKS,
    META,
    OURS,
    PICTURES,
    RECORDS,
    SET_ASIDE,
    TEMPORARY,
    TENSORS,
    Store,
    named_stage,
)

Kind: TypeAlias = Literal["checkpoint", "lock", "picture", "set aside", "half-written", "other"]
"""What lies in a store beside artifacts and records; ``other`` is not the store's."""


@dataclass(frozen=True, slots=True)
class Artifact:
    """An artifact as its ``meta.json`` describes it.

    Attributes:
        stage, key: which.
        size: bytes of its files.
        modified: when it was stored here, in seconds since 1970.
        finished: when it was computed; as ``modified`` where that is not known.
        seconds: how long that took, 0 where it is not known.
        track, subject, settings, label: what was noted of its run; empty where it was not.
        seed: None in older ones.
        upstream: all that it was made from; None in older ones, of which it is not known.
        link: its folder is a link to somewhere else.
        problem: why it can't be used; empty where nothing is wrong.
        unreadable: the disk or its permissions are the problem.
    """

    stage: str
    key: str
    size: int
    modified: float
    finished: float
    seconds: float = 0.0
    track: str = ""
    subject: str = ""
    settings: str = ""
    label: str = ""
    seed: int | None = None
    upstream: tuple[StageId, ...] | None = None
    link: bool = False
    problem: str = ""
    unreadable: bool = False

    @property
    def id(self) -> StageId:
        """Stage name and key."""
        return self.stage, self.key

    @property
    def what(self) -> str:
        """In words, as far as it is known."""
        return self.label or self.subject or "–"


@dataclass(frozen=True, slots=True)
class RecordFile:
    """The file of a record, unread."""

    track: str
    key: str
    size: int
    modified: float

    @property
    def measure(self) -> StageId:
        """The stage whose artifact holds the numbers."""
        return "measure", self.key


@dataclass(frozen=True, slots=True)
class Leftover:
    """A file or folder beside artifacts and records; ``stage`` where it belongs to one."""

    kind: Kind
    path: Path
    size: int
    modified: float
    stage: StageId | None = None


Thing: TypeAlias = Artifact | RecordFile | Leftover
"""Whatever lies in a store."""


def total_size(*several: Iterable[Thing]) -> int:
    """Bytes of all of them."""
    return sum(one.size for things in several for one in things)


class Contents:
    """What lies in a store; each part is read when it is asked for.

    Raises:
        StoreError: a folder can't be read; so do its attributes.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self._known: dict[str, StageId] = {}

    @cached_property
    def artifacts(self) -> list[Artifact]:
        """Every artifact, by stage and key."""
        return list(self.read_artifacts())

    @cached_property
    def by_id(self) -> dict[StageId, Artifact]:
        """Every artifact by its stage and key."""
        return {one.id: one for one in self.artifacts}

    def read_artifacts(self, only: str = "") -> Iterator[Artifact]:
        """The artifacts of one stage or of all, one after the other."""
        for stage in _entries(self.store.root / ARTIFACTS):
            if COMPONENT.matches(stage.name) and only in ("", stage.name) and _is_folder(stage):
                for entry in _entries(Path(stage.path)):
                    if KEY.matches(entry.name) and _is_folder(entry):
                        yield self._artifact(stage.name, entry)

    @cached_property
    def records(self) -> list[RecordFile]:
        """The file of every record."""
        found = []
        for track in _entries(self.store.root / RECORDS):
            if COMPONENT.matches(track.name) and _is_folder(track):
                for entry in _entries(Path(track.path)):
                    key, ending = os.path.splitext(entry.name)
                    if ending == ".json" and KEY.matches(key) and entry.is_file():
                        status = entry.stat()
                        found.append(RecordFile(track.name, key, status.st_size, status.st_mtime))
        return found

    @cached_property
    def leftovers(self) -> list[Leftover]:
        """Everything else."""
        root = self.store.root
        return [*self._of_stages(root), *self._pictures(root), *self._set_aside(root), *self._strangers(root)]

    def _of_stages(self, root: Path) -> Iterator[Leftover]:
        for entry in _entries(root / CHECKPOINTS):
            half_written = entry.name.startswith(TEMPORARY)
            kind: Kind = "half-written" if half_written else "checkpoint"
            yield _leftover(kind, entry, named_stage(entry.name))
        for entry in _entries(root / LOCKS):
            yield _leftover("lock", entry, named_stage(entry.name))

    def _pictures(self, root: Path) -> Iterator[Leftover]:
        for entry in _entries(root / PICTURES):
            if entry.name != "priors":
                yield _leftover("picture", entry, ("measure", os.path.splitext(entry.name)[0]))
        for entry in _entries(root / PICTURES / "priors"):
            yield _leftover("picture", entry, ("prior", entry.name))

    def _set_aside(self, root: Path) -> Iterator[Leftover]:
        for part in _entries(root / SET_ASIDE):
            for folder in _entries(Path(part.path)) if _is_folder(part) else [part]:
                for entry in _entries(Path(folder.path)) if _is_folder(folder) else [folder]:
                    yield _leftover("set aside", entry)

    def _strangers(self, root: Path) -> Iterator[Leftover]:
        """What killed runs left half-written, and what is not the store's."""
        for entry in _entries(root):
            if entry.name not in OURS:
                yield _half_written_or_other(entry)
        for part in (ARTIFACTS, RECORDS):
            for folder in _entries(root / part):
                if not (COMPONENT.matches(folder.name) and _is_folder(folder)):
                    yield _half_written_or_other(folder)
                    continue
                for entry in _entries(Path(folder.path)):
                    if not (_is_artifact(entry) if part == ARTIFACTS else _is_record(entry)):
                        yield _half_written_or_other(entry)

    def _artifact(self, stage: str, entry: os.DirEntry[str]) -> Artifact:
        path, key = entry.path, entry.name
        size, modified = 0, 0.0
        try:
            files = [os.stat(os.path.join(path, name)) for name in (META, TENSORS)]
            size, modified = sum(file.st_size for file in files), files[0].st_mtime
            if not stat.S_ISREG(files[1].st_mode):
                raise ValueError(f"{TENSORS} is no regular file")
            # Rust's parser: a store may hold a hundred thousand of these. What it lets pass, verify finds.
            meta: Any = pydantic_core.from_json(jsonfile.read_file(Path(path, META), jsonfile.LARGEST))
            if (meta["stage"], meta["key"]) != (stage, key):
                raise ValueError(f"{META} is of another artifact")
            if meta["files"][TENSORS]["bytes"] != files[1].st_size:
                raise ValueError(f"{files[1].st_size} bytes instead of {meta['files'][TENSORS]['bytes']}")
            info = meta["info"]
            run, origin = info.get("run", {}), info.get(NOTED)
            upstream = None if origin is None else tuple(map(self._stage_id, origin["upstream"]))
            return Artifact(
                stage, key, size, modified,
                finished=_moment(run.get("finished")) or modified,
                seconds=float(run.get("seconds", 0.0)),
                track=str(run.get("track", "")),
                subject=str(run.get("subject", "")),
                settings=str(run.get("settings", "")),
                label=str(run.get("label", "")),
                seed=None if origin is None else origin["seed"],
                upstream=upstream,
                link=entry.is_symlink(),
            )  # fmt: skip
        except ABSENT as error:
            problem, unreadable = f"{Path(error.filename).name} is missing", False
        except OSError as error:
            problem, unreadable = f"it can't be read: {error.strerror or error}", True
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            lacks = isinstance(error, (KeyError, TypeError, AttributeError))
            problem, unreadable = f"{META} lacks what it must have: {error}" if lacks else str(error), False
        modified = modified or _modified(entry)
        return Artifact(
            stage, key, size, modified, modified,
            link=entry.is_symlink(), problem=problem, unreadable=unreadable,
        )  # fmt: skip

    def _stage_id(self, text: str) -> StageId:
        """One object for each stage, however many artifacts name it."""
        return self._known.setdefault(text, stage_id(text))


def _moment(text: str | None) -> float:
    """Seconds since 1970 of a time in ISO 8601; 0 without one."""
    return datetime.fromisoformat(text).timestamp() if text else 0.0


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """What a folder holds, sorted; nothing if it is no folder."""
    try:
        with os.scandir(folder) as found:
            return sorted(found, key=lambda entry: entry.name)
    except ABSENT:
        return []
    except OSError as error:
        raise StoreError(f"{folder} can't be read: {error.strerror or error}") from error


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False


def _is_artifact(entry: os.DirEntry[str]) -> bool:
    return KEY.matches(entry.name) and _is_folder(entry)


def _is_record(entry: os.DirEntry[str]) -> bool:
    key, ending = os.path.splitext(entry.name)
    return ending == ".json" and KEY.matches(key) and not _is_folder(entry)


def _half_written_or_other(entry: os.DirEntry[str]) -> Leftover:
    return _leftover("half-written" if entry.name.startswith(TEMPORARY) else "other", entry)


def _leftover(kind: Kind, entry: os.DirEntry[str], stage: StageId | None = None) -> Leftover:
    return Leftover(kind, Path(entry.path), _size(entry), _modified(entry), stage)


def _modified(entry: os.DirEntry[str]) -> float:
    try:
        return entry.stat(follow_symlinks=False).st_mtime
    except OSError:
        return 0.0


def _size(entry: os.DirEntry[str]) -> int:
    """Bytes of a file, or of all files below a folder; links are not followed."""
    try:
        if not entry.is_dir(follow_symlinks=False):
            return entry.stat(follow_symlinks=False).st_size
        with os.scandir(entry.path) as inner:
            return sum(map(_size, inner))
    except OSError:
        return 0
