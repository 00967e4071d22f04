"""Published weight files: found locally, or downloaded once.

A local file takes precedence. An interrupted download is resumed, and gets its final name only when it is
complete and has the published SHA-256, if there is one.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from etils.epy import lazy_imports

from mia_bench.api.component import Published
from mia_bench.api.progress import Progress
from mia_bench.errors import MiaBenchError, Unavailable
from mia_bench.paths import cache_folder

with lazy_imports():
    # Every command imports this module, few need the network.
    import http.client
    from urllib import error as urllib_error
    from urllib import request as urllib_request

    import filelock

CHUNK = 1 << 20
TIMEOUT = 30.0
"""Seconds to wait for data."""


def weights_cache() -> Path:
    """The folder for downloads if no folder of weights is configured."""
    return cache_folder() / "weights"


def file_hash(path: Path) -> str:
    """SHA-256 of a file, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def find(name: str | Path, folder: Path | None) -> Path | None:
    """The path of a file in ``folder``, else in the cache, else None."""
    places = (place / name for place in (folder, weights_cache()) if place is not None)
    return next((path for path in places if path.is_file()), None)


def obtain(file: Published, folder: Path | None, progress: Progress) -> Path:
    """The file in ``folder`` or in the cache; otherwise download it, into ``folder`` if there is one.

    Raises:
        Unavailable: the download failed; the message says where to put the file by hand.
        MiaBenchError: the local or the downloaded file has another hash than the published one.
    """
    if (found := find(file.name, folder)) is not None:
        return check_hash(found, file)
    target = (folder or weights_cache()) / file.name
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # One process downloads, others wait for it.
        with filelock.FileLock(target.with_name(f".{file.name}.lock")):
            return check_hash(target, file) if target.is_file() else _fetched(file, target, progress)
    except OSError as error:
        raise MiaBenchError(f"{target} can't be written: {error.strerror or error}") from error


def _fetched(file: Published, target: Path, progress: Progress) -> Path:
    """Download a file to ``target``; errors are those of :func:`obtain`."""
    part = target.with_name(f"{file.name}.part")
    try:
        _download(file.url, part, progress)
    except (urllib_error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
        reason = getattr(error, "reason", None) or error
        raise Unavailable(
            f"{file.name} can't be downloaded from {file.url} ({reason}): give the command again to go "
            f"on, or put the file into {target.parent}"
        ) from error
    except OSError as error:
        raise MiaBenchError(f"{part} can't be written: {error.strerror or error}") from error
    try:
        check_hash(part, file)
    except MiaBenchError:
        part.unlink()  # resuming it would fail again
        raise
    part.replace(target)
    return target


def check_hash(path: Path, file: Published) -> Path:
    """Return ``path`` if its hash is the published one, or if none is published.

    Raises:
        MiaBenchError: it is another file, or damaged.
    """
    if file.sha256:
        found = file_hash(path)
        if not found.startswith(file.sha256):
            raise MiaBenchError(
                f"{path} is not the file published at {file.url}: its SHA-256 begins with "
                f"{found[: len(file.sha256)]}, not {file.sha256}"
            )
    return path


def _download(url: str, part: Path, progress: Progress) -> None:
    """Append the missing bytes to ``part``; start over if the server can't resume."""
    have = part.stat().st_size if part.is_file() else 0
    request = urllib_request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        answer = urllib_request.urlopen(request, timeout=TIMEOUT)
    except urllib_error.HTTPError as error:
        if have and error.code == 416:  # nothing is missing, or the file has changed
            part.unlink()
            _download(url, part, progress)
            return
        raise
    with answer:
        resumed = have > 0 and answer.status == 206
        left = int(answer.headers.get("Content-Length") or 0)
        done = have if resumed else 0
        total = done + left
        with part.open("ab" if resumed else "wb") as file:
            while chunk := answer.read(CHUNK):
                file.write(chunk)
                done += len(chunk)
                if left:
                    progress(done >> 20, total >> 20, "MiB")
            file.flush()
            os.fsync(file.fileno())
        if left and done < total:
            raise ConnectionError(f"the connection ended after {done} of {total} bytes")
