"""The store: content-addressed artifacts, written atomically, guarded by locks; and records.

Layout::

    <store>/version.json
    <store>/artifacts/<stage>/<key>/{tensors.safetensors, meta.json}
    <store>/records/<track>/<key>.json
    <store>/checkpoints/<stage>-<key>.pt    of stages under way
    <store>/checkpoints/<stage>-<key>/      the same, for data sets
    <store>/pictures/  <store>/locks/
    <store>/set-aside/                               what was damaged, or of a newer version

An artifact folder appears whole or not at all (it is renamed into place). ``meta.json`` holds the size and
hash of the tensors and, as records do, a hash of itself (:mod:`mia_bench.jsonfile`), so that what is damaged
later is found.

What was read and is wrong counts as missing. It is moved to ``set-aside`` when something is written in its
place, never before, and never deleted. What can't be read, because of the disk or its permissions, is an
error, and nothing is changed.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import logging
import os
import shutil
import tempfile
import time
import uuid
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import filelock
from etils.epy import lazy_imports

from mia_bench import jsonfile
from mia_bench.errors import CorruptArtifact, MiaBenchError, StoreError, UsageError
from mia_bench.record import Record, check_record
from mia_bench.tensorfile import read_arrays, read_tensors, tensor_bytes
from mia_bench.text import one_line, shortened

with lazy_imports():
    import torch
    from torch import Tensor

STORE_SCHEMA = 1
ARTIFACTS, RECORDS, CHECKPOINTS, LOCKS = "artifacts", "records", "checkpoints", "locks"
PICTURES, SET_ASIDE, VERSION = "pictures", "set-aside", "version.json"
OURS = (ARTIFACTS, RECORDS, CHECKPOINTS, LOCKS, PICTURES, SET_ASIDE, VERSION)
"""What lies in the folder of a store."""

TENSORS, META = "tensors.safetensors", "meta.json"
"""What lies in the folder of an artifact."""

TEMPORARY = ".tmp-"
"""Beginning of the names of what is being written."""

RUN = "run"
"""In the names of locks, in place of a stage: a run is under way."""

_CHECKPOINT = ".pt"
_SWEEP_AFTER = 86400.0
CHECKPOINT_SECONDS = 120.0
"""How long a stage is computed until its state is saved again."""

ABSENT = (FileNotFoundError, NotADirectoryError)
log = logging.getLogger(__name__)


class Store:
    """A folder of artifacts and records; several processes may use it at once."""

    def __init__(self, root: Path, *, make: bool = True) -> None:
        """Open the store at ``root``.

        Args:
            root: its folder.
            make: make it if it is not there; else it is as if it were empty.

        Raises:
            UsageError: a newer version wrote it, it is no folder, or it can't be written.
        """
        self.root = root
        self._told: set[str] = set()
        version = root / VERSION
        try:
            if not os.path.lexists(version):
                if make:
                    root.mkdir(parents=True, exist_ok=True)
                there = root.iterdir() if os.path.lexists(root) else ()
                # Another run may be making this store now, or was killed while it did.
                if any(not path.name.startswith(TEMPORARY) for path in there):
                    if not version.exists():
                        raise UsageError(f"{root} is neither empty nor a store; choose another --store")
                elif make:
                    write_whole(version, (json.dumps({"schema": STORE_SCHEMA}) + "\n").encode())
                else:
                    return
            schema = jsonfile.read_object(version).get("schema")
            if not isinstance(schema, int) or schema > STORE_SCHEMA:
                raise UsageError(
                    f"the store {root} has schema {schema}; this version reads up to "
                    f"{STORE_SCHEMA}: upgrade mia-bench or choose another --store"
                )
        except ValueError as error:
            raise UsageError(
                f'{version} is not valid JSON ({error}); write {{"schema": {STORE_SCHEMA}}} in its '
                "place, or choose another --store"
            ) from error
        except OSError as error:
            raise UsageError(f"the store {root} can't be used: {error.strerror}") from error

    def _tell(self, line: str) -> None:
        """Warn, once."""
        if line not in self._told:
            self._told.add(line)
            log.warning("%s", line)

    def _tell_unsealed(self) -> None:
        self._tell(
            f"the store {self.root} has results from before results had a hash: a number that was changed in "
            "them is not found ('mia-bench run --rerun always' makes them anew)"
        )

    def _set_aside(self, path: Path) -> None:
        """Move what is damaged, or of a newer version, out of the way; it is kept."""
        with self._writing():
            place = self.root / SET_ASIDE / path.relative_to(self.root)
            place.parent.mkdir(parents=True, exist_ok=True)
            number = 0
            while os.path.lexists(
                free := place.with_name(f"{place.name}.{number}" if number else place.name)
            ):
                number += 1
            try:
                path.rename(free)
            except FileNotFoundError:  # another run did it
                return
        log.warning("moved %s to %s", path, free)

    def check_writable(self) -> None:
        """Find a read-only store before the work begins.

        Raises:
            UsageError: nothing can be written there.
        """
        try:
            with tempfile.TemporaryFile(dir=self.root):
                pass
        except OSError as error:
            raise UsageError(f"the store {self.root} is not writable: {error.strerror}") from error

    def check_present(self) -> None:
        """Find out whether somebody deleted or moved the store, before a part of it is made again.

        Raises:
            StoreError: it is gone.
        """
        if not (self.root / VERSION).exists():
            raise StoreError(f"the store {self.root} is gone: it was deleted or moved during the run")

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        with explained(self.root):
            self.check_present()
            yield

    def sweep(self) -> None:
        """Remove what killed runs left: half-written and a day old, or older than the stored stage it is of.

        What is younger than that belongs to a run that computes the stage anew.
        """
        artifacts, checkpoints = self.root / ARTIFACTS, self.root / CHECKPOINTS
        for path in (*artifacts.glob(f"*/{TEMPORARY}*"), *checkpoints.glob(f"{TEMPORARY}*")):
            with contextlib.suppress(OSError):
                if time.time() - path.stat().st_mtime > _SWEEP_AFTER:
                    _remove(path)
        for path in checkpoints.glob("[!.]*"):
            stage = named_stage(path.name)
            with contextlib.suppress(OSError):
                if self.has(*stage) and path.stat().st_mtime <= (self.folder(*stage) / META).stat().st_mtime:
                    _remove(path)

    # --- artifacts ---------------------------------------------------------------------------

    def folder(self, stage: str, key: str) -> Path:
        """Where an artifact lies."""
        return self.root / ARTIFACTS / stage / key

    def has(self, stage: str, key: str) -> bool:
        """True when the artifact is there and its files have the sizes they were written with.

        A damaged one counts as missing, with a warning. Nothing is changed.

        Raises:
            StoreError: it can't be read.
        """
        try:
            return self._meta(stage, key) is not None
        except CorruptArtifact as error:
            self._tell(f"{error}; it is computed again when a run needs it")
            return False

    def _meta(self, stage: str, key: str, folder: Path | None = None) -> dict[str, Any] | None:
        """The content of ``meta.json``, checked; None if there is no artifact, in its place or in ``folder``.

        Raises:
            CorruptArtifact: it is not as it was written, or the tensors have another size.
            StoreError: it can't be read.
        """
        folder = folder or self.folder(stage, key)
        with _damage_told_from_disk(stage, key):
            try:
                os.lstat(folder)
            except ABSENT:
                return None
            meta = jsonfile.read_object(folder / META)
            size = jsonfile.file_size(folder / TENSORS)
        unknown = meta.keys() - {"stage", "key", "files", "info", jsonfile.SEAL}
        sealed = jsonfile.SEAL in meta
        if unknown or (sealed and not jsonfile.seal_holds(meta)):
            raise CorruptArtifact(stage, key, f"the hash of {META} differs")
        if (meta.get("stage"), meta.get("key")) != (stage, key):
            raise CorruptArtifact(stage, key, f"{META} is of another artifact")
        try:
            expected = meta["files"][TENSORS]["bytes"]
            if not isinstance(meta["info"].get("run", {}), dict):
                raise TypeError("run is no object")
        except (AttributeError, KeyError, TypeError) as error:
            raise CorruptArtifact(stage, key, f"{META} lacks what it must have: {error}") from error
        if size != expected:
            raise CorruptArtifact(stage, key, f"{size} bytes instead of {expected}")
        if not sealed:
            self._tell_unsealed()
        return meta

    def _existing_meta(self, stage: str, key: str) -> dict[str, Any]:
        meta = self._meta(stage, key)
        if meta is None:
            raise CorruptArtifact(stage, key, "it is missing")
        return meta

    def metas(self, stage: str) -> Iterator[dict[str, Any]]:
        """What is noted of each artifact of a stage that can be read: sizes of files, and info."""
        with contextlib.suppress(OSError):
            for path in sorted((self.root / ARTIFACTS / stage).iterdir()):
                with contextlib.suppress(StoreError):
                    if not path.name.startswith(TEMPORARY) and (meta := self._meta(stage, path.name)):
                        yield meta

    def set_aside(self, error: CorruptArtifact) -> None:
        """Move a damaged artifact out of the way, so that it is computed again."""
        log.warning("%s; it is computed again", error)
        self._set_aside(self.folder(error.stage, error.key))

    def set_aside_if_damaged(self, stage: str, key: str, lacks: str = "") -> bool:
        """Read the whole artifact, and move it out of the way if it is damaged; whether it was.

        Args:
            stage, key: which artifact; another process may have made it again already.
            lacks: where in its info something was missing: ``part.of.it``.
        """
        with self.lock(stage, key, lambda: None):
            try:
                self.verify(stage, key)
                info: Any = self.info(stage, key)
                for name in filter(None, lacks.split(".")):
                    info = info[name]
            except CorruptArtifact as error:
                self.set_aside(error)
                return True
            return False

    def save(self, stage: str, key: str, tensors: Mapping[str, Tensor], info: Mapping[str, Any]) -> None:
        """Write an artifact; it appears whole or not at all."""
        with self._new_artifact(stage, key) as folder:
            size, digest = _write_synced(folder / TENSORS, tensor_bytes(tensors))
            files = {TENSORS: {"bytes": size, "sha256": digest}}
            meta = jsonfile.seal({"stage": stage, "key": key, "files": files, "info": info})
            _write_synced(folder / META, jsonfile.file_text(meta).encode())

    def adopt(
        self, stage: str, key: str, meta: bytes, tensors: Iterable[bytes], *, damaged: bool = False
    ) -> None:
        """Write an artifact as another store has it, unless it is damaged; it appears whole or not at all.

        Args:
            stage, key: which artifact.
            meta: its ``meta.json``.
            tensors: the file of its tensors, in pieces.
            damaged: what is in its place is damaged, and set aside.

        Raises:
            CorruptArtifact: it is not as it was written first.
        """
        with self._new_artifact(stage, key, damaged) as folder:
            _write_synced(folder / META, meta)
            _, digest = _write_synced(folder / TENSORS, tensors)
            noted = self._meta(stage, key, folder) or {"files": {}}
            if noted["files"][TENSORS].get("sha256") != digest:
                raise CorruptArtifact(stage, key, "the hash differs")

    def packed(self, stage: str, key: str) -> tuple[bytes, list[bytes]]:
        """An artifact as :meth:`adopt` takes it, for another store; errors as of :meth:`tensors`."""
        path = self._verified(stage, key)
        with _damage_told_from_disk(stage, key):
            return path.with_name(META).read_bytes(), [path.read_bytes()]

    @contextlib.contextmanager
    def _new_artifact(self, stage: str, key: str, damaged: bool = False) -> Iterator[Path]:
        """A folder to fill, which takes the artifact's place unless something fails."""
        final = self.folder(stage, key)
        with self._writing():
            final.parent.mkdir(parents=True, exist_ok=True)
            temporary = final.parent / _temporary_name()
            temporary.mkdir()
            try:
                yield temporary
                if not damaged and self.has(stage, key):
                    shutil.rmtree(final)
                elif os.path.lexists(final):
                    self._set_aside(final)
                temporary.rename(final)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)

    def remove(self, stage: str, key: str) -> bool:
        """Delete an artifact, whole or not at all; False if a run computes it now."""
        with self._unless_computed(stage, key) as idle:
            if idle:
                folder = self.folder(stage, key)
                temporary = folder.parent / _temporary_name()
                with contextlib.suppress(*ABSENT):
                    folder.rename(temporary)
                    shutil.rmtree(temporary)
                self._lock_path(stage, key).unlink(missing_ok=True)
        return idle

    def remove_lock(self, stage: str, key: str) -> bool:
        """Delete the lock file of an artifact; False if a run holds it."""
        with self._unless_computed(stage, key) as idle:
            if idle:
                self._lock_path(stage, key).unlink(missing_ok=True)
        return idle

    def computed_now(self, stage: str, key: str) -> bool:
        """Whether a run holds the right to compute an artifact."""
        if not self._lock_path(stage, key).exists():
            return False
        with self._unless_computed(stage, key) as idle:
            return not idle

    @contextlib.contextmanager
    def _unless_computed(self, stage: str, key: str) -> Iterator[bool]:
        """Hold the right to compute an artifact within the block, unless a run has it; says whether."""
        lock = self._lock(stage, key)
        with self._writing():
            self._lock_path(stage, key).parent.mkdir(exist_ok=True)
            try:
                lock.acquire(timeout=0)
            except filelock.Timeout:
                yield False
                return
            try:
                yield True
            finally:
                lock.release()

    def info(self, stage: str, key: str) -> dict[str, Any]:
        """What the stage noted beside its tensors. A field that it lacks is a CorruptArtifact, too.

        Raises:
            CorruptArtifact: missing or altered.
            StoreError: it can't be read.
        """
        fields = self._existing_meta(stage, key)["info"]
        nested = {name: _Info(stage, key, fields[name], f"{name}.") for name in ("run",) if name in fields}
        return _Info(stage, key, {**fields, **nested})

    def tensors(self, stage: str, key: str) -> dict[str, Tensor]:
        """The artifact's tensors.

        Raises:
            CorruptArtifact: the file is missing, truncated or altered.
            StoreError: it can't be read.
        """
        with _damage_told_from_disk(stage, key):
            return read_tensors(self._verified(stage, key))

    def arrays(self, stage: str, key: str) -> dict[str, Any]:
        """The artifact's tensors as NumPy arrays, without importing torch; errors as of :meth:`tensors`."""
        with _damage_told_from_disk(stage, key):
            return read_arrays(self._verified(stage, key))

    def verify(self, stage: str, key: str) -> None:
        """Read the whole artifact; errors as of :meth:`tensors`."""
        self._verified(stage, key)

    def _verified(self, stage: str, key: str) -> Path:
        """The file of an artifact's tensors, whose hash is right."""
        meta = self._existing_meta(stage, key)
        path = self.folder(stage, key) / TENSORS
        with _damage_told_from_disk(stage, key), path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != meta["files"][TENSORS].get("sha256"):
            raise CorruptArtifact(stage, key, "the hash differs")
        return path

    def _lock(self, stage: str, key: str) -> filelock.BaseFileLock:
        return filelock.FileLock(self._lock_path(stage, key))

    def _lock_path(self, stage: str, key: str) -> Path:
        return self.root / LOCKS / f"{stage}-{key}.lock"

    @contextlib.contextmanager
    def lock(self, stage: str, key: str, waiting: Callable[[], None]) -> Iterator[None]:
        """Hold the right to compute one artifact; ``waiting()`` is called if another run has it."""
        with self._writing():
            (self.root / LOCKS).mkdir(exist_ok=True)
            lock = self._lock(stage, key)
            try:
                lock.acquire(timeout=0)
            except filelock.Timeout:
                waiting()
                lock.acquire()
        try:
            yield
        finally:
            lock.release()

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        """Say within the block that a run is under way: it may need what no record needs yet."""
        name = uuid.uuid4().hex
        with self.lock(RUN, name, lambda: None):
            try:
                yield
            finally:
                with contextlib.suppress(OSError):  # the store is gone; Windows deletes no open file
                    self._lock_path(RUN, name).unlink()

    def checkpoint(self, stage: str, key: str, device: str = "cpu") -> StoredCheckpoint:
        """The place for the state of a long stage that is under way on a type of device."""
        return StoredCheckpoint(self, self._checkpoint_path(stage, key), device)

    def _checkpoint_path(self, stage: str, key: str) -> Path:
        return self.scratch(stage, key).with_suffix(_CHECKPOINT)

    def scratch(self, stage: str, key: str) -> Path:
        """The folder for the unfinished work of a data set; it may be missing."""
        return self.root / CHECKPOINTS / f"{stage}-{key}"

    def clear(self, stage: str, key: str) -> None:
        """Remove what was kept while a stage was under way."""
        self._checkpoint_path(stage, key).unlink(missing_ok=True)
        shutil.rmtree(self.scratch(stage, key), ignore_errors=True)

    # --- records -----------------------------------------------------------------------------

    def record_path(self, track: str, key: str) -> Path:
        """Where a cell's record lies."""
        return self.root / RECORDS / track / f"{key}.json"

    def write_record(self, record: Record) -> None:
        """Write a cell's record atomically. What is damaged in its place, or newer, is set aside.

        Raises:
            StoreError: the store is full or not writable, or what is there can't be read.
        """
        path = self.record_path(record.track.name, record.key)
        try:
            self.read_record(record.track.name, record.key)
        except StoreError:
            raise
        except MiaBenchError as error:
            self._tell(f"{error}; it is computed again")
            self._set_aside(path)
        with self._writing():
            write_whole(path, record.file_text().encode())

    def record(self, track: str, key: str) -> Record | None:
        """A cell's record, or None if there is no valid one (with a warning if it is damaged).

        Raises:
            StoreError: it can't be read.
        """
        return self._valid_record(track, key, strict=False)

    def records(self, track: str | None = None, *, strict: bool = False) -> list[Record]:
        """The valid records, of one track or of all, oldest first.

        Raises:
            MiaBenchError: ``strict``, and one is damaged; otherwise a warning says so.
            StoreError: one can't be read.
        """
        root = self.root / RECORDS
        folders = [path for path in _listing(root) if track in (None, path.name)]
        paths = [path for folder in folders for path in _listing(folder) if path.suffix == ".json"]
        found = [self._valid_record(path.parent.name, path.stem, strict=strict) for path in paths]
        return sorted((r for r in found if r is not None), key=lambda r: r.provenance.finished)

    def _valid_record(self, track: str, key: str, *, strict: bool) -> Record | None:
        try:
            return self.read_record(track, key)
        except StoreError:
            raise
        except MiaBenchError as error:
            if strict:
                raise
            self._tell(f"{error}; it is left out, and its cell computed again when a run needs it")
            return None

    def read_record(self, track: str, key: str) -> Record | None:
        """A cell's record, checked; None if there is none.

        Raises:
            MiaBenchError: it is damaged, of a newer version, or of another cell.
            StoreError: it can't be read.
        """
        path = self.record_path(track, key)
        try:
            data = jsonfile.read_object(path)
        except ABSENT:
            return None
        except OSError as error:
            raise StoreError(f"{path} can't be read: {error.strerror or error}") from error
        except ValueError as error:
            raise MiaBenchError(f"the record {path} is damaged ({error})") from error
        record = check_record(data, f"the record {path}")
        if (record.track.name, record.key) != (track, key):
            raise MiaBenchError(f"the record {path} is of another cell ({record.track.name} {record.key})")
        if jsonfile.SEAL not in data:
            self._tell_unsealed()
        return record


class _Info(dict[str, Any]):
    """What a stage noted; a field that is missing means that the artifact is damaged."""

    def __init__(self, stage: str, key: str, fields: Mapping[str, Any], path: str = "") -> None:
        super().__init__(fields)
        self._artifact, self._path = (stage, key), path

    def __missing__(self, name: str) -> Any:
        path = self._path + name
        raise CorruptArtifact(*self._artifact, f"{META} lacks {path!r}", path)


def named_stage(name: str) -> tuple[str, str]:
    """The stage and the key in the name of a checkpoint or a lock."""
    stage, _, key = name.partition(".")[0].partition("-")
    return stage, key


def _listing(folder: Path) -> list[Path]:
    """What a folder holds, sorted, without what killed processes left; nothing if it is no folder.

    Raises:
        StoreError: it can't be read.
    """
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith(TEMPORARY))
    except ABSENT:
        return []
    except OSError as error:
        raise StoreError(f"{folder} can't be read: {error.strerror or error}") from error


@contextlib.contextmanager
def _damage_told_from_disk(stage: str, key: str) -> Iterator[None]:
    """Raise CorruptArtifact where a file is missing or wrong, StoreError where the disk fails."""
    try:
        yield
    except ABSENT as error:
        raise CorruptArtifact(stage, key, f"{Path(error.filename).name} is missing") from error
    except OSError as error:
        raise StoreError(f"{error.filename} can't be read: {error.strerror or error}") from error
    except ValueError as error:
        raise CorruptArtifact(stage, key, str(error)) from error


class StoredCheckpoint:
    """The file with the state of a stage under way; see :class:`mia_bench.api.checkpoint.Checkpoint`.

    Attributes:
        earlier: seconds that the stage was computed for before the state was saved that was loaded.
    """

    def __init__(self, store: Store, path: Path, device: str = "cpu") -> None:
        """Note the time: the stage begins.

        Args:
            store: writes the file.
            path: of the file.
            device: type of the device; the result of one is not continued on another.
        """
        self._store, self._path, self._device = store, path, device
        self._began = self._saved = time.monotonic()
        self.earlier = 0.0

    @property
    def _environment(self) -> str:
        return f"torch {torch.__version__} on {self._device}"

    def due(self) -> bool:
        """Whether :data:`CHECKPOINT_SECONDS` have passed."""
        return time.monotonic() - self._saved >= CHECKPOINT_SECONDS

    def load(self) -> dict[str, Any] | None:
        """The state saved last; None, with a warning, if it is damaged or of another version of torch."""
        try:
            with zipfile.ZipFile(self._path) as archive:  # torch does not compare the checksums it writes
                if wrong := archive.testzip():
                    raise ValueError(f"the checksum of {wrong} differs")
            found = torch.load(self._path, map_location="cpu", weights_only=True)
            made_by, seconds, state = found["environment"], found["seconds"], found["state"]
        except FileNotFoundError:
            return None
        except OSError as error:  # a failing disk is no damage
            raise StoreError(f"{self._path} can't be read: {error.strerror or error}") from error
        except Exception as error:  # of a damaged file torch raises various ones
            reason = f"is damaged ({one_line(str(error))})"
        else:
            if made_by == self._environment:
                self.earlier = seconds
                return dict(state)
            reason = f"was made by {made_by}, this is {self._environment}"
        log.warning("the checkpoint %s %s; the stage begins anew", self._path, shortened(reason, 300))
        return None

    def reject(self) -> None:
        """What was loaded is of no use: the stage begins anew."""
        self.earlier = 0.0

    def save(self, state: Mapping[str, Any]) -> None:
        """Replace what was saved."""
        seconds = self.earlier + time.monotonic() - self._began
        saved = {"environment": self._environment, "seconds": seconds, "state": dict(state)}
        with (
            self._store._writing(),
            _appearing_whole(self._path) as temporary,
            temporary.open("wb") as file,
        ):
            torch.save(saved, file)
            file.flush()
            os.fsync(file.fileno())
        self._saved = time.monotonic()


@contextlib.contextmanager
def explained(root: Path) -> Iterator[None]:
    """Turn a full or read-only disk into one clear line."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StoreError(f"the store {root} is full; what is finished is kept") from error
        if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise StoreError(f"the store {root} is not writable: {error.strerror}") from error
        raise StoreError(f"the store {root}: {error}") from error


def _write_synced(path: Path, data: bytes | Iterable[bytes | memoryview]) -> tuple[int, str]:
    """Write a file, possibly from pieces; its size and SHA-256."""
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for piece in [data] if isinstance(data, bytes) else data:
            file.write(piece)
            digest.update(piece)
        file.flush()
        os.fsync(file.fileno())
        return file.tell(), digest.hexdigest()


def _temporary_name() -> str:
    """A name nobody else uses; not ``tempfile``'s, whose files only their owner may read."""
    return f"{TEMPORARY}{os.getpid()}-{uuid.uuid4().hex}"


def _remove(path: Path) -> None:
    """Delete a file, or a folder with what is in it."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


def write_whole(path: Path, data: bytes | Iterable[bytes | memoryview]) -> None:
    """Write a file that appears whole or not at all, and its folder if need be; ``data`` may be in pieces."""
    with _appearing_whole(path) as temporary:
        _write_synced(temporary, data)


@contextlib.contextmanager
def _appearing_whole(path: Path) -> Iterator[Path]:
    """Where to write a file that takes its place at ``path`` when the block ends without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / _temporary_name()
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
