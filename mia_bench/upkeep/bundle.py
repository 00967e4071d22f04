"""Bundles: records and artifacts in one tar file, with a manifest of their sizes and hashes.

A bundle holds regular files alone, with the names that they have in a store, and ``manifest.json`` first.
Tensors are not compressed, so a bundle is as large as what it holds. The same content gives the same bytes.

Reading trusts nothing: not what ``tarfile`` would accept, but only headers as they are written here, of files
that the manifest names, with the sizes and hashes that it says.
"""

from __future__ import annotations

import hashlib
import re
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mia_bench import jsonfile
from mia_bench.errors import CorruptArtifact, MiaBenchError, StoreError
from mia_bench.names import COMPONENT, KEY
from mia_bench.origin import StageId
from mia_bench.provenance import package_version
from mia_bench.record import Record, check_record
from mia_bench.store import ARTIFACTS, META, TENSORS, Store, write_whole
from mia_bench.upkeep.incoming import Incoming, incoming, pieces
from mia_bench.upkeep.selection import Selection

BUNDLE_SCHEMA = 1
MANIFEST = "manifest.json"
_BLOCK = tarfile.BLOCKSIZE
_LONGEST = 100
"""Characters of a name that a plain header of tar holds."""
_NAME = re.compile(
    r"artifacts/([^/]+)/([^/]+)/(?:meta\.json|tensors\.safetensors)|records/([^/]+)/([^/]+)\.json"
)

Advance = Callable[[int], Any]


# --- writing ---------------------------------------------------------------------------------


def write_bundle(path: Path, chosen: Selection, advance: Advance) -> int:
    """Write a bundle, which appears whole or not at all; its size in bytes.

    Raises:
        StoreError: something chosen is damaged or can't be read.
        OSError: the file can't be written.
    """
    store = chosen.contents.store
    small: dict[str, bytes] = {}
    large: dict[str, StageId] = {}
    files: dict[str, dict[str, Any]] = {}
    for record in chosen.records:
        data = _read(store.record_path(record.track, record.key))
        _checked_record(data, f"records/{record.track}/{record.key}.json")
        small[f"records/{record.track}/{record.key}.json"] = data
    for artifact in chosen.artifacts:
        noted = _noted(store, artifact.id)
        folder = "/".join((ARTIFACTS, *artifact.id))
        small[f"{folder}/{META}"], large[f"{folder}/{TENSORS}"] = noted.meta, artifact.id
        files[f"{folder}/{TENSORS}"] = {"bytes": noted.size, "sha256": noted.sha256}
    for name, data in small.items():
        files[name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    for name in files:
        if len(name) > _LONGEST:
            raise StoreError(f"{name} is too long a name for a bundle")
    manifest = jsonfile.seal(
        {"bundle": BUNDLE_SCHEMA, "mia_bench": package_version("mia-bench"), "files": files}
    )
    written = 0

    def content() -> Iterator[bytes]:
        nonlocal written
        text = jsonfile.file_text(manifest).encode()
        for name in (MANIFEST, *sorted(files)):
            size = len(text) if name == MANIFEST else files[name]["bytes"]
            yield _header(name, size)
            if name in large:
                yield from _copied(store, large[name], files[name], advance)
            else:
                yield text if name == MANIFEST else small[name]
            yield b"\0" * (-size % _BLOCK)
            written += _BLOCK + size + -size % _BLOCK
        yield b"\0" * (2 * _BLOCK)
        written += 2 * _BLOCK

    write_whole(path, content())
    return written


def _read(path: Path) -> bytes:
    try:
        return jsonfile.read_file(path, jsonfile.LARGEST)
    except OSError as error:
        raise StoreError(f"{path} can't be read: {error.strerror or error}") from error
    except ValueError as error:
        raise StoreError(f"{path} is damaged ({error})") from error


def _noted(store: Store, stage: StageId) -> Incoming:
    """An artifact of the store whose notes are right."""
    store.info(*stage)
    path = store.folder(*stage)
    return incoming(stage, _read(path / META), lambda: pieces(path / TENSORS))


def _header(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = size
    return info.tobuf(tarfile.GNU_FORMAT)


def _copied(store: Store, stage: StageId, expected: dict[str, Any], advance: Advance) -> Iterator[bytes]:
    """The tensors of an artifact, checked while they are copied."""
    found, count = hashlib.sha256(), 0
    for piece in pieces(store.folder(*stage) / TENSORS):
        found.update(piece)
        count += len(piece)
        if count > expected["bytes"]:
            break
        advance(len(piece))
        yield piece
    if (count, found.hexdigest()) != (expected["bytes"], expected["sha256"]):
        raise CorruptArtifact(*stage, "the hash differs")


# --- reading ---------------------------------------------------------------------------------


class Bundle:
    """A bundle that is read.

    Raises:
        StoreError: it is none; its methods raise it too.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.damaged: list[str] = []
        self._places: dict[str, int] = {}
        try:
            jsonfile.file_size(path)  # reading a pipe would wait
        except ValueError as error:
            raise self._refused(str(error)) from error
        name, size, start = self._member(0) or ("", 0, 0)
        if name != MANIFEST:
            raise self._refused(f"it does not begin with {MANIFEST}")
        if size > jsonfile.LARGEST:
            raise self._refused(f"{MANIFEST} has {size} bytes")
        self._files = self._read_manifest(b"".join(pieces(path, start, size)))
        self._first = start + _padded(size)

    @property
    def size(self) -> int:
        """The size of all files in it."""
        return sum(size for size, _ in self._files.values())

    def check(self, advance: Advance) -> None:
        """Check every file of the bundle: name, size, hash, and that it is an artifact's or a record."""
        place = self._first
        while found := self._member(place):
            name, size, start = found
            if name not in self._files:
                raise self._refused(f"the manifest does not name {name}")
            if name in self._places:
                raise self._refused(f"{name} is there twice")
            expected, sha256 = self._files[name]
            if size != expected:
                raise self._refused(f"{name} has {size} bytes, not {expected}")
            digest = hashlib.sha256()
            for piece in pieces(self._path, start, size):
                digest.update(piece)
                advance(len(piece))
            if digest.hexdigest() != sha256:
                raise self._refused(f"the hash of {name} differs")
            self._places[name] = start
            place = start + _padded(size)
        if missing := sorted(self._files.keys() - self._places):
            raise self._refused(f"{missing[0]} is missing")
        try:
            for one in self.artifacts():
                size, sha256 = self._files["/".join((ARTIFACTS, *one.stage, TENSORS))]
                if (one.size, one.sha256) != (size, sha256):
                    raise CorruptArtifact(*one.stage, "the manifest and its notes differ")
            for _ in self.records():
                pass
        except MiaBenchError as error:
            raise self._refused(str(error)) from error

    def artifacts(self) -> Iterator[Incoming]:
        """Its artifacts, once it was checked."""
        for name in sorted(self._files):
            root, stage, key, *file = name.split("/")
            if root == ARTIFACTS and file == [META]:
                place = self._places[f"{ARTIFACTS}/{stage}/{key}/{TENSORS}"]
                size, _ = self._files[f"{ARTIFACTS}/{stage}/{key}/{TENSORS}"]
                yield incoming((stage, key), self._content(name), _Reader(self._path, place, size))

    def records(self) -> Iterator[Record]:
        """Its records, once it was checked."""
        for name in sorted(self._files):
            if name.startswith("records/"):
                yield _checked_record(self._content(name), name)

    def _content(self, name: str) -> bytes:
        return b"".join(pieces(self._path, self._places[name], self._files[name][0]))

    def _refused(self, reason: str) -> StoreError:
        return StoreError(f"{self._path} is no bundle that can be imported: {reason}")

    def _member(self, place: int) -> tuple[str, int, int] | None:
        """Name, size and place of the content of the file whose header is at ``place``; None at the end."""
        try:
            with self._path.open("rb") as file:
                file.seek(place)
                block = file.read(_BLOCK)
        except OSError as error:
            raise StoreError(f"{self._path} can't be read: {error.strerror or error}") from error
        if len(block) < _BLOCK:
            raise self._refused("it ends too early")
        if not any(block):
            return None
        try:
            info = tarfile.TarInfo.frombuf(block, "ascii", "strict")
        except (tarfile.HeaderError, UnicodeError, ValueError) as error:
            raise self._refused("it is no tar file, or a damaged one") from error
        if info.type != tarfile.REGTYPE or info.linkname or info.size < 0:
            raise self._refused(f"{info.name!r} is no regular file")
        start = place + _BLOCK
        if start + _padded(info.size) > self._path.stat().st_size:
            raise self._refused("it ends too early")
        return info.name, info.size, start

    def _read_manifest(self, data: bytes) -> dict[str, tuple[int, str]]:
        """The size and hash of each file by its name."""
        try:
            content = jsonfile.parse_object(data)
            if isinstance(schema := content.get("bundle"), int) and schema > BUNDLE_SCHEMA:
                raise ValueError(f"a newer version wrote it (schema {schema}): upgrade mia-bench")
            if content.get("bundle") != BUNDLE_SCHEMA or not jsonfile.seal_holds(content):
                raise ValueError(f"the hash of {MANIFEST} differs")
            files = {name: (file["bytes"], file["sha256"]) for name, file in content["files"].items()}
            for name, (size, sha256) in files.items():
                _check_name(name)
                small = not name.endswith(TENSORS)
                if not isinstance(size, int) or size < 0 or (small and size > jsonfile.LARGEST):
                    raise ValueError(f"{name} has {size} bytes")
                if not isinstance(sha256, str):
                    raise ValueError(f"{name} has no hash")
                if name.startswith(f"{ARTIFACTS}/"):
                    other = name.removesuffix(META) + TENSORS if small else name.removesuffix(TENSORS) + META
                    if other not in files:
                        raise ValueError(f"{other} is missing")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise self._refused(str(error)) from error
        return files


class _Reader:
    """Reads a part of a file, in pieces."""

    def __init__(self, path: Path, start: int, size: int) -> None:
        self._path, self._start, self._size = path, start, size

    def __call__(self) -> Iterator[bytes]:
        return pieces(self._path, self._start, self._size)


def _padded(size: int) -> int:
    return size + -size % _BLOCK


def _check_name(name: str) -> None:
    """Check that a file of a store has such a name.

    Raises:
        ValueError: none has.
    """
    found = _NAME.fullmatch(name)
    stage, key, track, record = found.groups() if found else (None,) * 4
    if not (COMPONENT.matches(stage or track) and KEY.matches(key or record)):
        raise ValueError(f"{name!r} is no name of a store's file")


def _checked_record(data: bytes, name: str) -> Record:
    """A record whose hash is right, and that has its file's name.

    Raises:
        MiaBenchError: it is damaged, of a newer version, or of another cell.
    """
    try:
        content = jsonfile.parse_object(data)
    except ValueError as error:
        raise MiaBenchError(f"the record {name} is damaged ({error})") from error
    record = check_record(content, f"the record {name}")
    if name != f"records/{record.track.name}/{record.key}.json":
        raise MiaBenchError(f"the record {name} is of another cell ({record.track.name} {record.key})")
    return record
