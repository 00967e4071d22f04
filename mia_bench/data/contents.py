"""Hashes of the contents of files, kept from one run to the next.

A file is hashed again when its size or one of its times (modification, change) differs from what is kept.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from etils.epy import lazy_imports

from mia_bench.errors import DataError
from mia_bench.paths import SETTLED

with lazy_imports():
    from mia_bench import fetch, paths, store

log = logging.getLogger(__name__)


def content_hashes(root: Path, names: Sequence[str]) -> list[str]:
    """SHA-256 of each file ``root / name``, 64 hexadecimal digits.

    Raises:
        DataError: a file can't be read.
    """
    place = _kept_in(root)
    kept = _load(place)
    try:
        states = [_state(root / name) for name in names]
        stale = [i for i, name in enumerate(names) if kept.get(name, [])[:3] != states[i]]
        with threads() as pool:
            fresh = dict(zip(stale, pool.map(lambda i: fetch.file_hash(root / names[i]), stale), strict=True))
    except OSError as error:
        raise DataError(f"{error.filename} can't be read: {error.strerror}") from error
    hashes = [fresh.get(i) or str(kept[name][3]) for i, name in enumerate(names)]
    settled = time.time_ns() - SETTLED
    known: dict[str, list[int | str]] = {
        name: [*state, found]
        for name, state, found in zip(names, states, hashes, strict=True)
        if max(map(int, state[1:])) < settled
    }
    if any(kept.get(name) != found for name, found in known.items()):
        _save(place, {**kept, **known})
    return hashes


def content_fingerprint(root: Path, names: Sequence[str]) -> str:
    """A hash of the names and contents of files below ``root``, 16 hexadecimal digits.

    Raises:
        DataError: a file can't be read.
    """
    return combined(zip(names, content_hashes(root, names), strict=True))


def combined(parts: Iterable[tuple[str, str]]) -> str:
    """A hash of names, each with the hash of a content, 16 hexadecimal digits."""
    digest = hashlib.sha256()
    for name, content in parts:
        digest.update(f"{name}\0{content}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:16]


def threads() -> ThreadPoolExecutor:
    """Threads that read files."""
    return ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1))


def sealed(data: bytes) -> bytes:
    """The SHA-256 of ``data``, 32 bytes, then ``data``: the content of a cached file."""
    return hashlib.sha256(data).digest() + data


def unsealed(content: bytes) -> bytes | None:
    """What :func:`sealed` was given; None if it was changed."""
    digest, data = content[:32], content[32:]
    return data if hashlib.sha256(data).digest() == digest else None


def _state(path: Path) -> list[int | str]:
    status = path.stat()
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def _kept_in(root: Path) -> Path:
    name = hashlib.sha256(os.fsencode(root.resolve())).hexdigest()[:16]
    return paths.cache_folder() / "contents" / f"{name}.json"


def _load(path: Path) -> dict[str, list[int | str]]:
    """What :func:`_save` wrote; nothing if it is missing or damaged."""
    try:
        body = unsealed(path.read_bytes())
    except OSError:
        return {}
    kept: dict[str, list[int | str]] = json.loads(body) if body is not None else {}
    return kept


def _save(path: Path, known: Mapping[str, Sequence[int | str]]) -> None:
    try:
        store.write_whole(path, sealed(json.dumps(known).encode("ascii")))
    except OSError as error:
        log.debug("the hashes of files can't be kept in %s: %s", path, error)
