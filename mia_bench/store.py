"""The store: content-addressed artifacts, written atomically, guarded by locks; and records.

Layout::

    <store>/version.json
    <store>/artifacts/<stage>/<key>/{tensors.safetensors, meta.json}
    <store>/records/<track>/<key>.json
    <store>/checkpoints/<stage>-<key>.safetensors    of stages under way
    <store>/checkpoints/<stage>-<key>/               the same, for data sets
    <store>/pictures/  <store>/locks/

An artifact folder appears whole or not at all (it is renamed into place), and ``meta.json`` holds the
size and hash of the tensors, so that a file damaged later is found and computed again.
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
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import filelock
from etils.epy import lazy_imports

from mia_bench.errors import CorruptArtifact, MiaBenchError, StoreError, UsageError
from mia_bench.record import Record, check_record
from mia_bench.tensorfile import read_arrays, read_tensors, tensor_bytes

with lazy_imports():
    import safetensors
    from torch import Tensor

STORE_SCHEMA = 1
_TEMPORARY = ".tmp-"
_SWEEP_AFTER = 86400.0
log = logging.getLogger(__name__)


class Store:
    """A folder of artifacts and records; several processes may use it at once."""

    def __init__(self, root: Path) -> None:
        """Open, or make, the store at ``root``.

        Raises:
            UsageError: a newer version wrote it, it is no folder, or it can't be written.
        """
        self.root = root
        version = root / "version.json"
        try:
            if not version.exists():
                root.mkdir(parents=True, exist_ok=True)
                # Another run may be making this store now, or was killed while it did.
                strangers = [path for path in root.iterdir() if not path.name.startswith(_TEMPORARY)]
                if not strangers:
                    write_whole(version, (json.dumps({"schema": STORE_SCHEMA}) + "\n").encode())
                elif not version.exists():
                    raise UsageError(f"{root} is neither empty nor a store; choose another --store")
            schema = _read_json(version).get("schema")
            if not isinstance(schema, int) or schema > STORE_SCHEMA:
                raise UsageError(
                    f"the store {root} has schema {schema}; this version reads up to "
                    f"{STORE_SCHEMA}: upgrade mia-bench or choose another --store"
                )
        except ValueError as error:
            raise UsageError(f"{version} is not valid JSON: {error}") from error
        except OSError as error:
            raise UsageError(f"the store {root} can't be used: {error.strerror}") from error

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
        if not (self.root / "version.json").exists():
            raise StoreError(f"the store {self.root} is gone: it was deleted or moved during the run")

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        with explained(self.root):
            self.check_present()
            yield

    def sweep(self) -> None:
        """Remove what killed runs left: half-written and a day old, or of a stage that is stored."""
        for path in (self.root / "artifacts").glob(f"*/{_TEMPORARY}*"):
            with contextlib.suppress(OSError):
                if time.time() - path.stat().st_mtime > _SWEEP_AFTER:
                    shutil.rmtree(path)
        for path in (self.root / "checkpoints").glob("*/"):
            stage, _, key = path.name.partition("-")
            if self._folder(stage, key).is_dir():
                shutil.rmtree(path, ignore_errors=True)

    # --- artifacts ---------------------------------------------------------------------------

    def _folder(self, stage: str, key: str) -> Path:
        return self.root / "artifacts" / stage / key

    def has(self, stage: str, key: str) -> bool:
        """True when the artifact is there and its files have the sizes they were written with.

        A truncated one is discarded with a warning.
        """
        folder = self._folder(stage, key)
        if not folder.is_dir():
            return False
        try:
            meta = _read_json(folder / "meta.json")
            size = (folder / "tensors.safetensors").stat().st_size
            if size == meta["files"]["tensors.safetensors"]["bytes"]:
                return True
            reason = f"{size} bytes"
        except (OSError, ValueError, KeyError, TypeError) as error:
            reason = str(error)
        self.discard(stage, key, reason)
        return False

    def discard(self, stage: str, key: str, reason: str) -> None:
        """Drop a damaged artifact, so that it is computed again."""
        log.warning("the %s artifact %s is damaged (%s); it is computed again", stage, key, reason)
        shutil.rmtree(self._folder(stage, key), ignore_errors=True)

    def save(self, stage: str, key: str, tensors: Mapping[str, Tensor], info: Mapping[str, Any]) -> None:
        """Write an artifact; it appears whole or not at all."""
        final = self._folder(stage, key)
        with self._writing():
            final.parent.mkdir(parents=True, exist_ok=True)
            temporary = final.parent / _temporary_name()
            temporary.mkdir()
            try:
                size, digest = _write_synced(temporary / "tensors.safetensors", tensor_bytes(tensors))
                meta = {
                    "stage": stage,
                    "key": key,
                    "files": {"tensors.safetensors": {"bytes": size, "sha256": digest}},
                    "info": dict(info),
                }
                _write_synced(temporary / "meta.json", json.dumps(meta, indent=1).encode())
                if final.exists():
                    shutil.rmtree(final)
                temporary.rename(final)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)

    def info(self, stage: str, key: str) -> dict[str, Any]:
        """What the stage noted beside its tensors.

        Raises:
            CorruptArtifact: missing or unreadable.
        """
        with _corrupt_unless_read(stage, key):
            info: dict[str, Any] = _read_json(self._folder(stage, key) / "meta.json")["info"]
        return info

    def tensors(self, stage: str, key: str) -> dict[str, Tensor]:
        """The artifact's tensors.

        Raises:
            CorruptArtifact: the file is missing, truncated or altered.
        """
        with _corrupt_unless_read(stage, key):
            return read_tensors(self._verified(stage, key))

    def arrays(self, stage: str, key: str) -> dict[str, Any]:
        """The artifact's tensors as NumPy arrays, without importing torch."""
        with _corrupt_unless_read(stage, key):
            return read_arrays(self._verified(stage, key))

    def verify(self, stage: str, key: str) -> None:
        """Read the whole artifact.

        Raises:
            CorruptArtifact: a file is missing, truncated or altered.
        """
        self.info(stage, key)
        self._verified(stage, key)

    def _verified(self, stage: str, key: str) -> Path:
        """The file of an artifact's tensors, whose hash is right."""
        path = self._folder(stage, key) / "tensors.safetensors"
        with _corrupt_unless_read(stage, key):
            found = _file_hash(path)
            expected = _read_json(path.with_name("meta.json"))["files"][path.name]["sha256"]
        if found != expected:
            raise CorruptArtifact(f"{stage} artifact {key}: the hash differs")
        return path

    @contextlib.contextmanager
    def lock(self, stage: str, key: str, waiting: Callable[[], None]) -> Iterator[None]:
        """Hold the right to compute one artifact; ``waiting()`` is called if another run has it."""
        with self._writing():
            (self.root / "locks").mkdir(exist_ok=True)
            lock = filelock.FileLock(self.root / "locks" / f"{stage}-{key}.lock")
            try:
                lock.acquire(timeout=0)
            except filelock.Timeout:
                waiting()
                lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def checkpoint(self, stage: str, key: str) -> StoredCheckpoint:
        """The place for the state of a long stage that is under way."""
        return StoredCheckpoint(self, self.scratch(stage, key).with_suffix(".safetensors"))

    def scratch(self, stage: str, key: str) -> Path:
        """The folder for the unfinished work of a data set; it may be missing."""
        return self.root / "checkpoints" / f"{stage}-{key}"

    def clear(self, stage: str, key: str) -> None:
        """Remove what was kept while a stage was under way."""
        self.scratch(stage, key).with_suffix(".safetensors").unlink(missing_ok=True)
        shutil.rmtree(self.scratch(stage, key), ignore_errors=True)

    # --- records -----------------------------------------------------------------------------

    def record_path(self, track: str, key: str) -> Path:
        """Where a cell's record lies."""
        return self.root / "records" / track / f"{key}.json"

    def write_record(self, record: Record) -> None:
        """Write a cell's record atomically."""
        with self._writing():
            path = self.record_path(record.track.name, record.key)
            write_whole(path, record.file_text().encode())

    def record(self, track: str, key: str) -> Record | None:
        """A cell's record, or None if there is no valid one (with a warning if it is damaged)."""
        path = self.record_path(track, key)
        return _read_record(path, strict=False) if path.exists() else None

    def records(self, track: str | None = None, *, strict: bool = False) -> list[Record]:
        """The valid records, of one track or of all, oldest first.

        Raises:
            MiaBenchError: ``strict``, and one is damaged; otherwise a warning says so.
        """
        paths = sorted((self.root / "records").glob(f"{track or '*'}/*.json"))
        found = [_read_record(path, strict=strict) for path in paths]
        return sorted((r for r in found if r is not None), key=lambda r: r.provenance.finished)


@contextlib.contextmanager
def _corrupt_unless_read(stage: str, key: str) -> Iterator[None]:
    """Raise CorruptArtifact where a file of an artifact is missing or not as it was written."""
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CorruptArtifact(f"{stage} artifact {key}: {error}") from error


def _read_record(path: Path, *, strict: bool) -> Record | None:
    try:
        return check_record(_read_json(path), f"the record {path}")
    except (OSError, ValueError) as error:
        reason = f"the record {path} is damaged ({error})"
    except MiaBenchError as error:
        reason = str(error)
    if strict:
        raise MiaBenchError(reason)
    log.warning("%s; it is left out, and its cell computed again", reason)
    return None


class StoredCheckpoint:
    """A file with the state of a stage under way; see :class:`mia_bench.api.prior.Checkpoint`."""

    def __init__(self, store: Store, path: Path) -> None:
        self._store = store
        self._path = path

    def load(self) -> dict[str, Tensor] | None:
        """The state saved last, or None if there is none (with a warning if the file is damaged)."""
        try:
            return read_tensors(self._path)
        except FileNotFoundError:
            return None
        except (OSError, safetensors.SafetensorError) as error:
            log.warning("the checkpoint %s is damaged (%s); it begins anew", self._path, error)
            return None

    def save(self, state: Mapping[str, Tensor]) -> None:
        """Replace what was saved."""
        with self._store._writing():
            write_whole(self._path, tensor_bytes(state))


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


def _read_json(path: Path) -> dict[str, Any]:
    value = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(value, dict):
        raise ValueError(f"{path.name} holds no JSON object")
    return value


def _file_hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
    return f"{_TEMPORARY}{os.getpid()}-{uuid.uuid4().hex}"


def write_whole(path: Path, data: bytes | Iterable[bytes | memoryview]) -> None:
    """Write a file that appears whole or not at all, and its folder if need be; ``data`` may be in pieces."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / _temporary_name()
    try:
        _write_synced(temporary, data)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
